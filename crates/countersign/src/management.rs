//! The management API as the command line asks it: where the authority is, whose token it is asked with, and what its
//! refusals come to.

pub(crate) mod table;

use std::{fs, io::Read, path::PathBuf, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, StatusCode, header};
use net::{Body, ClientOptions, ClientTls, HttpClient, Plaintext, Roots, UrlTrust};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::{
    environment::Environment,
    failure::{Exit, Failure},
    output::Output,
};

/// For each answer of the authority.
const PATIENCE: Duration = Duration::from_secs(15);
/// Before each further attempt at something that failed on its way.
const AGAIN: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];
/// The most entries that are read of a list, and the most pages, which may be empty.
const MAX_LISTED: usize = 1_000_000;
const MAX_PAGES: usize = 100_000;
/// The largest answer.
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// The largest token file.
const MAX_TOKEN_BYTES: u64 = 64 * 1024;
/// Where the token itself may stand.
const TOKEN: &str = "COUNTERSIGN_TOKEN";
/// What may stand in a segment of a path as it is (RFC 3986 §2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Which authority, and who asks.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The authority's URL: its issuer.
    #[arg(long, value_name = "URL", env = "COUNTERSIGN_AUTHORITY_URL")]
    authority: String,
    /// Believe only the certificate authorities in this PEM file, not the system's.
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_AUTHORITIES")]
    authorities: Option<PathBuf>,
}

/// The same with a user's management token.
#[derive(Debug, clap::Args)]
pub(crate) struct Session {
    #[command(flatten)]
    place: Place,
    /// The file with your management token; `-` for standard input. Without it, the token is taken from
    /// COUNTERSIGN_TOKEN.
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The same, for a command that an authority is only one of the places for.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Elsewhere {
    /// The authority's URL, where it is asked.
    #[arg(long, value_name = "URL", env = "COUNTERSIGN_AUTHORITY_URL")]
    authority: Option<String>,
    /// Believe only the certificate authorities in this PEM file of the authority, not the system's.
    #[arg(long, value_name = "FILE", env = "COUNTERSIGN_AUTHORITIES")]
    authorities: Option<PathBuf>,
    /// The file with your management token, where the authority is asked; `-` for standard input. Without it, the token
    /// is taken from COUNTERSIGN_TOKEN.
    #[arg(long, value_name = "FILE")]
    token: Option<PathBuf>,
}

/// One thing that is taken away, and why.
#[derive(Debug, clap::Args)]
pub(crate) struct Taking {
    /// Its id.
    pub(crate) id: String,
    /// Why, for whoever reads the record.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) session: Session,
}

/// A client of one authority.
pub(crate) struct Client {
    http: HttpClient,
    runtime: tokio::runtime::Runtime,
    url: String,
    token: Option<SecretString>,
}

impl Place {
    /// A client that shows nothing of whoever asks.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        self.client_with(None)
    }

    /// The same with a client certificate.
    pub(crate) fn client_with(&self, certificate: Option<ClientTls>) -> Result<Client, Failure> {
        let usage = |error: &dyn std::fmt::Display| Failure::new(Exit::Usage, format!("--authority: {error}"));
        let url = net::check_operator_url(&self.authority, Plaintext::LoopbackOnly).map_err(|error| usage(&error))?;
        if url.query().is_some() {
            return Err(usage(&"has to be a URL without a query"));
        }
        let roots = match &self.authorities {
            None => Roots::Platform,
            Some(path) => Roots::Pem(fs::read(path).map_err(|error| {
                Failure::because(Exit::Configuration, format!("--authorities: {}", path.display()), error)
            })?),
        };
        let tls = net::client_config(roots).map_err(Failure::configuration)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::because(Exit::Unavailable, "cannot start", error))?;
        let http = {
            let _inside = runtime.enter();
            let believing = HttpClient::new(ClientOptions::new(tls, UrlTrust::Operator));
            match certificate {
                Some(certificate) => believing.apart(Some(Arc::new(certificate))),
                None => believing,
            }
        };
        Ok(Client { http, runtime, url: self.authority.trim_end_matches('/').to_owned(), token: None })
    }
}

impl Session {
    /// A client that shows the user's token.
    pub(crate) fn client(&self, environment: &Environment) -> Result<Client, Failure> {
        let token = match &self.token {
            Some(path) => secret(path)?,
            None => environment.filled(TOKEN).map(SecretString::from).ok_or_else(|| {
                Failure::new(Exit::Usage, format!("name the file of your management token (--token), or set {TOKEN}"))
            })?,
        };
        Ok(Client { token: Some(token), ..self.place.client()? })
    }
}

impl Elsewhere {
    /// A client that shows the user's token.
    pub(crate) fn client(&self, environment: &Environment) -> Result<Client, Failure> {
        let authority = self.authority.clone().ok_or_else(|| {
            Failure::new(Exit::Usage, "which authority? Say --authority URL, or set COUNTERSIGN_AUTHORITY_URL")
        })?;
        let place = Place { authority, authorities: self.authorities.clone() };
        Session { place, token: self.token.clone(), json: false }.client(environment)
    }
}

impl Client {
    /// Where the authority is, without a last slash.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Reads one thing.
    pub(crate) fn get(&self, path: &str) -> Result<Value, Failure> {
        self.ask(&Method::GET, path, &|| Ok(None))
    }

    /// Every page of a list that its answer calls `name`.
    pub(crate) fn list(&self, path: &str, name: &str, filters: &[(&str, Option<&str>)]) -> Result<Vec<Value>, Failure> {
        let mut query: Vec<_> = filters
            .iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", segment((*value)?))))
            .chain(["limit=200".to_owned()])
            .collect();
        let mut all = Vec::new();
        for _ in 0..MAX_PAGES {
            let mut page = self.get(&format!("{path}?{}", query.join("&")))?;
            if let Some(Value::Array(entries)) = page.get_mut(name).map(Value::take) {
                all.extend(entries);
            }
            if all.len() > MAX_LISTED {
                break;
            }
            let Some(next) = page.get("next").and_then(Value::as_str) else { return Ok(all) };
            query.retain(|part| !part.starts_with("cursor="));
            query.push(format!("cursor={next}"));
        }
        let line = format!("the authority's list of {name} does not end: more than {MAX_LISTED}, or {MAX_PAGES} pages");
        Err(Failure::new(Exit::Unavailable, line))
    }

    /// Changes something: once, however often it has to be sent.
    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.ask(&Method::POST, path, &|| Ok(Some(body.clone())))
    }

    /// Asks once for something that may take as long as `patience`: while it is carried out, asking again only adds to it.
    pub(crate) fn post_once(&self, path: &str, body: &Value, patience: Duration) -> Result<Value, Failure> {
        let key = uuid::Uuid::now_v7().to_string();
        match self.runtime.block_on(self.once(&Method::POST, path, Some(body), (&key, patience))) {
            Err(Attempt::Passing(failure) | Attempt::Final(failure)) => Err(failure),
            Ok(value) => Ok(value),
        }
    }

    /// The same with a body that is made anew for each attempt.
    pub(crate) fn post_anew(&self, path: &str, body: impl Fn() -> Result<Value, Failure>) -> Result<Value, Failure> {
        self.ask(&Method::POST, path, &|| body().map(Some))
    }

    fn ask(&self, method: &Method, path: &str, body: &Making<'_>) -> Result<Value, Failure> {
        // The same in each attempt: what was carried out before its answer was lost is not carried out twice.
        let key = uuid::Uuid::now_v7().to_string();
        let mut waits = AGAIN.iter();
        loop {
            let body = body()?;
            let outcome = self.runtime.block_on(self.once(method, path, body.as_ref(), (&key, PATIENCE)));
            match (outcome, waits.next()) {
                (Err(Attempt::Passing(_)), Some(wait)) => {
                    self.runtime.block_on(async { tokio::time::sleep(*wait).await });
                }
                (Err(Attempt::Passing(failure) | Attempt::Final(failure)), _) => return Err(failure),
                (Ok(value), _) => return Ok(value),
            }
        }
    }

    /// One attempt, known by `key`, for whose answer it waits for as long as `patience`.
    async fn once(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Value>,
        (key, patience): (&str, Duration),
    ) -> Result<Value, Attempt> {
        let url = format!("{}{path}", self.url);
        let unavailable = |error: &dyn std::fmt::Display| {
            Attempt::Passing(Failure::new(Exit::Unavailable, format!("no answer from the authority: {error}")))
        };
        let mut request = Request::builder().method(method).uri(&url);
        if let Some(token) = &self.token {
            let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()))
                .map_err(|_| Attempt::Final(Failure::new(Exit::Usage, "the management token is not one")))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        let content = match body {
            None => Body::empty(),
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json").header("idempotency-key", key);
                Body::full(body.to_string())
            }
        };
        let request = request
            .body(content)
            .map_err(|error| Attempt::Final(Failure::because(Exit::Usage, "cannot ask the authority", error)))?;
        let response = self.http.send(request, patience).await.map_err(|error| unavailable(&error))?;
        let status = response.status();
        let read = net::body::collect(response.into_body(), MAX_BYTES);
        let read = tokio::time::timeout(PATIENCE, read).await.map_err(|error| unavailable(&error))?;
        let read = read.map_err(|error| unavailable(&error))?;
        let value: Value = serde_json::from_slice(&read).unwrap_or_default();
        if status.is_success() { Ok(value) } else { Err(refused(status, &value)) }
    }
}

/// Makes the body of an attempt.
type Making<'a> = dyn Fn() -> Result<Option<Value>, Failure> + 'a;

/// How an attempt failed.
enum Attempt {
    /// It may go better later.
    Passing(Failure),
    /// It will not.
    Final(Failure),
}

fn refused(status: StatusCode, problem: &Value) -> Attempt {
    let said = problem.get("detail").or_else(|| problem.get("title")).and_then(Value::as_str);
    let mut text = table::clean(said.unwrap_or("the authority refuses, and does not say why"));
    if let Some(hop) = problem.get("limiting_hop").and_then(Value::as_str) {
        text.push_str(&format!(" (limited by {})", table::clean(hop)));
    }
    let text = format!("{text} ({status})");
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        Attempt::Passing(Failure::new(Exit::Unavailable, text))
    } else {
        Attempt::Final(Failure::new(Exit::Failed, text))
    }
}

/// A secret on one line of a file.
pub(crate) fn secret(path: &std::path::Path) -> Result<SecretString, Failure> {
    let unreadable = |error| Failure::because(Exit::Usage, format!("cannot read {}", path.display()), error);
    let mut text = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().take(MAX_TOKEN_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    } else {
        let file = fs::File::open(path).map_err(unreadable)?;
        file.take(MAX_TOKEN_BYTES).read_to_string(&mut text).map_err(unreadable)?;
    }
    let trimmed = text.trim();
    if trimmed.is_empty() || trimmed.contains(char::is_whitespace) {
        return Err(Failure::new(Exit::Usage, format!("{} does not hold a token on one line", path.display())));
    }
    Ok(SecretString::from(trimmed))
}

/// `text` as a segment of a path, or a value of a query.
pub(crate) fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// Prints an answer: as JSON, or as `text` makes it for people.
pub(crate) fn print(json: bool, value: &Value, text: impl FnOnce(&Value) -> String) -> Result<(), Failure> {
    let mut output = Output::new();
    let _reader = if json { output.json(value)? } else { output.write(&text(value))? };
    Ok(())
}

/// Prints a list: one JSON object a line, or a table.
pub(crate) fn print_list(json: bool, entries: &[Value], columns: &[table::Column<'_>]) -> Result<(), Failure> {
    let mut output = Output::new();
    if !json {
        let _reader = output.write(&table::table(columns, entries))?;
        return Ok(());
    }
    for entry in entries {
        let _reader = output.json(entry)?;
    }
    Ok(())
}
