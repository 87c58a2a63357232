//! What a journal gives back, and what it does not.

use std::fs;

use super::*;

struct Desk {
    dir: tempfile::TempDir,
    paths: Paths,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path(), 1);
        fs::write(&paths.lines, "").unwrap();
        fs::write(&paths.values, "").unwrap();
        Self { dir, paths }
    }

    fn journal(&self) -> Journal {
        Journal::open(self.dir.path()).unwrap()
    }

    fn restore(&self) -> Option<u64> {
        restore(self.dir.path(), 1, &self.paths).unwrap()
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join(JOURNAL_FILE)
    }

    fn holds(&self, lines: &str, values: &str) {
        assert_eq!(fs::read_to_string(&self.paths.lines).unwrap(), lines);
        assert_eq!(fs::read_to_string(&self.paths.values).unwrap(), values);
    }
}

fn entry<'a>(lines_at: u64, lines: &'a str, values_at: u64, values: &'a str) -> Entry<'a> {
    Entry { segment: 1, lines_at, lines: lines.as_bytes(), values_at, values: values.as_bytes() }
}

#[test]
fn files_that_lost_what_was_not_synced_get_it_back() {
    let desk = Desk::new();
    let mut journal = desk.journal();
    journal.append(&entry(0, "one\n", 0, "1\n"), None).unwrap();
    journal.append(&entry(4, "two\n", 2, ""), None).unwrap();
    journal.append(&entry(8, "three\n", 2, "3\n"), None).unwrap();
    // A file that grew, whose bytes did not arrive; one that did not grow; and one that has more than was durable.
    for (lines, values) in [("\0\0\0\0\0\0", ""), ("one\n", "1\n3\n"), ("one\ntwo\nthree\nfou", "1\n3\n4")] {
        fs::write(&desk.paths.lines, lines).unwrap();
        fs::write(&desk.paths.values, values).unwrap();
        assert_eq!(desk.restore(), Some(14));
        assert!(fs::read_to_string(&desk.paths.lines).unwrap().starts_with("one\ntwo\nthree\n"));
        assert!(fs::read_to_string(&desk.paths.values).unwrap().starts_with("1\n3\n"));
    }
}

#[test]
fn an_entry_that_is_not_whole_ends_its_lap() {
    let desk = Desk::new();
    let mut journal = desk.journal();
    journal.append(&entry(0, "one\n", 0, "1\n"), None).unwrap();
    let first = journal.at;
    journal.append(&entry(4, "two\n", 2, "2\n"), None).unwrap();
    let whole = fs::read(desk.file()).unwrap();
    assert!(whole.len() > 80);
    let start = usize::try_from(half(journal.lap) + first).unwrap();
    for byte in (start..whole.len()).step_by(7) {
        let mut broken = whole.clone();
        broken[byte] ^= 1;
        fs::write(desk.file(), &broken).unwrap();
        assert_eq!(desk.restore(), Some(4), "byte {byte}");
        fs::write(desk.file(), &whole[..byte]).unwrap();
        assert_eq!(desk.restore(), Some(4), "cut at {byte}");
    }
    desk.holds("one\n", "1\n");
}

#[test]
fn a_lap_that_hardly_began_leaves_the_one_before_in_force() {
    let desk = Desk::new();
    let mut journal = desk.journal();
    for lap in 0..4 {
        journal.append(&entry(lap * 4, "abc\n", 0, ""), None).unwrap();
        assert_eq!(desk.restore(), Some(lap * 4 + 4), "the newest lap is the one in force");
        journal.next_lap();
        assert_eq!(desk.restore(), Some(lap * 4 + 4), "also before anything is in the next");
    }
    let before = fs::read(desk.file()).unwrap();
    journal.append(&entry(16, "abc\n", 0, ""), None).unwrap();
    let at = usize::try_from(half(journal.lap)).unwrap();
    let mut torn = fs::read(desk.file()).unwrap();
    torn[at + 70] ^= 1;
    assert_ne!(torn, before);
    fs::write(desk.file(), torn).unwrap();
    assert_eq!(desk.restore(), Some(16));
}

#[test]
fn what_is_of_another_segment_or_follows_nothing_is_left_alone() {
    let desk = Desk::new();
    assert_eq!(desk.restore(), None, "there is no journal");
    let mut journal = desk.journal();
    assert_eq!(desk.restore(), None, "there is nothing in it");
    journal.append(&entry(100, "one\n", 0, ""), None).unwrap();
    assert_eq!(desk.restore(), None, "what came before it is gone");
    assert_eq!(restore(desk.dir.path(), 2, &desk.paths).unwrap(), None);
    fs::remove_file(&desk.paths.lines).unwrap();
    assert_eq!(desk.restore(), None, "there is no such segment");
    fs::write(desk.file(), "not a journal of ours").unwrap();
    assert_eq!(desk.restore(), None);
    desk.journal().append(&entry(0, "", 0, ""), None).unwrap();
}

#[test]
fn nothing_is_left_of_what_was_wiped_or_belongs_to_an_earlier_run() {
    let desk = Desk::new();
    let mut journal = desk.journal();
    for _ in 0..2 {
        journal.append(&entry(0, "alice\n", 0, "alice\n"), None).unwrap();
        journal.next_lap();
    }
    journal.wipe().unwrap();
    assert!(fs::read(desk.file()).unwrap().is_empty());
    journal.append(&entry(0, "alice\n", 0, ""), None).unwrap();
    drop(journal);
    drop(desk.journal());
    assert!(fs::read(desk.file()).unwrap().is_empty());
}

#[test]
fn a_journal_that_was_taken_away_is_no_place_to_write() {
    let desk = Desk::new();
    let mut journal = desk.journal();
    fs::remove_file(desk.file()).unwrap();
    assert!(journal.append(&entry(0, "one\n", 0, ""), None).is_err());
    fs::write(desk.file(), "").unwrap();
    assert!(journal.append(&entry(0, "one\n", 0, ""), None).is_err());
}

/// A lap's entries one behind the other, as the segment's files have them.
#[derive(Default)]
struct Written {
    lines: String,
    values: String,
}

impl Written {
    fn append(&mut self, journal: &mut Journal, line: &str) {
        let row = format!("{}\n", self.values.len());
        journal.append(&entry(self.lines.len() as u64, line, self.values.len() as u64, &row), None).unwrap();
        self.lines.push_str(line);
        self.values.push_str(&row);
    }
}

#[test]
#[expect(clippy::string_slice, reason = "the test's own text is ASCII")]
fn two_laps_that_the_files_lack_are_given_back() {
    let (desk, mut written) = (Desk::new(), Written::default());
    let mut journal = desk.journal();
    let mut synced = (0, 0);
    for (lap, lines) in [&["one\n", "two\n"][..], &["three\n", "four\n", "five\n"], &["six\n"]].into_iter().enumerate()
    {
        if lap > 0 {
            journal.next_lap();
        }
        for line in lines {
            written.append(&mut journal, line);
        }
        if lap == 0 {
            synced = (written.lines.len(), written.values.len());
        }
    }
    let zeros = |text: &str, from: usize, length: usize| format!("{}{}", &text[..from], "\0".repeat(length));
    let left = [
        (written.lines[..synced.0].to_owned(), written.values[..synced.1].to_owned()),
        (zeros(&written.lines, synced.0, 1), zeros(&written.values, synced.1, 5)),
        (zeros(&written.lines, synced.0, written.lines.len() - synced.0), written.values.clone()),
        (written.lines.clone(), written.values[..synced.1].to_owned()),
    ];
    for (lines, values) in left {
        fs::write(&desk.paths.lines, &lines).unwrap();
        fs::write(&desk.paths.values, &values).unwrap();
        assert_eq!(desk.restore(), Some(written.lines.len() as u64), "{lines:?} {values:?}");
        desk.holds(&written.lines, &written.values);
    }
    // Without what was synced before both there is nothing to follow.
    fs::write(&desk.paths.lines, &written.lines[..synced.0 - 1]).unwrap();
    assert_eq!(desk.restore(), None);
}

#[test]
#[expect(clippy::string_slice, reason = "the test's own text is ASCII")]
fn the_first_entry_of_a_third_lap_torn_at_any_byte_takes_nothing_of_the_two_before() {
    let (desk, mut written) = (Desk::new(), Written::default());
    let mut journal = desk.journal();
    for line in ["a first one\n", "a second one\n", "a third one\n"] {
        written.append(&mut journal, line);
    }
    let synced = (written.lines.len(), written.values.len());
    journal.next_lap();
    for line in ["four\n", "five\n"] {
        written.append(&mut journal, line);
    }
    let (before, acknowledged) = (fs::read(desk.file()).unwrap(), written.lines.len() as u64);
    // Only once the first lap is synced.
    journal.next_lap();
    written
        .append(&mut journal, "six, which is longer than any of the entries of the lap that it takes the place of\n");
    let after = fs::read(desk.file()).unwrap();
    assert!(before != after && before.len() == after.len());
    let differs: Vec<usize> = (0..after.len()).filter(|at| before[*at] != after[*at]).collect();
    for cut in 0..differs.len() {
        for torn in [&differs[cut..], &differs[..cut]] {
            let mut file = after.clone();
            for at in torn {
                file[*at] = before[*at];
            }
            fs::write(desk.file(), &file).unwrap();
            fs::write(&desk.paths.lines, &written.lines[..synced.0]).unwrap();
            fs::write(&desk.paths.values, &written.values[..synced.1]).unwrap();
            let expected = if torn.is_empty() { written.lines.len() as u64 } else { acknowledged };
            assert_eq!(desk.restore(), Some(expected), "torn at {cut}");
            let lines = fs::read_to_string(&desk.paths.lines).unwrap();
            assert_eq!(lines, written.lines[..usize::try_from(expected).unwrap()]);
        }
    }
}
