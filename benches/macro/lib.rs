//! The load generator, the sink and the peers that `cargo xtask bench` measures. Independent of the runtime under test:
//! generator and sink are on tokio-uring, and nothing here may call into the relay's data plane.
//!
//! `mail` makes messages whose content the sink can check, `load` and `idle` send them, `sink` takes them (its protocol is
//! the value machine `receiver`). `process` and `peer` start what is compared and read its cost from procfs, `measure` puts
//! one load on one peer, `report` takes medians over rounds and prints them.

pub mod clock;
pub mod mail;
pub mod reply;
pub mod size;
pub mod ring;
pub mod process;
pub mod link;
pub mod load;
pub mod idle;
pub mod receiver;
pub mod sink;
pub mod peer;
pub mod children;
pub mod measure;
pub mod host;
pub mod report;
