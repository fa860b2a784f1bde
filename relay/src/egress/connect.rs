//! Making a connection to an upstream: TCP, TLS, greeting, EHLO, login. Each address of the upstream in turn, by order
//! of preference.
//!
//! Where TLS is only wished for, a failed handshake, or text injected before it, is followed by one more connection,
//! in plaintext. It must not send a login outside TLS unless that was asked for on purpose (invariant 6), nor believe
//! anything that an upstream said before TLS (invariant 5).

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use super::config::{Login, Mechanism, Plaintext};
use super::connection::{Broken, Connection};
use super::permit::Permit;
use super::protection::Protection;
use super::sasl::{Exchange, SecretText};
use crate::io::{Io, Stream};
use crate::limits::{
    AUTH_CHALLENGES_MAX, SUBMISSIONS_PORT, TLS_HANDSHAKE_TIMEOUT, UPSTREAM_CONNECT_TIMEOUT,
    UPSTREAM_GREETING_TIMEOUT,
};
use crate::meter::labels::{PerHandshakeOutcome, PerTlsVersion};
use crate::meter::{HandshakeOutcome, TlsVersion};
use crate::smtp::client::{Client, Unspeakable, UpstreamReply, Violation};
use crate::tls;
use crate::tls::client::{Connector, Wanted};
use crate::tls::rule::Rule;
use crate::units::Moment;

/// Why an address gave no usable connection.
#[derive(Debug)]
pub enum Unusable {
    /// No TCP connection.
    Connect(std::io::Error),
    /// The connection broke before it was ready.
    Broken(Broken),
    /// The upstream refused service: its greeting or its replies to EHLO and HELO.
    Refused(UpstreamReply),
    /// The upstream has no TLS, and there must be.
    NoTls(Option<UpstreamReply>),
    /// The handshake failed.
    Tls(tls::Fault),
    /// What is asked of TLS cannot be had for this host.
    Impossible(String),
    /// The login cannot be made here: no TLS to send it in, or no mechanism that may be used.
    NoLogin(&'static str),
    /// The upstream does not carry REQUIRETLS on, and the message asks for it.
    NoRequireTls,
    /// The upstream refused the login.
    LoginRefused(UpstreamReply),
}

impl Unusable {
    /// Whether the way into TLS failed, so that a connection without it may be of use.
    fn is_of_tls(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::Broken(Broken::Violation(Violation::PlaintextBehindStartTls)))
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => error.fmt(f),
            Self::Broken(broken) => write!(f, "{broken:?}"),
            Self::Refused(reply) => reply.to_reply().fmt(f),
            Self::NoTls(None) => f.write_str("TLS is required, but was not offered"),
            Self::NoTls(Some(reply)) => {
                write!(f, "TLS is required, but STARTTLS was refused: {}", reply.to_reply())
            }
            Self::Tls(fault) => write!(f, "no TLS: {fault}"),
            Self::Impossible(why) => write!(f, "TLS cannot be had as required: {why}"),
            Self::NoRequireTls => f.write_str("REQUIRETLS is not offered"),
            Self::NoLogin(why) => f.write_str(why),
            Self::LoginRefused(reply) => write!(f, "the login was refused: {}", reply.to_reply()),
        }
    }
}

/// How a connection is made.
pub struct Manner<'a> {
    /// The name for EHLO.
    pub host_name: &'a str,
    /// What is asked of TLS.
    pub wanted: Wanted,
    /// What the message asks for besides.
    pub protection: Protection,
    /// The worker's TLS configurations.
    pub connector: &'a Connector,
    /// The login, if there is one.
    pub login: Option<&'a Login>,
    /// The mechanism that was asked for.
    pub mechanism: Option<Mechanism>,
    /// Where handshakes are counted.
    pub handshakes: &'a RefCell<PerTlsVersion<PerHandshakeOutcome>>,
}

impl Manner<'_> {
    /// Whether a connection without TLS would be of use after one with it has failed.
    fn allows_plaintext(&self) -> bool {
        matches!(self.wanted, Wanted::Maybe(_))
            && self.login.is_none_or(|login| login.plaintext == Plaintext::Allowed)
    }
}

/// Connects to an address and makes the connection ready for its first transaction.
///
/// # Errors
/// Why it is of no use, and the right to another connection.
pub async fn connect<I: Io>(
    io: &I,
    manner: &Manner<'_>,
    (host, address): (Arc<str>, SocketAddr),
    permit: Permit,
) -> Result<Connection<I::Stream>, (Unusable, Permit)> {
    let target = (host, address);
    match attempt(io, manner, &manner.wanted, target.clone(), permit).await {
        Err((why, permit))
            if why.is_of_tls() && manner.allows_plaintext() && address.port() != SUBMISSIONS_PORT =>
        {
            // As Postfix does at `may`: the wish for TLS must not keep mail from going.
            tracing::warn!(event = "tls_failed", host = %target.0, %address, reason = %why, fallback = "plaintext");
            attempt(io, manner, &Wanted::Never, target, permit).await
        }
        result => result,
    }
}

async fn attempt<I: Io>(
    io: &I,
    manner: &Manner<'_>,
    wanted: &Wanted,
    (host, address): (Arc<str>, SocketAddr),
    permit: Permit,
) -> Result<Connection<I::Stream>, (Unusable, Permit)> {
    if let Wanted::Impossible(why) = wanted {
        return Err((Unusable::Impossible(why.clone()), permit));
    }
    let by = io.now().after(UPSTREAM_CONNECT_TIMEOUT);
    let stream = match io.connect(address, by).await {
        Ok(stream) => stream,
        Err(error) => return Err((Unusable::Connect(error), permit)),
    };
    let mut connection = Connection::new(stream, address, host, permit);
    match prepare(io, manner, wanted, &mut connection).await {
        Ok(()) => Ok(connection),
        Err(unusable) => Err((unusable, connection.into_permit())),
    }
}

/// TLS at once or after STARTTLS, greetings, login.
async fn prepare<I: Io>(
    io: &I,
    manner: &Manner<'_>,
    wanted: &Wanted,
    connection: &mut Connection<I::Stream>,
) -> Result<(), Unusable> {
    let by = || io.now().after(UPSTREAM_GREETING_TIMEOUT);
    if connection.address.port() == SUBMISSIONS_PORT {
        // RFC 8314 §3.3: TLS from the first octet, whatever the level.
        let rule = match wanted {
            Wanted::Must(rule) | Wanted::Maybe(rule) => rule,
            _ => &Rule::Any,
        };
        secure(io, manner, rule, connection).await?;
    }
    expect_positive(connection, by()).await?;
    hello(manner.host_name, connection, by()).await?;
    if !connection.is_secure()
        && let Wanted::Must(rule) | Wanted::Maybe(rule) = wanted
        && starts_tls(connection, wanted, by()).await?
    {
        secure(io, manner, rule, connection).await?;
        connection.machine.tls_started();
        hello(manner.host_name, connection, by()).await?;
    }
    // RFC 8689 §4.2.1: before anything of the message is told.
    if manner.protection == Protection::RequireTls && !connection.machine.capabilities().require_tls {
        return Err(Unusable::NoRequireTls);
    }
    match manner.login {
        Some(login) => log_in(manner, login, connection, by()).await,
        None => Ok(()),
    }
}

/// RFC 5321 §3.2: EHLO; HELO for an upstream that does not know EHLO.
async fn hello<S: Stream>(
    host_name: &str,
    connection: &mut Connection<S>,
    by: Moment,
) -> Result<(), Unusable> {
    connection.command(|machine, out| machine.ehlo(host_name, out)).map_err(unspeakable)?;
    let reply = exchange_one(connection, by).await?;
    if reply.is_positive() {
        return Ok(());
    }
    if !reply.is_permanent() {
        return Err(Unusable::Refused(reply));
    }
    connection.command(|machine, out| machine.helo(host_name, out)).map_err(unspeakable)?;
    match exchange_one(connection, by).await? {
        reply if reply.is_positive() => Ok(()),
        reply => Err(Unusable::Refused(reply)),
    }
}

/// RFC 3207 §4: whether the upstream is ready for the handshake.
async fn starts_tls<S: Stream>(
    connection: &mut Connection<S>,
    wanted: &Wanted,
    by: Moment,
) -> Result<bool, Unusable> {
    let must = matches!(wanted, Wanted::Must(_));
    if !connection.machine.capabilities().starttls {
        return if must { Err(Unusable::NoTls(None)) } else { Ok(false) };
    }
    connection.command(Client::starttls);
    match exchange_one(connection, by).await? {
        reply if reply.is_positive() => Ok(true),
        reply if must || reply.is_closing() => Err(Unusable::NoTls(Some(reply))),
        _ => Ok(false),
    }
}

async fn secure<I: Io>(
    io: &I,
    manner: &Manner<'_>,
    rule: &Rule,
    connection: &mut Connection<I::Stream>,
) -> Result<(), Unusable> {
    let by = io.now().after(TLS_HANDSHAKE_TIMEOUT);
    let result = match manner.connector.begin(rule, &connection.host) {
        Ok(records) => connection.secure(records, rule, by).await,
        Err(fault) => Err(fault),
    };
    let (version, outcome) = match &result {
        Ok(agreed) => (agreed.label, HandshakeOutcome::Ok),
        Err(_) => (TlsVersion::None, HandshakeOutcome::Failed),
    };
    manner.handshakes.borrow_mut()[version][outcome] += 1;
    result.map(|_| ()).map_err(Unusable::Tls)
}

/// RFC 4954 §4. A login is never sent outside TLS, unless on purpose.
async fn log_in<S: Stream>(
    manner: &Manner<'_>,
    login: &Login,
    connection: &mut Connection<S>,
    by: Moment,
) -> Result<(), Unusable> {
    if !connection.is_secure() && login.plaintext == Plaintext::Refused {
        return Err(Unusable::NoLogin("the login is not sent without TLS"));
    }
    let Some(login) = &login.now() else {
        return Err(Unusable::NoLogin("there is no access token yet"));
    };
    let mechanism = Mechanism::choose(manner.mechanism, login, connection.machine.capabilities())
        .map_err(|_| Unusable::NoLogin("the upstream offers no mechanism for the login"))?;
    connection.reserve_for_secrets();
    let outcome = prove(mechanism, login, connection, by).await;
    connection.wipe_secrets();
    outcome
}

/// The exchange itself.
async fn prove<S: Stream>(
    mechanism: Mechanism,
    login: &Login,
    connection: &mut Connection<S>,
    by: Moment,
) -> Result<(), Unusable> {
    let untrue = |_| Unusable::NoLogin("the upstream does not keep to the mechanism of the login");
    let mut exchange = Exchange::begin(mechanism, login, &connection.host, connection.address.port())
        .map_err(|_| Unusable::NoLogin("no randomness for the login"))?;
    let mut initial = exchange.initial(mechanism);
    let is_long = initial.as_ref().is_some_and(|text| text.len() > INITIAL_OCTETS_MAX);
    let held_back = if is_long { initial.take() } else { None };
    let text = initial.as_ref().map(|text| text.as_str());
    connection.command(|machine, out| machine.auth(mechanism.name(), text, out)).map_err(unspeakable)?;
    let mut reply = exchange_one(connection, by).await?;
    let mut held_back: Option<SecretText> = held_back;
    for _ in 0..AUTH_CHALLENGES_MAX {
        if reply.is_positive() {
            return exchange.accepts(&reply.text).map_err(untrue);
        }
        if !reply.is_intermediate() {
            return Err(Unusable::LoginRefused(reply));
        }
        let response = match held_back.take() {
            Some(initial) => Ok(initial),
            None => exchange.respond(&reply.text),
        };
        let text = response.as_ref().map_or("*", |text| text.as_str());
        connection.command(|machine, out| machine.auth_response(text, out)).map_err(unspeakable)?;
        reply = exchange_one(connection, by).await?;
        response.map_err(untrue)?;
    }
    Err(Unusable::NoLogin("the upstream asks without end"))
}

fn unspeakable(error: Unspeakable) -> Unusable {
    Unusable::Broken(error.into())
}

async fn expect_positive<S: Stream>(connection: &mut Connection<S>, by: Moment) -> Result<(), Unusable> {
    let reply = exchange_one(connection, by).await?;
    if reply.is_positive() { Ok(()) } else { Err(Unusable::Refused(reply)) }
}

async fn exchange_one<S: Stream>(
    connection: &mut Connection<S>,
    by: Moment,
) -> Result<UpstreamReply, Unusable> {
    connection.exchange(by).await.map_err(Unusable::Broken)?;
    let reply = connection.replies.pop().map(|(_, reply)| reply);
    reply.ok_or(Unusable::Broken(Broken::Closed))
}

/// A longer initial response waits for the upstream's challenge: the AUTH line has the bound of a command (RFC 4954 §4).
const INITIAL_OCTETS_MAX: usize = 480;
