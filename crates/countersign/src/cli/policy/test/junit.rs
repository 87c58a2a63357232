//! Results as JUnit XML: one suite for each file, as CI servers read it. Nothing in it is trusted: names and values are
//! whatever policies and cases say.

use std::{collections::BTreeMap, fmt::Write};

use policy::test::Passed;

use super::{
    show::{why, word},
    suite::Suite,
};

struct One {
    name: String,
    class: String,
    line: u64,
    failures: Vec<String>,
    skipped: bool,
}

pub(super) fn document(suite: &Suite) -> String {
    let mut files: BTreeMap<&str, Vec<One>> = BTreeMap::new();
    for test in &suite.tests {
        let (class, name) = test.name.rsplit_once('.').unwrap_or_default();
        let failures = if word(&test.result) == "FAIL" { why(test) } else { Vec::new() };
        let skipped = test.result == Passed::Skipped;
        files.entry(&test.place.file).or_default().push(One {
            name: name.to_owned(),
            class: class.to_owned(),
            line: test.place.line.into(),
            failures,
            skipped,
        });
    }
    for (case, outcome) in &suite.cases {
        files.entry(&case.file).or_default().push(One {
            name: case.name.clone(),
            class: "cases".to_owned(),
            line: case.line,
            failures: outcome.failures.clone(),
            skipped: false,
        });
    }
    if let Some(threshold) = suite.threshold {
        let short = format!("{:.1} % is covered, less than {threshold} %", suite.percent());
        files.entry("coverage").or_default().push(One {
            name: "threshold".to_owned(),
            class: "coverage".to_owned(),
            line: 1,
            failures: suite.is_short().then_some(short).into_iter().collect(),
            skipped: false,
        });
    }
    let mut text =
        String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"countersign policy test\">\n");
    for (file, ones) in files {
        let failed = ones.iter().filter(|one| !one.failures.is_empty()).count();
        let skipped = ones.iter().filter(|one| one.skipped).count();
        // Writing to a string does not fail.
        writeln!(
            text,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\" errors=\"0\" skipped=\"{skipped}\">",
            escaped(file),
            ones.len()
        )
        .ok();
        ones.iter().for_each(|one| one.write(file, &mut text));
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

impl One {
    fn write(&self, file: &str, text: &mut String) {
        let (name, class) = (escaped(&self.name), escaped(&self.class));
        let (file, line) = (escaped(file), self.line);
        let head = format!("    <testcase name=\"{name}\" classname=\"{class}\" file=\"{file}\" line=\"{line}\"");
        if self.skipped {
            writeln!(text, "{head}><skipped/></testcase>").ok();
        } else if let Some(first) = self.failures.first() {
            let all = escaped(&self.failures.join("\n"));
            writeln!(text, "{head}><failure message=\"{}\">{all}</failure></testcase>", escaped(first)).ok();
        } else {
            writeln!(text, "{head}/>").ok();
        }
    }
}

/// `text` where XML 1.0 has text or an attribute's value; what XML has no character for is left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            c if c.is_control() || matches!(c, '\u{FFFE}' | '\u{FFFF}') => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_name_ends_an_element() {
        assert_eq!(escaped("a<b>\"&\u{1}]]>\n"), "a&lt;b&gt;&quot;&amp;]]&gt;&#10;");
    }
}
