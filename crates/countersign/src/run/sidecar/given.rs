//! What a sidecar begins with of the bundles that come from servers: what is there, or what was good the last time.

use std::sync::Arc;

use net::{Roots, UrlTrust};
use policy::Known;

use super::{client, look};
use crate::{
    config::{document::Document, sidecar::SidecarConfig},
    environment::Environment,
    failure::Failure,
    run::{
        apart, catalogue,
        findings::Findings,
        prepare::{Prepared, roots},
        reload::{Bundles, Given, Pinning},
    },
};

/// The bundles that come from servers: what is there, or was the last time.
pub(super) async fn bundles(
    document: &Document<SidecarConfig>,
    environment: &Environment,
) -> Result<(Arc<Bundles>, Arc<Pinning>, Given), Failure> {
    let mut config = document.value.clone();
    config.place(document.directory());
    let client = || {
        let mut findings = Findings::default();
        let roots = roots(config.tls.authorities.as_deref(), &mut findings);
        findings.into_failure()?;
        client(&roots.unwrap_or(Roots::Platform), UrlTrust::Operator)
    };
    let (bundles, mut given) = Bundles::begin(&config, environment, client).await?;
    let pinning = Pinning::begin(&config);
    pinning.start(&config, &bundles, &mut given, net::clock::now());
    Ok((bundles, pinning, given))
}

/// A configuration, and everything that it names.
type Looked = (Document<SidecarConfig>, Prepared);

/// Prepares everything with the bundles that came, or where that fails, with those that were good the last time; and
/// says which.
pub(super) fn with_bundles(
    document: &Document<SidecarConfig>,
    environment: &Environment,
    bundles: &Bundles,
    given: Given,
) -> (Findings, Option<(Document<SidecarConfig>, Prepared)>, Given) {
    let with = |given: &Given| {
        let mut findings = Findings::default();
        apart::look(&document.path, &document.value, &mut findings);
        let looked = look(document.clone(), environment, Some(&given.sources), &Known::default(), &mut findings);
        (findings, looked)
    };
    let (findings, looked) = with(&given);
    let fits = findings.problems.is_empty();
    if fits && document.value.catalogue.is_empty() {
        return (findings, looked, given);
    }
    let Some(earlier) = given.earlier() else { return (findings, looked, given) };
    let (instead, looked_instead) = with(&earlier);
    if !instead.problems.is_empty() {
        return (findings, looked, given);
    }
    let why = if fits { broken(looked.as_ref(), looked_instead.as_ref()) } else { findings.problems.join("; ") };
    if why.is_empty() {
        return (findings, looked, given);
    }
    let now = net::clock::now();
    tracing::error!("what the servers of bundles have is not taken, the last good ones decide: {why}");
    for (name, origin) in given.newer() {
        bundles.refused(name, Some(origin), &why, now);
    }
    (instead, looked_instead, earlier)
}

/// What a catalogue that came makes of the policies, where the `earlier` one would not: nothing, if it is good.
fn broken(came: Option<&Looked>, earlier: Option<&Looked>) -> String {
    let Some(((document, came), (_, earlier))) = came.zip(earlier) else { return String::new() };
    let (policies, owned) = (catalogue::policies(&came.sources), catalogue::owned(&document.value));
    let (before, after) = (&earlier.tools.catalogue, &came.tools.catalogue);
    catalogue::held_against(&policies, before, after, &owned).err().unwrap_or_default()
}
