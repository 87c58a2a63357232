//! Before anything is done for a call: is there room for it? Past the limit a call is refused at once and cheaply, so
//! that those under way keep their pace, and no peer and no agent can have all the room.

use std::sync::Arc;

use bytes::Bytes;
use model::{Code, Delegation, Id, Principal, Refusal};
use net::{Full, Peer, Place, Sharer, Shares, serve::share_of};

use crate::{config::LimitsConfig, metrics::Metrics};

/// Who counts as one agent: its issuer and its id, never the id alone.
type Agent = (String, Id<Principal>);

/// What calls take room of.
#[derive(Debug)]
pub(crate) struct Gate {
    calls: Shares<Sharer>,
    agents: Shares<Agent>,
    bodies: Shares<Sharer>,
    metrics: Arc<Metrics>,
}

/// The room of a call under way, given back with its last clone.
#[derive(Debug, Clone)]
pub(crate) struct UnderWay {
    _peer: Arc<Place<Sharer>>,
    _agent: Option<Arc<Place<Agent>>>,
}

/// What is full, as metrics name it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Room {
    Calls,
    Agent,
    Body,
}

impl Room {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Agent => "agent",
            Self::Body => "body_bytes",
        }
    }
}

impl Gate {
    pub(crate) fn new(limits: &LimitsConfig, metrics: Arc<Metrics>) -> Self {
        let share = |total: usize| share_of(total, limits.peer_share.percent());
        let (calls, bytes) = (limits.calls.get(), limits.body_bytes.get());
        Self {
            calls: Shares::new(calls, share(calls)),
            agents: Shares::new(calls, share(calls)),
            bodies: Shares::new(bytes, share(bytes)),
            metrics,
        }
    }

    /// A call of `peer` comes in.
    pub(crate) fn enter(&self, peer: &Peer) -> Result<UnderWay, Box<Refusal>> {
        match self.calls.try_take(Sharer::of(peer), 1) {
            Ok(place) => Ok(UnderWay { _peer: Arc::new(place), _agent: None }),
            Err(full) => Err(self.shed(Room::Calls, full)),
        }
    }

    /// It turned out to be a call of this agent: many may share one address.
    pub(crate) fn admitted(&self, call: &mut UnderWay, delegation: &Delegation) -> Result<(), Box<Refusal>> {
        let agent = &delegation.chain.agent().principal;
        match self.agents.try_take((agent.issuer.clone(), agent.id.clone()), 1) {
            Ok(place) => {
                call._agent = Some(Arc::new(place));
                Ok(())
            }
            Err(full) => Err(self.shed(Room::Agent, full)),
        }
    }

    /// Room for a body of `peer` that will be read whole.
    pub(crate) fn body(&self, peer: &Peer) -> BodyRoom<'_> {
        BodyRoom { gate: self, place: self.bodies.try_take(Sharer::of(peer), 0).ok(), full: Full::Total }
    }

    /// Calls under way.
    pub(crate) fn calls(&self) -> usize {
        self.calls.taken()
    }

    /// Tells how many calls are under way, for as long as it is kept.
    pub(crate) fn calls_told(&self) -> audit::CallsObserver {
        let calls = self.calls.clone();
        Arc::new(move || calls.taken())
    }

    /// Bytes of request bodies in memory.
    pub(crate) fn body_bytes(&self) -> usize {
        self.bodies.taken()
    }

    fn shed(&self, room: Room, full: Full) -> Box<Refusal> {
        self.metrics.shed(room, full);
        let detail = match (room, full) {
            (Room::Calls, Full::Share) => "The peer has as many calls under way as are taken from one.",
            (Room::Agent, _) => "The agent has as many calls under way as are taken from one.",
            (Room::Calls, Full::Total) => "The sidecar has as many calls under way as it takes.",
            (Room::Body, Full::Share) => "The peer has as many bytes of request bodies here as are taken from one.",
            (Room::Body, Full::Total) => "The sidecar holds as many bytes of request bodies as it takes.",
        };
        Box::new(Refusal::new(Code::Overloaded, detail))
    }
}

/// The room of one body, which grows with it.
pub(crate) struct BodyRoom<'a> {
    gate: &'a Gate,
    place: Option<Place<Sharer>>,
    full: Full,
}

impl BodyRoom<'_> {
    /// Whether `bytes` more may be kept.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let Some(place) = &mut self.place else { return false };
        let grown = u32::try_from(bytes).map_err(|_| Full::Total).and_then(|bytes| place.try_grow(bytes));
        grown.inspect_err(|full| self.full = *full).is_ok()
    }

    /// The body as it came, keeping its room until the last copy of it is gone.
    pub(crate) fn fill(self, bytes: Bytes) -> Bytes {
        if bytes.is_empty() { bytes } else { Bytes::from_owner(Roomed { bytes, _place: self.place }) }
    }

    /// Why it could not grow.
    pub(crate) fn refusal(&self) -> Box<Refusal> {
        self.gate.shed(Room::Body, self.full)
    }
}

struct Roomed {
    bytes: Bytes,
    _place: Option<Place<Sharer>>,
}

impl AsRef<[u8]> for Roomed {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(calls: usize, bytes: usize) -> Gate {
        crate::testing::gate(serde_json::json!({ "calls": calls, "body_bytes": bytes, "peer_share": 50 }))
    }

    fn peer(address: &str) -> Peer {
        Peer::tcp(address.parse().unwrap())
    }

    #[test]
    fn one_peer_leaves_room_for_others_and_a_call_keeps_its_room_until_all_of_it_is_over() {
        let gate = gate(4, 100);
        let greedy = [gate.enter(&peer("10.0.0.1:1")).unwrap(), gate.enter(&peer("10.0.0.1:2")).unwrap()];
        let refusal = gate.enter(&peer("10.0.0.1:3")).unwrap_err();
        assert_eq!((refusal.code, refusal.retry), (Code::Overloaded, model::Retry::After));
        let settling = greedy[0].clone();
        let others = [gate.enter(&peer("10.0.0.2:1")).unwrap(), gate.enter(&peer("10.0.0.3:1")).unwrap()];
        assert!(gate.enter(&peer("10.0.0.4:1")).unwrap_err().detail.contains("sidecar"));
        drop(greedy);
        assert_eq!(gate.calls(), 3);
        drop((settling, others));
        assert_eq!(gate.calls(), 0);
    }

    #[test]
    fn a_body_keeps_its_room_until_its_last_copy_is_gone() {
        let gate = gate(4, 100);
        let mut room = gate.body(&peer("10.0.0.1:1"));
        assert!(room.grow(30) && room.grow(20) && !room.grow(1));
        assert!(room.refusal().detail.contains("peer"));
        let bytes = room.fill(Bytes::from_static(&[1; 50]));
        let copy = bytes.slice(10..20);
        drop(bytes);
        assert_eq!((gate.body_bytes(), copy.len()), (50, 10));
        drop(copy);
        assert_eq!(gate.body_bytes(), 0);
    }
}
