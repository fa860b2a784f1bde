//! Names to addresses: mail exchangers and hosts, for workers.
//!
//! A worker holds a [`Resolver`]: a cache of its own, and a channel to the one [`Service`] on the control plane's
//! thread, which does the look-ups. A worker never waits for a name that it knows; a name whose time is over is asked
//! again, and where that fails for the moment, what was known before is used on ([`cache`]).
//!
//! What counts as known: RFC 5321 §5.1 (exchangers in order of preference, at random among equals, the name itself
//! where there are none), RFC 7505 (a null MX takes no mail). Every failure but these is transient (a name server
//! that fails must never bounce mail), and "no such name" is left to the caller to judge.
//!
//! Must not: open a connection to an upstream, or let a peer's name grow memory without a bound.

pub mod cache;
mod dane;
pub mod service;
pub mod sts;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

pub use cache::Cache;
pub use service::Service;
pub use sts::Policy;

use crate::io::clock;
use crate::limits;
use crate::tls::client::Dane;
use crate::tls::rule::Authorities;
use crate::units::Moment;

/// How a name is to be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `name`: its mail exchangers, else its own addresses.
    MxThenAddress,
    /// `[name]`: its own addresses.
    AddressOnly,
}

/// Where the mail of a name goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The hosts, in order of preference, equals in random order; each with at least one address.
    pub hosts: Vec<Host>,
    /// How long this may be used, within `limits::DNS_TTL_MIN` and `limits::DNS_TTL_MAX`.
    pub valid_for: Duration,
}

/// One host that takes mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name, without the root's dot.
    pub name: Arc<str>,
    /// The preference of its MX record, lower first; 0 without one.
    pub preference: u16,
    /// Its addresses, IPv4 and IPv6 by turns, IPv4 first.
    pub addresses: Vec<IpAddr>,
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// For the moment; the text tells the log why.
    Transient(String),
    /// The name does not exist, or has neither exchanger nor address.
    NoSuchName,
    /// The domain says that it takes no mail (RFC 7505): `556 5.1.10`.
    NullMx,
}

/// One question of a worker.
#[derive(Debug)]
pub struct Query {
    /// The name, without the root's dot.
    pub name: Arc<str>,
    /// How it is looked up.
    pub kind: Kind,
    /// Where the answer goes.
    pub answer: flume::Sender<Result<Resolution, Failure>>,
}

/// One question of a worker about the TLSA records of a host.
#[derive(Debug)]
pub struct ProofQuery {
    /// The host, without the root's dot.
    pub host: Arc<str>,
    /// The port at which it takes mail.
    pub port: u16,
    /// The domain whose MX records must be signed too, where that is asked for.
    pub signed_route: Option<Arc<str>>,
    /// Where the answer goes, with how long it may be used.
    pub answer: flume::Sender<(Dane, Duration)>,
}

/// One question of a worker about the MTA-STS policy of a domain.
#[derive(Debug)]
pub struct PolicyQuery {
    /// The domain, without the root's dot.
    pub domain: Arc<str>,
    /// Whom the web server's certificate is trusted by.
    pub authorities: Arc<Authorities>,
    /// Where the answer goes, with how long it may be used.
    pub answer: flume::Sender<(Option<Arc<Policy>>, Duration)>,
}

/// Whether DNSSEC proves some records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// All of them.
    Yes,
    /// Not all of them, as their zone says itself.
    No,
}

/// What is asked of the service.
#[derive(Debug)]
pub enum Request {
    /// A name.
    Look(Query),
    /// TLSA records.
    Prove(ProofQuery),
    /// An MTA-STS policy.
    Policy(PolicyQuery),
    /// Use these name servers from now on, the system's where there are none, and read the system's files again.
    Configure(Vec<SocketAddr>),
}

/// The channel to the service: the first end is for workers and reloads, the second for [`Service::new`].
#[must_use]
pub fn channel() -> (flume::Sender<Request>, flume::Receiver<Request>) {
    flume::bounded(limits::DNS_QUERIES_MAX)
}

/// A policy, or that none is known.
type PolicyFound = Option<Arc<Policy>>;
/// Host, port, and the domain whose MX records must be signed.
type ProofKey = (Arc<str>, u16, Option<Arc<str>>);

/// A worker's way to addresses. It belongs to one thread.
#[derive(Debug)]
pub struct Resolver {
    service: flume::Sender<Request>,
    cache: RefCell<Cache>,
    proofs: RefCell<HashMap<ProofKey, (Dane, Moment)>>,
    policies: RefCell<HashMap<Arc<str>, (PolicyFound, Moment)>>,
    random: Cell<u64>,
}

impl Resolver {
    /// One that asks the service behind this channel.
    #[must_use]
    pub fn new(service: flume::Sender<Request>) -> Self {
        // Not for secrets: the order among equals only has to differ between workers and processes.
        let random = Cell::new(RandomState::new().hash_one(0) | 1);
        Self {
            service,
            cache: RefCell::default(),
            proofs: RefCell::default(),
            policies: RefCell::default(),
            random,
        }
    }

    /// The hosts of a name. Waits for the service where the name is not known, at most
    /// `limits::DNS_LOOKUP_TIMEOUT`.
    ///
    /// # Errors
    /// Why there is none; also kept for a short while.
    pub async fn resolve(&self, name: &Arc<str>, kind: Kind) -> Result<Resolution, Failure> {
        let known = self.cache.borrow().fresh(name, kind, clock::now());
        let mut result = match known {
            Some(known) => known,
            None => {
                let answer = self.ask(name, kind).await;
                self.cache.borrow_mut().keep(name, kind, answer, clock::now())
            }
        };
        if let Ok(resolution) = &mut result {
            shuffle_equals(&mut resolution.hosts, || self.random());
        }
        result
    }

    /// What DNSSEC proves of the TLSA records of a host (RFC 7672); with `signed_route`, only where the MX records of
    /// that domain are proved too. Waits as [`Self::resolve`] does.
    pub async fn dane(&self, host: &Arc<str>, port: u16, signed_route: Option<&Arc<str>>) -> Dane {
        let key = (Arc::clone(host), port, signed_route.cloned());
        let now = clock::now();
        if let Some((dane, until)) = self.proofs.borrow().get(&key)
            && now < *until
        {
            return dane.clone();
        }
        let (dane, valid_for) = self.ask_for_proof(&key).await;
        let mut proofs = self.proofs.borrow_mut();
        if proofs.len() >= limits::DNS_CACHE_NAMES_MAX {
            proofs.retain(|_, (_, until)| now < *until);
        }
        // Where all of them are fresh still, the newest is asked for again each time.
        if proofs.len() < limits::DNS_CACHE_NAMES_MAX {
            proofs.insert(key, (dane.clone(), clock::now().after(valid_for)));
        }
        dane
    }

    async fn ask_for_proof(&self, (host, port, route): &ProofKey) -> (Dane, Duration) {
        let (answer, answered) = flume::bounded(1);
        let query = ProofQuery { host: Arc::clone(host), port: *port, signed_route: route.clone(), answer };
        let failed = |reason: &str| (Dane::Unknown(reason.to_owned()), limits::DNS_TRANSIENT_TTL);
        match self.service.try_send(Request::Prove(query)) {
            Ok(()) => answered.recv_async().await.unwrap_or_else(|_| failed("the resolver has ended")),
            Err(_) => failed("too many look-ups"),
        }
    }

    /// The MTA-STS policy of a domain (RFC 8461); `None`: none is known. Waits for the web where it must be fetched.
    pub async fn policy(&self, domain: &Arc<str>, authorities: &Arc<Authorities>) -> Option<Arc<Policy>> {
        let now = clock::now();
        if let Some((policy, until)) = self.policies.borrow().get(domain)
            && now < *until
        {
            return policy.clone();
        }
        let (answer, answered) = flume::bounded(1);
        let query = PolicyQuery { domain: Arc::clone(domain), authorities: Arc::clone(authorities), answer };
        let nothing = (None, limits::DNS_TRANSIENT_TTL);
        let (policy, valid_for) = match self.service.try_send(Request::Policy(query)) {
            Ok(()) => answered.recv_async().await.unwrap_or(nothing),
            Err(_) => nothing,
        };
        let mut policies = self.policies.borrow_mut();
        if policies.len() >= limits::DNS_CACHE_NAMES_MAX {
            policies.retain(|_, (_, until)| now < *until);
        }
        if policies.len() < limits::DNS_CACHE_NAMES_MAX {
            policies.insert(Arc::clone(domain), (policy.clone(), clock::now().after(valid_for)));
        }
        policy
    }

    /// Forgets everything, as a reload or a flush asks.
    pub fn forget(&self) {
        self.proofs.borrow_mut().clear();
        self.policies.borrow_mut().clear();
        self.cache.borrow_mut().clear();
    }

    async fn ask(&self, name: &Arc<str>, kind: Kind) -> Result<Resolution, Failure> {
        let (answer, answered) = flume::bounded(1);
        let query = Query { name: Arc::clone(name), kind, answer };
        let gone = |_| Failure::Transient("the resolver has ended".to_owned());
        match self.service.try_send(Request::Look(query)) {
            Ok(()) => answered.recv_async().await.map_err(gone)?,
            Err(flume::TrySendError::Full(_)) => Err(Failure::Transient("too many look-ups".to_owned())),
            Err(flume::TrySendError::Disconnected(_)) => gone(flume::RecvError::Disconnected).into(),
        }
    }

    /// xorshift64: good enough to spread load.
    fn random(&self) -> u64 {
        let mut state = self.random.get();
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.random.set(state);
        state
    }
}

impl From<Failure> for Result<Resolution, Failure> {
    fn from(failure: Failure) -> Self {
        Err(failure)
    }
}

/// Puts hosts of equal preference in random order; the order of preferences stays (RFC 5321 §5.1).
fn shuffle_equals(hosts: &mut [Host], mut random: impl FnMut() -> u64) {
    for equals in hosts.chunk_by_mut(|a, b| a.preference == b.preference) {
        for last in (1..equals.len()).rev() {
            let chosen = usize::try_from(random() % (last as u64 + 1)).unwrap_or(0);
            equals.swap(last, chosen);
        }
    }
}

#[cfg(test)]
mod tests;
