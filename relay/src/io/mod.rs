//! The seam to the kernel: sockets, clock, entropy, buffers. Everything above it is generic over [`Io`].
//!
//! Two implementations: [`ring`] on monoio (io_uring, epoll as its last rung) and [`sim`] with virtual time and
//! seeded faults. Nothing else in the tree reads a clock, opens a socket or owns raw memory, so that the same
//! sessions, pools and streams run under both.
//!
//! Rules of the seam: every wait has a deadline; an operation that has begun is awaited to its end (never dropped
//! in a `select!`: io_uring still owns its buffer); after a deadline or an error the stream is only good for being
//! closed, but for a last reply after a timed-out receive.
//!
//! Unsafe code of the data plane lives in this module and its children; each block says why it is sound.

pub mod buffer;
pub mod clock;
pub mod deadline;
pub mod files;
pub mod flight;
pub mod ladder;
pub mod process;
pub mod ring;
pub mod sim;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

pub use buffer::Buffer;
pub use flight::Flight;

use crate::units::Moment;

/// The CPUs that this process may run on, in order; empty where the kernel does not say.
#[must_use]
pub fn cpus() -> Vec<usize> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
    list.trim().split(',').flat_map(cpu_range).collect()
}

/// `0-3` or `5`.
fn cpu_range(text: &str) -> std::ops::Range<usize> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), Ok(last)) => first..last + 1,
        _ => 0..0,
    }
}

/// What a worker's code needs of the world around it. Cloned freely; one per worker.
pub trait Io: Clone + 'static {
    /// A connected byte stream.
    type Stream: Stream;

    /// The monotonic clock.
    fn now(&self) -> Moment;

    /// The moment of the next tick: now, at most one [`TICK`](crate::limits::TICK) early. For deadlines, which are no
    /// finer and must not come too soon, and for idle times. Costs a load.
    fn tick(&self) -> Moment;

    /// The wall clock, in milliseconds since the Unix epoch: for dates in headers, logs and on disk, never for waits.
    fn unix_ms(&self) -> u64;

    /// Sixty-four random bits; not for secrets.
    fn random(&self) -> u64;

    /// Connects to an address by a deadline.
    fn connect(&self, address: SocketAddr, by: Moment) -> impl Future<Output = io::Result<Self::Stream>>;

    /// Waits; the end may come up to a millisecond late.
    fn sleep(&self, wait: Duration) -> impl Future<Output = ()>;

    /// Runs a task on this worker beside the others. It lives until it ends by itself.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);
}

/// One connection. Closed when dropped.
pub trait Stream: 'static {
    /// Receives into the spare room of the buffer, waiting for the first octet until the deadline.
    ///
    /// Zero octets with spare room left: the peer has ended its side. [`io::ErrorKind::TimedOut`]: the deadline came;
    /// the stream can then still send, but receive no more.
    fn receive(&mut self, into: Buffer, by: Moment) -> impl Future<Output = (io::Result<usize>, Buffer)>;

    /// Sends all of the flight. The emptied flight comes back for reuse.
    fn send(&mut self, flight: Flight, by: Moment) -> impl Future<Output = (io::Result<()>, Flight)>;

    /// Sends all octets of a buffer that comes back cleared for reuse.
    fn send_octets(&mut self, octets: Vec<u8>, by: Moment)
    -> impl Future<Output = (io::Result<()>, Vec<u8>)>;

    /// What waits to be received, without waiting for it.
    fn waiting(&self) -> Waiting;

    /// Marks whether a pause in receiving may be cut short when the worker drains (nobody's transaction is open).
    fn set_interruptible(&self, interruptible: bool);

    /// Sends the last octets of this side. Where the socket takes them at once they go out together with the end, by
    /// [`Self::finish_sending`], which must follow: a close over unread octets would take them back.
    fn send_final(&mut self, octets: Vec<u8>, by: Moment) -> impl Future<Output = io::Result<()>>;

    /// Ends our side: the peer reads what was sent, and then the end.
    fn finish_sending(&self);

    /// Makes the close a reset: the peer must not take what was sent for a complete message.
    fn reset_on_close(&self);
}

/// What a look at a stream's receive side found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// Nothing: the peer is silent and the connection open.
    Nothing,
    /// Octets that nobody has read.
    Octets,
    /// The peer has ended or broken the connection.
    Closed,
}
