//! The spool: messages that the relay has taken custody of, on stable storage.
//!
//! | module | holds |
//! | --- | --- |
//! | [`config`] | what an operator may set |
//! | [`record`], [`entry`] | records, envelopes and states as octets on disk: pure |
//! | `segment`, `reserve` | which segments are used, spare, or may be used again; who may open the last ones |
//! | `log`, `writer`, `batch`, `draft` | one log per worker, natural group commit |
//! | `ledger`, `debts`, `states` | a worker's books; what the disk has not taken and is owed |
//! | `keep`, `aim` | segments made ahead, retired and emptied; long-deferred messages moved to files of their own |
//! | `read`, `amend` | messages back from the disk; an operator's changes beside running deliveries |
//! | [`recover`](mod@recover), `scan`, `shard` | taking over at start, and `queue fsck` |
//! | [`schedule`] | what is due: pure |
//!
//! **Layout of the directory** (mode 0700): `format-1`; `segments/NNNNNNNN.seg`, the logs; `archive/ID.msg`, one message
//! each; `quarantine/`, octets that should have been records.
//!
//! **What holds.** A [`Receipt`] exists only for a message whose record is on stable storage. A message that has one is in
//! the index or is settled, and after a restart it is found again unless it was settled. A message that is settled may come
//! back after a crash only if its tombstone was not on the disk yet: delivered twice, never lost.
//!
//! What it must not do: speak SMTP, decide routes, read a clock, or build notices.

/// The name of the spool's directory below `STATE_DIR`.
pub const DIRECTORY: &str = "spool";

pub mod config;
pub mod entry;
pub mod record;
pub mod recover;
pub mod schedule;

mod aim;
mod amend;
mod batch;
mod company;
#[cfg(test)]
mod crash;
mod debts;
mod draft;
#[cfg(test)]
mod drive;
#[cfg(test)]
mod full;
mod index;
mod keep;
mod ledger;
mod log;
mod payload;
mod read;
mod reserve;
mod scan;
mod segment;
mod shard;
mod states;
#[cfg(test)]
mod tests;
mod wire;
mod writer;

pub use config::Config;

pub use batch::{Next, Receipt, Refusal, Ticket};
pub use draft::Draft;
pub use index::{Keys, Summary};
pub use log::{Counters, Health, Spool, Terms};
pub use read::{Body, Message, ReadFault};
pub use recover::recover;
pub use scan::Damage;
pub use segment::{Catalogue, Geometry};
pub use shard::{Berths, RecoverFault, Recovered, Report, Setup, Shard, Touch};
