//! A simulated machine: one process with its workers over one disk, from its start to its crash.
//!
//! What is wired here is only what the daemon wires: recovery deals the messages to the workers, sessions go round among
//! them, a tick looks after each. All else is the relay's own [`Post`].

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringpost::egress::delivery::classify;
use ringpost::envelope::Peer;
use ringpost::io::Io;
use ringpost::io::files::sim::{Faults, SimDisk};
use ringpost::io::sim::{SimStream, World};
use ringpost::limits::TICK;
use ringpost::meter::{Listener, Upstreams};
use ringpost::orders::Settings;
use ringpost::spool::{Geometry, RecoverFault, Setup, Shard, Spool, Touch, recover};
use ringpost::tls::Armour;
use ringpost::units::{Moment, QueueId, SessionId, WorkerId};
use ringpost::worker::Shared;
use ringpost::worker::post::{Kit, Post};
use ringpost::{egress, gate, resolve, spool};

use crate::dice::Dice;
use crate::flaws::{Flaw, Hand, Platter};
use crate::ledger::Ledger;
use crate::play::{CLIENT, RELAY, ingress_config};
use crate::talk::trace;

/// What a machine runs by, from one start to the next.
#[derive(Debug, Clone)]
pub(crate) struct Manner {
    pub(crate) workers: u16,
    pub(crate) egress: egress::Config,
    pub(crate) spool: spool::Config,
    pub(crate) geometry: Geometry,
    pub(crate) octets_max: u64,
    /// What its disk does wrong once it runs.
    pub(crate) faults: Faults,
    /// Longest time of an ordinary operation of its disk, in microseconds.
    pub(crate) disk_micros_max: u64,
    pub(crate) flaw: Option<Flaw>,
}

impl Manner {
    /// Whether its disk fails at times.
    pub(crate) fn is_disk_failing(&self) -> bool {
        self.faults.write_eio + self.faults.write_enospc + self.faults.names > 0
    }
}

/// A machine that runs. Clones are the same.
#[derive(Clone)]
pub(crate) struct Machine {
    world: World,
    pub(crate) disk: SimDisk,
    manner: Rc<Manner>,
    posts: Rc<RefCell<Vec<SimPost>>>,
    sessions: Rc<Cell<u64>>,
    pub(crate) recovered: Rc<Cell<usize>>,
    is_healed: Rc<Cell<bool>>,
    /// Something is on its way to the disk right now.
    pub(crate) is_writing: Rc<Cell<bool>>,
    /// Its spool took no mail at times: then it may have no room for tombstones either.
    pub(crate) was_full: Rc<Cell<bool>>,
}

/// One worker of a machine.
type SimPost = Rc<Post<World, Platter>>;

/// No test looks at how long a write took.
fn clock() -> Moment {
    Moment(0)
}

impl Machine {
    /// Switches it on: it works its disk, takes over its spool and opens its door. `had_trouble`: the disk failed or was full
    /// in a life before.
    pub(crate) fn start(
        world: &World,
        disk: SimDisk,
        (manner, had_trouble): (Manner, bool),
        dice: &Dice,
        ledger: &Rc<RefCell<Ledger>>,
    ) -> Self {
        let machine = Self {
            world: world.process(),
            disk,
            manner: Rc::new(manner),
            posts: Rc::default(),
            sessions: Rc::default(),
            recovered: Rc::default(),
            is_healed: Rc::default(),
            is_writing: Rc::default(),
            was_full: Rc::default(),
        };
        if machine.manner.flaw == Some(Flaw::VerdictDropped) {
            machine.world.lose_tasks("outlast");
        }
        trace(&format!("{:>12} start, {:?}", world.now().0, machine.manner));
        machine.world.spawn(machine.clone().work_disk(dice.clone()));
        let (booting, ledger) = (machine.clone(), Rc::clone(ledger));
        machine.world.spawn(async move {
            match booting.boot().await {
                // What was delivered and is owed a tombstone lets go of its chunks where room is wanted.
                Ok(incomplete) if incomplete.is_empty() || had_trouble => {}
                Ok(incomplete) => ledger.borrow_mut().wrong(format!("incomplete: {incomplete:?}")),
                Err(fault) => ledger.borrow_mut().wrong(format!("no recovery: {fault}")),
            }
        });
        machine
    }

    /// Takes the spool over and opens the door; says which messages lack something.
    async fn boot(self) -> Result<Vec<QueueId>, RecoverFault> {
        let manner = Rc::clone(&self.manner);
        let setup = Setup {
            directory: Path::new("spool").to_owned(),
            geometry: manner.geometry,
            octets_max: manner.octets_max,
            workers: manner.workers,
            touch: Touch::Tidy,
        };
        let files = Platter { disk: self.disk.clone(), flaw: manner.flaw };
        let recovered = recover(&files, &setup, classify(true)).await?;
        self.recovered.set(usize::try_from(recovered.report.messages).unwrap_or(0));
        if !self.is_healed.get() {
            self.disk.set_faults(manner.faults);
        }
        let shared = Shared::default();
        for (number, shard) in (0..manner.workers).zip(recovered.shards) {
            let post = self.post(WorkerId(number), &shared, shard);
            self.posts.borrow_mut().push(Rc::new(post));
        }
        let ticking = self.clone();
        self.world.spawn(async move {
            loop {
                ticking.world.sleep(TICK).await;
                for post in ticking.posts.borrow().iter() {
                    post.tick();
                    let is_full = |spool: &Spool<Platter>| spool.room(0).is_err();
                    let is_full = post.delivery().is_some_and(|delivery| is_full(&delivery.spool));
                    ticking.was_full.set(ticking.was_full.get() || is_full);
                }
            }
        });
        let serving = self.clone();
        self.world.listen(RELAY, move |stream| serving.serve(stream));
        Ok(recovered.report.incomplete)
    }

    /// Completes what is under way on the disk, one thing after the other; now and then it takes its time.
    async fn work_disk(self, dice: Dice) {
        loop {
            self.disk.busy().await;
            self.is_writing.set(true);
            let micros_max = if dice.happens(5) { 2_000_000 } else { self.manner.disk_micros_max };
            self.world.sleep(Duration::from_micros(dice.below(micros_max))).await;
            self.disk.step();
            self.is_writing.set(false);
        }
    }

    fn post(&self, id: WorkerId, shared: &Shared, shard: Shard) -> Post<World, Platter> {
        let manner = &self.manner;
        let settings = Settings {
            ingress: Arc::new(ingress_config()),
            egress: Arc::new(manner.egress.clone()),
            tls: Armour::default(),
            gate: Arc::new(no_gate()),
            spool: Arc::new(manner.spool.clone()),
        };
        let kit = Kit {
            id,
            workers: u32::from(manner.workers),
            settings,
            shared: shared.clone(),
            look_ups: resolve::channel().0,
            started_ms: self.world.unix_ms(),
            clock,
        };
        let files = Platter { disk: self.disk.clone(), flaw: manner.flaw };
        let post = Post::new(self.world.clone(), kit);
        post.open_spool(files, shard, Arc::new(manner.spool.clone()));
        post
    }

    fn serve(&self, stream: SimStream) {
        let number = self.sessions.get() + 1;
        self.sessions.set(number);
        let post = {
            let posts = self.posts.borrow();
            Rc::clone(&posts[usize::try_from(number).unwrap_or(0) % posts.len()])
        };
        let peer = Peer { listener: Listener::Smtp, socket: CLIENT, client: CLIENT };
        let id = SessionId { worker: WorkerId(0), number };
        let sink = Hand { patient: post.sink(), flaw: self.manner.flaw };
        let mut session = post.session(sink, stream, peer, id, Bytes::new());
        self.world.spawn(async move {
            session.serve().await;
        });
    }

    /// Ends the process wherever it stands; what its disk holds then.
    pub(crate) fn crash(self, seed: u64) -> SimDisk {
        self.world.kill();
        self.posts.take();
        self.disk.crash(seed)
    }

    /// Messages in its spool.
    pub(crate) fn queued(&self) -> usize {
        let posts = self.posts.borrow();
        posts.iter().filter_map(|post| post.delivery()).map(|delivery| delivery.spool.totals().0).sum()
    }

    /// From now on its disk does what it is told.
    pub(crate) fn heal_disk(&self) {
        self.is_healed.set(true);
        self.disk.set_faults(Faults::NONE);
    }

    /// Whether it has taken its spool over.
    pub(crate) fn is_up(&self) -> bool {
        !self.posts.borrow().is_empty()
    }

    /// Settles a message as if it were delivered.
    pub(crate) fn settle(&self, text: &str) {
        let Some(id) = QueueId::parse(text) else { return };
        for post in self.posts.borrow().iter() {
            drop(post.delivery().and_then(|delivery| delivery.spool.settle(id)));
        }
    }

    /// What is not as it should be when nothing goes on any more.
    pub(crate) fn judge_rest(&self) -> Vec<String> {
        let mut wrongs = Vec::new();
        for post in self.posts.borrow().iter() {
            let Some(delivery) = post.delivery() else { continue };
            if delivery.kept.get() != 0 {
                wrongs.push(format!("at rest: {} octets kept", delivery.kept.get()));
            }
            let mut upstreams = Upstreams::default();
            post.egress.read_into(&mut upstreams);
            let busy: u64 = upstreams.listed().map(|upstream| upstream.busy).sum();
            if busy > 0 {
                wrongs.push(format!("at rest: {busy} busy connections"));
            }
            trace(&format!("at rest: {:?}, {:?}", delivery.spool.health(), delivery.spool.room(0)));
            let (used, spare) = delivery.spool.catalogue().counts();
            if used > 2 * usize::from(self.manner.workers) {
                wrongs.push(format!("at rest: {used} segments, besides {spare} spares"));
            }
        }
        wrongs
    }
}

fn no_gate() -> gate::Config {
    gate::Config {
        wanted: gate::config::Wanted::Off,
        interfaces: Vec::new(),
        mode: gate::config::Mode::Auto,
        action: gate::config::Action::Drop,
        syn_rate: None,
        autoban: None,
    }
}
