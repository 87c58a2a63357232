//! The one request to the authority: an exchange of the user's token (RFC 8693), or a token of a task that goes on, by
//! the agent's own credential (RFC 7523). Anything but a delegated bearer token is no answer.

use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use jiff::Timestamp;
use model::{Code, Id, Refusal, Task, json::Json};
use net::{Body, HttpClient, SendError};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use token::Compact;

use super::identity::{Identities, Identity};
use crate::config::TaskChoice;

/// For one answer, from the first byte of the question to the last of it.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
/// The largest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
/// The most that is told of the authority's words, in characters.
const MAX_WORDS: usize = 300;

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What the authority is asked with.
#[derive(Debug, Clone)]
pub(super) struct Question {
    /// The user's own token, already verified here; without one, the user is the task's.
    pub(super) token: Option<SecretString>,
    /// The task, where the call names one.
    pub(super) task: Option<Id<Task>>,
}

/// Why there is no token.
#[derive(Debug)]
pub(super) enum NoToken {
    /// The authority says no.
    Refused(Box<Refusal>),
    /// It cannot be asked, or does not answer as it should.
    Unavailable(String),
}

/// Asks the authority once; again where it was the connection's fault that nothing came.
pub(super) async fn ask(
    client: &HttpClient,
    identities: &Identities,
    identity: &Identity,
    question: &Question,
) -> Result<Compact, NoToken> {
    let send = || async {
        // Each time anew: an assertion is good once.
        let form = form(identities, identity, question, net::clock::now())?;
        client.send(request(identities, form), PATIENCE).await.map_err(Failed::Send)
    };
    let whole = async {
        let response = match send().await {
            Err(Failed::Send(error)) if error.is_of_the_connection() => send().await,
            outcome => outcome,
        };
        read(response?, question).await
    };
    match tokio::time::timeout(PATIENCE, whole).await {
        Ok(Ok(compact)) => Ok(compact),
        Ok(Err(Failed::No(refused))) => Err(refused),
        Ok(Err(Failed::Send(error))) => Err(NoToken::Unavailable(error.to_string())),
        Err(_) => Err(NoToken::Unavailable(format!("the authority gave no whole answer within {PATIENCE:?}"))),
    }
}

enum Failed {
    Send(SendError),
    No(NoToken),
}

fn request(identities: &Identities, form: String) -> Request<Body> {
    let mut request = Request::new(Body::full(form));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = identities.endpoint.clone();
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("countersign"));
    request
}

fn form(identities: &Identities, identity: &Identity, question: &Question, now: Timestamp) -> Result<String, Failed> {
    let client = identity.agent.id.as_str();
    let assertion = identity.key.client_assertion(client, &identities.issuer, now);
    let assertion = assertion.map_err(|error| Failed::No(NoToken::Unavailable(error.to_string())))?;
    let mut fields = vec![
        ("client_assertion_type", ASSERTION),
        ("client_assertion", assertion.expose()),
        ("audience", &identities.audience),
    ];
    match &question.token {
        Some(token) => fields.extend([
            ("grant_type", EXCHANGE),
            ("subject_token", token.expose_secret()),
            ("subject_token_type", ACCESS_TOKEN),
            ("requested_token_type", ACCESS_TOKEN),
        ]),
        None => fields.push(("grant_type", "client_credentials")),
    }
    match (&question.task, identity.task) {
        (Some(task), _) => fields.push(("task_id", task.as_str())),
        (None, TaskChoice::Present) => fields.push(("task", "present")),
        (None, TaskChoice::Named) => {}
    }
    let pair = |(name, value): (&str, &str)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
    Ok(fields.into_iter().map(pair).collect::<Vec<_>>().join("&"))
}

async fn read(response: Response<Incoming>, question: &Question) -> Result<Compact, Failed> {
    let status = response.status();
    let unavailable = |why: String| Failed::No(NoToken::Unavailable(why));
    let body = net::body::collect(response.into_body(), MAX_ANSWER_BYTES).await;
    let body = body.map_err(|error| unavailable(error.to_string()))?;
    let json = Json::parse(&body).map_err(|error| unavailable(format!("the authority answered {status}: {error}")))?;
    let text = |name: &str| json.member(name).and_then(Json::as_text);
    match status {
        StatusCode::OK => match (text("access_token"), text("token_type"), text("issued_token_type")) {
            (Some(token), Some(kind), Some(ACCESS_TOKEN)) if kind.eq_ignore_ascii_case("bearer") => {
                Ok(Compact::from(SecretString::from(token)))
            }
            _ => Err(unavailable("the authority's answer is no access token to be presented as a bearer".to_owned())),
        },
        StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let said = Said { error: text("error"), description: text("error_description"), code: text("code") };
            Err(Failed::No(NoToken::Refused(Box::new(said.refusal(question)))))
        }
        _ => Err(unavailable(format!("the authority answered {status}"))),
    }
}

/// The authority's words of refusal.
struct Said<'a> {
    error: Option<&'a str>,
    description: Option<&'a str>,
    code: Option<&'a str>,
}

impl Said<'_> {
    /// What they come to for the agent. The codes that the authority may say are those of what it alone knows.
    fn refusal(&self, question: &Question) -> Refusal {
        use Code::{
            AgentSuspended, CredentialUnavailable, Entitlement, Impersonation, InsufficientScope, InvalidToken,
            TaskEnded, Withdrawn,
        };
        let known = [TaskEnded, Withdrawn, AgentSuspended, Entitlement, InsufficientScope, Impersonation];
        let named = known.into_iter().find(|code| self.code == Some(code.as_str()));
        let code = match (named, self.error) {
            (Some(code), _) => code,
            // It is the sidecar that is not believed, or asks for what is not there: nothing an agent can change.
            (None, Some("invalid_client" | "invalid_target" | "unsupported_grant_type")) => CredentialUnavailable,
            (None, _) if question.token.is_none() => InvalidToken,
            (None, _) => Impersonation,
        };
        let words: String = self.description.unwrap_or_default().chars().filter(|c| !c.is_control()).collect();
        let words: String = words.chars().take(MAX_WORDS).collect();
        let internal = format!("the authority answered {}: {words}", self.error.unwrap_or("without an error code"));
        let detail = match code {
            CredentialUnavailable => "The sidecar cannot obtain tokens for this agent.".to_owned(),
            _ => format!("The authority gives this agent no delegated token: {words}."),
        };
        Refusal::new(code, detail).internally(internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_authority_says_comes_to_a_denial_that_it_alone_can_know() {
        let question = |token: Option<&str>| Question { token: token.map(SecretString::from), task: None };
        let (users, task) = (question(Some("t")), question(None));
        let code = |question: &Question, error, code| {
            Said { error: Some(error), description: Some("no\nmore"), code }.refusal(question).code
        };
        assert_eq!(code(&users, "invalid_request", Some("task_ended")), Code::TaskEnded);
        assert_eq!(code(&users, "invalid_scope", Some("entitlement")), Code::Entitlement);
        assert_eq!(code(&users, "invalid_request", None), Code::Impersonation);
        assert_eq!(code(&task, "invalid_request", None), Code::InvalidToken);
        assert_eq!(code(&users, "invalid_client", None), Code::CredentialUnavailable);
        // Whatever else it says, it does not speak for the sidecar.
        for other in ["ledger_unavailable", "policy_denied", "approval_required", "TASK_ENDED", ""] {
            assert_eq!(code(&users, "invalid_request", Some(other)), Code::Impersonation, "{other}");
        }
        let said = Said { error: None, description: Some(&"x\u{7}".repeat(1000)), code: None }.refusal(&users);
        assert!(said.detail.len() < 400 && !said.detail.contains('\u{7}'), "{}", said.detail);
        let client = Said { error: Some("invalid_client"), description: Some("the key of x"), code: None };
        assert!(!client.refusal(&users).detail.contains("key of x"));
    }
}
