//! The revision of a set of policies: everything that the decisions of an [`super::Engine`] depend on.

use aws_lc_rs::digest::{Context, SHA256};

use crate::{Source, bundle::File};

/// The engine that evaluates. A test holds it to the version in the lock file.
pub(super) const ENGINE: &str = "regorus 0.14.1";

/// The digest over `modules` (library and generated ones included), the sources' data and bindings,
/// the engine and what is asked `about`: the input's version, and the catalogue where there is one.
pub(crate) fn of(modules: &[File], sources: &[Source], about: &str) -> String {
    let mut digest = Digest(Context::new(&SHA256));
    digest.part(ENGINE);
    digest.part(about);
    // Where a file lies does not matter to what it decides.
    let mut texts: Vec<&str> = modules.iter().map(|file| file.text.as_str()).collect();
    texts.sort_unstable();
    digest.list(texts.into_iter());
    let mut sources: Vec<&Source> = sources.iter().collect();
    sources.sort_by(|a, b| a.name.cmp(&b.name));
    for source in sources {
        digest.part(&source.name);
        digest.list(source.tools.iter().flatten().map(model::Id::as_str));
        let mut data: Vec<String> = source.data.iter().map(|data| hexadecimal(data.digest())).collect();
        data.sort_unstable();
        digest.list(data.iter().map(String::as_str));
    }
    hexadecimal(digest.0.finish().as_ref())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Digest(Context);

impl Digest {
    /// Each part goes in with its length, so that no two lists of parts read as the same bytes.
    fn part(&mut self, text: &str) {
        self.0.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_be_bytes());
        self.0.update(text.as_bytes());
    }

    fn list<'a>(&mut self, texts: impl Iterator<Item = &'a str>) {
        let texts: Vec<&str> = texts.collect();
        self.part(&texts.len().to_string());
        for text in texts {
            self.part(text);
        }
    }
}
