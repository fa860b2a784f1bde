//! Our end towards clients: the certificate, the tickets, and one configuration for each kind of listener.
//!
//! A certificate is parsed and compared with its key before anything is swapped: a broken file never takes the place
//! of a good one. Without `SSL_CERT_PEM` a self-signed certificate is made once and kept in the state directory, so
//! that clients that pin it see the same one after a restart. Tickets are sealed with keys of the process, shared by
//! all workers and one set for each kind of listener: a session of port 25 is never resumed at the submission port.
//!
//! It must not be called by a worker: it reads and writes files.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
#[cfg(feature = "aws-lc-rs")]
use rustls::crypto::aws_lc_rs as crypto;
#[cfg(not(feature = "aws-lc-rs"))]
use rustls::crypto::ring as crypto;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use secrecy::ExposeSecret as _;
use secrecy::zeroize::Zeroizing;

use super::config::{Certificate, Config, Pem, Version};
use super::x509;
use crate::limits::CERTIFICATE_FILE_OCTETS_MAX;
use crate::meter::Listener;

/// What clients are met with. Shared by all workers; one for each configuration that was ever in force.
#[derive(Debug)]
pub struct Acceptor {
    configs: [Arc<ServerConfig>; LISTENERS],
    shown: Arc<Shown>,
    /// Where it comes from, if that may change.
    source: Option<Certificate>,
    /// The files as they were when they were last read.
    stamp: Mutex<Stamp>,
}

/// The ticket keys of the process. Kept over reloads, so that sessions can be resumed after one.
#[derive(Debug, Clone)]
pub struct Tickets([Arc<dyn ProducesTickets>; LISTENERS]);

/// Why there is no certificate to show.
#[derive(Debug)]
pub enum Fault {
    /// `SSL_CERT_PEM` or `SSL_CERT_KEY` cannot be used: which, and why.
    Certificate(&'static str, String),
    /// No certificate could be made, or the provider failed.
    Crypto(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(variable, why) => write!(f, "{variable}: {why}"),
            Self::Crypto(why) => write!(f, "TLS: {why}"),
        }
    }
}

impl std::error::Error for Fault {}

impl Tickets {
    /// Fresh keys.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn new() -> Result<Self, Fault> {
        let ticketer = || crypto::Ticketer::new().map_err(|error| Fault::Crypto(error.to_string()));
        Ok(Self([ticketer()?, ticketer()?, ticketer()?]))
    }
}

impl Acceptor {
    /// Reads the certificate, or makes one.
    ///
    /// # Errors
    /// A certificate or key that cannot be used.
    pub fn load(config: &Config, tickets: &Tickets) -> Result<Arc<Self>, Fault> {
        let stamp = Stamp::of(config.certificate.as_ref());
        let key = match &config.certificate {
            Some(certificate) => read(certificate)?,
            None => self_signed(&config.relay_host_name, &config.state_dir)?,
        };
        let shown = Arc::new(Shown(ArcSwap::from_pointee(key)));
        let versions: &[_] = match config.incoming_min {
            Version::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
            Version::Tls13 => &[&rustls::version::TLS13],
        };
        let config_with = |tickets: &Arc<dyn ProducesTickets>| {
            let mut server = ServerConfig::builder_with_provider(provider())
                .with_protocol_versions(versions)
                .map_err(|error| Fault::Crypto(error.to_string()))?
                .with_no_client_auth()
                .with_cert_resolver(Arc::clone(&shown) as Arc<dyn ResolvesServerCert>);
            server.ticketer = Arc::clone(tickets);
            // One is enough for clients that resume one connection after the other.
            server.send_tls13_tickets = 1;
            Ok(Arc::new(server))
        };
        let [smtp, submission, submissions] = &tickets.0;
        let configs = [config_with(smtp)?, config_with(submission)?, config_with(submissions)?];
        // Text stays as it is, and holds a secret: it is not kept.
        let source = config.certificate.clone().filter(Certificate::names_files);
        Ok(Arc::new(Self { configs, shown, source, stamp: Mutex::new(stamp) }))
    }

    /// The configuration for a handshake at this kind of listener.
    #[must_use]
    pub fn config(&self, listener: Listener) -> Arc<ServerConfig> {
        let place = match listener {
            Listener::Smtp => 0,
            Listener::Submission => 1,
            Listener::Submissions => 2,
        };
        Arc::clone(&self.configs[place])
    }

    /// When the certificate ends, in seconds since the Unix epoch; `None` where it does not say so plainly.
    #[must_use]
    pub fn not_after(&self) -> Option<i64> {
        let key = self.shown.0.load();
        x509::Parts::of(key.cert.first()?)?.not_after
    }

    /// Reads the files again if they have changed. `Ok(true)`: another certificate is shown from now on.
    ///
    /// # Errors
    /// Files that cannot be used; what was shown before stays. Told once for each change.
    pub fn refresh(&self) -> Result<bool, Fault> {
        let Some(source) = &self.source else { return Ok(false) };
        let stamp = Stamp::of(Some(source));
        let mut known = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        if *known == stamp {
            return Ok(false);
        }
        *known = stamp;
        self.shown.0.store(Arc::new(read(source)?));
        Ok(true)
    }
}

/// The acceptors that are in force or may be again, so that changed files reach all of them.
#[derive(Debug, Clone, Default)]
pub struct Watch(Arc<Mutex<Vec<Weak<Acceptor>>>>);

impl Watch {
    /// Watches one more, as long as it lives.
    pub fn add(&self, acceptor: &Arc<Acceptor>) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.retain(|acceptor| acceptor.strong_count() > 0);
        watched.push(Arc::downgrade(acceptor));
    }

    /// Looks at the files of all; gives what came of each that had changed. May block.
    #[must_use]
    pub fn look(&self) -> Vec<Result<(), Fault>> {
        let watched = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let alive = watched.iter().filter_map(Weak::upgrade);
        alive
            .filter_map(|acceptor| acceptor.refresh().map(|is_new| is_new.then_some(())).transpose())
            .collect()
    }
}

/// The crypto provider, the same everywhere: `ring`, or with the cargo feature `aws-lc-rs` that, whose key exchange is
/// proof against quantum computers too (X25519MLKEM768).
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(crypto::default_provider())
}

/// The provider's name.
pub const PROVIDER: &str = if cfg!(feature = "aws-lc-rs") { "aws-lc-rs" } else { "ring" };

/// The certificate that is shown.
#[derive(Debug)]
struct Shown(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// What tells that a file has changed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stamp(Vec<Option<(SystemTime, u64)>>);

impl Stamp {
    fn of(certificate: Option<&Certificate>) -> Self {
        let pems = certificate.into_iter().flat_map(|certificate| [&certificate.chain, &certificate.key]);
        let paths = pems.filter_map(|pem| match pem {
            Pem::Path(path) => Some(path),
            Pem::Text(_) => None,
        });
        let stamp = |path: &PathBuf| {
            let about = fs::metadata(path).ok()?;
            Some((about.modified().ok()?, about.len()))
        };
        Self(paths.map(stamp).collect())
    }
}

/// Reads a certificate chain and its key, and sees that they belong together.
///
/// # Errors
/// Which of the two is wrong, and why.
pub fn read(certificate: &Certificate) -> Result<CertifiedKey, Fault> {
    let chain_text = text_of(&certificate.chain).map_err(|why| Fault::Certificate(CHAIN, why))?;
    let key_text = text_of(&certificate.key).map_err(|why| Fault::Certificate(KEY, why))?;
    certified(chain_text.as_bytes(), key_text.as_bytes())
}

fn certified(chain: &[u8], key: &[u8]) -> Result<CertifiedKey, Fault> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|error| Fault::Certificate(CHAIN, error.to_string()))?;
    if chain.is_empty() {
        return Err(Fault::Certificate(CHAIN, "holds no certificate".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| Fault::Certificate(KEY, "holds no private key, or an encrypted one".to_owned()))?;
    CertifiedKey::from_der(chain, key, &crypto::default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            Fault::Certificate(KEY, "does not belong to the first certificate of SSL_CERT_PEM".to_owned())
        }
        rustls::Error::InvalidCertificate(why) => {
            Fault::Certificate(CHAIN, format!("the certificate cannot be used: {why:?}"))
        }
        other => Fault::Certificate(KEY, other.to_string()),
    })
}

fn text_of(pem: &Pem) -> Result<Zeroizing<String>, String> {
    match pem {
        Pem::Text(text) => Ok(Zeroizing::new(text.expose_secret().to_owned())),
        Pem::Path(path) => read_bounded(path).map_err(|error| format!("{}: {error}", path.display())),
    }
}

fn read_bounded(path: &Path) -> io::Result<Zeroizing<String>> {
    if fs::metadata(path)?.len() > CERTIFICATE_FILE_OCTETS_MAX {
        return Err(io::Error::other("too large for a certificate"));
    }
    fs::read_to_string(path).map(Zeroizing::new)
}

/// The certificate that was made before for this name, or a new one. Where it cannot be kept it serves all the same,
/// until the end of the process.
fn self_signed(name: &str, state_dir: &Path) -> Result<CertifiedKey, Fault> {
    let path = state_dir.join(SELF_SIGNED);
    if let Some(kept) = kept(&path, name) {
        return Ok(kept);
    }
    let unmade = |error: rcgen::Error| Fault::Crypto(format!("no self-signed certificate: {error}"));
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).map_err(unmade)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let pair = rcgen::KeyPair::generate().map_err(unmade)?;
    let certificate = params.self_signed(&pair).map_err(unmade)?;
    let text = Zeroizing::new(format!("{}{}", certificate.pem(), pair.serialize_pem()));
    if let Err(error) = keep(&path, &text) {
        tracing::warn!(event = "certificate_not_kept", path = %path.display(), reason = %error);
    }
    certified(text.as_bytes(), text.as_bytes())
}

fn kept(path: &Path, name: &str) -> Option<CertifiedKey> {
    let text = read_bounded(path).ok()?;
    let key = certified(text.as_bytes(), text.as_bytes()).ok()?;
    let parsed = ParsedCertificate::try_from(key.cert.first()?).ok()?;
    let name = ServerName::try_from(name).ok()?;
    rustls::client::verify_server_name(&parsed, &name).ok()?;
    Some(key)
}

/// Written beside its place and moved there: a crash leaves the old file or the new one, nothing between.
fn keep(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let beside = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let moved = written.and_then(|()| fs::rename(&beside, path));
    if moved.is_err() {
        // The error that counts is the first one.
        let _ = fs::remove_file(&beside);
    }
    moved
}

const LISTENERS: usize = 3;
const CHAIN: &str = "SSL_CERT_PEM";
const KEY: &str = "SSL_CERT_KEY";
/// The self-signed certificate and its key, in the state directory, mode 0600.
const SELF_SIGNED: &str = "self-signed.pem";

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::SecretString;

    fn config(state_dir: &Path) -> Config {
        Config {
            relay_host_name: "relay.example".into(),
            certificate: None,
            state_dir: state_dir.to_owned(),
            incoming_min: Version::Tls12,
            upstream_level: super::super::config::Level::May,
            upstream_tls_only: false,
            upstream_fingerprints: Vec::new(),
            upstream_ca: None,
        }
    }

    fn shown(acceptor: &Acceptor) -> Vec<u8> {
        acceptor.shown.0.load().cert[0].to_vec()
    }

    fn pair(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn a_made_up_certificate_is_kept_secret_and_for_its_name_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let tickets = Tickets::new().unwrap();
        let first = shown(&Acceptor::load(&config(&state), &tickets).unwrap());
        let about = fs::metadata(state.join(SELF_SIGNED)).unwrap();
        assert_eq!(about.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "nothing is left beside it");
        assert_eq!(shown(&Acceptor::load(&config(&state), &tickets).unwrap()), first);
        let renamed = Config { relay_host_name: "other.example".into(), ..config(&state) };
        assert_ne!(shown(&Acceptor::load(&renamed, &tickets).unwrap()), first);
    }

    #[test]
    fn a_certificate_and_a_key_that_are_strangers_are_refused() {
        let (chain, _) = pair("a.example");
        let (_, key) = pair("b.example");
        let given = |chain: &str, key: &str| Certificate {
            chain: Pem::Text(SecretString::from(chain)),
            key: Pem::Text(SecretString::from(key)),
        };
        let fault = read(&given(&chain, &key)).unwrap_err().to_string();
        assert!(fault.starts_with("SSL_CERT_KEY: does not belong"), "{fault}");
        let fault = read(&given("-----BEGIN NOTHING-----", &key)).unwrap_err().to_string();
        assert!(fault.starts_with("SSL_CERT_PEM"), "{fault}");
        let fault = read(&given(&chain, &chain)).unwrap_err().to_string();
        assert!(fault.starts_with("SSL_CERT_KEY"), "{fault}");
    }

    #[test]
    fn changed_files_are_shown_and_broken_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (chain_path, key_path) = (folder.path().join("chain"), folder.path().join("key"));
        let put = |(chain, key): (String, String)| {
            fs::write(&chain_path, chain).unwrap();
            fs::write(&key_path, key).unwrap();
        };
        put(pair("a.example"));
        let mut config = config(folder.path());
        let path = |path: &Path| Pem::Path(path.to_owned());
        config.certificate = Some(Certificate { chain: path(&chain_path), key: path(&key_path) });
        let acceptor = Acceptor::load(&config, &Tickets::new().unwrap()).unwrap();
        let watch = Watch::default();
        watch.add(&acceptor);
        assert!(watch.look().is_empty());
        let first = shown(&acceptor);
        put(pair("another-name.example"));
        assert!(matches!(watch.look()[..], [Ok(())]));
        let second = shown(&acceptor);
        assert_ne!(first, second);
        fs::write(&chain_path, "half a file").unwrap();
        assert!(matches!(watch.look()[..], [Err(Fault::Certificate(CHAIN, _))]));
        assert!(watch.look().is_empty(), "told once");
        assert_eq!(shown(&acceptor), second);
    }
}
