//! Trailer fields (RFC 9110 §6.5): which of them travel on. From the agent, those it announced and nothing was decided
//! by; from the tool, what an agent that takes trailers may see. All others are dropped.

use http::{HeaderMap, HeaderName, HeaderValue, header};
use model::{
    Action,
    catalogue::{CurrencySource, Source},
};

use crate::{config::AgentListenerConfig, credential::Secrets, headers};

/// Which trailer fields of one message travel on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trailers(Rule);

#[derive(Debug, Clone, Default)]
enum Rule {
    /// None.
    #[default]
    Dropped,
    /// To the tool: these, and nothing with the agent's token in it.
    Announced(Vec<HeaderName>, Option<HeaderValue>),
    /// To the agent: what it may see, and nothing with the tool's secrets in it.
    Visible(Secrets),
}

impl Trailers {
    /// Those of a request with these `fields`: announced in `Trailer`, not given as a header field already, not of a
    /// name by which the call was decided, and not of the `own` name under which the tool gets its credential.
    pub(super) fn of_request(
        fields: &HeaderMap,
        own: Option<&HeaderName>,
        action: &Action,
        listener: &AgentListenerConfig,
    ) -> Self {
        let mut names = announced(fields);
        names.retain(|name| {
            headers::may_trail(name)
                && !headers::is_kept_from_tool(name)
                && !name.as_str().contains('_')
                && !fields.contains_key(name)
                && own != Some(name)
                && !is_read(name, action, listener)
        });
        let token = fields.get(header::AUTHORIZATION).cloned();
        if names.is_empty() { Self::default() } else { Self(Rule::Announced(names, token)) }
    }

    /// Those of a response to an agent that said `TE: trailers` in its `fields`.
    pub(super) fn of_response(fields: &HeaderMap, secrets: &Secrets) -> Self {
        if takes(fields) { Self(Rule::Visible(secrets.clone())) } else { Self::default() }
    }

    /// What `Trailer` says of the message that travels on, whose own fields are `fields`.
    pub(super) fn announcement(&self, fields: &HeaderMap) -> Option<HeaderValue> {
        let names = match &self.0 {
            Rule::Dropped => return None,
            Rule::Announced(names, _) => names.clone(),
            Rule::Visible(_) => announced(fields).into_iter().filter(visible).collect(),
        };
        let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
        if names.is_empty() { None } else { HeaderValue::from_str(&names.join(", ")).ok() }
    }

    /// What is left of `trailers`, if anything is.
    pub(crate) fn kept(&self, mut trailers: HeaderMap) -> Option<HeaderMap> {
        let gives_away = |value: &HeaderValue, secret: &Option<HeaderValue>| {
            secret.as_ref().is_some_and(|secret| headers::holds(value, secret))
        };
        let stays = |name: &HeaderName, value: &HeaderValue| match &self.0 {
            Rule::Dropped => false,
            Rule::Announced(names, token) => names.contains(name) && !gives_away(value, token),
            Rule::Visible(secrets) => visible(name) && !secrets.are_in(value),
        };
        let mut kept = HeaderMap::new();
        let mut last = None;
        for (name, value) in trailers.drain() {
            // A name comes with the first of its values only.
            last = name.or(last);
            if let Some(name) = last.as_ref().filter(|name| stays(name, &value)) {
                kept.append(name.clone(), value);
            }
        }
        (!kept.is_empty()).then_some(kept)
    }
}

/// Whether the sender of `fields` takes trailers (RFC 9110 §10.1.4).
pub(super) fn takes(fields: &HeaderMap) -> bool {
    let values = fields.get_all(header::TE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

fn visible(name: &HeaderName) -> bool {
    headers::may_trail(name) && !headers::is_kept_from_agent(name)
}

fn announced(fields: &HeaderMap) -> Vec<HeaderName> {
    let values = fields.get_all(header::TRAILER).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|name| HeaderName::try_from(name.trim()).ok()).collect()
}

/// Whether the call was decided by the header field of that name, or by there being none.
fn is_read(name: &HeaderName, action: &Action, listener: &AgentListenerConfig) -> bool {
    let currencies = action.parameters.values().filter_map(|parameter| match &parameter.currency {
        Some(CurrencySource::From(source)) => Some(source),
        Some(CurrencySource::Always(_)) | None => None,
    });
    let values = action.parameters.values().map(|parameter| &parameter.value);
    let mut sources = values.chain(currencies).chain(&action.idempotency);
    listener.input_headers.iter().any(|input| input.as_str() == name.as_str())
        || sources.any(|source| matches!(source, Source::Header(read) if name.as_str().eq_ignore_ascii_case(read)))
}

#[cfg(test)]
mod tests;
