//! Inbound side, outbound side and queue of one core, tied together; on whatever there is for a network and a disk.
//!
//! [`worker`](super) has one on a ring, the simulation has some in its world: what is wired here is wired once. It must
//! not know of listeners, descriptors, orders or runtimes.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::Shared;
use crate::egress::delivery::{Delivery, Inheritance};
use crate::egress::patient::Patient;
use crate::egress::{Egress, Patience};
use crate::envelope::Peer;
use crate::ingress::Ingress;
use crate::ingress::session::Session;
use crate::ingress::sink::Sink;
use crate::io::Io;
use crate::io::files::Files;
use crate::limits::UPSTREAM_QUIT_TIMEOUT;
use crate::meter::{Meter, TlsSide};
use crate::orders::Settings;
use crate::resolve::{self, Resolver};
use crate::spool::{self, Berths, Shard};
use crate::units::{Moment, QueueIds, SessionId, WorkerId};

/// What a post is made of.
pub struct Kit {
    /// The worker's number.
    pub id: WorkerId,
    /// How many workers there are.
    pub workers: u32,
    /// What it runs by.
    pub settings: Settings,
    /// What it shares with the other workers.
    pub shared: Shared,
    /// Its way to the control plane's name look-ups.
    pub look_ups: flume::Sender<resolve::Request>,
    /// When the process started, in milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// The monotonic clock, to measure writes by.
    pub clock: fn() -> Moment,
}

/// Everything that mail meets on one core.
pub struct Post<I: Io, F: Files> {
    /// The worker's hands.
    pub io: I,
    /// What its sessions share.
    pub ingress: Rc<Ingress<I>>,
    /// Its way to the upstreams.
    pub egress: Rc<Egress<I>>,
    /// Its counters.
    pub meter: Rc<RefCell<Meter>>,
    /// Its queue; empty as long as there is no spool.
    delivery: Rc<OnceCell<Rc<Delivery<I, F>>>>,
    berths: Arc<Berths>,
    ids: Rc<RefCell<QueueIds>>,
    id: WorkerId,
    workers: u32,
    clock: fn() -> Moment,
}

impl<I: Io, F: Files> Post<I, F> {
    /// Ties it together, without a spool.
    #[must_use]
    pub fn new(io: I, kit: Kit) -> Self {
        let meter = Rc::new(RefCell::new(Meter::default()));
        let ids = Rc::new(RefCell::new(QueueIds::new(kit.started_ms, kit.id)));
        let Settings { ingress, egress, tls, spool: _, gate: _ } = kit.settings;
        let ingress = Ingress::new(io.clone(), ingress, Rc::clone(&meter), Rc::clone(&ids), kit.shared.rates);
        let resolver = Resolver::new(kit.look_ups);
        let egress = Rc::new(Egress::new(io.clone(), egress, kit.shared.permits, resolver));
        ingress.arm(&tls);
        ingress.check_logins_by(kit.shared.logins);
        ingress.report_offences_to(kit.shared.offences);
        egress.arm(tls.demand);
        Self {
            io,
            ingress: Rc::new(ingress),
            egress,
            meter,
            delivery: Rc::default(),
            berths: kit.shared.berths,
            ids,
            id: kit.id,
            workers: kit.workers,
            clock: kit.clock,
        }
    }

    /// Opens its part of the spool and goes on with what is queued there: once, whenever there comes to be one.
    pub fn open_spool(&self, files: F, shard: Shard, config: Arc<spool::Config>) {
        let (worker, workers, clock) = (self.id, self.workers, self.clock);
        let inheritance = Inheritance { worker, workers, shard, config, ids: Rc::clone(&self.ids), clock };
        let delivery = Delivery::new(Rc::clone(&self.egress), files, inheritance, Rc::clone(&self.meter));
        if self.delivery.set(Rc::clone(&delivery)).is_ok() {
            delivery.start();
        }
    }

    /// Its queue; `None`: there is no spool.
    #[must_use]
    pub fn delivery(&self) -> Option<&Rc<Delivery<I, F>>> {
        self.delivery.get()
    }

    /// Looks after what is due by time; to be called every tick.
    pub fn tick(&self) {
        self.egress.tick();
        if let Some(delivery) = self.delivery() {
            delivery.tick();
        }
    }

    /// Puts other settings in force, from the next session and the next transaction on.
    ///
    /// # Errors
    /// Why the old ones stay.
    pub fn reload(&self, settings: Settings) -> Result<(), String> {
        let Settings { ingress, egress, tls, spool, gate: _ } = settings;
        let is_provided = self.delivery().is_some() || self.berths.is_awaited();
        if !is_provided && egress.delivery_patience != Patience::Forever {
            return Err("DELIVERY_PATIENCE: there is no spool for it".to_owned());
        }
        self.ingress.configure(ingress);
        self.ingress.arm(&tls);
        self.egress.configure(egress);
        self.egress.arm(tls.demand);
        if let Some(delivery) = self.delivery() {
            delivery.configure(spool);
        }
        Ok(())
    }

    /// What the worker has counted so far.
    #[must_use]
    pub fn snapshot(&self) -> Meter {
        let mut meter = self.meter.borrow().clone();
        self.egress.read_into(&mut meter.upstreams);
        meter.outcomes_unknown = self.egress.outcomes_unknown();
        self.egress.read_handshakes_into(&mut meter.tls_handshakes[TlsSide::Outbound]);
        match self.delivery() {
            Some(delivery) => delivery.read_into(&mut meter),
            None => meter.spools_full = u64::from(self.berths.is_awaited()),
        }
        meter
    }

    /// Where the transactions of a new session go.
    #[must_use]
    pub fn sink(&self) -> Patient<I, F> {
        Patient::new(Rc::clone(&self.egress), Rc::clone(&self.delivery))
    }

    /// A session that goes there; `input` is what was read of it before.
    pub fn session<S: Sink>(
        &self,
        sink: S,
        stream: I::Stream,
        peer: Peer,
        id: SessionId,
        input: Bytes,
    ) -> Session<I, S> {
        Session::new(Rc::clone(&self.ingress), stream, sink, peer, id, input)
    }

    /// Ends the queue by this moment, and then takes leave of the upstreams.
    pub async fn close(&self, by: Moment) {
        if let Some(delivery) = self.delivery() {
            delivery.close(by).await;
        }
        self.egress.part(self.io.now().after(UPSTREAM_QUIT_TIMEOUT)).await;
    }
}
