//! The claims of a delegation token (DESIGN §5.1), read by `verify` and written by `mint`: one form for both.

use std::collections::{BTreeMap, BTreeSet};

use model::{Chain, Hop, Presence, PrincipalKind, Sensitivity, Stage, authority::Elements, json::Json};
use serde::{Deserialize, Deserializer, Serialize};

/// The payload of a delegation token. Times are seconds since 1970 (RFC 7519 `NumericDate`, whole).
///
/// Members that are not listed here are ignored, as RFC 7519 §4 has it; a listed one that is `null` is refused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DelegationClaims {
    /// Who signs.
    pub iss: String,
    /// The user.
    pub sub: String,
    /// Whom it is for.
    #[serde(default)]
    pub aud: Audience,
    /// When it was issued.
    pub iat: i64,
    /// When it ends.
    pub exp: i64,
    /// When it begins.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// Its own name.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// The OAuth client it was issued to.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// What kind of principal `sub` is.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub sub_profile: Option<String>,
    /// The acting agent, earlier ones nested (RFC 8693 §4.1).
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub act: Option<ActClaims>,
    /// Who may act next (RFC 8693 §4.4).
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub may_act: Option<ActorClaims>,
    /// User first, acting agent last, each with what it held.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub delegation_chain: Option<Vec<HopClaims>>,
    /// Actions by name (RFC 8693 §4.2).
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// What may be done to what, within which limits (RFC 9396).
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub authorization_details: Option<Elements>,
    /// The user's groups.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
    /// The user's roles.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub roles: BTreeSet<String>,
    /// Further attributes of the user.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
    /// Authentication context class.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub acr: Option<String>,
    /// When the user last authenticated.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub auth_time: Option<i64>,
    /// The user's session.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// The tenant.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The grant it is issued under.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub grant_id: Option<String>,
    /// The task it is issued for.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// The run the task belongs to.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// What the task is for.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub use_case: Option<String>,
    /// Who started the task.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub initiated_by: Option<String>,
    /// How far the task may go.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// How sensitive the task's data is.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub sensitivity: Option<Sensitivity>,
    /// Whether the user is there.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub user_presence: Option<Presence>,
    /// The position in the authority's change log when it was minted.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub pos: Option<u64>,
}

/// `aud`: one name, or several (RFC 7519 §4.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One.
    One(String),
    /// Several, or none.
    Many(Vec<String>),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Audience {
    /// The `aud` of claims that are read by hand; what is no text is a name that nobody has.
    pub(crate) fn of(claims: &Json) -> Self {
        Self::Many(match claims.member("aud") {
            Some(Json::Text(name)) => vec![name.clone()],
            Some(Json::Array(items)) => {
                items.iter().map(|item| item.as_text().unwrap_or_default().to_owned()).collect()
            }
            _ => Vec::new(),
        })
    }

    /// All the names.
    pub fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }

    /// The name, when there is exactly one.
    pub fn only(&self) -> Option<&str> {
        match self.names() {
            [name] => Some(name),
            _ => None,
        }
    }
}

/// `act`: the acting party, and whoever acted before it. Members that are not listed are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActClaims {
    /// Its name.
    pub sub: String,
    /// Whose name it is; the token's issuer where absent.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// What kind of principal it is.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub sub_profile: Option<String>,
    /// The running copy.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Who acted before.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub act: Option<Box<Self>>,
}

/// `may_act`: the party that may become the next actor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorClaims {
    /// Its name.
    pub sub: String,
    /// Whose name it is; the token's issuer where absent.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
}

/// One hop of `delegation_chain`. Ours alone, so unknown members are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HopClaims {
    /// Whose name `sub` is.
    pub iss: String,
    /// The principal.
    pub sub: String,
    /// What kind of principal it is.
    pub sub_profile: Profile,
    /// The running copy.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The token it held.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// The grant it acted under.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// The actions it held.
    pub scope: String,
    /// The elements it held.
    pub authorization_details: Elements,
}

impl HopClaims {
    /// A hop as a new token carries it on. `None` for one that only nested `act` named: it held nothing that could
    /// be handed on.
    pub fn of(hop: &Hop) -> Option<Self> {
        let authority = hop.authority.as_ref()?;
        Some(Self {
            iss: hop.principal.issuer.clone(),
            sub: hop.principal.id.to_string(),
            sub_profile: hop.principal.kind.into(),
            instance: hop.instance.clone(),
            jti: hop.jti.clone(),
            grant: hop.grant.as_ref().map(ToString::to_string),
            scope: authority.scope.to_string(),
            authorization_details: authority.elements.clone(),
        })
    }
}

impl ActClaims {
    /// The agents of `chain` as nested `act`, the acting one outermost.
    pub fn of(chain: &Chain) -> Option<Self> {
        chain.agents().fold(None, |earlier, hop| {
            Some(Self {
                sub: hop.principal.id.to_string(),
                iss: Some(hop.principal.issuer.clone()),
                sub_profile: Some(Profile::from(hop.principal.kind).as_str().to_owned()),
                instance: hop.instance.clone(),
                act: earlier.map(Box::new),
            })
        })
    }
}

/// `sub_profile` (draft-mcguinness-oauth-actor-profile): what kind of principal a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// A person.
    User,
    /// An agent.
    AiAgent,
    /// A service.
    Service,
}

impl Profile {
    /// From a claim that may list several, space-separated. A service that is also an agent is an agent; `None`
    /// where nothing known is listed.
    pub fn listed(claim: &str) -> Option<Self> {
        let has = |name| claim.split(' ').any(|listed| listed == name);
        match (has("user"), has("ai_agent"), has("service")) {
            (true, ..) => Some(Self::User),
            (_, true, _) => Some(Self::AiAgent),
            (_, _, true) => Some(Self::Service),
            _ => None,
        }
    }

    /// The claim's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::AiAgent => "ai_agent",
            Self::Service => "service",
        }
    }
}

impl From<Profile> for PrincipalKind {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::User => Self::User,
            Profile::AiAgent => Self::Agent,
            Profile::Service => Self::Service,
        }
    }
}

impl From<PrincipalKind> for Profile {
    fn from(kind: PrincipalKind) -> Self {
        match kind {
            PrincipalKind::User => Self::User,
            PrincipalKind::Agent => Self::AiAgent,
            PrincipalKind::Service => Self::Service,
        }
    }
}

/// Reads a member that is there: `null` is not the same as absent.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}
