//! How much heavier what a builtin gives can be than what it is given.

use regorus::unstable::Expr;

use super::weight::Weight;

/// The weight of the result of the builtin `name`. One that is not known here gives all it is given.
pub(super) fn result(name: &str, given: &[&Expr], weights: &[Weight]) -> Weight {
    let all = weights.iter().fold(Weight::SCALAR, |all, one| all.or(*one)).part();
    let sum = weights.iter().fold(Weight::NONE, |all, one| all.and(*one));
    let text = |place: usize| given.get(place).and_then(|argument| text(argument)).unwrap_or_default();
    match name {
        // A number, a truth, or something as small.
        "count"
        | "contains"
        | "endswith"
        | "startswith"
        | "indexof"
        | "strings.any_prefix_match"
        | "strings.any_suffix_match"
        | "is_array"
        | "is_boolean"
        | "is_null"
        | "is_number"
        | "is_object"
        | "is_set"
        | "is_string"
        | "type_name"
        | "regex.match"
        | "regex.is_valid"
        | "regex.template_match"
        | "glob.match"
        | "net.cidr_is_valid"
        | "net.cidr_contains"
        | "semver.compare"
        | "semver.is_valid"
        | "hex.is_valid"
        | "base64.is_valid"
        | "object.subset"
        | "time.clock"
        | "time.date"
        | "time.diff"
        | "time.weekday"
        | "time.add_date"
        | "time.parse_duration_ns"
        | "time.parse_ns"
        | "time.parse_rfc3339_ns" => Weight::SCALAR,
        // The numbers are written out.
        "numbers.range" | "numbers.range_step" => Weight::numbers(span(given)),
        // A part of what it is given.
        "array.slice" | "array.reverse" | "sort" | "max" | "min" | "trim" | "trim_left" | "trim_prefix"
        | "trim_right" | "trim_space" | "trim_suffix" | "substring" | "strings.reverse" | "lower" | "upper"
        | "object.keys" | "object.get" | "object.remove" | "object.filter" | "json.filter" | "json.remove"
        | "intersection" | "split" | "abs" | "ceil" | "floor" | "round" | "base64.decode" | "base64url.decode"
        | "hex.decode" | "urlquery.decode" => all,
        "base64.encode" | "base64url.encode" | "base64url.encode_no_pad" | "hex.encode" | "glob.quote_meta" => {
            all.times(2)
        }
        "urlquery.encode" | "urlquery.encode_object" => all.times(3),
        // `\u0001` for one byte.
        "json.marshal" => all.times(6),
        // In base two, and a word for a digit of a date.
        "format_int" | "time.format" => all.times(8),
        // The text between is once for each part, which counts as eight bytes at least.
        "concat" => sum.times(text(0).len() / 8 + 1),
        "replace" => all.times(text(2).len() / text(1).len().max(1) + 1),
        "regex.replace" => all.times(text(2).len() + 1),
        "strings.replace_n" => all.times(given.first().map_or(1, |patterns| replacements(patterns))),
        "regex.find_all_string_submatch_n" => all.times(text(0).matches('(').count() + 1),
        "product" => Weight::number(weights.first().map_or(0, |weight| weight.product())),
        "bits.lsh" => Weight::number(sum.number + 8),
        // A copy within a document doubles it.
        "json.patch" => sum.times(1 << given.get(1).map_or(0, |patch| copies(patch)).min(31)),
        _ => sum.or(Weight::SCALAR).part(),
    }
}

/// How many whole numbers two literals lie apart.
fn span(given: &[&Expr]) -> u64 {
    let number = |place: usize| match given.get(place) {
        Some(Expr::Number { value, .. }) => value.as_i64().ok(),
        Some(Expr::UnaryExpr { expr, .. }) => match expr.as_ref() {
            Expr::Number { value, .. } => value.as_i64().ok().map(i64::wrapping_neg),
            _ => None,
        },
        _ => None,
    };
    number(0).zip(number(1)).map_or(u64::MAX, |(first, last)| first.abs_diff(last).saturating_add(1))
}

fn text(expression: &Expr) -> Option<String> {
    match expression {
        Expr::String { value, .. } | Expr::RawString { value, .. } => {
            value.as_string().ok().map(|text| text.to_string())
        }
        _ => None,
    }
}

/// One after the other, each pattern of an object of literals may make the text longer.
fn replacements(patterns: &Expr) -> usize {
    let Expr::Object { fields, .. } = patterns else { return 1 };
    let factor = |(_, old, new): &(_, regorus::unstable::Ref<Expr>, regorus::unstable::Ref<Expr>)| {
        let (old, new) = (text(old).unwrap_or_default().len(), text(new).unwrap_or_default().len());
        if new <= old { 1 } else { new / old.max(1) + 1 }
    };
    fields.iter().map(factor).fold(1, usize::saturating_mul)
}

/// How many operations of a literal patch copy.
fn copies(patch: &Expr) -> usize {
    match patch {
        Expr::Array { items, .. } | Expr::Set { items, .. } => items.iter().map(|item| copies(item)).sum(),
        Expr::Object { fields, .. } => fields.iter().map(|(_, _, value)| copies(value)).sum(),
        Expr::String { .. } | Expr::RawString { .. } => usize::from(text(patch).as_deref() == Some("copy")),
        _ => 0,
    }
}
