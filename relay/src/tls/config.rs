//! What TLS is configured by on both sides: checked values, ready to use.

use std::path::PathBuf;
use std::sync::Arc;

use secrecy::SecretString;

/// Everything that TLS reads of the configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `RELAY_HOST_NAME`: the name in the self-signed certificate.
    pub relay_host_name: Arc<str>,
    /// `SSL_CERT_PEM` and `SSL_CERT_KEY`; none: self-signed, made at start and kept in the state directory.
    pub certificate: Option<Certificate>,
    /// `STATE_DIR`: where the self-signed certificate is kept.
    pub state_dir: PathBuf,
    /// `TLS_INCOMING_MIN`: oldest version spoken to clients.
    pub incoming_min: Version,
    /// `TLS_VERIFY`, already raised by `USE_TLS=yes`.
    pub upstream_level: Level,
    /// `USE_TLS`: no upstream is spoken to in plaintext, whatever DNS says at `dane`.
    pub upstream_tls_only: bool,
    /// `UPSTREAM_FINGERPRINTS`: SHA-256 of a certificate or of a public key.
    pub upstream_fingerprints: Vec<[u8; 32]>,
    /// `UPSTREAM_CA`: a PEM bundle; none: the system's.
    pub upstream_ca: Option<PathBuf>,
}

/// A certificate chain and its key, each as it was given.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// `SSL_CERT_PEM`: the leaf first.
    pub chain: Pem,
    /// `SSL_CERT_KEY`.
    pub key: Pem,
}

impl Certificate {
    /// Whether a part of it is read from a file.
    #[must_use]
    pub fn names_files(&self) -> bool {
        [&self.chain, &self.key].iter().any(|pem| matches!(pem, Pem::Path(_)))
    }
}

/// PEM given as text or as a path. A path is read anew by each reload.
#[derive(Debug, Clone)]
pub enum Pem {
    /// The text itself.
    Text(SecretString),
    /// A file that holds it; it was readable when the configuration was checked.
    Path(PathBuf),
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// TLS 1.2 (RFC 5246).
    Tls12,
    /// TLS 1.3 (RFC 8446).
    Tls13,
}

/// What is asked of an upstream's TLS: Postfix's `smtp_tls_security_level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Never TLS.
    None,
    /// TLS where offered, unverified.
    May,
    /// TLS always, unverified.
    Encrypt,
    /// DANE where the zone has usable TLSA records, else as `encrypt` or `may` (RFC 7672 §2.2).
    Dane,
    /// DANE or nothing.
    DaneOnly,
    /// A certificate or public key of `UPSTREAM_FINGERPRINTS`.
    Fingerprint,
    /// A trusted certificate for the host's name.
    Verify,
    /// A trusted certificate for the name that was configured.
    Secure,
}
