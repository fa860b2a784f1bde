//! The seam simulated: one thread, virtual time, a network of byte pipes with seeded delays, short reads and resets.
//!
//! The same sessions, pools and streams that run on a ring run here, thousands of schedules a second and each of them
//! again from its seed. A [`World`] owns the clock, the tasks and the listening addresses; when no task can go on, time
//! jumps to the next moment at which something happens. Nothing here touches the real clock, a socket or a thread.
//!
//! What it must not do: be kinder than the kernel. A receive returns any part of what has arrived, a send may meet a
//! reset, a deadline ends a receive but leaves the sending side alive, exactly as [`ring`](super::ring) does it.

mod faults;
mod pipe;
mod process;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};

pub use self::faults::Faults;
use self::pipe::Pipe;
use self::process::{Listener, Processes, Task};
use super::{Buffer, Flight, Io, Stream, Waiting};
use crate::limits::TICK;
use crate::units::Moment;

/// The whole simulated world; cheap to clone within its thread.
#[derive(Clone)]
pub struct World {
    inner: Rc<Inner>,
    /// Whose hand this is: what it spawns and serves ends with that process.
    process: u64,
}

struct Inner {
    now: Cell<u64>,
    random: Cell<u64>,
    faults: Cell<Faults>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    ready: Arc<Ready>,
    timers: RefCell<BTreeMap<(u64, u64), Waker>>,
    numbers: Cell<u64>,
    listeners: RefCell<BTreeMap<SocketAddr, Listener>>,
    processes: RefCell<Processes>,
    course: Cell<u64>,
}

/// Tasks that can go on, in the order in which they were woken.
#[derive(Default)]
struct Ready(Mutex<VecDeque<u64>>);

impl Ready {
    fn push(&self, task: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(task);
    }

    fn pop(&self) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

struct TaskWaker {
    ready: Arc<Ready>,
    task: u64,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.push(self.task);
    }
}

impl World {
    /// A world whose whole course follows from the seed.
    #[must_use]
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self {
            inner: Rc::new(Inner {
                now: Cell::new(0),
                random: Cell::new(seed),
                faults: Cell::new(faults),
                tasks: RefCell::default(),
                ready: Arc::default(),
                timers: RefCell::default(),
                numbers: Cell::new(0),
                listeners: RefCell::default(),
                processes: RefCell::default(),
                course: Cell::new(seed),
            }),
            process: 0,
        }
    }

    /// Changes what the network does from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.inner.faults.set(faults);
    }

    /// Serves an address: every connection to it is handed to `serve`.
    pub fn listen(&self, address: SocketAddr, serve: impl Fn(SimStream) + 'static) {
        let listener = Listener { process: self.process, serve: Rc::new(serve) };
        self.inner.listeners.borrow_mut().insert(address, listener);
    }

    /// Refuses connections to an address from now on; those that are open go on.
    pub fn stop_listening(&self, address: SocketAddr) {
        self.inner.listeners.borrow_mut().remove(&address);
    }

    /// Two ends of a connection.
    #[must_use]
    pub fn pair(&self) -> (SimStream, SimStream) {
        let (there, back) = (Rc::<Pipe>::default(), Rc::<Pipe>::default());
        let end = |incoming: &Rc<Pipe>, outgoing: &Rc<Pipe>| SimStream {
            world: self.clone(),
            incoming: Rc::clone(incoming),
            outgoing: Rc::clone(outgoing),
            has_timed_out: Cell::new(false),
            resets: Cell::new(false),
        };
        (end(&back, &there), end(&there, &back))
    }

    /// Runs until the future has ended, or until nothing can happen any more, or until `by`. `None`: it never ended.
    pub fn run<T: 'static>(&self, by: Moment, future: impl Future<Output = T> + 'static) -> Option<T> {
        let result = Rc::new(RefCell::new(None));
        let slot = Rc::clone(&result);
        self.spawn(async move {
            *slot.borrow_mut() = Some(future.await);
        });
        while result.borrow().is_none() && self.now() <= by && self.step() {}
        result.take()
    }

    /// Lets the next thing happen: one task goes on, or time does. False: nothing can happen any more.
    pub fn step(&self) -> bool {
        self.turn() || self.jump()
    }

    /// Ends the world: every task, listener and timer goes, and with them what they hold of the world itself.
    pub fn end(&self) {
        drop(self.inner.listeners.take());
        drop(self.inner.tasks.take());
        drop(self.inner.timers.take());
    }

    /// Polls one task that can go on.
    fn turn(&self) -> bool {
        let Some(number) = self.inner.ready.pop() else { return false };
        // A task that has ended may be woken once more.
        let Some(mut task) = self.inner.tasks.borrow_mut().remove(&number) else { return true };
        let waker = Waker::from(Arc::new(TaskWaker { ready: Arc::clone(&self.inner.ready), task: number }));
        self.note(number);
        if task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.inner.tasks.borrow_mut().insert(number, task);
        }
        true
    }

    /// Goes to the next moment at which something happens.
    fn jump(&self) -> bool {
        let Some(((at, _), waker)) = self.inner.timers.borrow_mut().pop_first() else { return false };
        self.inner.now.set(at.max(self.inner.now.get()));
        waker.wake();
        true
    }

    fn wake_at(&self, at: u64, waker: &Waker) {
        self.inner.timers.borrow_mut().insert((at, self.number()), waker.clone());
    }

    fn number(&self) -> u64 {
        self.inner.numbers.set(self.inner.numbers.get() + 1);
        self.inner.numbers.get()
    }

    fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.random() % bound }
    }

    fn happens(&self, permille: u64) -> bool {
        permille > 0 && self.below(1000) < permille
    }

    fn faults(&self) -> Faults {
        self.inner.faults.get()
    }
}

impl Io for World {
    type Stream = SimStream;

    fn now(&self) -> Moment {
        Moment(self.inner.now.get())
    }

    /// As late as the ring's may be.
    fn tick(&self) -> Moment {
        let tick = u64::try_from(TICK.as_micros()).unwrap_or(u64::MAX);
        Moment(self.inner.now.get() / tick * tick)
    }

    fn unix_ms(&self) -> u64 {
        1_790_000_000_000 + self.inner.now.get() / 1000
    }

    fn random(&self) -> u64 {
        // splitmix64, as on the ring.
        let state = self.inner.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.inner.random.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    async fn connect(&self, address: SocketAddr, by: Moment) -> io::Result<SimStream> {
        let way = Duration::from_micros(self.below(self.faults().delay_micros_max + 1));
        if self.now().after(way) > by {
            self.sleep(by.since(self.now())).await;
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.sleep(way).await;
        let serve = self.inner.listeners.borrow().get(&address).map(|listener| Rc::clone(&listener.serve));
        let serve = serve.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (ours, theirs) = self.pair();
        serve(theirs);
        Ok(ours)
    }

    async fn sleep(&self, wait: Duration) {
        let by = self.now().after(wait);
        poll_fn(|context| {
            if self.now() >= by {
                return Poll::Ready(());
            }
            self.wake_at(by.0, context.waker());
            Poll::Pending
        })
        .await;
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        if self.refuses(std::any::type_name_of_val(&task)) {
            return;
        }
        let number = self.number();
        let task = Task { process: self.process, future: Box::pin(task) };
        self.inner.tasks.borrow_mut().insert(number, task);
        self.inner.ready.push(number);
    }
}

/// Octets on the way in one direction before a send waits.
const PIPE_OCTETS_MAX: usize = 256 * 1024;

/// One end of a simulated connection.
pub struct SimStream {
    world: World,
    incoming: Rc<Pipe>,
    outgoing: Rc<Pipe>,
    has_timed_out: Cell<bool>,
    resets: Cell<bool>,
}

impl std::fmt::Debug for SimStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimStream").field("has_timed_out", &self.has_timed_out).finish_non_exhaustive()
    }
}

impl SimStream {
    /// What a receive finds now; `None`: it must wait.
    fn find(&self, room: usize) -> Option<io::Result<Bytes>> {
        let faults = self.world.faults();
        if self.incoming.is_reset.get() {
            return Some(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if self.incoming.next().is_none_or(|at| at > self.world.now().0) {
            return None;
        }
        if self.world.happens(faults.resets_permille) {
            self.break_off();
            return Some(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let mut segments = self.incoming.segments.borrow_mut();
        let Some((_, segment)) = segments.front_mut() else {
            let is_reset = self.incoming.ends_in_reset.get();
            return Some(if is_reset {
                Err(io::ErrorKind::ConnectionReset.into())
            } else {
                Ok(Bytes::new())
            });
        };
        let mut count = segment.len().min(room);
        if count > 1 && self.world.happens(faults.short_reads_permille) {
            count = 1 + usize::try_from(self.world.below(count as u64 - 1)).unwrap_or(0);
        }
        let octets = segment.split_to(count);
        if segment.is_empty() {
            segments.pop_front();
        }
        self.incoming.octets.set(self.incoming.octets.get() - count);
        drop(segments);
        if let Some(writer) = self.incoming.writer.borrow_mut().take() {
            writer.wake();
        }
        Some(Ok(octets))
    }

    fn break_off(&self) {
        self.incoming.reset();
        self.outgoing.reset();
    }

    async fn send_bytes(&self, mut octets: Bytes, by: Moment) -> io::Result<()> {
        while octets.has_remaining() {
            self.room(by).await?;
            let faults = self.world.faults();
            if self.world.happens(faults.resets_permille) {
                self.break_off();
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            let most = octets.len().min(faults.segment_octets_max).min(PIPE_OCTETS_MAX);
            let count = if most == octets.len() && faults.segment_octets_max == usize::MAX {
                most
            } else {
                1 + usize::try_from(self.world.below(most as u64)).unwrap_or(0)
            };
            self.put(octets.split_to(count.min(octets.len())), faults.delay_micros_max);
        }
        Ok(())
    }

    fn put(&self, segment: Bytes, delay_max: u64) {
        let pipe = &self.outgoing;
        if pipe.is_abandoned.get() {
            // As the kernel does it: what reaches a closed socket is answered with a reset.
            pipe.reset();
            return self.incoming.end_in_reset();
        }
        let arrival = self.world.now().0 + self.world.below(delay_max + 1);
        let last = pipe.segments.borrow().back().map_or(0, |(at, _)| *at);
        let at = arrival.max(last);
        pipe.octets.set(pipe.octets.get() + segment.len());
        pipe.segments.borrow_mut().push_back((at, segment));
        if let Some(reader) = pipe.reader.borrow_mut().take() {
            reader.wake();
        }
    }

    /// Waits until the pipe takes octets.
    async fn room(&self, by: Moment) -> io::Result<()> {
        poll_fn(|context| {
            if self.outgoing.is_reset.get() || self.outgoing.ended.get().is_some() {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            if self.outgoing.octets.get() < PIPE_OCTETS_MAX || self.outgoing.is_abandoned.get() {
                return Poll::Ready(Ok(()));
            }
            if self.world.now() >= by {
                self.break_off();
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            *self.outgoing.writer.borrow_mut() = Some(context.waker().clone());
            self.world.wake_at(by.0, context.waker());
            Poll::Pending
        })
        .await
    }
}

impl Stream for SimStream {
    async fn receive(&mut self, mut into: Buffer, by: Moment) -> (io::Result<usize>, Buffer) {
        let found = poll_fn(|context| {
            if self.has_timed_out.get() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            if let Some(found) = self.find(into.spare()) {
                return Poll::Ready(found);
            }
            if self.world.now() >= by {
                self.has_timed_out.set(true);
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            *self.incoming.reader.borrow_mut() = Some(context.waker().clone());
            let at = self.incoming.next().unwrap_or(by.0).min(by.0);
            self.world.wake_at(at, context.waker());
            Poll::Pending
        })
        .await;
        (found.map(|octets| into.append(&octets)), into)
    }

    async fn send(&mut self, mut flight: Flight, by: Moment) -> (io::Result<()>, Flight) {
        let octets: Vec<u8> = flight.remaining().flatten().copied().collect();
        flight.clear();
        (self.send_bytes(Bytes::from(octets), by).await, flight)
    }

    async fn send_octets(&mut self, mut octets: Vec<u8>, by: Moment) -> (io::Result<()>, Vec<u8>) {
        let result = self.send_bytes(Bytes::copy_from_slice(&octets), by).await;
        octets.clear();
        (result, octets)
    }

    fn waiting(&self) -> Waiting {
        let now = self.world.now().0;
        if self.incoming.is_reset.get() {
            return Waiting::Closed;
        }
        match self.incoming.segments.borrow().front() {
            Some((at, _)) if *at <= now => Waiting::Octets,
            Some(_) => Waiting::Nothing,
            None if self.incoming.ended.get().is_some_and(|at| at <= now) => Waiting::Closed,
            None => Waiting::Nothing,
        }
    }

    fn set_interruptible(&self, _interruptible: bool) {}

    async fn send_final(&mut self, octets: Vec<u8>, by: Moment) -> io::Result<()> {
        self.send_octets(octets, by).await.0
    }

    fn finish_sending(&self) {
        if self.outgoing.ended.get().is_none() {
            let last = self.outgoing.segments.borrow().back().map_or(0, |(at, _)| *at);
            self.outgoing.ended.set(Some(last.max(self.world.now().0)));
            self.outgoing.wake_both();
        }
    }

    fn reset_on_close(&self) {
        self.resets.set(true);
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.incoming.is_abandoned.set(true);
        // As the kernel does it: closing with octets unread, or still to come, resets the connection.
        if self.resets.get() || !self.incoming.segments.borrow().is_empty() {
            self.incoming.reset();
            self.outgoing.ends_in_reset.set(true);
        }
        self.finish_sending();
        self.incoming.wake_both();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::buffer::Size;

    async fn read_all(stream: &mut SimStream, by: Moment) -> (Vec<u8>, io::ErrorKind) {
        let mut all = Vec::new();
        loop {
            let (result, buffer) = stream.receive(Buffer::take(Size::Command), by).await;
            match result {
                Ok(0) => return (all, io::ErrorKind::UnexpectedEof),
                Ok(_) => all.extend_from_slice(buffer.filled()),
                Err(error) => return (all, error.kind()),
            }
        }
    }

    #[test]
    fn octets_arrive_whole_and_in_order_however_they_are_cut() {
        for seed in 0..200 {
            let world = World::new(seed, Faults::CUTS);
            let (mut ours, mut theirs) = world.pair();
            let io = world.clone();
            let (heard, end) = world
                .run(Moment::NEVER, async move {
                    io.spawn(async move {
                        let sent: Flight = [&b"MAIL FROM:<a@b>\r\n"[..], b"RCPT"]
                            .map(Bytes::from_static)
                            .into_iter()
                            .collect();
                        assert!(theirs.send(sent, Moment::NEVER).await.0.is_ok());
                    });
                    read_all(&mut ours, Moment(60_000_000)).await
                })
                .unwrap();
            assert_eq!(heard, b"MAIL FROM:<a@b>\r\nRCPT", "seed {seed}");
            assert_eq!(end, io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn a_deadline_ends_a_receive_and_leaves_the_sending_side() {
        let world = World::new(1, Faults::NONE);
        let (mut ours, mut theirs) = world.pair();
        let heard = world.run(Moment::NEVER, async move {
            let (_, end) = read_all(&mut ours, Moment(1000)).await;
            assert_eq!(end, io::ErrorKind::TimedOut);
            assert!(ours.send_octets(b"421\r\n".to_vec(), Moment(2000)).await.0.is_ok());
            drop(ours);
            read_all(&mut theirs, Moment::NEVER).await.0
        });
        assert_eq!(heard.as_deref(), Some(&b"421\r\n"[..]));
    }

    #[test]
    fn what_is_sent_to_a_closed_socket_resets_the_connection() {
        let world = World::new(1, Faults::NONE);
        let (mut ours, theirs) = world.pair();
        drop(theirs);
        let sent = world.run(Moment::NEVER, async move {
            let first = ours.send_octets(vec![b'x'; 2 * PIPE_OCTETS_MAX], Moment::NEVER).await.0;
            (first.is_ok(), read_all(&mut ours, Moment::NEVER).await.1)
        });
        assert_eq!(sent, Some((false, io::ErrorKind::ConnectionReset)));
    }

    #[test]
    fn nobody_listens_nobody_answers() {
        let world = World::new(1, Faults::NONE);
        let io = world.clone();
        let address = "198.18.0.1:25".parse().unwrap();
        let result =
            world.run(Moment::NEVER, async move { io.connect(address, Moment(1_000_000)).await.err() });
        assert_eq!(result.flatten().map(|error| error.kind()), Some(io::ErrorKind::ConnectionRefused));
    }

    #[test]
    fn the_same_seed_is_the_same_course() {
        let course = |seed| {
            let world = World::new(seed, Faults::BREAKS);
            let (mut ours, mut theirs) = world.pair();
            let io = world.clone();
            let heard = world.run(Moment::NEVER, async move {
                io.spawn(async move {
                    for _ in 0..30 {
                        let sent = theirs.send_octets(vec![b'x'; 1000], Moment::NEVER).await;
                        if sent.0.is_err() {
                            return;
                        }
                    }
                });
                read_all(&mut ours, Moment::NEVER).await.0.len()
            });
            (heard, world.now())
        };
        let courses: Vec<_> = (0..20).map(course).collect();
        assert_eq!(courses, (0..20).map(course).collect::<Vec<_>>());
        assert!(courses.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
