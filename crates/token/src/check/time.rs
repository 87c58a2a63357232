//! Time: not ended, not early, not from the future, not longer than the issuer may make it.

use jiff::{SignedDuration, Timestamp};
use model::Code;

use crate::refusal::{Checked, refuse};

/// The times a token is bound by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) issued_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) not_before: Option<Timestamp>,
}

/// The times as claimed, in seconds since 1970.
pub(crate) fn read(issued_at: i64, expires_at: i64, not_before: Option<i64>) -> Checked<Times> {
    Ok(Times {
        issued_at: timestamp("iat", issued_at)?,
        expires_at: timestamp("exp", expires_at)?,
        not_before: not_before.map(|seconds| timestamp("nbf", seconds)).transpose()?,
    })
}

fn timestamp(name: &str, seconds: i64) -> Checked<Timestamp> {
    match Timestamp::from_second(seconds) {
        Ok(timestamp) if seconds >= 0 => Ok(timestamp),
        _ => refuse(Code::InvalidToken, "The token's times are no times.", format!("`{name}` is {seconds}")),
    }
}

/// What a token's making is held to: checked once.
pub(crate) fn check(times: Times, max_lifetime: SignedDuration, skew: SignedDuration, now: Timestamp) -> Checked<()> {
    let Times { issued_at, expires_at, .. } = times;
    if issued_at.duration_since(now) > skew {
        let internal = format!("`iat` {issued_at} is later than now {now}");
        return refuse(Code::InvalidToken, "The token was issued in the future.", internal);
    }
    let lifetime = expires_at.duration_since(issued_at);
    if lifetime <= SignedDuration::ZERO {
        let internal = format!("`exp` {expires_at} is not later than `iat` {issued_at}");
        return refuse(Code::InvalidToken, "The token ends before it begins.", internal);
    }
    if lifetime > max_lifetime {
        let internal = format!("it lives for {}s, the issuer may give {}s", lifetime.as_secs(), max_lifetime.as_secs());
        return refuse(Code::InvalidToken, "The token's lifetime is longer than accepted here.", internal);
    }
    current(times, skew, now)
}

/// What changes while a token lives: checked on every call, cached token or not.
pub(crate) fn current(times: Times, skew: SignedDuration, now: Timestamp) -> Checked<()> {
    let Times { expires_at, not_before, .. } = times;
    if now.duration_since(expires_at) >= skew {
        return refuse(Code::Expired, "The token has expired.", format!("`exp` is {expires_at}, it is {now}"));
    }
    match not_before {
        Some(not_before) if not_before.duration_since(now) > skew => {
            refuse(Code::InvalidToken, "The token is not valid yet.", format!("`nbf` is {not_before}, it is {now}"))
        }
        _ => Ok(()),
    }
}
