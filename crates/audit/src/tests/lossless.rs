//! Generated calls: whatever a question holds, its records give back an equal one; whatever is appended, it verifies.

use std::fs;

use jiff::Timestamp;
use model::{
    Agent, Amount, Chain, Decimal, Facts, Hop, Limit, Limits, Money, ParameterKind, ParameterValue, Parameters,
    PrincipalKind,
    chain::Evidence,
    fact::{FactPrincipal, FactValue},
    parameter::ScaledDecimal,
    question::LimitState,
    registry::AgentStatus,
};
use proptest::{collection, option, prelude::*};

use super::*;
use crate::{
    read::SegmentReader,
    rebuild,
    record::{decided, token_seen},
    verify,
};

/// Any text, the hostile kinds too.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[ -~]{0,12}", Just("\"\\\u{0}\r\n\u{202E}\u{1F600}".to_owned())]
}

fn name<Of>() -> impl Strategy<Value = Id<Of>> {
    "[!-~]{1,12}".prop_map(|text| Id::new(&text).unwrap())
}

fn number() -> impl Strategy<Value = i64> {
    let most = model::amount::MAX_SAFE_INTEGER;
    prop_oneof![-most..=most, Just(most), Just(-most), Just(0)]
}

fn money() -> impl Strategy<Value = Money> {
    (0..=model::amount::MAX_SAFE_INTEGER, prop_oneof![Just("USD"), Just("JPY"), Just("BHD")])
        .prop_map(|(minor, currency)| Money::from_minor(minor, currency).unwrap())
}

fn decimal() -> impl Strategy<Value = Decimal> {
    (-999_999_i64..999_999, 0..100_u8).prop_map(|(whole, part)| format!("{whole}.{part:02}").parse().unwrap())
}

fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![money().prop_map(Amount::Money), decimal().prop_map(Amount::Number)]
}

fn moment() -> impl Strategy<Value = Timestamp> {
    (0..4_000_000_000_i64, 0..1_000_000_000_i32).prop_map(|(s, n)| Timestamp::new(s, n).unwrap())
}

fn value() -> impl Strategy<Value = ParameterValue> {
    prop_oneof![
        text().prop_map(ParameterValue::String),
        number().prop_map(ParameterValue::Integer),
        (decimal(), 2..6_u32)
            .prop_map(|(value, scale)| ParameterValue::Decimal(ScaledDecimal::new(value, scale).unwrap())),
        money().prop_map(ParameterValue::Money),
        moment().prop_map(ParameterValue::Time),
        text().prop_map(ParameterValue::Id),
        collection::btree_set(text(), 0..4).prop_map(ParameterValue::Set),
    ]
}

fn parameters() -> impl Strategy<Value = Parameters> {
    collection::vec((text(), option::of(value())), 0..4).prop_map(|given| {
        let mut parameters = Parameters::default();
        for (name, value) in given {
            parameters.set(&name, value.as_ref().map_or(ParameterKind::String, ParameterValue::kind), value);
        }
        parameters
    })
}

fn facts() -> impl Strategy<Value = Facts> {
    let leaf = prop_oneof![
        Just(FactValue::Null),
        any::<bool>().prop_map(FactValue::Bool),
        number().prop_map(FactValue::Integer),
        text().prop_map(FactValue::Text),
        (name(), text()).prop_map(|(id, issuer)| FactValue::Principal(FactPrincipal { id, issuer })),
    ];
    let leaves = collection::btree_map(text(), leaf, 0..3);
    collection::btree_map(text(), leaves, 0..3).prop_map(Facts)
}

fn limit() -> impl Strategy<Value = Limit> {
    let positive = prop_oneof![
        money().prop_map(Amount::Money),
        (0..9_999_i64).prop_map(|n| Amount::Number(Decimal::from_integer(n)))
    ];
    let cumulative = (option::of(text()), 0..9_999_i64, 1..9_999_999_u32).prop_map(|(sum, max, seconds)| {
        let max = Amount::Number(Decimal::from_integer(max));
        let window = format!("PT{seconds}S").parse().unwrap();
        Limit::Cumulative(model::limits::Cumulative { sum, max, window })
    });
    prop_oneof![positive.prop_map(Limit::Max), collection::btree_set(text(), 0..3).prop_map(Limit::OneOf), cumulative]
}

fn limits() -> impl Strategy<Value = Limits> {
    collection::vec((text(), limit()), 0..3).prop_map(|given| {
        let mut limits = Limits::default();
        given.into_iter().for_each(|(name, limit)| limits.set(&name, limit));
        limits
    })
}

prop_compose! {
    fn delegated()(
        limits in limits(),
        relations in collection::btree_map(text(), text(), 0..3),
        agents in 1..4_usize,
        optional in (option::of(text()), option::of(text()), option::of(name()), option::of(any::<i64>()), option::of(any::<u64>())),
        groups in collection::btree_set(text(), 0..3),
        attributes in collection::btree_map(text(), text(), 0..3),
        authority_known in any::<bool>(),
        issued in moment(),
    ) -> Delegation {
        let mut delegation = testing::delegation();
        let (instance, session, grant, auth_time, position) = optional;
        delegation.authority.elements[0].limits = limits;
        delegation.authority.elements[0].relations = relations;
        let mut hops: Vec<Hop> = delegation.chain.hops().cloned().collect();
        for number in 1..agents {
            let mut hop = hops[0].clone();
            hop.principal.kind = PrincipalKind::Agent;
            hop.principal.id = Id::new(&format!("sub-{number}")).unwrap();
            hop.instance = instance.clone();
            hop.authority = authority_known.then(|| delegation.authority.clone());
            hop.evidence = Evidence::NestedAct;
            hops.push(hop);
        }
        delegation.chain = Chain::new(hops, 8).unwrap();
        delegation.session = session;
        delegation.grant = grant;
        delegation.user.auth_time = auth_time;
        delegation.user.groups = groups;
        delegation.user.attributes = attributes;
        delegation.position = position;
        delegation.token.issued_at = issued;
        delegation.task.presence = None;
        delegation
    }
}

prop_compose! {
    fn asked()(
        delegation in delegated(),
        (now, parameters, facts, resource) in (moment(), parameters(), facts(), text()),
        headers in collection::btree_map("[a-z-]{1,8}", text(), 0..3),
        limits in collection::vec((text(), amount(), option::of(amount()), 1..99_999_u32, 0..8_usize), 0..3),
        (owner, issuer, id) in (text(), text(), name()),
    ) -> Question {
        let limit = |(name, max, used, seconds, hop): (String, Amount, Option<Amount>, u32, usize)| {
            LimitState { name, max, used, window: format!("PT{seconds}S").parse().unwrap(), hop }
        };
        let mut question = testing::question("ledger.decision", Arc::new(delegation));
        question.now = now;
        question.call.parameters = parameters;
        question.call.resource = resource;
        question.facts = facts;
        question.request.headers = headers;
        question.limits = limits.into_iter().map(limit).collect();
        let agent = Agent::clone(&question.agent);
        question.agent = Agent { owner, issuer, id, status: AgentStatus::Suspended, ..agent }.into();
        question
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_question_comes_back_from_its_records_equal(question in asked()) {
        let dir = tempfile::tempdir().unwrap();
        let mut drafts = [
            token_seen(&question.delegation, Some(&question.agent)).unwrap(),
            decided(&permitted(question.clone())).unwrap(),
        ];
        let (mut lines, mut rows) = (String::new(), String::new());
        for (draft, seq) in drafts.iter_mut().zip(0..) {
            lines += &format!("{}\n", draft.line(seq, Timestamp::UNIX_EPOCH, &[0; 32]).unwrap());
            rows += &format!("{}\n", draft.row(seq).unwrap().unwrap());
        }
        fs::write(dir.path().join("00000001.jsonl"), lines).unwrap();
        fs::write(dir.path().join("00000001.values"), rows).unwrap();
        let mut reader = SegmentReader::open(dir.path(), 1).unwrap();
        let token = reader.next().unwrap().unwrap();
        let record = reader.next().unwrap().unwrap();
        prop_assert_eq!(rebuild::question(&record, &token), Ok(question));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Permit,
    Deny,
    Settle,
    Restart,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Permit),
        2 => Just(Step::Deny),
        3 => Just(Step::Settle),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_appended_however_it_stops_it_verifies(steps in collection::vec(step(), 1..24), segment_max_bytes in 1_000..20_000_u64) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let opened = || try_open(LedgerSettings { segment_max_bytes, ..settings(dir.path()) });
            let delegation = Arc::new(testing::delegation());
            let mut kept = opened().await.unwrap();
            let mut open_calls = Vec::new();
            for (step, number) in steps.iter().zip(0..) {
                let question = kept.question(number, &delegation);
                match step {
                    Step::Permit => {
                        open_calls.push(kept.ledger.decided(permitted(question)).await.unwrap());
                    }
                    Step::Deny => drop(kept.ledger.decided(denied(question, Code::Stage, "no")).await.unwrap()),
                    Step::Settle => {
                        if let Some(receipt) = open_calls.pop() {
                            kept.ledger.settled(completed(receipt.id())).await.unwrap();
                        }
                    }
                    Step::Restart => {
                        kept.close().await;
                        kept = opened().await.unwrap();
                        open_calls.clear();
                    }
                    Step::Crash => {
                        kept.crash().await;
                        kept = opened().await.unwrap();
                        open_calls.clear();
                    }
                }
            }
            kept.close().await;
            let report = verify::verify(&dir.path().join("ledger"), &verify::Options::default(), |_| {}).unwrap();
            assert_eq!(report.open_calls, 0, "a closed ledger leaves no call open");
            assert_eq!((report.lines_after_last_head, report.erased, report.torn_bytes), (0, 0, 0));
        });
    }
}
