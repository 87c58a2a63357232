//! The target `redact`: what it checks is in `crates/proxy/src/fuzz.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    proxy::fuzz::redact(bytes);
});
