//! `--serve`: everything stays up, and a person becomes the agent, with `curl` and tokens kept fresh in files.

use std::time::Duration;

use super::files::{Files, shell_word};
use super::parts::Parts;
use super::show::Show;
use super::tokens::{self, CONSOLE, TOKENS};
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
    // The tour ended with the task taken back; whoever stays gets another.
    let task = parts.begin().await?.task;
    refresh(&task, files, parts).await?;
    show.guide(&guide(&task, files, parts))?;
    loop {
        tokio::select! {
            _ = signals.next() => return Ok(()),
            () = tokio::time::sleep(REFRESH) => {}
        }
        if let Err(failure) = refresh(&task, files, parts).await {
            tracing::warn!(%failure, "the token files could not be renewed; trying again");
        }
    }
}

async fn refresh(task: &str, files: &Files, parts: &Parts) -> Result<(), Failure> {
    tokens::write_fresh(task, files, &parts.agents, &parts.people, &parts.world).await
}

fn guide(task: &str, files: &Files, parts: &Parts) -> String {
    let (dir, ledger) = (shell_word(files.dir()), shell_word(&files.path("ledger")));
    let header = |name: &str| shell_word(&files.path(&format!("{TOKENS}/{name}.header")));
    let (support, user) = (header("support-v2"), header("alice"));
    let helper = shell_word(&files.path(&format!("{TOKENS}/refunds-helper.jwt")));
    let orders = format!("{}/orders/v1/orders", parts.world.sidecar);
    let (authority, console) = (&parts.world.authority, shell_word(&files.path(CONSOLE)));
    let refund = |name: &str, amount: &str, order: &str| {
        let header = header(name);
        format!(
            "  curl -i -H @{header} -H 'Content-Type: application/json' \\\n    \
             -d '{{\"amount\": \"{amount}\", \"currency\": \"USD\"}}' {orders}/{order}/refunds\n"
        )
    };
    format!(
        "Be the agent. Tokens last five minutes; the files that curl reads get new ones every two.\n\n\
         What alice granted, and more than that (change the amount, the order, the path):\n  \
         curl -i -H @{support} {orders}/17\n{}{}{}\
         Its helper, which holds 10 USD:\n{}\
         Alice's own token, with no agent in it, and what a token says:\n  \
         curl -i -H @{user} {orders}/17\n  \
         countersign token inspect < {helper}\n\
         Follow the order in one shell, and take the task back as alice in another; then start the demo again:\n  \
         curl -N -H @{support} {orders}/17/events\n  \
         countersign revoke task {task} --reason enough --authority {authority} --token {console}\n\
         The record, as it grows:\n  \
         countersign audit tail --follow --from {ledger}\n\n\
         To change a rule: edit the policies in {dir}, then `countersign demo --data {dir}` again; they are kept.\n\
         Ctrl-C stops the demo and seals the ledger.",
        refund("support-v2", "20.00", "17"),
        refund("support-v2", "80.00", "17"),
        refund("support-v2", "20.00", "99"),
        refund("refunds-helper", "20.00", "17"),
    )
}
