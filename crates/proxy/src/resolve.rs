//! resolve: which action on which resource is it, with what parameters? On success the request is a [`Call`],
//! which owns everything that will be sent: what was read here is what goes.

mod body;
mod parameter;
mod query;

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use model::{
    Action, CanonicalPath, Catalogue, Code, Effect, Id, Parameters, Refusal, Tenant, Tool,
    catalogue::{CurrencySource, Source},
    json::Json,
    question::{self, Protocol, RequestFacts},
    template::Variables,
};
use net::Body;

use self::{parameter::Raw, query::Query};
use crate::{
    accept::{Arrival, Incoming, Parts, malformed},
    admit::Admitted,
    config::{AgentListenerConfig, InputHeader},
    overload::Gate,
    passthrough::Passing,
};

/// A request recognised as an action, with its parameters read.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) tool: &'a Tool,
    pub(crate) action: &'a Action,
    pub(crate) facts: question::Call,
    pub(crate) request: RequestFacts,
    pub(crate) variables: Variables,
    /// What the caller calls it, where the action says where that is: the same again is the same call.
    pub(crate) idempotency: Option<String>,
    pub(crate) outgoing: Outgoing,
}

/// What will be sent, if it is: the request as the agent made it, but for what `forward` takes away and adds.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) arrival: Arrival,
    pub(crate) method: Method,
    pub(crate) version: Version,
    /// Below the tool's address.
    pub(crate) path: CanonicalPath,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: CallBody,
}

/// The body, as far as it was looked at.
#[derive(Debug)]
pub(crate) enum CallBody {
    /// Read whole, because parameters lie in it or nothing may. These very bytes are sent.
    Read(Bytes),
    /// Not looked at. It streams.
    Unseen(Body),
}

/// Which action a request is, before its parameters are read. Kept for the record when that fails.
#[derive(Debug)]
pub(crate) struct Recognised<'a> {
    pub(crate) tool: &'a Tool,
    pub(crate) action: &'a Action,
    pub(crate) resource: String,
    variables: Variables,
    rest: CanonicalPath,
}

/// Finds tool and action. A tool that does not serve the token's tenant is refused exactly as a missing one.
pub(crate) fn recognise<'a>(
    incoming: &Incoming,
    tenant: &Id<Tenant>,
    catalogue: &'a Catalogue,
) -> Result<Recognised<'a>, Box<Refusal>> {
    let (tool, rest) = catalogue
        .tool_at(incoming.path())
        .filter(|(tool, _)| tool.serves(tenant))
        .ok_or_else(|| Box::new(Refusal::new(Code::UnknownTool, "The path addresses no tool of this sidecar.")))?;
    let (action, variables) = tool.action_for(incoming.method().as_str(), &rest).ok_or_else(|| {
        let shown: String = rest.as_str().chars().take(120).collect();
        let detail = format!("`{} {shown}` is no action of tool `{}`.", incoming.method(), tool.id);
        Box::new(Refusal::new(Code::UnmappedAction, detail))
    })?;
    let resource = action.resource.fill(&variables).ok_or_else(|| malformed("The path names no single resource."))?;
    Ok(Recognised { tool, action, resource, variables, rest })
}

/// Reads the parameters, and the body where they lie in it.
pub(crate) async fn resolve<'a>(
    incoming: Incoming,
    _admitted: &Admitted,
    recognised: Recognised<'a>,
    listener: &AgentListenerConfig,
    gate: &Gate,
) -> Result<Call<'a>, Box<Refusal>> {
    read(incoming, recognised, listener, gate).await
}

/// The same for a call that is passed through.
pub(crate) async fn passed<'a>(
    incoming: Incoming,
    _passing: &Passing<'_>,
    recognised: Recognised<'a>,
    listener: &AgentListenerConfig,
    gate: &Gate,
) -> Result<Call<'a>, Box<Refusal>> {
    read(incoming, recognised, listener, gate).await
}

/// What is sent of a call that no action is found for: nothing of it is read.
pub(crate) fn unread(incoming: Incoming, rest: CanonicalPath) -> Outgoing {
    let Parts { arrival, method, version, path: _, query, headers, body } = incoming.into_parts();
    Outgoing { arrival, method, version, path: rest, query, headers, body: CallBody::Unseen(body) }
}

async fn read<'a>(
    incoming: Incoming,
    recognised: Recognised<'a>,
    listener: &AgentListenerConfig,
    gate: &Gate,
) -> Result<Call<'a>, Box<Refusal>> {
    let Recognised { tool, action, resource, variables, rest } = recognised;
    let Parts { arrival, method, version, path, query, headers, body } = incoming.into_parts();
    let (body, json) = if action.reads_body() {
        let (bytes, json) = body::read(body, &headers, listener, gate.body(&arrival.peer)).await?;
        (CallBody::Read(bytes), json)
    } else {
        (CallBody::Unseen(body), None)
    };
    let request = Request { action, variables: &variables, query: query.as_deref(), headers: &headers, json };
    let (parameters, idempotency) = request.parameters()?;
    let facts = question::Call {
        tool: tool.id.clone(),
        action: action.id.clone(),
        effect: action.effect,
        resource,
        parameters,
    };
    let request = RequestFacts {
        protocol: Protocol::Http,
        method: method.as_str().to_owned(),
        path,
        headers: input_headers(&headers, listener),
    };
    let outgoing = Outgoing { arrival, method, version, path: rest, query, headers, body };
    Ok(Call { tool, action, facts, request, variables, idempotency, outgoing })
}

/// The fields that policy and the record may see, where the request has them as text.
fn input_headers(headers: &HeaderMap, listener: &AgentListenerConfig) -> BTreeMap<String, String> {
    let text = |name: &InputHeader| {
        let values: Option<Vec<&str>> =
            headers.get_all(name.as_str()).iter().map(|value| value.to_str().ok()).collect();
        let values = values.filter(|values| !values.is_empty())?;
        Some((name.as_str().to_owned(), values.join(", ")))
    };
    listener.input_headers.iter().filter_map(text).collect()
}

/// Where a call's values lie.
struct Request<'a> {
    action: &'a Action,
    variables: &'a Variables,
    query: Option<&'a str>,
    headers: &'a HeaderMap,
    json: Option<Json>,
}

impl Request<'_> {
    fn parameters(&self) -> Result<(Parameters, Option<String>), Box<Refusal>> {
        let open = self.action.additional || self.action.effect == Effect::Read;
        let sources: Vec<&Source> = self.sources().collect();
        let declared_query: Vec<&str> = sources
            .iter()
            .filter_map(|source| match source {
                Source::Query(name) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        let query = Query::read(self.query, &declared_query, open)?;
        if let Some(json) = &self.json {
            let pointers = sources.iter().filter_map(|source| match source {
                Source::Body(pointer) => Some(pointer.as_str()),
                _ => None,
            });
            body::closed(json, pointers, open)?;
        }
        let idempotency = match &self.action.idempotency {
            Some(source) => self.raw(source, &query)?.and_then(|raw| parameter::name(&raw)),
            None => None,
        };
        let mut parameters = Parameters::default();
        for (name, declaration) in &self.action.parameters {
            let raw = self.raw(&declaration.value, &query)?;
            let currency = match &declaration.currency {
                None => None,
                Some(CurrencySource::Always(code)) => Some(code.clone()),
                Some(CurrencySource::From(source)) => parameter::currency(name, self.raw(source, &query)?.as_ref())?,
            };
            let value = parameter::read(name, declaration, raw.as_ref(), currency.as_deref())?;
            parameters.set(name, declaration.kind, value);
        }
        Ok((parameters, idempotency))
    }

    /// Every place that something declared is read from.
    fn sources(&self) -> impl Iterator<Item = &Source> {
        let currency = |declared: &'_ Option<CurrencySource>| match declared {
            Some(CurrencySource::From(_)) => true,
            Some(CurrencySource::Always(_)) | None => false,
        };
        let values = self.action.parameters.values();
        let currencies =
            values.clone().filter(move |declared| currency(&declared.currency)).filter_map(|declared| match &declared
                .currency
            {
                Some(CurrencySource::From(source)) => Some(source),
                _ => None,
            });
        values.map(|declared| &declared.value).chain(currencies).chain(self.action.idempotency.as_ref())
    }

    fn raw<'a>(&'a self, source: &Source, query: &'a Query) -> Result<Option<Raw<'a>>, Box<Refusal>> {
        Ok(match source {
            Source::Path(name) => self.variables.get(name).map(|text| Raw::Text(text)),
            Source::Query(name) => query.value(name).map(Raw::Text),
            Source::Header(name) => self.header(name)?.map(Raw::Text),
            Source::Body(pointer) => self
                .json
                .as_ref()
                .and_then(|json| json.pointer(pointer))
                .filter(|json| **json != Json::Null)
                .map(Raw::Json),
        })
    }

    /// The one value of a declared field: with a second one, the tool could read another value than this.
    fn header(&self, name: &str) -> Result<Option<&str>, Box<Refusal>> {
        let mut found = self.headers.get_all(name).iter();
        match (found.next(), found.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => {
                let text = value.to_str().map_err(|_| malformed(&format!("The header field `{name}` is not text.")))?;
                Ok(Some(text))
            }
            (Some(_), Some(_)) => Err(malformed(&format!("The header field `{name}` is given more than once."))),
        }
    }
}

#[cfg(test)]
mod tests;
