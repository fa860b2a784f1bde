//! Configuration, one assignment a line: what `ringpost_tests::fuzz` promises of them holds for any octets.
#![no_main]

libfuzzer_sys::fuzz_target!(|octets: &[u8]| ringpost_tests::fuzz::fuzz_config(octets));
