//! From an issuance to the claims that are signed (DESIGN §5.1): one place, so that nothing decided is left out.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use model::{Authority, Hop, Principal};
use serde::Serialize;
use token::{ActClaims, ActorClaims, Audience, DelegationClaims, HopClaims, Profile};

use super::issuance::Issuance;

/// The claims of `issuance` as `issuer` says them, for `audience`, to `client_id`.
pub(crate) fn claims(issuance: &Issuance, issuer: &str, audience: &str, client_id: &str) -> DelegationClaims {
    let Issuance { chain, authority, user, task, .. } = issuance;
    DelegationClaims {
        iss: issuer.to_owned(),
        sub: chain.user().principal.id.to_string(),
        aud: Audience::One(audience.to_owned()),
        iat: issuance.issued_at.as_second(),
        exp: issuance.expires_at.as_second(),
        nbf: None,
        jti: Some(issuance.jti.clone()),
        client_id: Some(client_id.to_owned()),
        sub_profile: Some(Profile::User.as_str().to_owned()),
        act: act(issuance),
        may_act: None,
        delegation_chain: Some(chain.hops().map(hop).collect()),
        scope: Some(authority.scope.to_string()),
        authorization_details: Some(authority.elements.clone()),
        groups: user.groups.clone(),
        roles: user.roles.clone(),
        attributes: user.attributes.clone(),
        acr: user.acr.clone(),
        auth_time: user.auth_time,
        sid: issuance.session.clone(),
        tenant: Some(issuance.tenant.to_string()),
        grant_id: Some(issuance.grant.to_string()),
        task_id: task.id.as_ref().map(ToString::to_string),
        run_id: Some(issuance.run.to_string()),
        use_case: task.use_case.clone(),
        initiated_by: task.initiated_by.clone(),
        stage: Some(task.stage),
        sensitivity: Some(task.sensitivity),
        user_presence: task.presence,
        pos: Some(issuance.position),
    }
}

/// The claims of a token that is good with one client certificate alone (RFC 8705 §3.1).
#[derive(Debug, Serialize)]
pub(crate) struct BoundClaims {
    #[serde(flatten)]
    delegation: DelegationClaims,
    cnf: Confirmation,
}

#[derive(Debug, Serialize)]
struct Confirmation {
    #[serde(rename = "x5t#S256")]
    thumbprint: String,
}

impl BoundClaims {
    /// `delegation`, for whoever holds the key of the certificate with this SHA-256.
    pub(crate) fn new(delegation: DelegationClaims, certificate: [u8; 32]) -> Self {
        Self { delegation, cnf: Confirmation { thumbprint: URL_SAFE_NO_PAD.encode(certificate) } }
    }
}

/// The claims of a token that is handed over: who may act with it, and when the parent's own token ends, which
/// whoever takes over may not outlive.
#[derive(Debug, Serialize)]
pub(crate) struct HandOverClaims {
    #[serde(flatten)]
    delegation: DelegationClaims,
    parent_exp: i64,
}

/// The member of [`HandOverClaims`] that holds the end of the parent's token, in seconds since 1970.
pub(crate) const PARENT_EXP: &str = "parent_exp";

impl HandOverClaims {
    /// `delegation`, for `actor` alone.
    pub(crate) fn new(delegation: DelegationClaims, actor: &Principal, parent_exp: i64) -> Self {
        let actor = ActorClaims { sub: actor.id.to_string(), iss: Some(actor.issuer.clone()) };
        Self { delegation: DelegationClaims { may_act: Some(actor), ..delegation }, parent_exp }
    }
}

/// RFC 8693 §4.1: the acting agent outermost, whoever acted before it within.
fn act(issuance: &Issuance) -> Option<ActClaims> {
    issuance.chain.agents().fold(None, |earlier, hop| {
        Some(ActClaims {
            sub: hop.principal.id.to_string(),
            iss: Some(hop.principal.issuer.clone()),
            sub_profile: Some(Profile::from(hop.principal.kind).as_str().to_owned()),
            instance: hop.instance.clone(),
            act: earlier.map(Box::new),
        })
    })
}

fn hop(hop: &Hop) -> HopClaims {
    let nothing = Authority::default();
    let held = hop.authority.as_ref().unwrap_or(&nothing);
    HopClaims {
        iss: hop.principal.issuer.clone(),
        sub: hop.principal.id.to_string(),
        sub_profile: hop.principal.kind.into(),
        instance: hop.instance.clone(),
        jti: hop.jti.clone(),
        grant: hop.grant.as_ref().map(ToString::to_string),
        scope: held.scope.to_string(),
        authorization_details: held.elements.clone(),
    }
}
