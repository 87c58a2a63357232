//! What the sources of policy and of the catalogue hold: read, or taken from what was fetched, with whose word counts.

use std::path::Path;

use model::Catalogue;
use policy::{Known, PolicySource, Source, bundle::Origin};

use crate::{
    config::files,
    run::{findings::Findings, reload::Opened},
};

/// The most that is said of policies which load and do not do what they say.
const MOST_UNSAID: usize = 20;

/// What sources hold. Those that are fetched are among `fetched`, as are those that a pin keeps; where nobody
/// asked for them, they are passed over. Documents that are `known` are not read again.
pub(super) fn opened(
    configured: &[PolicySource],
    fetched: Option<&Opened>,
    known: &Known,
    findings: &mut Findings,
) -> Option<Vec<(Source, Origin)>> {
    let mut opened = Vec::new();
    for source in configured {
        let problems = source.problems();
        if !problems.is_empty() {
            problems.into_iter().for_each(|problem| findings.problem(problem));
            opened.push(None);
        } else if source.bundle.is_none() && fetched.is_none_or(|fetched| !fetched.contains_key(&source.name)) {
            opened.push(read(source, known, findings));
        } else if keys(source, findings).is_none() {
            opened.push(None);
        } else if let Some(fetched) = fetched {
            let missing = || {
                format!(
                    "{}.{}: a bundle that is fetched can be added by a restart only",
                    source.kind.section(),
                    source.name
                )
            };
            let one = fetched.get(&source.name).cloned().ok_or_else(missing);
            // The tools may have changed since it was opened.
            let bound = |(one, origin): (Source, Origin)| (Source { tools: source.tools.clone(), ..one }, origin);
            let one = findings.take(one);
            if let Some(signer) = one.as_ref().and_then(|(_, origin)| withdrawn(source, origin)) {
                findings.problem(format!(
                    "{}.{}: what decides is signed by the key `{signer}`, which is no longer in `keys`; publish it \
                     under another first",
                    source.kind.section(),
                    source.name
                ));
            }
            opened.push(one.map(bound));
        } else {
            let section = source.kind.section();
            findings.warning(format!("{section}.{}: the bundle on its server was not looked at", source.name));
        }
    }
    opened.into_iter().collect()
}

/// What lies at a source's path, which nobody else may write. Documents that are `known` are not read again.
pub(in crate::run) fn read(source: &PolicySource, known: &Known, findings: &mut Findings) -> Option<(Source, Origin)> {
    if source.path.exists() {
        findings.take(files::check_tree_not_writable(&source.path));
    }
    keys(source, findings)?;
    // The paths are absolute by now.
    findings
        .take(source.open_knowing(Path::new("/"), known).map_err(|error| format!("{}: {error}", source.kind.section())))
}

/// Whose signatures count for a source: nobody else may write their keys, and all of them can be used.
fn keys(source: &PolicySource, findings: &mut Findings) -> Option<()> {
    for key in source.keys.iter().flat_map(|keys| keys.values()).filter(|key| key.file.exists()) {
        // Whoever can change it signs bundles.
        findings.take(files::check_not_writable(&key.file));
    }
    findings.take(source.keys(Path::new("/")).map_err(|error| format!("{}: {error}", source.kind.section()))).map(drop)
}

/// The key that signed what decides, where its word does not count any more.
fn withdrawn<'o>(source: &PolicySource, origin: &'o Origin) -> Option<&'o str> {
    let signer = origin.signer.as_ref().map(|signer| signer.key.as_str());
    signer.filter(|signer| source.keys.as_ref().is_none_or(|keys| !keys.contains_key(*signer)))
}

/// Warns of what loads and does not do what it says. It may have decided for months: the sidecar starts.
pub(in crate::run) fn unsaid(sources: &[Source], catalogue: Option<&Catalogue>, findings: &mut Findings) {
    let found = policy::check(sources, catalogue).unwrap_or_default();
    let errors: Vec<_> = found.iter().filter(|problem| problem.severity == policy::Severity::Error).collect();
    for problem in errors.iter().take(MOST_UNSAID) {
        findings.warning(format!("policy: {problem}"));
    }
    if let Some(more @ 1..) = errors.len().checked_sub(MOST_UNSAID) {
        findings.warning(format!("policy: and {more} more, which `countersign policy check` lists"));
    }
}

/// What the sources of policy hold, which nobody else may write.
pub(in crate::run) fn sources(configured: &[PolicySource], findings: &mut Findings) -> Option<Vec<Source>> {
    for source in configured.iter().filter(|source| source.candidate.is_some()) {
        findings
            .problem(format!("policy.{}.candidate: an authority asks none; replay and test it instead", source.name));
    }
    let read = |source| read(source, &Known::default(), findings).map(|(source, _)| source);
    let sources: Vec<Option<Source>> = configured.iter().map(read).collect();
    sources.into_iter().collect()
}
