//! The arguments of every verb, as clap reads them. Shapes only; nothing is done here.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::config::{Sources, duration_argument};

/// A high-throughput SMTP egress relay. Without a verb it runs.
#[derive(Debug, Parser)]
#[command(name = "ringpost", version, disable_help_subcommand = true)]
pub struct Arguments {
    /// Options of every verb.
    #[command(flatten)]
    pub common: Common,
    /// What to do; without it: run.
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// Where the configuration is read from. May stand before and after the verb.
#[derive(Debug, Clone, Default, Args)]
pub struct Common {
    /// The configuration file, in TOML.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A variable's value, before all other sources; may be repeated.
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

impl Common {
    /// What stood before the verb and what stood after it, together.
    #[must_use]
    pub fn and(self, after: Self) -> Self {
        let set = self.set.into_iter().chain(after.set).collect();
        Self { config: after.config.or(self.config), set }
    }

    /// The sources of the configuration of this process.
    #[must_use]
    pub fn sources(self) -> Sources {
        Sources::of_process(self.set, self.config)
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run in the foreground.
    Run {
        /// Options of every verb.
        #[command(flatten)]
        common: Common,
    },
    /// Print every mistake in the configuration; touch nothing.
    Check {
        /// Options of every verb.
        #[command(flatten)]
        common: Common,
    },
    /// Print the configuration in force as TOML, each line with where it came from.
    Config {
        /// Options of every verb.
        #[command(flatten)]
        common: Common,
    },
    /// Tell whether it is up, its sessions, queue, upstreams, gate and rates.
    Status {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Options of every verb.
        #[command(flatten)]
        common: Common,
    },
    /// Drain and stop.
    Stop {
        /// Options of every verb.
        #[command(flatten)]
        common: Common,
    },
    /// Read configuration, certificates and networks anew without dropping a session.
    Reload {
        /// Go back to the old configuration unless `ringpost confirm` follows within this time.
        #[arg(long, value_name = "AGE", value_parser = duration_argument)]
        confirm: Option<Duration>,
        /// Options of every verb.
        #[command(flatten)]
        common: Common,
    },
    /// Keep the configuration of the last `reload --confirm`.
    Confirm {
        /// Options of every verb.
        #[command(flatten)]
        common: Common,
    },
    /// Attempt every queued message now.
    Flush {
        /// Options of every verb.
        #[command(flatten)]
        common: Common,
    },
    /// Look at the queue and change it.
    #[command(subcommand)]
    Queue(QueueVerb),
    /// Look at the XDP gate and change its bans.
    #[command(subcommand)]
    Gate(GateVerb),
    /// Tell what would happen to a client: the gate's verdict, the daemon's, the rewrite, the route, the TLS level.
    Explain {
        /// The client's address, and the port it connects to.
        #[arg(value_name = "IP[:PORT]")]
        target: Target,
        /// The sender.
        #[arg(long, value_name = "ADDRESS")]
        from: Option<String>,
        /// The recipient.
        #[arg(long, value_name = "ADDRESS")]
        to: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Options of every verb.
        #[command(flatten)]
        common: Common,
    },
    /// Live terminal dashboard.
    Top {
        /// Options of every verb.
        #[command(flatten)]
        common: Common,
    },
    /// Connect to the upstream and show what it offers.
    Selftest {
        /// Send one message to this address.
        #[arg(long, value_name = "ADDRESS")]
        to: Option<String>,
        /// Options of every verb.
        #[command(flatten)]
        common: Common,
    },
    /// Print version, commit, gate and the kernel's abilities.
    Version,
}

/// What to do with the queue.
#[derive(Debug, Subcommand)]
pub enum QueueVerb {
    /// List messages.
    List {
        /// One JSON object a line, with the fields of `postqueue -j`.
        #[arg(long)]
        json: bool,
        /// Options of every verb.
        #[command(flatten)]
        common: Common,
    },
    /// Show one message.
    Show {
        /// Its queue id.
        id: String,
        /// Options of every verb.
        #[command(flatten)]
        common: Common,
    },
    /// Attempt no more.
    Hold(Selector),
    /// Attempt again what is held.
    Release(Selector),
    /// Drop without a notice.
    Delete(Selector),
    /// Attempt as if it were new.
    Requeue(Selector),
    /// Return to the sender.
    Bounce(Selector),
    /// Check every record of the spool and say what was found. Changes nothing; the relay may run meanwhile.
    Fsck {
        /// Options of every verb.
        #[command(flatten)]
        common: Common,
    },
}

/// Which messages: at least one way to tell.
#[derive(Debug, Args)]
#[group(skip)]
pub struct Selector {
    /// Their queue ids.
    #[arg(required_unless_present_any = ["all", "sender", "recipient", "domain", "older"])]
    pub ids: Vec<String>,
    /// All.
    #[arg(long, conflicts_with_all = ["ids", "sender", "recipient", "domain", "older"])]
    pub all: bool,
    /// Those of this sender.
    #[arg(long, value_name = "ADDRESS")]
    pub sender: Option<String>,
    /// Those to this recipient.
    #[arg(long, value_name = "ADDRESS")]
    pub recipient: Option<String>,
    /// Those to this domain.
    #[arg(long, value_name = "DOMAIN")]
    pub domain: Option<String>,
    /// Those that came longer ago than this.
    #[arg(long, value_name = "AGE", value_parser = duration_argument)]
    pub older: Option<Duration>,
    /// Options of every verb.
    #[command(flatten)]
    pub common: Common,
}

/// What to do with the gate.
#[derive(Debug, Subcommand)]
pub enum GateVerb {
    /// Where and how it is attached, and its counters.
    Status {
        /// Options of every verb.
        #[command(flatten)]
        common: Common,
    },
    /// Who was dropped lately.
    Drops {
        /// Options of every verb.
        #[command(flatten)]
        common: Common,
    },
    /// Ban a source.
    Ban {
        /// Its address.
        ip: IpAddr,
        /// For how long; without it, until the ban is lifted.
        #[arg(long = "for", value_name = "AGE", value_parser = duration_argument)]
        ban_for: Option<Duration>,
        /// Options of every verb.
        #[command(flatten)]
        common: Common,
    },
    /// Lift a ban.
    Unban {
        /// The source's address.
        ip: IpAddr,
        /// Options of every verb.
        #[command(flatten)]
        common: Common,
    },
    /// Who is banned.
    Bans {
        /// Options of every verb.
        #[command(flatten)]
        common: Common,
    },
    /// What happens, live.
    Trace {
        /// Options of every verb.
        #[command(flatten)]
        common: Common,
    },
}

/// A client, and perhaps the port that it connects to: `192.0.2.1`, `192.0.2.1:25`, `[2001:db8::1]:25`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// The client's address.
    pub ip: IpAddr,
    /// The port of ours.
    pub port: Option<u16>,
}

impl std::str::FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let whole = text.parse::<IpAddr>().map(|ip| Self { ip, port: None });
        let with_port = || text.parse::<SocketAddr>().map(|at| Self { ip: at.ip(), port: Some(at.port()) });
        whole.or_else(|_| with_port()).map_err(|_| "expected an address, or an address and a port".to_owned())
    }
}
