//! Whether the files that a configuration is made of changed: a cheap look at each, and their content where that says
//! so. Content decides, because a file may be written anew as it was.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::digest::{Context, SHA256};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use net::Stamp;
use policy::{
    PolicySource,
    bundle::{FileKind, is_passed_over},
};

use crate::config::sidecar::SidecarConfig;

/// Somebody who writes several files is not done while the last change is younger than this.
const SETTLED: Duration = Duration::from_millis(100);
/// Somebody who never stops writing is not waited for longer than so often that.
const MOST_WAITS: usize = 20;
/// The most entries of a policy directory that are looked at; far more than a policy may have files.
const MAX_ENTRIES: usize = 10_000;

/// The files that a configuration is made of. Secrets and key files are not among them: whoever needs those reads
/// them again by themselves.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    config: PathBuf,
    /// The directories and bundles of policies, and the keys that those are signed with.
    policies: Vec<PathBuf>,
    /// The file of the certificate authorities to believe.
    authorities: Option<PathBuf>,
}

/// What shows that a file may have changed: each path, and what its file looks like.
pub(crate) type Stamps = Vec<(PathBuf, Option<Stamp>)>;

/// What the files say, by digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Of the configuration: its revision.
    pub(crate) config: String,
    /// Of the policies, their tests aside.
    pub(crate) policies: String,
    /// Of the certificate authorities.
    pub(crate) authorities: String,
}

impl Watched {
    /// The files of the configuration at `path`, whose paths are absolute.
    pub(crate) fn of(path: &Path, config: &SidecarConfig) -> Self {
        Self {
            config: path.to_owned(),
            policies: config.sources().iter().filter(|source| source.bundle.is_none()).flat_map(files).collect(),
            authorities: config.tls.authorities.clone(),
        }
    }

    /// The files of policy candidates, whose paths are absolute.
    pub(crate) fn of_candidates(sources: &[PolicySource]) -> Self {
        let policies = sources.iter().filter(|source| source.bundle.is_none()).flat_map(files).collect();
        Self { config: PathBuf::new(), policies, authorities: None }
    }

    /// The content, where the files are no longer as `before`. Waits until nobody writes them.
    pub(crate) fn changes(&self, before: &Stamps) -> Option<(Stamps, Contents)> {
        let mut stamps = self.stamps();
        if stamps == *before {
            return None;
        }
        for _ in 0..MOST_WAITS {
            std::thread::sleep(SETTLED);
            let later = self.stamps();
            let settled = later == stamps;
            stamps = later;
            if settled {
                break;
            }
        }
        // A change after this look has another time, so the next look sees it.
        Some((stamps, self.contents()))
    }

    /// What the files say now. A file that cannot be read counts as another content.
    pub(crate) fn contents(&self) -> Contents {
        let mut config = Context::new(&SHA256);
        add(&mut config, &self.config);
        let mut policies = Context::new(&SHA256);
        for path in self.policy_files() {
            let name = path.as_os_str().as_encoded_bytes();
            policies.update(&u64::try_from(name.len()).unwrap_or(u64::MAX).to_be_bytes());
            policies.update(name);
            let mut one = Context::new(&SHA256);
            add(&mut one, &path);
            policies.update(one.finish().as_ref());
        }
        let mut authorities = Context::new(&SHA256);
        self.authorities.iter().for_each(|path| add(&mut authorities, path));
        let text = |context: Context| URL_SAFE_NO_PAD.encode(context.finish());
        Contents { config: text(config), policies: text(policies), authorities: text(authorities) }
    }

    fn stamps(&self) -> Stamps {
        let paths = [self.config.clone()].into_iter().chain(self.authorities.clone()).chain(self.policy_files());
        paths
            .map(|path| {
                let stamp = Stamp::of(&path);
                (path, stamp)
            })
            .collect()
    }

    /// Every policy and data file, by the names that a policy source reads.
    fn policy_files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut left = MAX_ENTRIES;
        for directory in &self.policies {
            if !directory.is_dir() {
                files.push(directory.clone());
                continue;
            }
            files.extend([".manifest", ".signatures.json"].map(|name| directory.join(name)));
            collect(directory, policy::bundle::MAX_DIRECTORY_DEPTH, &mut left, &mut files);
        }
        files.sort();
        files
    }
}

/// What a source is made of: its directory or bundle, and its keys.
fn files(source: &PolicySource) -> Vec<PathBuf> {
    let keys = source.keys.iter().flat_map(|keys| keys.values());
    [source.path.clone()].into_iter().chain(keys.map(|key| key.file.clone())).collect()
}

fn collect(directory: &Path, depth: usize, left: &mut usize, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let Some(fewer) = left.checked_sub(1) else { return };
        *left = fewer;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if is_passed_over(&name) {
            continue;
        }
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if let Some(depth) = depth.checked_sub(1) {
                collect(&path, depth, left, files);
            }
        } else if matches!(FileKind::of(&name), Some(FileKind::Policy | FileKind::Data)) {
            files.push(path);
        }
    }
}

/// Adds the content of `path`, as far as a policy source would read it.
fn add(context: &mut Context, path: &Path) {
    let Ok(file) = File::open(path) else { return };
    let mut file = file.take(policy::bundle::MAX_DATA_BYTES + 1);
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = file.read(&mut buffer) {
        context.update(buffer.get(..count).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::testing::Folder;

    fn watched(folder: &Folder) -> Watched {
        let mut document = folder.document();
        let directory = document.directory().to_owned();
        document.value.place(&directory);
        Watched::of(&document.path, &document.value)
    }

    #[test]
    fn what_is_written_again_as_it_was_is_no_change() {
        let folder = Folder::new(|config| config);
        let watched = watched(&folder);
        let (stamps, contents) = watched.changes(&Stamps::new()).unwrap();
        assert_eq!(contents.config, folder.document().revision);
        assert!(watched.changes(&stamps).is_none());
        let text = fs::read_to_string(folder.path("policies/support/support.rego")).unwrap();
        folder.write("policies/support/support.rego.new", &text, 0o644);
        fs::rename(folder.path("policies/support/support.rego.new"), folder.path("policies/support/support.rego"))
            .unwrap();
        let (_, again) = watched.changes(&stamps).unwrap();
        assert_eq!(again, contents);
    }

    #[test]
    fn each_file_that_counts_is_seen_and_others_are_not() {
        let folder = Folder::new(|config| config);
        let watched = watched(&folder);
        let before = watched.contents();
        for name in ["policies/support/.hidden.rego", "policies/support/README.md", "policies/support/a_test.rego"] {
            folder.write(name, "x", 0o644);
            assert_eq!(watched.contents(), before, "{name}");
        }
        let mut last = before.clone();
        for name in ["policies/org/org.rego", "policies/support/deep/more.rego", "policies/support/deep/data.json"] {
            folder.write(name, "x", 0o644);
            let now = watched.contents();
            assert_ne!(now, last, "{name}");
            last = now;
        }
        fs::remove_file(folder.path("policies/support/deep/data.json")).unwrap();
        assert_ne!(watched.contents(), last);
        assert_eq!(watched.contents().config, before.config);
        folder.write("countersign.yaml", "other", 0o600);
        assert_ne!(watched.contents().config, before.config);
    }

    #[test]
    fn a_config_map_that_is_exchanged_by_its_link_is_a_change() {
        let folder = Folder::new(|config| config);
        let watched = watched(&folder);
        fs::remove_file(folder.path("policies/support/support.rego")).unwrap();
        folder.write("policies/support/..1/support.rego", "one", 0o644);
        folder.write("policies/support/..2/support.rego", "two", 0o644);
        let link = |to: &str, name: &str| {
            let name = folder.path(name);
            fs::remove_file(&name).ok();
            std::os::unix::fs::symlink(to, name).unwrap();
        };
        link("..1", "policies/support/..data");
        link("..data/support.rego", "policies/support/support.rego");
        let (stamps, contents) = watched.changes(&Stamps::new()).unwrap();
        link("..2", "policies/support/..data");
        let (_, after) = watched.changes(&stamps).unwrap();
        assert_ne!(after, contents);
    }
}
