//! The XDP program: lends the verdict a frame, the maps and the clock, and carries it out.
//!
//! Two entry points over the same inline code: `ringpost_gate`, and `ringpost_frags` for interfaces whose frames
//! span several buffers (kernel 5.18). It must not decide anything itself: what it decides, no host test sees.
//! Built by `cargo xtask ebpf` for the BPF target only; on the host it is an empty program.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    allow(
        unsafe_code,
        unreachable_pub,
        reason = "a frame, maps and entry points are raw memory to the kernel"
    )
)]

#[cfg(target_arch = "bpf")]
mod program;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
