//! `countersign tools check`: the catalogue held against the documents that the tools' makers publish: what no action maps,
//! what is mapped and not there, what is taken for less than it does, and what leads past the sidecar.

mod findings;
mod operations;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use model::{Catalogue, Id, Tool};
use serde_json::json;

use self::findings::{Accepted, Finding};
use super::{
    import::{
        drafting::{host, path},
        read,
    },
    openapi::Document,
};
use crate::{
    cli::policy::sources::catalogue_with,
    environment::Environment,
    failure::{Exit, Failure},
    output::Output,
};

/// Hold the catalogue against OpenAPI documents. Exits with 1 where there is something that was not accepted
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign tools check --config countersign.yaml\n  \
                        countersign tools check --openapi orders=orders.yaml --openapi crm=crm.json --accept link\n  \
                        countersign tools check --openapi orders.yaml --accept effect:orders.search --json\n  \
                        countersign tools check --bundle orders=catalogue/orders --openapi orders=orders.yaml\n\n\
                        docs/tools.md says what each kind means.")]
pub(super) struct Args {
    /// The sidecar's configuration. Without it, `countersign.yaml` here.
    #[arg(long, value_name = "FILE", default_value = "countersign.yaml")]
    config: PathBuf,
    /// Look at this directory or bundle (`.tar.gz`, whoever signed it) in the place of what a source of the catalogue holds:
    /// `NAME=PATH`.
    #[arg(long, value_name = "NAME=PATH", value_parser = instead)]
    bundle: Vec<(String, PathBuf)>,
    /// The OpenAPI document of a tool: `TOOL=FILE`, or `FILE` where its server or the one tool says whose it is.
    #[arg(long, value_name = "[TOOL=]FILE")]
    openapi: Vec<String>,
    /// What is known and accepted: a kind (`link`), or a kind for one action or tool (`effect:orders.search`).
    #[arg(long, value_name = "KIND[:NAME]", value_delimiter = ',')]
    accept: Vec<Accepted>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    let catalogue = catalogue_with(&args.config, &args.bundle.iter().cloned().collect(), environment)?;
    let mut found: Vec<Finding> = catalogue.tools().iter().flat_map(findings::of_tool).collect();
    let mut operations = 0;
    for named in &args.openapi {
        let (document, tool) = told(named, &catalogue)?;
        let compared = operations::compare(&document, tool)
            .map_err(|error| Failure::because(Exit::Configuration, &document.name, error))?;
        operations += compared.operations;
        found.extend(compared.findings);
    }
    found.sort();
    let (accepted, found): (Vec<Finding>, Vec<Finding>) =
        found.into_iter().partition(|finding| args.accept.iter().any(|accepted| accepted.covers(finding)));
    let actions: usize = catalogue.tools().iter().map(|tool| tool.actions.len()).sum();
    let mut output = Output::new();
    if args.json {
        let report = json!({
            "ok": found.is_empty(), "actions": actions, "operations": operations, "accepted": accepted.len(), "findings": found,
        });
        let _reader = output.json(&report)?;
    } else {
        let mut text: String = found.iter().map(|finding| format!("{finding}\n")).collect();
        text.push_str(&summary(found.len(), accepted.len(), actions, (args.openapi.len(), operations)));
        let _reader = output.line(&text)?;
    }
    Ok(if found.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A source of the catalogue, and what is looked at in its place.
fn instead(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("write NAME=PATH")?;
    Ok((name.to_owned(), path.into()))
}

fn summary(found: usize, accepted: usize, actions: usize, (documents, operations): (usize, usize)) -> String {
    let many = |count: usize, what: &str| if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") };
    let head = if found == 0 { "ok".to_owned() } else { many(found, "warning") };
    let accepted = if accepted == 0 { String::new() } else { format!(", {accepted} accepted") };
    let against = if documents == 0 {
        " (no document to hold them against: `--openapi`)".to_owned()
    } else {
        format!(", {} in {}", many(operations, "operation"), many(documents, "document"))
    };
    format!("{head}{accepted}: {}{against}", many(actions, "action"))
}

/// The document and the tool that `[TOOL=]FILE` names.
fn told<'c>(named: &str, catalogue: &'c Catalogue) -> Result<(Document, &'c Tool), Failure> {
    if let Some((name, file)) = named.split_once('=').filter(|_| !Path::new(named).exists()) {
        let tool = Id::new(name).ok().and_then(|id| catalogue.tool(&id));
        let tool = tool.ok_or_else(|| Failure::new(Exit::Usage, format!("`{named}`: there is no tool `{name}`")))?;
        return Ok((read(Path::new(file))?, tool));
    }
    let document = read(Path::new(named))?;
    let servers = document.servers();
    let serves = |tool: &&Tool| {
        servers.iter().any(|url| {
            host(url).is_some_and(|at| Some(at) == host(&tool.upstream)) && path(&tool.upstream).starts_with(&path(url))
        })
    };
    let mut serving = catalogue.tools().iter().filter(serves);
    match (serving.next(), serving.next(), catalogue.tools()) {
        (Some(tool), None, _) => Ok((document, tool)),
        (None, _, [tool]) => Ok((document, tool)),
        _ => Err(Failure::new(Exit::Usage, format!("whose document is `{named}`? Say `--openapi TOOL={named}`"))),
    }
}
