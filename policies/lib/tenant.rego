# Whose data the call touches.
#
#     import data.countersign.lib.tenant
#
#     deny contains {"code": "foreign_tenant"} if tenant.is_foreign
package countersign.lib.tenant

# Whether the user is known to belong to the tenant whose data the call touches.
is_own if input.user.tenant == input.tenant

# Whether the user is known to belong to another one. Neither holds where the user's tenant is not known.
is_foreign if {
	is_string(input.user.tenant)
	input.user.tenant != input.tenant
}

# Whether `name` (of a fact, say) is the tenant whose data the call touches.
is(name) if name == input.tenant
