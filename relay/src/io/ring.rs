//! The seam on monoio: one ring (or epoll) per worker thread.
//!
//! What it must not do: hold a timer per session, drop an operation that is under way, or resolve names.

#![allow(unsafe_code, reason = "a receive lends pool memory to the kernel; peeks and shutdowns by libc")]

use std::io;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;
use std::{cell::Cell, future::Future};

use monoio::buf::IoBufMut;
use monoio::io::{AsyncReadRent, AsyncWriteRent};
use monoio::net::{TcpListener, TcpStream};

use super::buffer::Buffer;
use super::deadline::{Deadlines, Side, Ticket};
use super::{Flight, Io, Stream, Waiting, clock};
use crate::limits::TICK;
use crate::units::Moment;

/// One worker's hands.
#[derive(Debug, Clone, Default)]
pub struct RingIo {
    deadlines: Deadlines,
    random: Rc<Cell<u64>>,
    next_tick: Rc<Cell<Moment>>,
}

impl RingIo {
    /// Hands of a worker; `seed` must differ between workers and processes.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            deadlines: Deadlines::default(),
            random: Rc::new(Cell::new(seed)),
            next_tick: Rc::new(Cell::new(clock::now().after(TICK))),
        }
    }

    /// Takes over an accepted or connected socket.
    #[must_use]
    pub fn stream(&self, socket: TcpStream) -> RingStream {
        let ticket = self.deadlines.enter(socket.as_raw_fd());
        RingStream { ticket, socket: ManuallyDrop::new(socket) }
    }

    /// Ends what has waited past its deadline; to be called every [`TICK`](crate::limits::TICK).
    pub fn expire(&self) {
        let now = clock::now();
        self.next_tick.set(now.after(TICK));
        self.deadlines.expire(now, shut_down);
    }

    /// Ends the pauses of idle sessions, when the worker drains.
    pub fn interrupt(&self) {
        self.deadlines.interrupt(shut_down);
    }

    /// Accepts connections until the listener is shut down, and hands each to `serve`.
    ///
    /// Nothing cancels a pending accept (a cancelled one can lose a connection): [`stop_accepting`] ends it.
    /// Out of descriptors or memory it pauses instead of spinning.
    pub async fn accept_all(&self, listener: Rc<TcpListener>, serve: impl Fn(RingStream, SocketAddr)) {
        loop {
            match listener.accept().await {
                Ok((socket, peer)) => serve(self.stream(socket), peer),
                Err(error) if is_over(&error) => return,
                Err(_) => self.sleep(ACCEPT_PAUSE).await,
            }
        }
    }
}

/// How long accepting pauses when the system has no descriptor or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Makes a listener refuse new connections and ends the accept that waits on it.
pub fn stop_accepting(listener: RawFd) {
    // SAFETY: a plain system call on a descriptor; a bad one is an error that has no consequence here.
    unsafe { libc::shutdown(listener, libc::SHUT_RD) };
}

fn is_over(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EBADF | libc::ENOTSOCK))
}

fn shut_down(fd: RawFd, side: Side) {
    let how = match side {
        Side::Receive => libc::SHUT_RD,
        Side::Send => libc::SHUT_RDWR,
    };
    // SAFETY: the slot of this descriptor is in the list, so its stream lives and the descriptor is open.
    unsafe { libc::shutdown(fd, how) };
}

impl Io for RingIo {
    type Stream = RingStream;

    fn now(&self) -> Moment {
        clock::now()
    }

    fn tick(&self) -> Moment {
        self.next_tick.get()
    }

    fn unix_ms(&self) -> u64 {
        clock::unix_ms()
    }

    fn random(&self) -> u64 {
        // splitmix64: enough for jitter and choices among equals.
        let state = self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    async fn connect(&self, address: SocketAddr, by: Moment) -> io::Result<RingStream> {
        let wait = by.since(self.now());
        let socket = Box::pin(monoio::time::timeout(wait, TcpStream::connect_addr(address)))
            .await
            .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
        socket.set_nodelay(true)?;
        Ok(self.stream(socket))
    }

    /// Boxed: monoio's timers are aligned to 128 octets, and every future that may sleep would be, and pay for it with
    /// a slow allocation where it is boxed itself.
    fn sleep(&self, wait: Duration) -> impl Future<Output = ()> {
        Box::pin(monoio::time::sleep(wait))
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        monoio::spawn(task);
    }
}

/// A TCP connection of this worker. The ticket stands first: it leaves the list before the socket is closed.
#[derive(Debug)]
pub struct RingStream {
    ticket: Ticket,
    socket: ManuallyDrop<TcpStream>,
}

impl Drop for RingStream {
    fn drop(&mut self) {
        // SAFETY: the socket is taken out here and nowhere else.
        let socket = unsafe { ManuallyDrop::take(&mut self.socket) };
        // An operation under way (its future was dropped at the end of the worker) still owns the descriptor.
        if !self.ticket.is_waiting() {
            // A plain close: dropping the socket would submit a close and a cancellation.
            // SAFETY: nobody else holds the descriptor, and its ownership passes to OwnedFd.
            drop(unsafe { OwnedFd::from_raw_fd(socket.into_raw_fd()) });
        }
    }
}

impl RingStream {
    fn borrowed(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open while self lives, and the borrow does not outlive self.
        unsafe { BorrowedFd::borrow_raw(self.socket.as_raw_fd()) }
    }

    fn outcome<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if self.ticket.finish() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        result
    }
}

impl Stream for RingStream {
    async fn receive(&mut self, into: Buffer, by: Moment) -> (io::Result<usize>, Buffer) {
        self.ticket.begin(Side::Receive, by);
        let (result, Spare(mut buffer)) = self.socket.read(Spare(into)).await;
        if let Ok(octets) = result {
            // SAFETY: the kernel wrote this many octets at the spare pointer, and never more than there was room.
            unsafe { buffer.advance(octets) };
        }
        // Octets that came before the deadline still count; the next receive then reports it.
        let expired = self.ticket.finish();
        let result = match result {
            Ok(0) | Err(_) if expired => Err(io::ErrorKind::TimedOut.into()),
            other => other,
        };
        (result, buffer)
    }

    async fn send(&mut self, mut flight: Flight, by: Moment) -> (io::Result<()>, Flight) {
        self.ticket.begin(Side::Send, by);
        let mut result = Ok(());
        while !flight.is_empty() {
            let (sent, back) = self.socket.writev(flight).await;
            flight = back;
            match sent {
                Ok(0) => result = Err(io::ErrorKind::WriteZero.into()),
                Ok(octets) => flight.advance(octets),
                Err(error) => result = Err(error),
            }
            if result.is_err() {
                break;
            }
        }
        flight.clear();
        (self.outcome(result), flight)
    }

    async fn send_octets(&mut self, octets: Vec<u8>, by: Moment) -> (io::Result<()>, Vec<u8>) {
        self.ticket.begin(Side::Send, by);
        let (sent, mut octets) = self.socket.write(octets).await;
        let result = match sent {
            Ok(count) if count == octets.len() => Ok(()),
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                let rest: Flight = [bytes::Bytes::copy_from_slice(&octets[count..])].into_iter().collect();
                self.send(rest, by).await.0
            }
            Err(error) => Err(error),
        };
        octets.clear();
        (self.outcome(result), octets)
    }

    fn waiting(&self) -> Waiting {
        let mut octet = 0u8;
        // SAFETY: one octet is written at most, into a live local; the descriptor is open while self lives.
        let found = unsafe {
            let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
            libc::recv(self.socket.as_raw_fd(), std::ptr::from_mut(&mut octet).cast(), 1, flags)
        };
        match found {
            0 => Waiting::Closed,
            1.. => Waiting::Octets,
            _ if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => Waiting::Nothing,
            _ => Waiting::Closed,
        }
    }

    fn set_interruptible(&self, interruptible: bool) {
        self.ticket.set_interruptible(interruptible);
    }

    async fn send_final(&mut self, mut octets: Vec<u8>, by: Moment) -> io::Result<()> {
        // MSG_MORE: held back for what follows. No turn of the ring, and one segment for the octets and the end.
        let flags = libc::MSG_MORE | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: the kernel reads so many octets of a live slice; the descriptor is open while self lives.
        let sent =
            unsafe { libc::send(self.socket.as_raw_fd(), octets.as_ptr().cast(), octets.len(), flags) };
        match usize::try_from(sent) {
            Ok(count) if count == octets.len() => Ok(()),
            Ok(count) => {
                drop(octets.drain(..count));
                self.send_octets(octets, by).await.0
            }
            Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => {
                self.send_octets(octets, by).await.0
            }
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    fn finish_sending(&self) {
        // SAFETY: a plain system call; the descriptor is open while self lives.
        unsafe { libc::shutdown(self.socket.as_raw_fd(), libc::SHUT_WR) };
    }

    fn reset_on_close(&self) {
        // Where it fails the connection is gone already.
        let _ = socket2::SockRef::from(&self.borrowed()).set_linger(Some(Duration::ZERO));
    }
}

/// The spare room of a buffer, as monoio wants it.
struct Spare(Buffer);

// SAFETY: the pointer and the length are those of the buffer's unfilled part; the memory does not move when the value
// does. The count of new octets is taken from the result of the receive, so set_init has nothing to do.
unsafe impl IoBufMut for Spare {
    fn write_ptr(&mut self) -> *mut u8 {
        self.0.spare_ptr()
    }

    fn bytes_total(&mut self) -> usize {
        self.0.spare()
    }

    unsafe fn set_init(&mut self, _octets: usize) {}
}
