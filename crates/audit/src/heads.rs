//! Signed heads: C2SP tlog-checkpoints as C2SP signed notes, Ed25519 (standards §11.6).
//!
//! ```text
//! countersign/ledger/8f3a…          the origin, which is also the key's name
//! 1234                              how many lines it covers
//! base64(RFC 6962 root)
//!                                   an empty line
//! — countersign/ledger/8f3a… base64(key id ‖ signature)
//! ```

use std::{fmt, io, path::Path, str::FromStr};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    chain::{Hash, Hashing, sha256},
    read::Lines,
};

/// The signed note's type of a plain Ed25519 signature.
const ED25519_TYPE: u8 = 1;

/// How many lines a note has in a heads file, the empty one after it included.
pub(crate) const NOTE_LINES: usize = 6;

/// What a head says: so many lines have this root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The ledger it speaks of.
    pub origin: String,
    /// How many lines it covers.
    pub size: u64,
    /// The root of the RFC 6962 tree over them.
    pub root: [u8; 32],
}

/// The public key that a ledger's heads verify under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyingKey {
    name: String,
    public: [u8; 32],
}

/// Why a head, or a key, is not one.
#[derive(Debug, thiserror::Error, PartialEq, Eq, Clone)]
pub enum InvalidHead {
    /// Not a checkpoint in a signed note.
    #[error("not a signed checkpoint")]
    Shape,
    /// Of another ledger.
    #[error("the head is of the ledger `{0}`")]
    Origin(String),
    /// The signature is missing or wrong.
    #[error("no valid signature under the key {0}")]
    Signature(String),
    /// Not a vkey.
    #[error("not a verifying key: write `name+hex id+base64 key`")]
    Key,
}

impl Head {
    /// The root as notes write it.
    pub fn root_text(&self) -> String {
        STANDARD.encode(self.root)
    }

    fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, self.root_text())
    }

    /// The head as a signed note.
    pub(crate) fn sign(&self, key: &Ed25519KeyPair) -> String {
        let text = self.text();
        let signature = key.sign(text.as_bytes());
        let public = VerifyingKey::of(&self.origin, key);
        let mut bytes = public.key_id().to_vec();
        bytes.extend_from_slice(signature.as_ref());
        format!("{text}\n\u{2014} {} {}\n", self.origin, STANDARD.encode(bytes))
    }

    /// The head in `note`, where `key` signed it. Further signatures (witnesses) are passed over.
    pub fn verify(note: &str, key: &VerifyingKey) -> Result<Self, InvalidHead> {
        let head = Self::unverified(note)?;
        if head.origin != key.name {
            return Err(InvalidHead::Origin(head.origin));
        }
        let (_, signatures) = note.split_once("\n\n").ok_or(InvalidHead::Shape)?;
        let good = signatures.lines().filter_map(|line| line.strip_prefix("\u{2014} ")?.split_once(' ')).any(
            |(name, encoded)| {
                let bytes = STANDARD.decode(encoded).unwrap_or_default();
                name == key.name
                    && bytes.split_at_checked(4).is_some_and(|(id, signature)| {
                        id == key.key_id()
                            && UnparsedPublicKey::new(&ED25519, key.public)
                                .verify(head.text().as_bytes(), signature)
                                .is_ok()
                    })
            },
        );
        if good { Ok(head) } else { Err(InvalidHead::Signature(key.to_string())) }
    }

    /// What `note` says, whoever signed it: nothing of it is to be believed.
    ///
    /// # Errors
    /// When it does not have the shape of a head.
    pub fn unverified(note: &str) -> Result<Self, InvalidHead> {
        let (text, _) = note.split_once("\n\n").ok_or(InvalidHead::Shape)?;
        let mut lines = text.split('\n');
        let (Some(origin), Some(size), Some(root), None) = (lines.next(), lines.next(), lines.next(), lines.next())
        else {
            return Err(InvalidHead::Shape);
        };
        let size: u64 = size.parse().ok().filter(|n: &u64| n.to_string() == size).ok_or(InvalidHead::Shape)?;
        let root: Hash =
            STANDARD.decode(root).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(InvalidHead::Shape)?;
        Ok(Self { origin: origin.to_owned(), size, root })
    }
}

/// The whole notes in `file`, an empty line after each, and how many bytes of it they are: a crash may have torn the
/// last one.
pub fn notes(file: &str) -> (Vec<String>, usize) {
    let mut notes = Vec::new();
    let mut whole = 0;
    let mut note = String::new();
    for (index, line) in file.split_inclusive('\n').enumerate() {
        if !line.ends_with('\n') {
            break;
        }
        if (index + 1) % NOTE_LINES == 0 {
            whole += note.len() + line.len();
            notes.push(std::mem::take(&mut note));
        } else {
            note.push_str(line);
        }
    }
    (notes, whole)
}

/// How many notes a heads file has, and the hash of the file.
pub(crate) fn tally(path: &Path) -> io::Result<(u64, Hash)> {
    let (mut lines, mut hashing, mut count) = (Lines::open(path)?, Hashing::new(), 0);
    while let Some(line) = lines.next()? {
        hashing.update(&line);
        hashing.update(b"\n");
        count += 1;
    }
    Ok((count / NOTE_LINES as u64, hashing.finish()))
}

impl VerifyingKey {
    pub(crate) fn of(name: &str, key: &Ed25519KeyPair) -> Self {
        let mut public = [0; 32];
        public.copy_from_slice(key.public_key().as_ref());
        Self { name: name.to_owned(), public }
    }

    /// The key's name: the origin of the ledger whose heads it signs.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key itself, as Ed25519 has it.
    pub(crate) const fn public(&self) -> &[u8; 32] {
        &self.public
    }

    fn typed(&self) -> Vec<u8> {
        let mut typed = vec![ED25519_TYPE];
        typed.extend_from_slice(&self.public);
        typed
    }

    /// SHA-256(name ‖ 0x0A ‖ type ‖ key), its first four bytes.
    fn key_id(&self) -> [u8; 4] {
        let mut bytes = self.name.as_bytes().to_vec();
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.typed());
        let [a, b, c, d, ..] = sha256(&bytes);
        [a, b, c, d]
    }
}

impl fmt::Display for VerifyingKey {
    /// The vkey: `name+hex(key id)+base64(type ‖ key)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = u32::from_be_bytes(self.key_id());
        write!(f, "{}+{id:08x}+{}", self.name, STANDARD.encode(self.typed()))
    }
}

impl FromStr for VerifyingKey {
    type Err = InvalidHead;

    fn from_str(text: &str) -> Result<Self, InvalidHead> {
        // The base64 may itself have a plus, the name may not.
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(InvalidHead::Key);
        };
        let typed = STANDARD.decode(key).map_err(|_| InvalidHead::Key)?;
        let public = match typed.split_first() {
            Some((&ED25519_TYPE, public)) => <[u8; 32]>::try_from(public).map_err(|_| InvalidHead::Key)?,
            _ => return Err(InvalidHead::Key),
        };
        let key = Self { name: name.to_owned(), public };
        if format!("{:08x}", u32::from_be_bytes(key.key_id())) == id && !name.is_empty() {
            Ok(key)
        } else {
            Err(InvalidHead::Key)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> Head {
        Head { origin: "countersign/ledger/test".to_owned(), size: 42, root: [7; 32] }
    }

    #[test]
    fn a_head_verifies_under_its_own_key_and_no_other() {
        let key = Ed25519KeyPair::generate().unwrap();
        let note = head().sign(&key);
        let public = VerifyingKey::of("countersign/ledger/test", &key);
        assert_eq!(Head::verify(&note, &public), Ok(head()));
        let other = VerifyingKey::of("countersign/ledger/test", &Ed25519KeyPair::generate().unwrap());
        assert!(matches!(Head::verify(&note, &other), Err(InvalidHead::Signature(_))));
        let renamed = VerifyingKey::of("countersign/ledger/other", &key);
        assert!(matches!(Head::verify(&note, &renamed), Err(InvalidHead::Origin(_))));
        assert!(Head::verify(&note.replace("\n42\n", "\n43\n"), &public).is_err());
        assert!(Head::verify(&note.replace("\n42\n", "\n042\n"), &public).is_err());
    }

    #[test]
    fn a_known_vkey_reads_and_writes_itself() {
        // The example key of C2SP signed-note (golang.org/x/mod/sumdb/note).
        let text = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key: VerifyingKey = text.parse().unwrap();
        assert_eq!(key.to_string(), text);
        for broken in
            ["", "a+b", "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", "x+00000000+AA=="]
        {
            assert!(broken.parse::<VerifyingKey>().is_err(), "{broken}");
        }
    }

    #[test]
    fn a_torn_last_note_is_not_a_note() {
        let key = Ed25519KeyPair::generate().unwrap();
        let note = head().sign(&key);
        let file = format!("{note}\n{note}\n");
        assert_eq!(notes(&file), (vec![note.clone(), note.clone()], file.len()));
        let torn: String = file.chars().take(file.chars().count() - 10).collect();
        assert_eq!(notes(&torn), (vec![note.clone()], note.len() + 1));
        assert_eq!(notes(""), (vec![], 0));
    }
}
