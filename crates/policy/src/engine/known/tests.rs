//! What one engine has of the one before it, and what is looked at all the same.

use std::fs;

use model::{Decision, Verdict};

use super::*;
use crate::{Bounds, Engine, PolicySource, fixture};

const RULES: &str = "package countersign.teams.support

allow contains {\"code\": \"known\"} if data.countersign.teams.support.tiers[input.user.id] == \"gold\"
";

/// Two teams' directories.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("support/a.rego", RULES);
        folder.data("support", "tiers", r#"{"alice": "gold"}"#);
        folder.write("mail/a.rego", "package countersign.teams.mail\n\nallow contains {\"code\": \"all\"}\n");
        folder.data("mail", "lists", r#"{"all": ["alice", "bob"]}"#);
        folder
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn data(&self, team: &str, name: &str, value: &str) {
        let json = format!(r#"{{"countersign": {{"teams": {{"{team}": {{"{name}": {value}}}}}}}}}"#);
        self.write(&format!("{team}/data.json"), &json);
    }

    fn configured(&self, team: &str, tool: &str) -> PolicySource {
        serde_json::from_value(serde_json::json!({ "name": team, "path": team, "for": [tool] })).unwrap()
    }

    /// What lies there.
    fn read(&self, known: &Known) -> Result<Vec<Source>, LoadError> {
        let read = |(team, tool)| Ok(self.configured(team, tool).open_knowing(self.0.path(), known)?.0);
        [("support", "orders"), ("mail", "mail")].into_iter().map(read).collect()
    }

    fn next(&self, engine: &Engine) -> Result<Engine, LoadError> {
        let known = engine.known();
        Engine::load_knowing(&known, &self.read(&known)?, &fixture::catalogue(&["orders", "mail"]))
    }

    /// One that has nothing of another.
    fn alone(&self) -> Engine {
        let sources = self.read(&Known::default()).unwrap();
        Engine::load_within(&sources, &fixture::catalogue(&["orders", "mail"]), Bounds::default()).unwrap()
    }
}

/// The decision on alice's refund, asked twice: what is remembered is what was decided.
fn decide(engine: &Engine) -> Decision {
    let first = engine.decide(&fixture::question());
    assert_eq!(engine.decide(&fixture::question()), first);
    first
}

/// Whether policies were parsed once for both.
fn shared(one: &Engine, other: &Engine) -> bool {
    Arc::ptr_eq(&one.compiled, &other.compiled)
}

fn same(one: &Data, other: &Data) -> bool {
    std::ptr::eq(one.document().as_object().unwrap(), other.document().as_object().unwrap())
}

#[test]
fn other_data_parses_no_policy_again_and_decides_anew() {
    let folder = Folder::new();
    let before = folder.alone();
    assert_eq!(decide(&before).verdict, Verdict::Permit);
    folder.data("support", "tiers", r#"{"alice": "silver"}"#);
    let after = folder.next(&before).unwrap();
    assert!(shared(&after, &before) && after.differs_in_data_alone(&before.known()));
    assert_eq!(decide(&after).verdict, Verdict::Deny, "nothing that was remembered counts");
    assert_eq!(decide(&before).verdict, Verdict::Permit, "calls under way end by the data before");
    assert_ne!(after.revision(), before.revision());
    let [support, mail] = after.documents.as_slice() else { panic!("two documents") };
    assert!(!same(support, &before.documents[0]) && same(mail, &before.documents[1]));
    // And on: the third, and back to the first.
    folder.data("support", "tiers", r#"{"alice": "gold"}"#);
    let again = folder.next(&after).unwrap();
    assert!(shared(&again, &before));
    assert_eq!((again.revision(), decide(&again).verdict), (before.revision(), Verdict::Permit));
}

#[test]
fn an_engine_is_the_same_whatever_it_has_of_another() {
    let folder = Folder::new();
    let before = folder.alone();
    folder.data("support", "tiers", r#"{"alice": "silver", "bob": "gold"}"#);
    let (after, alone) = (folder.next(&before).unwrap(), folder.alone());
    assert!(!shared(&alone, &after));
    assert_eq!((after.revision(), decide(&after)), (alone.revision(), decide(&alone)));
}

#[test]
fn other_policies_are_parsed_and_what_no_data_changed_of_is_not_read_again() {
    let folder = Folder::new();
    let before = folder.alone();
    folder.write("support/a.rego", &RULES.replace("gold", "silver"));
    let after = folder.next(&before).unwrap();
    assert!(!shared(&after, &before) && !after.differs_in_data_alone(&before.known()));
    assert_eq!(decide(&after).verdict, Verdict::Deny);
    assert!(after.documents.iter().zip(&before.documents).all(|(after, before)| same(after, before)));
    // The same text in another file is no file that was read: it is another team's.
    folder.write("mail/data.json", &fs::read_to_string(folder.0.path().join("support/data.json")).unwrap());
    let said = folder.next(&after).unwrap_err().to_string();
    assert!(said.contains("the data of `mail` lies under"), "{said}");
    // So it is below another directory.
    folder.data("mail", "lists", "{}");
    folder.write("support/countersign/teams/support/tiers/data.json", r#"{"bob": "gold"}"#);
    let deeper = folder.next(&after).unwrap();
    folder.write("support/countersign/teams/support/data.json", r#"{"bob": "gold"}"#);
    let both = folder.next(&deeper).unwrap();
    assert!(shared(&both, &deeper));
    assert_eq!((both.documents.len(), both.revision()), (4, folder.alone().revision()));
}

#[test]
fn data_that_does_not_fit_is_refused_as_it_is_at_a_start() {
    let folder = Folder::new();
    let before = folder.alone();
    let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
    let large = format!("[{}1]", "1,".repeat(1_000_000));
    for (value, why) in [
        (r#"{"countersign": {"teams": {"mail": {"tiers": {}}}}}"#, "lies under `data.countersign.teams.support`"),
        (r#"{"countersign": {"lib": {"money": {}}}}"#, "lies under"),
        (r#"{"countersign": {"teams": {"support": {"tiers": {}, "allow": {}}}}}"#, "has the rule's name too"),
        (
            r#"{"countersign": {"teams": {"support": {"levels": {}}}}}"#,
            "there is no `data.countersign.teams.support.tiers`",
        ),
        (deep.as_str(), "nested too deep"),
        (large.as_str(), "names and values"),
        ("[]", "is an object"),
        ("{", "data.json"),
        (r#"{"a": 1, "a": 2}"#, "twice"),
    ] {
        folder.write("support/data.json", value);
        let said = folder.next(&before).unwrap_err().to_string();
        assert!(said.contains(why), "{}: {said}", value.get(..60.min(value.len())).unwrap());
        let alone = folder.read(&Known::default());
        let catalogue = fixture::catalogue(&["orders", "mail"]);
        let alone = alone.and_then(|sources| Engine::load(&sources, &catalogue)).unwrap_err();
        assert_eq!(alone.to_string(), said);
    }
    // Two documents that contradict each other.
    folder.data("support", "tiers", r#"{"alice": "gold"}"#);
    folder.write("support/countersign/teams/support/tiers/data.yaml", "alice: silver\n");
    assert!(folder.next(&before).unwrap_err().to_string().contains("alice"));
    assert_eq!(decide(&before).verdict, Verdict::Permit);
}

#[test]
fn data_that_makes_a_rule_too_large_is_refused() {
    let folder = Folder::new();
    let rule = "lists contains [a, b] if {\n some a in data.countersign.teams.support.tiers\n \
                some b in data.countersign.teams.support.tiers\n}\n";
    folder.write("support/a.rego", &format!("{RULES}\n{rule}"));
    let before = folder.alone();
    let many: Vec<String> = (0..5_000).map(|number| format!("\"u{number}\": \"tier {number}\"")).collect();
    folder.data("support", "tiers", &format!("{{{}}}", many.join(", ")));
    let said = folder.next(&before).unwrap_err().to_string();
    assert!(said.contains("a.rego"), "{said}");
    folder.data("support", "tiers", r#"{"alice": "silver"}"#);
    assert!(shared(&folder.next(&before).unwrap(), &before));
}

#[test]
fn tools_are_bound_anew_and_have_to_be_there() {
    let folder = Folder::new();
    let before = folder.alone();
    let known = before.known();
    let mut sources = folder.read(&known).unwrap();
    sources[0].tools = Some([fixture::id("mail")].into());
    let both = fixture::catalogue(&["orders", "mail"]);
    let after = Engine::load_knowing(&known, &sources, &both).unwrap();
    assert!(shared(&after, &before) && !after.differs_in_data_alone(&known));
    assert_ne!(after.revision(), before.revision());
    assert_eq!(decide(&after).code, Some(model::Code::NoPolicy));
    let said = Engine::load_knowing(&known, &sources, &fixture::catalogue(&["orders"])).unwrap_err().to_string();
    assert!(said.contains("`mail`"), "{said}");
}
