//! Whose token is this, and is it theirs to present: verification, keys, minting.
//!
//! `verifier` joins the pure line of checks (`verify`, `check/`) with the keys that `refresh` fetches; `claims` is
//! the wire form that both verifying and minting use, so that they cannot drift apart.

pub mod config;
pub mod issuer;

pub mod algorithm;
pub mod claims;
pub mod keys;
pub mod mint;

mod check;
mod read;
pub mod refusal;
mod verify;

mod cache;
pub mod refresh;
pub mod verifier;

pub mod assertion;
pub mod events;
pub mod kept;
pub mod logout;
pub mod possession;
pub mod subject;
pub mod transaction;

pub use algorithm::Algorithm;
pub use assertion::{
    ClientAssertion, SIDECAR_ASSERTION_TYPE, claimed_client, verify_client_assertion, verify_sidecar_assertion,
};
pub use claims::{ActClaims, ActorClaims, Audience, DelegationClaims, HopClaims, Profile};
pub use config::{ConfigError, IssuerConfig};
pub use events::{
    Ended, EventRules, MAX_EVENT_AGE, NoEvents, SECURITY_EVENT_TYPE, SecurityEvent, SecurityEvents, claimed_transmitter,
};
pub use issuer::{Issuer, KeySource};
pub use kept::KeptKey;
pub use keys::{InvalidKeySet, KeySet};
pub use logout::Logout;
pub use mint::{Compact, MintError, SigningKey};
pub use possession::{POSSESSION_TYPE, Possession, prove_possession, verify_possession};
pub use refresh::{KeyClients, KeyStatus};
pub use refusal::{Rejection, Seen};
pub use subject::{DelegatedSubject, SubjectAudiences, UserSubject, VerifiedSubject};
pub use transaction::{TRANSACTION_TOKEN_LIFETIME, TRANSACTION_TOKEN_TYPE, Transaction, TransactionSigner};
pub use verifier::{Defaults, Presented, Proof, Verified, Verifier, VerifierSettings};

/// The largest compact token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

#[cfg(test)]
mod testing;
