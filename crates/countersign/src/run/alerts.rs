//! Who is told of alerts beside the ledger: a webhook of the operator's, and, of a use that proves whose it was, the
//! authority, which may suspend the agent by rule.

use std::{collections::BTreeMap, sync::Arc};

use audit::{AlertObserver, Ledger};
use aws_lc_rs::hmac;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use net::{Destination, HttpClient, Outbox, Plaintext, SecretSource, Tasks, check_operator_url};
use opentelemetry::global;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use super::findings::Findings;
use crate::{
    config::alerts::{AlertsSection, WebhookConfig},
    environment::Environment,
    failure::Failure,
};

/// The channel that is always there: where alerts go.
const ALERTS: &str = "alerts";
/// The field that carries a webhook's signature.
const SIGNATURE: HeaderName = HeaderName::from_static("countersign-signature");

/// A webhook that can be told.
pub(super) struct Webhook {
    url: Uri,
    secret: SecretSource,
    environment: Environment,
}

/// What is wrong with the section; the webhook, where there is one.
pub(super) fn webhook(section: &AlertsSection, environment: &Environment, findings: &mut Findings) -> Option<Webhook> {
    usable("alerts.webhook", section.webhook.as_ref()?, environment, findings)
}

/// What is wrong with the channels of notices; those that can be told.
pub(super) fn channels(
    configs: &BTreeMap<String, WebhookConfig>,
    environment: &Environment,
    findings: &mut Findings,
) -> BTreeMap<String, Webhook> {
    let usable = |(name, config): (&String, &WebhookConfig)| {
        if name == ALERTS || name.is_empty() || name.chars().any(char::is_control) {
            findings.problem(format!("notices.{name}: a channel has a name of its own; `{ALERTS}` is always there"));
        }
        Some((name.clone(), usable(&format!("notices.{name}"), config, environment, findings)?))
    };
    configs.iter().filter_map(usable).collect()
}

/// The webhook of `section`, where it can be told.
fn usable(
    section: &str,
    config: &WebhookConfig,
    environment: &Environment,
    findings: &mut Findings,
) -> Option<Webhook> {
    let url = check_operator_url(&config.url, Plaintext::LoopbackOnly);
    let url = findings.take(url.map_err(|error| format!("{section}.url: {error}")));
    let webhook = Webhook { url: url?, secret: config.secret.clone(), environment: environment.clone() };
    findings.take(webhook.key().map_err(|error| format!("{section}.secret: {error}")))?;
    Some(webhook)
}

/// Tells of the alerts of `ledger` from now on.
pub(super) fn tell(ledger: &Ledger, outboxes: Outboxes) {
    if outboxes.all().next().is_none() {
        return;
    }
    observe(&outboxes);
    let tell: AlertObserver = Arc::new(move |alert| outboxes.take(alert));
    ledger.tell_alerts(tell);
}

/// Where alerts go.
#[derive(Default)]
pub(super) struct Outboxes {
    /// Every one of them.
    pub(super) webhook: Option<Outbox>,
    /// The uses after the end of a token by whoever it was given to.
    pub(super) authority: Option<Outbox>,
    /// The notices of policy that are for a channel of their own.
    pub(super) channels: BTreeMap<String, Outbox>,
}

impl Outboxes {
    fn all(&self) -> impl Iterator<Item = &Outbox> {
        self.webhook.iter().chain(&self.authority).chain(self.channels.values())
    }

    fn take(&self, mut alert: Value) {
        let time = net::clock::now().to_string();
        if let Some(members) = alert.as_object_mut() {
            members.insert("time".to_owned(), time.into());
        }
        let is = |name: &str, value: Value| alert.get(name) == Some(&value);
        let proved = is("alert", "used_after_end".into()) && is("proved", true.into());
        let body = alert.to_string();
        let channel = alert.get("channel").and_then(Value::as_str).filter(|name| *name != ALERTS);
        let told = match channel.filter(|_| is("alert", "policy_notice".into())) {
            Some(name) => self.channels.get(name),
            None => self.webhook.as_ref(),
        };
        for outbox in [told, self.authority.as_ref().filter(|_| proved)].into_iter().flatten() {
            if !outbox.put(body.clone()) {
                tracing::warn!("an alert is on record, and there was no room to tell of it");
            }
        }
    }
}

impl Webhook {
    /// What sends to it.
    pub(super) fn outbox(self, client: &HttpClient, tasks: &Tasks) -> Outbox {
        let url = self.url.clone();
        // Read anew for each attempt: a secret that was changed is taken as it comes.
        let fields = Box::new(move |body: &[u8], now: jiff::Timestamp| {
            let value = signature(&self.key().map_err(|error| error.to_string())?, body, now);
            let mut value = HeaderValue::from_str(&value).map_err(|error| error.to_string())?;
            value.set_sensitive(true);
            Ok(HeaderMap::from_iter([(SIGNATURE, value)]))
        });
        Outbox::new(Destination { name: "alert webhook", client: client.apart(None), url, fields }, tasks)
    }

    fn key(&self) -> Result<SecretString, net::SecretError> {
        self.secret.load(&|name: &str| self.environment.value(name).map(str::to_owned))
    }
}

/// `t=SECONDS,v1=HEX`: HMAC-SHA256 over `SECONDS.BODY`.
fn signature(secret: &SecretString, body: &[u8], now: jiff::Timestamp) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{}.", now.as_second()).as_bytes());
    context.update(body);
    let hex: String = context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={},v1={hex}", now.as_second())
}

/// What tells the authority at `base`, as whoever `authorise` says.
pub(super) fn authority(
    base: &str,
    authorise: store::remote::Authorise,
    client: &HttpClient,
    tasks: &Tasks,
) -> Result<Outbox, Failure> {
    let url = format!("{base}/v1/alerts").parse::<Uri>().map_err(Failure::configuration)?;
    let fields = Box::new(move |_: &[u8], now: jiff::Timestamp| {
        Ok(HeaderMap::from_iter([(header::AUTHORIZATION, authorise(now)?)]))
    });
    Ok(Outbox::new(Destination { name: "alerts to the authority", client: client.apart(None), url, fields }, tasks))
}

fn observe(outboxes: &Outboxes) {
    let all: Vec<Outbox> = outboxes.all().cloned().collect();
    let _dropped = global::meter("countersign")
        .u64_observable_counter("countersign_alerts_untold")
        .with_description("Alerts that are on record and could not be told to the webhook or the authority")
        .with_callback(move |observer| observer.observe(all.iter().map(Outbox::dropped).sum(), &[]))
        .build();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_of_the_time_and_the_body() {
        let at = jiff::Timestamp::from_second(1_700_000_000).unwrap();
        let secret = SecretString::from("whsec");
        // printf '1700000000.{}' | openssl dgst -sha256 -hmac whsec
        let expected = "t=1700000000,v1=7d44587dddbaf4c7f70fef20f48cd594834ffea1641e3ac227b84408298738af";
        assert_eq!(signature(&secret, b"{}", at), expected);
        assert_ne!(signature(&secret, b"{ }", at), expected);
    }
}
