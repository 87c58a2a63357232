//! Which of the engine's builtins a policy may call. A builtin that is not in this table is refused: those whose
//! output their input does not bound cannot be interrupted, and those that look at the clock, chance or the
//! network would decide the same call differently tomorrow.

use regorus::{
    Value,
    unstable::{BUILTINS, Expr},
};

use super::walk::Call;
use crate::{Problem, roots::problem};

/// What a call of a builtin has to be.
enum Rule {
    /// Any.
    Free,
    /// The arguments at these places are written out.
    Literal(&'static [usize]),
    /// As [`Rule::Literal`], and the numbers among them are no larger than this.
    Small(&'static [usize], i64),
    /// With its result as the last argument: the engine gives nothing for it as a value.
    Both,
    /// Never; what to use instead.
    Never(&'static str),
}

const CLOCK: &str = "the moment of the decision is `input.now_ns`";
const CHANCE: &str = "a decision has to come out the same when it is looked at again";
const NETWORK: &str = "what is not in the input is declared as a fact of the tool";
const PARSER: &str = "declare the value as a parameter or a fact, which are read once and exactly";
const QUIET: &str = "write a reason's `internal`, which the record keeps";

#[expect(clippy::too_many_lines, reason = "one table, one row a kind of builtin")]
fn rule(name: &str) -> Option<Rule> {
    use Rule::{Both, Free, Literal, Never, Small};
    Some(match name {
        "count" | "max" | "min" | "product" | "sort" | "sum" | "array.concat" | "array.reverse" | "array.slice"
        | "bits.and" | "bits.negate" | "bits.or" | "bits.rsh" | "bits.xor" | "abs" | "ceil" | "floor" | "round"
        | "intersection" | "union" | "is_array" | "is_boolean" | "is_null" | "is_number" | "is_object" | "is_set"
        | "is_string" | "type_name" => Free,
        "base64.decode"
        | "base64.encode"
        | "base64.is_valid"
        | "base64url.decode"
        | "base64url.encode"
        | "base64url.encode_no_pad"
        | "hex.decode"
        | "hex.encode"
        | "urlquery.decode"
        | "urlquery.decode_object"
        | "urlquery.encode"
        | "urlquery.encode_object"
        | "json.marshal" => Free,
        "contains"
        | "endswith"
        | "format_int"
        | "indexof"
        | "indexof_n"
        | "lower"
        | "split"
        | "startswith"
        | "strings.any_prefix_match"
        | "strings.any_suffix_match"
        | "strings.reverse"
        | "substring"
        | "trim"
        | "trim_left"
        | "trim_prefix"
        | "trim_right"
        | "trim_space"
        | "trim_suffix"
        | "upper" => Free,
        "json.filter" | "json.remove" | "object.filter" | "object.get" | "object.keys" | "object.remove"
        | "object.subset" | "object.union" | "object.union_n" | "graph.reachable" => Free,
        "walk" => Both,
        "net.cidr_is_valid" | "net.cidr_contains" | "semver.compare" | "semver.is_valid" | "uuid.parse"
        | "glob.quote_meta" => Free,
        "time.add_date"
        | "time.clock"
        | "time.date"
        | "time.diff"
        | "time.format"
        | "time.parse_duration_ns"
        | "time.parse_ns"
        | "time.parse_rfc3339_ns"
        | "time.weekday" => Free,
        // The output of these can be the product of two inputs, or their work can be.
        "concat" => Literal(&[0]),
        "replace" => Literal(&[2]),
        "strings.replace_n" => Literal(&[0]),
        "sprintf" => Literal(&[0]),
        "glob.match" | "regex.is_valid" | "regex.match" | "regex.find_n" | "regex.split" => Literal(&[0]),
        "regex.replace" => Literal(&[1, 2]),
        "regex.find_all_string_submatch_n" => Literal(&[0]),
        "regex.template_match" => Literal(&[0, 2, 3]),
        "json.patch" => Literal(&[1]),
        "numbers.range" => Small(&[0, 1], 10_000),
        "numbers.range_step" => Small(&[0, 1, 2], 10_000),
        "bits.lsh" => Small(&[1], 64),
        // A number's text may name an exponent that its value does not fit in.
        "to_number"
        | "units.parse"
        | "units.parse_bytes"
        | "json.unmarshal"
        | "json.is_valid"
        | "json.marshal_with_options"
        | "yaml.unmarshal"
        | "yaml.is_valid"
        | "yaml.marshal" => Never(PARSER),
        "net.cidr_expand" => Never("`net.cidr_contains` asks the same of one address"),
        "graph.reachable_paths" => Never("`graph.reachable` gives the nodes without every way to them"),
        // The engine counts overlapping occurrences, and stumbles over an empty text.
        "strings.count" => Never("`count(split(text, part)) - 1` counts occurrences"),
        "time.now_ns" => Never(CLOCK),
        "rand.intn" | "uuid.rfc4122" | "opa.runtime" => Never(CHANCE),
        "http.send" | "net.lookup_ip_addr" => Never(NETWORK),
        "print" | "trace" => Never(QUIET),
        _ => return None,
    })
}

/// Reports what is wrong with the call of the builtin `name`.
pub(super) fn check(name: &str, call: &Call<'_>, problems: &mut Vec<Problem>) {
    let mut report =
        |message: String, hint: Option<String>| problems.push(problem(call.span, message, hint).coded("builtin"));
    let (rule, declared) = (rule(name), BUILTINS.get(name));
    if let Some(Rule::Never(hint)) = rule {
        report(format!("a policy may not call `{name}`"), Some(hint.to_owned()));
        return;
    }
    let (Some(rule), Some((_, arguments))) = (rule, declared) else {
        report(format!("there is no function `{name}` that a policy may call"), None);
        return;
    };
    // Zero stands for any number; one more argument than the function takes is unified with its result.
    let (most, given) = (usize::from(*arguments), call.arguments.len());
    if most != 0 && given != most && given != most + 1 {
        report(format!("`{name}` takes {most} arguments"), None);
    }
    let (places, most) = match rule {
        Rule::Free | Rule::Never(_) => return,
        Rule::Both if given == 2 => return,
        Rule::Both => {
            let hint = format!("write `{name}(document, [path, value])`");
            report(format!("`{name}` needs what it is to find as its second argument"), Some(hint));
            return;
        }
        Rule::Literal(places) => (places, i64::MAX),
        Rule::Small(places, most) => (places, most),
    };
    for place in places {
        match call.arguments.get(*place) {
            Some(argument) if !is_literal(argument, 0) => {
                let hint = "what a call says could make the result as large as it likes".to_owned();
                report(format!("argument {} of `{name}` has to be written out", place + 1), Some(hint));
            }
            Some(argument) if !is_small(argument, most) => {
                report(format!("argument {} of `{name}` is too large", place + 1), None);
            }
            _ => {}
        }
    }
    if name == "sprintf"
        && let Some(Expr::String { value, .. } | Expr::RawString { value, .. }) = call.arguments.first()
        && !is_plain_format(value)
    {
        report("the format of `sprintf` pads to more than 99 or is not one".to_owned(), None);
    }
}

/// Whether the expression is a constant, whatever the call.
fn is_literal(expression: &Expr, depth: usize) -> bool {
    if depth > 8 {
        return false;
    }
    let all = |items: &[regorus::unstable::Ref<Expr>]| items.iter().all(|item| is_literal(item, depth + 1));
    match expression {
        Expr::String { .. } | Expr::RawString { .. } | Expr::Number { .. } | Expr::Bool { .. } | Expr::Null { .. } => {
            true
        }
        Expr::Array { items, .. } | Expr::Set { items, .. } => all(items),
        Expr::Object { fields, .. } => {
            fields.iter().all(|(_, name, value)| is_literal(name, depth + 1) && is_literal(value, depth + 1))
        }
        Expr::UnaryExpr { expr, .. } => is_literal(expr, depth + 1),
        _ => false,
    }
}

fn is_small(expression: &Expr, most: i64) -> bool {
    match expression {
        Expr::Number { value, .. } => most == i64::MAX || value.as_i64().is_ok_and(|number| number.abs() <= most),
        Expr::UnaryExpr { expr, .. } => is_small(expr, most),
        _ => true,
    }
}

/// Whether each `%` is followed by at most two digits or a point and two digits, and a letter. The engine takes
/// any run of digits for a width, and stumbles over digits of other scripts.
fn is_plain_format(value: &Value) -> bool {
    let Ok(text) = value.as_string() else { return false };
    // Pairs of `%%` stand for themselves; what is left of each `%` is a verb with its width.
    text.replace("%%", "").split('%').skip(1).all(|part| {
        let verb = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        part.len() - verb.len() <= 3 && verb.starts_with(|c: char| c.is_ascii_alphabetic())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builtin_of_the_engine_is_judged() {
        let unjudged: Vec<_> = BUILTINS.keys().filter(|name| !name.starts_with("__") && rule(name).is_none()).collect();
        assert!(unjudged.is_empty(), "{unjudged:?}");
    }

    #[test]
    fn a_format_pads_little() {
        let plain = |text: &str| is_plain_format(&Value::from(text));
        for text in ["", "a", "%d", "%s of %v", "%5d", "%.2f", "100%%", "%%%d", "%05d"] {
            assert!(plain(text), "{text}");
        }
        for text in ["%1000d", "%", "%\u{0663}d", "%99999999999s", "%d %"] {
            assert!(!plain(text), "{text}");
        }
    }
}
