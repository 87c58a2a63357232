//! Pins, acted on: a bundle goes back to the revision that is named, and on to the newest when that is over. What cannot
//! be done leaves what decides as it is, and is said.

use std::{fs, io::Read, path::Path, sync::Arc};

use audit::{Event, record::PinUnmet};
use policy::{PolicySource, Source, bundle::MAX_ARCHIVE_BYTES, bundle::Origin, refresh::back};
use store::Pin;

use super::{Reloader, arrival::Trying, pins::DIRECTORY};

/// What a pin asks for.
enum Step {
    /// What decides is it already.
    Same(Box<(Source, Origin)>),
    /// This one is.
    Other(Box<(Source, Origin)>),
    /// What lies on disk is.
    Disk,
}

impl Reloader {
    /// Does what pins say, where that is not done.
    pub(super) async fn obey(&mut self) {
        let (pins, now) = (Arc::clone(&self.parts.pinning.pins), net::clock::now());
        let remembering = Arc::clone(&pins);
        let remembering = self.parts.tasks.spawn_blocking("policy pins", move || remembering.remember());
        if let Ok(Err(error)) = remembering.join().await {
            tracing::warn!(%error, "pins are not kept for a start without the authority");
        }
        let tenants = self.parts.config.sidecar.tenants.clone();
        let decide = self.parts.sources.iter().map(|(source, origin)| (source.name.clone(), origin.pinned.clone()));
        let decide: Vec<(String, Option<String>)> = decide.collect();
        for (name, held) in decide {
            match (pins.wanted(&name, &tenants, now), held) {
                (None, None) => pins.over(&name),
                (None, Some(id)) => self.go_on(&name, &id).await,
                (Some(pin), Some(id)) if id == pin.id.as_str() => pins.met(&pin),
                (Some(pin), _) => self.go_back(&pin).await,
            }
        }
        self.alert().await;
    }

    /// Raises an alert for each pin that is not obeyed, once.
    async fn alert(&self) {
        let pins = &self.parts.pinning.pins;
        for (pin, why) in pins.unalerted() {
            let (bundle, revision, id) = (pin.bundle.clone(), pin.revision.clone(), pin.id.to_string());
            let unmet = Box::new(PinUnmet { bundle, revision, pin: id, why });
            // Whoever wants to be told is, whether it can be recorded or not: again would be once too often.
            pins.alerted(&pin);
            if let Err(error) = self.parts.ledger.event(Event::PinUnmet(unmet)).await {
                tracing::warn!(bundle = pin.bundle, %error, "that a pin is not obeyed is not on record");
            }
        }
    }

    /// Keeps what decides where a pin finds it later.
    pub(super) async fn keep_earlier(&self) {
        let (now, all) = (net::clock::now(), self.parts.config.sources());
        for (source, origin) in &self.parts.sources {
            let Some(configured) = all.iter().find(|one| one.name == source.name) else { continue };
            let (pinning, origin, configured) = (Arc::clone(&self.parts.pinning), origin.clone(), configured.clone());
            let wanted = pinning.pins.wanted(&source.name, &self.parts.config.sidecar.tenants, now);
            let keeping = self.parts.desk.run("policy bundle", move || {
                let name = configured.name.as_str();
                if origin.digest.is_none() || configured.path.is_dir() || pinning.earlier.has(name, &origin) {
                    return Ok(());
                }
                let archive = match configured.bundle {
                    Some(_) => pinning.last_good.archive(name).unwrap_or_default(),
                    None => file(&configured.path)?,
                };
                // It may be another one by now.
                if policy::bundle::digest(&archive) != origin.digest.as_deref().unwrap_or_default() {
                    return Ok(());
                }
                let spare = wanted.as_ref().map(|pin| pin.revision.as_str());
                pinning.earlier.keep(name, &archive, &origin, spare, now)
            });
            if let Ok(Err(error)) = keeping.join().await {
                tracing::warn!(bundle = source.name, %error, "not kept for a pin to go back to");
            }
        }
    }

    /// Goes to the revision that `pin` names, where it is here.
    async fn go_back(&mut self, pin: &Pin) {
        let pins = Arc::clone(&self.parts.pinning.pins);
        if !pins.due(&pin.bundle, &pin.id, net::clock::monotonic()) {
            return;
        }
        let outcome = match self.pinned(pin).await {
            Ok(step) => self.step(&pin.bundle, step, Some(pin)).await,
            Err(why) => Err(why),
        };
        match outcome {
            Ok(()) => {
                tracing::info!(bundle = pin.bundle, revision = pin.revision, pin = %pin.id, by = pin.by, "pinned");
                pins.met(pin);
                // What its server has was refused if it came before.
                self.parts.bundles.ask_again();
            }
            Err(why) => self.disobeyed(pin, &why),
        }
    }

    /// Says that `pin` is not obeyed, where that is new.
    fn disobeyed(&self, pin: &Pin, why: &str) {
        if !self.parts.pinning.pins.unmet(pin, why) {
            return;
        }
        tracing::error!(
            bundle = pin.bundle,
            revision = pin.revision,
            pin = %pin.id,
            "a pin is not obeyed, what decided before does: {why}"
        );
        // Its server may have that revision, whatever was refused of it.
        self.parts.bundles.ask_again();
    }

    /// Goes on to the newest, now that the pin `id` is over.
    async fn go_on(&mut self, name: &str, id: &str) {
        let pins = Arc::clone(&self.parts.pinning.pins);
        let Ok(pin) = model::Id::new(id) else { return };
        if !pins.due(name, &pin, net::clock::monotonic()) {
            return;
        }
        let outcome = match self.newest(name).await {
            Ok(step) => self.step(name, step, None).await,
            Err(why) => Err(why),
        };
        match outcome {
            Ok(()) => {
                tracing::info!(bundle = name, pin = id, "no longer pinned");
                pins.over(name);
            }
            Err(why) => tracing::error!(bundle = name, pin = id, "the pin is over, and the newest not taken: {why}"),
        }
    }

    /// The bundle that `pin` names.
    async fn pinned(&self, pin: &Pin) -> Result<Step, String> {
        let (source, current) = self.one(&pin.bundle)?;
        if current.1.manifest.revision == pin.revision {
            return Ok(Step::Same(Box::new(current)));
        }
        if source.bundle.is_none() && source.path.is_dir() {
            return Err(DIRECTORY.to_owned());
        }
        let before = self.parts.bundles.taken(&pin.bundle).serial.max(current.1.manifest.serial);
        let (pinning, revision) = (Arc::clone(&self.parts.pinning), pin.revision.clone());
        let opening = self.parts.desk.run("policy bundle", move || {
            let (opened, origin) = pinning.earlier.open(&source, &revision)?;
            let rolled_back = back(&origin.manifest, before);
            Ok(Step::Other(Box::new((opened, Origin { rolled_back, ..origin }))))
        });
        opening.join().await.map_err(|error| error.to_string())?
    }

    /// What decides where no pin holds.
    async fn newest(&self, name: &str) -> Result<Step, String> {
        let (source, current) = self.one(name)?;
        if source.bundle.is_none() {
            return Ok(Step::Disk);
        }
        let pinning = Arc::clone(&self.parts.pinning);
        let opening = self.parts.desk.run("policy bundle", move || {
            let Some(archive) = pinning.last_good.archive(&source.name) else {
                return Ok(Step::Same(Box::new(current)));
            };
            let keys = source.keys(Path::new("/")).map_err(|error| error.to_string())?;
            let opened = source.opened(&archive, keys.as_ref(), Path::new("the last good bundle"));
            let opened = opened.map_err(|error| error.to_string())?;
            let same = opened.1.digest == current.1.digest;
            Ok(if same { Step::Same(Box::new(current)) } else { Step::Other(Box::new(opened)) })
        });
        opening.join().await.map_err(|error| error.to_string())?
    }

    /// Takes the step, on record, under `pin`.
    async fn step(&mut self, name: &str, step: Step, pin: Option<&Pin>) -> Result<(), String> {
        let labelled = |one: (Source, Origin)| {
            let pinned = pin.map(|pin| pin.id.to_string());
            (one.0, Origin { pinned, ..one.1 })
        };
        let (one, tries) = match step {
            Step::Same(one) => (labelled(*one), false),
            Step::Other(one) => (labelled(*one), true),
            Step::Disk => {
                for (source, origin) in &mut self.parts.sources {
                    if source.name == name {
                        origin.pinned = None;
                    }
                }
                self.tried = None;
                self.look_again().await;
                return Ok(());
            }
        };
        let mut sources = self.parts.sources.clone();
        sources.iter_mut().filter(|(source, _)| source.name == name).for_each(|before| *before = one.clone());
        let compiled = if tries {
            let trying = Trying::new(name, &self.parts);
            let trial = sources.clone();
            let trying = self.parts.desk.run("policy bundle", move || trying.compile(&trial));
            Some(trying.join().await.map_err(|error| error.to_string())??)
        } else {
            None
        };
        self.record(&sources, compiled.as_ref()).await?;
        match compiled {
            Some(compiled) => self.swap_in(compiled, sources),
            None => {
                self.parts.sources = sources;
                self.parts.standing.comes_from(&self.parts.config, &self.parts.sources);
            }
        }
        if pin.is_none() {
            self.parts.bundles.ask_again();
        }
        Ok(())
    }

    /// A source as it is configured, and what decides of it.
    fn one(&self, name: &str) -> Result<(PolicySource, (Source, Origin)), String> {
        let configured = self.parts.config.sources().into_iter().find(|source| source.name == name);
        let current = self.parts.sources.iter().find(|(source, _)| source.name == name).cloned();
        configured.zip(current).ok_or_else(|| "there is no such source".to_owned())
    }
}

fn file(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = u64::try_from(MAX_ARCHIVE_BYTES).unwrap_or(u64::MAX);
    fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}
