//! ringpost, a high-throughput SMTP egress relay.
//!
//! The modules stand in order: each imports only from those above it (checked by `cargo xtask tidy`).
//! `docs/ARCHITECTURE.md` tells the way of a message through them.

pub mod limits;
pub mod units;
pub mod policy;
pub mod io;
pub mod spool;
pub mod ingress;
pub mod egress;
