//! How every command on policy is told what it works on: a configuration that names it, or directories. Nothing that a
//! configuration says beside `policy` and `tools` matters here, and its secrets need not be at hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use model::{Catalogue, Id, Tool};
use policy::{PolicySource, Source, bundle::Origin, catalogue::CatalogueSource, config::SourceKind};
use proxy::{config::CredentialConfig, resolve_tools};

use super::bundles;
use crate::{
    cli::config::{Plane, guess},
    config::{authority::AuthorityConfig, document::Document, sidecar::SidecarConfig},
    environment::Environment,
    failure::{Exit, Failure},
    run::catalogue as described,
};

/// The configuration that is looked at when nothing is named.
const CONFIG: &str = "countersign.yaml";

/// What is worked on.
#[derive(Debug, clap::Args)]
pub(crate) struct SourceArgs {
    /// A directory of policy: `org=DIR`, `support=DIR:orders,crm` (a team and its tools), or `DIR` alone, which is
    /// whose its packages are. Without one, the configuration's.
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// The configuration of a sidecar or an authority that names policy, tools and actions. Without it,
    /// `countersign.yaml` here.
    #[arg(long, value_name = "FILE", conflicts_with = "paths")]
    config: Option<PathBuf>,
    /// The sidecar's configuration whose tools and actions policy is about, where only directories or an authority's
    /// configuration are named. Without it, names of actions, parameters and facts are not checked.
    #[arg(long, value_name = "FILE")]
    catalogue: Option<PathBuf>,
}

/// Policies and what they are about.
#[derive(Debug)]
pub(crate) struct Policies {
    /// The sources, as they were named. Files are named as seen from here.
    pub(crate) sources: Vec<Source>,
    /// The tools and actions, where they are known.
    pub(crate) catalogue: Option<Catalogue>,
}

impl SourceArgs {
    /// The configuration that is worked on, where no directory is named.
    pub(crate) fn config(&self) -> Option<&Path> {
        let named = self.config.as_deref().or_else(|| Path::new(CONFIG).exists().then_some(Path::new(CONFIG)));
        named.filter(|_| self.paths.is_empty())
    }

    /// The configuration of the sidecar that decides by these policies, where one is named.
    ///
    /// # Errors
    /// 78 where it cannot be read.
    pub(crate) fn sidecar(&self, environment: &Environment) -> Result<Option<SidecarConfig>, Failure> {
        let own = self.config().filter(|config| guess(config) == Plane::Sidecar);
        let Some(config) = self.catalogue.as_deref().or(own) else { return Ok(None) };
        sidecar(config, environment).map(|document| Some(document.value))
    }

    /// Reads what was named.
    ///
    /// # Errors
    /// 78 where a configuration or a directory cannot be read, 2 where nothing is named or a name is none.
    pub(crate) fn read(&self, environment: &Environment) -> Result<Policies, Failure> {
        let named = self.catalogue.as_deref().map(|path| catalogue(path, environment)).transpose()?;
        if !self.paths.is_empty() {
            let sources =
                self.paths.iter().map(|path| directory(path, named.as_ref())).collect::<Result<Vec<_>, _>>()?;
            return Ok(Policies { sources: sources.into_iter().flatten().collect(), catalogue: named });
        }
        let config = match &self.config {
            Some(config) => config.as_path(),
            None if Path::new(CONFIG).exists() => Path::new(CONFIG),
            None => {
                let line = format!("name the directories of policy, or a configuration (there is no `{CONFIG}` here)");
                return Err(Failure::new(Exit::Usage, line));
            }
        };
        let policies = configured(config, named, environment)?;
        if policies.sources.is_empty() {
            return Err(Failure::new(Exit::Configuration, format!("{}: names no policy", config.display())));
        }
        Ok(policies)
    }
}

/// What the configuration at `config` names, with the catalogue `named` instead of its own where there is one.
///
/// # Errors
/// 78 where it, or a directory that it names, cannot be read.
pub(crate) fn configured(
    config: &Path,
    named: Option<Catalogue>,
    environment: &Environment,
) -> Result<Policies, Failure> {
    let (configured, own) = match guess(config) {
        Plane::Sidecar => {
            let document = sidecar(config, environment)?;
            let tools = match named {
                Some(_) => None,
                None => Some(tools(document.value.clone(), document.directory(), &Replaced::new(), environment)?),
            };
            (document.value.policy, tools)
        }
        Plane::Authority => {
            let document = Document::<AuthorityConfig>::read(config, environment).map_err(Failure::configuration)?;
            (document.value.authority.policy, None)
        }
    };
    let base = config.parent().unwrap_or(Path::new(""));
    let read = |source: &PolicySource| source.read(base).map_err(Failure::configuration);
    let sources = configured.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(Policies { sources, catalogue: named.or(own) })
}

/// The tools and actions of the sidecar's configuration at `path`.
pub(crate) fn catalogue(path: &Path, environment: &Environment) -> Result<Catalogue, Failure> {
    catalogue_with(path, &Replaced::new(), environment)
}

/// The same, where what lies at other places stands in for what some of its sources hold.
pub(crate) fn catalogue_with(
    path: &Path,
    replaced: &Replaced,
    environment: &Environment,
) -> Result<Catalogue, Failure> {
    let document = sidecar(path, environment)?;
    let directory = document.directory().to_owned();
    tools(document.value, &directory, replaced, environment)
}

/// By the name of a source of the catalogue, the directory or bundle that is looked at instead.
pub(crate) type Replaced = BTreeMap<String, PathBuf>;

/// What a source of the catalogue holds, whose path is absolute, or what is looked at instead: that nobody need have signed.
fn opened(source: &CatalogueSource, replaced: &Replaced) -> Result<(Source, Origin), Failure> {
    let source = match replaced.get(&source.name) {
        Some(path) => {
            let path = std::path::absolute(path).map_err(Failure::configuration)?;
            if path.is_file() {
                let bundle = bundles::open(&path, None)?;
                let (name, tools) = (source.name.as_str(), &source.tools);
                let read = bundle.catalogue(name, Some(tools), &path).map_err(Failure::configuration)?;
                return Ok((read, Origin { kind: SourceKind::Catalogue, ..Origin::default() }));
            }
            CatalogueSource { path, bundle: None, keys: None, ..source.clone() }
        }
        None => source.clone(),
    };
    source.source().open(Path::new("/")).map_err(Failure::configuration)
}

fn sidecar(path: &Path, environment: &Environment) -> Result<Document<SidecarConfig>, Failure> {
    Document::read(path, environment).map_err(Failure::configuration)
}

/// The catalogue of `config`, which lies in `directory`. Its secrets need not be at hand: policy does not see them.
fn tools(
    mut config: SidecarConfig,
    directory: &Path,
    replaced: &Replaced,
    environment: &Environment,
) -> Result<Catalogue, Failure> {
    config.place(directory);
    if let Some(problem) = described::problems(&config).into_iter().next() {
        return Err(Failure::new(Exit::Configuration, problem));
    }
    let known = |name: &&String| config.catalogue.iter().any(|source| source.name == **name);
    if let Some(name) = replaced.keys().find(|name| !known(name)) {
        let line = format!("`{name}`: the configuration has no such source of the catalogue");
        return Err(Failure::new(Exit::Usage, line));
    }
    let opened = config.catalogue.iter().map(|source| opened(source, replaced)).collect::<Result<Vec<_>, _>>()?;
    config.tools = described::tools(&config, &opened).map_err(|why| Failure::new(Exit::Configuration, why))?;
    let env = |name: &str| environment.value(name).map(str::to_owned);
    let tenants = config.sidecar.tenants.clone();
    // With them the catalogue has the revision that records of a sidecar cite.
    let tools = resolve_tools(&config.tools, &tenants, &env).or_else(|_| {
        for tool in config.tools.values_mut() {
            tool.credential = Some(CredentialConfig::None);
            tool.credentials.clear();
            tool.tls = None;
        }
        resolve_tools(&config.tools, &tenants, &env)
    });
    Ok(tools.map_err(Failure::configuration)?.catalogue)
}

/// The sources that `[NAME=]DIRECTORY[:TOOL,...]` names.
fn directory(text: &str, catalogue: Option<&Catalogue>) -> Result<Vec<Source>, Failure> {
    let (name, rest) = match text.split_once('=') {
        Some((name, rest)) if !Path::new(text).exists() => (Some(name), rest),
        _ => (None, text),
    };
    let (path, tools) = match rest.rsplit_once(':') {
        Some((path, tools)) if !Path::new(rest).exists() => (Path::new(path), Some(tools_named(tools, text)?)),
        _ => (Path::new(rest), None),
    };
    let Some(name) = name else { return guessed(path, tools.as_ref(), catalogue) };
    let source = Source::read(name, path, bound(name, tools.as_ref(), catalogue)).map_err(Failure::configuration)?;
    Ok(vec![source])
}

fn tools_named(text: &str, whole: &str) -> Result<BTreeSet<Id<Tool>>, Failure> {
    let tool = |name: &str| Id::new(name).map_err(|error| Failure::because(Exit::Usage, format!("`{whole}`"), error));
    text.split(',').map(tool).collect()
}

/// The tools that the source `name` decides about: those named, or else all there are.
fn bound(name: &str, tools: Option<&BTreeSet<Id<Tool>>>, catalogue: Option<&Catalogue>) -> Option<BTreeSet<Id<Tool>>> {
    if name == "org" {
        return tools.cloned();
    }
    let all = || catalogue.into_iter().flat_map(Catalogue::tools).map(|tool| tool.id.clone()).collect();
    Some(tools.cloned().unwrap_or_else(all))
}

/// What lies at `path`, of whomever its packages are: one source, or where they are several's, one for each directory
/// in it.
pub(super) fn guessed(
    path: &Path,
    tools: Option<&BTreeSet<Id<Tool>>>,
    catalogue: Option<&Catalogue>,
) -> Result<Vec<Source>, Failure> {
    let mut source = Source::read("", path, None).map_err(Failure::configuration)?;
    let owned: Vec<(&Path, &str)> =
        source.policies.iter().filter_map(|file| Some((Path::new(&file.path), owner(&file.text)?))).collect();
    let owners: BTreeSet<&str> = owned.iter().map(|(_, owner)| *owner).collect();
    let unclear = |why: &str| {
        let shown = path.display();
        Failure::new(Exit::Usage, format!("{shown}: {why}; say whose it is: `NAME={shown}`"))
    };
    match owners.first() {
        None => Err(unclear("no package in it is `countersign.org` or a team's")),
        Some(&name) if owners.len() == 1 => {
            let name = name.to_owned();
            source.tools = bound(&name, tools, catalogue);
            source.name = name;
            Ok(vec![source])
        }
        Some(_) => {
            let below = |file: &Path| {
                file.strip_prefix(path).ok().and_then(|rest| rest.iter().next()).map(|first| path.join(first))
            };
            let children: BTreeSet<PathBuf> = owned.iter().filter_map(|(file, _)| below(file)).collect();
            if children.iter().any(|child| child.is_file()) {
                return Err(unclear("its packages are several owners'"));
            }
            let sources =
                children.iter().map(|child| guessed(child, tools, catalogue)).collect::<Result<Vec<_>, _>>()?;
            Ok(sources.into_iter().flatten().collect())
        }
    }
}

/// Whose the package of a Rego file is: `org`, or a team's name. `None` for the library's and for what is neither.
fn owner(text: &str) -> Option<&str> {
    let line = text.lines().map(str::trim).find(|line| line.starts_with("package"))?;
    let mut names = line.strip_prefix("package")?.split(['.', '#']).map(str::trim);
    match (names.next(), names.next(), names.next()) {
        (Some("countersign"), Some("org"), _) => Some("org"),
        (Some("countersign"), Some("teams"), Some(team)) if !team.is_empty() => Some(team),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        directory
    }

    fn named(text: &str) -> Vec<(String, Option<Vec<String>>)> {
        let tools = |source: &Source| source.tools.as_ref().map(|tools| tools.iter().map(Id::to_string).collect());
        directory(text, None).unwrap().iter().map(|source| (source.name.clone(), tools(source))).collect()
    }

    #[test]
    fn a_directory_is_whose_its_packages_are_unless_it_is_said() {
        let files = [
            ("org/a.rego", "# Why.\npackage countersign.org"),
            ("orders/deep/b.rego", "package countersign.teams.support # theirs\n"),
            ("lib/money.rego", "package countersign.lib.money"),
            ("schema/input.json", "{}"),
        ];
        let directory = written(&files);
        let at = |rest: &str| format!("{}{rest}", directory.path().display());
        assert_eq!(named(&at("/org")), [("org".to_owned(), None)]);
        assert_eq!(
            named(&at("/orders:orders,crm")),
            [("support".to_owned(), Some(vec!["crm".into(), "orders".into()]))]
        );
        assert_eq!(named(&at("")), [("support".to_owned(), Some(vec![])), ("org".to_owned(), None)]);
        let support = format!("support={}", at("/orders:orders"));
        assert_eq!(named(&support), [("support".to_owned(), Some(vec!["orders".to_owned()]))]);
    }

    #[test]
    fn a_directory_that_is_nobodys_asks_whose_it_is() {
        let directory = written(&[
            ("lib/a.rego", "package main"),
            ("both/a.rego", "package countersign.org"),
            ("both/b.rego", "package countersign.teams.a"),
        ]);
        for place in ["lib", "both"] {
            let text = directory.path().join(place).display().to_string();
            let failure = super::directory(&text, None).unwrap_err();
            assert!(failure.to_string().contains("NAME="), "{failure}");
        }
        assert!(super::directory("support=/nowhere:a b", None).is_err());
    }
}
