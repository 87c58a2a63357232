//! The parts that most tests share, started once: one provider, one tool behind TLS, one sidecar between them.

use std::sync::OnceLock;

use serde_json::{Value, json};

use super::{
    Sidecar,
    openid::{OpenId, TOOL},
    sidecar::{PROBES, Setup},
    tool::Tool,
};

/// What the tests share. Nothing in a test may change it for the others; such a test starts its own.
pub(crate) struct World {
    /// The provider whose delegations the sidecar believes.
    pub(crate) openid: OpenId,
    /// The tool.
    pub(crate) tool: Tool,
    /// The sidecar.
    pub(crate) sidecar: Sidecar,
}

/// The shared parts; `None` (said aloud) where some are missing.
pub(crate) fn world() -> Option<&'static World> {
    static WORLD: OnceLock<Option<World>> = OnceLock::new();
    WORLD.get_or_init(World::start).as_ref()
}

impl World {
    fn start() -> Option<Self> {
        let (openid, tool) = std::thread::scope(|scope| {
            let tool = scope.spawn(Tool::secure);
            (OpenId::start(), tool.join().unwrap())
        });
        let (openid, tool) = (openid?, tool?);
        let sidecar = Setup::new(&openid, &tool).start();
        Some(Self { openid, tool, sidecar })
    }

    /// A token of alice's agent for the probing actions, which the provider itself does not know.
    #[track_caller]
    pub(crate) fn probe(&self) -> String {
        probe(&self.openid)
    }
}

/// The same from any provider.
#[track_caller]
pub(crate) fn probe(openid: &OpenId) -> String {
    openid.sign(&json!({"like": openid.delegated("alice"), "claims": probing()}))
}

fn probing() -> Value {
    let names: Vec<&str> = PROBES.iter().map(|(name, ..)| *name).collect();
    json!({
        "scope": names.join(" "),
        "authorization_details": [{"type": "urn:countersign:action", "actions": names, "locations": [TOOL]}],
    })
}
