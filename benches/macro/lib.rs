//! The load generator, the sink and the peers that `cargo xtask bench` measures. Independent of the runtime under test.
