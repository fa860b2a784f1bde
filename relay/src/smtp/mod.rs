//! SMTP without input or output: machines and codecs over octets.
//!
//! Nothing here is async or knows a socket, a clock, a log, a metric or the configuration.

pub mod body;
pub mod client;
pub mod encode;
pub mod reply;
