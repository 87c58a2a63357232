//! The target `chain`: what it checks is in `src/`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| countersign_fuzz::run("chain", bytes));
