//! The one table of the configuration: every variable's name, default, shape and meaning. The check, the
//! reference in docs/CONFIG.md and the advice on misspelled names all read it; nothing is said twice.

mod delivery;
mod host;
mod service;

use super::variable::{Variable, Without};

pub use delivery::*;
pub use host::*;
pub use service::*;

/// The variable of this name, exactly.
#[must_use]
pub fn named(name: &str) -> Option<&'static Variable> {
    VARIABLES.iter().find(|variable| variable.name == name).copied()
}

/// Older names and the habits of other images, each with the name it stands for.
pub const ALIASES: [(&str, &Variable); 9] = [
    ("SMTP_LOGIN", &OUTGOING_SMTP_LOGIN),
    ("SMTP_PASSWORD", &OUTGOING_SMTP_PASSWORD),
    ("SMTP_AUTHLOGIN", &INCOMING_SMTP_AUTHLOGIN),
    ("SMTP_AUTHDOM", &INCOMING_SMTP_AUTHDOM),
    ("SMTP_AUTHPASSWORD", &INCOMING_SMTP_AUTHPASSWORD),
    ("RELAYHOST", &EXT_RELAY_HOST),
    ("MYNETWORKS", &ACCEPTED_NETWORKS),
    ("RELAYHOST_USERNAME", &OUTGOING_SMTP_LOGIN),
    ("RELAYHOST_PASSWORD", &OUTGOING_SMTP_PASSWORD),
];

/// Every variable, in the order of the reference.
pub static VARIABLES: [&Variable; 78] = [
    &RELAY_HOST_NAME,
    &ACCEPTED_NETWORKS,
    &EXT_RELAY_HOST,
    &EXT_RELAY_PORT,
    &INCOMING_SMTP_AUTHLOGIN,
    &INCOMING_SMTP_AUTHDOM,
    &INCOMING_SMTP_AUTHPASSWORD,
    &INCOMING_SMTP_USERS,
    &INCOMING_SMTP_SENDERS,
    &OUTGOING_SMTP_LOGIN,
    &OUTGOING_SMTP_PASSWORD,
    &OUTGOING_SMTP_AUTH,
    &USE_TLS,
    &TLS_VERIFY,
    &SSL_CERT_PEM,
    &SSL_CERT_KEY,
    &MAIL_FROM_FQDN,
    &LISTEN_SMTP,
    &LISTEN_SUBMISSION,
    &LISTEN_SUBMISSIONS,
    &SUBMISSION_NETWORKS,
    &LISTEN_ADMIN,
    &CONTROL_SOCKET,
    &STATE_DIR,
    &WORKERS,
    &PROXY_PROTOCOL,
    &TLS_INCOMING_MIN,
    &DELIVERY_PATIENCE,
    &QUEUE_RETRY,
    &QUEUE_LIFETIME,
    &DELAY_WARNING,
    &BOUNCE_TO,
    &QUEUE_BYTES_MAX,
    &UPSTREAM_CONNECTIONS,
    &UPSTREAM_IDLE,
    &UPSTREAM_MESSAGES_PER_CONNECTION,
    &UPSTREAM_RATE,
    &UPSTREAM_FINGERPRINTS,
    &UPSTREAM_CA,
    &OUTGOING_SMTP_MECHANISM,
    &OUTGOING_OAUTH_ENDPOINT,
    &OUTGOING_OAUTH_CLIENT_ID,
    &OUTGOING_OAUTH_CLIENT_SECRET,
    &OUTGOING_OAUTH_REFRESH_TOKEN,
    &OUTGOING_OAUTH_SCOPE,
    &OUTGOING_OAUTH_TOKEN_PATH,
    &MTA_STS,
    &DNS_SERVERS,
    &DNS_TRUST_ANCHORS,
    &ROUTES,
    &MESSAGE_SIZE_MAX,
    &RECIPIENTS_MAX,
    &SESSIONS_MAX,
    &SESSIONS_PER_CLIENT_MAX,
    &CLIENT_RATE,
    &COMMAND_TIMEOUT,
    &DATA_TIMEOUT,
    &SESSION_MIN_RATE,
    &HOPS_MAX,
    &BARE_NEWLINE,
    &ALLOWED_SENDERS,
    &DENIED_SENDERS,
    &ALLOWED_RECIPIENTS,
    &DENIED_RECIPIENTS,
    &EIGHTBIT,
    &ALWAYS_BCC,
    &DKIM_DOMAIN,
    &DKIM_SELECTOR,
    &DKIM_KEY,
    &XDP,
    &XDP_INTERFACES,
    &XDP_MODE,
    &XDP_ACTION,
    &XDP_SYN_RATE,
    &AUTOBAN,
    &LOG_TARGET,
    &LOG_FORMAT,
    &LOG_LEVEL,
];

/// The largest count that a 32-bit bound holds.
const COUNT_MAX: u64 = u32::MAX as u64;
const REFUSED: Without = Without::RefusedUnless(&[]);
const OFF: Without = Without::RefusedUnless(OFFS);
/// The words that switch something off.
pub const OFFS: &[&str] = &["off", "none"];
/// The words that mean no.
pub const NOES: &[&str] = &["no", "off", "false", "0"];
/// The words that mean yes.
pub const YESES: &[&str] = &["yes", "on", "true", "1"];
