package countersign.lib.tenant_test

import data.countersign.lib.tenant

of(user) := {"tenant": "acme", "user": {"tenant": user}}

test_a_user_is_of_the_tenant_or_of_another_or_not_known if {
	tenant.is_own with input as of("acme")
	not tenant.is_foreign with input as of("acme")
	tenant.is_foreign with input as of("globex")
	not tenant.is_own with input as of("globex")
	not tenant.is_own with input as of(null)
	not tenant.is_foreign with input as of(null)
}

test_a_fact_names_the_tenant_or_does_not if {
	tenant.is("acme") with input as of(null)
	not tenant.is("globex") with input as of(null)
	not tenant.is(null) with input as of(null)
}
