//! What the control plane is configured by. Defined by `config`, which stands before `control`.

pub use crate::config::control::Config;
