//! The time that is meant on a command line: from when, until when.

use std::time::Duration;

use jiff::Timestamp;

use model::duration::ConfigDuration;

/// Which time is looked at.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct SpanArgs {
    /// Not before this time: `2026-11-22T14:00:00Z`, `2026-11-22`, or `7d` ago.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Moment>,
    /// Before this time.
    #[arg(long, visible_alias = "to", value_name = "TIME", value_parser = moment)]
    until: Option<Moment>,
}

impl SpanArgs {
    /// From when, where it is said.
    pub(crate) fn from(self, now: Timestamp) -> Option<Timestamp> {
        self.since.and_then(|since| since.timestamp(now))
    }

    /// Until when, where it is said.
    pub(crate) fn to(self, now: Timestamp) -> Option<Timestamp> {
        self.until.and_then(|until| until.timestamp(now))
    }
}

/// A time on the command line.
#[derive(Debug, Clone, Copy)]
enum Moment {
    At(Timestamp),
    Ago(Duration),
}

impl Moment {
    fn timestamp(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::At(timestamp) => Some(timestamp),
            Self::Ago(duration) => now.checked_sub(duration).ok(),
        }
    }
}

fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(timestamp) = text.parse::<Timestamp>() {
        return Ok(Moment::At(timestamp));
    }
    if let Ok(timestamp) = format!("{text}T00:00:00Z").parse::<Timestamp>() {
        return Ok(Moment::At(timestamp));
    }
    text.parse::<ConfigDuration>()
        .map(|duration| Moment::Ago(duration.0))
        .map_err(|_| "write a time (2026-11-22T14:00:00Z), a day (2026-11-22, UTC) or how long ago (15m)".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_moments_days_or_how_long_ago() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-11-22T11:00:00Z", "2026-11-22T11:00:00Z"),
            ("2026-11-22T12:00:00+01:00", "2026-11-22T11:00:00Z"),
            ("2026-11-22", "2026-11-22T00:00:00Z"),
            ("15m", "2026-11-22T11:45:00Z"),
        ] {
            assert_eq!(moment(text).unwrap().timestamp(now), Some(expected.parse().unwrap()), "{text}");
        }
        for text in ["", "yesterday", "15", "2026-13-01"] {
            assert!(moment(text).is_err(), "{text}");
        }
    }
}
