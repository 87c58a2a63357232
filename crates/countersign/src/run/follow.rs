//! A sidecar follows its authority: the follower of `store` tells the view of `proxy`, which every call looks at.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::HeaderValue;
use jiff::{SignedDuration, Timestamp};
use model::Withdrawal;
use net::{HttpClient, Plaintext, Tasks};
use opentelemetry::global;
use proxy::{Following, GoodKeys, News, Withdrawals};
use store::remote::{CHANGES_PATH, Follower, FollowerSettings, Heard, MAX_WAIT, NotHeard};
use token::{SIDECAR_ASSERTION_TYPE, SigningKey, config::Withdrawals as Source};

use super::reload::Pins;
use crate::{
    config::sidecar::{FollowedAuthority, SidecarConfig},
    failure::Failure,
};

/// How long an assertion is good for. The authority takes no longer one.
const ASSERTION: SignedDuration = SignedDuration::from_secs(60);
/// Before its end it is made anew.
const RENEWED: SignedDuration = SignedDuration::from_secs(30);
/// The shortest and the longest that an answer may take beyond the wait that was asked for.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));

/// How closely calls follow the authority of `config`.
pub(super) fn following(config: &SidecarConfig) -> Option<Following> {
    let authority = config.authority.as_ref()?;
    let changes = config.issuers.iter().filter(|issuer| issuer.withdrawals == Source::Changes);
    Some(Following {
        read: authority.staleness.read.0,
        write: authority.staleness.write.0,
        issuers: changes.map(|issuer| issuer.issuer.clone()).collect(),
    })
}

/// Begins to follow the authority, where there is one, with the key that the sidecar enrolled.
pub(super) fn begin(
    config: &SidecarConfig,
    key: Option<Arc<SigningKey>>,
    (client, pins): (&HttpClient, &Arc<Pins>),
    tasks: &Tasks,
) -> Result<Option<Arc<Withdrawals>>, Failure> {
    let (Some(authority), Some(key)) = (&config.authority, key) else { return Ok(None) };
    let base = authority.url.trim_end_matches('/');
    let url = net::check_operator_url(&format!("{base}{CHANGES_PATH}"), Plaintext::LoopbackOnly);
    let url = url.map_err(Failure::configuration)?;
    let (wait, patience) = pace(authority);
    let authorise = assertions(base.to_owned(), authority, key);
    let follower = Follower::new(FollowerSettings { client: client.clone(), url, authorise, wait, patience });
    let view = Arc::new(Withdrawals::default());
    observe(&view);
    let (told, pins, stop) = (Arc::clone(&view), Arc::clone(pins), tasks.shutdown_token());
    let mut trouble = Trouble::default();
    let following =
        follower.follow(async move { stop.cancelled().await }, move |heard| tell(&told, &pins, heard, &mut trouble));
    tasks.spawn("follow the authority", following);
    Ok(Some(view))
}

/// How long the authority waits with an answer, and how much longer it may take: with both, several answers fit the
/// shorter bound.
fn pace(authority: &FollowedAuthority) -> (Duration, Duration) {
    let bound = authority.staleness.read.0.min(authority.staleness.write.0);
    let (shortest, longest) = PATIENCE;
    ((bound / 5).min(MAX_WAIT), (bound / 5).clamp(shortest, longest))
}

/// Who asks: the key, and what was signed with it last.
struct Signer {
    key: Arc<SigningKey>,
    made: Option<(Timestamp, HeaderValue)>,
}

/// Signs who asks, anew before the last one ends.
pub(super) fn assertions(
    base: String,
    authority: &FollowedAuthority,
    key: Arc<SigningKey>,
) -> store::remote::Authorise {
    let name = format!("{base}/sidecars/{}", authority.credential.id);
    let path = authority.credential.key.clone();
    let signer = Mutex::new(Signer { key, made: None });
    Box::new(move |now| {
        let mut signer = signer.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that was set back must not keep one for longer than it lives.
        if let Some((_, value)) = signer.made.as_ref().filter(|(at, _)| now.duration_since(*at).abs() < RENEWED) {
            return Ok(value.clone());
        }
        // A key that was rotated is taken as it comes; while it is being written, the one before serves.
        match SigningKey::load(&path) {
            Ok(key) => signer.key = Arc::new(key),
            Err(error) => tracing::debug!(%error, "the sidecar's key cannot be read again"),
        }
        let claims = serde_json::json!({
            "iss": name, "sub": name, "aud": base, "iat": now.as_second(), "exp": (now + ASSERTION).as_second(),
        });
        let compact = signer.key.sign(SIDECAR_ASSERTION_TYPE, &claims).map_err(|error| error.to_string())?;
        let mut value =
            HeaderValue::from_str(&format!("Bearer {}", compact.expose())).map_err(|error| error.to_string())?;
        value.set_sensitive(true);
        signer.made = Some((now, value.clone()));
        Ok(value)
    })
}

/// What was last said of not hearing anything, so that an outage is said once.
#[derive(Debug, Default)]
struct Trouble(Option<String>);

fn tell(view: &Withdrawals, pins: &Pins, heard: Result<Heard, &NotHeard>, trouble: &mut Trouble) -> Result<(), String> {
    match heard {
        Ok(Heard { generation, began, position, withdrawals, fresh_as_of, keys, pins: said, .. }) => {
            withdrawals.iter().for_each(say);
            let keys = keys.map(|keys| GoodKeys { issuer: keys.issuer, ids: keys.ids });
            view.hear(News { generation, began, position, withdrawals, fresh_as_of, keys }, net::clock::now())?;
            if let Some(said) = said {
                pins.hear(said);
            }
            if fresh_as_of.is_some() {
                trouble.over(position);
            }
            Ok(())
        }
        Err(error) => {
            view.fail(error.to_string());
            trouble.is(error.to_string());
            Ok(())
        }
    }
}

fn say(withdrawal: &Withdrawal) {
    let (id, kind, position) = (&withdrawal.id, withdrawal.target.kind(), withdrawal.position);
    tracing::info!(%id, kind, position, "a withdrawal holds");
}

impl Trouble {
    fn is(&mut self, error: String) {
        if self.0.as_ref() != Some(&error) {
            tracing::warn!(error, "the authority is not heard");
        }
        self.0 = Some(error);
    }

    fn over(&mut self, position: u64) {
        if self.0.take().is_some() {
            tracing::info!(position, "the authority is heard again");
        }
    }
}

fn observe(view: &Arc<Withdrawals>) {
    // Meters live as long as the process, and a sidecar may end before it.
    let seen = Arc::downgrade(view);
    let _age = global::meter("countersign")
        .f64_observable_gauge("countersign_authority_staleness")
        .with_unit("s")
        .with_description("How old the view of what the authority withdrew is")
        .with_callback(move |observer| {
            if let Some(age) = seen.upgrade().and_then(|view| view.staleness()) {
                observer.observe(age.as_secs_f64(), &[]);
            }
        })
        .build();
}

#[cfg(test)]
mod tests {
    use token::Algorithm;

    use super::*;
    use crate::config::sidecar::StalenessSection;

    fn authority(key: &std::path::Path, write: Duration) -> FollowedAuthority {
        let credential = serde_json::json!({ "key": key, "id": "s-1" });
        let mut staleness = StalenessSection::default();
        staleness.write.0 = write;
        FollowedAuthority {
            url: "https://countersign.example".to_owned(),
            credential: serde_json::from_value(credential).unwrap(),
            staleness,
            limits: crate::config::sidecar::LimitsSection::default(),
        }
    }

    #[test]
    fn several_answers_fit_the_shorter_bound() {
        for bound in [Duration::from_millis(500), Duration::from_secs(5), Duration::from_secs(3600)] {
            let (wait, patience) = pace(&authority("key.pem".as_ref(), bound));
            assert!(wait <= bound / 5 && wait <= MAX_WAIT && !wait.is_zero(), "{bound:?}: {wait:?}");
            assert!(patience >= Duration::from_millis(500) && patience <= Duration::from_secs(2), "{patience:?}");
        }
    }

    #[test]
    fn who_asks_is_signed_anew_before_it_ends_and_with_the_key_that_is_there_then() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let first = SigningKey::load_or_create(&path, Algorithm::EdDsa).unwrap();
        let authorise =
            assertions("https://a.example".into(), &authority(&path, Duration::from_secs(5)), Arc::new(first));
        let start: Timestamp = "2026-03-14T14:00:00Z".parse().unwrap();
        let asked = authorise(start).unwrap();
        assert!(asked.is_sensitive());
        assert_eq!(authorise(start + SignedDuration::from_secs(29)).unwrap(), asked);
        std::fs::remove_file(&path).unwrap();
        let without = authorise(start + SignedDuration::from_secs(30)).unwrap();
        assert_ne!(without, asked, "the key that was there still signs");
        let second = SigningKey::load_or_create(&path, Algorithm::EdDsa).unwrap();
        let rotated = authorise(start - SignedDuration::from_secs(60)).unwrap();
        let head = rotated.to_str().unwrap().strip_prefix("Bearer ").unwrap().split('.').next().unwrap();
        let head = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, head).unwrap();
        assert!(String::from_utf8(head).unwrap().contains(second.id()), "also when the clock was set back");
    }
}
