//! What is told of one call while somebody listens: a line for each stage it left, one for the decision, one for its end.

use std::sync::Arc;

use audit::CallSettled;
use bytes::Bytes;
use model::{Code, Delegation, Id, Obligation, Reason, Verdict, id::DecisionMark, question::RequestFacts};
use serde_json::{Map, Value, json};

use super::{Known, Listener, Live};
use crate::trail;

/// The most that is told of a text that others chose, in bytes.
const MAX_TEXT: usize = 512;

/// One call, and who may want to see it.
#[derive(Debug)]
pub(crate) struct Told {
    live: Arc<Live>,
    id: Id<DecisionMark>,
    /// Everything so far: whether it is wanted may show later than what is wanted of it. At most a line a stage.
    lines: Vec<Bytes>,
    known: Known,
    obligations: Vec<Value>,
    listeners: Vec<Shown>,
}

#[derive(Debug)]
struct Shown {
    listener: Arc<Listener>,
    /// How many of the lines it has; `None` before it is known that it wants the call.
    lines: Option<usize>,
}

/// What is known of a call when it leaves a stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left<'a> {
    pub(crate) stage: &'static str,
    pub(crate) microseconds: u64,
    pub(crate) request: Option<&'a RequestFacts>,
    pub(crate) delegation: Option<&'a Delegation>,
    pub(crate) recognised: Option<&'a trail::Known>,
    pub(crate) question: Option<&'a model::Question>,
}

impl Told {
    pub(super) fn new(live: Arc<Live>, id: Id<DecisionMark>, listeners: Vec<Arc<Listener>>) -> Self {
        let listeners = listeners.into_iter().map(|listener| Shown { listener, lines: None }).collect();
        Self { live, id, lines: Vec::new(), known: Known::default(), obligations: Vec::new(), listeners }
    }

    /// The call left a stage.
    pub(crate) fn left(&mut self, left: Left<'_>) {
        if self.listeners.is_empty() {
            return;
        }
        let mut line = Map::new();
        line.insert("stage".to_owned(), left.stage.into());
        line.insert("microseconds".to_owned(), left.microseconds.into());
        match (left.stage, left) {
            ("accept", Left { request: Some(request), .. }) => {
                line.insert("method".to_owned(), text(&request.method));
                line.insert("path".to_owned(), text(request.path.as_str()));
            }
            ("admit", Left { delegation: Some(delegation), .. }) => self.admitted(delegation, &mut line),
            ("resolve", Left { recognised: Some(recognised), .. }) => {
                self.known.action = Some(recognised.action.to_string());
                line.insert("tool".to_owned(), recognised.tool.as_str().into());
                line.insert("action".to_owned(), recognised.action.as_str().into());
            }
            ("decide", Left { question: Some(question), .. }) => {
                line.insert("resource".to_owned(), text(&question.call.resource));
                line.insert("facts".to_owned(), question.facts.0.keys().map(|name| text(name)).collect());
            }
            _ => {}
        }
        self.say("stage", line);
    }

    fn admitted(&mut self, delegation: &Delegation, line: &mut Map<String, Value>) {
        let chain = &delegation.chain;
        self.known.user = Some(chain.user().principal.clone());
        self.known.agents = chain.agents().map(|hop| hop.principal.clone()).collect();
        self.known.run = Some(delegation.run.to_string());
        line.insert("user".to_owned(), text(&chain.user().principal.to_string()));
        line.insert("agents".to_owned(), self.known.agents.iter().map(|agent| text(&agent.to_string())).collect());
        line.insert("tenant".to_owned(), delegation.tenant.as_str().into());
        line.insert("run_id".to_owned(), text(delegation.run.as_str()));
        line.insert("task_id".to_owned(), json!(delegation.task.id));
    }

    /// What its permit obliges to.
    pub(crate) fn obliges(&mut self, obligations: &[Obligation]) {
        self.obligations = obligations.iter().map(|one| text(&format!("{} ({})", one.duty, one.source))).collect();
    }

    /// It was decided on, and goes no further where it is refused.
    pub(crate) fn decided(&mut self, verdict: Verdict, code: Option<Code>, reasons: &[Reason], detail: Option<&str>) {
        self.known.code = code.map(Code::as_str);
        self.known.decided = true;
        let reason = |reason: &Reason| json!({ "code": text(&reason.code), "source": text(&reason.source) });
        let mut line = Map::new();
        line.insert("decision".to_owned(), verdict.as_str().into());
        line.insert("code".to_owned(), json!(code));
        line.insert("reasons".to_owned(), reasons.iter().map(reason).collect());
        if !self.obligations.is_empty() {
            line.insert("obligations".to_owned(), std::mem::take(&mut self.obligations).into());
        }
        if let Some(detail) = detail {
            line.insert("detail".to_owned(), text(detail));
        }
        self.say("decided", line);
    }

    /// What became of it.
    pub(crate) fn settled(&mut self, settled: &CallSettled) {
        let mut line = Map::new();
        line.insert("outcome".to_owned(), settled.outcome.as_str().into());
        line.insert("status".to_owned(), json!(settled.status));
        line.insert("code".to_owned(), json!(settled.code));
        line.insert("request_bytes".to_owned(), settled.request_bytes.into());
        line.insert("response_bytes".to_owned(), settled.response_bytes.into());
        if let Some(altered) = &settled.altered {
            line.insert("redactions".to_owned(), altered.values.into());
        }
        if let Some(withheld) = settled.withheld {
            line.insert("withheld".to_owned(), withheld.into());
        }
        for (stage, microseconds) in settled.timings.iter() {
            line.insert(format!("{stage}_microseconds"), microseconds.into());
        }
        self.say("settled", line);
    }

    fn say(&mut self, event: &str, mut line: Map<String, Value>) {
        line.insert("event".to_owned(), event.into());
        line.insert("decision_id".to_owned(), self.id.as_str().into());
        self.lines.push(Bytes::from(format!("{}\n", Value::Object(line))));
        let Self { live, lines, known, listeners, .. } = self;
        listeners.retain_mut(|shown| shown.tell(lines, known, live));
    }
}

impl Shown {
    /// Tells what it has not been told; false where it does not want the call, or any more of it.
    fn tell(&mut self, lines: &[Bytes], known: &Known, live: &Live) -> bool {
        let from = match self.lines {
            Some(told) => told,
            None => match self.listener.wanted.matches(known) {
                Some(true) if self.listener.takes(live) => 0,
                Some(_) => return false,
                None => return true,
            },
        };
        self.lines = Some(lines.len());
        lines.iter().skip(from).all(|line| self.listener.tell(line, live))
    }
}

fn text(text: &str) -> Value {
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default().into()
}
