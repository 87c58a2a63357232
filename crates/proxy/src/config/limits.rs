//! How much the agents' listener takes on at once, and how much of that one of its peers may have.

use std::num::{NonZeroU32, NonZeroUsize};

use model::duration::ConfigDuration;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much is taken on at once. Calls beyond it are refused as `overloaded`, connections beyond it wait or are closed,
/// and no peer has more than its share of anything: a user of this machine (Unix socket), a client certificate's name,
/// or else an IP address (of IPv6, a /64 network).
///
/// Fixed, and of no use to change: 30 s for a TLS handshake and for a request's head; over HTTP/2, 20 streams reset
/// before they were looked at, 256 streams reset here for the peer's mistakes, frames of 16 KiB, 128 KiB of request body
/// unread on a stream and 256 KiB on a connection, 64 KiB of a response waiting for the peer's window, a header list as
/// large as `max_header_bytes`, a ping each 30 s answered within 20 s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Calls under way at once, from their first byte to the last one of their answer.
    pub calls: NonZeroUsize,
    /// Bytes of request bodies in memory at once, of those that are read whole.
    pub body_bytes: NonZeroUsize,
    /// Connections at once; never more than the files that the process may open allow. Further ones wait.
    pub connections: NonZeroUsize,
    /// TLS handshakes in progress at once. Further ones wait.
    pub handshakes: NonZeroUsize,
    /// Calls at once on one HTTP/2 connection.
    pub streams: NonZeroU32,
    /// The most that one peer may have of calls, body bytes, connections and handshakes, and one agent of calls, in
    /// percent. With 100, whoever comes first can take everything.
    pub peer_share: PeerShare,
    /// How long a connection without a call is kept. Over HTTP/1.1 no longer than 30 s.
    pub idle: ConfigDuration,
    /// How long a peer may take nothing of an answer before it is given up.
    pub stall: ConfigDuration,
    /// How many refusals of one kind (same user, agent, tool, action and code) get a record each minute; and ten times
    /// as many of one agent, whatever they are. Further ones are folded into summaries.
    pub refusals_per_minute: NonZeroU32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let many = |count: usize| NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
        let some = |count: u32| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        Self {
            calls: many(1024),
            body_bytes: many(32 * 1024 * 1024),
            connections: many(2048),
            handshakes: many(256),
            streams: some(128),
            peer_share: PeerShare(75),
            idle: ConfigDuration::seconds(60),
            stall: ConfigDuration::seconds(60),
            refusals_per_minute: some(60),
        }
    }
}

/// A share in percent, from 1 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "u8", into = "u8")]
pub struct PeerShare(#[schemars(range(min = 1, max = 100))] u8);

impl PeerShare {
    /// What a slice of a cumulative limit holds beyond what is needed, unless the operator says otherwise.
    pub const SLICE: Self = Self(5);

    /// In percent.
    pub const fn percent(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for PeerShare {
    type Error = String;

    fn try_from(percent: u8) -> Result<Self, String> {
        match percent {
            1..=100 => Ok(Self(percent)),
            _ => Err(format!("{percent} is not a share in percent: write 1 to 100")),
        }
    }
}

impl From<PeerShare> for u8 {
    fn from(share: PeerShare) -> Self {
        share.0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_and_more_than_all_are_no_limits() {
        let read = |limits: serde_json::Value| serde_json::from_value::<LimitsConfig>(limits);
        assert_eq!(read(json!({})).unwrap(), LimitsConfig::default());
        assert_eq!(read(json!({ "peer_share": 100, "calls": 1 })).unwrap().peer_share.percent(), 100);
        for wrong in [
            json!({ "calls": 0 }),
            json!({ "body_bytes": 0 }),
            json!({ "connections": -1 }),
            json!({ "streams": 0 }),
            json!({ "peer_share": 0 }),
            json!({ "peer_share": 101 }),
            json!({ "refusals_per_minute": 0 }),
            json!({ "call": 1 }),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
