//! The page of the policy library, from the comments in its sources: the one above `package` is what a module is for, the
//! one above a rule what that rule says. A rule without one is for the library itself.

use std::fmt::Write;

use policy::library;

pub(super) fn document() -> String {
    let mut text = format!(
        "{}# The policy library\n\n`import data.countersign.lib.<module>`. It comes with the binary and is the same for \
         every policy of a release; its revision is part\nof every decision's. Sources and tests: `policies/lib`.\n",
        super::GENERATED
    );
    for file in library::files() {
        module(&mut text, &file.text);
    }
    text
}

/// A rule that policies may use.
struct Rule {
    head: String,
    meaning: String,
}

fn module(text: &mut String, source: &str) {
    let mut lines = source.lines();
    let mut about: Vec<&str> = Vec::new();
    let mut name = "";
    for line in lines.by_ref() {
        match line.strip_prefix("package countersign.lib.") {
            Some(found) => {
                name = found;
                break;
            }
            None => about.push(comment(line).unwrap_or_default()),
        }
    }
    // Writing to a string does not fail.
    writeln!(text, "\n## `{name}`\n\n{}\n\n| rule | meaning |\n|---|---|", about.join("\n").trim_end()).ok();
    for rule in rules(lines) {
        writeln!(text, "| `{name}.{}` | {} |", rule.head, rule.meaning).ok();
    }
}

fn rules<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    let mut above: Vec<&str> = Vec::new();
    for line in lines {
        if let Some(said) = comment(line) {
            above.push(said);
            continue;
        }
        if !above.is_empty() && line.starts_with(|first: char| first.is_ascii_lowercase()) {
            rules.push(Rule { head: head(line), meaning: above.join(" ").replace('|', "\\|") });
        }
        above.clear();
    }
    rules
}

fn comment(line: &str) -> Option<&str> {
    let said = line.strip_prefix('#')?;
    Some(said.strip_prefix(' ').unwrap_or(said))
}

/// How the rule is called, without what it is made of.
fn head(line: &str) -> String {
    let end = [" if", " :=", " contains "].iter().filter_map(|word| line.find(word)).min();
    line.get(..end.unwrap_or(line.len())).unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_shown_with_its_comment_and_a_helper_is_not() {
        let source = "# What it is for.\n#\n#     import x\npackage countersign.lib.some\n\nimport data.other\n\n\
                      # One line\n# and another.\nrule(a, b) := c if {\n\t# inner\n\tc := a\n}\n\nhelper(a) if a\n";
        let mut text = String::new();
        module(&mut text, source);
        assert!(text.contains("## `some`\n\nWhat it is for.\n\n    import x\n"), "{text}");
        assert!(text.contains("| `some.rule(a, b)` | One line and another. |"), "{text}");
        assert!(!text.contains("helper"), "{text}");
    }
}
