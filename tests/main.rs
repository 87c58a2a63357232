//! Behaviour tests: the real binary driven through its public face, with real parts beside it.
//!
//! A new test goes into the module of the promise or command it is about. `support` starts the parts; one that is
//! missing prints `SKIPPED name: reason`, and is a failure under `.ci/run`.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test that cannot go on has to end there, and it is the test that looks at the clock"
)]

mod authority;
mod body;
mod bundles;
mod call;
mod candidate;
mod catalogue;
mod clients;
mod config;
mod corpus;
mod demo;
mod differential;
mod enrol;
mod events;
mod examples;
mod exchanged;
mod faults;
mod house;
mod hybrid;
mod issuance;
mod keys;
mod keys_misbehave;
mod limits;
mod listener;
mod logout;
mod management;
mod obligations;
mod observe;
mod openapi;
mod overload;
mod passthrough;
mod path;
mod pins;
mod policy;
mod policy_check;
mod policy_data;
mod policy_misbehaves;
mod policy_replay;
mod policy_test;
mod record;
mod reload;
mod retention;
mod revoke;
mod rotation;
mod shipping;
mod shutdown;
mod soak;
mod starters;
mod state;
mod support;
mod telemetry;
mod tls;
mod token;
mod tools;
mod trace;
mod trust;
mod upstream;
mod withdrawal;
