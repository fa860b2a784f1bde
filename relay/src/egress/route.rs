//! Where a transaction goes: the pools of the configured upstreams, or of the recipient's domain, and their addresses.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::config::{Config, NextHop, UpstreamAddress, UpstreamHost};
use super::connection::Connection;
use super::permit::PermitBook;
use super::pool::Pool;
use super::protection::Protection;
use crate::io::Stream;
use crate::limits::UPSTREAM_ADDRESSES_MAX;
use crate::resolve::{Failure, Kind, Resolver};
use crate::smtp::params::Rcpt;
use crate::smtp::reply::{self, Reply};
use crate::units::Moment;

/// An upstream: how it is looked up, and the connections to it.
pub struct Destination<S> {
    /// Host and port.
    pub address: UpstreamAddress,
    /// Its connections.
    pub pool: Rc<Pool<S>>,
    /// What its connections are good for.
    pub protection: Protection,
}

impl<S> Clone for Destination<S> {
    fn clone(&self) -> Self {
        Self { address: self.address.clone(), pool: Rc::clone(&self.pool), protection: self.protection }
    }
}

/// All upstreams of one worker.
pub struct Routes<S> {
    /// In order of preference; empty for delivery to the recipients' own exchangers.
    fixed: Vec<Destination<S>>,
    /// By recipient domain, in lower case.
    domains: HashMap<String, Destination<S>>,
    /// The same places once more, for messages that ask for more TLS or for less: their connections are not for others.
    apart: HashMap<(UpstreamAddress, Protection), Destination<S>>,
    connections_max: u32,
    mx_port: u16,
}

/// Domains whose pools are kept; unused ones make room.
const DOMAINS_KEPT: usize = 1024;

impl<S: Stream> Routes<S> {
    /// The upstreams of a configuration.
    #[must_use]
    pub fn new(config: &Config, permits: &PermitBook) -> Self {
        let mut routes = Self {
            fixed: Vec::new(),
            domains: HashMap::new(),
            apart: HashMap::new(),
            connections_max: config.upstream_connections,
            mx_port: 25,
        };
        // A fresh table has no connections that could be left over.
        let _none = routes.configure(config, permits);
        routes
    }

    /// Takes over another configuration. Pools of upstreams that stay are kept; the idle connections of the others come
    /// back, to take leave of.
    #[must_use]
    pub fn configure(&mut self, config: &Config, permits: &PermitBook) -> Vec<Box<Connection<S>>> {
        self.connections_max = config.upstream_connections;
        let mut former = std::mem::take(&mut self.fixed);
        former.extend(self.apart.drain().map(|(_, destination)| destination));
        if let NextHop::RecipientMx { port } = config.next_hop {
            self.mx_port = port;
        } else {
            former.extend(self.domains.drain().map(|(_, destination)| destination));
        }
        if let NextHop::Upstreams(upstreams) = &config.next_hop {
            self.fixed =
                upstreams.iter().map(|address| self.kept_or_new(&mut former, address, permits)).collect();
        }
        former.iter().flat_map(|destination| destination.pool.drain()).collect()
    }

    fn kept_or_new(
        &self,
        former: &mut Vec<Destination<S>>,
        address: &UpstreamAddress,
        permits: &PermitBook,
    ) -> Destination<S> {
        let kept = former.iter().position(|destination| {
            destination.address == *address && destination.protection == Protection::Configured
        });
        let kept = kept.map(|position| former.swap_remove(position));
        // Asking for the permits again puts a changed bound in force.
        let fresh = self.destination(address.clone(), permits);
        kept.unwrap_or(fresh)
    }

    fn destination(&self, address: UpstreamAddress, permits: &PermitBook) -> Destination<S> {
        let name: Arc<str> = address.to_string().into();
        let permits = permits.of(&name, self.connections_max);
        Destination { address, pool: Rc::new(Pool::new(name, permits)), protection: Protection::Configured }
    }

    /// Where a recipient's mail goes, in order of preference.
    pub fn pools(&mut self, recipient: &Rcpt, permits: &PermitBook) -> Vec<Destination<S>> {
        if !self.fixed.is_empty() {
            return self.fixed.clone();
        }
        let Some(domain) = domain_of(recipient) else { return Vec::new() };
        if let Some(destination) = self.domains.get(&domain) {
            return vec![destination.clone()];
        }
        if self.domains.len() >= DOMAINS_KEPT {
            self.domains.retain(|_, destination| !destination.pool.is_unused());
        }
        let destination = self.destination(exchanger_of(&domain, self.mx_port), permits);
        self.domains.insert(domain, destination.clone());
        vec![destination]
    }

    /// The upstream that a transaction for this recipient would be tried at now; `Err`: none is worth trying, `Ok(None)`:
    /// nothing is known of it yet.
    #[allow(clippy::result_unit_err, reason = "there is nothing more to say")]
    pub fn prospect(&self, recipient: &Rcpt, now: Moment) -> Result<Option<Rc<Pool<S>>>, ()> {
        if self.fixed.is_empty() {
            let known = domain_of(recipient).and_then(|domain| self.domains.get(&domain));
            return match known {
                Some(destination) if !destination.pool.is_worth_trying(now) => Err(()),
                other => Ok(other.map(|destination| Rc::clone(&destination.pool))),
            };
        }
        let up = self.fixed.iter().find(|destination| destination.pool.is_worth_trying(now));
        up.map(|destination| Some(Rc::clone(&destination.pool))).ok_or(())
    }

    /// Likewise, for a message that is to be protected so.
    pub fn protected(
        &mut self,
        recipient: &Rcpt,
        protection: Protection,
        permits: &PermitBook,
    ) -> Vec<Destination<S>> {
        let mut places = self.pools(recipient, permits);
        if protection != Protection::Configured {
            if self.apart.len() >= DOMAINS_KEPT {
                self.apart.retain(|_, destination| !destination.pool.is_unused());
            }
            for place in &mut places {
                let fresh = self.destination(place.address.clone(), permits);
                let known = self.apart.entry((place.address.clone(), protection));
                *place = known.or_insert(Destination { protection, ..fresh }).clone();
            }
        }
        places
    }

    /// Whether every recipient goes to the same place.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        !self.fixed.is_empty()
    }

    /// Looks after every pool; gives back connections to take leave of.
    pub fn look(&mut self, now: Moment, idle_max: Duration, hold_max: Duration) -> Vec<Box<Connection<S>>> {
        self.all().flat_map(|destination| destination.pool.look(now, idle_max, hold_max)).collect()
    }

    /// Takes every idle connection out.
    #[must_use]
    pub fn drain(&self) -> Vec<Box<Connection<S>>> {
        self.all().flat_map(|destination| destination.pool.drain()).collect()
    }

    /// Reads every pool, with its label in the metrics: the name of a configured upstream, or `mx`.
    pub fn for_each(&self, mut read: impl FnMut(&str, &Pool<S>)) {
        self.fixed.iter().for_each(|destination| read(&destination.pool.name, &destination.pool));
        self.domains.values().for_each(|destination| read("mx", &destination.pool));
        let is_fixed = self.is_fixed();
        self.apart.values().for_each(|destination| {
            read(if is_fixed { &destination.pool.name } else { "mx" }, &destination.pool);
        });
    }

    fn all(&self) -> impl Iterator<Item = &Destination<S>> {
        self.fixed.iter().chain(self.domains.values()).chain(self.apart.values())
    }
}

/// The domain of a recipient in lower case; `None` for `<Postmaster>`, which has none.
#[must_use]
pub fn domain_of(recipient: &Rcpt) -> Option<String> {
    recipient.forward_path.mailbox().domain().map(str::to_ascii_lowercase)
}

/// RFC 5321 §4.1.3: an address literal is its own exchanger.
fn exchanger_of(domain: &str, port: u16) -> UpstreamAddress {
    let literal = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = literal.and_then(|text| text.strip_prefix("ipv6:").unwrap_or(text).parse().ok());
    let host = address.map_or_else(|| UpstreamHost::Mx(domain.into()), UpstreamHost::Address);
    UpstreamAddress { host, port }
}

/// Why an upstream has no address, and what the client hears if trying elsewhere is of no use.
#[derive(Debug)]
pub struct Unresolved {
    /// For the log.
    pub reason: String,
    /// The reply, where the name itself is the mistake.
    pub refusal: Option<Reply>,
}

/// The addresses of an upstream, in the order in which they are to be tried (RFC 5321 §5.1).
///
/// # Errors
/// Why there is none.
pub async fn addresses(
    upstream: &UpstreamAddress,
    resolver: &Resolver,
) -> Result<Vec<(Arc<str>, SocketAddr)>, Unresolved> {
    let (name, kind) = match &upstream.host {
        UpstreamHost::Address(address) => {
            return Ok(vec![(address.to_string().into(), SocketAddr::new(*address, upstream.port))]);
        }
        UpstreamHost::Mx(name) => (name, Kind::MxThenAddress),
        UpstreamHost::Host(name) => (name, Kind::AddressOnly),
    };
    let resolution = resolver.resolve(name, kind).await.map_err(unresolved)?;
    let addresses = resolution.hosts.iter().flat_map(|host| {
        host.addresses
            .iter()
            .map(|&address| (Arc::clone(&host.name), SocketAddr::new(address, upstream.port)))
    });
    Ok(addresses.take(UPSTREAM_ADDRESSES_MAX).collect())
}

fn unresolved(failure: Failure) -> Unresolved {
    match failure {
        Failure::NullMx => {
            Unresolved { reason: "the domain takes no mail".to_owned(), refusal: Some(reply::NULL_MX) }
        }
        Failure::NoSuchName => Unresolved { reason: "no such name".to_owned(), refusal: None },
        Failure::Transient(reason) => Unresolved { reason, refusal: None },
    }
}
