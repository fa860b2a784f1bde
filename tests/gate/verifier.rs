//! What the verifier walks: recorded, and not to grow unseen. Instructions do not jitter as nanoseconds do.

use ringpost::gate::loaded::{Entry, Loaded};

use crate::object;

/// Instructions that the verifier processed for the linear entry point, by kernel. Whoever makes the program larger
/// on purpose writes the new numbers here; `cargo xtask gate-kernels` tells those of other kernels.
const VERIFIED: &[(&str, u32)] = &[("6.1.", 44_117), ("6.12.", 45_178), ("6.18.", 39_182), ("7.2.", 37_212)];

#[test]
fn the_verifier_walks_no_more_than_ten_percent_more() {
    let loaded = Loaded::new(&object!()).unwrap_or_else(|error| panic!("{error}"));
    let info = loaded.program(Entry::Linear).unwrap().info().unwrap();
    let Some(verified) = info.verified_instruction_count() else {
        ringpost_tests::skip!("this kernel does not tell (before 5.16)");
    };
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    println!("{verified} verified instructions");
    let Some((_, recorded)) = VERIFIED.iter().find(|(kernel, _)| release.starts_with(kernel)) else {
        ringpost_tests::skip!("nothing recorded for kernel {}", release.trim());
    };
    assert!(verified <= recorded + recorded / 10, "{verified} verified instructions, {recorded} recorded");
}
