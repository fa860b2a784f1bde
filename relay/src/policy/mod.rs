//! Pure decisions: facts and tables in, a verdict out. No I/O, no clock (time is an argument), no reply text.

pub mod acl;
pub mod rate;
