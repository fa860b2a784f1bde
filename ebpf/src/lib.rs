//! The map ABI and the verdict of the gate, `no_std`: the same source runs in the kernel and in host tests.
#![no_std]
