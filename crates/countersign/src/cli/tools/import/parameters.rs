//! The parameters of an operation, typed: what a catalogue can declare is declared, and of the rest a person is told what
//! becomes of calls that carry it.

use std::collections::BTreeSet;

use model::{Effect, ParameterKind};

use crate::cli::tools::{
    draft::{Draft, DraftParameter},
    openapi::{
        Document, Operation,
        operation::{Body, Parameter, Place},
        plain,
        schema::{Described, Members, Schemas, Shape, Why},
    },
    template::Written,
    trial,
};

/// The most parameters of one action.
const MOST: usize = 100;
/// How deep in a body a parameter may lie.
const DEEPEST: usize = 4;
/// Fraction digits of a number that does not say how many it has.
const USUAL_SCALE: u32 = 6;
/// The most names that one line for a person has.
const MOST_NAMED: usize = 12;

/// Reads the parameters of one operation into its draft.
pub(super) struct Reading<'a> {
    schemas: Schemas<'a>,
    draft: Draft,
    /// What cannot be declared: its name, why, and whether calls have to carry it.
    untyped: Vec<(String, Why, bool)>,
    /// Numbers whose fraction digits were guessed.
    scaled: Vec<String>,
    /// Amounts that were taken for money.
    money: Vec<String>,
    /// URLs that the agent may choose.
    urls: Vec<String>,
    /// Objects that say they have other members.
    open: Vec<String>,
    more: usize,
}

impl<'a> Reading<'a> {
    pub(super) fn new(document: &'a Document, draft: Draft) -> Self {
        Self {
            schemas: Schemas::new(document),
            draft,
            untyped: Vec::new(),
            scaled: Vec::new(),
            money: Vec::new(),
            urls: Vec::new(),
            open: Vec::new(),
            more: 0,
        }
    }

    /// The draft with everything that `operation` takes.
    pub(super) fn read(mut self, operation: &Operation<'a>, written: &Written) -> Draft {
        for parameter in &operation.parameters {
            self.beside(parameter, written);
        }
        if let Some(body) = &operation.body {
            self.body(body);
        }
        self.reviewed()
    }

    /// A parameter beside the body.
    fn beside(&mut self, parameter: &Parameter<'a>, written: &Written) {
        let name = parameter.name;
        let place = match parameter.place {
            Place::Path => "path",
            Place::Query => "query",
            Place::Header => "header",
            Place::Cookie => {
                self.draft.review.push(format!("the cookie `{}` never reaches the tool", plain(name, 60)));
                return;
            }
        };
        let source = match parameter.place {
            Place::Path => match written.variables.get(name) {
                Some(variable) => format!("path:{variable}"),
                None => return,
            },
            _ => format!("{place}:{name}"),
        };
        if parameter.place == Place::Header {
            // Those three belong to other parts of the document.
            if ["accept", "content-type", "authorization"].contains(&name.to_ascii_lowercase().as_str()) {
                return;
            }
            if name.to_ascii_lowercase().contains("idempotency") && trial::reads(&source) {
                self.draft.idempotency.get_or_insert(source);
                return;
            }
        }
        if !trial::reads(&source) {
            self.draft.review.push(format!("the {place} parameter `{}` cannot be read by a sidecar", plain(name, 60)));
            return;
        }
        let described = parameter.schema.map(|schema| self.schemas.describe(name, schema));
        let optional = !parameter.required;
        let kind = match described.as_ref().map(|described| &described.shape) {
            Some(Shape::Text) if parameter.place == Place::Path => ParameterKind::Id,
            // Beside the body everything is text, and a flag is one.
            Some(Shape::Text | Shape::Other(Why::Boolean)) => ParameterKind::String,
            Some(Shape::Set) if parameter.joined => ParameterKind::String,
            Some(Shape::Id) => ParameterKind::Id,
            Some(Shape::Time) => ParameterKind::Time,
            Some(Shape::Integer) => ParameterKind::Integer,
            Some(Shape::Number(scale)) => return self.number(place, name, source, *scale, optional),
            Some(Shape::Other(why)) => return self.refused(name, *why, !optional),
            Some(Shape::Set) => return self.refused(name, Why::Repeated, !optional),
            Some(Shape::Object(_)) | None => return self.refused(name, Why::Forms, !optional),
        };
        if described.is_some_and(|described| described.url) {
            self.urls.push(name.to_owned());
        }
        self.declare(place, name, DraftParameter::new(kind, source, optional));
    }

    fn body(&mut self, body: &Body<'a>) {
        if matches!(self.draft.method.as_str(), "GET" | "HEAD") {
            self.draft.review.push("the document gives it a body, which a GET or HEAD has none of here".to_owned());
            return;
        }
        let Some(schema) = body.json else {
            let media: Vec<String> = body.media.iter().take(3).map(|media| plain(media, 60)).collect();
            let media = if media.is_empty() { "unknown".to_owned() } else { media.join(" or ") };
            let upload =
                if body.media.iter().any(|media| media.starts_with("multipart/") || media.contains("octet-stream")) {
                    " (files can be uploaded with it)"
                } else {
                    ""
                };
            self.draft.review.push(format!(
                "its body is {media}{upload}, which is not read: calls with one are refused; `additional: allow` lets all of \
                 it through unseen"
            ));
            self.draft.needs_additional = true;
            return;
        };
        let described = self.schemas.describe("", schema);
        match described.shape {
            Shape::Object(members) => self.members(&members, &mut Vec::new(), !body.required),
            _ => {
                self.draft.review.push(
                    "its body is no object, or of several forms, and cannot be declared: calls with one are refused; \
                     `additional: allow` lets all of it through unseen"
                        .to_owned(),
                );
                self.draft.needs_additional = true;
            }
        }
    }

    /// The members of an object at `path` in the body.
    fn members(&mut self, members: &Members<'a>, path: &mut Vec<&'a str>, optional: bool) {
        if members.open {
            self.open.push(if path.is_empty() { "the body".to_owned() } else { path.join(".") });
        }
        let money = self.money_of(members, path, optional);
        for (name, schema) in &members.declared {
            let described = self.schemas.describe(name, schema);
            if described.read_only || money.contains(name) {
                continue;
            }
            let optional = optional || described.nullable || !members.required.contains(name);
            path.push(name);
            self.member(name, &described, path, optional);
            path.pop();
        }
    }

    fn member(&mut self, name: &'a str, described: &Described<'a>, path: &mut Vec<&'a str>, optional: bool) {
        let shown = path.join(".");
        let source = pointer(path);
        if name.to_ascii_lowercase().contains("idempotency") && path.len() == 1 {
            self.draft.idempotency.get_or_insert_with(|| source.clone());
        }
        if described.url {
            self.urls.push(shown.clone());
        }
        let written = path.join("_");
        let kind = match &described.shape {
            Shape::Text => ParameterKind::String,
            Shape::Id => ParameterKind::Id,
            Shape::Time => ParameterKind::Time,
            Shape::Integer => ParameterKind::Integer,
            Shape::Set => ParameterKind::Set,
            Shape::Number(scale) => return self.number("body", &written, source, *scale, optional),
            Shape::Object(members) if path.len() < DEEPEST && !members.declared.is_empty() => {
                return self.members(members, path, optional);
            }
            Shape::Object(_) => return self.refused(&shown, Why::Deep, !optional),
            Shape::Other(why) => return self.refused(&shown, *why, !optional),
        };
        self.declare("body", &written, DraftParameter::new(kind, source, optional));
    }

    /// Declares the amounts of an object that names their currency. Gives back which of its members that settles.
    fn money_of(&mut self, members: &Members<'a>, path: &[&'a str], optional: bool) -> BTreeSet<&'a str> {
        let mut settled = BTreeSet::new();
        let currency = members.declared.iter().find(|(name, schema)| {
            let name = name.to_ascii_lowercase();
            matches!(name.as_str(), "currency" | "currency_code" | "currencycode")
                && matches!(self.schemas.describe(&name, schema).shape, Shape::Text)
        });
        let Some((currency, _)) = currency else { return settled };
        let place = |name: &'a str| path.iter().copied().chain([name]).collect::<Vec<_>>();
        for (name, schema) in &members.declared {
            let described = self.schemas.describe(name, schema);
            let minor = match described.shape {
                Shape::Integer => true,
                Shape::Number(_) | Shape::Text => false,
                _ => continue,
            };
            if !is_amount(name) || described.read_only {
                continue;
            }
            let at = place(name);
            let optional = optional || described.nullable || !members.required.contains(name);
            let parameter = DraftParameter {
                currency: Some(pointer(&place(currency))),
                minor,
                ..DraftParameter::new(ParameterKind::Money, pointer(&at), optional)
            };
            self.money.push(format!("{}{}", at.join("."), if minor { " (in minor units)" } else { "" }));
            self.declare("body", &at.join("_"), parameter);
            settled.insert(*name);
        }
        if !settled.is_empty() {
            settled.insert(currency);
        }
        settled
    }

    fn number(&mut self, place: &str, name: &str, source: String, scale: Option<u32>, optional: bool) {
        if scale.is_none() {
            self.scaled.push(name.to_owned());
        }
        let scale = Some(scale.unwrap_or(USUAL_SCALE));
        let parameter = DraftParameter { scale, ..DraftParameter::new(ParameterKind::Decimal, source, optional) };
        self.declare(place, name, parameter);
    }

    fn declare(&mut self, place: &str, name: &str, parameter: DraftParameter) {
        if self.draft.parameters.len() < MOST {
            self.draft.add(place, name, parameter);
        } else {
            self.more += 1;
        }
    }

    fn refused(&mut self, name: &str, why: Why, required: bool) {
        self.untyped.push((name.to_owned(), why, required));
    }

    /// The draft with what a person has to look at.
    fn reviewed(mut self) -> Draft {
        let read = self.draft.effect == Effect::Read;
        let fate = if read { "go unseen" } else { "calls that carry them are refused" };
        let mut kinds: Vec<Why> = self.untyped.iter().map(|(_, why, _)| *why).collect();
        kinds.dedup();
        let mut told: Vec<Why> = Vec::new();
        for why in kinds {
            if told.contains(&why) {
                continue;
            }
            told.push(why);
            let names = named(self.untyped.iter().filter(|other| other.1 == why).map(|other| other.0.as_str()));
            self.draft.review.push(format!("not declared, {fate}: {names} ({})", why.as_str()));
        }
        let required: Vec<&str> = self.untyped.iter().filter(|other| other.2).map(|other| other.0.as_str()).collect();
        if !required.is_empty() && !read {
            let names = named(required.into_iter());
            self.draft.review.push(format!(
                "the tool requires {names}: no call goes before `additional: allow`, which lets what is not declared through unseen"
            ));
            self.draft.needs_additional = true;
        }
        let draft = &mut self.draft;
        if self.more > 0 {
            draft
                .review
                .push(format!("{} more parameters are not declared: an action has at most {MOST} here", self.more));
        }
        for (list, text) in [
            (&self.scaled, "`scale` is a guess, more digits are refused"),
            (&self.money, "taken for money by its name and the currency beside it"),
            (&self.urls, "a URL that the agent chooses and the tool may call or show"),
        ] {
            if !list.is_empty() {
                draft.review.push(format!("{text}: {}", named(list.iter().map(String::as_str))));
            }
        }
        if !self.open.is_empty() && !read {
            let places = named(self.open.iter().map(String::as_str));
            draft.review.push(format!("the tool takes other members too, which are refused, in {places}"));
        }
        self.draft
    }
}

/// A list for a person: quoted, and not longer than it is read.
fn named<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let names: Vec<&str> = names.collect();
    let mut text: Vec<String> = names.iter().take(MOST_NAMED).map(|name| format!("`{}`", plain(name, 80))).collect();
    if let Some(more @ 1..) = names.len().checked_sub(MOST_NAMED) {
        text.push(format!("{more} more"));
    }
    text.join(", ")
}

/// `body:/a/b` (RFC 6901).
fn pointer(path: &[&str]) -> String {
    let escaped: String = path.iter().map(|part| format!("/{}", part.replace('~', "~0").replace('/', "~1"))).collect();
    format!("body:{escaped}")
}

fn is_amount(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    matches!(lower.as_str(), "amount" | "value" | "total" | "price" | "sum" | "fee")
        || lower.ends_with("amount")
        || lower.ends_with("_price")
}
