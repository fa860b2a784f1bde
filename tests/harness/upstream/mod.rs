//! A scriptable SMTP server that plays the upstream: it answers as told, records every octet that matters,
//! and holds the relay to the rules of the wire. Plain threads; it must not be clever, only obviously right.

mod record;
mod script;
mod session;

pub use record::{Connection, End, Framing, Mail, Recipient, Record};
pub use script::{Act, Acts, Script, Stage};

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::wait::Watched;
use session::Session;

/// A listening upstream. When it is dropped, every breach of the wire's rules that it saw fails the test.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    record: Arc<Watched<Record>>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    closing: Arc<AtomicBool>,
    is_judge: bool,
}

impl Upstream {
    /// An upstream that says yes to everything.
    pub fn plain() -> Self {
        Self::start(Script::new())
    }

    /// An upstream that follows a script, on a free loopback port.
    ///
    /// # Panics
    /// When no port can be had.
    pub fn start(script: Script) -> Self {
        Self::start_at(TcpListener::bind("127.0.0.1:0").expect("a free port"), script)
    }

    /// An upstream that follows a script at a place that was bound before.
    ///
    /// # Panics
    /// When the listener is none.
    pub fn start_at(listener: TcpListener, script: Script) -> Self {
        let address = listener.local_addr().expect("a bound address");
        let record = Arc::new(Watched::new(Record::default()));
        let streams = Arc::new(Mutex::new(Vec::new()));
        let closing = Arc::new(AtomicBool::new(false));
        let upstream = Self { address, record, streams, closing, is_judge: true };
        upstream.accept(listener, Arc::new(script));
        upstream
    }

    fn accept(&self, listener: TcpListener, script: Arc<Script>) {
        let (record, streams) = (Arc::clone(&self.record), Arc::clone(&self.streams));
        let closing = Arc::clone(&self.closing);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if closing.load(Ordering::Acquire) {
                    return;
                }
                let kept = stream.try_clone().expect("a descriptor");
                streams.lock().unwrap_or_else(PoisonError::into_inner).push(kept);
                let session = Session::new(stream, Arc::clone(&script), Arc::clone(&record));
                thread::spawn(move || session.serve());
            }
        });
    }

    /// Takes what clients say as it comes: they are not ours to judge.
    pub fn for_others(mut self) -> Self {
        self.is_judge = false;
        self
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address as `EXT_RELAY_HOST` takes it: no look-up of anything.
    pub fn host(&self) -> String {
        format!("[{}]:{}", self.address.ip(), self.address.port())
    }

    /// What it has seen.
    pub fn record(&self) -> &Watched<Record> {
        &self.record
    }

    /// Waits until this many mails are complete, and returns those that are.
    #[track_caller]
    pub fn mails(&self, count: usize) -> Vec<Mail> {
        self.record.find(&format!("{count} mails are complete"), |record| {
            let complete: Vec<Mail> = record.mails.iter().filter(|mail| mail.complete).cloned().collect();
            (complete.len() >= count).then_some(complete)
        })
    }

    /// Waits for exactly one mail.
    #[track_caller]
    pub fn mail(&self) -> Mail {
        let mut mails = self.mails(1);
        assert_eq!(mails.len(), 1, "one mail was to arrive: {mails:#?}");
        mails.remove(0)
    }

    /// Mails that are complete by now.
    pub fn complete(&self) -> usize {
        self.record.read(|record| record.mails.iter().filter(|mail| mail.complete).count())
    }

    /// Waits until the nth connection has ended, and tells how.
    #[track_caller]
    pub fn ended(&self, connection: usize) -> Connection {
        self.record.find(&format!("connection {connection} has ended"), |record| {
            record.connections.get(connection).filter(|connection| connection.end.is_some()).cloned()
        })
    }

    /// Commands of the nth connection so far.
    pub fn commands(&self, connection: usize) -> Vec<String> {
        self.record.read(|record| {
            record.connections.get(connection).map_or_else(Vec::new, |connection| connection.commands.clone())
        })
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.record.read(|record| record.connections.len())
    }

    /// Whether nothing new is seen for this long.
    pub fn stays_quiet(&self, span: Duration) -> bool {
        let before = self.record.read(Record::events);
        self.record.find_within(span, |record| (record.events() != before).then_some(())).is_none()
    }

    /// Writes octets that nobody asked for to the nth connection.
    pub fn interject(&self, connection: usize, octets: &[u8]) {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut stream) = streams.get(connection) {
            // A relay that has gone in the meantime hears nothing, and the test sees that it is gone.
            stream.write_all(octets).ok();
        }
    }

    /// Closes the nth connection from this side.
    pub fn hang_up(&self, connection: usize) {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = streams.get(connection) {
            stream.shutdown(std::net::Shutdown::Both).ok();
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        // Wakes the accepting thread, which then sees that it is over.
        TcpStream::connect(self.address).ok();
        if !thread::panicking() && self.is_judge {
            let breaches = self.record.read(Record::breaches);
            assert!(breaches.is_empty(), "on the upstream wire: {breaches:#?}");
        }
    }
}

/// An address on which nobody listens, yet.
///
/// # Panics
/// When no port can be had.
pub fn refusing() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("a bound address")
}

/// A listener at port 465 of a loopback address that nobody else has; none where such ports cannot be bound.
pub fn at_port_465() -> Option<TcpListener> {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    (0..64).find_map(|_| {
        let next = NEXT.fetch_add(0x0001_0203, Ordering::Relaxed);
        let [_, a, b, c] = std::process::id().wrapping_mul(2_654_435_761).wrapping_add(next).to_be_bytes();
        TcpListener::bind((Ipv4Addr::new(127, a, b, c | 1), 465)).ok()
    })
}

#[cfg(test)]
mod tests;
