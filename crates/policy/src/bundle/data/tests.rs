//! What a document says, wherever it was read from; and that one which was verified before has to be signed all the same.

use rcgen::{KeyPair, PKCS_ED25519};

use super::{
    super::{Algorithm, Bundle, Keys, SigningKey, Source, archive},
    *,
};
use crate::{Engine, fixture};

const DOCUMENT: &str = r#"{"limit": 4, "names": ["a", "b"], "deep": {"limit": 4.50, "none": null}}"#;

fn read(name: &str, below: &str, text: &str) -> Result<Data, LoadError> {
    let below: Vec<String> = below.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    Data::parse(&FilePath::new("policies").join(name), name, &below, text, &Known::default())
}

fn digest(name: &str, below: &str, text: &str) -> Digest {
    *read(name, below, text).unwrap().digest()
}

#[test]
fn what_says_the_same_has_one_digest_and_nothing_else_does() {
    let known = digest("data.json", "", DOCUMENT);
    let reordered = r#"{ "deep": { "none": null, "limit": 4.50 }, "names": [ "a", "b" ], "limit": 4 }"#;
    assert_eq!(digest("data.json", "", reordered), known);
    let yaml = "limit: 4\nnames: [a, b]\ndeep: { limit: 4.50, none: ~ }\n";
    assert_eq!(digest("data.yaml", "", yaml), known);
    let nested = format!(r#"{{"below": {DOCUMENT}}}"#);
    assert_eq!(digest("data.json", "below", DOCUMENT), digest("data.json", "", &nested));
    let mut others = vec![known];
    for (from, to) in [
        ("4,", "5,"),
        ("4,", "\"4\","),
        ("[\"a\", \"b\"]", "[\"b\", \"a\"]"),
        ("[\"a\", \"b\"]", "[\"ab\"]"),
        ("[\"a\", \"b\"]", "[[\"a\"], \"b\"]"),
        ("null", "false"),
        ("null", "\"null\""),
        ("none", "nome"),
        ("\"deep\": {", "\"deep\": {\"a\": {}, "),
    ] {
        let other = digest("data.json", "", &DOCUMENT.replacen(from, to, 1));
        assert!(!others.contains(&other), "{from} {to}");
        others.push(other);
    }
    let texts = [3 * GATHERED, 3 * GATHERED - 1, GATHERED, GATHERED - 1].map(|length| "x".repeat(length));
    for (place, text) in texts.iter().enumerate() {
        let digests = texts.iter().map(|other| {
            digest("data.json", "", &format!(r#"{{"a": "{other}"}}"#))
                == digest("data.json", "", &format!(r#"{{"a": "{text}"}}"#))
        });
        assert_eq!(digests.filter(|same| *same).count(), 1, "{place}");
    }
}

#[test]
fn a_document_is_told_by_its_place_and_its_bytes() {
    let of = |name: &str, below: &[&str], text: &str| {
        TextDigest::of(name, &below.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>(), text.as_bytes())
    };
    let known = of("data.json", &["a", "b"], "{}");
    assert_eq!(of("data.json", &["a", "b"], "{}"), known);
    for other in [
        of("data.yaml", &["a", "b"], "{}"),
        of("data.json", &["a"], "{}"),
        of("data.json", &["ab"], "{}"),
        of("data.json", &["b", "a"], "{}"),
        of("data.json", &["a", "b"], "{ }"),
    ] {
        assert_ne!(other, known);
    }
}

#[test]
fn names_that_come_again_share_their_text() {
    let items: Vec<String> = (0..2 * MAX_NAMES).map(|item| format!(r#"{{"name": 1, "only{item}": 2}}"#)).collect();
    let data = read("data.json", "", &format!(r#"{{"items": [{}]}}"#, items.join(","))).unwrap();
    let items = data.at(&["items".to_owned()]).unwrap().as_array().unwrap().to_vec();
    let names = |item: &Value| item.as_object().unwrap().keys_sorted().cloned().collect::<Vec<_>>();
    let (first, last) = (names(&items[0]), names(&items[2 * MAX_NAMES - 1]));
    assert!(std::ptr::eq(first[0].as_string().unwrap().as_ref(), last[0].as_string().unwrap().as_ref()));
    assert_eq!((first.len(), last.len()), (2, 2));
    assert_eq!(last[1], Value::from(format!("only{}", 2 * MAX_NAMES - 1).as_str()));
}

/// A team's bundle with that data, signed.
struct Signed {
    key: SigningKey,
    keys: Keys,
}

impl Signed {
    fn new() -> Self {
        let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let mut keys = Keys::default();
        keys.add("k", Algorithm::EdDsa, pair.public_key_pem().as_bytes(), None).unwrap();
        Self { key: SigningKey::parse(pair.serialize_pem().as_bytes()).unwrap(), keys }
    }

    fn bundle(&self, rule: &str, data: &str) -> Vec<u8> {
        let rego = format!("package countersign.teams.support\n\n{rule}\n");
        let files = [("a.rego", rego.as_str()), (PLACE, data)];
        let made = archive::write(files.iter().map(|(name, text)| (*name, text.as_bytes()))).unwrap();
        Bundle::open(&made, None).unwrap().sign(&self.key, Some("k"), None).unwrap()
    }

    fn open(&self, archive: &[u8], known: &Known) -> Result<Source, String> {
        let bundle = Bundle::open_knowing(archive, Some(&self.keys), known.clone())?;
        let tools = Some([fixture::id("orders")].into());
        bundle.source("support", tools, FilePath::new("b")).map_err(|error| error.to_string())
    }
}

const PLACE: &str = "countersign/teams/support/data.json";
const ALLOW: &str = "allow contains {\"code\": \"all\"}";

fn known(source: Source) -> Known {
    Engine::load(&[source], &fixture::catalogue(&["orders"])).unwrap().known()
}

fn same(one: &Data, other: &Data) -> bool {
    std::ptr::eq(one.document().as_object().unwrap(), other.document().as_object().unwrap())
}

#[test]
fn a_document_that_was_verified_is_not_read_again() {
    let signed = Signed::new();
    let before = signed.open(&signed.bundle(ALLOW, DOCUMENT), &Known::default()).unwrap();
    let known = known(before.clone());
    let after = signed.open(&signed.bundle(&format!("{ALLOW} if 1 == 1"), DOCUMENT), &known).unwrap();
    assert!(same(&after.data[0], &before.data[0]));
    assert_eq!(after.data[0].hash(), before.data[0].hash());
    let other = signed.open(&signed.bundle(ALLOW, &DOCUMENT.replace('4', "5")), &known).unwrap();
    assert!(!same(&other.data[0], &before.data[0]));
    assert_ne!(other.data[0].hash(), before.data[0].hash());
}

#[test]
fn what_is_known_has_to_be_what_was_signed() {
    let signed = Signed::new();
    let known = known(signed.open(&signed.bundle(ALLOW, DOCUMENT), &Known::default()).unwrap());
    // The known document under the signature of another.
    let archive = archive::Archive::read(&signed.bundle(ALLOW, "{}")).unwrap();
    let instead = archive.files().map(|(name, text)| (name, if name == PLACE { DOCUMENT.as_bytes() } else { text }));
    let forged = archive::write(instead).unwrap();
    let said = signed.open(&forged, &known).unwrap_err();
    assert!(said.contains(&format!("`{PLACE}` is not what was signed")), "{said}");
    // The known one at a place where nobody signed it.
    let archive = archive::Archive::read(&signed.bundle(ALLOW, DOCUMENT)).unwrap();
    let moved = archive.files().map(|(name, text)| (if name == PLACE { "data.json" } else { name }, text));
    let moved = archive::write(moved).unwrap();
    assert!(signed.open(&moved, &known).unwrap_err().contains("is not signed"));
}

#[test]
fn what_nobody_verified_is_read_and_verified() {
    let signed = Signed::new();
    let archive = signed.bundle(ALLOW, DOCUMENT);
    let unsigned = archive::Archive::read(&archive).unwrap();
    let others = unsigned.files().filter(|(name, _)| *name != ".signatures.json");
    let bundle = Bundle::open(&archive::write(others).unwrap(), None).unwrap();
    let tools = Some([fixture::id("orders")].into());
    let before = bundle.source("support", tools, FilePath::new("b")).unwrap();
    assert_eq!(before.data[0].hash(), None);
    let after = signed.open(&archive, &known(before.clone())).unwrap();
    assert!(!same(&after.data[0], &before.data[0]) && after.data[0].hash().is_some());
}

#[test]
fn what_is_kept_and_read_again_has_the_revision_that_decided_to_the_last_digit() {
    let whole = ["0", "-1", "1e3", "9007199254740993", "18446744073709551615", "123456789012345678901234567890"];
    let parts = ["1.0", "4.50", "0.1", "-0.0", "1e-7", "0.1234567890123456789012345"];
    for number in whole.iter().chain(&parts) {
        let data = read("data.json", "", &format!(r#"{{"limit": {number}, "{number}": ["\u0000", "ö"]}}"#)).unwrap();
        let kept: Data = serde_json::from_str(&serde_json::to_string(&data).unwrap()).unwrap();
        assert_eq!(kept.digest(), data.digest(), "{number}");
    }
}
