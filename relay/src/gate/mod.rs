//! The user side of the XDP gate: load, attach, lists, counters, bans. It only saves work: the daemon's own
//! checks are the authority.

pub mod config;
pub mod loaded;

pub use config::Config;
