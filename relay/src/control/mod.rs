//! The control plane: control socket, HTTP admin, the verbs' answers. Nothing of the data plane waits for it.

pub mod config;

pub use config::Config;
