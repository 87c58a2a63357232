//! What there is of a bundle when a sidecar starts: what its server has, or else the last good one.

use std::{path::Path, time::Duration};

use net::HttpClient;
use policy::{
    PolicySource, Source,
    bundle::Origin,
    config::BundleConfig,
    refresh::{Answer, Asker, rising},
};

use super::{
    super::last_good::{LastGood, Note},
    Followed, Given, Known, Taken,
};
use crate::{
    environment::Environment,
    failure::{Exit, Failure},
};

/// How long a server is waited for at the start.
const FIRST: Duration = Duration::from_secs(10);

/// What is here of a bundle from before.
pub(super) struct Last {
    pub(super) taken: Taken,
    pub(super) kept: Option<((Source, Origin), Note)>,
    /// Its archive is none any more.
    pub(super) gone: bool,
}

impl Last {
    pub(super) fn of(
        name: &str,
        url: &str,
        last_good: &LastGood,
        open: impl Fn(&[u8]) -> Result<(Source, Origin), String>,
    ) -> Self {
        let note = last_good.note(name);
        // A serial means the same wherever the bundle lies; what a server calls it does not.
        let mut taken = note.as_ref().map(Note::taken).unwrap_or_default();
        let note = note.filter(|note| note.url == url);
        let opened = note.as_ref().and_then(|_| last_good.archive(name)).map(|archive| open(&archive));
        if let Some(Err(error)) = &opened {
            tracing::warn!(bundle = name, "the last good bundle is none any more: {error}");
        }
        let gone = matches!(opened, Some(Err(_)));
        let kept = opened.and_then(Result::ok).zip(note);
        if let (Some(((_, origin), _)), None) = (&kept, &taken.sha256) {
            taken.sha256.clone_from(&origin.digest);
        }
        Self { taken, kept, gone }
    }

    /// Whether `origin` describes what was taken, as far as anybody knows. Where the archive is none any more, that may
    /// have been signed anew.
    pub(super) fn may_be(&self, origin: &Origin) -> bool {
        self.gone || self.taken.sha256.is_none() || self.taken.is(origin)
    }
}

/// What there is of one bundle at the start.
pub(super) async fn first(
    source: &PolicySource,
    bundle: &BundleConfig,
    last_good: &LastGood,
    environment: &Environment,
    client: &HttpClient,
    given: &mut Given,
) -> Result<Followed, Failure> {
    let (name, section) = (source.name.as_str(), source.kind.section());
    let unusable = |error: String| Failure::new(Exit::Configuration, format!("{section}.{name}: {error}"));
    let keys = source.keys(Path::new("/")).map_err(|error| unusable(error.to_string()))?;
    let open = |archive: &[u8]| {
        source.opened(archive, keys.as_ref(), Path::new(&bundle.url)).map_err(|error| error.to_string())
    };
    let last = Last::of(name, &bundle.url, last_good, open);
    let mut known = Known { taken: last.taken.clone(), ..Known::default() };
    let mut asker = Asker::new(client.clone(), bundle).map_err(|error| unusable(error.to_string()))?;
    let etag = last.kept.as_ref().and_then(|(_, note)| note.etag.clone());
    let now = net::clock::now();
    let answer = ask(&mut asker, etag.as_deref(), environment).await;
    let answered = answer.is_ok();
    let came = match answer {
        Ok(Answer::Same) => Ok(None),
        Ok(Answer::Bundle { archive, etag }) => open(&archive).and_then(|(opened, origin)| {
            let rolled_back = rising(&origin.manifest, last.taken.serial, last.may_be(&origin), bundle.rollback)?;
            Ok(Some((opened, Origin { rolled_back, ..origin }, archive, etag)))
        }),
        Err(error) => Err(error),
    };
    let mut confirmed = now;
    match (came, last.kept) {
        (Ok(Some((opened, origin, archive, etag))), kept) => {
            given.sources.insert(name.to_owned(), (opened, origin));
            given.came.insert(name.to_owned(), (archive, etag));
            if let Some((kept, note)) = kept {
                // Until what came may decide.
                confirmed = note.confirmed;
                given.earlier.insert(name.to_owned(), kept);
            }
        }
        (came, Some((kept, note))) => {
            known.etag = note.etag;
            if let Err(error) = came {
                tracing::warn!(bundle = name, "the last good bundle decides, its server gave none: {error}");
                known.last_error = Some(error);
                confirmed = note.confirmed;
                // What cannot be taken is asked for and looked at again.
                known.etag = known.etag.filter(|_| !answered);
            }
            given.sources.insert(name.to_owned(), kept);
        }
        (came, None) => {
            let why =
                came.err().unwrap_or_else(|| "the server says that nothing changed, and nothing is here".to_owned());
            let line = format!("{section}.{name}: there is no bundle, neither on its server nor from before: {why}");
            return Err(Failure::new(Exit::Unavailable, line));
        }
    }
    Ok(Followed::new(bundle, confirmed, known))
}

async fn ask(asker: &mut Asker, etag: Option<&str>, environment: &Environment) -> Result<Answer, String> {
    let env = |name: &str| environment.value(name).map(str::to_owned);
    match tokio::time::timeout(FIRST, asker.ask_now(etag, &env)).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {} s", FIRST.as_secs())),
    }
}
