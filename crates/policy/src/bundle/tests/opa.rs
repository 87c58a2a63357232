//! Against what OPA publishes: hashes and signatures of its own tests (v1/bundle/*_test.go), made again by hand.

use aws_lc_rs::digest::{SHA512, digest};

use super::*;

/// A public key of 2048 bits, and a signature of it, from `TestVerifyJWTSignature`.
const RS256_KEY: &str = "-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA9KaakMv1XKKDaSch3PFR
3a27oaHp1GNTTNqvb1ZaHZXp+wuhYDwc/MTE67x9GCifvQBWzEGorgTq7aisiOyl
vKifwz6/wQ+62WHKG/sqKn2Xikp3P63aBIPlZcHbkyyRmL62yeyuzYoGvLEYel+m
z5SiKGBwviSY0Th2L4e5sGJuk2HOut6emxDi+E2Fuuj5zokFJvIT6Urlq8f3h6+l
GeR6HUOXqoYVf7ff126GP7dticTVBgibxkkuJFmpvQSW6xmxruT4k6iwjzbZHY7P
ypZ/TdlnuGC1cOpAVyU7k32IJ9CRbt3nwEf5U54LRXLLQjFixWZHwKdDiMTF4ws0
+wIDAQAB
-----END PUBLIC KEY-----
";
const OTHER_KEY: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDMYfnvWtC8Id5bPKae5yXSxQTt
+Zpul6AnnZWfI2TtIarvjHBFUtXRo96y7hoL4VWOPKGCsRqMFDkrbeUjRrx8iL91
4/srnyf6sh9c8Zk04xEOpK1ypvBz+Ks4uZObtjnnitf0NBGdjMKxveTq+VE7BWUI
yQjtQ8mbDOsiLLvh7wIDAQAB
-----END PUBLIC KEY-----
";
const RS256_SIGNATURE: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImZvbyJ9.eyJmaWxlcyI6W3sibmFtZSI6ImRiL3VhbTIvZW50aXRsZW1lbnRzL2RhdGEuanNvbiIsImhhc2giOiJjMjEzMTU0NGM3MTZhMjVhNWUzMWY1MDQzMDBmNTI0MGU4MjM1Y2FkYjlhNTdmMGJkMWI2ZjRiZDc0YjI2NjEyIiwiYWxnb3JpdGhtIjoic2hhMjU2In0seyJuYW1lIjoiZGIvdWFtMi9wb2xpY3kvb3BhLXBvbGljeS5yZWdvIiwiaGFzaCI6IjQyY2ZlNjc2OGI1N2JiNWY3NTAzYzE2NWMyOGRkMDdhYzViODEzNTU0ZWJjODUwZjJjYzM1ODQzZTcxMzdiMWQifV0sImlhdCI6MTU5MjI1MTQwNiwiaXNzIjoiSldUU2VydmljZSIsInNjb3BlIjoid3JpdGUifQ.UZcX_Qj29o213nwZ5mysiyNcgAp1AOqCkDLkj1KGZ7Cw3l17TbkF8t3FJd654sf762NGcABA0WQ2zxq-labXl_d5TKQmq23lurO3qLHI1cKQPyoxPbddGo78sJpMwWsiMyEYcyyKC9FpNUpa8cT81GPo4q9Zui8TAD0wtHh2YxBL7E8QYLJxcLMJTJxVBgrQGLXFT7vYRc6hJz9Vu-i0SWuLBGxOCmYoHr4DWFfy0IhAbhiUFyLRpukfBPjCJNYY5LgaZdN6LaYivtIEUms5jUuXubBimLJm7KOT5-bgJMXTcUsbrbl2Ma7PwG5IOKjjgyEvH8KVfGFZSzNrpuxKmA";
/// One with a shared secret, from `TestReadWithSignatures`.
const HS256_SIGNATURE: &str =
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImZvbyJ9.eyJmaWxlcyI6W119.u7b_h88osJpU6VQLhIUmZjblsPNCO_kTqsVtpEAHavs";

fn keys(pem: &str, scope: Option<&str>) -> Keys {
    let mut keys = Keys::default();
    keys.add("foo", Algorithm::RS256, pem.as_bytes(), scope.map(str::to_owned)).unwrap();
    keys
}

/// Why a bundle with that signature is not taken.
fn refusal(token: &str, keys: &Keys) -> String {
    let signatures = format!(r#"{{"signatures": ["{token}"]}}"#);
    let archive = archive_of(&[(".signatures.json", &signatures), POLICY]);
    Bundle::open(&archive, Some(keys)).unwrap_err()
}

#[test]
fn a_published_signature_is_verified_and_what_it_hashes_otherwise_is_refused() {
    // Signed as it should be, and for that scope; but its hashes are not called SHA-256.
    assert!(refusal(RS256_SIGNATURE, &keys(RS256_KEY, Some("write"))).contains("not hashed with SHA-256"));
    assert!(refusal(RS256_SIGNATURE, &keys(RS256_KEY, None)).contains("another scope"));
    assert!(refusal(RS256_SIGNATURE, &keys(RS256_KEY, Some("bad_scope"))).contains("another scope"));
    assert!(refusal(RS256_SIGNATURE, &keys(OTHER_KEY, Some("write"))).contains("not its key's"));
    assert!(refusal(HS256_SIGNATURE, &keys(RS256_KEY, None)).contains("not signed as its key signs"));
    for token in
        ["eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.4nrInalqppAc9EjsNUD9Y35amVpDGoRk4bkxzdY8fhs", "", "..", "a.b.c.d"]
    {
        assert!(refusal(token, &keys(RS256_KEY, None)).contains(".signatures.json"), "{token}");
    }
}

#[test]
fn the_list_of_signatures_is_one_long_as_opa_has_it() {
    for (text, why) in [
        (r#"{"signatures": []}"#, "exactly one"),
        ("{}", "no list"),
        (r#"{"signatures": ["a.b.c", "a.b.c"]}"#, "exactly one"),
        (r#"{"signatures": ["a.b.c"], "plugin": "_custom"}"#, "plugin"),
    ] {
        let error = Bundle::open(&archive_of(&[(".signatures.json", text), POLICY]), Some(&keys(RS256_KEY, None)));
        assert!(error.as_ref().unwrap_err().contains(why), "{text}: {error:?}");
    }
    let unsigned = Bundle::open(&archive_of(&[POLICY]), Some(&keys(RS256_KEY, None)));
    assert!(unsigned.unwrap_err().contains("not signed"));
}

/// The hash of SHA-256 over what OPA hashes.
fn hash(path: &str, text: &str) -> String {
    signature::hash(path, text.as_bytes()).unwrap().0
}

#[test]
fn files_are_hashed_as_in_the_published_bundles() {
    // `TestReadWithSignaturesWithBaseDir` and the signed bundle of the bundle plugin's tests.
    for (path, text, expected) in [
        (
            ".manifest",
            r#"{"revision": "quickbrownfaux"}"#,
            "507a2c38a1441db58d2cb87982c42aa91a4342ef422a6b542eddebeef6f0412f",
        ),
        ("a/b/c/data.json", "[1,2,3]", "a615eeaee21de5179de080de8c3052c8da901138406ba71c38c032845f7d54f4"),
        ("a/b/c/data.json", " [1, 2,\n3] ", "a615eeaee21de5179de080de8c3052c8da901138406ba71c38c032845f7d54f4"),
        (
            "http/policy/policy.rego",
            "package example",
            "f664461e303b37c20c5e0be2900881678cdf8e860aa433a5a14d494ba3c66649",
        ),
        ("example1/data.json", r#"{"foo": "bar"}"#, "7a38bf81f383f69433ad6e900d35b3e2385593f76a7b7ab5d4355b8ba41ee24b"),
        ("example2/data.json", r#"{"x": true}"#, "9e4f189bf4079d1b6eb6446879866cd5f39c26880d4fb518f4e01cd1bbfe513e"),
    ] {
        assert_eq!(hash(path, text), expected, "{path}: {text}");
    }
    // `TestVerifyBundleFileHash` hashes the same form with SHA-512.
    for (path, text, expected) in [
        (
            "a/b/c/data.json",
            "[1,2,3]",
            "60f7b5dc86ded48785436192a08dbfd04894d7f1b417c4f8d3714679a7f78cb3c833f16a8559a1cf1f32968747dc1d95ef34826263dacf125ded8f5c374be4c0",
        ),
        (
            "a/b/y/data.yaml",
            "foo: 1",
            "20f27a640a233e6524fe7d138898583cd43475724806feb26be7f214e1d10b29edf6a0d3cb08f82107a45686b61b8fdabab6406cf4e70efe134f42238dbd70ab",
        ),
    ] {
        assert_eq!(signature::hexadecimal(digest(&SHA512, &form(path, text)).as_ref()), expected, "{path}");
    }
}

/// The form that is hashed.
fn form(path: &str, text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let document = signature::document(path, text.as_bytes()).unwrap().unwrap();
    canonical::write(&document, &mut |part| out.extend_from_slice(part));
    out
}

#[test]
fn documents_are_hashed_in_the_form_of_go() {
    // The number of `TestHashFile`, as it is written; and its characters, of which HTML would have escaped some.
    let long =
        format!(r#"{{"key1":["element1"],"key2":{{"b":1,"a":0,"c":{}}}}}"#, "123.4567891111111111111111111111111111");
    let expected = long.replace(r#""b":1,"a":0"#, r#""a":0,"b":1"#);
    assert_eq!(form("data.json", &long), expected.as_bytes());
    for (text, expected) in [
        (r#"{"b": 1, "a": {"d": [], "c": {}}}"#, r#"{"a":{"c":{},"d":[]},"b":1}"#),
        (r#"["$", "α", "©", "™", "<foo></foo>&", "\u003c"]"#, "[\"$\",\"α\",\"©\",\"™\",\"<foo></foo>&\",\"<\"]"),
        (r#"["\"\\\/\b\f\n\r\t\u0001\u007f"]"#, "[\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\u{7f}\"]"),
        ("[\"\\u2028\u{2029}\"]", r#"["\u2028\u2029"]"#),
        ("[1.0, 1e5, -0, 0.10]", "[1.0,1e5,-0,0.10]"),
        (r#"{"é": 1, "z": 2, "Z": 3}"#, r#"{"Z":3,"z":2,"é":1}"#),
    ] {
        assert_eq!(String::from_utf8(form("data.json", text)).unwrap(), expected, "{text}");
    }
    // Numbers of YAML are floats there, and written by the rules of ECMAScript.
    let yaml = "a: 1.0\nb: 1e21\nc: 0.0000001\nd: 12345678901234567\ne: [x, true, null]\n";
    let expected = r#"{"a":1,"b":1e+21,"c":1e-7,"d":12345678901234567,"e":["x",true,null]}"#;
    assert_eq!(String::from_utf8(form("data.yaml", yaml)).unwrap(), expected);
}
