//! The real daemon between real peers. What this machine does not have is skipped visibly.
