//! The way through the demo: what is tried, what reached the tool, what the ledger says, and where everything is.

use http::{Method, StatusCode};

use super::agent::{ExchangeError, Token};
use super::configuration::{AUTHORITY, SIDECAR};
use super::console::Work;
use super::files::{Files, shell_word};
use super::ledger::{self, Decided};
use super::parts::Parts;
use super::show::Show;
use super::steps::{Caller, Expected, STEPS, Surprise};
use super::tokens::Tokens;
use super::withdrawal::{self, WATCHED};
use super::world::Call;
use crate::cli::explain;
use crate::environment::Environment;
use crate::failure::Failure;

/// The refusal that is explained at the end.
const EXPLAINED: &str = "closed_order";

/// Every step, and everything that is checked after them. Returns what came out otherwise than expected.
pub(super) async fn tour(
    files: &Files,
    parts: &Parts,
    environment: &Environment,
    show: Show,
) -> Result<Vec<Surprise>, Failure> {
    open(files, parts, show)?;
    let work = parts.begin().await?;
    show.say(&format!(
        "\nShe did so at the authority's API just now: grant {}, and under it\n{}.",
        work.grant, work.task,
    ))?;
    let tokens = Tokens::obtain(&work.task, &parts.agents, &parts.people, &parts.world).await?;
    let (mut decided, mut surprises) = try_all(parts, &tokens, show).await?;
    surprises.extend(try_authority(parts, &tokens, &work, show).await?);
    let withdrawal = withdrawal::try_withdrawal(parts, &tokens, &work, show).await?;
    decided.extend(withdrawal.decided);
    surprises.extend(withdrawal.surprises);
    surprises.extend(check_tool(parts).err());
    surprises.extend(try_around(parts, show).await?.err());
    surprises.extend(read_ledger(files, &decided, environment, show).await?.err());
    close(files, &surprises, show)?;
    Ok(surprises)
}

fn open(files: &Files, parts: &Parts, show: Show) -> Result<(), Failure> {
    let places = &parts.places;
    show.heading("Countersign: two names on every call")?;
    show.say(&format!(
        "An agent works for alice, and through it a helper. All parts run here, and speak HTTP to each other:\n\n  \
         identity provider  {}   says who alice is\n  \
         authority          {}   turns her sign-in into tokens that name her and the agent\n  \
         sidecar            {}   checks both names on every call, and records it\n  \
         orders API         {}   the tool; it accepts its own credential only\n\n\
         Alice lets agent support-v2: read and follow orders; refund up to 50.00 USD on orders she placed; pass that on to\n\
         one more agent. Files and ledger: {}\n\
         Laxer than in earnest: all parts run as one system user, and tokens are not bound to a key of the agent's\n\
         (`bearer: all`), so that curl can present them.",
        places.url(places.people),
        places.url(places.authority),
        places.url(places.sidecar),
        places.url(places.orders),
        files.dir().display(),
    ))
}

async fn try_all(parts: &Parts, tokens: &Tokens, show: Show) -> Result<(Vec<Decided>, Vec<Surprise>), Failure> {
    let (mut decided, mut surprises) = (Vec::new(), Vec::new());
    for (index, step) in STEPS.iter().enumerate() {
        if step.caller == Caller::Ended {
            tokio::time::sleep(tokens.until_ended(net::clock::now())).await;
        }
        let token = tokens.of(step.caller);
        let answer = parts.world.call(step.call, token, net::clock::monotonic()).await?;
        let outcome = step.check(&answer);
        show.step(index + 1, step, token, &answer, &outcome)?;
        surprises.extend(outcome.err());
        let refused = answer.denial.map(|denial| denial.code);
        decided.extend(answer.decision_id.map(|id| Decided { step, id, refused }));
    }
    Ok((decided, surprises))
}

/// Whether the tool received what was permitted, nothing else that writes, and never an agent's token.
fn check_tool(parts: &Parts) -> Result<(), Surprise> {
    let surprise = |what: String| Err(Surprise { step: "orders_api", what });
    let received = parts.orders.received();
    if let Some(odd) = received.iter().find(|request| !request.authorised) {
        return surprise(format!("{} {} came without the service credential alone", odd.method, odd.path));
    }
    let writes = |method: &str| method != Method::GET.as_str();
    let permitted =
        STEPS.iter().filter(|step| writes(step.call.method) && matches!(step.expected, Expected::Permit(_)));
    let (arrived, permitted) =
        (received.iter().filter(|request| writes(request.method.as_str())).count(), permitted.count());
    if arrived != permitted {
        return surprise(format!("{arrived} writes reached it, {permitted} were permitted"));
    }
    Ok(())
}

/// What an agent gets from the authority with a token that is not for it: nothing.
async fn try_authority(parts: &Parts, tokens: &Tokens, work: &Work, show: Show) -> Result<Vec<Surprise>, Failure> {
    show.heading("At the authority")?;
    let bobs = parts.agents.with_bobs_sign_in(&work.task, &parts.people, &parts.world).await?;
    let parents = parts.agents.with_the_parents_token(tokens, &parts.world).await;
    let tried = [
        ("bobs_sign_in", "The agent brings bob's sign-in for alice's task", bobs),
        ("spliced_chain", "The helper brings its parent's own token, which was not handed over to it", parents),
    ];
    let mut surprises = Vec::new();
    for (name, title, outcome) in tried {
        show.say(&format!("    {title}:\n      {}", told(&outcome)))?;
        if !matches!(outcome, Err(ExchangeError::Refused { .. })) {
            surprises.push(Surprise { step: name, what: format!("expected a refusal, got {}", told(&outcome)) });
        }
    }
    Ok(surprises)
}

pub(super) fn told(outcome: &Result<Token, ExchangeError>) -> String {
    match outcome {
        Ok(token) => format!("a token for {}", token.names().join(" via ")),
        Err(ExchangeError::Refused { code, description, .. }) => format!("{code}: {description}"),
        Err(error @ ExchangeError::Broken { .. }) => error.to_string(),
    }
}

/// An agent that goes around the sidecar has nothing to show.
async fn try_around(parts: &Parts, show: Show) -> Result<Result<(), Surprise>, Failure> {
    let call = Call { method: "GET", path: "/v1/orders/17", body: None };
    let url = format!("{}{}", parts.places.url(parts.places.orders), call.path);
    let answer = parts.world.call_directly(&url, call, net::clock::monotonic()).await?;
    show.heading("Around the sidecar")?;
    show.say(&format!(
        "    The agent calls the orders API itself, with what it has: {}. It never sees the tool's credential,\n    \
         and the tool has seen no token of an agent's: checked in what the tool received.",
        answer.status,
    ))?;
    if answer.status == StatusCode::UNAUTHORIZED {
        return Ok(Ok(()));
    }
    Ok(Err(Surprise { step: "around_the_sidecar", what: format!("expected 401, got {}", answer.status) }))
}

/// Verifies the ledger, compares it with what the agent was told, shows its end and explains a refusal.
async fn read_ledger(
    files: &Files,
    decided: &[Decided],
    environment: &Environment,
    show: Show,
) -> Result<Result<(), Surprise>, Failure> {
    let dir = files.path("ledger");
    let (report, rebuilt) =
        match ledger::verify(&dir).await.and_then(|report| Ok((report, ledger::check(&dir, decided)?))) {
            Ok(read) => read,
            Err(surprise) => return Ok(Err(surprise)),
        };
    show.heading("The ledger")?;
    show.say(&format!(
        "    {} records chain up, {} values match, {} signed heads hold, {} lines after the last head.\n    \
         Every decision is there as the agent was told. The exact input of the {rebuilt} that policy decided was put\n    \
         together again from it, byte for byte. The last decisions:\n",
        report.records, report.values, report.heads, report.lines_after_last_head,
    ))?;
    for line in ledger::last_lines(&dir)? {
        show.say(&format!("    {line}"))?;
    }
    let watched = decided.iter().find(|decided| decided.step.name == WATCHED.name);
    if let Some(Err(surprise)) = watched.map(|watched| ledger::check_cut(&dir, watched)) {
        return Ok(Err(surprise));
    }
    let explained = decided.iter().find(|decided| decided.step.name == EXPLAINED);
    if let Some(Decided { id, .. }) = explained {
        show.heading(&format!("countersign explain {id}"))?;
        show.say(&explain::page(id, &dir, &files.path(SIDECAR), environment)?)?;
    }
    Ok(Ok(()))
}

fn close(files: &Files, surprises: &[Surprise], show: Show) -> Result<(), Failure> {
    let (ledger, sidecar) = (shell_word(&files.path("ledger")), shell_word(&files.path(SIDECAR)));
    let dir = files.dir().display();
    if surprises.is_empty() {
        show.heading("Everything came out as expected")?;
    } else {
        show.heading("Not everything came out as expected")?;
    }
    show.say(&format!(
        "    All of it is in {dir}:\n    \
         {SIDECAR}, policies/ and ledger/ (the sidecar), {AUTHORITY}, store.yaml and authority/ (the authority)\n\n    \
         countersign audit tail --from {ledger}\n    \
         countersign audit query --from {ledger} --user alice --action refunds.create\n    \
         countersign audit verify --from {ledger}\n    \
         countersign config check {sidecar}\n    \
         countersign demo --serve    stays up, with curl lines to try",
    ))
}
