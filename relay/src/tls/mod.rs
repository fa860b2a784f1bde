//! TLS on both sides: rustls configurations, verify levels, certificates and their reload, the record pump.
//! No sockets: it turns octets into octets.

pub mod config;

pub use config::Config;
