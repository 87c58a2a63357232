//! Small changes of seeds, the same each time: for the tests that say them again on stable.

/// Numbers that look like chance and are the same each time.
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % limit.max(1)
    }

    /// `bytes` with a few changes of the kinds that fuzzers make, some of them from `other`.
    pub(crate) fn changed(&mut self, bytes: &[u8], other: &[u8]) -> Vec<u8> {
        let mut changed = bytes.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(changed.len());
            let end = (at + 1 + self.below(16)).min(changed.len());
            match self.below(6) {
                0 if !changed.is_empty() => changed[at] ^= 1 << self.below(8),
                1 => drop(changed.drain(at..end)),
                2 => changed.insert(at, b"\"\\{}[],:.%/\0\xff\n 09-"[self.below(18)]),
                3 => {
                    let again = changed[at..end].repeat(1 + self.below(20));
                    changed.splice(at..at, again);
                }
                4 => {
                    let from = self.below(other.len());
                    let piece = other[from..(from + self.below(64)).min(other.len())].to_vec();
                    changed.splice(at..end, piece);
                }
                _ => changed.truncate(at),
            }
        }
        changed
    }
}
