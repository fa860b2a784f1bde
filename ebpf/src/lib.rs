//! The gate's map ABI and its whole verdict, `no_std`: one source for the kernel and for the host.
//!
//! [`abi`] names what the program and the daemon share, [`trie`] reads a compiled table, [`packet`] finds the
//! TCP header of a frame, [`verdict`] judges it, [`reset`] builds the answer of `XDP_ACTION=reset`. The program
//! in `main.rs` only lends them a frame, maps and a clock. `compile` (host only) writes the tables that
//! [`trie`] reads.
//!
//! What it must not do: allocate, panic, or touch memory except through [`packet::Packet`] and a table's units;
//! drop what is not a TCP packet to a listener of this host (invariant 7). What it cannot parse it passes.
#![cfg_attr(target_arch = "bpf", no_std)]

pub mod abi;
pub mod trie;
pub mod packet;
pub mod verdict;
pub mod reset;
#[cfg(not(target_arch = "bpf"))]
pub mod compile;
