//! Making a connection to an upstream: TCP, greeting, EHLO. Each address of the upstream in turn, by order of preference.

use std::net::SocketAddr;
use std::sync::Arc;

use super::connection::{Broken, Connection};
use super::pool::Place;
use crate::io::{Io, Stream};
use crate::limits::{UPSTREAM_CONNECT_TIMEOUT, UPSTREAM_GREETING_TIMEOUT};
use crate::smtp::client::{Unspeakable, UpstreamReply};
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
}

/// Connects to an address and greets it.
pub async fn connect<I: Io>(
    io: &I,
    host_name: &str,
    (host, address): (Arc<str>, SocketAddr),
    place: Place,
) -> Result<Connection<I::Stream>, (Unusable, Place)> {
    let by = io.now().after(UPSTREAM_CONNECT_TIMEOUT);
    let stream = match io.connect(address, by).await {
        Ok(stream) => stream,
        Err(error) => return Err((Unusable::Connect(error), place)),
    };
    let mut connection = Connection::new(stream, address, host, place);
    match greet(io, host_name, &mut connection).await {
        Ok(()) => Ok(connection),
        Err(unusable) => Err((unusable, connection.into_place())),
    }
}

/// RFC 5321 §3.1, §3.2: the greeting, then EHLO; HELO for an upstream that does not know EHLO.
async fn greet<I: Io>(
    io: &I,
    host_name: &str,
    connection: &mut Connection<I::Stream>,
) -> Result<(), Unusable> {
    let by = io.now().after(UPSTREAM_GREETING_TIMEOUT);
    expect_positive(connection, by).await?;
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
