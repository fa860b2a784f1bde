//! What the verifier walks: recorded, and not to grow unseen. Instructions do not jitter as nanoseconds do.

use ringpost::gate::loaded::{Entry, Loaded};

use crate::object;

/// Instructions that the verifier of kernel 6.18 processed for the linear entry point. Whoever makes the program
/// larger on purpose writes the new number here.
const VERIFIED: u32 = 118_404;

#[test]
fn the_verifier_walks_no_more_than_ten_percent_more() {
    let loaded = Loaded::new(&object!()).unwrap_or_else(|error| panic!("{error}"));
    let info = loaded.program(Entry::Linear).unwrap().info().unwrap();
    let Some(verified) = info.verified_instruction_count() else {
        ringpost_tests::skip!("this kernel does not tell (before 5.16)");
    };
    println!("{verified} verified instructions, {VERIFIED} recorded");
    assert!(verified <= VERIFIED + VERIFIED / 10, "{verified} verified instructions, {VERIFIED} recorded");
}
