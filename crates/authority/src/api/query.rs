//! The query of a request, read strictly: a parameter that is given twice, or that nobody knows, is refused.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use super::problem::Problem;

/// The parameters of a request's URL.
#[derive(Debug, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

impl Query {
    /// Parses the text after the `?`.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let mut parameters = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if value.is_empty() {
                // A filter that is left empty would show too much too.
                return Err(Problem::invalid("a parameter of the query has no value"));
            }
            if parameters.insert(decode(name)?, decode(value)?).is_some() {
                return Err(Problem::invalid("a parameter of the query is given twice"));
            }
        }
        Ok(Self(parameters))
    }

    /// Refuses what is not among `known`: a filter that is misspelt would show too much.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), Problem> {
        match self.0.keys().find(|name| !known.contains(&name.as_str())) {
            None => Ok(()),
            Some(name) => {
                let name: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
                Err(Problem::invalid(format!("the query has an unknown parameter `{name}`")))
            }
        }
    }

    /// The parameter `name`, unless it is absent.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

fn decode(text: &str) -> Result<String, Problem> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| Problem::invalid("the query is not UTF-8 text"))
}
