//! The queue of one worker: what is in the spool goes to its destination, sooner or later.
//!
//! Theory of operation. [`Schedule`] knows what is due and whose turn it is; [`Delivery::run`] begins attempts as long as
//! there is room, each a task of its own that drives an [`UpstreamStream`] as a session does.
//! What comes of an attempt is written to the spool before anything else follows from it: settled, or a new state with the
//! next time. A message whose stream goes on after its client was answered ([`Delivery::adopt`]) counts as an attempt under
//! way, and ends like one.
//!
//! **Memory.** A queued message costs its entries in index and schedule; bodies are read chunk by chunk. Fresh messages stay
//! in memory for their first attempt, up to a bound.
//!
//! What it must not do: answer a client, touch a message that a session still has, or hold a client's turn for the backlog.

mod aging;
mod attempt;
mod doubts;
mod fate;
mod letter;
mod returns;
mod source;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;

use self::doubts::{Doubt, Doubts};
use self::letter::{BACKLOG, Letter};
use super::Egress;
use super::notice::Budget;
use super::patience::Waits;
use super::stream::UpstreamStream;
use crate::envelope::Envelope;
use crate::ingress::sink::Introduction;
use crate::io::Io;
use crate::io::files::Files;
use crate::limits::{ATTEMPTS_MAX, FRESH_OCTETS_MAX, SPOOL_LULL, SPOOL_REVIVE_INTERVAL, TICK};
use crate::meter::{Meter, QueueState};
use crate::smtp::reply::{self, Reply};
use crate::spool::entry::{Entry, State};
use crate::spool::schedule::{Now, Retry, Schedule};
use crate::spool::{self, Draft, Next, Receipt, Refusal, Shard, Spool, Summary, Terms};
use crate::units::{Moment, QueueId, QueueIds, WorkerId};

pub use fate::Fate;
pub use returns::Beginning;

/// The queue of one worker.
pub struct Delivery<I: Io, F: Files> {
    /// The worker's hands.
    pub io: I,
    /// Its outbound side.
    pub egress: Rc<Egress<I>>,
    /// Where the messages are.
    pub spool: Spool<F>,
    /// Clients that wait with patience.
    pub waits: Rc<Waits<I>>,
    meter: Rc<RefCell<Meter>>,
    config: RefCell<Arc<spool::Config>>,
    /// Workers that share the upstream's connections.
    workers: u32,
    schedule: RefCell<Schedule>,
    fresh: RefCell<Fresh>,
    /// Streams of attempts that have ended, for the next ones; never more than attempts at once.
    streams: RefCell<Vec<UpstreamStream<I>>>,
    ids: Rc<RefCell<QueueIds>>,
    notices: RefCell<Budget>,
    /// Octets that messages under way keep in memory, to fall back on.
    pub kept: Rc<Cell<usize>>,
    under_way: Cell<usize>,
    bell: Bell,
    is_closing: Cell<bool>,
    /// Tasks that use the spool and have not ended.
    tasks: Cell<u32>,
    /// Messages of which an upstream has everything but has not said so.
    doubts: Doubts,
    revive_at: Cell<Moment>,
    /// Old messages that are being looked after.
    aging: Cell<usize>,
    /// Until then nobody is told of delays that no attempt has shown.
    warn_at: Cell<Moment>,
}

/// What a worker's queue begins with.
pub struct Inheritance {
    /// Its number.
    pub worker: WorkerId,
    /// Workers that share the upstreams' connections.
    pub workers: u32,
    /// The messages that are in the spool.
    pub shard: Shard,
    /// How the queue is run.
    pub config: Arc<spool::Config>,
    /// Where the ids of messages come from.
    pub ids: Rc<RefCell<QueueIds>>,
    /// The monotonic clock, to measure writes by.
    pub clock: fn() -> Moment,
}

/// Whom an attempt went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop<'a> {
    /// Its name for log and history; empty: nobody was asked.
    pub upstream: &'a str,
    /// Whether it offers DSN, and so sees to what the sender has asked for (RFC 3461 §5.2.1).
    pub sends_notices: bool,
}

/// Messages that are on the disk and still in memory. Invariant: `octets` is the sum of what they cost.
#[derive(Debug, Default)]
struct Fresh {
    messages: HashMap<QueueId, (Rc<Entry>, Vec<Bytes>)>,
    octets: usize,
}

/// Wakes the task of the queue.
#[derive(Debug, Default)]
struct Bell {
    is_rung: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A message for the spool.
pub struct Parcel<F: Files> {
    /// Its envelope.
    pub entry: Entry,
    /// Its content, or the end of it, in plain form.
    pub body: Vec<Bytes>,
    /// The content before that, where it is on the disk already.
    pub draft: Option<Draft<F>>,
}

impl<I: Io, F: Files> Delivery<I, F> {
    /// The queue of a worker.
    #[must_use]
    pub fn new(
        egress: Rc<Egress<I>>,
        files: F,
        inheritance: Inheritance,
        meter: Rc<RefCell<Meter>>,
    ) -> Rc<Self> {
        let Inheritance { worker, workers, shard, config, ids, clock } = inheritance;
        let io = egress.io.clone();
        let retry = Retry::new(config.retry.clone(), config.lifetime);
        let mut schedule = Schedule::new(retry, attempts_of(&egress, workers));
        let now = Now { moment: io.now(), unix_ms: io.unix_ms() };
        for summary in shard.summaries() {
            schedule.insert(&backlog(&summary), now);
        }
        let spool = Spool::open(files, worker, shard, clock);
        Rc::new(Self {
            waits: Waits::new(io.clone()),
            io,
            egress,
            spool,
            meter,
            config: RefCell::new(config),
            workers,
            schedule: RefCell::new(schedule),
            fresh: RefCell::default(),
            streams: RefCell::default(),
            ids,
            notices: RefCell::new(Budget::new(Duration::from_micros(now.moment.0))),
            kept: Rc::default(),
            under_way: Cell::new(0),
            bell: Bell::default(),
            is_closing: Cell::new(false),
            tasks: Cell::new(0),
            doubts: Doubts::default(),
            revive_at: Cell::new(Moment::default()),
            aging: Cell::new(0),
            warn_at: Cell::new(Moment::default()),
        })
    }

    /// Puts another configuration in force.
    pub fn configure(&self, config: Arc<spool::Config>) {
        let retry = Retry::new(config.retry.clone(), config.lifetime);
        self.schedule.borrow_mut().configure(retry, attempts_of(&self.egress, self.workers));
        *self.config.borrow_mut() = config;
        self.bell.ring();
    }

    /// Starts everything that runs beside the sessions.
    pub fn start(self: &Rc<Self>) {
        let (writer, io) = (self.spool.clone(), self.io.clone());
        self.task(async move { writer.write(async || io.sleep(SPOOL_LULL).await).await });
        self.task(self.spool.clone().keep());
        let queue = Rc::clone(self);
        self.task(async move { queue.run().await });
    }

    /// Runs a task that the end of the worker waits for.
    fn task(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        self.tasks.set(self.tasks.get() + 1);
        let queue = Rc::clone(self);
        // Boxed: a block that awaits what it has captured has room for it twice, and is moved more than once.
        let task = Box::pin(task);
        self.io.spawn(async move {
            task.await;
            queue.tasks.set(queue.tasks.get() - 1);
        });
    }

    /// Begins attempts whenever there is something to do, until the worker ends.
    async fn run(self: &Rc<Self>) {
        while !self.is_closing.get() {
            self.take_arrivals();
            while self.under_way.get() < ATTEMPTS_MAX && self.begin_next() {}
            self.wait().await;
        }
    }

    /// Until the bell rings: at the latest with the next tick, earlier where a token of `UPSTREAM_RATE` comes before it.
    async fn wait(&self) {
        let now = self.io.now();
        let idle = self.under_way.get() < ATTEMPTS_MAX;
        let wake_at = if idle { self.schedule.borrow().wake_at(now) } else { Moment::NEVER };
        if wake_at >= now.after(TICK) {
            return self.bell.wait().await;
        }
        let nap = self.io.sleep(wake_at.since(now).max(Duration::from_millis(1)));
        futures_lite::future::or(self.bell.wait(), nap).await;
    }

    fn begin_next(self: &Rc<Self>) -> bool {
        let bucket = self.egress.bucket();
        let due = self.schedule.borrow_mut().next(self.now(), bucket.as_deref());
        let Some(due) = due else { return false };
        self.under_way.set(self.under_way.get() + 1);
        let queue = Rc::clone(self);
        self.task(async move {
            queue.attempt(due.id).await;
            queue.under_way.set(queue.under_way.get() - 1);
            queue.bell.ring();
        });
        true
    }

    /// What has become durable stands in line. Fresh mail does not stand behind what piled up while its destination was
    /// dead: the two take turns.
    fn take_arrivals(&self) {
        let now = self.now();
        let mut schedule = self.schedule.borrow_mut();
        for id in self.spool.arrivals() {
            let Some(summary) = self.spool.summary(id) else { continue };
            let is_dead = schedule.is_dead(summary.keys.destination);
            schedule.insert(&if is_dead { backlog(&summary) } else { summary }, now);
        }
    }

    /// Looks after what is due by time; to be called every tick.
    pub fn tick(self: &Rc<Self>) {
        if self.is_closing.get() {
            return;
        }
        let now = self.now();
        if self.egress.is_fixed() && self.egress.has_come_up() {
            self.egress.probe_now();
            self.schedule.borrow_mut().probe(0);
        }
        self.look_after_the_old(now);
        // Room that somebody else has made is found by looking, also where nothing was refused by the disk itself yet.
        if self.spool.room(0).is_err() && now.moment >= self.revive_at.get() {
            self.revive_at.set(now.moment.after(SPOOL_REVIVE_INTERVAL));
            let spool = self.spool.clone();
            self.task(async move {
                // How it went shows in the spool's health.
                let _ = spool.revive().await;
            });
        }
        self.bell.ring();
    }

    /// Whether a message of this size would be taken now.
    ///
    /// # Errors
    /// The reply for the client.
    pub fn room(&self, octets: u64) -> Result<(), Reply> {
        self.spool.room(octets).map_err(refusal_of)
    }

    /// What is to be kept of a transaction: the recipients of these places.
    pub fn entry(
        &self,
        envelope: &Envelope,
        places: impl Iterator<Item = usize>,
        client: &Introduction<'_>,
    ) -> Entry {
        letter::entry(envelope, places, client, self.io.unix_ms())
    }

    /// Makes a message durable. With [`Next::Schedule`] it is delivered from the queue from now on.
    ///
    /// # Errors
    /// Why it is not on the disk, as far as is known.
    pub async fn commit(
        self: &Rc<Self>,
        id: QueueId,
        parcel: Parcel<F>,
        next: Next,
    ) -> Result<(Receipt, Rc<Entry>), Refusal> {
        let Parcel { entry, body, draft } = parcel;
        let terms = Terms { keys: letter::keys(&entry, self.egress.is_fixed()), next };
        let entry = Rc::new(entry);
        let committed = match draft {
            Some(mut draft) => match draft.write(&body).await {
                Ok(()) => draft.commit(&entry, terms).await,
                Err(refusal) => Err(refusal),
            },
            None => {
                if next == Next::Schedule && !self.schedule.borrow().is_dead(terms.keys.destination) {
                    self.fresh.borrow_mut().keep(id, &entry, &body);
                }
                self.spool.commit(id, &entry, &body, terms).await
            }
        };
        match committed {
            Ok(receipt) => {
                self.bell.ring();
                Ok((receipt, entry))
            }
            Err(refusal) => {
                self.fresh.borrow_mut().take(id);
                Err(refusal)
            }
        }
    }

    /// Takes over a durable message whose stream is still under way, or has just ended: it is an attempt.
    pub fn adopt(&self, id: QueueId) {
        if let Some(summary) = self.spool.summary(id) {
            self.schedule.borrow_mut().begin(&summary, self.now());
        }
    }

    /// What came of the stream of an adopted message: the fate of some of its recipients.
    pub async fn conclude(
        self: &Rc<Self>,
        id: QueueId,
        entry: Rc<Entry>,
        hop: Hop<'_>,
        fates: Vec<(usize, Fate)>,
    ) {
        let octets = self.spool.summary(id).map_or(0, |summary| u64::from(summary.octets));
        let mut letter = Letter { id, entry, state: State::default(), octets };
        let outcome = fate::outcome(&fates);
        self.apply(&mut letter, hop, &fates);
        self.finish(letter, outcome).await;
        self.bell.ring();
    }

    /// A message begins to end: whether the upstream has it is in doubt until this is dropped.
    pub fn doubt(&self) -> Doubt<'_> {
        self.doubts.begin()
    }

    /// Runs a task that the end of the worker waits for, where it ends in time.
    pub fn beside(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        self.task(task);
    }

    /// Makes everything due now: `flush`. Says how many messages that are.
    pub fn flush(&self) -> u64 {
        let waiting = self.schedule.borrow().counts().waiting;
        self.egress.probe_now();
        self.schedule.borrow_mut().flush(self.now());
        self.bell.ring();
        waiting as u64
    }

    /// Begins no attempt any more. Waits until `by` for messages whose upstream has all of them but has not said so, a
    /// little for other attempts, and then until what was appended is on the disk.
    pub async fn close(&self, by: Moment) {
        self.is_closing.set(true);
        self.bell.ring();
        let others_by = self.io.now().after(CLOSE_ATTEMPTS_MAX).min(by);
        // The writer and the housekeeping end only with the spool.
        while (self.doubts.any() && self.io.now() < by)
            || (self.tasks.get() > SPOOL_TASKS && self.io.now() < others_by)
        {
            self.io.sleep(CLOSE_LOOK).await;
        }
        self.spool.close();
        let synced_by = self.io.now().after(CLOSE_MAX);
        while self.tasks.get() > 0 && self.io.now() < synced_by {
            self.io.sleep(CLOSE_LOOK).await;
        }
    }

    /// Writes down what the queue holds now, for the metrics.
    pub fn read_into(&self, meter: &mut Meter) {
        let schedule = self.schedule.borrow();
        let counts = schedule.counts();
        meter.queue_messages[QueueState::Active] = (counts.ready + counts.under_way) as u64;
        meter.queue_messages[QueueState::Deferred] = counts.waiting as u64;
        meter.queue_messages[QueueState::Hold] = counts.held as u64;
        let (_, octets) = self.spool.totals();
        meter.queue_octets = octets;
        let age_s = |oldest| (self.io.unix_ms() / 1000).saturating_sub(u64::from(oldest));
        meter.queue_oldest_seconds = schedule.oldest_s().map_or(0, age_s);
        let counters = self.spool.counters();
        meter.spool_sync.absorb(&counters.sync_micros);
        meter.spool_sync_batch.absorb(&counters.batch_messages);
        let room = self.spool.room(0);
        meter.spools_broken = u64::from(room == Err(Refusal::Failed));
        meter.spools_full = u64::from(room == Err(Refusal::Full));
    }

    fn now(&self) -> Now {
        Now { moment: self.io.now(), unix_ms: self.io.unix_ms() }
    }
}

/// The task of the writer, and that of the housekeeping.
const SPOOL_TASKS: u32 = 2;
/// How often an ending worker looks whether its tasks have ended.
const CLOSE_LOOK: Duration = Duration::from_millis(2);
/// How long an ending worker waits for attempts that nothing is lost with.
const CLOSE_ATTEMPTS_MAX: Duration = Duration::from_secs(2);
/// How long an ending worker waits for the disk.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// The reply for what the spool does not take.
#[must_use]
pub fn refusal_of(refusal: Refusal) -> Reply {
    match refusal {
        Refusal::Full => reply::STORAGE_FULL,
        Refusal::Failed => reply::LOCAL_ERROR,
        Refusal::TooLarge => reply::MESSAGE_TOO_BIG,
    }
}

/// Whose a message is; for [`spool::recover`], which asks it of every message that it finds.
pub fn classify(is_fixed: bool) -> impl Fn(&Entry) -> spool::Keys {
    move |entry| letter::keys(entry, is_fixed)
}

/// Attempts that one destination may have under way on one worker: its share of the connections, of which every fourth is
/// left to the streams of new mail.
fn attempts_of<I: Io>(egress: &Egress<I>, workers: u32) -> u32 {
    let connections = egress.config().upstream_connections;
    (connections - connections / 4).div_ceil(workers.max(1)).max(1)
}

fn backlog(summary: &Summary) -> Summary {
    let mut summary = *summary;
    summary.keys.source |= BACKLOG;
    summary
}

impl Fresh {
    fn keep(&mut self, id: QueueId, entry: &Rc<Entry>, body: &[Bytes]) {
        let cost = cost_of(body);
        if self.octets + cost <= FRESH_OCTETS_MAX {
            self.octets += cost;
            self.messages.insert(id, (Rc::clone(entry), body.to_vec()));
        }
    }

    fn take(&mut self, id: QueueId) -> Option<(Rc<Entry>, Vec<Bytes>)> {
        let message = self.messages.remove(&id)?;
        self.octets -= cost_of(&message.1);
        Some(message)
    }
}

/// What slices cost in memory: their octets, which may be less than the buffer that they are in.
fn cost_of(body: &[Bytes]) -> usize {
    crate::limits::COMMAND_BUFFER_OCTETS
        + body.iter().map(|slice| slice.len() + size_of::<Bytes>()).sum::<usize>()
}

impl Bell {
    fn ring(&self) {
        self.is_rung.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    async fn wait(&self) {
        poll_fn(|cx| {
            if self.is_rung.take() {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
