//! What ties lines together: each names the hash of the one before, and all are leaves of an RFC 6962 tree.
//!
//! Both are taken over a line's bytes without its newline. The first line's `prev` is the hash of the ledger's origin.

use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};

/// A SHA-256 hash.
pub(crate) type Hash = [u8; 32];

pub(crate) fn sha256(bytes: &[u8]) -> Hash {
    array(&digest::digest(&digest::SHA256, bytes))
}

/// The hash over `parts` one behind the other.
pub(crate) fn hash_parts(parts: &[&[u8]]) -> Hash {
    // A context costs more than what is hashed of a commitment or a node.
    let mut room = [0; SHORT];
    let mut length = 0;
    for part in parts {
        let Some(place) = room.get_mut(length..length + part.len()) else { return hash_long_parts(parts) };
        place.copy_from_slice(part);
        length += part.len();
    }
    sha256(room.get(..length).unwrap_or_default())
}

/// The longest that is put together before it is hashed, in bytes.
const SHORT: usize = 512;

fn hash_long_parts(parts: &[&[u8]]) -> Hash {
    let mut hashing = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| hashing.update(part));
    array(&hashing.finish())
}

fn array(digest: &digest::Digest) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

/// A hash over what comes piece by piece.
#[derive(Clone)]
pub(crate) struct Hashing(digest::Context);

impl Hashing {
    pub(crate) fn new() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash so far.
    pub(crate) fn finish(&self) -> Hash {
        array(&self.0.clone().finish())
    }
}

/// What the first line of a ledger names as the line before it.
pub(crate) fn genesis(origin: &str) -> Hash {
    sha256(origin.as_bytes())
}

/// The right edge of the tree over all lines so far: enough to append and to know the root.
///
/// Complete subtrees from left (largest) to right; their sizes are the binary digits of `size`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Frontier {
    size: u64,
    subtrees: Vec<Hash>,
}

/// A frontier as a seal holds it: base64url hashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenFrontier {
    pub(crate) size: u64,
    pub(crate) subtrees: Vec<String>,
}

impl Frontier {
    /// How many lines it covers.
    pub(crate) const fn size(&self) -> u64 {
        self.size
    }

    /// Appends a line.
    pub(crate) fn push(&mut self, line: &[u8]) {
        self.push_subtree(0, leaf(line));
    }

    /// Appends two to the power of `level` lines at once, of which `hash` is the complete subtree; false, and nothing is
    /// appended, where such a subtree cannot stand there.
    pub(crate) fn push_subtree(&mut self, level: u32, mut hash: Hash) -> bool {
        let Some(lines) = 1_u64.checked_shl(level) else { return false };
        let Some(size) = self.size.checked_add(lines) else { return false };
        let mut above = self.size >> level;
        if above << level != self.size {
            return false;
        }
        while above & 1 == 1 {
            let Some(left) = self.subtrees.pop() else { break };
            hash = node(&left, &hash);
            above >>= 1;
        }
        self.subtrees.push(hash);
        self.size = size;
        true
    }

    /// Its complete subtrees from left to right, each with its level.
    pub(crate) fn levels(&self) -> Vec<(u32, Hash)> {
        let levels = (0..u64::BITS).rev().filter(|level| self.size >> level & 1 == 1);
        levels.zip(self.subtrees.iter().copied()).collect()
    }

    /// The root of the tree (RFC 6962 §2.1).
    pub(crate) fn root(&self) -> Hash {
        let mut subtrees = self.subtrees.iter().rev();
        let Some(&last) = subtrees.next() else { return sha256(&[]) };
        subtrees.fold(last, |right, left| node(left, &right))
    }

    pub(crate) fn written(&self) -> WrittenFrontier {
        WrittenFrontier { size: self.size, subtrees: self.subtrees.iter().map(encoded).collect() }
    }
}

impl WrittenFrontier {
    /// The frontier, where it is well formed.
    pub(crate) fn read(&self) -> Option<Frontier> {
        let subtrees = self.subtrees.iter().map(|text| decoded(text)).collect::<Option<Vec<_>>>()?;
        let well_formed = u32::try_from(subtrees.len()).ok()? == self.size.count_ones();
        well_formed.then_some(Frontier { size: self.size, subtrees })
    }
}

/// The hash of one line in the tree.
pub(crate) fn leaf(line: &[u8]) -> Hash {
    hash_parts(&[&[0], line])
}

pub(crate) fn node(left: &Hash, right: &Hash) -> Hash {
    hash_parts(&[&[1], left, right])
}

/// base64url, as lines and seals write a hash.
pub(crate) fn encoded(hash: &Hash) -> String {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(hash)
}

pub(crate) fn decoded(text: &str) -> Option<Hash> {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 6962 §2.1, as it is written.
    fn tree_hash(leaves: &[Vec<u8>]) -> Hash {
        match leaves {
            [] => sha256(&[]),
            [leaf] => hash_parts(&[&[0], leaf]),
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                node(&tree_hash(&leaves[..split]), &tree_hash(&leaves[split..]))
            }
        }
    }

    #[test]
    fn the_root_is_that_of_the_published_test_vectors() {
        // certificate-transparency's reference leaves.
        let leaves: [&[u8]; 4] = [b"", b"\x00", b"\x10", b"\x20\x21"];
        let mut frontier = Frontier::default();
        let mut roots = Vec::new();
        for leaf in leaves {
            frontier.push(leaf);
            roots.push(frontier.root().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        }
        assert_eq!(roots[0], "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
        assert_eq!(roots[1], "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125");
        assert_eq!(roots[2], "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77");
        assert_eq!(roots[3], "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7");
    }

    proptest! {
        #[test]
        fn the_frontier_gives_the_root_of_the_whole_tree(leaves in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..70)) {
            let mut frontier = Frontier::default();
            for leaf in &leaves {
                frontier.push(leaf);
            }
            prop_assert_eq!(frontier.root(), tree_hash(&leaves));
            prop_assert_eq!(frontier.written().read(), Some(frontier));
        }
    }
}
