//! What `lib.testing` begins with: for each action of the catalogue the whole input of a call that gives what is required
//! and nothing else, made as a sidecar's is; the same of a token to be issued, and of something to be managed.

use std::collections::BTreeSet;

use model::{
    Action, Catalogue, Grant, Id, ParameterKind, Question, Stage, catalogue::ParameterDeclaration,
    delegation::UserClaims, template::Variables,
};
use regorus::{Value, value::Object};
use serde_json::{Value as Json, json};

use crate::{
    LoadError, cases,
    input::{
        self,
        exchange::{self, Issuance},
        management::{self, Management, Named},
    },
};

/// Data at the place that `lib.testing` reads.
pub(super) fn document(catalogue: Option<&Catalogue>) -> Result<Value, LoadError> {
    let refused = |error: &dyn std::fmt::Display| LoadError::Engine(format!("lib.testing: {error}"));
    let any = call("example.action", "example/1", None)?;
    let mut base = Object::new();
    base.insert("call".into(), input::value(&any).map_err(|error| refused(&error))?);
    if let Some(catalogue) = catalogue {
        let mut calls = Object::new();
        for action in catalogue.tools().iter().flat_map(|tool| &tool.actions) {
            let variables: Variables =
                action.resource.variables().map(|name| (name.to_owned(), "1".to_owned())).collect();
            let resource = action.resource.fill(&variables).unwrap_or_default();
            let question = call(action.id.as_str(), &resource, Some((catalogue, action)))?;
            let value = input::value(&question).map_err(|error| refused(&error))?;
            calls.insert(action.id.as_str().into(), value);
        }
        base.insert("calls".into(), calls.into_value());
    }
    base.insert("exchange".into(), issuance(&any, catalogue).map_err(|error| refused(&error))?);
    base.insert("management".into(), managed(&any).map_err(|error| refused(&error))?);
    let nested = ["testing_base", "lib", "countersign"].iter().fold(base.into_value(), |inner, name| {
        let mut outer = Object::new();
        outer.insert((*name).into(), inner);
        outer.into_value()
    });
    Ok(nested)
}

/// The question of a case that gives what is required.
fn call(action: &str, resource: &str, known: Option<(&Catalogue, &Action)>) -> Result<Question, LoadError> {
    let mut case = json!({
        "name": "base",
        "call": format!("alice via support-v2 {action} {resource}"),
        "expect": "deny",
    });
    if let Some(members) = case.as_object_mut() {
        match known {
            None => drop(members.insert("tool".to_owned(), "example".into())),
            Some((_, action)) => {
                let required = action.parameters.iter().filter(|(_, declared)| !declared.optional);
                let parameters: serde_json::Map<String, Json> =
                    required.map(|(name, declared)| (name.clone(), sample(declared))).collect();
                members.insert("parameters".to_owned(), parameters.into());
            }
        }
    }
    let text = json!({ "cases": [case] }).to_string();
    let built = cases::parse("lib.testing", &text, known.map(|(catalogue, _)| catalogue));
    let question = built.map(|cases| cases.into_iter().next().map(|case| case.question));
    let mut question = question
        .map_err(|error| LoadError::Engine(error.to_string()))?
        .ok_or_else(|| LoadError::Engine("lib.testing has no call".to_owned()))?;
    own(&mut question);
    Ok(question)
}

/// A fact that names somebody names the user.
fn own(question: &mut Question) {
    let user = question.delegation.chain.user().principal.clone();
    let names_people = |leaf: &str| leaf.ends_with("_by") || leaf.ends_with("owner");
    for (leaf, value) in question.facts.0.values_mut().flatten() {
        if names_people(leaf) {
            let principal = model::fact::FactPrincipal { id: user.id.clone(), issuer: user.issuer.clone() };
            *value = model::FactValue::Principal(principal);
        }
    }
}

/// A value of the declared type.
fn sample(declared: &ParameterDeclaration) -> Json {
    match declared.kind {
        ParameterKind::String => "text".into(),
        ParameterKind::Id => "1".into(),
        ParameterKind::Integer => 1.into(),
        ParameterKind::Decimal => "1".into(),
        ParameterKind::Money => match &declared.currency {
            Some(model::catalogue::CurrencySource::Always(currency)) => format!("1 {currency}").into(),
            Some(model::catalogue::CurrencySource::From(_)) | None => "1.00 USD".into(),
        },
        ParameterKind::Time => cases::DEFAULT_NOW.into(),
        ParameterKind::Set => Json::Array(Vec::new()),
    }
}

/// Alice hands what the catalogue has to `support-v2`.
fn issuance(question: &Question, catalogue: Option<&Catalogue>) -> Result<Value, input::InvalidInput> {
    let delegation = &question.delegation;
    let (user, agent) = (delegation.chain.user(), delegation.chain.agent());
    let mut requested = delegation.authority.clone();
    if let Some(catalogue) = catalogue {
        let element = |tool: &model::Tool| model::Element {
            kind: model::authority::ElementType::Action,
            actions: tool.actions.iter().map(|action| action.id.clone()).collect(),
            locations: [tool.id.clone()].into(),
            identifier: model::Pattern::any(),
            limits: model::Limits::default(),
            relations: std::collections::BTreeMap::new(),
        };
        let elements: Vec<model::Element> = catalogue.tools().iter().map(element).collect();
        let scope = elements.iter().flat_map(|element| element.actions.iter().cloned()).collect();
        requested = model::Authority { scope, elements: elements.into() };
    }
    let mut to = (*question.agent).clone();
    to.actions = requested.scope.iter().cloned().collect::<BTreeSet<_>>();
    let grant = Grant {
        id: Id::new("grant").map_err(serde::ser::Error::custom)?,
        user: user.principal.clone(),
        agent: agent.principal.clone(),
        authority: requested.clone(),
        stage: Stage::Supervised,
        expires_at: delegation.token.expires_at,
        redelegate: 1,
    };
    exchange::value(&Issuance {
        chain: vec![user],
        to: &to,
        requested: &requested,
        task: &delegation.task,
        run: &delegation.run,
        grant: &grant,
        user: &delegation.user,
        tenant: &delegation.tenant,
        expires_at: delegation.token.expires_at,
        now: question.now,
    })
}

/// Alice looks at an agent of her tenant.
fn managed(question: &Question) -> Result<Value, input::InvalidInput> {
    let delegation = &question.delegation;
    let agent = Named::from(&delegation.chain.agent().principal);
    let object = management::Object {
        id: Some(agent.id.to_string()),
        agent: Some(agent),
        kind: "agent",
        tenants: [delegation.tenant.clone()].into(),
        user: None,
    };
    let claims = UserClaims { auth_time: Some(question.now.as_second()), ..delegation.user.clone() };
    management::value(&Management {
        caller: &delegation.chain.user().principal,
        claims: &claims,
        operation: "agents.read",
        object: &object,
        now: question.now,
    })
}
