//! The connections of one upstream on one worker: idle ones, waiting transactions, the breaker.
//!
//! A transaction gets, in this order: an idle connection, a new one where a permit is left, or its turn in the queue. The
//! number of connections is bounded for the whole process by [`Permits`]; nothing else is shared.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::connection::Connection;
use super::health::Health;
use super::pace::Pace;
use super::permit::{Permit, Permits, Share};
use super::waiting::{Grant, Queue};
use crate::io::Stream;
use crate::limits::UPSTREAM_WAIT_MAX;
use crate::units::Moment;

/// The connections of one upstream.
#[derive(Debug)]
pub struct Pool<S> {
    /// The upstream's name: `host:port` as configured, or the domain for MX delivery.
    pub name: Arc<str>,
    share: Rc<Share>,
    idle: RefCell<Vec<Box<Connection<S>>>>,
    queue: Queue<Box<Connection<S>>>,
    health: RefCell<Health>,
    leases: RefCell<Vec<Rc<Lease<S>>>>,
    /// When `health` last heard of a try.
    tried_at: Cell<Option<Moment>>,
    /// How long its transactions took lately.
    pub pace: Pace,
    /// Whether the connection made last may carry a whole message in one pipelined group.
    pub takes_whole: Cell<bool>,
}

/// A connection that a transaction holds but does not use at the moment, because its client is silent.
///
/// A client that is silent for too long loses it ([`Pool::look`]): a slow client never pins an upstream.
#[derive(Debug)]
pub struct Lease<S> {
    parked: RefCell<Option<Parked<S>>>,
}

#[derive(Debug)]
struct Parked<S> {
    connection: Box<Connection<S>>,
    since: Moment,
    /// Whether DATA is open on it, so that it can only be reset.
    is_in_data: bool,
}

/// What a transaction got.
#[derive(Debug)]
pub enum Claim<S> {
    /// A connection that has served before.
    Reused(Box<Connection<S>>),
    /// The right to make one.
    Permit(Permit),
    /// The upstream is down, or somebody probes it.
    Down,
    /// No connection became free in time.
    Busy,
}

impl<S: Stream> Pool<S> {
    /// A pool without connections.
    #[must_use]
    pub fn new(name: Arc<str>, permits: Arc<Permits>) -> Self {
        Self {
            name,
            share: Share::of(permits),
            idle: RefCell::default(),
            queue: Queue::default(),
            health: RefCell::default(),
            leases: RefCell::default(),
            tried_at: Cell::new(None),
            pace: Pace::default(),
            takes_whole: Cell::new(false),
        }
    }

    /// Gets a connection, or the right to make one.
    pub async fn claim(&self, now: impl Fn() -> Moment) -> Claim<S> {
        let claim = self.claim_in_turn(now).await;
        self.share.line_up(!self.queue.is_empty());
        if !self.queue.is_empty() {
            // There may be more where that came from.
            self.permit_is_free();
        }
        claim
    }

    async fn claim_in_turn(&self, now: impl Fn() -> Moment) -> Claim<S> {
        let by = now().after(UPSTREAM_WAIT_MAX);
        loop {
            if let Some(connection) = self.take_idle() {
                return Claim::Reused(connection);
            }
            if let Some(permit) = self.share.take(now()) {
                let may = self.health.borrow_mut().may_try(now());
                return if may { Claim::Permit(permit) } else { Claim::Down };
            }
            if !self.is_up() {
                return Claim::Down;
            }
            self.share.line_up(true);
            self.share.want(1);
            let grant = self.queue.wait(by).await;
            self.share.want(-1);
            match grant {
                Grant::Connection(connection) => return Claim::Reused(connection),
                Grant::TryAgain => {}
                Grant::TimedOut => return Claim::Busy,
            }
        }
    }

    /// The connection used last, so that those too many fall idle; ones that have spoken or closed are dropped.
    fn take_idle(&self) -> Option<Box<Connection<S>>> {
        loop {
            let connection = self.idle.borrow_mut().pop()?;
            if connection.is_quiet() {
                return Some(connection);
            }
        }
    }

    /// Takes back a connection that may serve again; or gives it back to take leave of, where the right to it is worth
    /// more to another worker.
    #[must_use]
    pub fn give_back(&self, mut connection: Box<Connection<S>>, now: Moment) -> Option<Box<Connection<S>>> {
        connection.idle_since = now;
        let back = if self.share.owes_one(now) {
            Some(connection)
        } else {
            match self.queue.grant(Grant::Connection(connection)) {
                Some(Grant::Connection(connection)) if self.share.is_wanted() => Some(connection),
                Some(Grant::Connection(connection)) => {
                    self.idle.borrow_mut().push(connection);
                    None
                }
                _ => None,
            }
        }?;
        back.release();
        self.share.line_up(!self.queue.is_empty());
        Some(back)
    }

    /// Drops a connection that may not serve again, and lets a waiting transaction make its own.
    pub fn discard(&self, connection: Box<Connection<S>>) {
        drop(connection);
        self.permit_is_free();
    }

    /// Resets a connection in the middle of a message, likewise.
    pub fn abort(&self, connection: Connection<S>) {
        connection.abort();
        self.permit_is_free();
    }

    /// A permit came free, or may have.
    pub fn permit_is_free(&self) {
        if self.share.has_room() {
            let _nobody_waits = self.queue.grant(Grant::TryAgain);
        }
    }

    /// A connection was made and greeted.
    pub fn succeeded(&self, now: Moment) {
        self.tried_at.set(Some(now));
        self.health.borrow_mut().succeeded();
    }

    /// This connection was made and greeted.
    pub fn made(&self, connection: &Connection<S>, now: Moment) {
        self.takes_whole.set(connection.takes_whole());
        self.succeeded(now);
    }

    /// No connection could be made.
    pub fn failed(&self, now: Moment) {
        self.tried_at.set(Some(now));
        self.health.borrow_mut().failed(now);
        // Whoever waits for this upstream need not wait longer.
        while self.queue.grant(Grant::TryAgain).is_none() {}
    }

    /// The upstream refused our login.
    pub fn login_refused(&self, now: Moment) {
        self.failed(now);
        self.health.borrow_mut().login_refused(now);
    }

    /// Forgets failures: what a connection is made by has changed.
    pub fn forgive(&self) {
        self.health.borrow_mut().succeeded();
    }

    /// An operator wants it tried now.
    pub fn probe_now(&self, now: Moment) {
        self.health.borrow_mut().probe_now(now);
    }

    /// Whether the last try succeeded.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.health.borrow().is_up()
    }

    /// Whether a transaction that comes now may get a connection: the upstream is up, or it is time to see.
    #[must_use]
    pub fn is_worth_trying(&self, now: Moment) -> bool {
        self.idle() > 0 || self.health.borrow().is_worth_trying(now)
    }

    /// When a connection was last tried; `None`: never.
    #[must_use]
    pub fn tried_at(&self) -> Option<Moment> {
        self.tried_at.get()
    }

    /// Idle connections.
    #[must_use]
    pub fn idle(&self) -> u64 {
        self.idle.borrow().len() as u64
    }

    /// Connections that serve a transaction or are being made.
    #[must_use]
    pub fn busy(&self) -> u64 {
        u64::from(self.share.open()) - self.idle()
    }

    /// Whether nothing would be lost with this pool.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        self.idle.borrow().is_empty() && self.queue.is_empty() && self.leases.borrow().is_empty()
    }

    /// Takes all idle connections out, for a pool that is no longer wanted.
    pub fn drain(&self) -> Vec<Box<Connection<S>>> {
        self.idle.take()
    }

    /// A lease for the transactions of one session.
    #[must_use]
    pub fn lease(&self) -> Rc<Lease<S>> {
        let lease = Rc::new(Lease { parked: RefCell::new(None) });
        self.leases.borrow_mut().push(Rc::clone(&lease));
        lease
    }

    /// Looks after everything that waits; to be called every tick. Gives back connections that have been idle for
    /// `idle_max`, to take leave of.
    pub fn look(&self, now: Moment, idle_max: Duration, hold_max: Duration) -> Vec<Box<Connection<S>>> {
        self.queue.expire(now);
        let mut leaving = self.take_from_silent_clients(now, hold_max);
        if !self.queue.is_empty() {
            self.permit_is_free();
        }
        let wanted_elsewhere = self.queue.is_empty() && self.share.is_wanted();
        let mut idle = self.idle.borrow_mut();
        idle.retain(|connection| !connection.has_spoken());
        let surplus = usize::from(wanted_elsewhere).min(idle.len());
        let old = idle.iter().take_while(|connection| now.since(connection.idle_since) >= idle_max).count();
        leaving.extend(idle.drain(..old.max(surplus)));
        leaving
    }

    /// Gives back those to take leave of.
    fn take_from_silent_clients(&self, now: Moment, hold_max: Duration) -> Vec<Box<Connection<S>>> {
        let mut spent = Vec::new();
        // A lease that only this list holds belongs to a transaction that is over.
        self.leases.borrow_mut().retain(|lease| Rc::strong_count(lease) > 1);
        let silent: Vec<Parked<S>> =
            self.leases.borrow().iter().filter_map(|lease| lease.take_if_silent(now, hold_max)).collect();
        for Parked { mut connection, is_in_data, .. } in silent {
            if is_in_data {
                self.abort(*connection);
            } else if connection.is_spent() {
                spent.push(connection);
            } else {
                connection.needs_reset = true;
                spent.extend(self.give_back(connection, now));
            }
        }
        spent
    }
}

impl<S> Lease<S> {
    /// Leaves a connection here until the client speaks again.
    pub fn park(&self, connection: Box<Connection<S>>, since: Moment, is_in_data: bool) {
        *self.parked.borrow_mut() = Some(Parked { connection, since, is_in_data });
    }

    /// The connection, if it was not taken away meanwhile.
    pub fn unpark(&self) -> Option<Box<Connection<S>>> {
        self.parked.borrow_mut().take().map(|parked| parked.connection)
    }

    /// Whether a connection is here whose upstream takes chunks.
    pub fn is_parked_with_chunking(&self) -> bool {
        self.parked.borrow().as_ref().is_some_and(|parked| parked.connection.machine.capabilities().chunking)
    }

    fn take_if_silent(&self, now: Moment, hold_max: Duration) -> Option<Parked<S>> {
        self.parked.borrow_mut().take_if(|parked| now.since(parked.since) >= hold_max)
    }
}
