//! A policy is tried in a process of its own before it may decide here. The engine is code of others, and what the
//! checks let pass may still make it abort or take all memory: then a child ends, and this process keeps what it has.

mod sample;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufWriter, Read, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    time::Duration,
};

use model::{Code, Id, Tenant, Tool};
use policy::{Engine, Source, Steering};
use proxy::{
    config::{CredentialConfig, ToolConfig},
    resolve_tools,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

/// The name of the command that the child runs.
pub(crate) const COMMAND: &str = "policy-trial";

/// The most memory the child may have, in bytes: many times what the largest data document takes.
const MEMORY: u64 = 1024 * 1024 * 1024;
/// The most processor time it may take, in seconds.
const PROCESSOR_SECONDS: u64 = 10;
/// The longest it may take. Longer than its processor time, because the machine may be a busy one.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at whether it has ended.
const LOOK: Duration = Duration::from_millis(1);
/// What is handed over at a time, in bytes.
const HANDED_OVER: usize = 64 * 1024;
/// The most that is read of what it says, in bytes.
const MAX_SAID: u64 = 64 * 1024;
/// The most sample calls that are decided.
const MAX_SAMPLES: usize = 200;
/// After so many sample calls that spent the time budget, the others are taken to do the same.
const MAX_SLOW: usize = 3;

/// What is tried: the very text that would decide, and what it would decide about.
#[derive(Debug, Serialize, Deserialize)]
struct Subject {
    sources: Vec<Source>,
    about: About,
}

/// What policies would decide about.
#[derive(Debug, Serialize, Deserialize)]
enum About {
    /// The calls of these tools.
    Calls { tools: BTreeMap<Id<Tool>, ToolConfig>, tenants: BTreeSet<Id<Tenant>> },
    /// What an authority issues, and who manages there.
    Authority,
}

/// How it went.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Why the policies may not decide.
    problem: Option<String>,
    /// The actions whose sample call spent the time budget.
    pub(crate) slow: Vec<String>,
}

/// Why policies may not decide. Says it whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrialError {
    /// The child found something wrong with them.
    #[error("{0}")]
    Wrong(String),
    /// The child did not live to say anything.
    #[error("policy: it was tried in a process of its own, which {0}; it decides about nothing here")]
    Ended(String),
    /// There was no trial.
    #[error("policy: it could not be tried in a process of its own: {0}")]
    Untried(String),
}

/// Tries `sources` on `tools`.
///
/// # Errors
/// When they do not load, or when loading or asking them ends the process that does.
pub(crate) fn run(
    tools: &BTreeMap<Id<Tool>, ToolConfig>,
    tenants: &BTreeSet<Id<Tenant>>,
    sources: &[Source],
) -> Result<Report, TrialError> {
    let tools = tools.iter().map(|(id, tool)| (id.clone(), without_credentials(tool))).collect();
    try_out(&Subject { sources: sources.to_vec(), about: About::Calls { tools, tenants: tenants.clone() } })
}

/// Tries `sources` as an authority asks them.
///
/// # Errors
/// When they do not load, or when loading or asking them ends the process that does.
pub(crate) fn run_for_authority(sources: &[Source]) -> Result<(), TrialError> {
    try_out(&Subject { sources: sources.to_vec(), about: About::Authority }).map(drop)
}

fn try_out(subject: &Subject) -> Result<Report, TrialError> {
    let report = match program() {
        Some(program) => apart(&program, subject)?,
        None if cfg!(test) => {
            examine(serde_json::to_vec(subject).map_err(|error| TrialError::Untried(error.to_string()))?)
        }
        None => return Err(TrialError::Untried("this program's own file cannot be found".to_owned())),
    };
    match report.problem {
        Some(problem) => Err(TrialError::Wrong(problem)),
        None => Ok(report),
    }
}

/// The child's side: reads the subject from standard input under limits of its own, and prints the report.
pub(crate) fn child() -> Result<String, std::io::Error> {
    for (resource, most) in [(Resource::As, MEMORY), (Resource::Cpu, PROCESSOR_SECONDS), (Resource::Core, 0)] {
        // A limit can only be lowered, and may be lower already.
        let most = getrlimit(resource).maximum.map_or(most, |allowed| allowed.min(most));
        setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    let mut subject = Vec::new();
    std::io::stdin().lock().read_to_end(&mut subject)?;
    Ok(serde_json::to_string(&examine(subject))?)
}

/// A policy is no place for a secret, and neither is the child.
pub(super) fn without_credentials(tool: &ToolConfig) -> ToolConfig {
    ToolConfig { credential: Some(CredentialConfig::None), credentials: BTreeMap::new(), tls: None, ..tool.clone() }
}

/// This very program, also where its file was replaced since. The tests' own program is another one.
fn program() -> Option<PathBuf> {
    if cfg!(test) {
        return None;
    }
    let running = Path::new("/proc/self/exe");
    if running.exists() { Some(running.to_owned()) } else { std::env::current_exe().ok() }
}

fn examine(subject: Vec<u8>) -> Report {
    let problem = |problem: String| Report { problem: Some(problem), slow: Vec::new() };
    let read = serde_json::from_slice(&subject);
    // Data is in there twice until then.
    drop(subject);
    let Subject { sources, about } = match read {
        Ok(subject) => subject,
        Err(error) => return problem(format!("policy: cannot be handed over for a trial: {error}")),
    };
    let (tools, tenants) = match about {
        About::Calls { tools, tenants } => (tools, tenants),
        About::Authority => {
            return Report { problem: steered(&sources).err().map(|error| error.to_string()), slow: Vec::new() };
        }
    };
    let tools = match resolve_tools(&tools, &tenants, &|_| None) {
        Ok(tools) => tools,
        Err(error) => return problem(error.to_string()),
    };
    let engine = match Engine::load(&sources, &tools.catalogue) {
        Ok(engine) => engine,
        Err(error) => return problem(error.to_string()),
    };
    let mut slow = Vec::new();
    for (action, question) in sample::questions(&tools.catalogue, &tenants).take(MAX_SAMPLES) {
        let decided = match question {
            Ok(question) => engine.decide(&question),
            Err(error) => return problem(format!("policy: no sample call of `{action}` could be made: {error}")),
        };
        if decided.code == Some(Code::PolicyBudget) {
            slow.push(action.to_string());
        }
        if slow.len() == MAX_SLOW {
            break;
        }
    }
    Report { problem: None, slow }
}

/// Asks what an authority asks, whatever is answered.
fn steered(sources: &[Source]) -> Result<(), Box<dyn std::error::Error>> {
    let steering = Steering::load(sources)?;
    sample::steer(&steering, sources.iter().flat_map(|source| source.tools.iter().flatten().cloned()).collect())
}

/// Examines `subject` in a child, which gets nothing else: no environment, no open file, no argument that says anything.
fn apart(program: &Path, subject: &Subject) -> Result<Report, TrialError> {
    let untried = |error: std::io::Error| TrialError::Untried(error.to_string());
    let mut child = Command::new(program)
        .arg(COMMAND)
        .env_clear()
        // The allocator reserves a gibibyte of addresses unless told otherwise: all that the child may have.
        .env("MIMALLOC_ARENA_RESERVE", "16MiB")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(untried)?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (status, said, complained) = std::thread::scope(|scope| {
        // A child that ends early closes its end; how it ended says more than that does.
        scope.spawn(move || stdin.map(|stdin| hand_over(subject, stdin).ok()));
        let said = scope.spawn(move || stdout.map(read).unwrap_or_default());
        let complained = scope.spawn(move || stderr.map(read).unwrap_or_default());
        let status = wait(&mut child);
        (status, said.join().unwrap_or_default(), complained.join().unwrap_or_default())
    });
    match status.map_err(untried)? {
        None => Err(TrialError::Ended(format!("took longer than {} s", PATIENCE.as_secs()))),
        Some(status) if status.success() => serde_json::from_str(&said)
            .map_err(|error| TrialError::Ended(format!("said something that is no report: {error}"))),
        Some(status) => Err(TrialError::Ended(ended(status, &complained))),
    }
}

/// Writes as the child reads, so that a large document is nowhere in between.
fn hand_over(subject: &Subject, stdin: ChildStdin) -> Result<(), std::io::Error> {
    let mut stdin = BufWriter::with_capacity(HANDED_OVER, stdin);
    serde_json::to_writer(&mut stdin, subject)?;
    stdin.flush()
}

fn read(from: impl Read) -> String {
    let mut from = from.take(MAX_SAID);
    let mut said = Vec::new();
    // What cannot be read was not said.
    from.read_to_end(&mut said).ok();
    // Whatever else it says must not block it.
    std::io::copy(&mut from.into_inner(), &mut std::io::sink()).ok();
    String::from_utf8_lossy(&said).into_owned()
}

/// How the child ended; `None` where it had to be ended.
fn wait(child: &mut Child) -> std::io::Result<Option<ExitStatus>> {
    let began = net::clock::monotonic();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if net::clock::monotonic().duration_since(began) > PATIENCE {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

fn ended(status: ExitStatus, complained: &str) -> String {
    let how = match (status.signal(), status.code()) {
        (Some(9 | 24), _) => {
            format!("was killed, as one is that takes more than {PROCESSOR_SECONDS} s of processor time")
        }
        (Some(6), _) => "aborted".to_owned(),
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, code) => format!("ended with exit code {}", code.unwrap_or_default()),
    };
    let line = complained.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let line: String = line.chars().filter(|c| !c.is_control()).take(200).collect();
    if line.is_empty() { how } else { format!("{how} ({line})") }
}

#[cfg(test)]
mod tests;
