//! Outbound: connections, their pools, the stream of a message to the upstream, and what came of it.
//!
//! [`Egress`] is one worker's outbound side: the pools of all upstreams, the routes to them, and the tick that looks
//! after both. It mirrors `ingress`: what a client may do there, an upstream is expected to do here.

mod agreement;
pub mod config;
pub mod connect;
pub mod connection;
pub mod delivery;
pub mod health;
pub mod notice;
pub mod operator;
pub mod outcome;
pub mod pace;
pub mod patience;
pub mod patient;
pub mod permit;
mod pipelined;
pub mod pool;
pub mod protection;
pub mod route;
pub mod sasl;
pub mod stream;
pub mod token;
pub mod waiting;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use self::connect::{Manner, Unusable};
use self::connection::{Broken, Connection};
use self::outcome::Stage;
use self::permit::{Permit, PermitBook};
use self::pool::{Claim, Pool};
use self::protection::Protection;
use self::route::{Destination, Routes};
pub use config::{Config, EightBit, NextHop, Patience, UpstreamAddress, UpstreamHost};

use crate::io::Io;
use crate::limits::{UPSTREAM_HOLD_MAX, UPSTREAM_QUIT_TIMEOUT};
use crate::meter::labels::{PerHandshakeOutcome, PerTlsVersion};
use crate::meter::{Health, Merge as _, Upstreams};
use crate::resolve::Resolver;
use crate::smtp::client::UpstreamReply;
use crate::smtp::params::Rcpt;
use crate::smtp::reply::{self, Reply};
use crate::spool::schedule::Bucket;
use crate::tls::client::{Connector, Demand};
use crate::units::Moment;

/// How often an ending worker looks whether its upstreams have answered.
const PART_LOOK: Duration = Duration::from_millis(2);

/// The outbound side of one worker.
pub struct Egress<I: Io> {
    /// The worker's hands.
    pub io: I,
    config: RefCell<Arc<Config>>,
    routes: RefCell<Routes<I::Stream>>,
    permits: Arc<PermitBook>,
    resolver: Resolver,
    armour: RefCell<Armour>,
    handshakes: RefCell<PerTlsVersion<PerHandshakeOutcome>>,
    /// Counts changes of what a connection is made by: login and demands on TLS.
    generation: Cell<u32>,
    /// `UPSTREAM_RATE`.
    bucket: RefCell<Option<Arc<Bucket>>>,
    /// Recoveries of upstreams, on all workers, that were known when this was last asked.
    recoveries: Cell<u32>,
    /// Messages whose upstream broke behind the final dot.
    unknown: Cell<u64>,
}

/// What TLS with upstreams goes by.
struct Armour {
    demand: Arc<Demand>,
    connector: Rc<Connector>,
}

impl Armour {
    fn new(demand: Arc<Demand>) -> Self {
        let connector = Rc::new(Connector::new(&demand));
        Self { demand, connector }
    }
}

/// A connection for a transaction.
pub struct Claimed<S> {
    /// Where it belongs.
    pub pool: Rc<Pool<S>>,
    /// The connection.
    pub connection: Box<Connection<S>>,
    /// Whether it has served before, and so may be stale.
    pub is_reused: bool,
}

impl<I: Io> Egress<I> {
    /// The outbound side of a worker.
    #[must_use]
    pub fn new(io: I, config: Arc<Config>, permits: Arc<PermitBook>, resolver: Resolver) -> Self {
        let routes = RefCell::new(Routes::new(&config, &permits));
        let bucket = RefCell::new(permits.bucket(config.upstream_rate));
        Self {
            io,
            config: RefCell::new(config),
            routes,
            permits,
            resolver,
            armour: RefCell::new(Armour::new(Demand::none())),
            handshakes: RefCell::default(),
            generation: Cell::new(0),
            bucket,
            recoveries: Cell::new(0),
            unknown: Cell::new(0),
        }
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// Puts another configuration in force. Transactions that have a connection keep it; idle connections to
    /// upstreams that are no longer wanted are closed.
    pub fn configure(&self, config: Arc<Config>) {
        let is_same_login = {
            let old = self.config.borrow();
            (&old.login, old.mechanism) == (&config.login, config.mechanism)
        };
        let former = self.routes.borrow_mut().configure(&config, &self.permits);
        *self.bucket.borrow_mut() = self.permits.bucket(config.upstream_rate);
        *self.config.borrow_mut() = config;
        self.resolver.forget();
        former.into_iter().for_each(|connection| self.take_leave(*connection));
        if !is_same_login {
            self.renew();
        }
    }

    /// Puts other demands on TLS in force; before the first there is no TLS.
    pub fn arm(&self, demand: Arc<Demand>) {
        let is_same = *self.armour.borrow().demand == *demand;
        if !is_same {
            *self.armour.borrow_mut() = Armour::new(demand);
            self.renew();
        }
    }

    /// Connections that were made before must not serve any more: a stricter level or another login would not hold
    /// for them.
    fn renew(&self) {
        self.generation.set(self.generation.get().wrapping_add(1));
        let mut idle = Vec::new();
        self.routes.borrow().for_each(|_, pool| {
            idle.append(&mut pool.drain());
            pool.forgive();
        });
        idle.into_iter().for_each(|connection| self.take_leave(*connection));
    }

    /// Adds the handshakes so far to the metrics.
    pub fn read_handshakes_into(&self, handshakes: &mut PerTlsVersion<PerHandshakeOutcome>) {
        handshakes.merge(&self.handshakes.borrow());
    }

    /// Messages so far whose upstream broke behind the final dot: whether it has them, nobody knows.
    #[must_use]
    pub fn outcomes_unknown(&self) -> u64 {
        self.unknown.get()
    }

    /// Looks after pools and waits; to be called every tick.
    pub fn tick(&self) {
        let now = self.io.now();
        let idle_max = self.config.borrow().upstream_idle;
        let old = self.routes.borrow_mut().look(now, idle_max, UPSTREAM_HOLD_MAX);
        old.into_iter().for_each(|connection| self.take_leave(*connection));
    }

    /// Whether two recipients can share a transaction: they go to the same place.
    #[must_use]
    pub fn share_a_route(&self, one: &Rcpt, other: &Rcpt) -> bool {
        self.routes.borrow().is_fixed() || route::domain_of(one) == route::domain_of(other)
    }

    /// Writes down what the pools hold now, for the metrics.
    pub fn read_into(&self, upstreams: &mut Upstreams) {
        self.routes.borrow().for_each(|label, pool| {
            let slot = upstreams.slot(label);
            upstreams[slot].idle += pool.idle();
            upstreams[slot].busy += pool.busy();
            if let Some(at) = pool.tried_at() {
                let health = if pool.is_up() { Health::Up } else { Health::Down };
                upstreams[slot].note(health, at);
            }
        });
    }

    /// Whether a connection was made by settings that are no longer in force.
    #[must_use]
    pub fn is_outdated(&self, connection: &Connection<I::Stream>) -> bool {
        connection.generation != self.generation.get()
    }

    /// Says QUIT, beside everything else.
    pub fn take_leave(&self, connection: Connection<I::Stream>) {
        let by = self.io.now().after(UPSTREAM_QUIT_TIMEOUT);
        self.io.spawn(connection.quit(by));
    }

    /// Says QUIT on every idle connection, when the worker ends; waits for the answers until `by`.
    pub async fn part(&self, by: Moment) {
        let idle = self.routes.borrow().drain();
        let open = Rc::new(Cell::new(idle.len()));
        for connection in idle {
            let open = Rc::clone(&open);
            self.io.spawn(async move {
                connection.quit(by).await;
                open.set(open.get() - 1);
            });
        }
        while open.get() > 0 && self.io.now() < by {
            self.io.sleep(PART_LOOK).await;
        }
    }

    /// The upstream that a transaction for this recipient would be tried at now; `Err`: none is worth trying, `Ok(None)`:
    /// nothing is known of it yet.
    #[allow(clippy::result_unit_err, reason = "there is nothing more to say")]
    pub fn prospect(&self, recipient: &Rcpt) -> Result<Option<Rc<Pool<I::Stream>>>, ()> {
        self.routes.borrow().prospect(recipient, self.io.now())
    }

    /// `UPSTREAM_RATE`, as it stands; `None`: no bound.
    #[must_use]
    pub fn bucket(&self) -> Option<Arc<Bucket>> {
        self.bucket.borrow().clone()
    }

    /// Whether an upstream that was down has been reached since this was last asked, by whichever worker.
    #[must_use]
    pub fn has_come_up(&self) -> bool {
        let recoveries = self.permits.recoveries();
        self.recoveries.replace(recoveries) != recoveries
    }

    /// Lets every upstream be tried now, whatever was heard of it before: by an operator's word, or another worker's.
    pub fn probe_now(&self) {
        let now = self.io.now();
        self.routes.borrow().for_each(|_, pool| pool.probe_now(now));
    }

    /// Whether all mail goes to the same upstreams, whomever it is for.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        self.routes.borrow().is_fixed()
    }

    /// A connection for a transaction: to the first upstream, in order of preference, that gives one as well protected
    /// as the message asks.
    ///
    /// # Errors
    /// The reply for the client where none does.
    pub async fn claim(&self, recipient: &Rcpt, protection: Protection) -> Result<Claimed<I::Stream>, Reply> {
        let protection = self.effective(protection);
        let pools = self.routes.borrow_mut().protected(recipient, protection, &self.permits);
        let mut refusal = reply::UPSTREAM_UNREACHABLE;
        for destination in pools {
            match self.claim_at(&destination).await {
                Ok(Some(claimed)) => return Ok(claimed),
                Ok(None) => {}
                Err(reply) => refusal = reply,
            }
        }
        Err(refusal)
    }

    /// `None`: the upstream is down.
    async fn claim_at(
        &self,
        destination: &Destination<I::Stream>,
    ) -> Result<Option<Claimed<I::Stream>>, Reply> {
        let pool = Rc::clone(&destination.pool);
        match pool.claim(|| self.io.now()).await {
            Claim::Reused(connection) => Ok(Some(Claimed { pool, connection, is_reused: true })),
            Claim::Permit(permit) => {
                // Seldom and large: not to be a part of every session.
                let connection = Box::pin(self.connect(destination, permit)).await?;
                Ok(connection.map(|connection| Claimed { pool, connection, is_reused: false }))
            }
            Claim::Down => Ok(None),
            Claim::Busy => Err(reply::UPSTREAM_BUSY),
        }
    }

    async fn connect(
        &self,
        destination: &Destination<I::Stream>,
        mut permit: Permit,
    ) -> Result<Option<Box<Connection<I::Stream>>>, Reply> {
        let pool = &destination.pool;
        let addresses = match route::addresses(&destination.address, &self.resolver).await {
            Ok(addresses) => addresses,
            Err(unresolved) => {
                tracing::warn!(event = "upstream_unresolved", upstream = %pool.name, reason = %unresolved.reason);
                drop(permit);
                pool.failed(self.io.now());
                return unresolved.refusal.map_or(Ok(None), Err);
            }
        };
        let config = self.config();
        let generation = self.generation.get();
        let mut is_lacking = false;
        for address in addresses {
            let (demand, connector) = {
                let armour = self.armour.borrow();
                (Arc::clone(&armour.demand), Rc::clone(&armour.connector))
            };
            let manner = Manner {
                host_name: &config.relay_host_name,
                wanted: self.wanted(&demand, destination, &address.0).await,
                protection: destination.protection,
                connector: &connector,
                login: config.login.as_ref(),
                mechanism: config.mechanism,
                handshakes: &self.handshakes,
            };
            match connect::connect(&self.io, &manner, address.clone(), permit).await {
                Ok(connection) => {
                    let mut connection = Box::new(connection);
                    connection.generation = generation;
                    let offered = connection.machine.capabilities().messages_max;
                    let wanted = config.upstream_messages_per_connection;
                    connection.messages_max = offered.map_or(wanted, |max| max.min(wanted));
                    if !pool.is_up() {
                        self.permits.note_recovery();
                    }
                    pool.made(&connection, self.io.now());
                    return Ok(Some(connection));
                }
                Err((unusable, back)) => {
                    self.log_unusable(pool, &address, &unusable);
                    permit = back;
                    is_lacking |= destination.protection.is_lacking(&unusable);
                    // The account is the same at every address: one refusal is enough.
                    if matches!(&unusable, Unusable::LoginRefused(reply) if reply.is_permanent()) {
                        if let Some(shelf) = config.login.as_ref().and_then(|login| login.token.as_ref()) {
                            shelf.refuse();
                        }
                        drop(permit);
                        pool.login_refused(self.io.now());
                        return Ok(None);
                    }
                }
            }
        }
        drop(permit);
        if is_lacking {
            // It is there, but not for such a message (RFC 8689 §4.2.1).
            pool.succeeded(self.io.now());
            return Err(reply::REQUIRETLS_NOT_SUPPORTED);
        }
        pool.failed(self.io.now());
        Ok(None)
    }

    /// The reply for the client; our own misconfiguration is logged loudly.
    fn refusal(&self, stage: Stage, reply: &UpstreamReply, upstream: &str) -> Reply {
        if outcome::is_misconfiguration(reply) {
            tracing::error!(event = "upstream_refuses_us", %upstream, reply = %reply.to_reply());
        }
        outcome::refusal(stage, reply)
    }

    fn log_unusable(&self, pool: &Pool<I::Stream>, (host, address): &(Arc<str>, SocketAddr), why: &Unusable) {
        match why {
            Unusable::LoginRefused(reply) => {
                tracing::error!(event = "upstream_refuses_us", upstream = %pool.name, %host, %address, reply = %reply.to_reply());
            }
            Unusable::Refused(reply) if outcome::is_misconfiguration(reply) => {
                tracing::error!(event = "upstream_refuses_us", upstream = %pool.name, %host, %address, reply = %reply.to_reply());
            }
            Unusable::NoLogin(reason) => {
                tracing::error!(event = "login_impossible", upstream = %pool.name, %host, %address, reason);
            }
            _ => {
                tracing::warn!(event = "upstream_unusable", upstream = %pool.name, %host, %address, reason = %why);
            }
        }
    }

    fn log_broken(&self, upstream: &str, broken: &Broken) {
        tracing::warn!(event = "upstream_lost", %upstream, reason = ?broken);
    }

    fn log_unknown(&self, upstream: &str, broken: &Broken) {
        self.unknown.set(self.unknown.get() + 1);
        tracing::warn!(event = "outcome_unknown", %upstream, reason = ?broken);
    }
}
