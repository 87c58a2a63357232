//! The kinds of value that the builtins most used take and give. What is not here is not known.

use crate::check::shape::Kinds;

const TEXT: Kinds = Kinds::STRING;
const NUMBER: Kinds = Kinds::NUMBER;
const LIST: Kinds = Kinds::ARRAY.or(Kinds::SET);

/// What the builtin `name` takes, argument by argument, where each has to be of certain kinds.
pub(super) fn takes(name: &str) -> Option<&'static [Kinds]> {
    Some(match name {
        "startswith" | "endswith" => {
            const BOTH: [Kinds; 2] = [TEXT, TEXT];
            &BOTH
        }
        "contains" | "indexof" | "trim" | "trim_left" | "trim_right" | "trim_prefix" | "trim_suffix" | "split" => {
            &[TEXT, TEXT]
        }
        "lower" | "upper" | "trim_space" | "strings.reverse" | "time.parse_rfc3339_ns" | "time.parse_duration_ns" => {
            &[TEXT]
        }
        "abs" | "ceil" | "floor" | "round" => &[NUMBER],
        "sum" | "product" | "max" | "min" | "sort" => &[LIST],
        "count" => const { &[LIST.or(Kinds::OBJECT).or(TEXT)] },
        "sprintf" => const { &[TEXT, Kinds::ARRAY] },
        "concat" => const { &[TEXT, LIST] },
        "array.concat" => const { &[Kinds::ARRAY, Kinds::ARRAY] },
        "regex.match" | "replace" => &[TEXT, TEXT],
        "object.keys" => const { &[Kinds::OBJECT] },
        _ => return None,
    })
}

/// What the builtin `name` gives.
pub(super) fn gives(name: &str) -> Option<Kinds> {
    Some(match name {
        "count"
        | "sum"
        | "product"
        | "abs"
        | "ceil"
        | "floor"
        | "round"
        | "indexof"
        | "time.parse_rfc3339_ns"
        | "time.parse_duration_ns"
        | "time.parse_ns"
        | "bits.and"
        | "bits.or" => NUMBER,
        "lower" | "upper" | "trim" | "trim_left" | "trim_right" | "trim_prefix" | "trim_suffix" | "trim_space"
        | "substring" | "replace" | "sprintf" | "concat" | "type_name" | "strings.reverse" | "time.weekday"
        | "time.format" | "json.marshal" | "base64.encode" | "hex.encode" => TEXT,
        "startswith" | "endswith" | "contains" | "regex.match" | "glob.match" | "net.cidr_contains" | "is_string"
        | "is_number" | "is_array" | "is_boolean" | "is_null" | "is_object" | "is_set" => Kinds::BOOLEAN,
        "split" | "array.concat" | "array.slice" | "array.reverse" | "sort" | "time.clock" | "time.date"
        | "numbers.range" => Kinds::ARRAY,
        "object.keys" | "union" | "intersection" => Kinds::SET,
        _ => return None,
    })
}
