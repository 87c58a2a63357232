//! What is known of a call so far: for the record, the span and the metrics of whatever becomes of it. It decides
//! nothing; the evidence that stages pass on is elsewhere.

use std::{sync::Arc, time::Instant};

use audit::record::{
    Asserted, Body, Connection, Digest, EntryMode, Observed, OwnCredential, Partial, Passed, Subject, Timings, Trace,
};
use jiff::Timestamp;
use model::{Agent, Delegation, Question, catalogue::IdentityMode, question, question::RequestFacts};
use token::Seen;

use crate::{
    accept::{Arrival, Incoming},
    decide::Asked,
    live::{Left, Told},
    overload::UnderWay,
    record,
    resolve::{Call, CallBody, Recognised},
    trace::Ids,
};

/// A call's trail.
#[derive(Debug)]
pub(crate) struct Trail {
    pub(crate) arrival: Arrival,
    stage: &'static str,
    entered: Instant,
    pub(crate) timings: Timings,
    pub(crate) ids: Option<Ids>,
    pub(crate) delegation: Option<Arc<Delegation>>,
    pub(crate) seen: Option<Box<Seen>>,
    question: Option<Arc<Question>>,
    pub(crate) input_digest: Option<Digest>,
    pub(crate) identity_mode: Option<IdentityMode>,
    pub(crate) entry: EntryMode,
    request: Option<RequestFacts>,
    call: Option<question::Call>,
    recognised: Option<Known>,
    registration: Option<Arc<Agent>>,
    body: Body,
    /// What was let through because the action is only observed.
    pub(crate) observed: Option<Box<Observed>>,
    /// What is known of a call that is passed through.
    pub(crate) passed: Option<Box<PassedTrail>>,
    /// The room that the call takes.
    pub(crate) under_way: Option<UnderWay>,
    /// What is told of it, where somebody listens.
    pub(crate) told: Option<Box<Told>>,
}

/// What a request was recognised as, before its parameters are known.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) tool: model::Id<model::Tool>,
    pub(crate) action: model::Id<model::Action>,
    effect: model::Effect,
    resource: String,
}

/// What is known of a call that is passed through, beside what it was recognised as.
#[derive(Debug, Clone)]
pub(crate) struct PassedTrail {
    pub(crate) tool: model::Id<model::Tool>,
    pub(crate) tenant: model::Id<model::Tenant>,
    pub(crate) owner: String,
    pub(crate) until: Timestamp,
    pub(crate) credential: OwnCredential,
    pub(crate) connection: Option<Connection>,
    pub(crate) asserted: Asserted,
}

impl Trail {
    pub(crate) fn new(arrival: Arrival) -> Self {
        Self {
            stage: "accept",
            entered: arrival.instant,
            arrival,
            timings: Timings::new(),
            ids: None,
            delegation: None,
            seen: None,
            question: None,
            input_digest: None,
            identity_mode: None,
            entry: EntryMode::Delegated,
            request: None,
            call: None,
            recognised: None,
            registration: None,
            body: Body::Unseen,
            observed: None,
            passed: None,
            under_way: None,
            told: None,
        }
    }

    /// The next stage begins; the one before took until now.
    pub(crate) fn enter(&mut self, stage: &'static str) {
        self.leave();
        self.stage = stage;
    }

    /// The stage the call is in took until now.
    pub(crate) fn leave(&mut self) {
        let now = net::clock::monotonic();
        let took = now.saturating_duration_since(self.entered);
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.timings.add(self.stage, microseconds);
        if let Some(told) = &mut self.told {
            told.left(Left {
                stage: self.stage,
                microseconds,
                request: self.request.as_ref(),
                delegation: self.delegation.as_deref(),
                recognised: self.recognised.as_ref(),
                question: self.question.as_deref(),
            });
        }
        #[cfg(any(test, feature = "bench"))]
        crate::bench::took(self.stage, took);
        self.entered = now;
    }

    pub(crate) fn stage(&self) -> &'static str {
        self.stage
    }

    pub(crate) fn accepted(&mut self, incoming: &Incoming) {
        self.request = Some(RequestFacts {
            protocol: question::Protocol::Http,
            method: incoming.method().as_str().to_owned(),
            path: incoming.path().clone(),
            headers: std::collections::BTreeMap::new(),
        });
    }

    pub(crate) fn recognised(&mut self, recognised: &Recognised<'_>) {
        self.identity_mode = Some(recognised.tool.identity);
        self.recognised = Some(Known {
            tool: recognised.tool.id.clone(),
            action: recognised.action.id.clone(),
            effect: recognised.action.effect,
            resource: recognised.resource.clone(),
        });
    }

    pub(crate) fn resolved(&mut self, call: &Call<'_>) {
        self.request = Some(call.request.clone());
        self.call = Some(call.facts.clone());
        if let CallBody::Read(bytes) = &call.outgoing.body {
            self.body = Body::Read(Digest::of(bytes));
        }
    }

    pub(crate) fn registered(&mut self, agent: &Arc<Agent>) {
        self.registration = Some(Arc::clone(agent));
    }

    pub(crate) fn asked(&mut self, asked: &Asked) {
        self.input_digest = record::input_digest(asked.written());
        self.question = Some(Arc::clone(asked.question()));
    }

    pub(crate) fn known(&self) -> Option<&Known> {
        self.recognised.as_ref()
    }

    /// The tool that it is for, once that is known.
    pub(crate) fn tool(&self) -> Option<&model::Id<model::Tool>> {
        let known = self.recognised.as_ref().map(|known| &known.tool);
        known.or(self.passed.as_ref().map(|passed| &passed.tool))
    }

    pub(crate) fn body(&self) -> Body {
        self.body
    }

    pub(crate) fn trace(&self) -> Option<Trace> {
        self.ids.as_ref().map(Ids::recorded)
    }

    /// What a record of this call is about: the whole question, or what is known of it.
    pub(crate) fn subject(&self, now: Timestamp) -> Subject {
        if let Some(question) = &self.question {
            return Subject::Question(Arc::clone(question));
        }
        let partial = self.partial(now);
        match self.passed.as_deref().cloned() {
            None => Subject::Partial(Box::new(partial)),
            Some(PassedTrail { tool, tenant, owner, until, credential, connection, asserted }) => {
                let partial = Partial { tool: Some(tool), tenant: Some(tenant), ..partial };
                Subject::Passed(Box::new(Passed { partial, owner, until, credential, connection, asserted }))
            }
        }
    }

    /// What is known of it, where there is no question.
    fn partial(&self, now: Timestamp) -> Partial {
        let known = self.recognised.as_ref();
        let seen = self.seen.as_ref();
        Partial {
            id: self.arrival.id.clone(),
            now,
            delegation: self.delegation.clone(),
            user: seen.and_then(|seen| seen.user.clone()),
            agent: seen.and_then(|seen| seen.agent.clone()),
            tenant: seen.and_then(|seen| seen.tenant.clone()),
            run: seen.and_then(|seen| seen.run.clone()),
            task: seen.and_then(|seen| seen.task.clone()),
            request: self.request.clone(),
            tool: known.map(|known| known.tool.clone()),
            action: known.map(|known| known.action.clone()),
            effect: known.map(|known| known.effect),
            resource: known.map(|known| known.resource.clone()),
            parameters: self.call.as_ref().map(|call| call.parameters.clone()),
            registration: self.registration.as_deref().cloned(),
        }
    }
}
