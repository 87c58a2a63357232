//! The question that `eval` and `bench` put: a case of a file, or one made of options.

use model::{Catalogue, Question};
use policy::cases;
use serde_json::{Map, Value, json};

use crate::{
    cli::policy::test::suite::case,
    failure::{Exit, Failure},
};

/// What is asked.
#[derive(Debug, clap::Args)]
pub(in crate::cli::policy) struct AskArgs {
    /// A case of a file: `FILE#NAME`.
    #[arg(long, value_name = "FILE#NAME", conflicts_with = "action")]
    pub(in crate::cli::policy) case: Option<String>,
    /// The action.
    #[arg(long)]
    pub(in crate::cli::policy) action: Option<String>,
    /// The user.
    #[arg(long, default_value = "alice")]
    user: String,
    /// The calling agent.
    #[arg(long, default_value = "agent")]
    agent: String,
    /// The name of the resource.
    #[arg(long, value_name = "NAME")]
    resource: Option<String>,
    /// The tool, where the catalogue does not say.
    #[arg(long)]
    tool: Option<String>,
    /// A parameter: `amount=20.00 USD`. May be given again.
    #[arg(long = "parameter", value_name = "NAME=VALUE")]
    parameters: Vec<String>,
    /// A leaf of a fact: `order.placed_by=$user`. May be given again.
    #[arg(long = "fact", value_name = "FACT.LEAF=VALUE")]
    facts: Vec<String>,
    /// The moment of the decision, RFC 3339.
    #[arg(long, value_name = "TIME")]
    now: Option<String>,
}

impl AskArgs {
    /// The question.
    pub(in crate::cli::policy) fn question(&self, catalogue: Option<&Catalogue>) -> Result<Question, Failure> {
        if let Some(text) = &self.case {
            return case(text, catalogue).map(|case| case.question);
        }
        let usage = |line: String| Failure::new(Exit::Usage, line);
        let action = self.action.as_ref().ok_or_else(|| usage("say --action, --case or --input".to_owned()))?;
        let mut members = Map::new();
        members.insert("name".to_owned(), "question".into());
        members.insert("expect".to_owned(), "permit".into());
        for (name, value) in [("user", &self.user), ("agent", &self.agent), ("action", action)] {
            members.insert(name.to_owned(), value.as_str().into());
        }
        for (name, value) in [("resource", &self.resource), ("tool", &self.tool), ("now", &self.now)] {
            if let Some(value) = value {
                members.insert(name.to_owned(), value.as_str().into());
            }
        }
        let mut parameters = Map::new();
        for text in &self.parameters {
            let (name, value) = text.split_once('=').ok_or_else(|| usage(format!("`{text}` is not NAME=VALUE")))?;
            parameters.insert(name.to_owned(), scalar(value));
        }
        let mut facts: Map<String, Value> = Map::new();
        for text in &self.facts {
            let wrong = || usage(format!("`{text}` is not FACT.LEAF=VALUE"));
            let (path, value) = text.split_once('=').ok_or_else(wrong)?;
            let (fact, leaf) = path.split_once('.').ok_or_else(wrong)?;
            let leaves = facts.entry(fact).or_insert_with(|| Value::Object(Map::new()));
            leaves.as_object_mut().ok_or_else(wrong)?.insert(leaf.to_owned(), scalar(value));
        }
        members.insert("parameters".to_owned(), parameters.into());
        members.insert("facts".to_owned(), facts.into());
        let text = json!({ "cases": [members] }).to_string();
        let built = cases::parse("the options", &text, catalogue).map_err(|error| usage(error.message))?;
        let question = built.into_iter().next().map(|case| case.question);
        question.ok_or_else(|| usage("nothing is asked".to_owned()))
    }
}

/// A whole number, a truth, null or a list where it is one, else text.
fn scalar(text: &str) -> Value {
    let read = serde_json::from_str::<Value>(text).ok();
    read.filter(|value| !matches!(value, Value::Object(_) | Value::String(_))).unwrap_or_else(|| text.into())
}
