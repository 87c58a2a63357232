//! Comparisons: of two kinds that are never equal, of names that nothing has, of an order that is not the one meant, and
//! of what may be null.

use regorus::unstable::{BoolOp, Expr, Span};

use model::nearest::nearest;

use super::{
    Walk,
    doubts::Missing,
    expression::{COLLECTIONS, WRITTEN, amount, literal},
    scope::Scope,
};
use crate::check::shape::{Kinds, Names, Shape, Text};

/// An expression, and what it is.
type Side<'a, 'b> = (&'a Expr, &'b Shape);

impl<'a> Walk<'a> {
    /// Reads a comparison, whose sides were read.
    pub(super) fn compare(
        &mut self,
        operator: &BoolOp,
        left: Side<'a, '_>,
        right: Side<'a, '_>,
        span: &'a Span,
        scope: &Scope<'a>,
    ) {
        if !self.kinds(left, right, span) {
            return;
        }
        match operator {
            BoolOp::Eq | BoolOp::Ne => {
                let differs = matches!(operator, BoolOp::Ne);
                for (one, other) in [(left, right), (right, left)] {
                    self.named(one, other);
                    if one.1.is_nullable() && !matches!(other.0, Expr::Null { .. }) && !other.1.is_nullable() {
                        self.doubt(one.0, one.1, Missing::Null, differs, scope);
                    }
                }
            }
            BoolOp::Lt | BoolOp::Le | BoolOp::Ge | BoolOp::Gt => {
                for side in [left, right] {
                    self.ordered(side, scope);
                }
            }
        }
    }

    /// Reports two sides of which one is never the other; `false` where it did.
    fn kinds(&mut self, left: Side<'a, '_>, right: Side<'a, '_>, span: &'a Span) -> bool {
        let (Some(one), Some(other)) = (left.1.kinds(), right.1.kinds()) else { return true };
        for ((place, shape), null) in [(left, other), (right, one)] {
            let never = shape.kinds().is_some_and(|kinds| !kinds.meets(Kinds::NULL));
            if null == Kinds::NULL && never && shape.at().is_some() {
                let message = format!("`{}` is never null", shape.at().unwrap_or_default());
                self.warn(place.span(), "null", message, None);
                return false;
            }
        }
        let (one, other) = (one.without(Kinds::NULL), other.without(Kinds::NULL));
        if one.is_none() || other.is_none() || one.meets(other) {
            return true;
        }
        let message = format!("this compares {} with {}", one.words(), other.words());
        let hint = mixed(left, right).or_else(|| mixed(right, left));
        self.report(span, "type", message, hint);
        false
    }

    /// Reports an order that is not the one meant.
    fn ordered(&mut self, (expression, shape): Side<'a, '_>, scope: &Scope<'a>) {
        let Some(known) = shape.known() else { return };
        let shown = expression.span().text();
        if !known.kinds.meets(Kinds::NUMBER.or(Kinds::STRING)) && known.kinds != Kinds::NULL {
            let hint = amount(shape).map(|name| format!("compare `{shown}.{name}`, or ask `money.at_most`"));
            let message = format!("`{shown}` is {}, which has no order that means anything", known.kinds.words());
            self.report(expression.span(), "order", message, hint);
            return;
        }
        let exact = match known.text {
            Text::Number => Some("a number written as text, in whose order \"9\" comes after \"10\""),
            Text::Time => Some("a time written as text, which is not in the order of time"),
            Text::Free | Text::OneOf(_) => None,
        };
        if let Some(what) = exact {
            let hint = match shown.strip_suffix(".text") {
                Some(parent) if matches!(known.text, Text::Time) => format!("compare `{parent}.ns`"),
                Some(parent) => format!("compare `{parent}.minor` (or `.unscaled`, of a decimal)"),
                None => format!("compare `{shown}_ns`"),
            };
            self.report(expression.span(), "order", format!("`{shown}` is {what}"), hint);
        } else if let Some(place) = shape.at().filter(|place| shape.is_nullable() && !scope.knows(place)) {
            let message = format!("`{place}` may be null, which comes before every number and text");
            let hint = format!("say first that it is there: `is_number({place})`");
            self.report(expression.span(), "null", message, hint);
        }
    }

    /// Reports a name that nothing has, compared with one that is one of some.
    fn named(&mut self, one: Side<'a, '_>, other: Side<'a, '_>) {
        let (Some(names), Some(text)) = (names(one.1), literal(other.0)) else { return };
        if !names.all.contains(&text) {
            self.misnamed(one, names, &text, other.0.span());
        }
    }

    fn misnamed(&mut self, one: Side<'a, '_>, names: &Names, text: &str, span: &'a Span) {
        let near = nearest(text, names.all.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
        let listed = || {
            let all: Vec<&str> = names.all.iter().map(String::as_str).collect();
            (all.len() <= 20).then(|| format!("it is one of {}", all.join(", ")))
        };
        if names.what == "action" {
            match self.program.inputs.tool_of(text) {
                Some((tool, _)) => {
                    let message = format!("this policy is not asked about `{text}`, an action of `{}`", tool.id);
                    let hint = format!("list the tool in the source's `for`, or ask for it in `{}`'s policy", tool.id);
                    self.report(span, "action", message, hint);
                }
                None => self.report(span, "action", format!("no tool has an action `{text}`"), near.or_else(listed)),
            }
            return;
        }
        let shown = one.1.at().unwrap_or(one.0.span().text());
        let code = if names.what == "tool" { "tool" } else { "value" };
        self.report(span, code, format!("`{shown}` is never \"{text}\""), near.or_else(listed));
    }

    /// Reads `value in collection`, whose sides were read.
    pub(super) fn membership(&mut self, value: Side<'a, '_>, collection: Side<'a, '_>, scope: &Scope<'a>) {
        let (member, whole) = (value.1, collection.1);
        let Some(known) = whole.known() else { return };
        if !known.kinds.meets(COLLECTIONS) {
            let hint = "`in` looks into arrays, sets and objects; compare with `==`".to_owned();
            let message = format!("nothing is in {}", known.kinds.words());
            self.report(collection.0.span(), "type", message, hint);
            return;
        }
        if whole.is_nullable() {
            self.doubt(collection.0, whole, Missing::Null, false, scope);
        }
        let items = super::expression::item(whole);
        if member.is_nullable() && !items.is_nullable() {
            self.doubt(value.0, member, Missing::Null, false, scope);
        }
        if let Some(names) = names(member) {
            self.listed(value, names, collection, &items);
        }
        if let (Some(names), Some(text)) = (names(&items), literal(value.0))
            && !names.all.contains(&text)
        {
            self.misnamed((collection.0, &items), names, &text, value.0.span());
        }
        let pair = member.kinds().zip(items.kinds()).map(|(a, b)| (a.without(Kinds::NULL), b.without(Kinds::NULL)));
        if let Some((one, other)) = pair.filter(|(one, other)| !one.is_none() && !other.is_none() && !one.meets(*other))
        {
            let message = format!("this looks for {} among what is {}", one.words(), other.words());
            self.report(value.0.span(), "type", message, None);
        }
    }

    /// Reports names in a list of them that nothing has.
    fn listed(&mut self, value: Side<'a, '_>, names: &Names, collection: Side<'a, '_>, items: &Shape) {
        if let Expr::Set { items, .. } | Expr::Array { items, .. } = collection.0 {
            for item in items {
                self.named(value, (item, &Shape::Any));
            }
        } else if let Some(Text::OneOf(written)) = items.known().map(|known| &known.text)
            && written.what == WRITTEN
        {
            for text in written.all.difference(&names.all).take(5) {
                self.misnamed(value, names, text, collection.0.span());
            }
        }
    }
}

/// The names that a value may be, where they are not just those that somebody wrote.
fn names(shape: &Shape) -> Option<&Names> {
    match &shape.known()?.text {
        Text::OneOf(names) if names.what != WRITTEN => Some(names),
        _ => None,
    }
}

/// What to write where two kinds do not go together.
fn mixed(one: Side<'_, '_>, other: Side<'_, '_>) -> Option<String> {
    let (mine, theirs) = (one.1.kinds()?.without(Kinds::NULL), other.1.kinds()?.without(Kinds::NULL));
    let (shown, value) = (one.0.span().text(), written(other.0));
    if mine == Kinds::OBJECT
        && let Some(name) = amount(one.1)
    {
        return Some(format!("compare `{shown}.{name}`, or ask `money.at_most`"));
    }
    if mine == Kinds::ARRAY && theirs == Kinds::SET {
        return Some(format!("make it a set: `{{one | some one in {shown}}}`"));
    }
    if mine.meets(Kinds::ARRAY.or(Kinds::SET)) && theirs.meets(Kinds::STRING.or(Kinds::NUMBER)) {
        return Some(format!("ask `{value} in {shown}`"));
    }
    (mine == Kinds::NUMBER && theirs == Kinds::STRING).then(|| "numbers are written without quotes".to_owned())
}

/// The expression as it is written. The place of a string is that of its text.
fn written(expression: &Expr) -> String {
    let text = expression.span().text();
    if matches!(expression, Expr::String { .. }) { format!("\"{text}\"") } else { text.to_owned() }
}
