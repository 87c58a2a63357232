//! `countersign tools import`: the catalogue entry of a tool from its OpenAPI document, as YAML for a person to review. What
//! is guessed is marked; what cannot be said is left out and listed, and so refused.

pub(super) mod drafting;
mod parameters;
mod settings;

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use model::{Catalogue, Id, Tool};
use policy::bundle::is_catalogue_source;
use serde_json::json;

use super::{draft::DraftTool, openapi::Document, write::Writing};
use crate::{
    cli::policy::sources::catalogue,
    environment::Environment,
    failure::{Exit, Failure},
    output::Output,
};

/// Write the catalogue entry of a tool from its OpenAPI document, for a person to review
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  countersign tools import orders.yaml --tool orders -o orders.tools.yaml\n  \
                        countersign tools import https-saved.json --tool crm --upstream https://crm.example --at /crm\n  \
                        countersign tools import orders.yaml --tool orders --existing countersign.yaml\n  \
                        countersign tools import orders.yaml --tool orders --bundle catalogue/orders\n\n\
                        Reads OpenAPI 3.0 and 3.1, JSON or YAML; references within the document are followed, none out of \
                        it. What it writes loads, and is a proposal: lines with `review` say what a person has to look at. \
                        With --existing only what the configuration has no action for is written. With --bundle the actions \
                        are written as a directory that a source of the catalogue holds, and what stands in the \
                        configuration beside it.")]
pub(super) struct Args {
    /// The OpenAPI document.
    #[arg(value_name = "OPENAPI")]
    document: PathBuf,
    /// The tool's name. Without it, one made from the document's title.
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// The tool's base URL, instead of the document's first server.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// The path prefix under which agents reach it. Without it, `/` and the tool's name.
    #[arg(long, value_name = "PATH")]
    at: Option<String>,
    /// A sidecar's configuration: what it has an action for already is not written, and no name is used twice.
    #[arg(long, value_name = "FILE")]
    existing: Option<PathBuf>,
    /// Write the actions as the catalogue's, into this directory: `data.yaml`, and the `.manifest` of a bundle.
    #[arg(long, value_name = "DIR", conflicts_with = "json")]
    bundle: Option<PathBuf>,
    /// The file to write, which may not exist. Without it, standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, environment: &Environment) -> Result<ExitCode, Failure> {
    let document = read(&args.document)?;
    let existing = args.existing.as_deref().map(|path| catalogue(path, environment)).transpose()?;
    let name = name(args, &document)?;
    let tool = proposal(args, &document, &name, existing.as_ref())?;
    if args.json {
        let _reader = Output::new().json(&tool.to_json())?;
        return Ok(ExitCode::SUCCESS);
    }
    let head = format!(
        "Written by `countersign tools import` from {} (SHA-256 {}). It is a proposal: lines with `review` say what a person \
         has to look at. What is not here is refused.",
        document.name, document.digest
    );
    let text = match &args.bundle {
        None => Writing::new(&head).tool(&tool),
        Some(directory) => bundle(&head, &tool, directory)?,
    };
    match &args.output {
        None => {
            let _reader = Output::new().write(&text)?;
        }
        Some(path) => {
            fresh(path)
                .and_then(|mut file| file.write_all(text.as_bytes()))
                .map_err(|error| Failure::because(Exit::Unavailable, path.display(), error))?;
            let _reader = Output::new().line(&summary(&tool, path))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the actions of `tool` as a directory of the catalogue, and says what stands in the configuration beside it.
fn bundle(head: &str, tool: &DraftTool, directory: &Path) -> Result<String, Failure> {
    let documents = [
        ("data.yaml", Writing::new(head).catalogue(tool)),
        (".manifest", format!("{}\n", json!({ "roots": [format!("catalogue/{}", tool.name)] }))),
    ];
    let unwritable = |path: &Path, error| Failure::because(Exit::Unavailable, path.display(), error);
    std::fs::create_dir_all(directory).map_err(|error| unwritable(directory, error))?;
    for (name, text) in documents {
        let path = directory.join(name);
        let written = fresh(&path).and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|error| unwritable(&path, error))?;
    }
    let name = source_name(&tool.name);
    let head = format!(
        "What stands in the configuration: where the tool is, and that the catalogue says its actions. Those are in {} for \
         review.",
        directory.display()
    );
    Ok(Writing::new(&head).beside(tool, &name, &directory.display().to_string()))
}

/// What a source of the catalogue may be called that is about the tool `name`.
fn source_name(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let named: String = name.chars().map(plain).take(50).collect();
    if is_catalogue_source(&named) { named } else { format!("tool_{named}") }
}

/// Reads an OpenAPI document for a command.
pub(super) fn read(path: &Path) -> Result<Document, Failure> {
    Document::read(path).map_err(|error| Failure::because(Exit::Configuration, path.display(), error))
}

/// What is reviewed is never written over.
fn fresh(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

fn summary(tool: &DraftTool, path: &Path) -> String {
    let review: usize = tool.actions.iter().map(|draft| draft.review.len()).sum();
    format!(
        "{}: {} actions, {} lines to review, {} operations left out",
        path.display(),
        tool.actions.len(),
        review + tool.notes.len(),
        tool.left_out.len()
    )
}

/// The tool's name: said, or the title's words.
fn name(args: &Args, document: &Document) -> Result<Id<Tool>, Failure> {
    let guessed = || {
        let title = document.title().unwrap_or_default();
        let kept: String =
            title.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' }).collect();
        kept.split_whitespace()
            .filter(|word| !matches!(*word, "api" | "rest" | "the"))
            .take(2)
            .collect::<Vec<_>>()
            .join("-")
    };
    let name = args.tool.clone().unwrap_or_else(guessed);
    Id::new(&name).map_err(|_| Failure::new(Exit::Usage, "name the tool: --tool NAME"))
}

fn proposal(
    args: &Args,
    document: &Document,
    name: &Id<Tool>,
    existing: Option<&Catalogue>,
) -> Result<DraftTool, Failure> {
    let known = existing.and_then(|catalogue| catalogue.tool(name));
    let settings = match known {
        Some(_) if args.upstream.is_some() || args.at.is_some() => {
            let line = format!(
                "the configuration says where `{name}` is; --upstream and --at are for a tool that it does not have"
            );
            return Err(Failure::new(Exit::Usage, line));
        }
        Some(_) => None,
        None => Some(settings::settings(document, name.as_str(), args.upstream.as_deref(), args.at.as_deref())?),
    };
    let upstream =
        known.map(|tool| tool.upstream.as_str()).or(settings.as_ref().map(|settings| settings.upstream.as_str()));
    let taken: BTreeSet<String> = existing
        .into_iter()
        .flat_map(Catalogue::tools)
        .flat_map(|tool| &tool.actions)
        .map(|action| action.id.to_string())
        .collect();
    let drafted = drafting::draft(document, upstream.unwrap_or_default(), known, &taken)
        .map_err(|error| Failure::because(Exit::Configuration, &document.name, error))?;
    Ok(DraftTool { name: name.to_string(), settings, ..drafted })
}
