//! TLSA records with the proof of DNSSEC (RFC 7672 §2.2), looked up and validated here, whatever the name server says
//! of its own validation.
//!
//! The order is that of the RFC: the host's addresses first. Where they are not signed, nobody can promise anything
//! about the host, and its TLSA records are not asked for: name servers of unsigned zones often choke on them. What is
//! bogus or cannot be had stops the mail for now: an attacker who can suppress an answer must not get plaintext for it.
//!
//! It must not give a record that is not proved.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::dnssec::TrustAnchors;
use hickory_resolver::proto::op::Query as DnsQuery;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Hosts, TokioResolver};
use tokio::time::Instant;

use super::service::builder;
use super::{ProofQuery, Signed};
use crate::limits;
use crate::tls::client::Dane;
use crate::tls::rule::Tlsa;

/// Looks up and validates.
pub(super) struct Prover {
    /// `None`: no name servers are known.
    resolver: Option<TokioResolver>,
    hosts: Arc<Hosts>,
}

/// What a name has of one record type, with its proof.
enum Found {
    /// Records, and whether all of them are proved.
    Some(Lookup, Signed),
    None,
    Failed(String),
}

impl Prover {
    /// A prover that asks these name servers (none: the system's) and trusts these keys (none: the root's).
    pub(super) fn new(
        servers: &[SocketAddr],
        hosts: &Arc<Hosts>,
        anchors: Option<&Arc<TrustAnchors>>,
    ) -> Self {
        let resolver = builder(servers).and_then(|mut builder| {
            builder.options_mut().validate = true;
            if let Some(anchors) = anchors {
                builder = builder.with_trust_anchor(Arc::clone(anchors));
            }
            builder.build().ok()
        });
        Self { resolver, hosts: Arc::clone(hosts) }
    }

    /// What DNS says of a host's TLSA records, and how long that may be used.
    pub(super) async fn prove(&self, query: &ProofQuery) -> (Dane, Duration) {
        match self.look(query).await {
            Ok((dane, valid_until)) => {
                let left = valid_until.saturating_duration_since(Instant::now());
                (dane, left.clamp(limits::DNS_TTL_MIN, limits::DNS_TTL_MAX))
            }
            Err(reason) => (Dane::Unknown(reason), limits::DNS_TRANSIENT_TTL),
        }
    }

    async fn look(&self, query: &ProofQuery) -> Result<(Dane, Instant), String> {
        let none = |valid_until| Ok((Dane::None, valid_until));
        let for_now = Instant::now() + limits::DNS_NEGATIVE_TTL;
        let Some(host) = absolute(&query.host) else { return none(for_now) };
        if self.is_in_hosts(&host) {
            return none(for_now);
        }
        if let Some(route) = &query.signed_route
            && !self.is_signed_route(route).await?
        {
            return none(for_now);
        }
        let Some((base, valid_until)) = self.base(&host).await? else { return none(for_now) };
        // RFC 7672 §2.1.3: the end of a chain of aliases first, then where it begins.
        let mut names = vec![base];
        if names[0] != host {
            names.push(host);
        }
        for name in names {
            let Some(name) = service_of(&name, query.port) else { continue };
            match self.find(name, RecordType::TLSA).await {
                Found::Some(lookup, Signed::Yes) => {
                    let until = valid_until.min(Instant::from_std(lookup.valid_until()));
                    return Ok((dane_of(&lookup), until));
                }
                Found::Some(_, Signed::No) | Found::None => {}
                Found::Failed(reason) => return Err(reason),
            }
        }
        none(valid_until.min(for_now))
    }

    /// Whether the way from a domain to its exchangers is proved. A domain without exchangers is its own.
    async fn is_signed_route(&self, domain: &str) -> Result<bool, String> {
        let Some(domain) = absolute(domain) else { return Ok(false) };
        match self.find(domain, RecordType::MX).await {
            Found::Some(_, Signed::Yes) | Found::None => Ok(true),
            Found::Some(_, Signed::No) => Ok(false),
            Found::Failed(reason) => Err(reason),
        }
    }

    /// The TLSA base domain: the name that the host's addresses stand at. `None`: they are not proved.
    async fn base(&self, host: &Name) -> Result<Option<(Name, Instant)>, String> {
        let (v4, v6) =
            tokio::join!(self.find(host.clone(), RecordType::A), self.find(host.clone(), RecordType::AAAA));
        let mut failure = None;
        let mut found = None;
        for (records, kind) in [(v4, RecordType::A), (v6, RecordType::AAAA)] {
            match records {
                Found::Some(lookup, Signed::Yes) => {
                    let at = lookup.answers().iter().find(|record| record.record_type() == kind);
                    let name = at.map_or_else(|| host.clone(), |record| record.name.clone());
                    found = Some((name, Instant::from_std(lookup.valid_until())));
                }
                Found::Some(_, Signed::No) => return Ok(None),
                Found::None => {}
                Found::Failed(reason) => failure = Some(reason),
            }
        }
        match (found, failure) {
            (None, Some(reason)) => Err(reason),
            (found, _) => Ok(found),
        }
    }

    async fn find(&self, name: Name, kind: RecordType) -> Found {
        let Some(resolver) = &self.resolver else {
            return Found::Failed("no name servers: /etc/resolv.conf is unreadable".to_owned());
        };
        match resolver.lookup(name, kind).await {
            Ok(lookup) if lookup.answers().iter().any(|record| record.record_type() == kind) => {
                let is_signed = lookup.answers().iter().all(|record| record.proof.is_secure());
                Found::Some(lookup, if is_signed { Signed::Yes } else { Signed::No })
            }
            Ok(_) => Found::None,
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) if is_denial(none.response_code) => {
                Found::None
            }
            Err(error) => Found::Failed(error.to_string()),
        }
    }

    fn is_in_hosts(&self, name: &Name) -> bool {
        [RecordType::A, RecordType::AAAA]
            .iter()
            .any(|&kind| self.hosts.lookup_static_host(&DnsQuery::query(name.clone(), kind)).is_some())
    }
}

fn is_denial(code: hickory_resolver::proto::op::ResponseCode) -> bool {
    use hickory_resolver::proto::op::ResponseCode;
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}

fn dane_of(lookup: &Lookup) -> Dane {
    let records: Vec<Tlsa> = lookup
        .answers()
        .iter()
        .filter_map(|record| match &record.data {
            RData::TLSA(tlsa) => Tlsa::usable(
                tlsa.cert_usage.into(),
                tlsa.selector.into(),
                tlsa.matching.into(),
                &tlsa.cert_data,
            ),
            _ => None,
        })
        .take(limits::TLSA_RECORDS_MAX)
        .collect();
    if records.is_empty() { Dane::Unusable } else { Dane::Records(records.into()) }
}

/// `_25._tcp.host` (RFC 6698 §3).
fn service_of(host: &Name, port: u16) -> Option<Name> {
    host.prepend_label("_tcp").ok()?.prepend_label(format!("_{port}")).ok()
}

fn absolute(name: &str) -> Option<Name> {
    let mut name = Name::from_utf8(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}
