//! The look-ups themselves, on the control plane's thread.
//!
//! One task takes questions from all workers; the same question asked by several is looked up once. Each look-up is a
//! task of its own, bounded in time as a whole (`limits::DNS_LOOKUP_TIMEOUT`) and in number.
//!
//! Names from mail are looked up as they are: the search list of `/etc/resolv.conf` is for `[name]` alone, which only the
//! operator writes. `/etc/hosts` counts for both, before DNS for addresses, and for a name whose exchangers cannot be
//! asked for.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::dnssec::TrustAnchors;
use hickory_resolver::proto::op::{Query as DnsQuery, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Hosts, ResolverBuilder, TokioResolver};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::dane::Prover;
use super::sts::{self, Policies};
use super::{Failure, Host, Kind, PolicyQuery, ProofQuery, Query, Request, Resolution};
use crate::https::{Fault, Location};
use crate::limits;
use crate::tls::client::Dane;

/// The look-ups of the process. Runs on tokio.
pub struct Service {
    requests: flume::Receiver<Request>,
    lookups: Arc<Lookups>,
    policies: Arc<Policies>,
    anchors: Option<Arc<TrustAnchors>>,
}

/// Who waits for a name.
type Waiting = HashMap<(Arc<str>, Kind), Vec<flume::Sender<Answer>>>;
type Answer = Result<Resolution, Failure>;
type Done = ((Arc<str>, Kind), Answer);

impl Service {
    /// A service that asks these name servers; the system's where there are none.
    #[must_use]
    pub fn new(requests: flume::Receiver<Request>, servers: &[SocketAddr]) -> Self {
        Self {
            requests,
            lookups: Arc::new(Lookups::new(servers, None)),
            policies: Arc::default(),
            anchors: None,
        }
    }

    /// Trusts the DNSSEC keys in this file instead of the root's. May block.
    ///
    /// # Errors
    /// Why they cannot be used.
    pub fn trusting(mut self, servers: &[SocketAddr], path: &Path) -> Result<Self, String> {
        let anchors = TrustAnchors::from_file(path).map_err(|error| error.to_string())?;
        if anchors.is_empty() {
            return Err("holds no DNSKEY record".to_owned());
        }
        self.anchors = Some(Arc::new(anchors));
        self.lookups = Arc::new(Lookups::new(servers, self.anchors.as_ref()));
        Ok(self)
    }

    /// Keeps MTA-STS policies in this file, and begins with those in it. May block.
    #[must_use]
    pub fn keeping_policies_in(mut self, path: &Path) -> Self {
        self.policies = Arc::new(Policies::kept_in(path));
        self
    }

    /// Answers questions until nobody can ask any more.
    pub async fn run(mut self) {
        let mut waiting = Waiting::new();
        let mut running: JoinSet<Done> = JoinSet::new();
        let mut proving: JoinSet<()> = JoinSet::new();
        loop {
            let has_room = running.len() + proving.len() < limits::DNS_LOOKUPS_MAX;
            tokio::select! {
                request = self.requests.recv_async(), if has_room => match request {
                    Ok(Request::Look(query)) => self.look(query, &mut waiting, &mut running),
                    Ok(Request::Prove(query)) => self.prove(query, &mut proving),
                    Ok(Request::Policy(query)) => self.find_policy(query, &mut proving),
                    Ok(Request::Configure(servers)) => {
                        self.lookups = Arc::new(Lookups::new(&servers, self.anchors.as_ref()));
                    }
                    Err(flume::RecvError::Disconnected) => return,
                },
                // A proof gives its answer itself.
                Some(_) = proving.join_next() => {}
                Some(done) = running.join_next() => {
                    // A look-up that panicked leaves its askers without an answer: their channel closes.
                    if let Ok((question, answer)) = done {
                        for asker in waiting.remove(&question).unwrap_or_default() {
                            let _ = asker.send(answer.clone());
                        }
                    }
                }
            }
        }
    }

    fn prove(&self, query: ProofQuery, proving: &mut JoinSet<()>) {
        let lookups = Arc::clone(&self.lookups);
        proving.spawn(async move {
            let proof = timeout(limits::DNS_LOOKUP_TIMEOUT, lookups.prover.prove(&query)).await;
            let late = |_elapsed| {
                let reason = "name servers did not answer in time".to_owned();
                (Dane::Unknown(reason), limits::DNS_TRANSIENT_TTL)
            };
            // Whoever asked may be gone.
            let _ = query.answer.send(proof.unwrap_or_else(late));
        });
    }

    fn find_policy(&self, query: PolicyQuery, proving: &mut JoinSet<()>) {
        let (lookups, policies) = (Arc::clone(&self.lookups), Arc::clone(&self.policies));
        proving.spawn(async move {
            let PolicyQuery { domain, authorities, answer } = query;
            let record = timeout(limits::DNS_LOOKUP_TIMEOUT, lookups.sts_record(&domain)).await;
            let fetch = async {
                let location = sts::location_of(&domain);
                let addresses = timeout(limits::DNS_LOOKUP_TIMEOUT, lookups.web(&location)).await;
                let addresses =
                    addresses.unwrap_or_else(|_elapsed| Err(NO_ANSWER.to_owned())).map_err(Fault)?;
                sts::fetch(&location, &addresses, &authorities).await
            };
            let found = policies.of(&domain, record.unwrap_or(sts::Record::Failed), fetch).await;
            // Whoever asked may be gone.
            let _ = answer.send(found);
        });
    }

    fn look(&self, query: Query, waiting: &mut Waiting, running: &mut JoinSet<Done>) {
        let question = (query.name, query.kind);
        if let Some(askers) = waiting.get_mut(&question) {
            askers.push(query.answer);
            return;
        }
        waiting.insert(question.clone(), vec![query.answer]);
        let lookups = Arc::clone(&self.lookups);
        running.spawn(async move {
            let answer = timeout(limits::DNS_LOOKUP_TIMEOUT, lookups.resolve(&question.0, question.1)).await;
            let late = |_elapsed| Err(Failure::Transient("name servers did not answer in time".to_owned()));
            (question, answer.unwrap_or_else(late))
        });
    }
}

/// One set of name servers and the system's files as they were read.
struct Lookups {
    /// `None`: the system's configuration is unreadable; every look-up that needs DNS fails for the moment.
    resolver: Option<TokioResolver>,
    hosts: Arc<Hosts>,
    prover: Prover,
}

/// The addresses of one name and how long they are valid.
struct Addresses {
    addresses: Vec<IpAddr>,
    valid_until: Instant,
}

/// What a name has of one record type.
enum Records {
    Some(Lookup),
    /// The name exists, but not with this type.
    None,
    NoSuchName,
    Transient(String),
}

impl Lookups {
    fn new(servers: &[SocketAddr], anchors: Option<&Arc<TrustAnchors>>) -> Self {
        let hosts = Arc::new(Hosts::from_system().unwrap_or_default());
        let prover = Prover::new(servers, &hosts, anchors);
        Self { resolver: resolver(servers, &hosts), hosts, prover }
    }

    async fn resolve(&self, name: &Arc<str>, kind: Kind) -> Answer {
        match kind {
            Kind::AddressOnly => {
                let found = self.addresses(parse(name, Search::Allowed)?).await?;
                Ok(resolution(vec![(Arc::clone(name), 0, found)]))
            }
            Kind::MxThenAddress => self.exchangers(name).await,
        }
    }

    async fn exchangers(&self, name: &Arc<str>) -> Answer {
        let absolute = parse(name, Search::Never)?;
        let lookup = match self.records(absolute.clone(), RecordType::MX).await {
            Records::Some(lookup) => lookup,
            // RFC 5321 §5.1: without an MX record the name itself is the exchanger. That it does not exist, its
            // addresses tell as well: it may stand in /etc/hosts.
            Records::None | Records::NoSuchName => return self.implicit(name, absolute).await,
            Records::Transient(_) if self.is_in_hosts(&absolute) => {
                return self.implicit(name, absolute).await;
            }
            Records::Transient(reason) => return Err(Failure::Transient(reason)),
        };
        let exchangers = exchangers(&lookup);
        if exchangers.is_empty() {
            return match has_null_mx(&lookup) {
                true => Err(Failure::NullMx),
                false => self.implicit(name, absolute).await,
            };
        }
        let valid_until = Instant::from_std(lookup.valid_until());
        let mut found = self.hosts_of(exchangers).await?;
        found.iter_mut().for_each(|(_, _, host)| host.valid_until = host.valid_until.min(valid_until));
        Ok(resolution(found))
    }

    /// The name as its own exchanger.
    async fn implicit(&self, name: &Arc<str>, absolute: Name) -> Answer {
        let found = self.addresses(absolute).await?;
        Ok(resolution(vec![(Arc::clone(name), 0, found)]))
    }

    /// The addresses of all exchangers that have any, in the same order.
    async fn hosts_of(
        &self,
        exchangers: Vec<(u16, Name)>,
    ) -> Result<Vec<(Arc<str>, u16, Addresses)>, Failure> {
        let mut found = Vec::new();
        let mut reason = None;
        let mut addresses = 0;
        for (preference, name) in exchangers {
            if addresses >= limits::UPSTREAM_ADDRESSES_MAX {
                break;
            }
            match self.addresses(name.clone()).await {
                Ok(host) => {
                    addresses += host.addresses.len();
                    found.push((text(&name), preference, host));
                }
                Err(Failure::Transient(text)) => reason = Some(text),
                Err(Failure::NoSuchName | Failure::NullMx) => {}
            }
        }
        if found.is_empty() {
            let reason = reason.unwrap_or_else(|| "no mail exchanger has an address".to_owned());
            return Err(Failure::Transient(reason));
        }
        Ok(found)
    }

    /// IPv4 and IPv6 addresses of a name. One kind is enough where the other fails.
    async fn addresses(&self, name: Name) -> Result<Addresses, Failure> {
        let (v4, v6) =
            tokio::join!(self.records(name.clone(), RecordType::A), self.records(name, RecordType::AAAA));
        let mut failure = None;
        let mut found: [Vec<IpAddr>; 2] = Default::default();
        let mut valid_until = Instant::now() + limits::DNS_TTL_MAX;
        for (records, addresses) in [v4, v6].into_iter().zip(&mut found) {
            match records {
                Records::Some(lookup) => {
                    addresses.extend(lookup.answers().iter().filter_map(|record| record.data.ip_addr()));
                    valid_until = valid_until.min(Instant::from_std(lookup.valid_until()));
                }
                Records::Transient(reason) => failure = Some(Failure::Transient(reason)),
                Records::None | Records::NoSuchName => {}
            }
        }
        let [v4, v6] = found;
        let mut addresses = by_turns(v4, v6);
        addresses.truncate(limits::UPSTREAM_ADDRESSES_MAX);
        match failure {
            _ if !addresses.is_empty() => Ok(Addresses { addresses, valid_until }),
            Some(failure) => Err(failure),
            None => Err(Failure::NoSuchName),
        }
    }

    async fn records(&self, name: Name, kind: RecordType) -> Records {
        let Some(resolver) = &self.resolver else {
            return self.hosts.lookup_static_host(&DnsQuery::query(name, kind)).map_or_else(
                || Records::Transient("no name servers: /etc/resolv.conf is unreadable".to_owned()),
                Records::Some,
            );
        };
        match resolver.lookup(name, kind).await {
            Ok(lookup) if lookup.answers().iter().any(|record| record.record_type() == kind) => {
                Records::Some(lookup)
            }
            Ok(_) => Records::None,
            Err(error) => Records::failed(&error),
        }
    }

    /// RFC 8461 §3.1: the TXT record at `_mta-sts`.
    async fn sts_record(&self, domain: &str) -> sts::Record {
        let Ok(name) = parse(&format!("_mta-sts.{domain}"), Search::Never) else { return sts::Record::None };
        match self.records(name, RecordType::TXT).await {
            Records::Some(lookup) => {
                let texts: Vec<String> = lookup.answers().iter().filter_map(text_of).collect();
                let valid_for =
                    Instant::from_std(lookup.valid_until()).saturating_duration_since(Instant::now());
                let id = sts::id_of(texts.iter().map(String::as_str));
                id.map_or(sts::Record::None, |id| sts::Record::Some(id, valid_for))
            }
            Records::None | Records::NoSuchName => sts::Record::None,
            Records::Transient(_) => sts::Record::Failed,
        }
    }

    /// The addresses of a web server.
    async fn web(&self, location: &Location) -> Result<Vec<SocketAddr>, String> {
        let name = parse(&location.host, Search::Never).map_err(|failure| format!("{failure:?}"))?;
        let found =
            self.addresses(name).await.map_err(|failure| format!("{}: {failure:?}", location.host))?;
        Ok(found.addresses.into_iter().map(|address| SocketAddr::new(address, location.port)).collect())
    }

    fn is_in_hosts(&self, name: &Name) -> bool {
        [RecordType::A, RecordType::AAAA]
            .iter()
            .any(|&kind| self.hosts.lookup_static_host(&DnsQuery::query(name.clone(), kind)).is_some())
    }
}

impl Records {
    fn failed(error: &NetError) -> Self {
        match error {
            NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => {
                Self::NoSuchName
            }
            NetError::Dns(DnsError::NoRecordsFound(none)) if none.response_code == ResponseCode::NoError => {
                Self::None
            }
            other => Self::Transient(other.to_string()),
        }
    }
}

/// Whether the search list of the system counts for a name.
#[derive(Clone, Copy, PartialEq)]
enum Search {
    Allowed,
    Never,
}

/// The strings of a TXT record in one (RFC 8461 §3.1).
fn text_of(record: &Record) -> Option<String> {
    let RData::TXT(text) = &record.data else { return None };
    String::from_utf8(text.txt_data.concat()).ok()
}

const NO_ANSWER: &str = "name servers did not answer in time";

fn parse(name: &str, search: Search) -> Result<Name, Failure> {
    let mut parsed = Name::from_utf8(name).map_err(|_| Failure::NoSuchName)?;
    if search == Search::Never {
        parsed.set_fqdn(true);
    }
    Ok(parsed)
}

fn resolver(servers: &[SocketAddr], hosts: &Arc<Hosts>) -> Option<TokioResolver> {
    let mut resolver = builder(servers)?.build().ok()?;
    resolver.set_hosts(Arc::clone(hosts));
    Some(resolver)
}

/// A resolver in the making that asks these name servers; the system's where there are none.
pub(super) fn builder(servers: &[SocketAddr]) -> Option<ResolverBuilder<TokioRuntimeProvider>> {
    let (config, mut options) = if servers.is_empty() {
        read_system_conf().ok()?
    } else {
        (
            ResolverConfig::from_parts(None, Vec::new(), servers.iter().map(name_server).collect()),
            ResolverOpts::default(),
        )
    };
    options.timeout = limits::DNS_QUERY_TIMEOUT;
    options.cache_size = limits::DNS_CACHE_NAMES_MAX as u64;
    options.positive_max_ttl = Some(limits::DNS_TTL_MAX);
    options.negative_max_ttl = Some(limits::DNS_NEGATIVE_TTL);
    options.use_hosts_file = ResolveHosts::Always;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    Some(builder)
}

fn name_server(server: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    NameServerConfig::new(server.ip(), true, connections.into())
}

/// The exchangers in order of preference, without the root, which is no host (RFC 7505 §3).
fn exchangers(lookup: &Lookup) -> Vec<(u16, Name)> {
    let mut exchangers: Vec<(u16, Name)> = mx_records(lookup).filter(|(_, name)| !name.is_root()).collect();
    exchangers.sort_by_key(|(preference, _)| *preference);
    exchangers.truncate(limits::DNS_EXCHANGERS_MAX);
    exchangers
}

fn has_null_mx(lookup: &Lookup) -> bool {
    mx_records(lookup).any(|(_, name)| name.is_root())
}

fn mx_records(lookup: &Lookup) -> impl Iterator<Item = (u16, Name)> {
    lookup.answers().iter().filter_map(|record| match &record.data {
        RData::MX(mx) => Some((mx.preference, mx.exchange.clone())),
        _ => None,
    })
}

/// IPv4 and IPv6 alternately, so that a family without a route costs one failed attempt between two good ones.
/// IPv4 goes first: more of the world's mail hosts accept us there (reverse names, reputation).
fn by_turns(v4: Vec<IpAddr>, v6: Vec<IpAddr>) -> Vec<IpAddr> {
    let mut addresses = Vec::with_capacity(v4.len() + v6.len());
    let (mut v4, mut v6) = (v4.into_iter(), v6.into_iter());
    loop {
        let (one, other) = (v4.next(), v6.next());
        if one.is_none() && other.is_none() {
            return addresses;
        }
        addresses.extend(one);
        addresses.extend(other);
    }
}

/// Hosts with their addresses as a resolution, bounded and with its time clamped.
fn resolution(found: Vec<(Arc<str>, u16, Addresses)>) -> Resolution {
    let now = Instant::now();
    let mut valid_for = limits::DNS_TTL_MAX;
    let mut room = limits::UPSTREAM_ADDRESSES_MAX;
    let mut hosts = Vec::with_capacity(found.len());
    for (name, preference, Addresses { mut addresses, valid_until }) in found {
        valid_for = valid_for.min(valid_until.saturating_duration_since(now));
        addresses.truncate(room);
        room -= addresses.len();
        if !addresses.is_empty() {
            hosts.push(Host { name, preference, addresses });
        }
    }
    Resolution { hosts, valid_for: valid_for.max(limits::DNS_TTL_MIN) }
}

fn text(name: &Name) -> Arc<str> {
    name.to_utf8().trim_end_matches('.').into()
}
