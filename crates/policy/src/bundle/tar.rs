//! Tar, as far as a bundle needs it: files and directories, by their names within the archive. Everything else that the
//! format can hold (links, devices, sparse files, sizes said twice) is refused, because readers disagree about it.

use std::{collections::BTreeMap, ops::Range};

/// The most entries of an archive, directories and names included.
const MAX_ENTRIES: usize = 4_000;
/// The longest name of a file, in bytes.
const MAX_NAME: usize = 1_024;
const BLOCK: usize = 512;

/// The files in `archive` by name, and where each lies.
pub(super) fn index(archive: &[u8]) -> Result<BTreeMap<String, Range<usize>>, String> {
    let mut files = BTreeMap::new();
    let mut renamed = None;
    let mut at = 0;
    for _ in 0..MAX_ENTRIES {
        let block = archive.get(at..at + BLOCK).ok_or("it breaks off: its end mark is missing")?;
        if is_zero(block) {
            ended(archive.get(at..).unwrap_or_default())?;
            return if renamed.is_none() { Ok(files) } else { Err("a name stands without a file".to_owned()) };
        }
        let header = Header::read(block)?;
        let begin = at + BLOCK;
        let end = begin.checked_add(header.size).ok_or("a size is out of range")?;
        let content = archive.get(begin..end).ok_or_else(|| format!("it breaks off within `{}`", header.name))?;
        at = begin + header.size.next_multiple_of(BLOCK);
        match header.kind {
            Kind::LongName => renamed = Some(text(content)?),
            Kind::Extended => renamed = extended(content)?.or(renamed),
            Kind::Global if extended(content)?.is_some() => return Err("it names all files alike".to_owned()),
            Kind::Global => {}
            Kind::Directory => drop(within(&renamed.take().unwrap_or(header.name))?),
            Kind::File => {
                let name = within(&renamed.take().unwrap_or(header.name))?;
                if name.is_empty() {
                    return Err("a file has no name".to_owned());
                }
                if files.contains_key(&name) {
                    return Err(format!("it holds `{name}` twice"));
                }
                files.insert(name, begin..end);
            }
        }
    }
    Err(format!("it has more than {MAX_ENTRIES} entries"))
}

/// `files` as an archive that depends on nothing else: no owner, no time.
pub(super) fn write<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<Vec<u8>, String> {
    let mut archive = Vec::new();
    for (name, content) in files {
        archive.extend_from_slice(&header(name, content.len())?);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    Ok(archive)
}

/// What an entry is.
enum Kind {
    File,
    Directory,
    /// The name of the next entry, as GNU writes one that is long.
    LongName,
    /// Attributes of the next entry (POSIX.1-2001).
    Extended,
    /// Attributes of all entries.
    Global,
}

struct Header {
    name: String,
    size: usize,
    kind: Kind,
}

impl Header {
    fn read(block: &[u8]) -> Result<Self, String> {
        let field = |range: Range<usize>| block.get(range).unwrap_or_default();
        let mut name = text(field(0..100))?;
        if field(257..265) == b"ustar\x0000" {
            let prefix = text(field(345..500))?;
            if !prefix.is_empty() {
                name = format!("{prefix}/{name}");
            }
        }
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        let own: u64 = field(148..156).iter().map(|byte| u64::from(*byte)).sum();
        // The sum is taken as if its own field were blank.
        if octal(field(148..156)) != Some(sum - own + 8 * u64::from(b' ')) {
            return Err("it is no tar archive, or damaged".to_owned());
        }
        let size = octal(field(124..136)).and_then(|size| usize::try_from(size).ok());
        let size = size.ok_or_else(|| format!("the size of `{name}` cannot be read"))?;
        let kind = match field(156..157) {
            b"0" | b"\0" => Kind::File,
            b"5" => Kind::Directory,
            b"L" => Kind::LongName,
            b"x" => Kind::Extended,
            b"g" => Kind::Global,
            b"1" | b"2" => return Err(format!("`{name}` is a link")),
            _ => return Err(format!("`{name}` is neither a file nor a directory")),
        };
        Ok(Self { name, size, kind })
    }
}

/// The text of a field, up to its end mark.
fn text(field: &[u8]) -> Result<String, String> {
    let length = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let text = field.get(..length).unwrap_or_default();
    if length > MAX_NAME {
        return Err(format!("a name is longer than {MAX_NAME} bytes"));
    }
    String::from_utf8(text.to_vec()).map_err(|_| "a name is not UTF-8".to_owned())
}

/// A number in octal digits, which spaces may stand before, and spaces or end marks after.
fn octal(field: &[u8]) -> Option<u64> {
    let digits = field.trim_ascii_start();
    let length = digits.iter().position(|byte| !(b'0'..=b'7').contains(byte)).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at_checked(length)?;
    if digits.is_empty() || !rest.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, digit| value.checked_mul(8)?.checked_add(u64::from(digit - b'0')))
}

/// The name among extended attributes. One that says what the header says too is refused: which counts is a matter of
/// opinion.
fn extended(mut records: &[u8]) -> Result<Option<String>, String> {
    let broken = || "an extended header cannot be read".to_owned();
    let mut name = None;
    while !records.is_empty() {
        let digits = records.iter().position(|byte| *byte == b' ').ok_or_else(broken)?;
        let (length, _) = records.split_at_checked(digits).ok_or_else(broken)?;
        let length: usize = str::from_utf8(length).ok().and_then(|text| text.parse().ok()).ok_or_else(broken)?;
        let (record, rest) = records.split_at_checked(length).ok_or_else(broken)?;
        let record = record.get(digits + 1..).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(broken)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(broken)?;
        let (key, value) = record.split_at_checked(equals).ok_or_else(broken)?;
        let value = value.get(1..).unwrap_or_default();
        if key == b"path" {
            if value.contains(&0) || name.is_some() {
                return Err(broken());
            }
            name = Some(text(value)?);
        } else if matches!(key, b"size" | b"linkpath" | b"hdrcharset") || key.starts_with(b"GNU.sparse") {
            return Err(format!("an extended header says `{}`", String::from_utf8_lossy(key)));
        }
        records = rest;
    }
    Ok(name)
}

/// `name` as a path within the archive. The one slash that OPA writes in front means its root.
fn within(name: &str) -> Result<String, String> {
    let relative = name.strip_prefix("./").or_else(|| name.strip_prefix('/')).unwrap_or(name);
    let relative = relative.strip_suffix('/').unwrap_or(relative);
    let odd = |part: &str| matches!(part, "" | "." | "..") || part.contains(|c: char| c.is_control() || c == '\\');
    if !matches!(relative, "" | ".") && relative.split('/').any(odd) {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(100).collect();
        return Err(format!("`{shown}` is no path within it"));
    }
    Ok(if relative == "." { String::new() } else { relative.to_owned() })
}

/// Two empty blocks end an archive, and only more of them may follow.
fn ended(rest: &[u8]) -> Result<(), String> {
    if rest.len() < 2 * BLOCK {
        return Err("it breaks off: its end mark is not whole".to_owned());
    }
    if is_zero(rest) { Ok(()) } else { Err("something follows its end mark".to_owned()) }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// A header in the form of POSIX.1-1988.
fn header(name: &str, size: usize) -> Result<[u8; BLOCK], String> {
    let (prefix, short) = if name.len() <= 100 {
        ("", name)
    } else {
        let split = |at: &usize| name.get(at + 1..).is_some_and(|short| !short.is_empty() && short.len() <= 100);
        let at = name.match_indices('/').map(|(at, _)| at).find(split).filter(|at| *at <= 155);
        at.and_then(|at| Some((name.get(..at)?, name.get(at + 1..)?)))
            .ok_or(format!("the path `{name}` is too long"))?
    };
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in block.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    put(0, short.as_bytes());
    put(100, b"0000644\x000000000\x000000000\0");
    put(124, format!("{size:011o}\0{:011o}\0", 0).as_bytes());
    put(148, b"        0");
    put(257, b"ustar\x0000");
    put(345, prefix.as_bytes());
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    for (to, from) in block.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").as_bytes()) {
        *to = *from;
    }
    Ok(block)
}
