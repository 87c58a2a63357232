//! Tokens: whatever an agent presents as one, and whatever claims a trusted key might have signed.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use serde_json::Value;
use token::{
    Algorithm, IssuerConfig, KeyClients, KeySet, Presented, Proof, SigningKey, SubjectAudiences, Verifier,
    VerifierSettings,
};

const ISSUER: &str = "https://authority.example";
const AUDIENCE: &str = "urn:example:countersign:support";
/// The moment at which tokens are presented; the seeds are of about then.
const NOW: i64 = 1_795_000_000;

struct World {
    key: SigningKey,
    verifier: Verifier,
    runtime: tokio::runtime::Runtime,
}

thread_local! {
    static WORLD: World = World::new();
}

impl World {
    fn new() -> Self {
        let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
        let set = serde_json::to_vec(&token::mint::key_set([&key])).unwrap();
        let keys = Arc::new(KeySet::parse(&set, &BTreeSet::from([Algorithm::EdDsa])).unwrap());
        let config: IssuerConfig =
            serde_json::from_str(&format!(r#"{{"issuer":"{ISSUER}","role":"delegation","tenants":["acme"]}}"#))
                .unwrap();
        let settings = VerifierSettings {
            issuers: vec![config.resolve().unwrap().with_keys(keys)],
            audiences: BTreeSet::from([AUDIENCE.to_owned()]),
            tenants: BTreeSet::from([model::Id::new("acme").unwrap()]),
            defaults: token::Defaults::default(),
            cache_entries: 10,
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let verifier = runtime.block_on(async { Verifier::new(settings, &clients(), &net::Tasks::new()) }).unwrap();
        Self { key, verifier, runtime }
    }

    fn verify(&self, compact: &str) -> Option<Arc<model::Delegation>> {
        let presented = Presented { compact, bearer_allowed: true, proof: Proof::None };
        let verified = self.runtime.block_on(self.verifier.verify(presented, now()));
        verified.ok().map(|verified| Arc::clone(verified.delegation()))
    }
}

/// Never used: the keys are at hand.
fn clients() -> KeyClients {
    let tls = net::client_config(net::Roots::Pem(include_bytes!("nobody.pem").to_vec())).unwrap();
    let client = |trust| net::HttpClient::new(net::ClientOptions::new(tls.clone(), trust));
    KeyClients { operator: client(net::UrlTrust::Operator), learned: client(net::UrlTrust::Learned) }
}

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

/// `r` and a compact token, which nobody signed; or `c` and claims, which the issuer did sign. What is verified has an
/// agent, is of this issuer and tenant, is not over and never widens.
pub(super) fn token(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    WORLD.with(|world| match mode {
        b'r' => {
            let Ok(compact) = std::str::from_utf8(rest) else { return };
            token::claimed_client(compact).ok();
            assert!(world.verify(compact).is_none(), "a token that nobody signed: {compact}");
        }
        b'c' => {
            let Ok(claims) = serde_json::from_slice::<Value>(rest) else { return };
            let Ok(compact) = world.key.sign("at+jwt", &claims) else { return };
            if let Some(delegation) = world.verify(compact.expose()) {
                assert_eq!((delegation.token.issuer.as_str(), delegation.tenant.as_str()), (ISSUER, "acme"));
                assert!(
                    delegation.chain.agents().count() >= 1 && delegation.chain.widening().is_none(),
                    "{delegation:?}"
                );
                let skew = jiff::SignedDuration::from_secs(5);
                assert!(delegation.token.expires_at + skew > now() && delegation.token.issued_at - skew <= now());
                let kept = serde_json::to_value(&*delegation).unwrap();
                assert_eq!(serde_json::from_value::<model::Delegation>(kept).unwrap(), *delegation);
            }
            let audiences = SubjectAudiences { users: [AUDIENCE.to_owned()].into(), ..SubjectAudiences::default() };
            world.runtime.block_on(world.verifier.verify_subject(compact.expose(), &audiences, now())).ok();
        }
        _ => {}
    });
}

/// What a token with these claims, which the issuer did sign, proves.
pub(super) fn verified(claims: &Value) -> Option<Arc<model::Delegation>> {
    WORLD.with(|world| world.verify(world.key.sign("at+jwt", claims).ok()?.expose()))
}

/// A key set from a stranger: with no algorithm allowed no key is taken.
pub(super) fn keys(bytes: &[u8]) {
    let all = [Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa, Algorithm::Rs256, Algorithm::Ps256];
    let taken = KeySet::parse(bytes, &BTreeSet::from(all)).map_or(0, |set| set.len());
    let none = KeySet::parse(bytes, &BTreeSet::new()).map_or(0, |set| set.len());
    assert!(none == 0 && taken <= bytes.len(), "{none} and {taken} keys");
}
