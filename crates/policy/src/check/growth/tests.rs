//! Policies that grow too much are refused; what people write is not.

use crate::{Engine, LoadError, Source, engine::tests::source, fixture};

fn team(body: &str) -> Source {
    source("support", &["orders"], &format!("package countersign.teams.support\n{body}\n"))
}

fn load(body: &str) -> Result<Engine, LoadError> {
    Engine::load(&[team(body)], &fixture::catalogue(&["orders"]))
}

/// A line of steps, each made from the one before by `step`, which has `@` for that.
fn line(steps: usize, step: &str) -> String {
    let each = |n: usize| format!("\tx{} := {}\n", n + 1, step.replace('@', &format!("x{n}")));
    let body: String = (0..steps).map(each).collect();
    format!("deny contains {{\"code\": \"x\"}} if {{\n\tx0 := input.call.path\n{body}\tcount(x{steps}) == 3\n}}")
}

/// The same, each step a rule of its own.
fn rules(steps: usize, step: &str) -> String {
    let each = |n: usize| format!("x{} := {}\n", n + 1, step.replace('@', &format!("x{n}")));
    format!("x0 := input.call.path\n{}", (0..steps).map(each).collect::<String>())
}

#[track_caller]
fn refused(body: &str, expected: &str) {
    match load(body) {
        Ok(_) => panic!("loaded: {body}"),
        Err(error) => assert!(error.to_string().contains(expected), "{error}\n{body}"),
    }
}

#[test]
fn what_doubles_with_each_step_is_refused() {
    for step in [
        "concat(\"\", [@, @])",
        "sprintf(\"%s%s\", [@, @])",
        "[@, @]",
        "{\"a\": @, \"b\": @}",
        "{@, [@]}",
        "array.concat([@], [@])",
        "object.union({\"a\": @}, {\"b\": @})",
        "{@} | {[@]}",
        "replace(@, \"a\", \"aa\")",
        "replace(@, \"\", \"a\")",
        "regex.replace(@, \"a\", \"$0$0\")",
        "strings.replace_n({\"a\": \"bb\", \"b\": \"aa\"}, @)",
        "hex.encode(@)",
        "urlquery.encode(@)",
        "json.marshal(@)",
        "concat(@, [\"a\", @])",
        "json.patch({\"a\": @}, [{\"op\": \"copy\", \"from\": \"\", \"path\": \"/b\"}])",
        "union({{@}, {[@]}})",
        "[y | some y in [@, @]]",
        "{\"k\": [@, [@]]}.k",
    ] {
        let expected = if step.starts_with("concat(@") { "argument 1" } else { "MiB" };
        refused(&line(40, step), expected);
        refused(&rules(12, step), expected);
    }
    refused(&rules(12, "@ * @").replace("input.call.path", "7"), "multiplies");
    refused(&rules(12, "[@, @ * @][1]"), "multiplies");
    refused(&rules(12, "product([@, @])"), "multiplies");
    refused("f(x) := concat(\"\", [x, x])\ny := f(f(f(f(f(f(f(f(f(f(input.tool))))))))))", "MiB");
    let functions: String = (0..40).map(|n| format!("f{n}(x) := f{}([x, x])\n", n + 1)).collect();
    refused(&format!("{functions}f40(x) := count(x)\ny := f0(input.tool)"), "MiB");
    refused(&format!("y := concat(\"\", [{}])", vec!["input.tool"; 300].join(",\n")), "MiB");
    refused(&format!("y := replace(input.tool, \"a\", `{}`)", "bbb\n".repeat(600)), "MiB");
}

#[test]
fn a_name_that_is_bound_twice_or_the_other_way_round_does_not_hide_growth() {
    let unified: String = (0..40).map(|n| format!("\t[x{n}, x{n}] = x{}\n", n + 1)).collect();
    refused(&format!("y if {{\n\tx0 = input.tool\n{unified}\tcount(x40) > 1\n}}"), "MiB");
    let backwards: String = (0..40).rev().map(|n| format!("\tx{} = [x{n}, x{n}]\n", n + 1)).collect();
    refused(&format!("y if {{\n\tcount(x40) > 1\n{backwards}\tx0 = input.tool\n}}"), "MiB");
    let shadowed: String = (0..40).fold("input.tool".to_owned(), |inner, n| match n % 8 {
        7 => inner,
        _ => format!("[[x, x] | x := {inner}][0]"),
    });
    assert!(load(&format!("y := {shadowed}")).is_err());
}

#[test]
fn loops_that_repeat_what_loops_collected_are_refused() {
    let collect = |from: &str| format!("[{from} | some _ in numbers.range(1, 10000)]");
    refused(&rules(4, &collect("@")), "loops");
    refused(&rules(4, "{[i, @] | some i in numbers.range(1, 10000)}"), "loops");
    refused(
        "a[i] := input if some i in input.chain\nb[i] := a if some i in input.chain\nc[i] := b if some i in input.chain",
        "loops",
    );
    let nested =
        "[[[[1 | some _ in input.chain] | some _ in input.chain] | some _ in input.chain] | some _ in input.chain]";
    refused(&format!("x := {nested}"), "loops");
}

#[test]
fn what_only_the_policys_own_text_repeats_is_counted() {
    let text = format!("text := `{}`\n", format!("{}\n", "a".repeat(900)).repeat(400));
    for body in [
        "x := concat(\"\", [text | some _ in numbers.range(1, 3000)])",
        "x := count(json.marshal([text | some _ in numbers.range(1, 3000)]))",
        "a := [1 | some _ in numbers.range(1, 9999)]\nx := [a | some _ in numbers.range(1, 9999)]",
        "x := {[i, j, k] | some i in numbers.range(1, 999); some j in numbers.range(1, 999); some k in numbers.range(1, 999)}",
        "a[i] := text if some i in numbers.range(1, 999)",
        "f(t) := [t | some _ in numbers.range(1, 999)]\nx := f(text)",
        "f(t) := [text | some _ in numbers.range(1, 9)]\nx := [f(i) | some i in numbers.range(1, 99)]",
    ] {
        refused(&format!("{text}{body}"), "MiB");
    }
}

#[test]
fn a_long_line_of_names_is_weighed_without_a_long_stack() {
    let backwards: String = (0..3_000).rev().map(|n| format!("\tx{} = [x{n}]\n", n + 1)).collect();
    refused(&format!("y if {{\n\tcount(x3000) > 1\n{backwards}\tx0 = input.tool\n}}"), "too long a line");
    load(&format!(
        "y if {{\n\tx0 := input.tool\n{}\tcount(x3000) > 1\n}}",
        (0..3_000).map(|n| format!("\tx{} := [x{n}]\n", n + 1)).collect::<String>()
    ))
    .unwrap();
}

#[test]
fn what_people_write_is_let_through() {
    for body in [
        "x := sprintf(\"%s may not %s %s\", [input.agent.id, input.action.name, input.action.resource])",
        "names := {concat(\"/\", [group, input.tool]) | some group in input.user.groups}\n\
         wanted := {lower(name) | some name in names; startswith(name, \"a\")}\n\
         x if count(wanted & {\"a\", \"b\"}) > 0\n\
         y := {trim_space(name) | some name in wanted; not name in names}\n\
         z := {replace(name, \"-\", \" and \") | some name in y}",
        "x := {group: {other | some other in input.user.groups; other != group} | some group in input.user.groups}",
        "x := {[hop.id, scope] | some hop in input.chain; some scope in hop.scope}",
        "x := [hop.id | hop := input.chain[_]; hop.kind == \"agent\"]",
        "x if { some i; input.chain[i].kind == \"agent\"; input.chain[i].id == input.agent.id }",
        "limits := {\"a\": {\"minor\": 3}, \"b\": {\"minor\": 4}}\nx := limits[input.action.name].minor * 2 + 1",
        "defaults := {\"a\": 1}\nx := object.union(defaults, {\"b\": input.tool})",
        "total := sum([limit.max.minor | some limit in input.limits])",
        "f(a, b) := concat(\"-\", [a, b])\nx := {f(group, input.tool) | some group in input.user.groups}",
        "paths := {concat(\".\", path) | walk(input.action.parameters, [path, _])}",
        "x := json.patch(input.action, [{\"op\": \"remove\", \"path\": \"/name\"}])",
        "x := count(split(input.call.path, \"/\"))",
        "deny contains {\"code\": \"x\", \"message\": sprintf(\"%s: %v\", [name, input.action.parameters[name]])} if {\n\
         \tsome name in [\"amount\", \"reason\"]\n\tis_null(input.action.parameters[name])\n}",
        "allowed[tool] contains action if { some tool in [\"a\", \"b\"]; some action in [\"c\", \"d\"] }\n\
         x if input.action.name in allowed[input.tool]",
        "x := [sprintf(\"%d-%s\", [i, input.tool]) | some i in numbers.range(1, 12)]",
        "x := {k: twice | some k in [\"amount\", \"fee\"]; twice := input.action.parameters[k].minor * 2}",
        "x := {format_int(a * 100 + b, 10) | some a in numbers.range(1, 200); some b in numbers.range(1, 200)}",
        "x := max([three | some hop in input.chain; three := hop.limit.minor * 3]) * 2",
        "table := {{\"a\": i, \"b\": [i, i]} | some i in numbers.range(1, 500)}\nx := {row.a | some row in table; row.b[_] == 3}",
        "x if every hop in input.chain { hop.kind in {\"user\", \"agent\"} }",
    ] {
        if let Err(error) = load(body) {
            panic!("{error}\n{body}");
        }
    }
}
