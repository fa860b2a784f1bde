//! The log: one line an event. No secret and no message content, ever.

pub mod config;

pub use config::Config;
