//! Frames: what `ringpost_tests::verdict` promises of them holds for any octets.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ringpost_tests::verdict::fuzz_verdict(octets));
