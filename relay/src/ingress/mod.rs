//! Inbound: listeners, sessions, bodies. It knows the `Sink` trait and `Custody`, never `egress` or `spool`.

pub mod config;

pub use config::Config;
