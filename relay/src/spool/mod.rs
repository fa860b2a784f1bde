//! The durable queue: what was accepted and is not yet settled. It knows files and records, never SMTP.

pub mod config;

pub use config::Config;
