//! From a directory of policy to a bundle: the same files, revision and serial are the same bytes, wherever and whenever.

use std::{collections::BTreeMap, fs, path::Path as FilePath};

use super::{FileKind, MAX_DATA_BYTES, Manifest, Source, archive, is_passed_over, manifest, unfit, unreadable};
use crate::{LoadError, catalogue, roots::Owner};

/// What a bundle is made of and says of itself.
#[derive(Debug, Clone, Copy)]
pub struct Making<'a> {
    /// Whose it is: `org`, or a team's name. Its roots follow from that. `None` for the catalogue, of which it owns the
    /// tools that it holds actions of.
    pub name: Option<&'a str>,
    /// What this state of it is called; without it, what the directory's own `.manifest` says.
    pub revision: Option<&'a str>,
    /// Its place among its states; without it, what the directory's own `.manifest` says.
    pub serial: Option<u64>,
    /// Whether its tests go with it.
    pub tests: bool,
}

/// The bundle of the policies and data in `directory`, which are read as a sidecar would read them.
pub fn build(directory: &FilePath, making: Making<'_>) -> Result<Vec<u8>, LoadError> {
    let unfit = |reason: String| unfit(directory, reason);
    let (roots, declared) = match making.name {
        None => {
            let (source, declared) = catalogue::read("", directory, None)?;
            let roots = declared.roots.clone().map_or_else(|| catalogue::roots(&source), Ok)?;
            (roots, declared)
        }
        Some(name) => {
            let owner = Owner::of_source(name)
                .ok_or_else(|| unfit(format!("`{name}` is neither `org` nor the name of a team")))?;
            let (_, declared) = Source::read_declared(name, directory, None)?;
            (vec![owner.root().join("/")], declared)
        }
    };
    let revision = making.revision.map_or(declared.revision, str::to_owned);
    if !super::is_revision(&revision) || revision.is_empty() {
        return Err(unfit("the bundle has to have a revision: at most 256 printable bytes".to_owned()));
    }
    let manifest = Manifest { revision, roots: Some(roots), serial: making.serial.or(declared.serial) };
    let mut files = BTreeMap::from([(manifest::NAME.to_owned(), manifest.text().into_bytes())]);
    gather(directory, "", making.tests, &mut files)?;
    archive::write(files.iter().map(|(name, content)| (name.as_str(), content.as_slice()))).map_err(unfit)
}

/// Adds what a source reads. The directory was read once by those rules: it is as small and shallow as they ask.
fn gather(
    directory: &FilePath,
    below: &str,
    tests: bool,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(), LoadError> {
    for entry in fs::read_dir(directory).map_err(unreadable(directory))? {
        let path = entry.map_err(unreadable(directory))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if is_passed_over(name) {
            continue;
        }
        let place = format!("{below}{name}");
        if fs::metadata(&path).map_err(unreadable(&path))?.is_dir() {
            gather(&path, &format!("{place}/"), tests, files)?;
        } else if FileKind::of(name).is_some_and(|kind| tests || kind != FileKind::Test) {
            let content = super::bounded(&path, MAX_DATA_BYTES)?;
            files.insert(place, content.into_bytes());
        }
    }
    Ok(())
}
