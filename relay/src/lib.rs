//! ringpost, a high-throughput SMTP egress relay.
//!
//! The modules stand in order: each imports only from those above it (checked by `cargo xtask tidy`).
//! `docs/ARCHITECTURE.md` tells the way of a message through them.

/// The commit that this was built from; `unknown` outside a repository.
pub const COMMIT: &str = env!("RINGPOST_COMMIT");

pub mod limits;
pub mod units;
pub mod meter;
pub mod smtp;
pub mod trace;
pub mod envelope;
pub mod policy;
pub mod io;
pub mod tls;
pub mod https;
pub mod resolve;
pub mod spool;
pub mod custody;
pub mod ingress;
pub mod egress;
pub mod gate;
pub mod log;
pub mod orders;
pub mod worker;
pub mod config;
pub mod control;
pub mod daemon;
pub mod selftest;
pub mod cli;
