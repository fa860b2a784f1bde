//! `cargo xtask VERB`: every developer verb, one file a verb. It must not hold logic that the relay needs.

fn main() {}
