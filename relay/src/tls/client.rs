//! Our end towards upstreams: what a level asks of a host, and one rustls configuration for each such rule.
//!
//! The level decides two things: whether there must be TLS at all ([`Need`]), and what the certificate must be
//! ([`Rule`]). Both mean what Postfix's `smtp_tls_security_level` means by the same word.
//!
//! It must not decide on a fallback: [`Wanted::Maybe`] tells the connecting code that there may be one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};

use super::config::{Config, Level};
use super::records::{Fault, Records};
use super::rule::{Authorities, Name, Rule, Tlsa, Verifier};
use super::server::provider;
use crate::limits::{TLS_CLIENT_CONFIGS_MAX, TLS_CLIENT_SESSIONS_MAX};

/// What upstreams are met with: the level, and what it needs. Shared by all workers.
#[derive(Debug, PartialEq)]
pub struct Demand {
    /// `TLS_VERIFY`.
    pub level: Level,
    /// `USE_TLS`.
    tls_only: bool,
    fingerprints: Arc<[[u8; 32]]>,
    authorities: Arc<Authorities>,
}

impl Demand {
    /// Reads the authorities; there must be some where the level asks for them. May block.
    ///
    /// # Errors
    /// A bundle that cannot be read or holds no certificate.
    pub fn load(config: &Config) -> Result<Arc<Self>, String> {
        let authorities = match config.upstream_level {
            Level::Verify | Level::Secure => authorities(config)?,
            // For the web, MTA-STS and REQUIRETLS. Without any, each of these fails and says so; other mail goes on.
            _ if config.upstream_ca.is_none() => system_authorities(),
            _ => authorities(config)?,
        };
        Ok(Arc::new(Self {
            level: config.upstream_level,
            tls_only: config.upstream_tls_only,
            fingerprints: config.upstream_fingerprints.clone().into(),
            authorities: Arc::new(authorities),
        }))
    }

    /// Whom certificates are trusted by.
    #[must_use]
    pub fn authorities(&self) -> &Arc<Authorities> {
        &self.authorities
    }

    /// No TLS at all.
    #[must_use]
    pub fn none() -> Arc<Self> {
        Arc::new(Self {
            level: Level::None,
            tls_only: false,
            fingerprints: Arc::default(),
            authorities: Arc::default(),
        })
    }

    /// What is asked of one host of an upstream.
    ///
    /// `host` is the name at the address, as it was configured or as the MX record told it; `next_hop` is what was
    /// configured, or the recipient's domain. `tlsa` is what DNS says, asked for only at the two DANE levels.
    #[must_use]
    pub fn of(&self, host: &str, next_hop: &str, tlsa: Option<&Dane>) -> Wanted {
        match self.of_level(host, next_hop, tlsa) {
            Wanted::Maybe(rule) if self.tls_only => Wanted::Must(rule),
            wanted => wanted,
        }
    }

    fn of_level(&self, host: &str, next_hop: &str, tlsa: Option<&Dane>) -> Wanted {
        match self.level {
            Level::None => Wanted::Never,
            Level::May => Wanted::Maybe(Rule::Any),
            Level::Encrypt => Wanted::Must(Rule::Any),
            Level::Fingerprint => Wanted::Must(Rule::Fingerprint(Arc::clone(&self.fingerprints))),
            Level::Verify => Wanted::Must(Rule::Trusted([name_of(host)].into())),
            Level::Secure => Wanted::Must(Rule::Trusted(names_below(next_hop))),
            Level::Dane => match tlsa {
                Some(Dane::Records(records)) => Wanted::Must(dane(records, host, next_hop)),
                // RFC 7672 §2.2: records that nobody can use still ask for TLS.
                Some(Dane::Unusable) => Wanted::Must(Rule::Any),
                Some(Dane::None) | None => Wanted::Maybe(Rule::Any),
                Some(Dane::Unknown(why)) => Wanted::Impossible(why.clone()),
            },
            Level::DaneOnly => match tlsa {
                Some(Dane::Records(records)) => Wanted::Must(dane(records, host, next_hop)),
                Some(Dane::Unusable) => Wanted::Impossible("no TLSA record is usable".to_owned()),
                Some(Dane::None) | None => Wanted::Impossible("there is no TLSA record".to_owned()),
                Some(Dane::Unknown(why)) => Wanted::Impossible(why.clone()),
            },
        }
    }

    /// Whether the records that lead to the host must be proved as well: at `dane-only`. At `dane` a host is believed
    /// on its own, as Postfix does (`smtp_tls_dane_insecure_mx_policy = dane`).
    #[must_use]
    pub fn asks_for_signed_route(&self) -> bool {
        self.level == Level::DaneOnly
    }

    /// Whether [`Self::of`] wants to know TLSA records.
    #[must_use]
    pub fn asks_for_tlsa(&self) -> bool {
        matches!(self.level, Level::Dane | Level::DaneOnly)
    }
}

/// What is asked of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// No TLS.
    Never,
    /// TLS by this rule where it is to be had, else plaintext.
    Maybe(Rule),
    /// TLS by this rule, or no mail.
    Must(Rule),
    /// No mail: what is asked for cannot be had, and why.
    Impossible(String),
}

impl Wanted {
    /// The same with a certificate that is verified: a trusted one where any would do. It is to name the host, or
    /// the next hop, where nobody proves that the one leads to the other.
    #[must_use]
    pub fn verified(self, host: &str, next_hop: Option<&str>) -> Self {
        match self {
            Self::Maybe(Rule::Any) | Self::Must(Rule::Any) => Self::Must(Rule::Trusted(match next_hop {
                Some(next_hop) => names_below(next_hop),
                None => [name_of(host)].into(),
            })),
            Self::Never => Self::Impossible("there is no TLS at TLS_VERIFY=none".to_owned()),
            stricter => stricter,
        }
    }
}

/// What DNS says about the TLSA records of a host (RFC 7672 §2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dane {
    /// Usable records, proved by DNSSEC; never empty.
    Records(Arc<[Tlsa]>),
    /// Records proved by DNSSEC, none of which can be used.
    Unusable,
    /// None, or none that DNSSEC proves.
    None,
    /// The look-up failed, or its proof is bogus: no mail to this host now.
    Unknown(String),
}

/// The configurations of one worker, one for each rule; sessions are resumed within one.
#[derive(Debug)]
pub struct Connector {
    authorities: Arc<Authorities>,
    configs: RefCell<HashMap<Rule, Arc<ClientConfig>>>,
}

impl Connector {
    /// A connector for a demand.
    #[must_use]
    pub fn new(demand: &Demand) -> Self {
        Self { authorities: Arc::clone(&demand.authorities), configs: RefCell::default() }
    }

    /// Our end of a handshake with a host, by a rule. The host's name goes into SNI.
    ///
    /// # Errors
    /// A host that has no name TLS can carry, or a provider that fails.
    pub fn begin(&self, rule: &Rule, host: &str) -> Result<Records, Fault> {
        let name = ServerName::try_from(host.trim_end_matches('.').to_owned())
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        Records::client(self.config(rule)?, name)
    }

    fn config(&self, rule: &Rule) -> Result<Arc<ClientConfig>, Fault> {
        let mut configs = self.configs.borrow_mut();
        if let Some(config) = configs.get(rule) {
            return Ok(Arc::clone(config));
        }
        // Only the recipients' own exchangers at a DANE level have more rules than this; their sessions start anew.
        if configs.len() >= TLS_CLIENT_CONFIGS_MAX {
            configs.clear();
        }
        let mut config = config_for(rule, &self.authorities)?;
        config.resumption = Resumption::in_memory_sessions(TLS_CLIENT_SESSIONS_MAX);
        let config = Arc::new(config);
        configs.insert(rule.clone(), Arc::clone(&config));
        Ok(config)
    }
}

/// A configuration for the web: a trusted certificate for the host, TLS 1.2 at least.
///
/// # Errors
/// The provider fails.
pub fn web(host: &str, authorities: &Arc<Authorities>) -> Result<Arc<ClientConfig>, Fault> {
    config_for(&Rule::Trusted([name_of(host)].into()), authorities).map(Arc::new)
}

fn config_for(rule: &Rule, authorities: &Arc<Authorities>) -> Result<ClientConfig, Fault> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let verifier = Verifier::new(rule.clone(), Arc::clone(authorities), algorithms);
    Ok(ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

fn authorities(config: &Config) -> Result<Authorities, String> {
    let (certificates, whose) = match &config.upstream_ca {
        Some(path) => {
            let text = fs::read(path).map_err(|error| format!("UPSTREAM_CA={}: {error}", path.display()))?;
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
            let certificates =
                certificates.map_err(|error| format!("UPSTREAM_CA={}: {error}", path.display()))?;
            (certificates, format!("UPSTREAM_CA={}", path.display()))
        }
        None => {
            return match system_authorities() {
                none if none.count() == 0 => {
                    Err("UPSTREAM_CA: the system's: holds no certificate".to_owned())
                }
                some => Ok(some),
            };
        }
    };
    let (authorities, _unused) = Authorities::new(certificates);
    match authorities.count() {
        0 => Err(format!("{whose}: holds no certificate")),
        _ => Ok(authorities),
    }
}

fn system_authorities() -> Authorities {
    Authorities::new(rustls_native_certs::load_native_certs().certs).0
}

fn dane(records: &Arc<[Tlsa]>, host: &str, next_hop: &str) -> Rule {
    // RFC 7672 §3.2.2: the TLSA base domain, and the next-hop domain.
    Rule::Dane(Arc::clone(records), [name_of(host), name_of(next_hop)].into())
}

/// Postfix's `nexthop, dot-nexthop`.
fn names_below(next_hop: &str) -> Arc<[Name]> {
    match name_of(next_hop) {
        Name::Host(host) => [Name::Host(Arc::clone(&host)), Name::Below(host)].into(),
        other => [other].into(),
    }
}

fn name_of(host: &str) -> Name {
    match host.parse::<IpAddr>() {
        Ok(address) => Name::Address(address),
        Err(_) => Name::Host(host.trim_end_matches('.').into()),
    }
}
