//! Outbound: connections, their pool, the stream of a message to the upstream, and what came of it.

pub mod config;
pub mod health;
pub mod permit;
pub mod waiting;

pub use config::Config;
