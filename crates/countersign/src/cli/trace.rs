//! `countersign trace`: the next calls that match, stage by stage as they happen, from a running sidecar.

use std::{
    io::{BufRead, BufReader, ErrorKind, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use model::duration::ConfigDuration;
use serde_json::Value;

use super::explain::plain;
use crate::{
    admin::trace::{LISTENING, TRACE},
    config::{document::Document, sidecar::SidecarConfig},
    environment::Environment,
    failure::{Exit, Failure},
    management::segment,
    output::{Output, Reader},
};

/// The longest line that is read: a sidecar's are much shorter.
const MAX_LINE_BYTES: u64 = 256 * 1024;
/// For the first word of a sidecar.
const PATIENCE: Duration = Duration::from_secs(5);

/// Show the next calls that match, stage by stage as they happen.
///
/// Asks a running sidecar over its admin socket, which serves its own user and root. Of a call its path,
/// its resource and what the agent was told are shown, and no token, query, header field or body; `countersign explain`
/// says the rest of a call that is on record.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign trace --config countersign.yaml\n  \
                        countersign trace --action refunds.create --user alice -n 5 --timeout 1m\n  \
                        countersign trace --code policy_denied --admin /var/lib/countersign/admin.sock --json\n\n\
                        Exits with 0 once it has shown a call, with 1 where none came in time.")]
pub(crate) struct Args {
    /// The sidecar's admin socket.
    #[arg(long, value_name = "SOCKET", env = "COUNTERSIGN_ADMIN")]
    admin: Option<PathBuf>,
    /// A configuration file, for the socket that it names.
    #[arg(short, long, value_name = "FILE", env = "COUNTERSIGN_CONFIG")]
    config: Option<PathBuf>,
    /// Of this action.
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// For this user: `alice`, or as records show it, `user:alice@acme`.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// By this agent, anywhere in the chain.
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// Of this run.
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Refused with this code.
    #[arg(long, value_name = "CODE")]
    code: Option<String>,
    /// How many calls.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    calls: u32,
    /// How long to wait for them: `30s`, `5m`. Without it, as long as it takes.
    #[arg(long, value_name = "TIME")]
    timeout: Option<ConfigDuration>,
    /// One JSON object a line, as the sidecar says it.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    let socket = socket(args, environment)?;
    let unavailable = |error: std::io::Error| {
        Failure::because(Exit::Unavailable, format!("no answer from the admin socket {}", socket.display()), error)
    };
    let until = args.timeout.and_then(|timeout| net::clock::monotonic().checked_add(timeout.0));
    let mut connection = UnixStream::connect(&socket).map_err(unavailable)?;
    connection.set_read_timeout(Some(PATIENCE)).map_err(unavailable)?;
    // HTTP/1.0 keeps the lines as they are.
    let request = format!("GET {TRACE}?{} HTTP/1.0\r\nHost: localhost\r\n\r\n", query(args));
    connection.write_all(request.as_bytes()).map_err(unavailable)?;
    let mut lines = Lines { reader: BufReader::new(connection), until };
    lines.head(&socket)?;
    let mut output = Output::new();
    let mut shown = Shown::default();
    while let Some(line) = lines.next()? {
        let Some(text) = shown.take(&line, args.json)? else { continue };
        if output.write(&text)? == Reader::Gone {
            return Ok(ExitCode::SUCCESS);
        }
    }
    if shown.decided > 0 {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::new(Exit::Failed, "no call that matches came"))
}

fn socket(args: &Args, environment: &Environment) -> Result<PathBuf, Failure> {
    match (&args.admin, &args.config) {
        (Some(socket), _) => Ok(socket.clone()),
        (None, Some(config)) => {
            let mut document = Document::<SidecarConfig>::read(config, environment).map_err(Failure::configuration)?;
            let directory = document.directory().to_owned();
            document.value.place(&directory);
            Ok(document.value.admin_socket())
        }
        (None, None) => Err(Failure::new(Exit::Usage, "which sidecar? Say --admin SOCKET or --config FILE")),
    }
}

fn query(args: &Args) -> String {
    let mut query = format!("calls={}", args.calls);
    let wanted = [
        ("action", &args.action),
        ("user", &args.user),
        ("agent", &args.agent),
        ("run", &args.run),
        ("code", &args.code),
    ];
    for (name, value) in wanted {
        if let Some(value) = value {
            query.push_str(&format!("&{name}={}", segment(value)));
        }
    }
    query
}

/// The answer, a line at a time.
struct Lines {
    reader: BufReader<UnixStream>,
    until: Option<Instant>,
}

impl Lines {
    /// Reads the head of the answer, up to the line that says that nothing is missed from here on.
    fn head(&mut self, socket: &std::path::Path) -> Result<(), Failure> {
        let strange =
            |said: &str| Failure::new(Exit::Unavailable, format!("{}: {}", socket.display(), plain(said.trim())));
        let mut said = String::new();
        let limit = |reader: &mut BufReader<UnixStream>, text: &mut String| {
            std::io::Read::take(reader, MAX_LINE_BYTES).read_line(text)
        };
        let read = limit(&mut self.reader, &mut said).map_err(|error| strange(&error.to_string()))?;
        if read == 0 {
            return Err(strange("it hung up; only the sidecar's own user and root are served"));
        }
        let ok = said.split(' ').nth(1) == Some("200");
        loop {
            let mut line = String::new();
            limit(&mut self.reader, &mut line).map_err(|error| strange(&error.to_string()))?;
            match line.trim_end() {
                "" if ok => return Ok(()),
                "" => {
                    let mut why = String::new();
                    limit(&mut self.reader, &mut why).map_err(|error| strange(&error.to_string()))?;
                    return Err(strange(if why.is_empty() { &said } else { &why }));
                }
                _ => {}
            }
        }
    }

    /// The next line; `None` at the end, and when the time is over.
    fn next(&mut self) -> Result<Option<String>, Failure> {
        let left = match self.until {
            None => None,
            Some(until) => match until.checked_duration_since(net::clock::monotonic()) {
                None | Some(Duration::ZERO) => return Ok(None),
                left => left,
            },
        };
        let broke = |error: std::io::Error| Failure::because(Exit::Unavailable, "the sidecar does not go on", error);
        self.reader.get_ref().set_read_timeout(left).map_err(broke)?;
        let mut line = String::new();
        match std::io::Read::take(&mut self.reader, MAX_LINE_BYTES).read_line(&mut line) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(line)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(broke(error)),
        }
    }
}

/// What was shown so far.
#[derive(Default)]
struct Shown {
    /// The call of the last line: lines of several may come in between each other.
    last: String,
    decided: u32,
}

impl Shown {
    /// What is printed of `line`.
    fn take(&mut self, line: &str, json: bool) -> Result<Option<String>, Failure> {
        let told: Value = serde_json::from_str(line)
            .map_err(|error| Failure::because(Exit::Unavailable, "the sidecar's answer cannot be read", error))?;
        let event = told.get("event").and_then(Value::as_str).unwrap_or_default();
        match event {
            LISTENING => {
                // For whoever waits at a terminal; with standard error closed, nobody does.
                writeln!(std::io::stderr(), "waiting for calls").ok();
                return Ok(None);
            }
            "dropped" => {
                return Err(Failure::new(
                    Exit::Failed,
                    "calls came faster than they were read, and the rest is not shown",
                ));
            }
            "decided" => self.decided += 1,
            _ => {}
        }
        if json {
            return Ok(Some(line.to_owned()));
        }
        let mut text = String::new();
        let id = told.get("decision_id").and_then(Value::as_str).unwrap_or_default();
        if id != self.last {
            text.push_str(&format!("{}\n", plain(id)));
            id.clone_into(&mut self.last);
        }
        text.push_str(&for_person(event, &told));
        Ok(Some(text))
    }
}

/// One line for a person. What others chose cannot break it.
fn for_person(event: &str, told: &Value) -> String {
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), plain);
    let part = |name: &str| told.get(name).filter(|value| !value.is_null()).map(shown);
    if event == "stage" {
        let about = told.as_object().into_iter().flatten().filter(|(name, value)| {
            !matches!(name.as_str(), "event" | "decision_id" | "stage" | "microseconds") && !value.is_null()
        });
        let about: Vec<String> = about.map(|(name, value)| format!("{} {}", plain(name), shown(value))).collect();
        let (stage, took) = (part("stage").unwrap_or_default(), part("microseconds").unwrap_or_default());
        return format!("  {stage:<12}{took:>8} µs  {}\n", about.join(", "));
    }
    if event == "decided" {
        let reasons = told.get("reasons").and_then(Value::as_array).into_iter().flatten();
        let reason = |reason: &Value| {
            let part = |name: &str| reason.get(name).map(shown).unwrap_or_default();
            format!("{} by {}", part("code"), part("source"))
        };
        let mut line = format!("  {}", part("decision").unwrap_or_default().to_uppercase());
        line.push_str(&part("code").map(|code| format!(" {code}")).unwrap_or_default());
        let duties = told.get("obligations").and_then(Value::as_array).into_iter().flatten().map(shown);
        for said in reasons.map(reason).chain(part("detail")).chain(duties.map(|duty| format!("obliges to {duty}"))) {
            line.push_str(&format!(": {said}"));
        }
        return line + "\n";
    }
    let about = ["outcome", "status", "code", "request_bytes", "response_bytes", "redactions", "withheld"]
        .into_iter()
        .filter_map(|name| Some(format!("{name} {}", part(name)?)));
    format!("  {event}: {}\n", about.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_agent_chose_cannot_forge_a_line() {
        let told = json!({"event": "stage", "stage": "accept", "microseconds": 7, "path": "/a\n  PERMIT\u{202E}"});
        let text = for_person("stage", &told);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains('\u{202E}'), "{text}");
        let denied = json!({"event": "decided", "decision": "deny", "code": "policy_denied", "detail": "no\nyes",
            "reasons": [{"code": "hold", "source": "countersign.teams.support"}]});
        let text = for_person("decided", &denied);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.contains("DENY policy_denied: hold by countersign.teams.support"), "{text}");
    }
}
