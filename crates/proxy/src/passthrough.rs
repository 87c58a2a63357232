//! Rung 0 of the ladder (DESIGN §4): a call that shows no token of ours goes with the agent's own credential, where
//! configuration says so until a date. Nothing is decided about it and nobody is verified; all of it is on record first.
//!
//! What is ours goes the whole way, good or bad. The sidecar's own credentials are out of reach from here: a
//! [`PassedCall`] goes over connections that show nothing of the sidecar's, and there is no other way for it.

mod ours;

use std::{collections::BTreeSet, sync::Arc};

use audit::record::{Asserted, Connection, EntryMode, Mode, OwnCredential};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderName, Response};
use jiff::Timestamp;
use model::{
    Action, AgentStatus, CanonicalPath, Code, Decision, Effect, Id, Principal, Reason, Refusal, Tenant, Tool, Verdict,
    withdrawal::Passage,
};
use net::{Body, Peer, PeerAddress, PeerIdentity};

use self::ours::{Presented, carried, presented};
use crate::{
    accept::{Incoming, malformed},
    config::UnmappedConfig,
    forward::{Cleared, Going, Way, forward},
    handle::Stopped,
    record,
    resolve::{self, Outgoing, recognise, unread},
    sidecar::Sidecar,
    snapshot::Snapshot,
    trace::Traced,
    trail::{PassedTrail, Trail},
    withdrawals,
};

/// The longest name of a user that goes on record, in bytes.
const MAX_USER_BYTES: usize = 256;

/// How calls of one tool are passed through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passthrough {
    /// The accountable person.
    pub owner: String,
    /// From then on they are refused.
    pub until: Timestamp,
    /// The agent whose they are said to be.
    pub agent: Option<Id<Principal>>,
    /// The header field that says who their user is.
    pub user: Option<HeaderName>,
    /// The tenant that they are of.
    pub tenant: Id<Tenant>,
    /// The actions that need a delegated token all the same.
    pub except: BTreeSet<Id<Action>>,
    /// What becomes of those that no action is found for.
    pub unmapped: UnmappedConfig,
}

/// A request that shows no token of ours, to a tool whose calls are passed through.
#[derive(Debug)]
pub(crate) struct Passing<'a> {
    settings: &'a Arc<Passthrough>,
    tool: &'a Tool,
    /// The path below the tool's address.
    rest: CanonicalPath,
    credential: OwnCredential,
}

/// A call that is passed through: there is no permit for it, and no credential of the sidecar's.
#[derive(Debug)]
pub(crate) struct PassedCall<'a> {
    pub(crate) tool: &'a Tool,
    /// Where one was found.
    pub(crate) action: Option<&'a Action>,
    pub(crate) outgoing: Outgoing,
}

/// Whether a request is passed through; `None` where it has to be admitted as any other.
///
/// # Errors
/// `no_credential` where passing through is over, `malformed` where a token of ours would reach the tool in another place.
pub(crate) fn passing<'a>(
    incoming: &Incoming,
    snapshot: &'a Snapshot,
    now: Timestamp,
) -> Result<Option<Passing<'a>>, Box<Refusal>> {
    if !snapshot.observed.passes_any() {
        return Ok(None);
    }
    let Some((tool, rest)) = snapshot.catalogue.tool_at(incoming.path()) else { return Ok(None) };
    let Some(settings) = snapshot.observed.passthrough(&tool.id) else { return Ok(None) };
    let excepted = |(action, _): (&Action, _)| settings.except.contains(&action.id);
    if tool.action_for(incoming.method().as_str(), &rest).is_some_and(excepted) {
        return Ok(None);
    }
    let credential = match presented(incoming, &snapshot.verifier)? {
        Presented::Ours => return Ok(None),
        Presented::TheirOwn(credential) => credential,
    };
    if let Some(place) = carried(incoming, &snapshot.verifier) {
        return Err(malformed(&format!(
            "A token that is for this sidecar is in {place}, which would take it to the tool; send it in `Authorization`."
        )));
    }
    let passing = Passing { settings, tool, rest, credential };
    passing.goes_on(now)?;
    Ok(Some(passing))
}

impl Passing<'_> {
    /// Whether it is not over at the moment `now`.
    fn goes_on(&self, now: Timestamp) -> Result<(), Box<Refusal>> {
        let until = self.settings.until;
        if now < until {
            return Ok(());
        }
        let tool = &self.tool.id;
        let detail = format!(
            "Calls of `{tool}` without a delegated token were passed through until {until}, and are refused since."
        );
        Err(Box::new(Refusal::new(Code::NoCredential, detail)))
    }

    /// Whether whose calls they are said to be may act: what is only said can refuse, never allow.
    fn may_act(&self, sidecar: &Sidecar, snapshot: &Snapshot, effect: Effect) -> Result<(), Box<Refusal>> {
        let agents = || self.settings.agent.iter().flat_map(|id| snapshot.agents.named(id));
        if let Some(agent) = agents().find(|agent| agent.status != AgentStatus::Active) {
            let detail = format!("`{}`, whose calls these are said to be, may not act at present.", agent.id);
            return Err(Box::new(Refusal::new(Code::AgentSuspended, detail)));
        }
        let (Some(view), Some(following)) = (&sidecar.withdrawals, &snapshot.following) else { return Ok(()) };
        let tenant = std::iter::once(Passage::Tenant(self.settings.tenant.as_str()));
        let passages = tenant.chain(agents().map(|agent| Passage::Agent(&agent.issuer, agent.id.as_str())));
        withdrawals::untokened(view, following.bound(effect), passages)
    }

    /// What goes on record of it.
    fn on_record(&self, incoming: &Incoming) -> PassedTrail {
        let user = self.settings.user.as_ref().and_then(|name| user(incoming, name));
        PassedTrail {
            tool: self.tool.id.clone(),
            tenant: self.settings.tenant.clone(),
            owner: self.settings.owner.clone(),
            until: self.settings.until,
            credential: self.credential,
            connection: connection(&incoming.arrival().peer),
            asserted: Asserted { agent: self.settings.agent.clone(), user },
        }
    }
}

/// The one name that a request says in the field `name`, where that is a name.
fn user(incoming: &Incoming, name: &HeaderName) -> Option<String> {
    let mut values = incoming.headers().get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let text = std::str::from_utf8(value.as_bytes()).ok()?.trim();
    let is_name = !text.is_empty() && text.len() <= MAX_USER_BYTES && !text.contains(char::is_control);
    is_name.then(|| text.to_owned())
}

/// Who sent it, where the connection proves it.
fn connection(peer: &Peer) -> Option<Connection> {
    if let Some(certificate) = &peer.certificate {
        return Some(match &certificate.identity {
            PeerIdentity::Spiffe(id) => Connection::Spiffe(id.clone()),
            PeerIdentity::Subject(subject) => Connection::Subject(subject.clone()),
            PeerIdentity::SelfSigned => Connection::Certificate(URL_SAFE_NO_PAD.encode(certificate.x5t_s256)),
        });
    }
    match peer.address {
        PeerAddress::Unix(process) => Some(Connection::Uid(process.uid)),
        PeerAddress::Tcp(_) => None,
    }
}

/// What stands in the place of a decision.
pub(crate) fn decision() -> Decision {
    let reason = Reason {
        code: "passthrough".to_owned(),
        message: None,
        internal: None,
        retry: None,
        source: "countersign.passthrough".to_owned(),
    };
    Decision { verdict: Verdict::Permit, code: None, reasons: vec![reason], obligations: Vec::new() }
}

impl Sidecar {
    /// The way of a call that is passed through: recognised, bounded and on record as any other, and decided by nobody.
    pub(crate) async fn pass(
        self: &Arc<Self>,
        incoming: Incoming,
        passing: Passing<'_>,
        snapshot: &Snapshot,
        trace: &Traced,
        trail: &mut Trail,
    ) -> Result<Response<Body>, Box<Stopped>> {
        trail.entry = EntryMode::Passthrough;
        trail.enter("resolve");
        let passed = Box::new(passing.on_record(&incoming));
        let call = self.passed_call(incoming, &passing, snapshot, trace, trail).await?;

        trail.enter("guard");
        // A body may have taken its time.
        passing.goes_on(net::clock::now())?;
        let effect = call.action.map_or(Effect::Write, |action| action.effect);
        passing.may_act(self, snapshot, effect)?;
        let upstream = snapshot.upstreams.get(&call.tool.id).ok_or_else(Stopped::no_upstream)?;

        trail.enter("record");
        trail.passed = Some(passed);
        let (receipt, mut settlement) = record::passed(self, snapshot, trail, trace).await?;
        trail.enter("forward");
        self.note(trail, trace, Verdict::Permit, None, Mode::Passthrough);
        if let Some(mut told) = trail.told.take() {
            told.decided(Verdict::Permit, None, &decision().reasons, Some("passed through: nothing was evaluated"));
            settlement.tell(told);
        }

        // The last look: writing it down took its time too.
        if let Err(refusal) = passing.may_act(self, snapshot, effect) {
            return Err(settlement.not_sent(refusal).into());
        }
        let cleared = Cleared { going: Going::passed(call, &upstream.bare), receipt, watch: None };
        let way = Way { tenant: &passing.settings.tenant, upstream, snapshot };
        Ok(forward(cleared, way, self, trace, settlement).await?)
    }

    /// The call that a request is, with or without an action.
    async fn passed_call<'a>(
        &self,
        incoming: Incoming,
        passing: &Passing<'a>,
        snapshot: &'a Snapshot,
        trace: &Traced,
        trail: &mut Trail,
    ) -> Result<PassedCall<'a>, Box<Refusal>> {
        match recognise(&incoming, &passing.settings.tenant, &snapshot.catalogue) {
            Ok(recognised) => {
                trail.recognised(&recognised);
                // What the tool sees is the agent's business here.
                trail.identity_mode = None;
                trace.recognised(incoming.method(), &recognised);
                let call = resolve::passed(incoming, passing, recognised, &snapshot.listener, &self.gate).await?;
                trail.resolved(&call);
                Ok(PassedCall { tool: call.tool, action: Some(call.action), outgoing: call.outgoing })
            }
            Err(refusal) if passes_unmapped(&refusal, passing.settings) => {
                let outgoing = unread(incoming, passing.rest.clone());
                Ok(PassedCall { tool: passing.tool, action: None, outgoing })
            }
            Err(refusal) => Err(refusal),
        }
    }
}

fn passes_unmapped(refusal: &Refusal, settings: &Passthrough) -> bool {
    refusal.code == Code::UnmappedAction && settings.unmapped == UnmappedConfig::Pass
}

#[cfg(test)]
mod tests;
