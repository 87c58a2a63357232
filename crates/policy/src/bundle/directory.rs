//! Directories: a signed bundle that was unpacked, verified over the very bytes that are read of it; and whether one that
//! is not signed stayed as it was while it was read.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path as FilePath, PathBuf},
};

use net::Stamp;

use super::{
    Bundle, FileKind, Keys, MAX_DATA_BYTES, MAX_DIRECTORY_DEPTH, MAX_FILES, MAX_UNPACKED_BYTES, archive::Archive,
    bytes, is_passed_over, manifest, signature, unfit, unreadable,
};
use crate::{Known, LoadError};

/// The most entries of a directory that are looked at, those among them that nobody reads.
const MAX_ENTRIES: usize = 10_000;

/// Whether the directory carries a signature.
pub(super) fn is_signed(directory: &FilePath) -> bool {
    directory.join(signature::NAME).exists()
}

/// The bundle that was unpacked into `directory`, which one of `keys` has to have signed: every policy and data document,
/// the manifest, and whatever else the signature names. Files that nobody reads may lie beside them.
pub(super) fn signed(directory: &FilePath, keys: &Keys, known: Known) -> Result<Bundle, LoadError> {
    let root = fs::canonicalize(directory).map_err(unreadable(directory))?;
    let mut paths = Vec::new();
    gather(directory, &root, "", 0, &mut paths)?;
    let own = [manifest::NAME, signature::NAME].map(|name| (name.to_owned(), directory.join(name)));
    let mut files = BTreeMap::new();
    for (name, path) in own.into_iter().filter(|(_, path)| path.is_file()) {
        files.insert(name, bytes(&path, MAX_DATA_BYTES)?);
    }
    // What may be named is nobody's word yet: no more of it is held than an archive may unpack to.
    let mut room = MAX_UNPACKED_BYTES;
    let named = files.get(signature::NAME).map(|text| signature::names(text)).unwrap_or_default();
    let counts = |name: &str| {
        let file = name.rsplit('/').next().unwrap_or_default();
        matches!(FileKind::of(file), Some(FileKind::Policy | FileKind::Data)) || named.contains(name)
    };
    for (name, path) in paths.into_iter().filter(|(name, _)| counts(name)) {
        if files.len() > MAX_FILES {
            return Err(unfit(directory, format!("more than {MAX_FILES} files")));
        }
        let content = bytes(&path, MAX_DATA_BYTES)?;
        room = room.checked_sub(content.len()).ok_or_else(|| {
            unfit(directory, format!("together the files are larger than {MAX_UNPACKED_BYTES} bytes"))
        })?;
        files.insert(name, content);
    }
    let archive = Archive::of(files.iter().map(|(name, content)| (name.as_str(), content.as_slice())));
    archive.and_then(|archive| Bundle::of(archive, Some(keys), known)).map_err(|error| unfit(directory, error))
}

/// Every file below `directory` by its name in the bundle. A symbolic link may only lead to a file inside `root`.
fn gather(
    directory: &FilePath,
    root: &FilePath,
    below: &str,
    depth: usize,
    files: &mut Vec<(String, PathBuf)>,
) -> Result<(), LoadError> {
    for entry in fs::read_dir(directory).map_err(unreadable(directory))? {
        let path = entry.map_err(unreadable(directory))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| unfit(&path, "the name is not UTF-8"))?.to_owned();
        if is_passed_over(&name) {
            continue;
        }
        if files.len() >= MAX_ENTRIES || depth > MAX_DIRECTORY_DEPTH {
            let most = format!("more than {MAX_ENTRIES} files, or {MAX_DIRECTORY_DEPTH} directories deep");
            return Err(unfit(directory, most));
        }
        let linked = fs::symlink_metadata(&path).map_err(unreadable(&path))?.is_symlink();
        let metadata = fs::metadata(&path).map_err(unreadable(&path))?;
        let inside = || fs::canonicalize(&path).is_ok_and(|real| real.starts_with(root));
        if linked && (metadata.is_dir() || !inside()) {
            return Err(unfit(&path, "the symbolic link leads to a directory, or out of the source's own"));
        }
        let place = format!("{below}{name}");
        if metadata.is_dir() {
            gather(&path, root, &format!("{place}/"), depth + 1, files)?;
        } else if metadata.is_file() {
            files.push((place, path));
        }
    }
    Ok(())
}

/// What shows that something in a directory is changed: each of its entries, and what it looks like.
pub(super) fn stamps(directory: &FilePath) -> Vec<(PathBuf, Option<Stamp>)> {
    let mut stamps = vec![(directory.to_owned(), Stamp::of(directory))];
    let mut next = 0;
    while let Some((path, _)) = stamps.get(next).filter(|_| stamps.len() < MAX_ENTRIES) {
        // What is no directory has no entries, and a linked one is not read.
        let entries = fs::symlink_metadata(path).is_ok_and(|path| path.is_dir()).then(|| fs::read_dir(path).ok());
        let mut inside: Vec<PathBuf> =
            entries.flatten().into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        inside.sort();
        stamps.extend(inside.into_iter().map(|path| {
            let stamp = Stamp::of(&path);
            (path, stamp)
        }));
        next += 1;
    }
    stamps
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ED25519};

    use super::{
        super::{Algorithm, KeyConfig, KeysConfig, Making, Origin, SigningKey, Source, build},
        *,
    };
    use crate::PolicySource;

    /// A team's policy, and the key that signs it.
    struct Unpacked {
        folder: tempfile::TempDir,
        key: SigningKey,
    }

    impl Unpacked {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
            fs::write(folder.path().join("key.pem"), pair.public_key_pem()).unwrap();
            let one = Self { folder, key: SigningKey::parse(pair.serialize_pem().as_bytes()).unwrap() };
            one.write("made/a.rego", "package countersign.org\n\ndeny contains {\"code\": \"one\"} if false\n");
            one.write("made/countersign/org/data.json", "{\"limit\": 4}");
            let making = Making { name: Some("org"), revision: Some("r1"), serial: Some(4), tests: false };
            let made = build(&one.folder.path().join("made"), making).unwrap();
            let signed = Bundle::open(&made, None).unwrap().sign(&one.key, Some("k"), None).unwrap();
            let bundle = Bundle::open(&signed, None).unwrap();
            for listed in bundle.listed() {
                let content = bundle.archive.file(&listed.path).unwrap().to_vec();
                one.write(&format!("org/{}", listed.path), str::from_utf8(&content).unwrap());
            }
            one
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn open(&self, with_keys: bool) -> Result<(Source, Origin), String> {
            let key = KeyConfig { algorithm: Algorithm::EdDsa, file: "key.pem".into(), scope: None };
            let keys = with_keys.then(|| KeysConfig::from([("k".to_owned(), key)]));
            let source = serde_json::json!({ "name": "org", "path": "org" });
            let source: PolicySource = serde_json::from_value(source).unwrap();
            PolicySource { keys, ..source }.open(self.folder.path()).map_err(|error| error.to_string())
        }
    }

    #[test]
    fn an_unpacked_bundle_is_verified_over_what_is_read_of_it() {
        let unpacked = Unpacked::new();
        let (source, origin) = unpacked.open(true).unwrap();
        assert_eq!((source.policies.len(), source.data.len()), (1, 1));
        assert_eq!((origin.manifest.revision.as_str(), origin.signer.unwrap().key.as_str()), ("r1", "k"));
        assert!(origin.digest.is_some());
        // Nobody reads these.
        unpacked.write("org/README.md", "words");
        unpacked.write("org/a_test.rego", "package countersign.org\n");
        unpacked.write("org/.git/data.json", "{");
        unpacked.open(true).unwrap();
        assert!(unpacked.open(false).unwrap_err().contains("name whose signature counts"));
    }

    #[test]
    fn whatever_is_added_changed_or_taken_away_is_refused() {
        let rego = "package countersign.org\n\ndeny contains {\"code\": \"two\"} if false\n";
        for (name, text, why) in [
            ("a.rego", Some(rego), "not what was signed"),
            ("b.rego", Some(rego), "is not signed"),
            ("deep/data.json", Some("{\"limit\": 5}"), "is not signed"),
            ("countersign/org/data.json", Some("{\"limit\": 5}"), "not what was signed"),
            ("countersign/org/data.json", None, "is missing"),
            (".manifest", Some("{\"revision\": \"r2\", \"roots\": [\"countersign/org\"]}"), "not what was signed"),
            (".manifest", None, "is missing"),
            (".signatures.json", None, "it is not signed"),
            (".signatures.json", Some("{\"signatures\": []}"), "exactly one signature"),
        ] {
            let unpacked = Unpacked::new();
            match text {
                Some(text) => unpacked.write(&format!("org/{name}"), text),
                None => fs::remove_file(unpacked.folder.path().join("org").join(name)).unwrap(),
            }
            let said = unpacked.open(true).unwrap_err();
            assert!(said.contains(why), "{name}: {said}");
        }
        let unpacked = Unpacked::new();
        unpacked.write("outside.rego", rego);
        std::os::unix::fs::symlink("../outside.rego", unpacked.folder.path().join("org/b.rego")).unwrap();
        assert!(unpacked.open(true).unwrap_err().contains("symbolic link"));
    }

    #[test]
    fn no_more_is_read_of_a_directory_than_an_archive_may_unpack_to_and_nothing_special() {
        let unpacked = Unpacked::new();
        let org = unpacked.folder.path().join("org");
        for name in ["b.rego", "c.rego", "d.rego"] {
            fs::File::create(org.join(name)).unwrap().set_len(MAX_DATA_BYTES - 1).unwrap();
        }
        assert!(unpacked.open(true).unwrap_err().contains("together"));
        for name in ["b.rego", "c.rego", "d.rego"] {
            fs::remove_file(org.join(name)).unwrap();
        }
        // Whoever reads one of these waits for somebody to write.
        let made = std::process::Command::new("mkfifo").arg(org.join("b.rego")).status().unwrap();
        assert!(made.success());
        unpacked.open(true).unwrap();
        fs::remove_file(org.join("a.rego")).unwrap();
        fs::rename(org.join("b.rego"), org.join("a.rego")).unwrap();
        assert!(unpacked.open(true).unwrap_err().contains("is missing"));
    }

    #[test]
    fn what_changes_while_it_is_read_shows() {
        let unpacked = Unpacked::new();
        let org = unpacked.folder.path().join("org");
        let before = stamps(&org);
        assert_eq!(stamps(&org), before);
        unpacked.write("org/deep/data.json", "{}");
        let added = stamps(&org);
        assert_ne!(added, before);
        unpacked.write("org/a.rego", "package countersign.org\n");
        assert_ne!(stamps(&org), added);
    }
}
