//! A bundle that was opened: its signature looked at before anything else, then what it says of itself. Its policies
//! are read out of it last.

use std::{collections::BTreeSet, path::Path as FilePath};

use aws_lc_rs::digest::{SHA256, digest};
use model::{Id, Tool};
use serde::Serialize;

use super::{
    Data, File, FileKind, Keys, MAX_DATA_BYTES, MAX_DIRECTORY_DEPTH, MAX_FILES, MAX_REGO_BYTES, Manifest, Signer,
    Source,
    archive::{self, Archive},
    is_passed_over, manifest,
    signature::{self, Documents, SigningKey, hexadecimal},
    unfit,
};
use crate::{Known, LoadError, catalogue, roots::Owner};

/// A bundle in one file.
pub struct Bundle {
    pub(super) archive: Archive,
    manifest: Manifest,
    digest: String,
    signature: Signature,
    documents: Documents,
    /// What was read before.
    known: Known,
}

/// What is known of a bundle's signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Signature {
    /// There is none.
    Absent,
    /// There is one, and no key to verify it with.
    Unverified,
    /// It is that of this key, over every file.
    Verified(Signer),
}

/// A file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its path in the bundle.
    pub path: String,
    /// Its size.
    pub bytes: usize,
    /// The SHA-256 of its bytes.
    pub sha256: String,
}

impl Bundle {
    /// Opens the archive `bytes`. With `keys`, one of them has to have signed it; nothing else is read before.
    pub fn open(bytes: &[u8], keys: Option<&Keys>) -> Result<Self, String> {
        Self::open_knowing(bytes, keys, Known::default())
    }

    /// The same. A document that is `known` by its very bytes is not read again.
    pub(super) fn open_knowing(bytes: &[u8], keys: Option<&Keys>, known: Known) -> Result<Self, String> {
        let digest = hexadecimal(digest(&SHA256, bytes).as_ref());
        Self::verified(Archive::read(bytes)?, digest, keys, known)
    }

    /// The same of files that nobody packed.
    pub(super) fn of(archive: Archive, keys: Option<&Keys>, known: Known) -> Result<Self, String> {
        let digest = hexadecimal(digest(&SHA256, archive.unpacked()).as_ref());
        Self::verified(archive, digest, keys, known)
    }

    fn verified(archive: Archive, digest: String, keys: Option<&Keys>, known: Known) -> Result<Self, String> {
        let (signature, documents) = match keys {
            Some(keys) => {
                let (signer, documents) = signature::verify(&archive, keys, &known)?;
                (Signature::Verified(signer), documents)
            }
            None if signature::is_signed(&archive) => (Signature::Unverified, Documents::new()),
            None => (Signature::Absent, Documents::new()),
        };
        if archive.file("patch.json").is_some() {
            return Err("`patch.json`: only whole bundles are taken, no changes to one".to_owned());
        }
        let manifest = archive.file(manifest::NAME).map(Manifest::parse).transpose()?.unwrap_or_default();
        Ok(Self { archive, manifest, digest, signature, documents, known })
    }

    /// What it says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The SHA-256 of its archive, in hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// What is known of its signature.
    #[must_use]
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Its files, in order.
    #[must_use]
    pub fn listed(&self) -> Vec<Listed> {
        let listed = |(path, content): (&str, &[u8])| Listed {
            path: path.to_owned(),
            bytes: content.len(),
            sha256: hexadecimal(digest(&SHA256, content).as_ref()),
        };
        self.archive.files().map(listed).collect()
    }

    /// The same bundle with the signature of `key`, in the place of any other.
    pub fn sign(&self, key: &SigningKey, name: Option<&str>, scope: Option<&str>) -> Result<Vec<u8>, String> {
        let signatures = key.sign(&self.archive, name, scope)?;
        let others = self.archive.files().filter(|(path, _)| *path != signature::NAME);
        archive::write(others.chain([(signature::NAME, signatures.as_bytes())]))
    }

    /// Its policies, as those of `name`. `shown` is how errors name the bundle.
    pub fn source(&self, name: &str, tools: Option<BTreeSet<Id<Tool>>>, shown: &FilePath) -> Result<Source, LoadError> {
        own(&self.manifest, name).map_err(|error| unfit(shown, error))?;
        let source = self.gathered(name, tools, shown)?;
        if source.policies.is_empty() {
            return Err(unfit(shown, "the bundle has no Rego policy"));
        }
        Ok(source)
    }

    /// The actions of `tools` in it, as those of the catalogue's source `name`.
    ///
    /// # Errors
    /// Where it is no catalogue of those.
    pub fn catalogue(
        &self,
        name: &str,
        tools: Option<&BTreeSet<Id<Tool>>>,
        shown: &FilePath,
    ) -> Result<Source, LoadError> {
        catalogue::fitting(self.gathered(name, tools.cloned(), shown)?, &self.manifest, shown)
    }

    /// Its files, whatever they are.
    fn gathered(&self, name: &str, tools: Option<BTreeSet<Id<Tool>>>, shown: &FilePath) -> Result<Source, LoadError> {
        let mut source = Source::empty(name, tools);
        let mut files = 0;
        for (path, content) in self.archive.files() {
            let mut below: Vec<&str> = path.split('/').collect();
            let file = below.pop().unwrap_or_default();
            let Some(kind) = FileKind::of(file).filter(|_| !below.iter().any(|part| is_passed_over(part))) else {
                continue;
            };
            let place = shown.join(path);
            files += 1;
            if files > MAX_FILES || below.len() > MAX_DIRECTORY_DEPTH {
                let most = format!("more than {MAX_FILES} files, or {MAX_DIRECTORY_DEPTH} directories deep");
                return Err(unfit(shown, most));
            }
            let most = if kind == FileKind::Data { MAX_DATA_BYTES } else { MAX_REGO_BYTES };
            if u64::try_from(content.len()).is_ok_and(|bytes| bytes > most) {
                return Err(unfit(&place, format!("larger than {most} bytes")));
            }
            let text = || str::from_utf8(content).map_err(|error| unfit(&place, error.to_string()));
            let rego = || Ok(File { path: place.display().to_string(), text: text()?.to_owned() });
            match kind {
                FileKind::Policy => source.policies.push(rego()?),
                FileKind::Test => source.tests.push(rego()?),
                FileKind::Data => {
                    let below: Vec<String> = below.into_iter().map(str::to_owned).collect();
                    source.data.push(match self.documents.get(path) {
                        Some(document) => document.data(&place, &below)?,
                        None => Data::parse(&place, file, &below, text()?, &self.known)?,
                    });
                }
            }
        }
        Ok(source)
    }
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle").field("manifest", &self.manifest).field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// That a bundle of `name` owns nothing else than what `name` may own.
pub(super) fn own(manifest: &Manifest, name: &str) -> Result<(), String> {
    match Owner::of_source(name) {
        Some(owner) => manifest.own(&owner.root().join("/")),
        // The name is refused where sources are checked against each other.
        None => Ok(()),
    }
}
