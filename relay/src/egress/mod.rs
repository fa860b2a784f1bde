//! Outbound: connections, their pool, the stream of a message to the upstream, and what came of it.

pub mod config;

pub use config::Config;
