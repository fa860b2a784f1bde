//! The real daemon killed and starved on real file systems; judged by a ledger that knows nothing of its inside.
//!
//! `cargo xtask crash` plays campaigns of this; in the test suite a short form of each runs.

mod disks;
mod faults;
mod kills;
mod ledger;
mod mounts;
