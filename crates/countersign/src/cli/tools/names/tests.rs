//! Operations of every style have names that a person would have given them, whatever order they come in.

use super::*;

fn subject<'a>(method: &'a str, template: &'a str, id: &'a str) -> Subject<'a> {
    Subject { method, template, id: (!id.is_empty()).then_some(id), tag: None, many: false }
}

#[test]
fn operations_are_called_by_what_they_are_about_and_what_they_do() {
    for (method, path, id, name) in [
        ("GET", "/v1/orders", "", "orders.list"),
        ("GET", "/v1/orders/{order}", "getOrder", "orders.read"),
        ("POST", "/v1/orders/{order}/refunds", "", "refunds.create"),
        ("POST", "/v1/orders/{order}/cancel", "cancelOrder", "orders.cancel"),
        ("POST", "/v1/customers/{customer}", "PostCustomersCustomer", "customers.update"),
        ("DELETE", "/pets/{petId}", "delete_pet", "pets.delete"),
        ("GET", "/pets/{petId}", "showPetById", "pets.read"),
        ("GET", "/pet/findByStatus", "findPetsByStatus", "pet.find_by_status"),
        ("POST", "/pet", "addPet", "pet.create"),
        ("GET", "/repos/{owner}/{repo}/issues", "issues/list-for-repo", "issues.list_for_repo"),
        ("PUT", "/orders/{order}", "", "orders.replace"),
        ("PATCH", "/orders/{order}", "modifyOrder", "orders.update"),
        ("GET", "/", "", "root.read"),
        ("GET", "/2010-04-01/Accounts", "ListAccount", "accounts.list"),
        ("HEAD", "/files/{file}", "", "files.check"),
        ("GET", "/Accounts/{Sid}/ConnectApps.json", "ListConnectApp", "connect_apps.list"),
        ("GET", "/pulls/{pull}/merge", "pulls/check-if-merged", "pulls.check_if_merged"),
    ] {
        assert_eq!(assign(&[subject(method, path, id)], &BTreeSet::new()), [name], "{method} {path} {id}");
    }
}

#[test]
fn no_name_is_given_twice_and_none_hangs_on_the_order() {
    let subjects = [
        subject("GET", "/customers/{c}/sources", ""),
        subject("GET", "/accounts/{a}/sources", ""),
        subject("PUT", "/orders/{o}", "updateOrder"),
        subject("PATCH", "/orders/{o}", "updateOrder"),
        subject("GET", "/{a}", "x"),
        subject("GET", "/{a}/{b}", "x"),
    ];
    let names = assign(&subjects, &BTreeSet::new());
    assert_eq!(
        names[0..4],
        ["customers_sources.list", "accounts_sources.list", "orders.update_put", "orders.update_patch"]
    );
    let all: BTreeSet<&String> = names.iter().collect();
    assert_eq!(all.len(), subjects.len(), "{names:?}");
    let turned: Vec<Subject<'_>> = subjects[0..4].iter().rev().copied().collect();
    let mut again = assign(&turned, &BTreeSet::new());
    again.reverse();
    assert_eq!(names[0..4], again);
    let taken = ["orders.list".to_owned()].into();
    assert_eq!(assign(&[subject("GET", "/shop/orders", "")], &taken), ["shop_orders.list"]);
}

#[test]
fn nothing_is_taken_for_less_than_its_method_says() {
    let effect = |method: &str, path: &str, id: &str| subject(method, path, id).effect();
    assert_eq!(effect("GET", "/orders", ""), (Effect::Read, None));
    assert_eq!(effect("GET", "/pulls/{pull}/merge", "pulls/check-if-merged"), (Effect::Read, None));
    assert_eq!(effect("POST", "/orders", ""), (Effect::Write, None));
    for (method, path, id) in [
        ("POST", "/orders/search", ""),
        ("GET", "/orders/{o}/delete", ""),
        ("GET", "/users/logout", "logoutUser"),
        ("POST", "/mails/drafts", ""),
    ] {
        let (effect, review) = effect(method, path, id);
        assert_eq!(effect, Effect::Write, "{method} {path}");
        assert!(review.is_some(), "{method} {path}");
    }
}

#[test]
fn a_resource_ends_at_the_last_thing_that_has_a_name() {
    for (path, name) in [
        ("/v1/orders/{order}/refunds", "orders/{order}"),
        ("/v1/orders", "orders"),
        ("/", "root"),
        ("/api/v2/a/{b}/c/{d}", "a/{b}/c/{d}"),
        ("/v1", "root"),
        ("/{tenant}", "{tenant}"),
    ] {
        assert_eq!(resource(path), name);
    }
}

#[test]
fn however_many_want_one_name_each_has_its_own() {
    let paths: Vec<String> =
        (0..5_000_u32).map(|number| format!("/{number:013b}").replace('0', "-").replace('1', "_")).collect();
    let subjects: Vec<Subject<'_>> = paths.iter().map(|path| subject("GET", path, "")).collect();
    let names = assign(&subjects, &["root.read_get_4".to_owned()].into());
    let different: BTreeSet<&String> = names.iter().collect();
    assert_eq!(different.len(), paths.len());
    assert!(!different.contains(&"root.read_get_4".to_owned()));
}
