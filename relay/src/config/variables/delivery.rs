//! Custody, upstream, limits and manners. A part of the table in `variables`.

use super::super::features::Feature;
use super::super::kind::Kind;
use super::super::variable::{Section, Variable, Without};
use super::{COUNT_MAX, OFF, REFUSED};

/// `DELIVERY_PATIENCE`.
pub static DELIVERY_PATIENCE: Variable = Variable::new("DELIVERY_PATIENCE", Section::Custody, Kind::DurationOr(&["0", "forever"]), "50ms", "How long after the end of data the client is held for the upstream's own verdict; past it the message is synced to the spool and the client gets `250 … queued as ID`. `0`: always the spool. `forever`: never the spool, a pure streaming relay.").needs(Feature::Spool, Without::RefusedUnless(&["forever"]));

/// `QUEUE_RETRY`.
pub static QUEUE_RETRY: Variable = Variable::new(
    "QUEUE_RETRY",
    Section::Custody,
    Kind::Durations,
    "1m 5m 10m 20m 40m 1h",
    "Waits between attempts; the last repeats, each ±10 %.",
)
.needs(Feature::Spool, Without::Ineffective);

/// `QUEUE_LIFETIME`.
pub static QUEUE_LIFETIME: Variable = Variable::new(
    "QUEUE_LIFETIME",
    Section::Custody,
    Kind::Duration,
    "5d",
    "After which a message is returned.",
)
.needs(Feature::Spool, Without::Ineffective);

/// `DELAY_WARNING`.
pub static DELAY_WARNING: Variable = Variable::new(
    "DELAY_WARNING",
    Section::Custody,
    Kind::DurationOr(&["off"]),
    "off",
    "After which the sender is told of a delay.",
)
.needs(Feature::Spool, OFF);

/// `BOUNCE_TO`.
pub static BOUNCE_TO: Variable = Variable::new(
    "BOUNCE_TO",
    Section::Custody,
    Kind::AddressOr(&["sender", "off"]),
    "sender",
    "Where notices go.",
)
.needs(Feature::Spool, Without::Ineffective);

/// `QUEUE_BYTES_MAX`.
pub static QUEUE_BYTES_MAX: Variable = Variable::new(
    "QUEUE_BYTES_MAX",
    Section::Custody,
    Kind::PercentOrSize,
    "80%",
    "How much the spool may hold: of the file system, or a size. Past it clients hear `452 4.3.1`.",
)
.needs(Feature::Spool, Without::Ineffective);

/// `UPSTREAM_CONNECTIONS`.
pub static UPSTREAM_CONNECTIONS: Variable = Variable::new(
    "UPSTREAM_CONNECTIONS",
    Section::Upstream,
    Kind::Integer(1, 65_535),
    "20",
    "Connections to one upstream, whole process.",
);

/// `UPSTREAM_IDLE`.
pub static UPSTREAM_IDLE: Variable = Variable::new(
    "UPSTREAM_IDLE",
    Section::Upstream,
    Kind::Duration,
    "30s",
    "How long an idle connection is kept.",
);

/// `UPSTREAM_MESSAGES_PER_CONNECTION`.
pub static UPSTREAM_MESSAGES_PER_CONNECTION: Variable = Variable::new(
    "UPSTREAM_MESSAGES_PER_CONNECTION",
    Section::Upstream,
    Kind::Integer(1, COUNT_MAX),
    "1000",
    "Messages after which a connection is closed.",
);

/// `UPSTREAM_RATE`.
pub static UPSTREAM_RATE: Variable = Variable::new(
    "UPSTREAM_RATE",
    Section::Upstream,
    Kind::Rate,
    "",
    "Messages to the upstream: `100/s`, `14/s burst 50`.",
);

/// `UPSTREAM_FINGERPRINTS`.
pub static UPSTREAM_FINGERPRINTS: Variable = Variable::new(
    "UPSTREAM_FINGERPRINTS",
    Section::Upstream,
    Kind::Fingerprints,
    "",
    "SHA-256 fingerprints of certificates or public keys, for `TLS_VERIFY=fingerprint`.",
)
.needs(Feature::Tls, Without::Ineffective);

/// `UPSTREAM_CA`.
pub static UPSTREAM_CA: Variable = Variable::new(
    "UPSTREAM_CA",
    Section::Upstream,
    Kind::Path,
    "",
    "A PEM bundle for `verify` and `secure`.",
)
.else_said("the system's")
.needs(Feature::Tls, Without::Ineffective);

/// `OUTGOING_SMTP_MECHANISM`.
pub static OUTGOING_SMTP_MECHANISM: Variable = Variable::new(
    "OUTGOING_SMTP_MECHANISM",
    Section::Upstream,
    Kind::Word(&["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER"]),
    "",
    "How the login is proved to the upstream.",
)
.else_said("the best offered")
.needs(Feature::Auth, Without::Ineffective);

/// `OUTGOING_OAUTH_ENDPOINT`.
pub static OUTGOING_OAUTH_ENDPOINT: Variable = Variable::new("OUTGOING_OAUTH_ENDPOINT", Section::Upstream, Kind::HttpsUrl, "", "Where access tokens for the upstream are fetched, such as `https://oauth2.googleapis.com/token`: the login is then by XOAUTH2 or OAUTHBEARER, without OUTGOING_SMTP_PASSWORD. With it go OUTGOING_OAUTH_CLIENT_ID and OUTGOING_OAUTH_REFRESH_TOKEN. Its certificate is judged by UPSTREAM_CA.").needs(Feature::Auth, REFUSED);

/// `OUTGOING_OAUTH_CLIENT_ID`.
pub static OUTGOING_OAUTH_CLIENT_ID: Variable = Variable::new(
    "OUTGOING_OAUTH_CLIENT_ID",
    Section::Upstream,
    Kind::Text,
    "",
    "The client that the refresh token was issued to.",
)
.needs(Feature::Auth, REFUSED);

/// `OUTGOING_OAUTH_CLIENT_SECRET`.
pub static OUTGOING_OAUTH_CLIENT_SECRET: Variable = Variable::new(
    "OUTGOING_OAUTH_CLIENT_SECRET",
    Section::Upstream,
    Kind::Secret,
    "",
    "The client's secret, where it has one.",
)
.needs(Feature::Auth, REFUSED);

/// `OUTGOING_OAUTH_REFRESH_TOKEN`.
pub static OUTGOING_OAUTH_REFRESH_TOKEN: Variable = Variable::new(
    "OUTGOING_OAUTH_REFRESH_TOKEN",
    Section::Upstream,
    Kind::Secret,
    "",
    "What is exchanged for access tokens; each is renewed before it ends. One that the endpoint gives in its place is used until the process ends.",
)
.needs(Feature::Auth, REFUSED);

/// `OUTGOING_OAUTH_SCOPE`.
pub static OUTGOING_OAUTH_SCOPE: Variable =
    Variable::new("OUTGOING_OAUTH_SCOPE", Section::Upstream, Kind::Text, "", "The scope to ask for.")
        .else_said("that of the refresh token")
        .needs(Feature::Auth, REFUSED);

/// `OUTGOING_OAUTH_TOKEN_PATH`.
pub static OUTGOING_OAUTH_TOKEN_PATH: Variable = Variable::new(
    "OUTGOING_OAUTH_TOKEN_PATH",
    Section::Upstream,
    Kind::Path,
    "",
    "A file with the access token, kept fresh by somebody else; read again when it changes.",
)
.needs(Feature::Auth, REFUSED);

/// `MTA_STS`.
pub static MTA_STS: Variable = Variable::new("MTA_STS", Section::Upstream, Kind::Boolean, "yes", "With `EXT_RELAY_HOST=mx`: domains are asked for their MTA-STS policy (RFC 8461), and one in enforce mode is kept at `may`, `encrypt`, and `dane` without TLSA records. Certificates are judged by UPSTREAM_CA.").needs(Feature::Tls, Without::Ineffective);

/// `DNS_SERVERS`.
pub static DNS_SERVERS: Variable =
    Variable::new("DNS_SERVERS", Section::Upstream, Kind::NameServers, "", "Name servers to ask.")
        .else_said("those of `/etc/resolv.conf`");

/// `DNS_TRUST_ANCHORS`.
pub static DNS_TRUST_ANCHORS: Variable = Variable::new(
    "DNS_TRUST_ANCHORS",
    Section::Upstream,
    Kind::Path,
    "",
    "DNSKEY records that DANE's proofs begin at, in zone file form; read at the start.",
)
.else_said("the root's")
.needs(Feature::Tls, Without::Ineffective);

/// `ROUTES`.
pub static ROUTES: Variable = Variable::new(
    "ROUTES",
    Section::Upstream,
    Kind::Tables,
    "",
    "TOML file only: for each sender or recipient domain another upstream, login, TLS level, rate.",
)
.needs(Feature::Routes, REFUSED);

/// `MESSAGE_SIZE_MAX`.
pub static MESSAGE_SIZE_MAX: Variable = Variable::new(
    "MESSAGE_SIZE_MAX",
    Section::Limits,
    Kind::Size,
    "25M",
    "The largest message; over it `552 5.3.4`.",
);

/// `RECIPIENTS_MAX`.
pub static RECIPIENTS_MAX: Variable = Variable::new(
    "RECIPIENTS_MAX",
    Section::Limits,
    Kind::Integer(1, COUNT_MAX),
    "1000",
    "Recipients of one message; over it `452 4.5.3`.",
);

/// `SESSIONS_MAX`.
pub static SESSIONS_MAX: Variable = Variable::new(
    "SESSIONS_MAX",
    Section::Limits,
    Kind::Integer(1, COUNT_MAX),
    "20000",
    "Open sessions; over it `421 4.7.0`.",
);

/// `SESSIONS_PER_CLIENT_MAX`.
pub static SESSIONS_PER_CLIENT_MAX: Variable = Variable::new(
    "SESSIONS_PER_CLIENT_MAX",
    Section::Limits,
    Kind::Integer(1, COUNT_MAX),
    "1000",
    "Open sessions of one client address (IPv6: of one /64).",
);

/// `CLIENT_RATE`.
pub static CLIENT_RATE: Variable = Variable::new(
    "CLIENT_RATE",
    Section::Limits,
    Kind::Rate,
    "",
    "Messages of one client address (IPv6: of one /64).",
);

/// `COMMAND_TIMEOUT`.
pub static COMMAND_TIMEOUT: Variable = Variable::new(
    "COMMAND_TIMEOUT",
    Section::Limits,
    Kind::Duration,
    "5m",
    "The longest wait for a command.",
);

/// `DATA_TIMEOUT`.
pub static DATA_TIMEOUT: Variable = Variable::new(
    "DATA_TIMEOUT",
    Section::Limits,
    Kind::Duration,
    "3m",
    "The longest wait for the next octets of a message.",
);

/// `SESSION_MIN_RATE`.
pub static SESSION_MIN_RATE: Variable = Variable::new(
    "SESSION_MIN_RATE",
    Section::Limits,
    Kind::Integer(0, COUNT_MAX),
    "100",
    "Octets a second under which a message is given up; 0: no bound.",
);

/// `HOPS_MAX`.
pub static HOPS_MAX: Variable = Variable::new(
    "HOPS_MAX",
    Section::Limits,
    Kind::Integer(1, 1000),
    "50",
    "`Received:` lines of a message; over it `554 5.4.6`.",
);

/// `BARE_NEWLINE`.
pub static BARE_NEWLINE: Variable = Variable::new(
    "BARE_NEWLINE",
    Section::Limits,
    Kind::Word(&["normalize", "reject"]),
    "normalize",
    "What becomes of a CR or LF that stands alone in a message: it becomes CRLF, or the message is refused with `550 5.6.11`. In neither case does anything but CRLF.CRLF end a message.",
);

/// `ALLOWED_SENDERS`.
pub static ALLOWED_SENDERS: Variable = Variable::new(
    "ALLOWED_SENDERS",
    Section::Limits,
    Kind::AddressPatterns,
    "",
    "Only these senders: addresses, `@domain`s, `<>`.",
);

/// `DENIED_SENDERS`.
pub static DENIED_SENDERS: Variable =
    Variable::new("DENIED_SENDERS", Section::Limits, Kind::AddressPatterns, "", "Never these senders.");

/// `ALLOWED_RECIPIENTS`.
pub static ALLOWED_RECIPIENTS: Variable =
    Variable::new("ALLOWED_RECIPIENTS", Section::Limits, Kind::AddressPatterns, "", "Only these recipients.");

/// `DENIED_RECIPIENTS`.
pub static DENIED_RECIPIENTS: Variable =
    Variable::new("DENIED_RECIPIENTS", Section::Limits, Kind::AddressPatterns, "", "Never these recipients.");

/// `EIGHTBIT`.
pub static EIGHTBIT: Variable = Variable::new(
    "EIGHTBIT",
    Section::Limits,
    Kind::Word(&["bounce", "pass"]),
    "bounce",
    "8-bit content to an upstream without 8BITMIME is returned with 5.6.3, or passed on.",
);

/// `ALWAYS_BCC`.
pub static ALWAYS_BCC: Variable =
    Variable::new("ALWAYS_BCC", Section::Limits, Kind::Addresses, "", "Further recipients of every message.")
        .needs(Feature::Bcc, REFUSED);

/// `DKIM_DOMAIN`.
pub static DKIM_DOMAIN: Variable = Variable::new(
    "DKIM_DOMAIN",
    Section::Limits,
    Kind::HostName,
    "",
    "The domain that messages are signed for; all three variables or none.",
)
.needs(Feature::Dkim, REFUSED);

/// `DKIM_SELECTOR`.
pub static DKIM_SELECTOR: Variable =
    Variable::new("DKIM_SELECTOR", Section::Limits, Kind::HostName, "", "The selector of the key.")
        .needs(Feature::Dkim, REFUSED);

/// `DKIM_KEY`.
pub static DKIM_KEY: Variable =
    Variable::new("DKIM_KEY", Section::Limits, Kind::SecretPem, "", "The private key: PEM text or a path.")
        .needs(Feature::Dkim, REFUSED);
