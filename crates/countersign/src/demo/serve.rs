//! `--serve`: everything stays up, and a person becomes the agent, with `curl` and tokens kept fresh in files.

use std::time::Duration;

use super::files::Files;
use super::parts::Parts;
use super::show::Show;
use super::tokens::{self, TOKENS};
use crate::failure::Failure;
use crate::run::stop::StopSignals;

/// How often the files get new tokens. A token lasts five minutes, so one that was just read is good for three.
const REFRESH: Duration = Duration::from_secs(120);

/// Keeps fresh tokens in files until somebody asks the process to stop.
pub(super) async fn until_stopped(
    files: &Files,
    parts: &Parts,
    show: Show,
    signals: &mut StopSignals,
) -> Result<(), Failure> {
    refresh(files, parts).await?;
    show.guide(&guide(files, parts))?;
    loop {
        tokio::select! {
            _ = signals.next() => return Ok(()),
            () = tokio::time::sleep(REFRESH) => {}
        }
        if let Err(failure) = refresh(files, parts).await {
            tracing::warn!(%failure, "the token files could not be renewed; trying again");
        }
    }
}

async fn refresh(files: &Files, parts: &Parts) -> Result<(), Failure> {
    tokens::write_fresh(files, &parts.agents, &parts.people, &parts.world).await
}

fn guide(files: &Files, parts: &Parts) -> String {
    let tokens = files.path(TOKENS);
    let token = |name: &str| format!("-H \"Authorization: Bearer $(cat '{}/{name}')\"", tokens.display());
    let (support, helper, user) = (token("support-v2"), token("refunds-helper"), token("alice"));
    let order = format!("{}/orders/v1/orders", parts.world.sidecar);
    let json = "-H 'Content-Type: application/json'";
    format!(
        "Be the agent. Tokens last five minutes; the files below get new ones every two.\n\n\
         The support agent reads, and refunds what alice granted (change the amount, the order, the path):\n  \
         curl -i {support} {order}/17\n  \
         curl -i {support} {json} -d '{{\"amount\": \"20.00\", \"currency\": \"USD\"}}' {order}/17/refunds\n  \
         curl -i {support} {json} -d '{{\"amount\": \"80.00\", \"currency\": \"USD\"}}' {order}/17/refunds\n\
         Its helper holds less:\n  \
         curl -i {helper} {json} -d '{{\"amount\": \"20.00\", \"currency\": \"USD\"}}' {order}/17/refunds\n\
         Alice's own token, with no agent in it:\n  \
         curl -i {user} {order}/17\n\n\
         Change a rule in {}, then run `countersign demo --data {}` again: it is kept.\n\
         Ctrl-C stops the demo and seals the ledger.",
        files.path("policies").display(),
        files.dir().display(),
    )
}
