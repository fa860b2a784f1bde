//! What an upstream's certificate must be, and the verifier that rustls asks.
//!
//! One verifier serves one [`Rule`], and one rustls configuration has one verifier: a resumed session is not verified
//! again, so sessions must never pass from one rule to another.
//!
//! Limits against OpenSSL, which Postfix uses: no version before TLS 1.2, no signatures by SHA-1, no RSA below 2048
//! bits, no names in the subject's CN, and no X.509v1 where a chain is built.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ring::digest::{SHA256, SHA512, digest};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, OtherError, RootCertStore, SignatureScheme};

use super::x509::Parts;

/// What a certificate must be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Anything: the connection is encrypted, and nobody knows with whom.
    Any,
    /// One whose SHA-256, or whose public key's, is among these.
    Fingerprint(Arc<[[u8; 32]]>),
    /// One that an authority vouches for, with one of these names.
    Trusted(Arc<[Name]>),
    /// One that matches one of these records (RFC 7672 §3.1); for usage 2 with one of these names.
    Dane(Arc<[Tlsa]>, Arc<[Name]>),
}

impl Rule {
    /// What a log says of a connection that this rule was kept on.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match self {
            Self::Any => "unverified",
            Self::Fingerprint(_) => "fingerprint",
            Self::Trusted(_) => "verified",
            Self::Dane(..) => "dane",
        }
    }
}

/// A name that a certificate may have.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Name {
    /// This host, by RFC 6125: a wildcard in the certificate stands for its first label.
    Host(Arc<str>),
    /// Any host below this domain.
    Below(Arc<str>),
    /// This address, as an `iPAddress`.
    Address(IpAddr),
}

/// A TLSA record that a client of SMTP can use (RFC 7672 §3.1): others never get here.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tlsa {
    /// Whom it is about.
    pub usage: Usage,
    /// What of the certificate it is compared with.
    pub selector: Selector,
    /// How.
    pub matching: Matching,
    /// The octets.
    pub data: Vec<u8>,
}

/// The usages of TLSA records that SMTP knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Usage {
    /// 2, DANE-TA: an authority that the upstream presents.
    Authority,
    /// 3, DANE-EE: the upstream's own certificate.
    Leaf,
}

/// What of a certificate a record is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Selector {
    /// 0.
    Certificate,
    /// 1.
    PublicKey,
}

/// How a record is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Matching {
    /// 0.
    Full,
    /// 1.
    Sha256,
    /// 2.
    Sha512,
}

impl Tlsa {
    /// A record by its numbers; `None` where it cannot be used: usages 0 and 1 (RFC 7672 §3.1.3), numbers that nobody
    /// knows, digests of another length.
    #[must_use]
    pub fn usable(usage: u8, selector: u8, matching: u8, data: &[u8]) -> Option<Self> {
        let usage = match usage {
            2 => Usage::Authority,
            3 => Usage::Leaf,
            _ => return None,
        };
        let selector = match selector {
            0 => Selector::Certificate,
            1 => Selector::PublicKey,
            _ => return None,
        };
        let matching = match (matching, data.len()) {
            (0, 1..) => Matching::Full,
            (1, 32) => Matching::Sha256,
            (2, 64) => Matching::Sha512,
            _ => return None,
        };
        Some(Self { usage, selector, matching, data: data.to_owned() })
    }

    fn matches(&self, certificate: &[u8]) -> bool {
        let selected = match self.selector {
            Selector::Certificate => Some(certificate),
            Selector::PublicKey => Parts::of(certificate).map(|parts| parts.public_key),
        };
        selected.is_some_and(|octets| match self.matching {
            Matching::Full => self.data == octets,
            Matching::Sha256 => self.data == digest(&SHA256, octets).as_ref(),
            Matching::Sha512 => self.data == digest(&SHA512, octets).as_ref(),
        })
    }
}

impl fmt::Display for Tlsa {
    /// As a zone file has it, `3 1 1 …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usage = match self.usage {
            Usage::Authority => 2,
            Usage::Leaf => 3,
        };
        write!(f, "{usage} {} {} ", self.selector as u8, self.matching as u8)?;
        self.data.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// The authorities that are trusted.
#[derive(Debug)]
pub struct Authorities {
    roots: RootCertStore,
    /// The same as certificates: an upstream may show one of them itself, as a self-signed host does.
    certificates: Vec<CertificateDer<'static>>,
}

impl Default for Authorities {
    fn default() -> Self {
        Self { roots: RootCertStore::empty(), certificates: Vec::new() }
    }
}

impl PartialEq for Authorities {
    fn eq(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }
}

impl Authorities {
    /// These certificates; says how many could not be used.
    #[must_use]
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> (Self, usize) {
        let mut roots = RootCertStore::empty();
        let (_, unused) = roots.add_parsable_certificates(certificates.iter().cloned());
        (Self { roots, certificates }, unused)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.certificates.len()
    }
}

/// Judges certificates by one rule.
#[derive(Debug)]
pub struct Verifier {
    rule: Rule,
    authorities: Arc<Authorities>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// A verifier for a rule.
    #[must_use]
    pub fn new(rule: Rule, authorities: Arc<Authorities>, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { rule, authorities, algorithms }
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        match &self.rule {
            Rule::Any => Ok(()),
            Rule::Fingerprint(wanted) => {
                let is_wanted =
                    |octets: &[u8]| wanted.iter().any(|one| one == digest(&SHA256, octets).as_ref());
                let key = Parts::of(leaf).map(|parts| parts.public_key);
                if is_wanted(leaf) || key.is_some_and(is_wanted) {
                    Ok(())
                } else {
                    Err(because(Why::Fingerprint))
                }
            }
            Rule::Trusted(names) => {
                self.trust(&self.authorities.roots, leaf, others, now)?;
                self.named(leaf, names)
            }
            Rule::Dane(records, names) => self.dane(records, names, leaf, others, now),
        }
    }

    /// Whether an authority vouches for the certificate. One that stands among the authorities itself vouches for
    /// itself while it is valid, also where it may not sign others.
    fn trust(
        &self,
        roots: &RootCertStore,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        if self.authorities.certificates.iter().any(|one| one == leaf) {
            let parts = Parts::of(leaf).ok_or(CertificateError::BadEncoding)?;
            let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            return match parts.is_valid_at(seconds) {
                true => Ok(()),
                false if parts.not_before.is_some_and(|from| seconds < from) => {
                    Err(CertificateError::NotValidYet.into())
                }
                false => Err(CertificateError::Expired.into()),
            };
        }
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, others, now, self.algorithms.all)
    }

    fn named(&self, leaf: &CertificateDer<'_>, names: &[Name]) -> Result<(), rustls::Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let is_named = names.iter().any(|name| match name {
            Name::Host(host) => ServerName::try_from(&**host)
                .is_ok_and(|name| rustls::client::verify_server_name(&parsed, &name).is_ok()),
            Name::Address(address) => {
                let name = ServerName::IpAddress((*address).into());
                rustls::client::verify_server_name(&parsed, &name).is_ok()
            }
            Name::Below(domain) => has_name_below(leaf, domain),
        });
        if is_named { Ok(()) } else { Err(because(Why::Name)) }
    }

    /// RFC 7672 §3.1: any record that matches is enough. Usage 3 takes neither names nor dates into account, usage 2
    /// takes both: the matching authority is the only one then.
    fn dane(
        &self,
        records: &[Tlsa],
        names: &[Name],
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let of_usage = |usage| records.iter().filter(move |record| record.usage == usage);
        if of_usage(Usage::Leaf).any(|record| record.matches(leaf)) {
            return Ok(());
        }
        let mut fault = because(Why::Tlsa);
        for authority in
            others.iter().filter(|other| of_usage(Usage::Authority).any(|record| record.matches(other)))
        {
            let mut roots = RootCertStore::empty();
            if roots.add(authority.clone().into_owned()).is_err() {
                continue;
            }
            let parsed = ParsedCertificate::try_from(leaf)?;
            let trusted =
                verify_server_cert_signed_by_trust_anchor(&parsed, &roots, others, now, self.algorithms.all);
            match trusted.and_then(|()| self.named(leaf, names)) {
                Ok(()) => return Ok(()),
                Err(error) => fault = error,
            }
        }
        Err(fault)
    }
}

/// Postfix's `dot-nexthop`: a name of the certificate that lies below the domain. A wildcard counts as one label.
fn has_name_below(leaf: &CertificateDer<'_>, domain: &str) -> bool {
    let Ok(parsed) = webpki::EndEntityCert::try_from(leaf) else { return false };
    parsed.valid_dns_names().any(|name| {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let above = name.strip_suffix(&domain.to_ascii_lowercase()).and_then(|rest| rest.strip_suffix('.'));
        above.is_some_and(|label| !label.is_empty())
    })
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(leaf, others, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // Where any certificate will do, a signature by it proves nothing; and odd certificates fail here.
        if self.rule == Rule::Any {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, leaf, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if self.rule == Rule::Any {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, leaf, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Why a certificate is not taken, where rustls has no word for it.
#[derive(Debug)]
enum Why {
    Fingerprint,
    Name,
    Tlsa,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fingerprint => "its fingerprint is none of UPSTREAM_FINGERPRINTS",
            Self::Name => "it has none of the names that are asked for",
            Self::Tlsa => "no TLSA record matches",
        })
    }
}

impl std::error::Error for Why {}

fn because(why: Why) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(why))).into()
}
