//! Follows an authority: asks, checks that the answer continues what is known, hands it on, and asks again; through
//! outages, restarts and restores, without ever forgetting.
//!
//! It remembers a position and nothing else. Whoever listens keeps what was withdrawn and how fresh that is.

use std::{
    collections::hash_map::RandomState,
    fmt,
    future::Future,
    hash::{BuildHasher as _, Hasher as _},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use jiff::Timestamp;
use model::Withdrawal;
use net::{FetchError, FetchRequest, HttpClient, fetch};

use super::{Answer, GoodKeys, MAX_WAIT, Question};
use crate::pins::Pin;

/// The largest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// The shortest pause after a question that failed, and after an answer that came early with nothing in it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How a question is authorised: a header value, made anew for each.
pub type Authorise = Box<dyn Fn(Timestamp) -> Result<HeaderValue, String> + Send + Sync>;

/// Whom to follow, and how closely.
pub struct FollowerSettings {
    /// What asks. Its connections are the follower's own.
    pub client: HttpClient,
    /// The whole URL of `/v1/changes`, without a query.
    pub url: Uri,
    /// Who asks.
    pub authorise: Authorise,
    /// How long the authority may wait with an answer that says nothing new.
    pub wait: Duration,
    /// How much longer than that an answer may take.
    pub patience: Duration,
}

/// What a question brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// When it was asked, on the clock that counts suspend ([`net::clock::boottime`]).
    pub asked_at: Duration,
    /// The generation of the authority's database.
    pub generation: String,
    /// When that began.
    pub began: Timestamp,
    /// The position up to which everything is known now.
    pub position: u64,
    /// What was withdrawn, in order.
    pub withdrawals: Vec<Withdrawal>,
    /// The moment as of which everything is known, if this answer or one before it reached the head that was
    /// committed then.
    pub fresh_as_of: Option<Duration>,
    /// The keys that the authority's own tokens may be signed with; nothing, where it did not say.
    pub keys: Option<GoodKeys>,
    /// Every bundle that stays at a revision; nothing, where it did not say.
    pub pins: Option<Vec<Pin>>,
}

/// Why a question brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotHeard {
    /// There was no whole answer.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The authority does not answer us.
    #[error("the authority answered {0}")]
    Status(StatusCode),
    /// Not what an authority says.
    #[error("the answer is none: {0}")]
    Malformed(String),
    /// The authority knows less than it did: it was restored without a new generation, or reads an old copy.
    #[error("the authority is at position {head}, and was at {position} before; what it says is not taken")]
    Backwards {
        /// What it says.
        head: u64,
        /// What it said before.
        position: u64,
    },
    /// The question cannot be signed.
    #[error("the question cannot be authorised: {0}")]
    Unauthorised(String),
    /// Whoever listens cannot take it.
    #[error("what was heard cannot be kept: {0}")]
    NotKept(String),
}

/// How far one generation is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    generation: Option<String>,
    position: u64,
    /// The first question whose head is not reached yet: when it was asked, and that head.
    behind: Option<(Duration, u64)>,
    /// Whether the authority went back since: once it is as far again, what it has at these positions may be something
    /// else, so all of it is asked for anew.
    went_back: bool,
}

/// Follows one authority.
pub struct Follower {
    settings: FollowerSettings,
    client: HttpClient,
    cursor: Cursor,
}

impl Cursor {
    /// The position to ask from.
    pub const fn position(&self) -> u64 {
        if self.went_back { 0 } else { self.position }
    }

    /// Takes an answer to what was asked at `asked_at`, or says why it does not continue what is known. An answer of
    /// another generation that skips its beginning is taken for nothing: it is asked for anew from there.
    ///
    /// # Errors
    /// When it goes backwards, or contradicts itself. Nothing is taken then.
    pub fn take(&mut self, answer: Answer, asked_at: Duration) -> Result<Heard, NotHeard> {
        let Answer { generation, began, head, changes, more, keys, pins } = answer;
        let same = self.generation.as_ref() == Some(&generation);
        if !same && self.position > 0 {
            // What was asked for is a position of another generation, so the answer may lack the beginning.
            *self = Self { generation: Some(generation.clone()), ..Self::default() };
            return Ok(Heard {
                asked_at,
                generation,
                began,
                position: 0,
                withdrawals: vec![],
                fresh_as_of: None,
                keys,
                pins,
            });
        }
        if head < self.position {
            self.went_back = true;
            return Err(NotHeard::Backwards { head, position: self.position });
        }
        let malformed = |what: &str| Err(NotHeard::Malformed(what.to_owned()));
        if generation.is_empty() || (more && changes.is_empty()) {
            return malformed("no generation, or more to come and nothing now");
        }
        let mut last = self.position();
        let mut withdrawals = Vec::with_capacity(changes.len());
        for listed in changes {
            if listed.position <= last || listed.position > head || listed.position != listed.withdrawal.position {
                return malformed("its positions do not rise from what was asked to the head");
            }
            last = listed.position;
            withdrawals.push(listed.withdrawal);
        }
        let position = if more { last } else { head };
        let behind = self.behind.take().filter(|_| same).unwrap_or((asked_at, head));
        // While more comes than fits an answer, the first question counts that everything is known for.
        let fresh_as_of = match more {
            false => Some(asked_at),
            true => (position >= behind.1).then_some(behind.0),
        };
        self.behind = fresh_as_of.is_none().then_some(behind);
        self.generation = Some(generation.clone());
        self.position = position;
        self.went_back = false;
        Ok(Heard { asked_at, generation, began, position, withdrawals, fresh_as_of, keys, pins })
    }
}

impl Follower {
    /// Knows nothing yet.
    pub fn new(settings: FollowerSettings) -> Self {
        let client = settings.client.apart(None);
        Self { settings, client, cursor: Cursor::default() }
    }

    /// Asks and tells `listen` what came of it, until `stop` ends. What `listen` cannot take is asked for again.
    pub async fn follow<L>(mut self, stop: impl Future<Output = ()>, mut listen: L)
    where
        L: FnMut(Result<Heard, &NotHeard>) -> Result<(), String>,
    {
        let mut stop = std::pin::pin!(stop);
        let mut pause = FIRST_PAUSE;
        loop {
            let begun = net::clock::monotonic();
            let outcome = tokio::select! {
                () = &mut stop => return,
                outcome = self.ask() => outcome,
            };
            let before = self.cursor.clone();
            let outcome = outcome.and_then(|(answer, asked_at)| self.cursor.take(answer, asked_at)).and_then(|heard| {
                let news = !heard.withdrawals.is_empty() || heard.fresh_as_of.is_none();
                listen(Ok(heard)).map(|()| news).map_err(|why| {
                    self.cursor = before;
                    NotHeard::NotKept(why)
                })
            });
            let rest = match outcome {
                Ok(news) => {
                    pause = FIRST_PAUSE;
                    // An authority, or whatever stands before it, that does not wait is not asked without pause.
                    let early = net::clock::monotonic().duration_since(begun) < self.settings.wait / 2;
                    if news || !early { Duration::ZERO } else { FIRST_PAUSE.min(self.settings.wait) }
                }
                Err(error) => {
                    if let Err(why) = listen(Err(&error)) {
                        tracing::debug!(why, "a failure to hear the authority could not be noted");
                    }
                    // A connection that died without a word would be used again, and wait again.
                    self.client = self.settings.client.apart(None);
                    let rest = jittered(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    rest
                }
            };
            if !rest.is_zero() {
                tokio::select! {
                    () = &mut stop => return,
                    () = tokio::time::sleep(rest) => {}
                }
            }
        }
    }

    async fn ask(&self) -> Result<(Answer, Duration), NotHeard> {
        let FollowerSettings { url, authorise, wait, patience, .. } = &self.settings;
        let question = Question { after: self.cursor.position(), wait: (*wait).min(MAX_WAIT) };
        let text = format!("{url}?{}", question.query());
        let url: Uri = text.parse().map_err(|_| NotHeard::Malformed(format!("{text} is no URL")))?;
        let authorisation = authorise(net::clock::now()).map_err(NotHeard::Unauthorised)?;
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, authorisation);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let deadline = question.wait + *patience;
        // Before the question leaves: what is committed after this may be missing in the answer.
        let asked_at = net::clock::boottime();
        let request = FetchRequest { url, headers, deadline, max_bytes: MAX_ANSWER_BYTES };
        let fetched = fetch(&self.client, request).await?;
        if fetched.status != StatusCode::OK {
            return Err(NotHeard::Status(fetched.status));
        }
        let answer = serde_json::from_slice(&fetched.body).map_err(|error| NotHeard::Malformed(error.to_string()))?;
        Ok((answer, asked_at))
    }
}

/// From half of `pause` to the whole of it, so that many sidecars do not come back at one moment.
fn jittered(pause: Duration) -> Duration {
    // Keyed anew by the system's randomness each time.
    let random = RandomState::new().build_hasher().finish();
    let part = u32::try_from(random % 1024).unwrap_or_default();
    pause / 2 + pause / 2 * part / 1024
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("url", &self.settings.url)
            .field("cursor", &self.cursor)
            .finish_non_exhaustive()
    }
}
