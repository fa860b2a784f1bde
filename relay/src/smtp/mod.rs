//! SMTP as values: parsers, replies, and the two machines that speak it.
//!
//! Nothing here is async or touches a socket, file, clock, log, metric or configuration. Octets go in, events and
//! octets come out; who drives a machine decides when to read, write and wait.

pub mod body;
pub mod encode;
pub mod reply;
pub mod line;
pub mod path;
pub mod params;
pub mod command;
pub mod auth;
pub mod extension;
pub mod server;
pub mod client;
