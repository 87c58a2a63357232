//! The corpus: cases as people write them (`tests/corpora/http/README.md`), and the bytes that they stand for.

use std::{fs, path::Path};

/// One case.
#[derive(Debug)]
pub(super) struct Case {
    /// Its number, which its requests carry in `X-Case`.
    pub(super) id: usize,
    /// File and title.
    pub(super) name: String,
    /// What has to become of it.
    pub(super) expected: Expected,
    /// Whether the agent closes its side after the last byte.
    pub(super) leaves: bool,
    head: Vec<String>,
    body: Option<String>,
}

/// What has to become of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// Nothing reaches the tool.
    Refused,
    /// So many requests reach the tool, each as it was decided.
    Sent(usize),
    /// One of the two.
    Either,
    /// It is decided, and no whole request reaches the tool.
    Broken,
}

/// What the corpus cannot know.
pub(super) struct Filled<'a> {
    /// The sidecar's authority.
    pub(super) host: &'a str,
    /// The agent's token.
    pub(super) token: &'a str,
}

const REFUND: &str = r#"{"amount":"20.00","currency":"USD"}"#;

/// Every case of every file in `directory`.
pub(super) fn read(directory: &Path) -> Vec<Case> {
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let stem = file.file_stem().unwrap().to_string_lossy().into_owned();
        for text in fs::read_to_string(&file).unwrap().split("## ").skip(1) {
            cases.push(Case::new(cases.len(), &stem, text));
        }
    }
    cases
}

impl Case {
    fn new(id: usize, file: &str, text: &str) -> Self {
        let mut lines = text.lines();
        let title = lines.next().unwrap();
        let (name, expected) = title.rsplit_once(" => ").unwrap_or_else(|| panic!("no expectation: {title}"));
        let expected = match expected.split_once(' ') {
            None if expected == "refused" => Expected::Refused,
            None if expected == "either" => Expected::Either,
            None if expected == "broken" => Expected::Broken,
            Some(("sent", count)) => Expected::Sent(count.parse().unwrap()),
            _ => panic!("no expectation: {title}"),
        };
        let mut head: Vec<String> = lines.by_ref().take_while(|line| *line != "--").map(str::to_owned).collect();
        let leaves = head.iter().any(|line| line == "!leave");
        head.retain(|line| line != "!leave");
        let body: Vec<&str> = lines.collect();
        let body = text.contains("\n--\n").then(|| body.concat());
        Self { id, name: format!("{file}: {name}"), expected, leaves, head, body }
    }

    /// The bytes that the agent says.
    pub(super) fn bytes(&self, filled: &Filled<'_>) -> Vec<u8> {
        let body = self.expanded(self.body.as_deref().unwrap_or_default(), filled, 0);
        let mut bytes = Vec::new();
        for line in &self.head {
            let refund = "@post /orders/v1/orders/17/refunds";
            let line = if line == "@refund" { refund } else { line };
            let own_length = self.head.first().is_some_and(|first| first == "@refund") && line == refund;
            let text = match line.split_once(' ') {
                Some(("@get", target)) => format!("GET {target} HTTP/1.1\\r\\nhost: {{host}}\\r\\n{{agent}}"),
                Some(("@post", target)) => format!(
                    "POST {target} HTTP/1.1\\r\\nhost: {{host}}\\r\\n{{agent}}content-type: application/json\\r\\n{}",
                    if own_length { "content-length: {length}\\r\\n" } else { "" }
                ),
                // These bring their line ends with them.
                _ if line == "{agent}" || line == "{who}" => line.to_owned(),
                _ => match line.strip_suffix('\\') {
                    Some(unended) if !unended.ends_with('\\') => unended.to_owned(),
                    _ => format!("{line}\\r\\n"),
                },
            };
            bytes.extend(self.expanded(&text, filled, body.len()));
        }
        bytes.extend(b"\r\n");
        bytes.extend(body);
        bytes
    }

    fn expanded(&self, text: &str, filled: &Filled<'_>, length: usize) -> Vec<u8> {
        let many: String = (0..200).map(|number| format!("x-many-{number}: 1\\r\\n")).collect();
        let text = text
            .replace("{agent}", "{who}connection: close\\r\\n")
            .replace("{who}", "authorization: Bearer {token}\\r\\nx-case: {case}\\r\\n")
            .replace("{many}", &many)
            .replace("{big}", &"x".repeat(40 << 10))
            .replace("{refund}", REFUND)
            .replace("{token}", filled.token)
            .replace("{case}", &self.id.to_string())
            .replace("{host}", filled.host)
            .replace("{length}", &length.to_string());
        unescaped(&text, &self.name)
    }
}

fn unescaped(text: &str, case: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'\\' {
            bytes.push(first);
            continue;
        }
        let (&escape, after) = rest.split_first().unwrap_or_else(|| panic!("{case}: a lone backslash"));
        rest = after;
        bytes.push(match escape {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'\\' => b'\\',
            b'x' => {
                let (hex, after) = rest.split_at(2);
                rest = after;
                u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap()
            }
            other => panic!("{case}: no escape `\\{}`", char::from(other)),
        });
    }
    bytes
}
