//! Erasing a person: whom, at whose word, what it found, and how to ask the process that writes the ledger for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use model::Principal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    LedgerError,
    canonical::{self, Unrecordable},
    files,
    keeper::requests::{self, Answer},
    read::{Lines, Rows},
    record::kind,
    segment::{self, Paths, Seal},
    values::{self, Row},
};

/// The decision of a call that has an end.
const PERMITTED: &str = "permit";

/// Whom a record is about, as far as the one who asks knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    /// The id at the issuer.
    pub user: String,
    /// The issuer; where it is left out, the ledger must know one person of that id only.
    pub issuer: Option<String>,
    /// The tenant, likewise.
    pub tenant: Option<String>,
}

/// An erasure that is asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erasure {
    id: String,
    /// Whom.
    pub person: Person,
    /// Who asks. Recorded as it is.
    pub by: String,
    /// Why: a ticket, a paragraph. Recorded as it is, so it must not name the person.
    pub reason: String,
    salt: String,
}

/// What an erasure did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erased {
    /// Its id, by which its records are found.
    pub erasure: String,
    /// Whom; absent where there was nothing of such a person.
    pub principal: Option<Principal>,
    /// How many records lost values.
    pub records: u64,
    /// How many values.
    pub values: u64,
    /// In which segments.
    pub segments: Vec<u64>,
    /// Records of the person that came in meanwhile and are in the segment that is being written: ask again for these.
    pub still_being_written: u64,
    /// Calls of the person that have not ended. What their ends bring is taken out as they come, by this same erasure.
    #[serde(default)]
    pub open_calls: u64,
    /// Companion rows of other people's records that have the id in them. They are theirs, and stay.
    pub mentions: u64,
}

/// Why nothing, or not everything, was erased.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ErasureError {
    /// Several people go by that id.
    #[error("several people go by that id; say which with its issuer and tenant: {}", list(.0))]
    Ambiguous(Vec<Principal>),
    /// The reason or the one who asks would put on record for ever what is to be forgotten.
    #[error("`{0}` is recorded for good and has the person's id in it; say it without")]
    NamesThePerson(&'static str),
    /// Nothing given for a member that has to be on record.
    #[error("`{0}` is missing: an erasure is on record with who asked for it and why")]
    Missing(&'static str),
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

fn list(principals: &[Principal]) -> String {
    let one = |principal: &Principal| {
        let tenant = principal.tenant.as_ref().map_or("none", |tenant| tenant.as_str());
        format!("{} (issuer {}, tenant {tenant})", principal.id, principal.issuer)
    };
    principals.iter().map(one).collect::<Vec<_>>().join("; ")
}

impl Erasure {
    /// A new one.
    ///
    /// # Errors
    /// When who asks or why is missing or names the person, or when there is no randomness.
    pub fn new(person: Person, by: &str, reason: &str) -> Result<Self, ErasureError> {
        let mut salt = [0; 16];
        rand::fill(&mut salt).map_err(|_| LedgerError::from(Unrecordable::Salt))?;
        let erasure = Self {
            id: uuid::Uuid::now_v7().to_string(),
            person,
            by: by.to_owned(),
            reason: reason.to_owned(),
            salt: URL_SAFE_NO_PAD.encode(salt),
        };
        erasure.check()?;
        Ok(erasure)
    }

    /// What is recorded must be there, and must not name whom it is about.
    pub(crate) fn check(&self) -> Result<(), ErasureError> {
        // First: every text has the empty one in it.
        if self.person.user.is_empty() {
            return Err(ErasureError::Missing("user"));
        }
        for (name, text) in [("by", &self.by), ("reason", &self.reason)] {
            if text.trim().is_empty() {
                return Err(ErasureError::Missing(name));
            }
            if text.contains(&self.person.user) {
                return Err(ErasureError::NamesThePerson(name));
            }
        }
        Ok(())
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The salt of the commitment by which the record names the person: whoever has it can show whom it was about.
    pub fn salt(&self) -> &str {
        &self.salt
    }

    /// What the record says of whom it is about.
    pub(crate) fn subject(&self, principal: Option<&Principal>) -> Result<String, LedgerError> {
        let salt = URL_SAFE_NO_PAD.decode(&self.salt).map_err(|_| LedgerError::from(Unrecordable::Salt))?;
        let text = match principal {
            Some(principal) => canonical::text(principal)?,
            // Nothing that is there names them: whom was asked for is all that there is to say.
            None => canonical::text(&self.person)?,
        };
        Ok(values::commitment(&salt, &text))
    }
}

impl Person {
    fn is(&self, principal: &Principal) -> bool {
        principal.id.as_str() == self.user
            && self.issuer.as_ref().is_none_or(|issuer| *issuer == principal.issuer)
            && self
                .tenant
                .as_deref()
                .is_none_or(|tenant| principal.tenant.as_ref().is_some_and(|is| is.as_str() == tenant))
    }
}

/// What a ledger has of a person.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The people that were meant: one, or the question was not precise.
    pub principals: BTreeSet<Principal>,
    /// By segment, the records of theirs that still have companion values.
    pub(crate) rows: BTreeMap<u64, BTreeSet<u64>>,
    /// Which of these segments are not sealed.
    pub(crate) unsealed: BTreeSet<u64>,
    /// The last segment that is sealed.
    pub(crate) sealed: u64,
    /// Calls of theirs that were decided in sealed segments and have not ended.
    pub(crate) open: BTreeSet<String>,
    /// Companion rows of other people's records that have the id in them.
    pub mentions: u64,
    /// How many of the rows are of ends of calls whose beginnings were retired: nobody can say whose they are, so they
    /// go with whoever is erased.
    pub unclaimed: u64,
}

impl Found {
    /// How many records of theirs have companion values, in sealed segments and in those that are being written.
    pub fn records(&self) -> (u64, u64) {
        let count = |sealed: bool| {
            let segments = self.rows.iter().filter(|(segment, _)| self.unsealed.contains(segment) != sealed);
            segments.map(|(_, rows)| rows.len() as u64).sum()
        };
        (count(true), count(false))
    }

    /// The one who is meant, where there is anything of them.
    ///
    /// # Errors
    /// Where there are several.
    pub fn principal(&self) -> Result<Option<&Principal>, ErasureError> {
        match self.principals.len() {
            0 | 1 => Ok(self.principals.first()),
            _ => Err(ErasureError::Ambiguous(self.principals.iter().cloned().collect())),
        }
    }
}

/// Looks for what the ledger in `dir` has of `person`, and changes nothing.
///
/// # Errors
/// When the ledger cannot be read.
pub fn look(dir: &Path, person: &Person) -> Result<Found, LedgerError> {
    look_until(dir, person, &AtomicBool::new(false))
}

/// The same, given up once `stopping` is set.
pub(crate) fn look_until(dir: &Path, person: &Person, stopping: &AtomicBool) -> Result<Found, LedgerError> {
    let mut found = Found::default();
    let indexes = segment::list(dir).map_err(LedgerError::io(dir))?;
    let mut calls = Calls { unclaimed: open_before(dir, indexes.first().copied())?, ..Calls::default() };
    for index in indexes {
        let paths = Paths::new(dir, index);
        if paths.seal.exists() {
            found.sealed = index;
        } else {
            found.unsealed.insert(index);
        }
        let mut lines = Lines::open(&paths.lines).map_err(LedgerError::io(&paths.lines))?;
        let mut rows = Rows::open(&paths.values).map_err(LedgerError::io(&paths.values))?;
        while let Some(line) = lines.next().map_err(LedgerError::io(&paths.lines))? {
            if stopping.load(Ordering::Acquire) {
                return Err(LedgerError::Closed);
            }
            let record: Value =
                serde_json::from_slice(&line).map_err(|error| LedgerError::damaged(&paths.lines, error.to_string()))?;
            let seq = record.get("seq").and_then(Value::as_u64).unwrap_or_default();
            let row = rows.of(seq).map_err(LedgerError::io(&paths.values))?;
            found.note(index, &record, row, person, &mut calls);
        }
    }
    found.open =
        calls.theirs.into_iter().filter(|(_, index)| !found.unsealed.contains(index)).map(|(id, _)| id).collect();
    Ok(found)
}

/// Calls whose ends have not come by.
#[derive(Default)]
struct Calls {
    /// The person's, with the segments they began in.
    theirs: BTreeMap<String, u64>,
    /// Those that began in segments that were retired.
    unclaimed: BTreeSet<String>,
}

/// The calls that were open when the last segment before `first` was sealed, which was retired.
fn open_before(dir: &Path, first: Option<u64>) -> Result<BTreeSet<String>, LedgerError> {
    let Some(before) = first.and_then(|first| first.checked_sub(1)).filter(|before| *before > 0) else {
        return Ok(BTreeSet::new());
    };
    let path = Paths::new(dir, before).seal;
    let seal = Seal::read(&path).map_err(LedgerError::io(&path))?;
    Ok(seal.map(|seal| seal.open).unwrap_or_default())
}

impl Found {
    /// Takes note of one record.
    fn note(&mut self, segment: u64, record: &Value, row: Option<Row>, person: &Person, calls: &mut Calls) {
        let text = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or_default();
        let (kind, decision) = (text("kind"), text("decision_id"));
        let ends = kind == kind::CALL_SETTLED;
        let ends_theirs = ends && calls.theirs.remove(decision).is_some();
        let ends_unclaimed = ends && calls.unclaimed.remove(decision);
        let Some(row) = row else { return };
        let about = user_of(&row);
        if about.is_none() && ends_unclaimed {
            self.unclaimed += 1;
            self.rows.entry(segment).or_default().insert(row.seq);
            return;
        }
        // A name that nobody verified is of no issuer: whoever says that it is theirs is believed.
        let said = ends_theirs || asserted_user(&row) == Some(person.user.as_str());
        if !about.as_ref().map_or(said, |principal| person.is(principal)) {
            self.mentions += u64::from(row.values.values().any(|salted| mentions(&salted.value, &person.user)));
            return;
        }
        self.principals.extend(about);
        if kind == kind::CALL_DECIDED && text("decision") == PERMITTED {
            calls.theirs.insert(decision.to_owned(), segment);
        }
        self.rows.entry(segment).or_default().insert(row.seq);
    }
}

/// The user that a record is about.
fn user_of(row: &Row) -> Option<Principal> {
    let principal = |value: &Value| serde_json::from_value(value.clone()).ok();
    let first_of_chain = || principal(row.values.get("/chain")?.value.get(0)?.get("principal")?);
    row.values.get("/user").and_then(|salted| principal(&salted.value)).or_else(first_of_chain)
}

/// The user that was said of a call that was passed through.
fn asserted_user(row: &Row) -> Option<&str> {
    row.values.get("/asserted")?.value.get("user")?.as_str()
}

fn mentions(value: &Value, id: &str) -> bool {
    match value {
        Value::String(text) => text == id,
        Value::Array(items) => items.iter().any(|item| mentions(item, id)),
        Value::Object(members) => members.values().any(|member| mentions(member, id)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A request that lies in the directory of a ledger that another process writes. Its keeper answers.
#[derive(Debug)]
pub struct Asked {
    request: PathBuf,
    answer: PathBuf,
}

/// Asks the process that writes the ledger in `dir`.
///
/// # Errors
/// When the request cannot be written there.
pub fn ask(dir: &Path, erasure: &Erasure) -> Result<Asked, LedgerError> {
    let (request, answer) = requests::paths(dir, &erasure.id);
    let requests = dir.join(requests::DIRECTORY);
    files::create_directory(&requests)?;
    let text = serde_json::to_vec(erasure).map_err(|error| LedgerError::Unrecordable(error.to_string()))?;
    files::replace_whole(&request, &text).map_err(LedgerError::io(&request))?;
    Ok(Asked { request, answer })
}

impl Asked {
    /// The answer; `None` until there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn answer(&self) -> Result<Option<Result<Erased, String>>, LedgerError> {
        let bytes = match fs::read(&self.answer) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LedgerError::io(&self.answer)(error)),
        };
        fs::remove_file(&self.answer).map_err(LedgerError::io(&self.answer))?;
        match serde_json::from_slice(&bytes) {
            Ok(Answer::Erased(erased)) => Ok(Some(Ok(erased))),
            Ok(Answer::Refused(why)) => Ok(Some(Err(why))),
            Err(error) => Err(LedgerError::damaged(&self.answer, error.to_string())),
        }
    }

    /// Takes the request back; false where it was taken up already.
    ///
    /// # Errors
    /// When it can neither be removed nor is gone.
    pub fn withdraw(&self) -> Result<bool, LedgerError> {
        match fs::remove_file(&self.request) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(LedgerError::io(&self.request)(error)),
        }
    }
}
