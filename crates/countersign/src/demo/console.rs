//! What people do at the authority's management API: the platform team lets the sidecar join, alice grants, starts a
//! task and takes it back. They stand at a console, where no agent stands.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;

use http::{Method, Request, header};
use jiff::Timestamp;
use net::{Body, body::collect};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};
use token::{Algorithm, SigningKey, prove_possession};

use super::configuration::{self, SIDECAR_KEY};
use super::files::Files;
use super::identity_provider::{ALICE, DANA, Person};
use super::parts::Parts;
use super::world::{MAX_ANSWER_BYTES, PATIENCE};
use crate::failure::{Exit, Failure};

/// How long the grant lasts: longer than anybody plays with a demo.
const GRANT: &str = "30d";
/// How long the task lasts, which cannot outlast its grant.
const TASK: &str = "29d";

/// Work that alice lets the support agent do.
pub(super) struct Work {
    /// The grant.
    pub(super) grant: String,
    /// The task under it.
    pub(super) task: String,
}

/// What the authority says of a withdrawal.
#[derive(Debug, Deserialize)]
pub(super) struct Withdrawn {
    /// Its place among the changes.
    pub(super) position: u64,
    /// When the authority took it, just before it committed it.
    pub(super) at: Timestamp,
}

impl Parts {
    /// Lets the sidecar join the authority with a key that is made here, and writes its configuration.
    pub(super) async fn enrol(&self, files: &Files) -> Result<(), Failure> {
        let invitation = json!({"name": "demo", "tenants": ["acme"], "expires_in": "5m"});
        let invited = self.manage(DANA, "/v1/sidecars", &invitation).await?;
        let path = files.path(SIDECAR_KEY);
        if let Some(folder) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|error| Failure::because(Exit::Unavailable, "the sidecar's key has no folder", error))?;
        }
        let key = SigningKey::load_or_create(&path, Algorithm::EdDsa).map_err(Failure::configuration)?;
        let token = text(&invited, "token")?;
        let proof = prove_possession(&key, token.as_bytes(), &self.world.authority, net::clock::now());
        let proof =
            proof.map_err(|error| Failure::because(Exit::Unavailable, "the sidecar's key cannot sign", error))?;
        let joining = json!({"token": token, "name": "demo", "jwk": key.public_jwk(), "proof": proof.expose()});
        let enrolled = self.ask(None, "/v1/sidecars/enrol", &joining).await?;
        configuration::write_sidecar(files, &self.places, &text(&enrolled, "id")?)
    }

    /// Alice lets the support agent read and follow orders, and refund up to 50 USD at a time, 200 a day, on orders that she
    /// placed herself; and starts a task under that.
    pub(super) async fn begin(&self) -> Result<Work, Failure> {
        let kind = model::authority::ELEMENT_TYPE;
        let grant = json!({
            "agent": "support-v2",
            "authorization_details": [
                {"type": kind, "actions": ["orders.read", "orders.watch"], "locations": ["orders"]},
                {
                    "type": kind, "actions": ["refunds.create"], "locations": ["orders"],
                    "limits": {
                        "amount": {"max": "50.00", "currency": "USD"},
                        "daily": {"sum": "amount", "max": "200.00", "currency": "USD", "window": "P1D"},
                    },
                    "where": {"order.placed_by": "$user"},
                },
            ],
            "stage": "supervised",
            "redelegate": 1,
            "expires_in": GRANT,
        });
        let grant = text(&self.manage(ALICE, "/v1/grants", &grant).await?, "id")?;
        // Named as a help desk would; a folder that is used again holds the tickets of earlier runs.
        let task = format!("ticket-{}", 10_000 + uuid::Uuid::new_v4().as_u128() % 90_000);
        let start = json!({
            "grant": grant, "id": task, "use_case": "customer_support", "sensitivity": "low",
            "stage": "supervised", "justification": "The customer asks for their money back.", "expires_in": TASK,
        });
        self.manage(ALICE, "/v1/tasks", &start).await?;
        Ok(Work { grant, task })
    }

    /// Alice takes the task back: the one API call that ends it everywhere.
    pub(super) async fn withdraw(&self, task: &str) -> Result<Withdrawn, Failure> {
        let asked = json!({"target": format!("task:{task}"), "reason": "I changed my mind"});
        let answer = self.manage(ALICE, "/v1/withdrawals", &asked).await?;
        serde_json::from_value(answer)
            .map_err(|error| Failure::because(Exit::Failed, "the authority's answer is not a withdrawal", error))
    }

    async fn manage(&self, person: Person, path: &str, body: &Value) -> Result<Value, Failure> {
        let token = self.people.sign_in_to_manage(person, net::clock::now())?;
        self.ask(Some(&token), path, body).await
    }

    async fn ask(&self, token: Option<&SecretString>, path: &str, body: &Value) -> Result<Value, Failure> {
        let failed = |cause: String| Failure::new(Exit::Failed, format!("POST {path} at the authority: {cause}"));
        let url = format!("{}{path}", self.world.authority);
        let mut request =
            Request::builder().method(Method::POST).uri(url).header(header::CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            let value = net::secret::header_value("Bearer ", token).map_err(|error| failed(error.to_string()))?;
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request.body(Body::full(body.to_string())).map_err(|error| failed(error.to_string()))?;
        let response = self.world.client.send(request, PATIENCE).await.map_err(|error| failed(error.to_string()))?;
        let status = response.status();
        let body = collect(response.into_body(), MAX_ANSWER_BYTES).await.map_err(|error| failed(error.to_string()))?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() { Ok(answer) } else { Err(failed(format!("{status}: {answer}"))) }
    }
}

fn text(answer: &Value, name: &str) -> Result<String, Failure> {
    let text = answer.get(name).and_then(Value::as_str).map(str::to_owned);
    text.ok_or_else(|| Failure::new(Exit::Failed, format!("the authority's answer has no `{name}`")))
}
