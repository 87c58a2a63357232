//! Authorities: bytes choose scopes, elements, limits and a call from a small vocabulary, and narrowing must be lawful.

use std::fmt::Write;

use model::{Authority, Demand, Id, Limits, Money, ParameterKind, ParameterValue, Parameters, authority::Element};

/// What is within another holds no call that the other does not; what both hold is within each.
pub(super) fn authority(bytes: &[u8]) {
    let mut choices = Choices(bytes.iter());
    let (a, b) = (choices.authority(), choices.authority());
    let both = a.intersect(&b);
    assert!(a.within(&a) && b.within(&b));
    assert!(both.within(&a) && both.within(&b), "{both:?} of {a:?} and {b:?}");
    for element in a.elements.iter().chain(&b.elements) {
        let written = serde_json::to_string(element).unwrap();
        assert_eq!(serde_json::from_str::<Element>(&written).unwrap(), *element, "{written}");
    }
    for _ in 0..4 {
        let (action, tool) = (Id::new(choices.one(&ACTIONS)).unwrap(), Id::new(choices.one(&TOOLS)).unwrap());
        let parameters = choices.parameters();
        let resource = choices.one(&RESOURCES);
        let demand = Demand { action: &action, tool: &tool, resource, parameters: &parameters };
        let holds = |authority: &Authority| authority.covering(&demand).is_ok();
        assert!(!a.within(&b) || !holds(&a) || holds(&b), "{a:?} is within {b:?}, and only it holds {demand:?}");
        assert!(!holds(&both) || (holds(&a) && holds(&b)), "{both:?} holds {demand:?}");
        for (one, other) in a.elements.iter().zip(&b.elements) {
            limits(&one.limits, &other.limits, &parameters);
        }
    }
}

fn limits(a: &Limits, b: &Limits, parameters: &Parameters) {
    let within = |limits: &Limits| limits.exceeded(parameters).is_none();
    assert!(!a.within(b) || !within(a) || within(b), "{a:?} {b:?} {parameters:?}");
    if let Some(both) = a.intersect(b) {
        assert!(both.within(a) && both.within(b), "{both:?} of {a:?} and {b:?}");
        assert_eq!(within(&both), within(a) && within(b), "{both:?} of {a:?} and {b:?} for {parameters:?}");
    }
}

const ACTIONS: [&str; 3] = ["orders.read", "refunds.create", "notes.create"];
const TOOLS: [&str; 2] = ["orders", "notes"];
const RESOURCES: [&str; 6] = ["orders", "orders/17", "orders/18", "orders/17/lines", "", "notes/1"];
const PATTERNS: [&str; 6] = ["**", "orders/**", "orders/*", "orders/17", "orders/*/lines", "*"];
const LIMITS: [&str; 12] = [
    r#""amount":{"max":"50.00","currency":"USD"}"#,
    r#""amount":{"max":"50","currency":"USD"}"#,
    r#""amount":{"max":"20.00","currency":"USD"}"#,
    r#""amount":{"max":"0","currency":"EUR"}"#,
    r#""amount":{"max":"50"}"#,
    r#""amount":{"max":"49.999"}"#,
    r#""amount":{"one_of":["20.00","a"]}"#,
    r#""queue":{"one_of":["a","b"]}"#,
    r#""queue":{"one_of":["b","c"]}"#,
    r#""queue":{"one_of":[]}"#,
    r#""daily":{"sum":"amount","max":"200","currency":"USD","window":"P1D"}"#,
    r#""daily":{"sum":"amount","max":"100","currency":"USD","window":"PT24H"}"#,
];
const RELATIONS: [&str; 3] =
    [r#""order.placed_by":"$user""#, r#""order.placed_by":"$agent""#, r#""order.tenant":"$tenant""#];

struct Choices<'a>(std::slice::Iter<'a, u8>);

impl Choices<'_> {
    fn byte(&mut self) -> usize {
        self.0.next().copied().map_or(0, usize::from)
    }

    fn one(&mut self, among: &[&'static str]) -> &'static str {
        among[self.byte() % among.len()]
    }

    /// The members that a byte's bits pick, quoted.
    fn some(&mut self, among: &[&str]) -> String {
        let bits = self.byte();
        let chosen = among.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
        chosen.map(|(_, name)| format!("\"{name}\"")).collect::<Vec<_>>().join(",")
    }

    /// One of `among` or none, `times` over; a member name is used once.
    fn members(&mut self, among: &[&str], times: usize) -> String {
        let mut members: Vec<&str> = Vec::new();
        for _ in 0..times {
            if let Some(member) = among.get(self.byte() % (among.len() + 1)) {
                let name = member.split(':').next();
                if !members.iter().any(|other| other.split(':').next() == name) {
                    members.push(member);
                }
            }
        }
        members.join(",")
    }

    fn authority(&mut self) -> Authority {
        let mut elements = String::new();
        for index in 0..self.byte() % 4 {
            let (actions, locations, pattern) = (self.some(&ACTIONS), self.some(&TOOLS), self.one(&PATTERNS));
            let (limits, relations) = (self.members(&LIMITS, 3), self.members(&RELATIONS, 2));
            write!(
                elements,
                r#"{}{{"type":"urn:countersign:action","actions":[{actions}],"locations":[{locations}],"identifier":"{pattern}","limits":{{{limits}}},"where":{{{relations}}}}}"#,
                if index > 0 { "," } else { "" }
            )
            .unwrap();
        }
        let scope = self.some(&ACTIONS);
        let written = format!(r#"{{"scope":[{scope}],"elements":[{elements}]}}"#);
        serde_json::from_str(&written).unwrap_or_else(|error| panic!("{error}: {written}"))
    }

    fn parameters(&mut self) -> Parameters {
        let mut parameters = Parameters::default();
        let currency = self.one(&["USD", "EUR"]);
        let money =
            Money::from_major(self.one(&["0", "20.00", "49.99", "50.00", "50.01", "1000000"]), currency).unwrap();
        let text = |text: &str| Some(ParameterValue::String(text.to_owned()));
        match self.byte() % 5 {
            0 => {}
            1 => parameters.set("amount", ParameterKind::Money, Some(ParameterValue::Money(money))),
            2 => parameters.set("amount", ParameterKind::Money, None),
            3 => parameters.set("amount", ParameterKind::Integer, Some(ParameterValue::Integer(50))),
            _ => parameters.set("amount", ParameterKind::String, text("20.00")),
        }
        match self.byte() % 3 {
            0 => {}
            1 => parameters.set("queue", ParameterKind::String, text(["a", "b", "c", "d"][self.byte() % 4])),
            _ => {
                let members = ["a", "b", "c"].into_iter().take(self.byte() % 4).map(str::to_owned).collect();
                parameters.set("queue", ParameterKind::Set, Some(ParameterValue::Set(members)));
            }
        }
        parameters
    }
}
