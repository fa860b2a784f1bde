//! TLS on both sides: rustls configurations, verify levels, certificates and their reload, the record pump.
//!
//! [`records`] turns octets into records and back and owns no socket; [`link`] is a connection that may or may not be
//! inside TLS, and all that sessions and upstream connections know of it. [`server`] and [`client`] say by which
//! certificates and rules a handshake goes. The crypto provider is `ring`, or `aws-lc-rs` by cargo feature, handed to every
//! configuration explicitly.
//!
//! Must not: fall back to plaintext (whoever makes a connection decides that), offer early data or versions before 1.2.

pub mod client;
pub mod config;
pub mod link;
pub mod records;
pub mod rule;
pub mod server;
pub mod x509;

use std::fmt;
use std::sync::Arc;

pub use config::Config;
pub use link::Link;
pub use records::{Agreed, Fault, Records};

/// TLS ready for use on both sides: what a configuration came to once its files were read.
#[derive(Debug, Clone)]
pub struct Armour {
    /// For clients; `None`: no TLS is offered to them.
    pub acceptor: Option<Arc<server::Acceptor>>,
    /// For upstreams.
    pub demand: Arc<client::Demand>,
}

impl Default for Armour {
    /// No TLS on either side.
    fn default() -> Self {
        Self { acceptor: None, demand: client::Demand::none() }
    }
}

impl Armour {
    /// Reads the files that the configuration names, and makes the certificate that it does not. May block.
    ///
    /// # Errors
    /// What cannot be used, and why.
    pub fn load(config: &Config, tickets: &server::Tickets) -> Result<Self, Unready> {
        let acceptor = server::Acceptor::load(config, tickets).map_err(Unready::Acceptor)?;
        let demand = client::Demand::load(config).map_err(Unready::Demand)?;
        Ok(Self { acceptor: Some(acceptor), demand })
    }
}

/// What is wrong with the files that a configuration names: certificate and key, authorities. Touches nothing.
#[must_use]
pub fn mistakes(config: &Config) -> Vec<Unready> {
    let certificate = config.certificate.as_ref().and_then(|pems| server::read(pems).err());
    let demand = client::Demand::load(config).err();
    certificate.map(Unready::Acceptor).into_iter().chain(demand.map(Unready::Demand)).collect()
}

/// Why TLS is not ready: a mistake in the configuration or its files.
#[derive(Debug)]
pub enum Unready {
    /// The certificate.
    Acceptor(server::Fault),
    /// The authorities.
    Demand(String),
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acceptor(fault) => fault.fmt(f),
            Self::Demand(why) => f.write_str(why),
        }
    }
}
