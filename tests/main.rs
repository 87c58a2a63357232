//! Behaviour tests: the real binary driven through its public face, with real parts beside it.
//!
//! A new test goes into the module of the promise or command it is about. `support` starts the parts; one that is
//! missing prints `SKIPPED name: reason`, and is a failure under `.ci/run`.

mod house;
