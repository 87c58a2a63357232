//! A head as a sidecar hands it to its authority, and what the authority makes of it: the signature is the ledger's, and
//! the lines it covers begin with exactly those that the last anchored head covers (RFC 6962 §2.1.2, in its simplest
//! form: whoever verifies keeps the right edge of the tree, and is given the subtrees that follow on it).

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, UnparsedPublicKey};
use base64::{Engine, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    chain::{self, Frontier, Hash, WrittenFrontier},
    heads::{Head, InvalidHead, VerifyingKey},
};

/// What the name of every ledger's key begins with; the ledger's id follows.
const ORIGIN: &str = "countersign/ledger/";

/// The most subtrees that lead from one size of a tree to another.
const MAX_SUBTREES: usize = 128;

/// What is said of a ledger that is no longer than its anchored head, or that is another one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAnchored {
    /// It cannot be read, or the ledger's key did not sign it.
    #[error("the head: {0}")]
    Head(#[from] InvalidHead),
    /// The rest of it cannot be read.
    #[error("{0}")]
    Malformed(&'static str),
    /// It does not go on from the anchored head: go on from there.
    #[error("the anchored head covers {0} lines: go on from there")]
    Elsewhere(u64),
    /// The ledger is shorter than it was.
    #[error("a head over {anchored} lines is anchored, and the ledger's newest covers {found}: it was cut")]
    Shrunk {
        /// What is anchored.
        anchored: u64,
        /// What came.
        found: u64,
    },
    /// The lines below the anchored head are not the ones it was signed for.
    #[error(
        "the head over {found} lines does not continue the anchored one over {anchored}: what that covers was rewritten"
    )]
    Forked {
        /// What is anchored.
        anchored: u64,
        /// What came.
        found: u64,
    },
}

impl NotAnchored {
    /// Whether it shows that the ledger is not the one that was anchored.
    pub const fn is_of_another_history(&self) -> bool {
        matches!(self, Self::Shrunk { .. } | Self::Forked { .. })
    }
}

/// A head to be anchored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The vkey of the ledger.
    pub ledger: String,
    /// The ledger key's word that whoever sends this may speak for the ledger: see `possession`.
    pub proof: String,
    /// The size of the anchored head that it goes on from; 0 for none.
    pub after: u64,
    /// The complete subtrees that lead from there to the head, from left to right.
    pub subtrees: Vec<Subtree>,
    /// The signed head.
    pub note: String,
}

/// A complete subtree: two to the power of its level lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Subtree {
    /// The level; 0 for one line.
    pub level: u32,
    /// base64url of its RFC 6962 hash.
    pub hash: String,
}

/// The answer: what is anchored now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchored {
    /// How many lines the anchored head covers.
    pub size: u64,
}

/// What an authority keeps of a ledger to judge the next head by: the right edge of the tree below the last one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Anchor(Frontier);

impl Anchor {
    /// How many lines it covers.
    pub const fn size(&self) -> u64 {
        self.0.size()
    }

    /// As text to be kept.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which it can.
    pub fn written(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(&self.0.written())
    }

    /// What [`Anchor::written`] gave.
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str::<WrittenFrontier>(text).ok()?.read().map(Self)
    }

    /// The anchor after `claim`, with the head that was claimed.
    ///
    /// # Errors
    /// When the head is not the ledger's, or does not continue this one.
    pub fn extended(&self, claim: &Claim, key: &VerifyingKey) -> Result<(Self, Head), NotAnchored> {
        let head = Head::verify(&claim.note, key)?;
        let (anchored, found) = (self.size(), head.size);
        if found < anchored {
            return Err(NotAnchored::Shrunk { anchored, found });
        }
        let forked = NotAnchored::Forked { anchored, found };
        if found == anchored {
            return if head.root == self.0.root() { Ok((self.clone(), head)) } else { Err(forked) };
        }
        if claim.after != anchored {
            return Err(NotAnchored::Elsewhere(anchored));
        }
        if claim.subtrees.len() > MAX_SUBTREES {
            return Err(NotAnchored::Malformed("there are more subtrees than lead anywhere"));
        }
        let mut frontier = self.0.clone();
        for Subtree { level, hash } in &claim.subtrees {
            let hash = chain::decoded(hash).ok_or(NotAnchored::Malformed("a subtree has no SHA-256 hash"))?;
            let fits = frontier.push_subtree(*level, hash);
            if !fits || frontier.size() > found {
                return Err(NotAnchored::Malformed("the subtrees do not lead from the anchored head to this one"));
            }
        }
        if frontier.size() != found {
            return Err(NotAnchored::Malformed("the subtrees do not lead to the head"));
        }
        if frontier.root() == head.root { Ok((Self(frontier), head)) } else { Err(forked) }
    }
}

/// The subtrees of lines that follow one another from some place on.
#[derive(Debug)]
pub(crate) struct Span {
    end: u64,
    subtrees: Vec<(u32, Hash)>,
}

impl Span {
    /// No line, after the first `start`.
    pub(crate) const fn after(start: u64) -> Self {
        Self { end: start, subtrees: Vec::new() }
    }

    /// Everything that `frontier` covers.
    pub(crate) fn whole(frontier: &Frontier) -> Self {
        Self { end: frontier.size(), subtrees: frontier.levels() }
    }

    pub(crate) fn push(&mut self, line: &[u8]) {
        self.subtrees.push((0, chain::leaf(line)));
        self.end += 1;
        while let [.., (left_level, left), (level, right)] = self.subtrees.as_slice()
            && left_level == level
            && self.end.trailing_zeros() > *level
        {
            let merged = (level + 1, chain::node(left, right));
            self.subtrees.truncate(self.subtrees.len() - 2);
            self.subtrees.push(merged);
        }
    }

    pub(crate) const fn end(&self) -> u64 {
        self.end
    }

    pub(crate) fn written(&self) -> Vec<Subtree> {
        self.subtrees.iter().map(|(level, hash)| Subtree { level: *level, hash: chain::encoded(hash) }).collect()
    }
}

/// The id of the ledger that `key` signs: the last part of its name. `None` where it is no ledger's key.
pub fn ledger_id(key: &VerifyingKey) -> Option<&str> {
    let id = key.name().strip_prefix(ORIGIN)?;
    let well_formed = id.len() == 16 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    well_formed.then_some(id)
}

/// What a ledger's key signs to say that `sidecar` (its name at the authority) speaks for the ledger. No head reads so.
fn possession(key: &VerifyingKey, sidecar: &str) -> String {
    format!("countersign/speaks-for-a-ledger\n{}\n{sidecar}\n", key.name())
}

/// The proof for [`Claim`].
pub(crate) fn prove(key: &Ed25519KeyPair, public: &VerifyingKey, sidecar: &str) -> String {
    STANDARD.encode(key.sign(possession(public, sidecar).as_bytes()))
}

/// Whether `proof` is the word of `key` that `sidecar` speaks for its ledger.
pub fn is_proved(proof: &str, key: &VerifyingKey, sidecar: &str) -> bool {
    let signature = STANDARD.decode(proof).unwrap_or_default();
    UnparsedPublicKey::new(&ED25519, key.public()).verify(possession(key, sidecar).as_bytes(), &signature).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Signed {
        key: Ed25519KeyPair,
        public: VerifyingKey,
    }

    fn signed() -> Signed {
        let key = Ed25519KeyPair::generate().unwrap();
        let public = VerifyingKey::of("countersign/ledger/0123456789abcdef", &key);
        Signed { key, public }
    }

    impl Signed {
        /// What a sidecar says of `lines`, of which the first `after` are anchored.
        fn claim(&self, lines: &[Vec<u8>], after: usize) -> Claim {
            let (mut whole, mut span) = (Frontier::default(), Span::after(after as u64));
            lines.iter().for_each(|line| whole.push(line));
            lines[after..].iter().for_each(|line| span.push(line));
            let head = Head { origin: self.public.name().to_owned(), size: whole.size(), root: whole.root() };
            Claim {
                ledger: self.public.to_string(),
                proof: prove(&self.key, &self.public, "s-1"),
                after: after as u64,
                subtrees: span.written(),
                note: head.sign(&self.key),
            }
        }
    }

    fn lines(count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|number| format!("line {number}").into_bytes()).collect()
    }

    proptest! {
        #[test]
        fn a_head_that_continues_the_anchored_one_is_anchored(first in 0_usize..70, more in 0_usize..70, last in 0_usize..9) {
            let signed = signed();
            let all = lines(first + more + last);
            let mut anchor = Anchor::default();
            let mut after = 0;
            for size in [first, first + more, first + more + last] {
                let claim = signed.claim(&all[..size], after);
                let (next, head) = anchor.extended(&claim, &signed.public).unwrap();
                prop_assert_eq!((next.size(), head.size), (size as u64, size as u64));
                prop_assert!(claim.subtrees.len() <= 14, "a few subtrees lead anywhere");
                prop_assert_eq!(Anchor::read(&next.written().unwrap()), Some(next.clone()));
                (anchor, after) = (next, size);
            }
        }

        #[test]
        fn no_rewritten_line_below_the_anchored_head_is_continued(first in 1_usize..70, more in 0_usize..70, which in any::<prop::sample::Index>()) {
            let signed = signed();
            let mut all = lines(first + more);
            let anchor = Anchor::default().extended(&signed.claim(&all[..first], 0), &signed.public).unwrap().0;
            all[which.index(first)] = b"another".to_vec();
            let claim = signed.claim(&all, first);
            let refused = anchor.extended(&claim, &signed.public).unwrap_err();
            prop_assert_eq!(refused, NotAnchored::Forked { anchored: first as u64, found: (first + more) as u64 });
        }
    }

    #[test]
    fn what_is_shorter_elsewhere_or_another_keys_is_told_apart() {
        let (signed_by_it, other) = (signed(), signed());
        let all = lines(20);
        let anchor = Anchor::default().extended(&signed_by_it.claim(&all[..10], 0), &signed_by_it.public).unwrap().0;
        let judge = |claim: &Claim| anchor.extended(claim, &signed_by_it.public).map(|(anchor, _)| anchor.size());
        assert_eq!(judge(&signed_by_it.claim(&all[..10], 3)), Ok(10), "said again, it changes nothing");
        assert_eq!(judge(&signed_by_it.claim(&all[..9], 0)), Err(NotAnchored::Shrunk { anchored: 10, found: 9 }));
        assert_eq!(judge(&signed_by_it.claim(&all, 0)), Err(NotAnchored::Elsewhere(10)));
        assert!(matches!(judge(&other.claim(&all, 10)), Err(NotAnchored::Head(InvalidHead::Signature(_)))));
        let good = signed_by_it.claim(&all, 10);
        for level in [2, 5, 63, 64, u32::MAX] {
            let mut claim = good.clone();
            claim.subtrees[0].level = level;
            assert!(matches!(judge(&claim), Err(NotAnchored::Malformed(_) | NotAnchored::Forked { .. })), "{level}");
        }
        let mut fewer = good.clone();
        fewer.subtrees.pop();
        assert!(matches!(judge(&fewer), Err(NotAnchored::Malformed(_))));
        let mut garbage = good;
        garbage.subtrees[0].hash = "x".to_owned();
        assert!(matches!(judge(&garbage), Err(NotAnchored::Malformed(_))));
    }

    #[test]
    fn only_the_ledgers_key_says_who_speaks_for_it() {
        let (one, other) = (signed(), signed());
        let proof = prove(&one.key, &one.public, "https://a.example/sidecars/s-1");
        assert!(is_proved(&proof, &one.public, "https://a.example/sidecars/s-1"));
        assert!(!is_proved(&proof, &one.public, "https://a.example/sidecars/s-2"));
        assert!(!is_proved(&proof, &other.public, "https://a.example/sidecars/s-1"));
        assert!(!is_proved("", &one.public, "https://a.example/sidecars/s-1"));
        assert_eq!(ledger_id(&one.public), Some("0123456789abcdef"));
        for name in
            ["countersign/ledger/", "countersign/ledger/../../etc/pass", "countersign/ledger/0123456789ABCDEF", "x"]
        {
            assert_eq!(ledger_id(&VerifyingKey::of(name, &one.key)), None, "{name}");
        }
    }
}
