//! What the outbound side is configured by: checked values, ready to use. No behaviour.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::policy::rate::Rate;

/// Everything that the outbound side reads of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The name given in EHLO: `RELAY_HOST_NAME`.
    pub relay_host_name: Arc<str>,
    /// `EXT_RELAY_HOST` and `EXT_RELAY_PORT`: where mail goes.
    pub next_hop: NextHop,
    /// `DELIVERY_PATIENCE`.
    pub delivery_patience: Patience,
    /// `UPSTREAM_CONNECTIONS` per upstream, whole process; at least 1.
    pub upstream_connections: u32,
    /// `UPSTREAM_IDLE`: how long an idle connection is kept.
    pub upstream_idle: Duration,
    /// `UPSTREAM_MESSAGES_PER_CONNECTION`; at least 1.
    pub upstream_messages_per_connection: u32,
    /// `UPSTREAM_RATE`.
    pub upstream_rate: Option<Rate>,
    /// `EIGHTBIT`.
    pub eightbit: EightBit,
    /// `DNS_SERVERS`; empty: the system's.
    pub dns_servers: Vec<SocketAddr>,
}

/// Where mail goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextHop {
    /// These upstreams, in order of preference; never empty.
    Upstreams(Vec<UpstreamAddress>),
    /// The recipients' own mail exchangers (`mx`), on this port.
    RecipientMx {
        /// `EXT_RELAY_PORT`.
        port: u16,
    },
}

/// One entry of `EXT_RELAY_HOST`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UpstreamAddress {
    /// The host.
    pub host: UpstreamHost,
    /// The port. 465 means TLS from the first octet.
    pub port: u16,
}

impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            UpstreamHost::Mx(name) => write!(f, "{name}:{}", self.port),
            UpstreamHost::Host(name) => write!(f, "[{name}]:{}", self.port),
            UpstreamHost::Address(address) => write!(f, "[{address}]:{}", self.port),
        }
    }
}

/// The host of an upstream, by how it is looked up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UpstreamHost {
    /// `name`: MX first, then addresses.
    Mx(Arc<str>),
    /// `[name]`: addresses only.
    Host(Arc<str>),
    /// An address literal, with or without brackets.
    Address(IpAddr),
}

/// When the client hears 250.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// `forever`: never the spool, a pure streaming relay.
    Forever,
    /// How long after the end of data the upstream's own verdict is waited for; zero: always the spool.
    Within(Duration),
}

/// What becomes of 8-bit content for an upstream without 8BITMIME.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EightBit {
    /// It is returned with 5.6.3.
    Bounce,
    /// It is passed on.
    Pass,
}
