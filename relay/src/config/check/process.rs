//! TLS, spool, gate, control plane and log; and what only makes sense or nonsense together.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::SecretString;

use super::super::addresses::{interface, listen, mail_address};
use super::super::checker::{Checker, is_off};
use super::super::features::Feature;
use super::super::raw::read;
use super::super::report::Origin;
use super::super::values::{
    Wrong, autoban, boolean, fingerprint, percent_or_size, positive_duration, rate, word,
};
use super::super::variables::{
    ACCEPTED_NETWORKS, AUTOBAN, BOUNCE_TO, CONTROL_SOCKET, DELAY_WARNING, LISTEN_ADMIN, LOG_FORMAT,
    LOG_LEVEL, LOG_TARGET, OFFS, OUTGOING_SMTP_LOGIN, QUEUE_BYTES_MAX, QUEUE_LIFETIME, QUEUE_RETRY,
    SSL_CERT_KEY, SSL_CERT_PEM, STATE_DIR, TLS_INCOMING_MIN, TLS_VERIFY, UPSTREAM_CA, UPSTREAM_FINGERPRINTS,
    USE_TLS, XDP, XDP_ACTION, XDP_INTERFACES, XDP_MODE, XDP_SYN_RATE,
};
use crate::config::control;
use crate::egress::config::{NextHop, Plaintext};
use crate::gate::config::{Action, Mode, Wanted};
use crate::log::config::{Format, Level as LogLevel, Target};
use crate::spool::config::BounceTo;
use crate::tls::config::{Certificate, Level, Pem, Version};
use crate::{egress, gate, ingress, log, spool, tls};

impl Checker<'_> {
    pub(super) fn state_dir(&mut self) -> Option<PathBuf> {
        self.one(&STATE_DIR, path)
    }

    pub(super) fn tls(
        &mut self,
        name: Option<&Arc<str>>,
        state_dir: Option<&PathBuf>,
    ) -> Option<tls::Config> {
        let certificate = self.certificate();
        let incoming_min = self
            .one(&TLS_INCOMING_MIN, |text| word(text, &[("1.2", Version::Tls12), ("1.3", Version::Tls13)]));
        let upstream_tls_only = self.one(&USE_TLS, boolean);
        let upstream_level = self.upstream_level(upstream_tls_only);
        let upstream_fingerprints = self.list(&UPSTREAM_FINGERPRINTS, fingerprint);
        let upstream_ca = self.maybe(&UPSTREAM_CA, readable_path);
        if upstream_level == Some(Level::Fingerprint)
            && upstream_fingerprints.as_ref().is_some_and(Vec::is_empty)
        {
            self.mistake_about(&UPSTREAM_FINGERPRINTS, "missing: TLS_VERIFY=fingerprint needs at least one");
        }
        Some(tls::Config {
            relay_host_name: name?.clone(),
            certificate: certificate?,
            state_dir: state_dir?.clone(),
            incoming_min: incoming_min?,
            upstream_level: upstream_level?,
            upstream_tls_only: upstream_tls_only?,
            upstream_fingerprints: upstream_fingerprints?,
            upstream_ca: upstream_ca?,
        })
    }

    fn certificate(&mut self) -> Option<Option<Certificate>> {
        let chain = self.maybe(&SSL_CERT_PEM, pem);
        let key = self.maybe(&SSL_CERT_KEY, pem);
        if !self.all_or_none(&[&SSL_CERT_PEM, &SSL_CERT_KEY]) {
            return None;
        }
        Some(chain?.zip(key?).map(|(chain, key)| Certificate { chain, key }))
    }

    /// `TLS_VERIFY`, raised by `USE_TLS=yes`.
    fn upstream_level(&mut self, must: Option<bool>) -> Option<Level> {
        let level = self.one(&TLS_VERIFY, |text| word(text, LEVELS));
        let (level, must) = (level?, must?);
        if level == Level::May && !self.has(Feature::Tls) && !must {
            self.warn(
                &TLS_VERIFY,
                "TLS is not in this build: mail goes to the upstream in clear; TLS_VERIFY=none says so on purpose",
            );
        }
        if must && matches!(level, Level::None | Level::May) {
            self.effective.set(&TLS_VERIFY, "encrypt", Origin::Default("raised by USE_TLS=yes"));
            return Some(Level::Encrypt);
        }
        Some(level)
    }

    pub(super) fn spool(&mut self, state_dir: Option<&PathBuf>) -> Option<spool::Config> {
        let retry = self.list(&QUEUE_RETRY, positive_duration);
        let lifetime = self.one(&QUEUE_LIFETIME, positive_duration);
        let delay_warning = self.maybe(&DELAY_WARNING, positive_duration);
        let bounce_to = self.one(&BOUNCE_TO, |text| match text {
            "sender" => Ok(BounceTo::Sender),
            off if OFFS.contains(&off) => Ok(BounceTo::Off),
            address => mail_address(address).map(BounceTo::Address),
        });
        let space_max = self.one(&QUEUE_BYTES_MAX, percent_or_size);
        if retry.as_ref().is_some_and(Vec::is_empty) {
            self.mistake_about(&QUEUE_RETRY, format!("expected {}", QUEUE_RETRY.kind.expected()));
        }
        Some(spool::Config {
            state_dir: state_dir?.clone(),
            retry: retry?,
            lifetime: lifetime?,
            delay_warning: delay_warning?,
            bounce_to: bounce_to?,
            space_max: space_max?,
        })
    }

    pub(super) fn gate(&mut self) -> Option<gate::Config> {
        let wanted = self.one(&XDP, |text| word(text, WANTED));
        let interfaces = self.list(&XDP_INTERFACES, interface);
        let mode = self.one(&XDP_MODE, |text| word(text, MODES));
        let action = self.one(&XDP_ACTION, |text| word(text, ACTIONS));
        let syn_rate = self.maybe(&XDP_SYN_RATE, rate);
        let autoban = self.maybe(&AUTOBAN, autoban);
        Some(gate::Config {
            wanted: wanted?,
            interfaces: interfaces?,
            mode: mode?,
            action: action?,
            syn_rate: syn_rate?,
            autoban: autoban?,
        })
    }

    pub(super) fn control(&mut self) -> Option<control::Config> {
        let listen_admin = self.list(&LISTEN_ADMIN, listen);
        let control_socket = self.one(&CONTROL_SOCKET, |text| match text.len() {
            0..=SOCKET_PATH_OCTETS_MAX => path(text),
            _ => Err(Wrong::because(format!("of at most {SOCKET_PATH_OCTETS_MAX} octets"))),
        });
        Some(control::Config { listen_admin: listen_admin?, control_socket: control_socket? })
    }

    pub(super) fn log(&mut self) -> Option<log::Config> {
        let target = self.one(&LOG_TARGET, |text| match text {
            "stdout" => Ok(Target::Stdout),
            "syslog" => Ok(Target::Syslog),
            "journald" => Ok(Target::Journald),
            file => path(file).map(Target::File),
        });
        let format =
            self.one(&LOG_FORMAT, |text| word(text, &[("text", Format::Text), ("json", Format::Json)]));
        let level = self.one(&LOG_LEVEL, |text| word(text, LOG_LEVELS));
        Some(log::Config { target: target?, format: format?, level: level? })
    }

    /// Values that are right one by one and wrong, or worth a word, together.
    pub(super) fn judge_together(
        &mut self,
        ingress: Option<&ingress::Config>,
        egress: Option<&egress::Config>,
        tls: Option<&tls::Config>,
        gate: Option<&gate::Config>,
    ) {
        let accepts_nobody = self
            .effective
            .text(&ACCEPTED_NETWORKS)
            .is_some_and(|text| text.trim().is_empty() || is_off(text.trim()));
        let wanted = gate.map(|gate| gate.wanted);
        if ingress.is_some() && accepts_nobody {
            match wanted {
                Some(Wanted::Require) => self.mistake_about(
                    &ACCEPTED_NETWORKS,
                    "empty: with XDP=require the gate would drop everybody; expected at least one network",
                ),
                _ => self.warn(&ACCEPTED_NETWORKS, "empty: only loopback may relay"),
            }
        }
        if wanted == Some(Wanted::Auto) && !self.has(Feature::Gate) {
            self.warn(&XDP, "no gate in this build: the daemon checks the networks alone");
        }
        let login = egress.and_then(|egress| egress.login.as_ref());
        let sends_in_clear = tls.is_some_and(|tls| tls.upstream_level == Level::None);
        let has_host = egress.is_some_and(|egress| matches!(egress.next_hop, NextHop::Upstreams(_)));
        if has_host && sends_in_clear && login.is_some_and(|login| login.plaintext == Plaintext::Refused) {
            let text =
                "never sent: TLS_VERIFY=none means no TLS, and only OUTGOING_SMTP_AUTH=plaintext sends it so";
            self.warn(&OUTGOING_SMTP_LOGIN, text);
        }
    }
}

/// An absolute path; whether it exists is not looked at.
pub(super) fn path(text: &str) -> Result<PathBuf, Wrong> {
    let path = Path::new(text);
    (path.is_absolute() && !text.contains('\0')).then(|| path.to_owned()).ok_or_else(Wrong::default)
}

pub(super) fn readable_path(text: &str) -> Result<PathBuf, Wrong> {
    let path = path(text)?;
    read(&path).map_err(|error| Wrong::because(error.to_string()))?;
    Ok(path)
}

/// PEM text or the path of a readable file. Text may have its line ends written as `\n`, as environment files
/// force it to be.
fn pem(text: &str) -> Result<Pem, Wrong> {
    let trimmed = text.trim();
    if !trimmed.starts_with(PEM_START) {
        return readable_path(trimmed).map(Pem::Path);
    }
    let is_one_line = !trimmed.contains('\n');
    let text = if is_one_line { trimmed.replace("\\n", "\n") } else { trimmed.to_owned() };
    Ok(Pem::Text(SecretString::from(text)))
}

/// The text itself, read from the file where a path is given.
pub(super) fn pem_text(text: &str) -> Result<SecretString, Wrong> {
    match pem(text)? {
        Pem::Text(text) => Ok(text),
        Pem::Path(path) => {
            let (text, _) = read(&path).map_err(|error| Wrong::because(error.to_string()))?;
            Ok(SecretString::from(&**text))
        }
    }
}

const PEM_START: &str = "-----BEGIN ";
/// Linux bounds the path of a Unix socket to this (unix(7), `sun_path` less its closing NUL).
const SOCKET_PATH_OCTETS_MAX: usize = 107;
const LEVELS: &[(&str, Level)] = &[
    ("none", Level::None),
    ("may", Level::May),
    ("encrypt", Level::Encrypt),
    ("dane", Level::Dane),
    ("dane-only", Level::DaneOnly),
    ("fingerprint", Level::Fingerprint),
    ("verify", Level::Verify),
    ("secure", Level::Secure),
];
const WANTED: &[(&str, Wanted)] =
    &[("auto", Wanted::Auto), ("require", Wanted::Require), ("off", Wanted::Off)];
const MODES: &[(&str, Mode)] =
    &[("auto", Mode::Auto), ("native", Mode::Native), ("generic", Mode::Generic), ("offload", Mode::Offload)];
const ACTIONS: &[(&str, Action)] =
    &[("drop", Action::Drop), ("reset", Action::Reset), ("count", Action::Count)];
const LOG_LEVELS: &[(&str, LogLevel)] = &[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("warning", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];
