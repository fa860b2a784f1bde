//! The sink: takes mail as fast as one thread can and counts it. It must never be the bottleneck of a measurement, keeps
//! nothing, and listens on loopback only.

use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};
use tokio_uring::net::TcpStream;

use crate::receiver::{Event, Keep, Message, Offers, Receiver};
use crate::{clock, mail, process};

/// Octets read at once. Idle connections do not touch the pages of theirs.
const READ_OCTETS: usize = 128 << 10;
/// Connections that may wait to be accepted; the kernel's somaxconn bounds it further.
const BACKLOG: i32 = 4096;

/// How the sink behaves.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// What EHLO offers.
    pub offers: Offers,
    /// How long the verdict on a message is held back.
    pub delay: Duration,
    /// Every how many messages one is checked; 0 none, 1 all (and then repeated identifiers are counted too).
    pub check_every: u64,
}

/// What has arrived so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SinkReport {
    /// Connections accepted.
    pub connections: u64,
    /// Messages that ended.
    pub messages: u64,
    /// Octets of them on the wire.
    pub octets: u64,
    /// Messages whose connection closed before they ended.
    pub abandoned: u64,
    /// Messages whose content was checked.
    pub checked: u64,
    /// Of these: unmarked, cut, or changed.
    pub damaged: u64,
    /// Messages that came again. Counted where every message is checked.
    pub repeated: u64,
    /// From the sink's start to the end of the latest message.
    pub latest_seconds: f64,
    /// CPU of this process, in microseconds (user and system).
    pub cpu_micros: u64,
}

/// A running sink's counters; a clone counts into the same.
#[derive(Clone)]
pub struct Sink {
    manners: Manners,
    started: Instant,
    totals: Rc<RefCell<SinkReport>>,
    seen: Rc<RefCell<HashSet<[u8; 26]>>>,
}

impl Sink {
    /// A sink that has taken nothing yet.
    #[must_use]
    pub fn new(manners: Manners) -> Self {
        Sink { manners, started: clock::now(), totals: Rc::default(), seen: Rc::default() }
    }

    /// The counters now.
    #[must_use]
    pub fn report(&self) -> SinkReport {
        let mut totals = self.totals.borrow().clone();
        totals.cpu_micros = process::own_cpu_micros();
        totals
    }

    /// Serves every connection of `listener` until the runtime ends.
    ///
    /// # Errors
    /// What accepting says.
    pub async fn serve(&self, listener: TcpListener) -> io::Result<()> {
        let listener = tokio_uring::net::TcpListener::from_std(listener);
        loop {
            let (stream, _) = listener.accept().await?;
            let sink = self.clone();
            tokio_uring::spawn(async move {
                // A connection that fails shows as a message abandoned, or not at all.
                drop(sink.session(stream).await);
            });
        }
    }

    async fn session(&self, stream: TcpStream) -> io::Result<()> {
        self.totals.borrow_mut().connections += 1;
        stream.set_nodelay(true)?;
        let mut out = Vec::with_capacity(512);
        let mut receiver = Receiver::new(self.manners.offers, &mut out);
        let mut buffer = Vec::with_capacity(READ_OCTETS);
        receiver.keep(self.keep());
        loop {
            out = write(&stream, out).await?;
            buffer.clear();
            let (result, filled) = stream.read(buffer).await;
            buffer = filled;
            if !result.is_ok_and(|octets| octets > 0) {
                self.totals.borrow_mut().abandoned += u64::from(receiver.is_inside_message());
                return Ok(());
            }
            let mut taken = 0;
            while taken < buffer.len() {
                let (octets, event) = receiver.step(&buffer[taken..], &mut out);
                taken += octets;
                match event {
                    Event::NeedInput => {}
                    Event::Close => return write(&stream, out).await.map(drop),
                    Event::MessageEnd(message) => {
                        out = self.hold(&stream, out).await?;
                        self.count(&message);
                        receiver.accept(&mut out);
                        receiver.keep(self.keep());
                    }
                }
            }
        }
    }

    /// Holds a verdict back: what precedes it is written first.
    async fn hold(&self, stream: &TcpStream, out: Vec<u8>) -> io::Result<Vec<u8>> {
        if self.manners.delay.is_zero() {
            return Ok(out);
        }
        let out = write(stream, out).await?;
        tokio::time::sleep(self.manners.delay).await;
        Ok(out)
    }

    /// Whether the next message is one of those to be checked.
    fn keep(&self) -> Keep {
        let every = self.manners.check_every;
        if every > 0 && self.totals.borrow().messages.is_multiple_of(every) {
            Keep::Content
        } else {
            Keep::Length
        }
    }

    fn count(&self, message: &Message) {
        let mut totals = self.totals.borrow_mut();
        totals.messages += 1;
        totals.octets += message.octets;
        totals.latest_seconds = (clock::now() - self.started).as_secs_f64();
        let Some(content) = &message.content else { return };
        totals.checked += 1;
        match mail::check(content) {
            Err(_) => totals.damaged += 1,
            Ok(id) if self.manners.check_every == 1 => {
                totals.repeated += u64::from(!self.seen.borrow_mut().insert(id));
            }
            Ok(_) => {}
        }
    }
}

/// Binds a listener with a backlog deep enough for thousands of connections at once.
///
/// # Errors
/// What the socket says; an address that is not loopback.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_loopback() {
        return Err(io::Error::other(format!("{address} is no loopback address")));
    }
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Writes all of `out`, where there is any, and gives it back empty.
async fn write(stream: &TcpStream, out: Vec<u8>) -> io::Result<Vec<u8>> {
    if out.is_empty() {
        return Ok(out);
    }
    let (result, mut out) = stream.write_all(out).await;
    out.clear();
    result.map(|()| out)
}
