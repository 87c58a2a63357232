//! Paths and resource patterns: one form, and the laws of narrowing.

use model::{CanonicalPath, Pattern, path::encode_segment};

/// Lines are paths. A canonical path is its own canonical form, has no segment that moves or splits, and what is left
/// below a prefix is a path again.
pub(super) fn path(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let paths: Vec<CanonicalPath> =
        text.split('\n').take(3).filter_map(|line| CanonicalPath::parse(line).ok()).collect();
    for path in &paths {
        let again = CanonicalPath::parse(path.as_str()).expect("a canonical path is a path");
        assert_eq!(again, *path);
        assert!(path.as_str().starts_with('/') && path.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(!path.as_str().contains("//") && !path.as_str().contains(['\\', ';', '#', '?']));
        let (last, before) =
            path.segments().split_last().map_or((None, &[][..]), |(last, before)| (Some(last), before));
        for segment in before.iter().chain(last.filter(|last| !last.is_empty())) {
            let encoded = encode_segment(segment).expect("a segment can be encoded");
            let alone = CanonicalPath::parse(&format!("/{encoded}")).expect("a segment alone is a path");
            assert_eq!(alone.segments(), std::slice::from_ref(segment));
        }
        for prefix in &paths {
            if let Some(rest) = path.strip_prefix(prefix) {
                assert!(path.segments().starts_with(prefix.segments()));
                let again = CanonicalPath::parse(rest.as_str()).expect("what is left is a path");
                assert_eq!(again.as_str(), rest.as_str());
            }
        }
    }
}

/// Lines are a narrow pattern, a wide one, and resources.
pub(super) fn pattern(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.split('\n');
    let (Some(narrow), Some(wide)) = (lines.next(), lines.next()) else { return };
    let (Ok(narrow), Ok(wide)) = (narrow.parse::<Pattern>(), wide.parse::<Pattern>()) else { return };
    for pattern in [&narrow, &wide] {
        assert_eq!(pattern.to_string().parse::<Pattern>().as_ref(), Ok(pattern));
        assert!(pattern.within(pattern) && pattern.within(&Pattern::any()));
    }
    // A pattern without wildcards names itself, which makes a resource out of any other.
    let literal = narrow.to_string().replace("**", "x/y").replace('*', "z");
    for resource in lines.take(4).chain([literal.as_str()]) {
        assert!(!(narrow.within(&wide) && narrow.matches(resource)) || wide.matches(resource), "{resource}");
    }
    assert!(narrow.matches(&literal));
}
