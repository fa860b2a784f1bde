//! The gate against the kernel: golden packets and random ones by BPF_PROG_TEST_RUN, and end to end over veth in
//! network namespaces. Without root or without an object each test says so and is skipped.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the failure")]

mod bans;
mod daemon;
mod golden;
mod kernel;
mod lab;
mod packet;
mod property;
mod reload;
mod reloads;
mod reset;
mod site;
mod stand;
mod standing;
mod traffic;
mod verifier;
