//! What an inbound session is configured by: checked values, ready to use. No behaviour.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use crate::policy::acl::{AddressList, Networks};
use crate::policy::rate::Rate;
pub use crate::smtp::body::BareNewline;
use crate::units::Octets;

/// Everything that the inbound side reads of the configuration. Durations are bounds, sizes are octets.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `RELAY_HOST_NAME`: banner, EHLO, `Received:`.
    pub relay_host_name: Arc<str>,
    /// `LISTEN_SMTP`; empty: closed.
    pub listen_smtp: Vec<SocketAddr>,
    /// `LISTEN_SUBMISSION`; empty: closed.
    pub listen_submission: Vec<SocketAddr>,
    /// `LISTEN_SUBMISSIONS`; empty: closed.
    pub listen_submissions: Vec<SocketAddr>,
    /// `ACCEPTED_NETWORKS`, loopback always among them.
    pub accepted_networks: Networks,
    /// `SUBMISSION_NETWORKS`, loopback always among them.
    pub submission_networks: Networks,
    /// `PROXY_PROTOCOL`: peers whose connections must open with a PROXY header.
    pub proxy_protocol: Networks,
    /// `MESSAGE_SIZE_MAX`.
    pub message_size_max: Octets,
    /// `RECIPIENTS_MAX` of one transaction.
    pub recipients_max: u32,
    /// `SESSIONS_MAX`, whole process.
    pub sessions_max: u32,
    /// `SESSIONS_PER_CLIENT_MAX`, whole process, per client address (IPv6: per /64).
    pub sessions_per_client_max: u32,
    /// `CLIENT_RATE`: messages of one client address.
    pub client_rate: Option<Rate>,
    /// `COMMAND_TIMEOUT`: longest wait for a command.
    pub command_timeout: Duration,
    /// `DATA_TIMEOUT`: longest wait for the next octets of a message.
    pub data_timeout: Duration,
    /// `SESSION_MIN_RATE`: octets a second under which a message is given up; 0: no bound.
    pub session_min_rate: u32,
    /// `HOPS_MAX`: `Received:` lines of a message.
    pub hops_max: u32,
    /// `BARE_NEWLINE`.
    pub bare_newline: BareNewline,
    /// `ALLOWED_SENDERS`; empty: everybody.
    pub allowed_senders: AddressList,
    /// `DENIED_SENDERS`.
    pub denied_senders: AddressList,
    /// `ALLOWED_RECIPIENTS`; empty: everybody.
    pub allowed_recipients: AddressList,
    /// `DENIED_RECIPIENTS`.
    pub denied_recipients: AddressList,
    /// `INCOMING_SMTP_AUTH…` and `INCOMING_SMTP_USERS`: who may submit; empty: nobody, and both listeners are closed.
    pub logins: Vec<Login>,
    /// `MAIL_FROM_FQDN`: the host name put on every sender.
    pub mail_from_fqdn: Option<Arc<str>>,
    /// `ALWAYS_BCC`: further recipients of every message.
    pub always_bcc: Vec<String>,
}

impl Config {
    /// Whether a user who has logged in may use this sender address; the empty one is the null reverse-path.
    #[must_use]
    pub fn may_send_as(&self, user: &str, sender: &str) -> bool {
        let login = self.logins.binary_search_by(|login| (*login.name).cmp(user));
        let senders = login.ok().and_then(|place| self.logins[place].senders.as_ref());
        senders.is_none_or(|senders| senders.matches(sender))
    }
}

/// One login for submission.
#[derive(Debug, Clone)]
pub struct Login {
    /// The user name, `LOGIN@DOM` for the one of `INCOMING_SMTP_AUTHLOGIN`.
    pub name: Arc<str>,
    /// The password, or its bcrypt or argon2 hash; one copy for all clones.
    pub password: Arc<SecretString>,
    /// `INCOMING_SMTP_SENDERS`: the sender addresses that this user may use; none: all.
    pub senders: Option<AddressList>,
}

impl PartialEq for Login {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.senders == other.senders
            && self.password.expose_secret() == other.password.expose_secret()
    }
}
