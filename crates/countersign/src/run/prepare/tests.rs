//! What `config check` finds is what `sidecar` refuses: the published shape passes, and each mistake is named.

use std::os::unix::fs::PermissionsExt;

use crate::run::{
    sidecar::check,
    testing::{Folder, environment, files, says},
};

#[test]
fn the_published_shape_is_accepted_and_what_is_loose_in_it_is_said() {
    let folder = Folder::following(|config| config);
    let before = files(&folder.path("")).len();
    let findings = check(&folder.config(), &environment());
    assert!(findings.problems.is_empty(), "{findings:?}");
    assert!(says(&findings.warnings, &["bearer: all"]), "{findings:?}");
    // A look leaves nothing behind: no ledger, no key.
    assert_eq!(files(&folder.path("")).len(), before);
}

#[test]
fn each_mistake_is_named_with_what_is_wrong() {
    let cases: [(&str, &str, &[&str]); 15] = [
        ("role: delegation", "role: subject", &["issuers", "role: delegation"]),
        ("role: delegation", "rôle: delegation", &["countersign.yaml:5:", "did you mean `role`"]),
        ("name: support, audience", "name: \"\", audience", &["sidecar.name"]),
        ("audience: \"urn:example:countersign:support\"", "audience: \"\"", &["sidecar.audience"]),
        ("https://${ORDERS_HOST}", "https://${UNSET}", &["countersign.yaml:22:", "`UNSET` is not set"]),
        ("https://${ORDERS_HOST}", "http://${ORDERS_HOST}", &["tools.orders.upstream", "https"]),
        ("secrets/orders", "secrets/absent", &["tools.orders.credential", "secrets/absent"]),
        ("path: policies/support", "path: policies/absent", &["policies/absent"]),
        ("for: [orders]", "for: [absent]", &["absent"]),
        ("facts: [order]", "facts: [absent]", &["absent"]),
        ("currency: body:/currency ", "", &["refunds.create", "amount"]),
        ("identity: service_account", "identity: hybird", &["countersign.yaml:23:", "hybrid"]),
        ("identity: service_account", "identity: hybrid", &["tools.orders.identity", "needs `authority`", "enrol"]),
        ("ttl: 10s", "ttl: 10", &["countersign.yaml:25:", "not a duration"]),
        ("sidecar: { name", "sidecar: { nmae: x, name", &["countersign.yaml:2:", "did you mean `name`"]),
    ];
    for (from, to, words) in cases {
        let folder = Folder::new(|config| {
            assert!(config.contains(from), "{from}");
            config.replacen(from, to, 1)
        });
        let findings = check(&folder.config(), &environment());
        assert!(says(&findings.problems, words), "{to}: {words:?} not in {findings:?}");
    }
}

#[test]
fn an_authority_is_followed_in_one_way_only_and_as_somebody() {
    let cases: [(&str, &str, &[&str]); 5] = [
        ("url: https://countersign.example", "url: http://countersign.example", &["authority.url", "https"]),
        ("secrets/sidecar.pem", "secrets/absent.pem", &["authority.credential.key", "absent.pem"]),
        ("secrets/sidecar.pem", "secrets/orders", &["authority.credential.key", "not a PKCS#8 private key"]),
        (", id: sidecar-1", "", &["countersign.yaml:3:", "id"]),
        ("write: 5s", "write: 0s", &["authority.staleness.write", "shorter"]),
    ];
    for (from, to, words) in cases {
        let folder = Folder::following(|config| config.replacen(from, to, 1));
        let findings = check(&folder.config(), &environment());
        assert!(says(&findings.problems, words), "{to}: {words:?} not in {findings:?}");
    }
    let lonely = Folder::new(|config| config.replacen("keys.json } }", "keys.json }, withdrawals: changes }", 1));
    let findings = check(&lonely.config(), &environment());
    assert!(says(&findings.problems, &["withdrawals: changes", "needs `authority`"]), "{findings:?}");
    let hybrid = Folder::following(|config| config.replacen("identity: service_account", "identity: hybrid", 1));
    assert!(check(&hybrid.config(), &environment()).problems.is_empty());
    let none = Folder::following(|config| config.replacen(", withdrawals: changes", "", 1));
    let findings = check(&none.config(), &environment());
    assert!(findings.problems.is_empty() && says(&findings.warnings, &["withdrawals: none", "5s"]), "{findings:?}");
}

#[test]
fn mistakes_in_different_sections_are_found_together() {
    let folder = Folder::new(|config| {
        config
            .replacen("name: support, audience", "name: \"\", audience", 1)
            .replacen("secrets/orders", "secrets/absent", 1)
            .replacen("path: policies/support", "path: policies/absent", 1)
    });
    let findings = check(&folder.config(), &environment());
    for words in [["sidecar.name"], ["secrets/absent"], ["policies/absent"]] {
        assert!(says(&findings.problems, &words), "{findings:?}");
    }
}

#[test]
fn a_secret_that_others_can_read_is_not_used_and_a_config_that_others_can_write_neither() {
    let folder = Folder::new(|config| config);
    folder.write("secrets/orders", "secret", 0o640);
    let findings = check(&folder.config(), &environment());
    assert!(says(&findings.problems, &["secrets/orders", "chmod 600"]), "{findings:?}");

    let folder = Folder::new(|config| config);
    std::fs::set_permissions(folder.config(), std::fs::Permissions::from_mode(0o666)).unwrap();
    let findings = check(&folder.config(), &environment());
    assert!(says(&findings.problems, &["countersign.yaml", "changed by others"]), "{findings:?}");
}

#[test]
fn a_policy_that_does_not_hold_together_is_a_problem_with_its_place() {
    let folder = Folder::new(|config| config);
    folder.write("policies/support/support.rego", "package countersign.teams.support\n\nallow contains {\n", 0o644);
    let findings = check(&folder.config(), &environment());
    assert!(says(&findings.problems, &["support.rego"]), "{findings:?}");
    folder.write("policies/support/support.rego", "package countersign.org\n\nallow := true\n", 0o644);
    let findings = check(&folder.config(), &environment());
    assert!(says(&findings.problems, &["support.rego"]), "{findings:?}");
}

#[test]
fn names_that_nothing_answers_to_are_warned_of() {
    let folder = Folder::new(|config| {
        config.replacen("map: { support: [orders.read, refunds.create] }", "map: { support: [orders.raed] }", 1)
    });
    let findings = check(&folder.config(), &environment());
    assert!(findings.problems.is_empty() && says(&findings.warnings, &["orders.raed"]), "{findings:?}");
}

#[test]
fn calls_that_pass_through_are_warned_of_and_so_is_an_agent_that_nobody_could_stop() {
    let until = net::clock::now() + jiff::SignedDuration::from_hours(24);
    for (agent, registered) in [("support-v2", true), ("support-v3", false)] {
        let folder = Folder::new(|config| {
            let passthrough = format!("passthrough: {{ owner: dana, until: {until}, agent: {agent} }}");
            config.replacen("identity: service_account", &format!("identity: service_account\n    {passthrough}"), 1)
        });
        let findings = check(&folder.config(), &environment());
        assert!(findings.problems.is_empty() && says(&findings.warnings, &["passes calls"]), "{findings:?}");
        assert_eq!(!says(&findings.warnings, &["passthrough.agent", agent]), registered, "{findings:?}");
    }
}
