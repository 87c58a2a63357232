//! `/oauth2/introspect` (RFC 7662): whether a token of ours is good now, by the state there is, and what it says.
//!
//! Whoever may not know is told the same as of a token that is none.

use std::collections::BTreeSet;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use model::{AgentStatus, Delegation, Hop, json::Json, registry::TaskStatus, withdrawal::passages};
use net::{Body, BoxError, Peer};
use serde_json::{Value, json};
use store::{GrantStatus, Serves};
use token::{Proof, VerifiedSubject};

use crate::{
    Authority,
    client::Client,
    exchange::Moment,
    form::Form,
    peek,
    refused::{Refused, json_response},
};

/// What is answered of a good token, beside `active`.
const TOLD: [&str; 21] = [
    "iss",
    "sub",
    "aud",
    "iat",
    "exp",
    "jti",
    "client_id",
    "scope",
    "act",
    "may_act",
    "delegation_chain",
    "authorization_details",
    "cnf",
    "tenant",
    "grant_id",
    "task_id",
    "run_id",
    "stage",
    "user_presence",
    "sid",
    "pos",
];

/// Who asks about a token.
enum Asker {
    /// An agent, by its own credential.
    Agent(Box<Client>),
    /// An enrolled sidecar, which serves so much.
    Sidecar(Serves),
}

impl Authority {
    pub(crate) async fn introspect<B>(&self, peer: &Peer, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        match self.introspected(peer, request).await {
            Ok(said) => json_response(StatusCode::OK, &said.unwrap_or_else(|| json!({ "active": false }))),
            Err(refused) => refused.response(),
        }
    }

    async fn introspected<B>(&self, peer: &Peer, request: Request<B>) -> Result<Option<Value>, Refused>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let (form, asker, at) = self.asker(peer, request).await?;
        let token = form.required("token")?;
        let now = net::clock::now();
        let verified = match self.verifier.verify_subject_of(token, &self.audiences, asker.proof(token), now).await {
            Ok(VerifiedSubject::Delegated(held)) => held.delegation,
            Ok(VerifiedSubject::User(_)) => return Ok(None),
            Err(rejection) if rejection.refusal.code == model::Code::KeysUnavailable => {
                return Err(Refused::unavailable("the keys of the token's issuer", &rejection.refusal.detail));
            }
            Err(_) => return Ok(None),
        };
        if !asker.may_know(&verified, &self.settings.issuer) || !self.stands(&verified, at).await? {
            return Ok(None);
        }
        let payload = peek::payload(token).map(|payload| payload.to_serde()).unwrap_or_default();
        let mut said = json!({ "active": true, "token_type": "Bearer" });
        if let (Some(said), Value::Object(payload)) = (said.as_object_mut(), payload) {
            said.extend(payload.into_iter().filter(|(name, _)| TOLD.contains(&name.as_str())));
        }
        Ok(Some(said))
    }

    /// Who asks, what, and the moment that everything is read after.
    async fn asker<B>(&self, peer: &Peer, request: Request<B>) -> Result<(Form, Asker, Moment), Refused>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        if !request.headers().contains_key(header::AUTHORIZATION) {
            let (form, client, at) = self.client_request(peer, request).await?;
            client.may_act()?;
            return Ok((form, Asker::Agent(Box::new(client)), at));
        }
        let headers = request.headers().clone();
        let form = Form::read(request).await?;
        let at = self.moment().await?;
        let sidecar = self.sidecar(&headers, at.now).await.map_err(|problem| problem.of_sidecar())?;
        Ok((form, Asker::Sidecar(sidecar.serves), at))
    }

    /// Whether what the token rests on is there now: nothing of it withdrawn, its task, grant and agents in force.
    async fn stands(&self, held: &Delegation, Moment { now, known }: Moment) -> Result<bool, Refused> {
        let unavailable = |error| Refused::unavailable("the store", &error);
        if held.token.issued_at <= known.began || self.withdrawn.covers(passages(held), held.position) {
            return Ok(false);
        }
        let Some(task) = &held.task.id else { return Ok(false) };
        let Some(standing) = self.store.known_standing(task).await.map_err(unavailable)? else { return Ok(false) };
        let (task, grant) = (&standing.task, &standing.grant);
        let in_force = task.status == TaskStatus::Active
            && task.expires_at > now
            && grant.status == GrantStatus::Active
            && grant.grant.expires_at > now;
        if !in_force {
            return Ok(false);
        }
        for hop in held.chain.agents() {
            let found = self.store.known_agent(&hop.principal.issuer, &hop.principal.id).await.map_err(unavailable)?;
            if found.is_none_or(|found| found.agent.status != AgentStatus::Active) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Asker {
    /// Agents ask about tokens that pass through them, sidecars about those of what they serve; others' are others'.
    fn may_know(&self, held: &Delegation, issuer: &str) -> bool {
        match self {
            Self::Agent(client) => held.chain.agents().any(|hop| client.agent().is(&hop.principal)),
            Self::Sidecar(Serves { tenants, tools, agents }) => {
                let agent = |hop: &Hop, served: &BTreeSet<_>| {
                    hop.principal.issuer == issuer && served.contains(&hop.principal.id)
                };
                let mut places = held.authority.elements.iter().flat_map(|element| &element.locations);
                tenants.contains(&held.tenant)
                    && agents.as_ref().is_none_or(|served| agent(held.chain.agent(), served))
                    && tools.as_ref().is_none_or(|served| places.any(|tool| served.contains(tool)))
            }
        }
    }

    /// What the question proves of whoever presents `token`. A sidecar was shown it by somebody else, and is told what it
    /// is bound to.
    fn proof(&self, token: &str) -> Proof {
        match self {
            Self::Agent(client) => client.proof(),
            Self::Sidecar(_) => bound_to(token).map_or(Proof::None, Proof::Certificate),
        }
    }
}

/// The certificate that `token` says it is bound to (RFC 8705 §3.1).
fn bound_to(token: &str) -> Option<[u8; 32]> {
    let payload = peek::payload(token)?;
    let thumbprint = payload.member("cnf")?.member("x5t#S256").and_then(Json::as_text)?;
    URL_SAFE_NO_PAD.decode(thumbprint).ok()?.try_into().ok()
}
