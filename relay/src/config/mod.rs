//! The configuration: from what was written (`raw`) to what is meant (`check`), each module's own `Config` in it.
//!
//! Every variable stands in one table (`variables`). All mistakes are found at once; with any, there is no
//! configuration: misspelled configuration never runs. Values are checked here and nowhere else; behaviour is
//! in the modules. Raw texts may be secrets: they are wiped when the check ends, and the daemon writes over the
//! environment block once it was read.

pub mod control;
pub mod features;
pub mod kind;
pub mod report;
pub mod variable;
pub mod variables;

mod addresses;
mod check;
mod checker;
mod effective;
mod file;
mod names;
mod raw;
mod reference;
mod values;

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use effective::Effective;
pub use raw::Sources;
pub use reference::reference;
pub use report::{Mistake, Warning};

use crate::{egress, gate, ingress, log, spool, tls};
use features::Features;

/// The whole configuration, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// The inbound side.
    pub ingress: ingress::Config,
    /// The outbound side.
    pub egress: egress::Config,
    /// TLS on both sides.
    pub tls: tls::Config,
    /// The durable queue.
    pub spool: spool::Config,
    /// The XDP gate.
    pub gate: gate::Config,
    /// The control plane.
    pub control: control::Config,
    /// The log.
    pub log: log::Config,
    /// `WORKERS`: data-plane threads; at least 1.
    pub workers: u16,
}

/// A configuration that may run.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What is meant.
    pub config: Config,
    /// What the operator should know all the same.
    pub warnings: Vec<Warning>,
    /// Every variable's value and where it came from, for `ringpost config`.
    pub effective: Effective,
}

/// A configuration that may not run.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Every mistake; never empty.
    pub mistakes: Vec<Mistake>,
    /// What the operator should know besides.
    pub warnings: Vec<Warning>,
}

/// What the host contributes to the defaults.
#[derive(Debug, Clone)]
pub struct Host {
    /// The system's host name.
    pub name: String,
    /// CPUs that this process may run on; at least 1.
    pub cpus: usize,
}

impl Host {
    /// The host that this process runs on.
    #[must_use]
    pub fn current() -> Self {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { name: name.trim().to_owned(), cpus }
    }
}

/// Reads and checks the whole configuration. Touches nothing.
///
/// # Errors
///
/// All mistakes, where there is any.
pub fn load(sources: &Sources, host: &Host) -> Result<Loaded, Refused> {
    check::check(&raw::Raw::gather(sources), host, Features::THIS_BUILD)
}

/// `CONTROL_SOCKET` alone: the verbs that talk to a running relay need no more, and work where the rest of the
/// configuration is wrong.
#[must_use]
pub fn control_socket(sources: &Sources) -> PathBuf {
    alone(sources, &variables::CONTROL_SOCKET).into()
}

/// `STATE_DIR` alone: for looking at a spool whatever the rest of the configuration says.
#[must_use]
pub fn state_dir(sources: &Sources) -> PathBuf {
    alone(sources, &variables::STATE_DIR).into()
}

/// `RELAY_HOST_NAME` alone, where it is written: for `sendmail`, which anybody may run.
#[must_use]
pub fn host_name(sources: &Sources) -> Option<String> {
    Some(alone(sources, &variables::RELAY_HOST_NAME)).filter(|name| !name.is_empty())
}

/// An address of `LISTEN_SMTP` that a program on this host can connect to; the port may be 0, any free one. `None`:
/// there is none.
#[must_use]
pub fn local_smtp(sources: &Sources) -> Option<SocketAddr> {
    let text = alone(sources, &variables::LISTEN_SMTP);
    let mut items = text.split([' ', ',', '\t', '\n']).filter(|item| !item.is_empty());
    items.find_map(|item| item.parse().ok()).map(reachable)
}

/// The address to connect to for one that is listened on: loopback, where that is every address.
#[must_use]
pub fn reachable(mut listening: SocketAddr) -> SocketAddr {
    if listening.ip().is_unspecified() {
        listening.set_ip(match listening {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    listening
}

/// What is written for one variable, or its default; the rest may be wrong.
fn alone(sources: &Sources, variable: &variable::Variable) -> String {
    match raw::Raw::gather(sources).lookup(variable) {
        raw::Lookup::Written(written) => written.text.trim().to_owned(),
        raw::Lookup::Unreadable | raw::Lookup::Absent => variable.default.to_owned(),
    }
}

/// A duration as the configuration takes it, for arguments of the verbs.
///
/// # Errors
///
/// What is expected.
pub fn duration_argument(text: &str) -> Result<Duration, String> {
    values::duration(text).map_err(|_| format!("expected {}", kind::Kind::Duration.expected()))
}

#[cfg(test)]
mod tests;
