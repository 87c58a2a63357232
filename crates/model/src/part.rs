//! A part of a document: a tree of member names that ends where what is below is meant whole. Arrays are whole or
//! not there at all.
//!
//! Where a part says what somebody reads, too much never hurts and too little would: what is left out, nobody sees.

use std::collections::BTreeMap;

/// A part of a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// All of it, whatever the members say.
    whole: bool,
    members: BTreeMap<String, Self>,
}

/// All of a value.
pub static WHOLE: Part = Part { whole: true, members: BTreeMap::new() };

impl Part {
    /// Adds the value at `path`, with all that is below it.
    pub fn add(&mut self, path: &[String]) {
        let mut part = self;
        for name in path {
            if part.whole {
                return;
            }
            part = part.members.entry(name.clone()).or_default();
        }
        part.whole = true;
        part.members.clear();
    }

    /// Adds `other` as the part of the value at `path`.
    pub fn add_all(&mut self, path: &[String], other: &Self) {
        if other.whole {
            self.add(path);
        }
        for (name, below) in &other.members {
            let path: Vec<String> = path.iter().chain([name]).cloned().collect();
            self.add_all(&path, below);
        }
    }

    /// Whether it is all of a value.
    pub const fn is_whole(&self) -> bool {
        self.whole
    }

    /// The part of the member `name`; `None` where nothing of it is meant.
    pub fn member(&self, name: &str) -> Option<&Self> {
        if self.whole { Some(&WHOLE) } else { self.members.get(name) }
    }

    /// Whether anything at `path`, above it or below it is meant.
    pub fn touches(&self, path: &[&str]) -> bool {
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
        let mut part = Part::default();
        part.add(&path("action.name"));
        part.add(&path("action.parameters.amount"));
        assert!(part.touches(&["action"]) && part.touches(&["action", "name"]) && !part.touches(&["action", "effect"]));
        let mut other = part.clone();
        other.add(&path("action"));
        assert!(other.touches(&["action", "effect"]));
        let mut whole_first = Part::default();
        whole_first.add(&path("action"));
        whole_first.add(&path("action.name"));
        assert_eq!(whole_first, other);
    }

    #[test]
    fn the_part_of_a_member_is_a_part_of_the_whole_at_its_place() {
        let mut name = Part::default();
        name.add(&path("name"));
        let mut part = Part::default();
        part.add_all(&path("action"), &name);
        assert!(part.touches(&["action", "name"]) && !part.touches(&["action", "resource"]));
        part.add_all(&path("user"), &WHOLE);
        assert!(part.touches(&["user", "groups", "anything"]));
        part.add_all(&[], &WHOLE);
        assert_eq!(part.member("tenant"), Some(&WHOLE));
    }
}
