//! The name that somebody meant when they wrote another: what errors about misspelt names suggest.

/// The one of `known` that is nearest to `written`, where one is near enough to be meant: a change in three characters,
/// up to three changes. A transposition of two neighbours is one change.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let most = written.chars().count().div_ceil(3).clamp(1, 3);
    let near = known.into_iter().map(|name| (distance(written, name), name));
    near.filter(|(distance, name)| *distance <= most && *name != written).min().map(|(_, name)| name)
}

/// The number of single-character changes between two short words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut above: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    let mut last = None;
    for (place, left) in a.chars().enumerate() {
        let mut next = vec![place + 1];
        let mut before = None;
        for (column, right) in b.iter().enumerate() {
            let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX / 2);
            let changed = at(&row, column) + usize::from(left != *right);
            let mut least = changed.min(at(&row, column + 1) + 1).min(at(&next, column) + 1);
            if last == Some(*right) && before == Some(left) {
                least = least.min(at(&above, column.saturating_sub(1)) + 1);
            }
            next.push(least);
            before = Some(*right);
        }
        above = std::mem::replace(&mut row, next);
        last = Some(left);
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_the_one_that_was_meant() {
        let known = ["name", "effect", "resource", "parameters"];
        for (written, meant) in [
            ("nam", Some("name")),
            ("naem", Some("name")),
            ("efect", Some("effect")),
            ("paramters", Some("parameters")),
            ("resuorce", Some("resource")),
            ("tool", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(written, known), meant, "{written}");
        }
    }

    #[test]
    fn a_change_is_one_whatever_it_does() {
        for (a, b, changes) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("abc", "acb", 1),
            ("ab", "b", 1),
            ("ca", "abc", 3),
            ("größe", "grosse", 3),
        ] {
            assert_eq!(distance(a, b), changes, "{a} {b}");
        }
    }
}
