//! Tenant: one that the token's issuer, the user's issuer and this sidecar all serve.

use std::collections::BTreeSet;

use model::{Code, Id, Tenant};

use crate::{
    Issuer, read,
    refusal::{Checked, refuse},
};

/// The token's tenant: as claimed, or its issuer's only one.
pub(crate) fn of(claimed: Option<&str>, issuer: &Issuer) -> Checked<Id<Tenant>> {
    let mut tenants = issuer.tenants.iter();
    match (claimed, tenants.next(), tenants.next()) {
        (Some(claimed), ..) => read::id("tenant", claimed),
        (None, Some(only), None) => Ok(only.clone()),
        _ => mismatch(format!("no tenant in the token, and {} has several", issuer.name)),
    }
}

/// Whether everyone concerned serves it.
pub(crate) fn check(tenant: &Id<Tenant>, token: &Issuer, user: &Issuer, ours: &BTreeSet<Id<Tenant>>) -> Checked<()> {
    for issuer in [token, user] {
        if !issuer.tenants.contains(tenant) {
            return mismatch(format!("{} does not speak for tenant {tenant}", issuer.name));
        }
    }
    if ours.contains(tenant) { Ok(()) } else { mismatch(format!("tenant {tenant} is not served here")) }
}

fn mismatch<T>(internal: String) -> Checked<T> {
    refuse(Code::TenantMismatch, "The token's tenant is not one that its issuer or this service serves.", internal)
}
