//! What the control plane is configured by: checked values, ready to use. No behaviour. It stands here because
//! `control` comes after `config` in the order of modules; `control` shows it as its own `Config`.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Everything that the control plane reads of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `LISTEN_ADMIN`; empty: closed.
    pub listen_admin: Vec<SocketAddr>,
    /// `CONTROL_SOCKET`.
    pub control_socket: PathBuf,
}
