//! The harness: starts the real daemon on free ports, scripts upstreams and clients, and judges what arrived.
//!
//! Everything waits for an event, bounded by one patience; nothing sleeps, nothing has a fixed port. It must
//! not know how the relay works inside: it holds it to its interface.

pub mod admin;
pub mod certificate;
pub mod client;
pub mod daemon;
pub mod dialog;
pub mod fuzz;
pub mod message;
pub mod namespace;
pub mod opensmtpd;
pub mod pipe;
pub mod postfix;
pub mod process;
pub mod resolver;
pub mod skip;
pub mod upstream;
pub mod verdict;
pub mod wait;
pub mod web;
pub mod wire;
pub mod zone;
