//! What the outbound side is configured by: checked values, ready to use. No behaviour.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::token::Shelf;
use crate::policy::rate::Rate;

/// Everything that the outbound side reads of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The name given in EHLO: `RELAY_HOST_NAME`.
    pub relay_host_name: Arc<str>,
    /// `EXT_RELAY_HOST` and `EXT_RELAY_PORT`: where mail goes.
    pub next_hop: NextHop,
    /// `OUTGOING_SMTP_LOGIN` and `OUTGOING_SMTP_PASSWORD`; none: `OUTGOING_SMTP_AUTH=off`, or `mx`.
    pub login: Option<Login>,
    /// `OUTGOING_SMTP_MECHANISM`; none: the best that is offered.
    pub mechanism: Option<Mechanism>,
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
    /// `MTA_STS`: whether the recipients' domains are asked for their policies.
    pub mta_sts: bool,
    /// `DNS_SERVERS`; empty: the system's.
    pub dns_servers: Vec<SocketAddr>,
    /// `DNS_TRUST_ANCHORS`: DNSKEY records in zone file form; none: the root's.
    pub dns_trust_anchors: Option<PathBuf>,
    /// `DKIM_DOMAIN`, `DKIM_SELECTOR` and `DKIM_KEY`.
    pub dkim: Option<Dkim>,
}

/// The login at the upstream.
#[derive(Debug, Clone)]
pub struct Login {
    /// `OUTGOING_SMTP_LOGIN`.
    pub name: Arc<str>,
    /// `OUTGOING_SMTP_PASSWORD`; with tokens, the one that is good now. One copy for all clones.
    pub password: Arc<SecretString>,
    /// Where access tokens lie that take the password's place; none: there are none.
    pub token: Option<Arc<Shelf>>,
    /// Whether it may be sent without TLS: `OUTGOING_SMTP_AUTH=plaintext`.
    pub plaintext: Plaintext,
}

impl Login {
    /// The login as it is good now; `None`: there is no token yet.
    #[must_use]
    pub fn now(&self) -> Option<Self> {
        match &self.token {
            Some(shelf) => Some(Self { password: Arc::new(shelf.token()?), ..self.clone() }),
            None => Some(self.clone()),
        }
    }
}

impl PartialEq for Login {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.plaintext == other.plaintext
            && self.token == other.token
            && self.password.expose_secret() == other.password.expose_secret()
    }
}

/// Whether the login may be sent without TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plaintext {
    /// Never.
    Refused,
    /// On purpose.
    Allowed,
}

/// How the login is proved to the upstream (RFC 4422).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// The old `AUTH LOGIN`.
    Login,
    /// RFC 2195.
    CramMd5,
    /// RFC 7677.
    ScramSha256,
    /// Google's and Microsoft's OAuth 2.0.
    Xoauth2,
    /// RFC 7628.
    Oauthbearer,
}

/// What messages are signed with (RFC 6376).
#[derive(Debug, Clone)]
pub struct Dkim {
    /// `DKIM_DOMAIN`.
    pub domain: Arc<str>,
    /// `DKIM_SELECTOR`.
    pub selector: Arc<str>,
    /// `DKIM_KEY`: the private key as PEM text.
    pub key: SecretString,
}

impl PartialEq for Dkim {
    fn eq(&self, other: &Self) -> bool {
        self.domain == other.domain
            && self.selector == other.selector
            && self.key.expose_secret() == other.key.expose_secret()
    }
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

impl UpstreamHost {
    /// The name alone, as certificates know it.
    #[must_use]
    pub fn name(&self) -> Arc<str> {
        match self {
            Self::Mx(name) | Self::Host(name) => Arc::clone(name),
            Self::Address(address) => address.to_string().into(),
        }
    }
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
