//! Archives that somebody made to do harm, or that broke on the way.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};

use super::*;

/// Any tar, gzipped.
fn gzipped(tar: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(tar).unwrap();
    encoder.finish().unwrap()
}

/// An entry of `kind` with any name and content.
fn entry(kind: u8, name: &[u8], content: &[u8]) -> Vec<u8> {
    let mut archive = tar::write([("x", content)].into_iter()).unwrap();
    archive.truncate(archive.len() - 1024);
    archive[0] = 0;
    archive[..name.len()].copy_from_slice(name);
    archive[156] = kind;
    summed(archive)
}

/// With the sum of its header as it has to be.
fn summed(mut archive: Vec<u8>) -> Vec<u8> {
    archive[148..156].copy_from_slice(b"        ");
    let sum: u32 = archive[..512].iter().map(|byte| u32::from(*byte)).sum();
    archive[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    archive
}

fn ended(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut archive = entries.concat();
    archive.extend([0; 1024]);
    gzipped(&archive)
}

fn policy() -> Vec<u8> {
    entry(b'0', b"a.rego", POLICY.1.as_bytes())
}

fn extended(records: &[&str]) -> Vec<u8> {
    let record = |text: &&str| {
        let length = text.len() + 2;
        let length = length + (length + 2).to_string().len();
        format!("{length} {text}\n")
    };
    entry(b'x', b"PaxHeader", records.iter().map(record).collect::<String>().as_bytes())
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    assert!(opened(&ended(&[policy()])).is_ok());
    for name in [
        "../a.rego",
        "/../a.rego",
        "a/../../b.rego",
        "//a.rego",
        "a//b.rego",
        "a/./b.rego",
        "././a.rego",
        "a\\b.rego",
        "a\nb.rego",
        "",
        "/",
        ".",
        "./",
        "..",
        "a/..",
    ] {
        let error = opened(&ended(&[policy(), entry(b'0', name.as_bytes(), b"package countersign.org")])).unwrap_err();
        assert!(error.contains("no path within it") || error.contains("has no name"), "{name:?}: {error}");
        let named =
            [policy(), extended(&[&format!("path={name}")]), entry(b'0', b"b.rego", b"package countersign.org")];
        assert!(opened(&ended(&named)).is_err(), "{name:?} in an extended header");
    }
    let latin = entry(b'0', b"\xff.rego", b"package countersign.org");
    assert!(opened(&ended(&[latin])).unwrap_err().contains("UTF-8"));
}

#[test]
fn the_same_file_is_there_once() {
    for (one, other) in [("a.rego", "a.rego"), ("a.rego", "/a.rego"), ("./a.rego", "a.rego")] {
        let entries = [one, other].map(|name| entry(b'0', name.as_bytes(), POLICY.1.as_bytes()));
        let error = opened(&ended(&entries)).unwrap_err();
        assert!(error.contains("twice"), "{one} {other}: {error}");
    }
}

#[test]
fn an_archive_holds_files_and_nothing_that_leads_to_one() {
    for kind in [b'1', b'2', b'3', b'4', b'6', b'7', b'K', b'S', b'M', b'V', b'A', 0xff] {
        let error = opened(&ended(&[policy(), entry(kind, b"b.rego", b"")])).unwrap_err();
        assert!(error.contains("link") || error.contains("neither"), "{kind}: {error}");
    }
    for record in ["size=4", "linkpath=/etc/passwd", "GNU.sparse.major=1", "hdrcharset=BINARY", "path=a\0b"] {
        assert!(opened(&ended(&[extended(&[record]), policy()])).is_err(), "{record}");
    }
    for broken in ["5 path", "99 path=a\n", "x path=a\n", "0 \n", "-1 path=a\n", "8 patha\n", "9 path=a"] {
        assert!(opened(&ended(&[entry(b'x', b"x", broken.as_bytes()), policy()])).is_err(), "{broken:?}");
    }
    assert!(opened(&ended(&[entry(b'g', b"x", b"10 path=a\n"), policy()])).is_err());
}

#[test]
fn what_common_tools_write_is_read() {
    let directory = entry(b'5', b"deep/", b"");
    let dot = entry(b'5', b"./", b"");
    let dated = extended(&["mtime=1.5", "path=deep/renamed.rego"]);
    let long = format!("{}/b.rego\0", "d".repeat(120));
    let gnu = entry(b'L', b"././@LongLink", long.as_bytes());
    let source = opened(&ended(&[
        entry(b'g', b"pax_global_header", b"19 comment=0123456\n"),
        dot,
        directory,
        policy(),
        dated,
        entry(b'0', b"cut", b"package countersign.org.renamed"),
        gnu,
        entry(b'0', b"cut", b"package countersign.org.long"),
    ]))
    .unwrap();
    let paths: Vec<&str> = source.policies.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths[0], "b.tar.gz/a.rego");
    assert!(paths[1].ends_with("/b.rego") && paths[2] == "b.tar.gz/deep/renamed.rego", "{paths:?}");
    // And what is written here, with a name that takes both fields.
    let name = format!("{}/{}.rego", "d".repeat(90), "f".repeat(90));
    let source = opened(&archive_of(&[(&name, POLICY.1)])).unwrap();
    assert_eq!(source.policies[0].path, format!("b.tar.gz/{name}"));
    let name = "d".repeat(300);
    assert!(archive::write([(name.as_str(), [].as_slice())].into_iter()).is_err());
}

#[test]
fn what_broke_off_or_goes_on_is_refused() {
    let good = ended(&[policy()]);
    for length in 0..good.len() {
        assert!(opened(&good[..length]).is_err(), "{length} of {} bytes", good.len());
    }
    for follows in [good.as_slice(), b"x"] {
        let more = [good.as_slice(), follows].concat();
        assert!(opened(&more).unwrap_err().contains("follows"));
    }
    let whole = [policy(), vec![0; 1024]].concat();
    for length in [0, 1, 511, 512, 600, whole.len() - 1024, whole.len() - 512, whole.len() - 1] {
        assert!(opened(&gzipped(&whole[..length])).is_err(), "a tar of {length} bytes");
    }
    let after = [whole.clone(), policy()].concat();
    assert!(opened(&gzipped(&after)).unwrap_err().contains("follows its end mark"));
    assert!(opened(&gzipped(&[whole, vec![0; 9 * 1024]].concat())).is_ok(), "tools fill up with empty blocks");
    for at in 0..512 {
        let mut damaged = [policy(), vec![0; 1024]].concat();
        damaged[at] ^= 0x40;
        assert!(opened(&gzipped(&damaged)).is_err(), "byte {at} of the header");
    }
    assert!(opened(b"no gzip at all").is_err());
    assert!(opened(&gzipped(b"no tar at all")).is_err());
}

#[test]
fn what_unpacks_to_more_than_it_may_is_refused_before_it_fills_memory() {
    // Enough that does not shrink, so that its ratio alone would let it come to more than may be.
    let mut state = 1_u32;
    let noise = (0..MAX_UNPACKED_BYTES / MAX_RATIO + 4096).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    });
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&noise.collect::<Vec<u8>>()).unwrap();
    let zeros = vec![0; 1024 * 1024];
    for _ in 0..MAX_UNPACKED_BYTES / zeros.len() {
        encoder.write_all(&zeros).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    let error = opened(&bomb).unwrap_err();
    assert!(error.contains(&format!("more than {MAX_UNPACKED_BYTES} bytes")), "{error}");
    // A smaller one is known by its ratio.
    let error = opened(&gzipped(&vec![0; 8 * 1024 * 1024])).unwrap_err();
    assert!(error.contains("unpacks to more than"), "{error}");
    assert!(opened(&vec![0; MAX_ARCHIVE_BYTES + 1]).unwrap_err().contains("larger than"));
    // And one that claims a size without having it.
    let mut claims = policy();
    claims[124..136].copy_from_slice(b"77777777777\0");
    assert!(opened(&ended(&[summed(claims.clone())])).unwrap_err().contains("breaks off"));
    claims[124..136].copy_from_slice(&[0xff; 12]);
    assert!(opened(&ended(&[summed(claims)])).unwrap_err().contains("size"));
}

#[test]
fn too_many_files_or_too_large_ones_are_refused() {
    let many = |count: usize| {
        let entries: Vec<Vec<u8>> =
            (0..count).map(|n| entry(b'0', format!("{n}.rego").as_bytes(), POLICY.1.as_bytes())).collect();
        opened(&ended(&entries))
    };
    assert!(many(MAX_FILES).is_ok());
    assert!(many(MAX_FILES + 1).unwrap_err().contains("more than"));
    assert!(many(4_001).unwrap_err().contains("entries"));
    let long = format!("{}\n{}", POLICY.1, "# 0123456789\n".repeat(50_000));
    assert!(opened(&archive_of(&[("a.rego", &long)])).unwrap_err().contains("larger than"));
    let deep = format!("{}a.rego", "d/".repeat(MAX_DIRECTORY_DEPTH + 1));
    assert!(opened(&archive_of(&[(&deep, POLICY.1)])).is_err());
    let latin = entry(b'0', b"b.rego", b"package countersign.org # \xff");
    assert!(opened(&ended(&[policy(), latin])).unwrap_err().contains("b.rego"));
    assert!(opened(&archive_of(&[POLICY, ("patch.json", "{}")])).unwrap_err().contains("patch.json"));
    assert!(opened(&archive_of(&[("data.json", "{}")])).unwrap_err().contains("no Rego policy"));
}
