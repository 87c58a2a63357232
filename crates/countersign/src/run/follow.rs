//! A sidecar follows its authority: the follower of `store` tells the view of `proxy`, which every call looks at.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;
use jiff::{SignedDuration, Timestamp};
use net::{HttpClient, Plaintext, Tasks};
use opentelemetry::global;
use proxy::{Following, News, Withdrawals};
use store::remote::{CHANGES_PATH, Follower, FollowerSettings, Heard, MAX_WAIT, NotHeard};
use token::{SIDECAR_ASSERTION_TYPE, SigningKey, config::Withdrawals as Source};

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
    client: &HttpClient,
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
    let (told, stop) = (Arc::clone(&view), tasks.shutdown_token());
    let mut trouble = Trouble::default();
    let following =
        follower.follow(async move { stop.cancelled().await }, move |heard| tell(&told, heard, &mut trouble));
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

/// Signs who asks, anew before the last one ends.
fn assertions(base: String, authority: &FollowedAuthority, key: Arc<SigningKey>) -> store::remote::Authorise {
    let name = format!("{base}/sidecars/{}", authority.credential.id);
    let made: std::sync::Mutex<Option<(Timestamp, HeaderValue)>> = std::sync::Mutex::default();
    Box::new(move |now| {
        let mut made = made.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A clock that was set back must not keep one for longer than it lives.
        if let Some((at, value)) = made.as_ref().filter(|(at, _)| now.duration_since(*at).abs() < RENEWED) {
            tracing::trace!(%at, "asking with the same assertion");
            return Ok(value.clone());
        }
        let claims = serde_json::json!({
            "iss": name, "sub": name, "aud": base, "iat": now.as_second(), "exp": (now + ASSERTION).as_second(),
        });
        let compact = key.sign(SIDECAR_ASSERTION_TYPE, &claims).map_err(|error| error.to_string())?;
        let mut value =
            HeaderValue::from_str(&format!("Bearer {}", compact.expose())).map_err(|error| error.to_string())?;
        value.set_sensitive(true);
        *made = Some((now, value.clone()));
        Ok(value)
    })
}

/// What was last said of not hearing anything, so that an outage is said once.
#[derive(Debug, Default)]
struct Trouble(Option<String>);

fn tell(view: &Withdrawals, heard: Result<Heard, &NotHeard>, trouble: &mut Trouble) -> Result<(), String> {
    match heard {
        Ok(Heard { generation, began, position, withdrawals, fresh_as_of, .. }) => {
            for withdrawal in &withdrawals {
                let (id, kind) = (&withdrawal.id, withdrawal.target.kind());
                tracing::info!(%id, kind, position = withdrawal.position, "a withdrawal holds");
            }
            view.hear(News { generation, began, position, withdrawals, fresh_as_of }, net::clock::now())?;
            if fresh_as_of.is_some() && trouble.0.take().is_some() {
                tracing::info!(position, "the authority is heard again");
            }
            Ok(())
        }
        Err(error) => {
            let text = error.to_string();
            if trouble.0.as_ref() != Some(&text) {
                tracing::warn!(error = text, "the authority is not heard");
            }
            trouble.0 = Some(text.clone());
            view.fail(text);
            Ok(())
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
