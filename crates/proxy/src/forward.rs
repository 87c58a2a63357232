//! forward: sends what was decided, once, and streams the answer back. Consumes permit, credential, receipt and the
//! settlement that holds the charge: without each of them there is nothing to send. No redirect is followed; where `Location` and `Link` lead
//! to a tool, the agent is led to it through here.

mod body;
mod going;
mod links;
mod trailers;

use std::{sync::Arc, time::Duration};

use audit::{Receipt, record::Outcome};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use model::{Code, Effect, Id, Refusal, Retry, Tenant, Tool, Verdict, id::DecisionMark};
use net::{Body, HttpClient, NotSentReason, SendError};

pub(crate) use self::going::Going;
use self::{
    body::{Download, Upload},
    going::Shown,
    links::View,
    trailers::Trailers,
};
use crate::{
    assertion::TXN_TOKEN,
    config::tools::Upstream,
    credential::Secrets,
    headers,
    obligations::{Duties, Withheld},
    refuse::DECISION_ID,
    resolve::{CallBody, Outgoing},
    settle::{Flow, Settlement},
    sidecar::Sidecar,
    snapshot::Snapshot,
    trace::Traced,
    withdrawals::Watch,
};

/// How often a read that provably had no effect is sent.
const ATTEMPTS: usize = 3;

/// The type of a stream of server-sent events.
const EVENT_STREAM: &[u8] = b"text/event-stream";

/// The request goes out and there is no answer.
#[derive(Debug)]
pub(crate) struct Unanswered {
    pub(crate) refusal: Box<Refusal>,
    /// Whether the tool may have received it.
    pub(crate) sent: bool,
}

/// What may go: everything the stages before this one proved.
pub(crate) struct Cleared<'a> {
    pub(crate) going: Going<'a>,
    pub(crate) receipt: Receipt,
    /// What ends the call when it is taken back, where an authority is followed.
    pub(crate) watch: Option<Watch>,
}

/// Where the call goes, and what else the agent can reach.
pub(crate) struct Way<'a> {
    pub(crate) tenant: &'a Id<Tenant>,
    pub(crate) upstream: &'a Upstream,
    pub(crate) snapshot: &'a Snapshot,
}

/// Sends the call and returns the tool's answer, its body still flowing.
pub(crate) async fn forward(
    cleared: Cleared<'_>,
    way: Way<'_>,
    sidecar: &Arc<Sidecar>,
    trace: &Traced,
    mut settlement: Settlement,
) -> Result<Response<Body>, Unanswered> {
    let Cleared { going, receipt, watch } = cleared;
    if receipt.verdict() != Verdict::Permit || *receipt.id() != going.outgoing.arrival.id {
        let refusal = Refusal::new(Code::LedgerUnavailable, "The record is not of this decision.");
        return Err(not_sent(Box::new(refusal), &mut settlement));
    }
    let Way { tenant, upstream, snapshot } = way;
    let (effect, up) = (going.effect(), going.trailers(&snapshot.listener));
    let Going { outgoing, tool, duties, shown, .. } = going;
    let Outgoing { arrival, method, version, path, query, headers, body } = outgoing;
    let url = match upstream.base.url(path.as_str(), query.as_deref()) {
        Ok(url) => url,
        Err(error) => {
            let refusal = Refusal::new(Code::Malformed, "The path and query make no URL at the tool.");
            return Err(not_sent(Box::new(refusal.internally(error.to_string())), &mut settlement));
        }
    };
    let asked = method.clone();
    let span = sidecar.spans.tool(trace, &method, &upstream.base, &path);
    let fields = Fields {
        agents: &headers,
        version,
        traceparent: span.ids().traceparent(),
        trailer: up.announcement(&headers),
        shown: &shown,
        kept: duties.as_deref().map(|duties| (duties, &asked)),
    };
    let client = shown.client(&sidecar.client);
    let flow = settlement.flow();
    let tries = if effect == Effect::Read { ATTEMPTS } else { 1 };
    let mut attempt =
        Attempt { url, method, fields, body, trailers: up, flow, client, tries, timeout: upstream.timeout, watch };
    settlement.sending(span);
    match attempt.send().await {
        Err(Unsent::Withdrawn(refusal)) => Err(not_sent(refusal, &mut settlement)),
        Err(Unsent::Cut(refusal)) => {
            settlement.failed(Outcome::Cut, refusal.code, true);
            Err(Unanswered { refusal, sent: true })
        }
        Ok(response) if response.status().is_informational() => {
            // Nobody asked for another protocol, and no agent may be handed one.
            settlement.failed(Outcome::ToolBroke, Code::ToolUnreachable, true);
            let refusal = Refusal::new(Code::ToolUnreachable, "The tool did not answer with a response.");
            Err(Unanswered { refusal: Box::new(refusal), sent: true })
        }
        Ok(response) => {
            settlement.answered(response.status().as_u16());
            let secrets = shown.secrets();
            let seen = Seen {
                id: &arrival.id,
                trailers: trailers(&headers, &secrets, duties.as_deref()),
                secrets,
                view: view(tool, tenant, snapshot, &attempt.url),
                pause: upstream.pause,
                watch: attempt.watch,
                duties: duties.as_deref(),
                answers: (&asked, effect),
            };
            for_agent(response, seen, settlement)
        }
        Err(Unsent::Failed(error)) => Err(unanswered(&error, effect, attempt.flow.upload_broke(), &mut settlement)),
    }
}

/// Nothing of it goes out.
fn not_sent(refusal: Box<Refusal>, settlement: &mut Settlement) -> Unanswered {
    settlement.failed(Outcome::NotSent, refusal.code, false);
    Unanswered { refusal, sent: false }
}

/// The agent is told that there is an answer, and not what it is.
fn kept_back(
    duties: &Duties,
    withheld: Option<Withheld>,
    effect: Effect,
    settlement: &mut Settlement,
) -> Result<(), Unanswered> {
    let Some(withheld) = withheld else { return Ok(()) };
    settlement.failed(Outcome::Cut, Code::ResponseWithheld, true);
    settlement.withheld(withheld.word());
    Err(Unanswered { refusal: duties.refusal(withheld, effect), sent: true })
}

/// Trailers may speak of what is hidden before them.
fn trailers(headers: &HeaderMap, secrets: &Secrets, duties: Option<&Duties>) -> Trailers {
    match duties {
        Some(duties) if duties.redacts() => Trailers::default(),
        _ => Trailers::of_response(headers, secrets),
    }
}

fn view<'a>(tool: &'a Id<Tool>, tenant: &'a Id<Tenant>, snapshot: &'a Snapshot, url: &'a Uri) -> View<'a> {
    View { url, tool, tenant, catalogue: &snapshot.catalogue, upstreams: &snapshot.upstreams }
}

struct Attempt<'a> {
    url: Uri,
    method: Method,
    fields: Fields<'a>,
    body: CallBody,
    trailers: Trailers,
    flow: Arc<Flow>,
    client: &'a HttpClient,
    /// How often it is sent at most: what writes, once.
    tries: usize,
    timeout: Duration,
    watch: Option<Watch>,
}

/// Why there is no response.
enum Unsent {
    /// It was taken back before it was sent, or sent again.
    Withdrawn(Box<Refusal>),
    /// It was taken back while the answer was waited for.
    Cut(Box<Refusal>),
    /// The tool, or the way there.
    Failed(SendError),
}

impl Attempt<'_> {
    /// Sends the request; again only if it reads, and either provably had no effect and its body is still here, or has
    /// none and the tool hung up on a kept connection without a byte.
    async fn send(&mut self) -> Result<Response<Incoming>, Unsent> {
        let safe = matches!(self.method, Method::GET | Method::HEAD);
        let (mut left, mut unheard) = (self.tries, None);
        loop {
            if let Some(watch) = &self.watch {
                // What may have come to the tool was not kept from it.
                let unsent = if unheard.is_some() { Unsent::Cut } else { Unsent::Withdrawn };
                watch.last_look().map_err(unsent)?;
            }
            left -= 1;
            let (body, again) = self.body();
            let mut request = Request::new(Body::new(body));
            *request.method_mut() = self.method.clone();
            *request.uri_mut() = self.url.clone();
            *request.headers_mut() = self.fields.for_tool();
            match self.send_while_allowed(request).await {
                Err(Unsent::Failed(SendError::NotSent {
                    reason: NotSentReason::StaleConnection | NotSentReason::Unprocessed,
                    ..
                })) if again && left > 0 => {}
                Err(Unsent::Failed(error @ SendError::Interrupted { unheard: true, .. }))
                    if safe && again && left > 0 =>
                {
                    left = 1;
                    unheard = Some(error);
                }
                Err(Unsent::Failed(error)) => {
                    return Err(Unsent::Failed(unheard.filter(|_| error.is_not_sent()).unwrap_or(error)));
                }
                outcome => return outcome,
            }
        }
    }

    /// Gives up when the call is taken back meanwhile.
    async fn send_while_allowed(&self, request: Request<Body>) -> Result<Response<Incoming>, Unsent> {
        let Some(watch) = &self.watch else { return self.send_patiently(request).await.map_err(Unsent::Failed) };
        let outcome = tokio::select! {
            outcome = self.send_patiently(request) => outcome,
            () = watch.cut().ended() => return Err(Unsent::Cut(watch.ended())),
        };
        // A body that was broken off from here looks like a connection that broke.
        outcome.map_err(|error| if watch.is_ended() { Unsent::Cut(watch.ended()) } else { Unsent::Failed(error) })
    }

    /// The body to send, and whether there is another copy of it.
    fn body(&mut self) -> (Upload, bool) {
        let cut = self.watch.as_ref().map(|watch| Arc::clone(watch.cut()));
        match &mut self.body {
            CallBody::Read(bytes) => {
                let body = Body::full(Bytes::clone(bytes));
                (Upload::new(body, Arc::clone(&self.flow), false, Trailers::default(), cut), true)
            }
            CallBody::Unseen(body) => {
                let body = std::mem::take(body);
                let empty = http_body::Body::is_end_stream(&body);
                (Upload::new(body, Arc::clone(&self.flow), !empty, self.trailers.clone(), cut), empty)
            }
        }
    }

    /// Gives up when the tool neither took nor gave a byte for the whole of its timeout: a long upload is no delay.
    async fn send_patiently(&self, request: Request<Body>) -> Result<Response<Incoming>, SendError> {
        let mut sending = std::pin::pin!(self.client.send(request, Duration::MAX));
        let mut uploaded = self.flow.uploaded();
        loop {
            match tokio::time::timeout(self.timeout, &mut sending).await {
                Ok(outcome) => return outcome,
                Err(_) if self.flow.uploaded() > uploaded => uploaded = self.flow.uploaded(),
                Err(_) => {
                    let url = net::url::redacted(&self.url);
                    return Err(SendError::Timeout { url, after: self.timeout });
                }
            }
        }
    }
}

/// What a request's fields are made of. Most are sent once, so that there is nothing to copy.
struct Fields<'a> {
    agents: &'a HeaderMap,
    version: Version,
    traceparent: Option<HeaderValue>,
    trailer: Option<HeaderValue>,
    shown: &'a Shown<'a>,
    /// What is obliged to of the answer, and the method that is answered.
    kept: Option<(&'a Duties, &'a Method)>,
}

impl Fields<'_> {
    fn is_kept(&self, name: &HeaderName) -> bool {
        self.kept.is_some_and(|(duties, method)| duties.is_kept_from_tool(name, method))
    }

    /// The agent's fields, without those that stay here, and with ours.
    fn for_tool(&self) -> HeaderMap {
        let own = self.shown.field().map(|(name, _)| name);
        // Where it is for the tool, it is no token of ours.
        let token = self.agents.get(header::AUTHORIZATION).filter(|_| !self.shown.takes(&header::AUTHORIZATION));
        let is_token = |value| token.is_some_and(|token| headers::holds(value, token));
        let mut kept = HeaderMap::with_capacity(self.agents.len() + 3);
        for (name, value) in self.agents {
            if self.shown.takes(name) && own != Some(name) && !is_token(value) && !self.is_kept(name) {
                kept.append(name.clone(), value.clone());
            }
        }
        if self.kept.is_some() {
            kept.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        let via = if self.version == Version::HTTP_2 { "2 countersign" } else { "1.1 countersign" };
        kept.insert(header::VIA, HeaderValue::from_static(via));
        if let Some(traceparent) = &self.traceparent {
            kept.insert(HeaderName::from_static("traceparent"), traceparent.clone());
        }
        if trailers::takes(self.agents) {
            kept.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        if let Some((name, value)) = self.shown.field() {
            kept.insert(name.clone(), value.clone());
        }
        if let Some(assertion) = self.shown.assertion() {
            kept.insert(TXN_TOKEN, assertion.clone());
        }
        if let Some(names) = &self.trailer {
            kept.insert(header::TRAILER, names.clone());
        }
        kept
    }
}

/// How the agent sees the tool's answer.
struct Seen<'a> {
    id: &'a Id<DecisionMark>,
    secrets: Secrets,
    trailers: Trailers,
    view: View<'a>,
    /// The longest that the tool may let the agent wait in the middle of an answer.
    pause: Duration,
    watch: Option<Watch>,
    duties: Option<&'a Duties>,
    /// To what the tool answers.
    answers: (&'a Method, Effect),
}

/// The tool's answer as the agent may see it, if it may.
fn for_agent(
    response: Response<Incoming>,
    seen: Seen<'_>,
    mut settlement: Settlement,
) -> Result<Response<Body>, Unanswered> {
    let (head, body) = response.into_parts();
    let Seen { id, secrets, trailers, view, pause, watch, duties, answers: (method, effect) } = seen;
    if let Some(duties) = duties {
        let withheld = duties.withholds(&head, method, body.is_end_stream());
        kept_back(duties, withheld, effect, &mut settlement)?;
    }
    let mut fields = headers::for_agent(&head.headers, &secrets);
    view.rewrite(&mut fields);
    if let Some(names) = trailers.announcement(&head.headers) {
        fields.insert(header::TRAILER, names);
    }
    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        fields.insert(DECISION_ID, id);
    }
    if let Some(duties) = duties {
        duties.mark(&mut fields);
    }
    // Events come when something happens, and until then nothing is wrong.
    let events = head.headers.get(header::CONTENT_TYPE).is_some_and(is_event_stream);
    let pause = (!events).then_some(pause);
    let altering = duties.map(|duties| duties.altering(&head.headers));
    let mut answer = Response::new(Body::new(Download::new(body, settlement, trailers, pause, watch, altering)));
    *answer.status_mut() = head.status;
    *answer.headers_mut() = fields;
    Ok(answer)
}

fn is_event_stream(kind: &HeaderValue) -> bool {
    kind.as_bytes().get(..EVENT_STREAM.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(EVENT_STREAM))
}

/// No answer of the tool: whether it can have taken effect decides what the agent is told to do.
fn unanswered(error: &SendError, effect: Effect, agent_broke: bool, settlement: &mut Settlement) -> Unanswered {
    let sent = !error.is_not_sent();
    let (code, outcome) = match error {
        SendError::Timeout { .. } => (Code::ToolTimeout, Outcome::ToolTimeout),
        SendError::Interrupted { .. } if agent_broke => (Code::ToolUnreachable, Outcome::ClientGone),
        SendError::Interrupted { .. } | SendError::NotSent { .. } => (Code::ToolUnreachable, Outcome::ToolUnreachable),
    };
    settlement.failed(outcome, code, sent);
    let detail = match (sent, code) {
        (false, _) => "The tool could not be reached; the call was not sent.",
        (true, Code::ToolTimeout) => "The tool did not answer in time; the call may have taken effect.",
        (true, _) => "The connection to the tool broke; the call may have taken effect.",
    };
    let mut refusal = Refusal::new(code, detail).internally(error.to_string());
    if sent && effect != Effect::Read {
        // Whether to repeat it is for somebody to decide who has looked.
        refusal.retry = Retry::AfterChange;
    }
    Unanswered { refusal: Box::new(refusal), sent }
}

#[cfg(test)]
mod tests;
