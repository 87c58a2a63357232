//! What goes to a tool, and what the tool is shown of who calls: the sidecar's credential where somebody was admitted, and
//! nothing of the sidecar's where the call is passed through. The two have types of their own, so that one cannot be the other.

use http::{HeaderName, HeaderValue, header};
use model::{Action, Effect, Id, Tool};
use net::HttpClient;

use super::trailers::Trailers;
use crate::{
    approve::Permit,
    config::AgentListenerConfig,
    credential::{Bare, Credential, Secrets},
    headers,
    obligations::Duties,
    passthrough::PassedCall,
    resolve::{CallBody, Outgoing},
};

/// What is sent, and by what right: with a permit and the sidecar's credential, or with neither.
pub(crate) struct Going<'a> {
    pub(super) outgoing: Outgoing,
    pub(super) tool: &'a Id<Tool>,
    /// Where it is known.
    action: Option<&'a Action>,
    pub(super) duties: Option<Box<Duties>>,
    pub(super) shown: Shown<'a>,
}

impl<'a> Going<'a> {
    /// Somebody was admitted, and it was decided that they may: the tool is shown the sidecar's credential.
    pub(crate) fn permitted(permit: Permit<'a>, credential: Credential) -> Self {
        let (call, duties) = permit.into_call();
        let shown = Shown::Held(credential);
        Self { outgoing: call.outgoing, tool: &call.tool.id, action: Some(call.action), duties, shown }
    }

    /// Nobody was. The tool is shown what the agent sent itself; there is no place here for a credential of the sidecar's.
    pub(crate) fn passed(call: PassedCall<'a>, bare: &'a Bare) -> Self {
        let PassedCall { tool, action, outgoing } = call;
        Self { outgoing, tool: &tool.id, action, duties: None, shown: Shown::Own(bare) }
    }
}

impl Going<'_> {
    /// What it does, where that is known: what is not, may write.
    pub(super) fn effect(&self) -> Effect {
        self.action.map_or(Effect::Write, |action| action.effect)
    }

    /// What may follow its body.
    pub(super) fn trailers(&self, listener: &AgentListenerConfig) -> Trailers {
        match (self.action, &self.outgoing.body) {
            (Some(action), CallBody::Unseen(_)) => {
                let own = self.shown.field().map(|(name, _)| name);
                Trailers::of_request(&self.outgoing.headers, own, action, listener)
            }
            _ => Trailers::default(),
        }
    }
}

/// What the tool is shown of who calls.
pub(super) enum Shown<'a> {
    /// The sidecar's credential, and what it signed.
    Held(Credential),
    /// Nothing of the sidecar's, over connections that show nothing of it: what the agent sent in `Authorization` stays.
    Own(&'a Bare),
}

impl Shown<'_> {
    /// The sidecar's field.
    pub(super) fn field(&self) -> Option<&(HeaderName, HeaderValue)> {
        match self {
            Self::Held(credential) => credential.field(),
            Self::Own(_) => None,
        }
    }

    pub(super) fn assertion(&self) -> Option<&HeaderValue> {
        match self {
            Self::Held(credential) => credential.assertion(),
            Self::Own(_) => None,
        }
    }

    /// What of it the agent may not see.
    pub(super) fn secrets(&self) -> Secrets {
        match self {
            Self::Held(credential) => credential.secrets(),
            Self::Own(_) => Secrets::default(),
        }
    }

    pub(super) fn client<'s>(&'s self, family: &HttpClient) -> &'s HttpClient {
        match self {
            Self::Held(credential) => credential.client(family),
            Self::Own(bare) => bare.client(family),
        }
    }

    /// Whether the tool gets the agent's field of this `name`.
    pub(super) fn takes(&self, name: &HeaderName) -> bool {
        let agents_own = matches!(self, Self::Own(_)) && *name == header::AUTHORIZATION;
        agents_own || !headers::is_kept_from_tool(name)
    }
}
