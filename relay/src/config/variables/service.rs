//! The seeds' variables, and those of the listeners. A part of the table in `variables`.

use super::super::features::Feature;
use super::super::kind::Kind;
use super::super::variable::{Section, Variable, Without};
use super::{NOES, REFUSED};

/// `RELAY_HOST_NAME`.
pub static RELAY_HOST_NAME: Variable = Variable::new(
    "RELAY_HOST_NAME",
    Section::Relay,
    Kind::HostName,
    "",
    "The name in the banner, EHLO, `Received:` and notices.",
)
.else_said("the system's host name");

/// `ACCEPTED_NETWORKS`.
pub static ACCEPTED_NETWORKS: Variable = Variable::new("ACCEPTED_NETWORKS", Section::Relay, Kind::Networks, "192.168.0.0/16 172.16.0.0/12 10.0.0.0/8", "Who may relay without a password: IPv4 and IPv6 networks and single addresses. Loopback always may; empty leaves loopback alone.").may_be_empty();

/// `EXT_RELAY_HOST`.
pub static EXT_RELAY_HOST: Variable = Variable::new("EXT_RELAY_HOST", Section::Relay, Kind::Upstreams, "", "The upstream. `name` looks up MX, then addresses; `[name]` or an address literal goes straight there; several, in order of preference, between commas: `a:587,b:587`; `mx` delivers to the recipients' own mail exchangers.").else_said("with `OUTGOING_SMTP_LOGIN` `email-smtp.us-east-1.amazonaws.com`; without it, with `MAIL_FROM_FQDN`, `mx`; else the start is refused");

/// `EXT_RELAY_PORT`.
pub static EXT_RELAY_PORT: Variable = Variable::new(
    "EXT_RELAY_PORT",
    Section::Relay,
    Kind::Integer(1, 65_535),
    "25",
    "The port where the host gives none. 465 means TLS from the first octet.",
);

/// `INCOMING_SMTP_AUTHLOGIN`.
pub static INCOMING_SMTP_AUTHLOGIN: Variable = Variable::new(
    "INCOMING_SMTP_AUTHLOGIN",
    Section::Relay,
    Kind::Text,
    "",
    "The user of the one login for submission, `LOGIN@DOM`; all three variables or none.",
)
.needs(Feature::Auth, REFUSED);

/// `INCOMING_SMTP_AUTHDOM`.
pub static INCOMING_SMTP_AUTHDOM: Variable =
    Variable::new("INCOMING_SMTP_AUTHDOM", Section::Relay, Kind::HostName, "", "Its domain.")
        .needs(Feature::Auth, REFUSED);

/// `INCOMING_SMTP_AUTHPASSWORD`.
pub static INCOMING_SMTP_AUTHPASSWORD: Variable =
    Variable::new("INCOMING_SMTP_AUTHPASSWORD", Section::Relay, Kind::Secret, "", "Its password.")
        .needs(Feature::Auth, REFUSED);

/// `INCOMING_SMTP_USERS`.
pub static INCOMING_SMTP_USERS: Variable = Variable::new("INCOMING_SMTP_USERS", Section::Relay, Kind::SecretLines, "", "Further logins for submission, a line each: `user:password-or-hash` (htpasswd bcrypt, argon2 or plain). Usually given as `INCOMING_SMTP_USERS_FILE`.").needs(Feature::Auth, REFUSED);

/// `INCOMING_SMTP_SENDERS`.
pub static INCOMING_SMTP_SENDERS: Variable = Variable::new("INCOMING_SMTP_SENDERS", Section::Relay, Kind::UserLines, "", "Which sender addresses a user may use, a line each: `user: address @domain <>`. A user without a line may use all. Judged at MAIL; the headers are not.").needs(Feature::Auth, REFUSED);

/// `OUTGOING_SMTP_LOGIN`.
pub static OUTGOING_SMTP_LOGIN: Variable = Variable::new(
    "OUTGOING_SMTP_LOGIN",
    Section::Relay,
    Kind::Text,
    "",
    "The login at the upstream; required for an upstream host unless `OUTGOING_SMTP_AUTH=off`.",
)
.needs(Feature::Auth, REFUSED);

/// `OUTGOING_SMTP_PASSWORD`.
pub static OUTGOING_SMTP_PASSWORD: Variable = Variable::new(
    "OUTGOING_SMTP_PASSWORD",
    Section::Relay,
    Kind::Secret,
    "",
    "Its password; required likewise.",
)
.needs(Feature::Auth, REFUSED);

/// `OUTGOING_SMTP_AUTH`.
pub static OUTGOING_SMTP_AUTH: Variable = Variable::new(
    "OUTGOING_SMTP_AUTH",
    Section::Relay,
    Kind::Word(&["required", "off", "plaintext"]),
    "required",
    "`off` says on purpose that there is no login at the upstream; `plaintext` lets the login be sent without TLS.",
);

/// `USE_TLS`.
pub static USE_TLS: Variable = Variable::new(
    "USE_TLS",
    Section::Relay,
    Kind::Boolean,
    "no",
    "`yes`: the upstream must do TLS, whatever else is said.",
)
.needs(Feature::Tls, Without::RefusedUnless(NOES));

/// `TLS_VERIFY`.
pub static TLS_VERIFY: Variable = Variable::new("TLS_VERIFY", Section::Relay, Kind::Word(&["none", "may", "encrypt", "dane", "dane-only", "fingerprint", "verify", "secure"]), "may", "What is asked of the upstream's TLS, as Postfix's `smtp_tls_security_level`. `USE_TLS=yes` raises `none` and `may` to `encrypt`.").needs(Feature::Tls, Without::RefusedUnless(&["none", "may"]));

/// `SSL_CERT_PEM`.
pub static SSL_CERT_PEM: Variable = Variable::new(
    "SSL_CERT_PEM",
    Section::Relay,
    Kind::Pem,
    "",
    "The certificate chain shown to clients, leaf first: PEM text or a path.",
)
.else_said("self-signed, made at start and kept")
.needs(Feature::Tls, Without::Ineffective);

/// `SSL_CERT_KEY`.
pub static SSL_CERT_KEY: Variable = Variable::new(
    "SSL_CERT_KEY",
    Section::Relay,
    Kind::SecretPem,
    "",
    "Its private key: PEM text or a path.",
)
.else_said("self-signed, made at start and kept")
.needs(Feature::Tls, Without::Ineffective);

/// `MAIL_FROM_FQDN`.
pub static MAIL_FROM_FQDN: Variable = Variable::new("MAIL_FROM_FQDN", Section::Relay, Kind::HostName, "", "A host name put on every sender: the domain of the reverse-path and of each address in `From:` and `Sender:`.").needs(Feature::Rewrite, REFUSED);

/// `LISTEN_SMTP`.
pub static LISTEN_SMTP: Variable = Variable::new(
    "LISTEN_SMTP",
    Section::Listening,
    Kind::Listen,
    "0.0.0.0:25 [::]:25",
    "The plain port. `ACCEPTED_NETWORKS` may relay, others are refused at RCPT.",
)
.may_be_empty();

/// `LISTEN_SUBMISSION`.
pub static LISTEN_SUBMISSION: Variable = Variable::new(
    "LISTEN_SUBMISSION",
    Section::Listening,
    Kind::Listen,
    "0.0.0.0:587 [::]:587",
    "Submission after STARTTLS and AUTH. Closed while no incoming login is set.",
)
.may_be_empty();

/// `LISTEN_SUBMISSIONS`.
pub static LISTEN_SUBMISSIONS: Variable = Variable::new(
    "LISTEN_SUBMISSIONS",
    Section::Listening,
    Kind::Listen,
    "0.0.0.0:465 [::]:465",
    "Submission inside TLS from the first octet. Closed while no incoming login is set.",
)
.may_be_empty();

/// `SUBMISSION_NETWORKS`.
pub static SUBMISSION_NETWORKS: Variable = Variable::new(
    "SUBMISSION_NETWORKS",
    Section::Listening,
    Kind::Networks,
    "",
    "Who may reach the submission ports at all; `0.0.0.0/0 ::/0` for the world.",
)
.else_said("the value of `ACCEPTED_NETWORKS`")
.may_be_empty()
.needs(Feature::Auth, Without::Ineffective);

/// `LISTEN_ADMIN`.
pub static LISTEN_ADMIN: Variable = Variable::new(
    "LISTEN_ADMIN",
    Section::Listening,
    Kind::Listen,
    "127.0.0.1:9025",
    "HTTP: `/metrics`, `/healthz`, `/readyz`, `/status`, and a page to look at.",
)
.may_be_empty();

/// `CONTROL_SOCKET`.
pub static CONTROL_SOCKET: Variable = Variable::new(
    "CONTROL_SOCKET",
    Section::Listening,
    Kind::Path,
    "/run/ringpost/control.sock",
    "The Unix socket that the verbs talk to, mode 0660.",
);

/// `STATE_DIR`.
pub static STATE_DIR: Variable = Variable::new(
    "STATE_DIR",
    Section::Listening,
    Kind::Path,
    "/var/lib/ringpost",
    "Spool and made-up certificate.",
);

/// `WORKERS`.
pub static WORKERS: Variable = Variable::new(
    "WORKERS",
    Section::Listening,
    Kind::Integer(1, 1024),
    "",
    "Data-plane threads, each with an io_uring of its own, pinned.",
)
.else_said("one for each allowed CPU");

/// `PROXY_PROTOCOL`.
pub static PROXY_PROTOCOL: Variable = Variable::new(
    "PROXY_PROTOCOL",
    Section::Listening,
    Kind::Networks,
    "",
    "Networks whose connections must open with a PROXY v1 or v2 header.",
);

/// `TLS_INCOMING_MIN`.
pub static TLS_INCOMING_MIN: Variable = Variable::new(
    "TLS_INCOMING_MIN",
    Section::Listening,
    Kind::Word(&["1.2", "1.3"]),
    "1.2",
    "The oldest TLS version spoken to clients.",
)
.needs(Feature::Tls, Without::Ineffective);
