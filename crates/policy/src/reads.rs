//! The parts of the input that something reads: a tree of member names that ends where a part is read whole.
//!
//! Too much never hurts here and too little would: a part that is left out is one that no rule can see.

use std::collections::BTreeMap;

/// What is read of a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Reads {
    /// All of it, whatever the members say.
    whole: bool,
    members: BTreeMap<String, Self>,
}

/// Everything.
pub(crate) static WHOLE: Reads = Reads { whole: true, members: BTreeMap::new() };

impl Reads {
    /// Adds the value at `path`, with all that is below it.
    pub(crate) fn add(&mut self, path: &[String]) {
        let mut reads = self;
        for name in path {
            if reads.whole {
                return;
            }
            reads = reads.members.entry(name.clone()).or_default();
        }
        reads.whole = true;
        reads.members.clear();
    }

    /// Adds what `other` reads, as read of the value at `path`.
    pub(crate) fn add_all(&mut self, path: &[String], other: &Self) {
        if other.whole {
            self.add(path);
        }
        for (name, below) in &other.members {
            let path: Vec<String> = path.iter().chain([name]).cloned().collect();
            self.add_all(&path, below);
        }
    }

    /// What is read of the member `name`; `None` where it is not looked at.
    pub(crate) fn member(&self, name: &str) -> Option<&Self> {
        if self.whole { Some(&WHOLE) } else { self.members.get(name) }
    }

    /// Whether anything at `path`, above it or below it is read.
    pub(crate) fn touches(&self, path: &[&str]) -> bool {
        match path.split_first() {
            None => self.whole || !self.members.is_empty(),
            Some((name, rest)) => self.member(name).is_some_and(|below| below.touches(rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('.').map(str::to_owned).collect()
    }

    #[test]
    fn what_is_read_whole_is_read_with_everything_below_it_in_whatever_order_it_was_added() {
        let mut reads = Reads::default();
        reads.add(&path("action.name"));
        reads.add(&path("action.parameters.amount"));
        assert!(
            reads.touches(&["action"]) && reads.touches(&["action", "name"]) && !reads.touches(&["action", "effect"])
        );
        let mut other = reads.clone();
        other.add(&path("action"));
        assert!(other.touches(&["action", "effect"]));
        let mut whole_first = Reads::default();
        whole_first.add(&path("action"));
        whole_first.add(&path("action.name"));
        assert_eq!(whole_first, other);
    }

    #[test]
    fn reads_of_a_part_are_reads_of_the_whole_at_its_place() {
        let mut part = Reads::default();
        part.add(&path("name"));
        let mut reads = Reads::default();
        reads.add_all(&path("action"), &part);
        assert!(reads.touches(&["action", "name"]) && !reads.touches(&["action", "resource"]));
        reads.add_all(&path("user"), &WHOLE);
        assert!(reads.touches(&["user", "groups", "anything"]));
        reads.add_all(&[], &WHOLE);
        assert_eq!(reads.member("tenant"), Some(&WHOLE));
    }
}
