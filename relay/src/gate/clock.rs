//! Two facts of the kernel that the gate works with: its monotonic clock, and its ephemeral ports.
#![allow(unsafe_code, reason = "clock_gettime(2) is not in std")]

use std::ops::RangeInclusive;

/// Nanoseconds of CLOCK_MONOTONIC: not [`crate::io::clock`], whose zero is its own, but the clock that the kernel
/// program compares bans with.
#[must_use]
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes the struct; this clock exists everywhere, so it cannot fail.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Ports that the kernel gives to outgoing connections, and to which replies come back.
#[must_use]
pub fn ephemeral_ports() -> Option<RangeInclusive<u16>> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
    let mut ports = text.split_whitespace().map(str::parse);
    Some(ports.next()?.ok()?..=ports.next()?.ok()?)
}
