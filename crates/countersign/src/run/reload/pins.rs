//! What the authority says of bundles that stay at a revision, and how far that is obeyed: told by whoever follows the
//! authority, remembered on disk for a start without it, acted on by the reloader.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use model::{Id, Tenant};
use opentelemetry::{KeyValue, global};
use policy::{bundle::Origin, refresh::back};
use store::Pin;
use tokio::sync::watch;

use super::{
    bundles::{Bundles, Given},
    earlier::Earlier,
    last_good::{LastGood, bounded, put},
};
use crate::{
    admin::status::{PinStatus, WaitingBundle},
    config::{files, sidecar::SidecarConfig},
};

/// The memory of pins, beside what is kept of each source under its own name: no source may be called so.
const MEMORY: &str = "pinned-bundles.json";
/// The largest memory of pins that is read, in bytes: as many as there may be, with long reasons, take a quarter.
const MAX_MEMORY: u64 = 4 * 1024 * 1024;
/// Until what could not be obeyed is tried again.
const AGAIN: Duration = Duration::from_secs(30);

/// Pins, and the bundles that they go back to.
pub(crate) struct Pinning {
    pub(crate) pins: Arc<Pins>,
    pub(super) earlier: Earlier,
    pub(super) last_good: LastGood,
}

impl Pinning {
    /// What was remembered beside the ledger of `config`.
    pub(crate) fn begin(config: &SidecarConfig) -> Arc<Self> {
        let last_good = LastGood::of(config);
        let pins = Pins::remembered(last_good.directory(), config.authority.is_some());
        Arc::new(Self { pins, earlier: Earlier::below(last_good.directory()), last_good })
    }

    /// Puts what pins name in the place of what there is at the start, as far as it is here; what was there decides where
    /// that cannot be loaded. Those that are fetched are asked for anew.
    pub(crate) fn start(&self, config: &SidecarConfig, bundles: &Bundles, given: &mut Given, now: Timestamp) {
        for source in &config.sources() {
            if !source.problems().is_empty() {
                continue;
            }
            let name = &source.name;
            let Some(pin) = self.pins.wanted(name, &config.sidecar.tenants, now) else { continue };
            let before = given.sources.get_mut(name);
            if let Some((_, origin)) = before.filter(|(_, origin)| origin.manifest.revision == pin.revision) {
                origin.pinned = Some(pin.id.to_string());
                self.pins.met(&pin);
                continue;
            }
            let opened = match &source.bundle {
                None if source.path.is_dir() => Err(DIRECTORY.to_owned()),
                _ => self.earlier.open(source, &pin.revision),
            };
            match opened {
                Ok((opened, origin)) => {
                    let serial = bundles.taken(name).serial;
                    let rolled_back = back(&origin.manifest, serial);
                    let origin = Origin { rolled_back, pinned: Some(pin.id.to_string()), ..origin };
                    given.put(name, (opened, origin));
                    bundles.look_anew(name);
                    self.pins.met(&pin);
                }
                // What lies in a file is looked at when everything is loaded.
                Err(_) if source.bundle.is_none() => {}
                Err(why) => {
                    // Nothing newer is taken either.
                    given.stay(name);
                    bundles.look_anew(name);
                    if self.pins.unmet(&pin, &why) {
                        tracing::error!(bundle = name, revision = pin.revision, "a pin is not obeyed: {why}");
                    }
                }
            }
        }
    }
}

/// Why a directory does not go back.
pub(super) const DIRECTORY: &str = "it is a directory, of which no earlier revisions are kept";

/// The pins that were told of.
pub(crate) struct Pins {
    /// What the authority said last; before it said anything, what it had said before the start.
    said: watch::Sender<Arc<[Pin]>>,
    /// Where that is remembered.
    file: PathBuf,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// What lies on disk.
    remembered: Arc<[Pin]>,
    bundles: BTreeMap<String, Held>,
}

/// How far the pin of one bundle is obeyed.
#[derive(Default)]
struct Held {
    pin: Option<Pin>,
    /// Why it is not obeyed, while it is not.
    unmet: Option<String>,
    /// The newest that was taken from its server and does not decide.
    waiting: Option<WaitingBundle>,
    /// The pin that was tried last, and when.
    tried: Option<(Id<Pin>, Instant)>,
    /// The pin that an alert was raised for last.
    alerted: Option<Id<Pin>>,
}

impl Pins {
    /// Those that were remembered in `directory`; none, where no authority is followed.
    pub(super) fn remembered(directory: &Path, followed: bool) -> Arc<Self> {
        let file = directory.join(MEMORY);
        let remembered = if followed { read(&file) } else { Arc::default() };
        let known = Known { remembered: Arc::clone(&remembered), ..Known::default() };
        let pins = Arc::new(Self { said: watch::channel(remembered).0, file, known: Mutex::new(known) });
        if followed {
            gauges(&pins);
        }
        pins
    }

    /// The authority says that these hold, and no others.
    pub(crate) fn hear(&self, pins: Vec<Pin>) {
        self.said.send_if_modified(|said| {
            let news = said[..] != pins[..];
            if news {
                *said = pins.into();
            }
            news
        });
    }

    /// Tells when something else is said.
    pub(super) fn told(&self) -> watch::Receiver<Arc<[Pin]>> {
        self.said.subscribe()
    }

    /// Keeps on disk what was said last, where that is something else.
    pub(super) fn remember(&self) -> io::Result<()> {
        let said = Arc::clone(&self.said.borrow());
        if self.known().remembered == said {
            return Ok(());
        }
        if let Some(directory) = self.file.parent() {
            DirBuilder::new().mode(0o700).recursive(true).create(directory)?;
        }
        put(&self.file, &serde_json::to_vec(&said[..])?)?;
        self.known().remembered = said;
        Ok(())
    }

    /// The pin of `bundle` that holds at `now` in a sidecar that serves `tenants`: what is said of all sidecars comes
    /// before what is said of one tenant's.
    pub(super) fn wanted(&self, bundle: &str, tenants: &BTreeSet<Id<Tenant>>, now: Timestamp) -> Option<Pin> {
        let said = self.said.borrow();
        let meant = |pin: &&Pin| pin.bundle == bundle && pin.holds(now) && pin.is_for(tenants);
        said.iter().filter(meant).min_by_key(|pin| (pin.tenant.is_some(), std::cmp::Reverse(pin.position))).cloned()
    }

    /// `pin` decides.
    pub(super) fn met(&self, pin: &Pin) {
        let mut known = self.known();
        let held = known.bundles.entry(pin.bundle.clone()).or_default();
        (held.pin, held.unmet, held.tried) = (Some(pin.clone()), None, None);
    }

    /// `pin` cannot be obeyed; whether that is new.
    pub(super) fn unmet(&self, pin: &Pin, why: &str) -> bool {
        let mut known = self.known();
        let held = known.bundles.entry(pin.bundle.clone()).or_default();
        let news = held.pin.as_ref() != Some(pin) || held.unmet.as_deref() != Some(why);
        (held.pin, held.unmet) = (Some(pin.clone()), Some(why.to_owned()));
        news
    }

    /// The pins that are not obeyed, with why, and that no alert was raised for.
    pub(super) fn unalerted(&self) -> Vec<(Pin, String)> {
        let known = self.known();
        let unmet = known.bundles.values().filter_map(|held| {
            let (pin, why) = held.pin.as_ref().zip(held.unmet.as_ref())?;
            (held.alerted.as_ref() != Some(&pin.id)).then(|| (pin.clone(), why.clone()))
        });
        unmet.collect()
    }

    /// That an alert was raised for `pin`.
    pub(super) fn alerted(&self, pin: &Pin) {
        if let Some(held) = self.known().bundles.get_mut(&pin.bundle) {
            held.alerted = Some(pin.id.clone());
        }
    }

    /// No pin holds `bundle` any more.
    pub(super) fn over(&self, bundle: &str) {
        self.known().bundles.remove(bundle);
    }

    /// What `origin` describes was taken for `bundle` and waits for the end of its pin.
    pub(super) fn waits(&self, bundle: &str, origin: &Origin) {
        let waiting = WaitingBundle {
            revision: origin.manifest.revision.clone(),
            serial: origin.manifest.serial,
            sha256: origin.digest.clone(),
        };
        self.known().bundles.entry(bundle.to_owned()).or_default().waiting = Some(waiting);
    }

    /// Whether `pin`, or what comes after it, may be tried now: not so soon after it was tried in vain.
    pub(super) fn due(&self, bundle: &str, pin: &Id<Pin>, now: Instant) -> bool {
        let mut known = self.known();
        let held = known.bundles.entry(bundle.to_owned()).or_default();
        let soon = |(tried, at): &(Id<Pin>, Instant)| tried == pin && now.duration_since(*at) < AGAIN;
        let due = !held.tried.as_ref().is_some_and(soon);
        if due {
            held.tried = Some((pin.clone(), now));
        }
        due
    }

    /// Whatever could not be obeyed may be tried at once.
    pub(super) fn try_again(&self) {
        self.known().bundles.values_mut().for_each(|held| held.tried = None);
    }

    /// What an operator is told of `bundle`.
    pub(super) fn state(&self, bundle: &str) -> Option<PinStatus> {
        let known = self.known();
        let held = known.bundles.get(bundle)?;
        let pin = held.pin.clone()?;
        Some(PinStatus {
            id: pin.id.to_string(),
            revision: pin.revision,
            since: pin.at,
            until: pin.until,
            by: pin.by,
            reason: pin.reason,
            unmet: held.unmet.clone(),
            waiting: held.waiting.clone(),
        })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was remembered, where nobody else could write it.
fn read(file: &Path) -> Arc<[Pin]> {
    if !file.exists() {
        return Arc::default();
    }
    // It is no secret: one that others may read holds all the same.
    let ours = file.ancestors().take(2).try_for_each(files::check_not_writable).map_err(|error| error.to_string());
    let bytes = ours.and_then(|()| bounded(file, MAX_MEMORY).map_err(|error| error.to_string()));
    let pins = bytes.and_then(|bytes| serde_json::from_slice::<Vec<Pin>>(&bytes).map_err(|error| error.to_string()));
    match pins {
        Ok(pins) => pins.into(),
        Err(error) => {
            tracing::error!(
                "which bundles stay at a revision is not known until the authority is heard: {}: {error}",
                file.display()
            );
            Arc::default()
        }
    }
}

fn gauges(pins: &Arc<Pins>) {
    let meter = global::meter("countersign");
    for (name, description, unmet) in [
        ("countersign_policy_pinned", "1 while a bundle stays at the revision that a pin names", false),
        (
            "countersign_policy_pin_unmet",
            "1 while a bundle should stay at a revision that this sidecar has not got",
            true,
        ),
    ] {
        // Meters live as long as the process, and a sidecar may end before it.
        let seen: Weak<Pins> = Arc::downgrade(pins);
        let _gauge = meter
            .u64_observable_gauge(name)
            .with_description(description)
            .with_callback(move |observer| {
                let Some(pins) = seen.upgrade() else { return };
                for (bundle, held) in &pins.known().bundles {
                    let holds = held.pin.is_some() && held.unmet.is_some() == unmet;
                    observer.observe(u64::from(holds), &[KeyValue::new("bundle", bundle.clone())]);
                }
            })
            .build();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::{super::last_good::Note, *};
    use crate::{
        config::document::Document,
        run::testing::{Folder, environment},
    };

    fn pin(bundle: &str, revision: &str, tenant: Option<&str>, position: u64) -> Pin {
        Pin {
            id: Id::new(&format!("p{position}")).unwrap(),
            position,
            bundle: bundle.to_owned(),
            revision: revision.to_owned(),
            tenant: tenant.map(|tenant| Id::new(tenant).unwrap()),
            until: None,
            at: Timestamp::UNIX_EPOCH,
            by: "user:dana".to_owned(),
            reason: None,
        }
    }

    fn tenants(names: &[&str]) -> BTreeSet<Id<Tenant>> {
        names.iter().map(|name| Id::new(name).unwrap()).collect()
    }

    fn private() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        folder
    }

    #[test]
    fn what_is_said_of_all_sidecars_comes_first_and_a_tenants_pin_decides_no_other_tenants_calls() {
        let folder = private();
        let pins = Pins::remembered(folder.path(), true);
        let over = Pin { until: Some(Timestamp::UNIX_EPOCH), ..pin("org", "over", None, 9) };
        pins.hear(vec![pin("support", "acmes", Some("acme"), 7), pin("support", "alls", None, 3), over]);
        let wanted = |bundle: &str, served: &[&str]| {
            let pin = pins.wanted(bundle, &tenants(served), Timestamp::UNIX_EPOCH)?;
            Some(pin.revision)
        };
        assert_eq!(wanted("support", &["acme"]).as_deref(), Some("alls"));
        assert_eq!(wanted("org", &["acme"]), None);
        pins.hear(vec![pin("support", "acmes", Some("acme"), 7)]);
        assert_eq!(wanted("support", &["acme"]).as_deref(), Some("acmes"));
        assert_eq!(wanted("support", &["acme", "globex"]), None);
        assert_eq!(wanted("support", &["globex"]), None);
    }

    #[test]
    fn what_was_said_is_known_after_a_restart_where_an_authority_is_followed() {
        let folder = private();
        let directory = folder.path().join("bundles");
        let pins = Pins::remembered(&directory, true);
        pins.remember().unwrap();
        assert!(!directory.exists(), "there is nothing to remember");
        pins.hear(vec![pin("support", "r1", None, 3)]);
        pins.remember().unwrap();
        let again = |followed| {
            Pins::remembered(&directory, followed).wanted("support", &tenants(&["acme"]), Timestamp::UNIX_EPOCH)
        };
        assert_eq!(again(true), Some(pin("support", "r1", None, 3)));
        assert_eq!(again(false), None);
        let mode = |mode| {
            std::fs::set_permissions(directory.join(MEMORY), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(0o644);
        assert!(again(true).is_some(), "nobody else could write it");
        mode(0o622);
        assert_eq!(again(true), None, "somebody else may have written it");
        pins.hear(Vec::new());
        pins.remember().unwrap();
        assert_eq!(again(true), None);
    }

    #[test]
    fn no_bundle_is_kept_where_pins_are_remembered() {
        let folder = Folder::new(|config| config);
        let mut config = Document::<SidecarConfig>::read(&folder.config(), &environment()).unwrap().value;
        config.ledger.dir = folder.path("ledger");
        let last_good = LastGood::of(&config);
        let note = Note {
            url: "https://bundles.example/pins".to_owned(),
            etag: None,
            serial: Some(5),
            sha256: None,
            confirmed: Timestamp::UNIX_EPOCH,
        };
        last_good.keep("pins", b"archive", &note).unwrap();
        let pins = Pins::remembered(last_good.directory(), true);
        pins.hear(vec![pin("pins", "r1", None, 3)]);
        pins.remember().unwrap();
        assert_eq!(last_good.note("pins"), Some(note));
        let (name, _) = MEMORY.split_once('.').unwrap();
        assert!(!policy::bundle::is_source(name), "{name}");
    }

    #[test]
    fn what_could_not_be_obeyed_is_not_tried_all_the_time() {
        let folder = private();
        let pins = Pins::remembered(folder.path(), true);
        let (one, other, now) = (pin("support", "r1", None, 1), pin("support", "r2", None, 2), net::clock::monotonic());
        assert!(pins.due("support", &one.id, now));
        assert!(pins.unmet(&one, "why") && !pins.unmet(&one, "why") && pins.unmet(&one, "other"));
        assert_eq!(pins.unalerted(), [(one.clone(), "other".to_owned())]);
        pins.alerted(&one);
        assert!(!pins.due("support", &one.id, now) && pins.due("support", &other.id, now));
        assert!(!pins.due("support", &other.id, now) && pins.due("support", &other.id, now + AGAIN));
        pins.try_again();
        assert!(pins.due("support", &other.id, now + AGAIN));
        assert_eq!(pins.state("support").unwrap().unmet.as_deref(), Some("other"));
        pins.met(&other);
        assert_eq!(pins.state("support").unwrap().unmet, None);
        pins.met(&one);
        assert!(pins.unmet(&one, "again") && pins.unalerted().is_empty(), "one alert is enough");
        pins.over("support");
        assert!(pins.state("support").is_none());
    }
}
