//! Policy at the authority: what it takes from a token, what it refuses, that it never adds, and that all of it is on
//! record.

use serde_json::{Value, json};

use super::world::{World, payload};

/// The policies of a test, each the package of its owner with the tools it is for.
const OWNERS: [(&str, &str, Option<&str>); 3] = [
    ("org", "countersign.org", None),
    ("support", "countersign.teams.support", Some("orders")),
    ("post", "countersign.teams.post", Some("mail")),
];

/// A world with the policies `bodies`, by owner, and a grant that is good for orders and mail.
pub(super) async fn ruled(bodies: &[(&str, &str)]) -> (World, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let mut configured = Vec::new();
    for (name, package, tool) in OWNERS {
        let Some((_, body)) = bodies.iter().find(|(owner, _)| *owner == name) else { continue };
        let path = folder.path().join(name);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("policy.rego"), format!("package {package}\n{body}\n")).unwrap();
        let mut source = json!({ "name": name, "path": path });
        if let Some(tool) = tool {
            source["for"] = json!([tool]);
        }
        configured.push(serde_json::from_value(source).unwrap());
    }
    let world = World::with(
        |store| {
            store["grants"][0]["redelegate"] = json!(1);
            for element in store["grants"][0]["authorization_details"].as_array_mut().unwrap() {
                element["locations"] = json!(["mail", "orders"]);
            }
        },
        |config| config.policy = configured,
    )
    .await;
    (world, folder)
}

fn locations(claims: &Value) -> Vec<&str> {
    let mut found: Vec<_> = claims["authorization_details"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|element| element["locations"].as_array().unwrap().iter().map(|tool| tool.as_str().unwrap()))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

const YES: &str = r#"delegate contains {"code": "fine"}"#;
const NEVER: &str = r#"delegate contains {"code": "never"} if input.tenant == "other""#;

#[tokio::test]
async fn a_policy_that_permits_adds_nothing_and_is_on_record_with_its_revision() {
    let plain = World::new().await;
    let without = payload(&plain.first_token().await);
    assert!(plain.issued()[0].fields.get("policy").is_none());
    let (world, _folder) = ruled(&[("org", YES)]).await;
    let claims = payload(&world.first_token().await);
    assert_eq!(claims["scope"], without["scope"]);
    assert_eq!(locations(&claims), ["mail", "orders"]);
    let record = &world.issued()[0].fields;
    assert_eq!(record["reasons"], json!([{ "code": "fine", "source": "countersign.org" }]));
    assert_eq!(record["policy"].as_str().unwrap().len(), 64);
    assert!(record.get("withheld").is_none());
}

#[tokio::test]
async fn a_team_withholds_its_own_tools_and_the_token_and_its_chain_say_so() {
    let (world, _folder) = ruled(&[("support", YES), ("post", NEVER)]).await;
    let compact = world.first_token().await;
    let claims = payload(&compact);
    assert_eq!(locations(&claims), ["orders"]);
    assert_eq!(locations(&claims["delegation_chain"][1]), ["orders"]);
    assert_eq!(locations(&claims["delegation_chain"][0]), ["mail", "orders"]);
    let verified = world.verify(&compact).await.unwrap();
    assert!(verified.delegation().authority.elements.iter().all(|element| element.locations.len() == 1));
    let record = &world.issued()[0].fields;
    assert_eq!(record["withheld"], json!([{ "code": "policy_no_allow", "source": "countersign.teams.post" }]));
}

#[tokio::test]
async fn what_policy_refuses_is_denied_with_its_words_and_recorded_and_its_inner_ones_are_told_to_nobody() {
    let no = r#"delegate contains {"code": "x"} if time.parse_rfc3339_ns(input.tenant) > 0"#;
    for (bodies, said) in [
        (vec![("org", NEVER), ("support", YES)], "countersign.org: policy_no_allow"),
        (vec![("org", no)], "countersign.org: policy_error"),
        (vec![("org", r#"deny contains {"code": "x"} if input.tenant == "other""#)], "countersign: no_policy"),
    ] {
        let (world, _folder) = ruled(&bodies).await;
        let refused = world.first(&[]).await;
        let (error, description) = refused.error();
        assert!(error == "access_denied" && description.contains(said), "{description}");
        assert!(!description.contains("parse_rfc3339"), "{description}");
        assert_eq!(refused.body["code"], "policy_denied");
        assert!(world.issued().is_empty());
        let record = &world.records("token.refused")[0].fields;
        assert_eq!(record["error"], "access_denied");
        assert!(record["policy"].is_string() && record["withheld"][0]["code"].is_string(), "{record:?}");
    }
}

#[tokio::test]
async fn no_rule_widens_what_grant_and_request_leave() {
    let (world, _folder) = ruled(&[("org", YES), ("support", YES), ("post", YES)]).await;
    let narrow = world.first(&[("scope", "orders.read")]).await;
    assert_eq!(payload(&narrow.token())["scope"], "orders.read");
    assert_eq!(world.first(&[("scope", "payroll.write")]).await.error().0, "invalid_scope");
    let (world, _folder) = ruled(&[("org", NEVER)]).await;
    // What there would be nothing left of is not asked about.
    assert_eq!(world.first(&[("scope", "payroll.write")]).await.error().0, "invalid_scope");
}

#[tokio::test]
async fn handing_on_is_asked_about_at_both_ends() {
    let by_users = r#"delegate contains {"code": "by_users"} if input.exchange.from.kind == "user""#;
    let (world, _folder) = ruled(&[("org", by_users)]).await;
    let parent = world.first_token().await;
    assert_eq!(world.hand_over("support", &parent, "researcher").await.error().0, "access_denied");
    // Whoever holds something already may find the policy changed when it is taken over.
    let of_two = r#"delegate contains {"code": "fine"} if {
        [hop.id | some hop in input.chain] == expected[input.exchange.to.id]
    }
    expected := {"support": ["alice"], "researcher": ["alice", "support"]}"#;
    let (world, _folder) = ruled(&[("org", of_two)]).await;
    let parent = world.first_token().await;
    let handed = world.hand_over("support", &parent, "researcher").await.token();
    let taken = world.exchange("researcher", &[("subject_token", &handed)]).await.token();
    assert_eq!(payload(&taken)["act"]["sub"], "researcher");
    assert!(world.issued().iter().all(|record| record.fields["reasons"][0]["code"] == "fine"));
}
