//! The runtime of generator and sink: tokio-uring with COOP_TASKRUN. DEFER_TASKRUN would hang it: it reads completions
//! without asking the kernel for them.

use std::future::Future;

/// Submission entries; the completion queue holds sixteen times as many.
const ENTRIES: u32 = 4096;

/// Runs `work` to its end on this thread.
///
/// # Panics
/// Where the kernel has no io_uring, or forbids it.
pub fn run<F: Future>(work: F) -> F::Output {
    let mut ring = tokio_uring::uring_builder();
    ring.setup_coop_taskrun().setup_cqsize(16 * ENTRIES);
    tokio_uring::builder().entries(ENTRIES).uring_builder(&ring).start(work)
}
