//! What a reference leads to: step by step through the input and through what names and rules stand for.

use regorus::unstable::{Expr, Span};

use model::nearest::nearest;

use super::{
    Import, Walk,
    doubts::Missing,
    expression::{COLLECTIONS, item, literal},
    scope::Scope,
};
use crate::{
    check::{
        shape::{Kinds, Known, Members, Shape, is_name},
        walk,
    },
    roots::{About, Path},
};

impl<'a> Walk<'a> {
    /// Reads a name, or a chain of `.name` and `[index]`.
    pub(super) fn reference(&mut self, expression: &'a Expr, scope: &mut Scope<'a>) -> Shape {
        if let Some(path) = self.target(expression, scope) {
            let definitions = &self.program.definitions;
            let within =
                |length: usize| path.get(..length).is_some_and(|part| definitions.contains_key(&part.to_vec()));
            match definitions.get_key_value(&path) {
                Some((&rule, _)) => {
                    if walk::reference(expression).is_some_and(|found| !found.dynamic) {
                        self.used(rule, scope);
                        return self.value(rule);
                    }
                }
                // A step into what a rule is.
                None if (1..path.len()).any(within) => {}
                None => {
                    self.indices(expression, scope);
                    return Shape::Any;
                }
            }
        }
        match expression {
            Expr::Var { span, .. } => self.name(span.text(), scope),
            Expr::RefDot { refr, field: (span, name), .. } => {
                let base = self.reference(refr, scope);
                match name.as_string() {
                    Ok(name) => self.member(&base, name, (refr, span, expression), scope),
                    Err(_) => Shape::Any,
                }
            }
            Expr::RefBrack { refr, index, .. } => {
                let base = self.reference(refr, scope);
                match literal(index) {
                    Some(name) => self.member(&base, &name, (refr, index.span(), expression), scope),
                    None => self.indexed(&base, (refr, index, expression), scope),
                }
            }
            other => self.expression(other, scope),
        }
    }

    fn name(&mut self, name: &str, scope: &Scope<'a>) -> Shape {
        if name == "input" {
            return scope.input();
        }
        if let Some(local) = scope.find(name) {
            return local.clone();
        }
        match self.program.imports.get(scope.module).and_then(|imports| imports.get(name)) {
            // Where it is imported says whether it is there.
            Some(Import::Input(path)) => path.iter().fold(scope.input(), |shape, name| below(&shape, name)),
            _ => Shape::Any,
        }
    }

    /// Where under `data` the reference leads, as far as its steps are constant names.
    fn target(&self, expression: &Expr, scope: &Scope<'a>) -> Option<Path> {
        let found = walk::reference(expression)?;
        if scope.find(&found.root).is_some() || found.root == "input" {
            return None;
        }
        self.program.target(scope.module, &found.root, &found.path)
    }

    /// Reads what a chain is looked up with.
    fn indices(&mut self, expression: &'a Expr, scope: &mut Scope<'a>) {
        let mut expression = expression;
        while let Expr::RefDot { refr, .. } | Expr::RefBrack { refr, .. } = expression {
            if let Expr::RefBrack { index, .. } = expression {
                self.index(index, &Shape::Any, scope);
            }
            expression = refr;
        }
    }

    /// Reads an index; a new name goes through all there are.
    fn index(&mut self, index: &'a Expr, keys: &Shape, scope: &mut Scope<'a>) {
        if self.is_new(index, scope) {
            self.bind(index, keys, scope);
        } else {
            self.expression(index, scope);
        }
    }

    /// What the member `name` of `base` is.
    fn member(&mut self, base: &Shape, name: &str, (of, span, whole): Step<'a>, scope: &Scope<'a>) -> Shape {
        let Some(known) = base.known() else { return Shape::Any };
        let shown = known.at.clone().unwrap_or_else(|| of.span().text().to_owned());
        if !known.kinds.meets(Kinds::OBJECT) {
            let (message, hint) = if known.kinds.meets(COLLECTIONS) {
                let hint = format!("go through it: `some one in {shown}`, and then `one.{name}`");
                (format!("`{shown}` is {} and has no `{name}`", known.kinds.words()), Some(hint))
            } else {
                (format!("`{shown}` is {} and has no members", known.kinds.words()), None)
            };
            self.report(span, "input", message, hint);
            return Shape::Any;
        }
        if known.kinds.meets(Kinds::NULL) {
            self.doubt(whole, base, Missing::Absent, false, scope);
        }
        match &known.members {
            Members::Unknown => Shape::Any,
            Members::Closed(members) => match members.get(name) {
                Some(shape) => {
                    self.unread(known, name, span, scope);
                    shape.clone()
                }
                None => {
                    self.unknown(known, &shown, name, span, scope);
                    Shape::Any
                }
            },
            Members::Open(_) => {
                let shape = below(base, name);
                // What tools and actions declare is there; without a catalogue nobody knows what that is.
                let declared = |at: &str| at == "input.action.parameters" || at.starts_with("input.facts");
                if !known.at.as_deref().is_some_and(declared) {
                    self.doubt(whole, &shape, Missing::Absent, false, scope);
                }
                shape
            }
        }
    }

    /// Reports that nothing in the input has that name.
    fn unknown(&mut self, known: &Known, shown: &str, name: &str, span: &'a Span, scope: &Scope<'a>) {
        let Members::Closed(members) = &known.members else { return };
        let inputs = self.program.inputs;
        let actions = scope.around().and_then(|around| around.calls.actions.clone()).unwrap_or_default();
        let only: Vec<&str> = actions.iter().map(String::as_str).collect();
        let near = nearest(name, members.keys().map(String::as_str)).map(|near| format!("did you mean `{near}`?"));
        let listed = || {
            let names: Vec<&str> = members.keys().map(String::as_str).take(20).collect();
            (!names.is_empty()).then(|| format!("it has {}", names.join(", ")))
        };
        let (code, message, hint) = match shown {
            "input.action.parameters" => {
                let message = match only.as_slice() {
                    [action] => format!("the action `{action}` has no parameter `{name}`"),
                    [] => format!("no action has a parameter `{name}`"),
                    _ => format!("none of the actions {} has a parameter `{name}`", only.join(", ")),
                };
                let elsewhere = inputs.actions_with(name);
                let elsewhere = (!elsewhere.is_empty()).then(|| format!("{} has one", elsewhere.join(", ")));
                ("parameter", message, near.or(elsewhere).or_else(listed))
            }
            "input.facts" => {
                let declared = "a tool's `facts` declare what is read";
                (
                    "fact",
                    format!("no tool declares a fact `{name}`"),
                    near.or_else(listed).or(Some(declared.to_owned())),
                )
            }
            shown if shown.starts_with("input.facts.") => {
                ("fact", format!("`{shown}` has no `{name}`"), near.or_else(listed))
            }
            shown => {
                let others = inputs.with_member(name);
                let other = others.first().filter(|_| shown == "input").map(|about| {
                    let asked = match about {
                        About::Calls => "calls",
                        About::Issuance => "`delegate`",
                        About::Management => "`manage`",
                    };
                    format!("`{name}` is in the input of {asked}")
                });
                let what = match (shown, self.about) {
                    ("input", About::Issuance) => "the input of `delegate`".to_owned(),
                    ("input", About::Management) => "the input of `manage`".to_owned(),
                    _ => format!("`{shown}`"),
                };
                ("input", format!("{what} has no `{name}`"), other.or(near).or_else(listed))
            }
        };
        self.report(span, code, message, hint);
    }

    /// Warns of a fact that is not read for any of the actions that the query is about.
    fn unread(&mut self, known: &Known, fact: &str, span: &'a Span, scope: &Scope<'a>) {
        let actions = scope.around().and_then(|around| around.calls.actions.clone());
        let Some(actions) = actions.filter(|_| known.at.as_deref() == Some("input.facts")) else { return };
        let found: Vec<_> = actions.iter().filter_map(|name| self.program.inputs.tool_of(name)).collect();
        let read = |(_, action): &(_, &model::Action)| action.facts.iter().any(|name| name == fact);
        if found.is_empty() || found.iter().any(read) {
            return;
        }
        let names = actions.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        let hint = format!("list it: `facts: [{fact}]` of the action, in the tool's configuration");
        self.warn(span, "fact", format!("the fact `{fact}` is not read for {names}, so it is null"), hint);
    }

    /// What something in `base` is that is looked up with an expression.
    fn indexed(
        &mut self,
        base: &Shape,
        (of, index, whole): (&'a Expr, &'a Expr, &'a Expr),
        scope: &mut Scope<'a>,
    ) -> Shape {
        self.index(index, &super::expression::key(base), scope);
        let Some(known) = base.known() else { return Shape::Any };
        if !known.kinds.meets(COLLECTIONS) {
            let shown = known.at.clone().unwrap_or_else(|| of.span().text().to_owned());
            let message = format!("`{shown}` is {} and has no members", known.kinds.words());
            self.report(index.span(), "input", message, None);
            return Shape::Any;
        }
        // The user and the calling agent are always there.
        let first = matches!(index, Expr::Number { value, .. } if value.as_i64().is_ok_and(|place| place < 2));
        let chain = known.at.as_deref() == Some("input.chain");
        if matches!(index, Expr::Number { .. }) && known.kinds.meets(Kinds::ARRAY) && !(first && chain) {
            let place = Shape::from(Known { at: Some(whole.span().text().to_owned()), ..known.clone() });
            self.doubt(whole, &place, Missing::Absent, false, scope);
        }
        item(base)
    }

    /// Notes that what lies at `shape`'s place may be missing, and what becomes of what is asked there.
    pub(super) fn doubt(&mut self, at: &'a Expr, shape: &Shape, missing: Missing, becomes: bool, scope: &Scope<'a>) {
        let Some(place) = shape.at().filter(|place| !self.quiet && scope.collected == 0 && !scope.guards(place)) else {
            return;
        };
        if let Some(rule) = self.current {
            self.doubts.add(rule, at.span(), place, missing, becomes != scope.negated);
        }
    }

    /// Notes that the rule that is read uses `other`.
    pub(super) fn used(&mut self, other: &'a Path, scope: &Scope<'a>) {
        if let Some(rule) = self.current.filter(|_| !self.quiet && scope.collected == 0) {
            self.doubts.uses(rule, other, scope.negated);
        }
    }

    /// Whether `name` is a document, an import or a rule of the module's package.
    pub(super) fn is_global(&self, name: &str, module: usize) -> bool {
        if name == "data" || self.program.imports.get(module).is_some_and(|imports| imports.contains_key(name)) {
            return true;
        }
        self.program.target(module, name, &[]).is_some_and(|path| !self.program.rules.touched(&path).is_empty())
    }
}

/// What is looked up in, with which name, and the two together.
type Step<'a> = (&'a Expr, &'a Span, &'a Expr);

/// What the member `name` of `base` is, where that is known.
fn below(base: &Shape, name: &str) -> Shape {
    let Some(known) = base.known() else { return Shape::Any };
    match &known.members {
        Members::Unknown => Shape::Any,
        Members::Closed(members) => members.get(name).cloned().unwrap_or(Shape::Any),
        Members::Open(each) => match &known.at {
            Some(at) if is_name(name) => each.clone().placed(&format!("{at}.{name}")),
            Some(at) => each.clone().placed(&format!("{at}[\"{name}\"]")),
            None => each.clone(),
        },
    }
}
