//! Inbound: listeners, sessions, bodies. It knows the `Sink` trait and `Custody`, never `egress` or `spool`.

pub mod admission;
pub mod config;
pub mod proxy;

pub use config::Config;
