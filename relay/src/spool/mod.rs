//! The spool.
pub mod record;
pub mod entry;
mod wire;
