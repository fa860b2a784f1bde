//! Which name means which variable, and the advice for a name that means none: misspelled configuration must
//! never run, and what belongs to others must never be complained of.

use super::variable::Variable;
use super::variables::{ALIASES, VARIABLES, named};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meaning {
    /// The variable.
    pub(super) variable: &'static Variable,
    /// Whether the value is the path of a file that holds the value: `NAME_FILE`.
    pub(super) form: Form,
    /// Whether this is an older or foreign name for it.
    pub(super) is_alias: bool,
}

/// What the value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Form {
    /// The value itself.
    Direct,
    /// The path of a file with the value.
    File,
}

/// What this name, in capitals, stands for; `None` for a name that is none of ours.
pub(super) fn meaning(name: &str) -> Option<Meaning> {
    let plain = |name: &str, form| {
        let alias = || ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, variable)| *variable);
        let ours = named(name).map(|variable| Meaning { variable, form, is_alias: false });
        ours.or_else(|| alias().map(|variable| Meaning { variable, form, is_alias: true }))
    };
    plain(name, Form::Direct).or_else(|| plain(name.strip_suffix(FILE_SUFFIX)?, Form::File))
}

/// What is said of a wrong name, in capitals: the right one nearest to it, where there is any likeness.
pub(super) fn advice(wrong: &str) -> Option<String> {
    let (stem, suffix) = match wrong.strip_suffix(FILE_SUFFIX) {
        Some(stem) if !stem.is_empty() => (stem, FILE_SUFFIX),
        _ => (wrong, ""),
    };
    let beginning =
        |name: &str| stem.bytes().zip(name.bytes()).take_while(|(one, other)| one == other).count();
    let distance = |name: &str| strsim::damerau_levenshtein(stem, name);
    let names = VARIABLES.iter().map(|variable| variable.name);
    // Among names equally far away the one that begins alike.
    let nearest = names.min_by_key(|name| (distance(name), std::cmp::Reverse(beginning(name))))?;
    let is_alike =
        2 * distance(nearest) <= stem.chars().count().max(nearest.len()) || beginning(nearest) >= 4;
    is_alike.then(|| format!("{nearest}{suffix}"))
}

/// Whether an environment variable that is none of ours looks as if it were meant for us.
///
/// It does where it begins like a family of ours, or where a slip of the finger parts it from one of ours. What
/// Kubernetes, Docker and systemd put into every environment does not, nor do well-known names of others.
pub(super) fn is_misspelled(name: &str, value: &str) -> bool {
    if FOREIGN.contains(&name) || is_service_link(name, value) {
        return false;
    }
    let stem = name.strip_suffix(FILE_SUFFIX).unwrap_or(name);
    FAMILIES.iter().any(|family| name.starts_with(family)) || is_slip(stem) || is_other_case(name)
}

/// Names that differ from one of ours by one letter, or two in a long one.
fn is_slip(stem: &str) -> bool {
    VARIABLES.iter().map(|variable| variable.name).filter(|name| !UNGUARDED.contains(name)).any(|name| {
        let slips = if name.len() < SHORT_NAME { 1 } else { 2 };
        name.len().abs_diff(stem.len()) <= slips && strsim::damerau_levenshtein(stem, name) <= slips
    })
}

fn is_other_case(name: &str) -> bool {
    let capitals = name.to_ascii_uppercase();
    capitals != name && meaning(&capitals).is_some_and(|found| !UNGUARDED.contains(&found.variable.name))
}

/// What Kubernetes (`X_SERVICE_HOST`, `X_PORT_25_TCP_ADDR`) and Docker's links put into an environment for a
/// service whose name happens to begin like a variable of ours.
fn is_service_link(name: &str, value: &str) -> bool {
    let points_to_socket = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.contains("_PORT") && points_to_socket)
        || has_numbered_port(name)
        || (name.ends_with("_NAME") && value.starts_with('/'))
        || name.contains("_ENV_")
}

fn has_numbered_port(name: &str) -> bool {
    name.match_indices("_PORT_").any(|(at, found)| {
        let rest = &name[at + found.len()..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        digits > 0 && ["_TCP", "_UDP", "_SCTP"].iter().any(|proto| rest[digits..].starts_with(proto))
    })
}

const FILE_SUFFIX: &str = "_FILE";
/// Below this length one slip is allowed, from it on two.
const SHORT_NAME: usize = 9;

/// What a variable meant for ringpost begins with. No family is a word that programs use at large: `TLS_`,
/// `LOG_`, `SMTP_`, `SESSION_`, `ALLOWED_`, `MAIL_` are not among them.
const FAMILIES: &[&str] = &[
    "ACCEPTED_",
    "ALLOWED_RECIPIENT",
    "ALLOWED_SENDER",
    "ALWAYS_BCC",
    "AUTOBAN",
    "BARE_NEWLINE",
    "BOUNCE_",
    "CLIENT_RATE",
    "COMMAND_TIMEOUT",
    "CONTROL_SOCKET",
    "DATA_TIMEOUT",
    "DELAY_WARN",
    "DELIVERY_",
    "DENIED_RECIPIENT",
    "DENIED_SENDER",
    "DKIM_",
    "DNS_SERVER",
    "EIGHTBIT",
    "EXT_RELAY",
    "HOPS_MAX",
    "INCOMING_SMTP",
    "LISTEN_",
    "MAIL_FROM_",
    "MESSAGE_SIZE",
    "MYNETWORKS",
    "OUTGOING_SMTP",
    "PROXY_PROTOCOL",
    "QUEUE_",
    "RECIPIENTS_",
    "RELAYHOST",
    "RELAY_HOST",
    "RINGPOST_CONF",
    "SESSIONS_",
    "SESSION_MIN",
    "SSL_CERT_",
    "STATE_DIR_",
    "SUBMISSIONS_",
    "SUBMISSION_",
    "TLS_INCOMING",
    "TLS_VERIF",
    "UPSTREAM_",
    "USE_TLS",
    "XDP_",
];

/// Names of others that begin like a family of ours, or look like a slip.
const FOREIGN: &[&str] = &[
    // Ours, but no setting: it names the file that the settings are in.
    "RINGPOST_CONFIG",
    // systemd
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    // OpenSSL
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    // Laravel and its like, whose environment files are often shared
    "MAIL_FROM_ADDRESS",
    "MAIL_FROM_NAME",
    "QUEUE_CONNECTION",
    "QUEUE_DRIVER",
    // Python
    "LOGLEVEL",
];

/// Names too short or too common for a slip to mean us.
const UNGUARDED: &[&str] = &["ROUTES", "WORKERS", "XDP"];
