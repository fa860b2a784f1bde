//! The spool on the simulated disk: random mail, random faults, crashes at random moments, and a ledger of who was promised
//! what. A failing seed is named; `RINGPOST_SPOOL_SEED=n` runs it alone, `RINGPOST_SPOOL_SEEDS=n` so many.
//!
//! The ledger's law, checked after each crash and each restart:
//! 1. A message whose client got a receipt is on the disk with equal content, or was delivered (or is gone by a tombstone
//!    that came after its delivery).
//! 2. A message whose tombstone was durable is not on the disk; nor is one that was to be settled, once the disk has been
//!    sound for a while.
//! 3. Nothing is on the disk that nobody sent, and nothing in part.
//! 4. The state of a message is the last one that was durable, or one given after it; the last one given, as long as the
//!    process lives, and once the disk has been sound for a while. An operator's word changes nothing else in it.

mod unread;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;
use futures_lite::future::yield_now;

use super::drive::{Tasks, clock, finish, geometry, seeds};
use super::entry::tests::entry;
use super::entry::{Entry, State};
use super::record::switches::{BROKEN, Broken};
use super::*;
use crate::io::files::sim::{Entropy, Faults, SimDisk};
use crate::units::{QueueId, QueueIds, WorkerId};

/// What is known of one message outside the spool.
#[derive(Debug, Clone, Default)]
struct Fate {
    body: Vec<u8>,
    sender: String,
    /// Its client got a receipt, or a restart found it.
    promised: bool,
    delivered: u32,
    /// It was told to be settled, and that this is durable.
    settling: bool,
    settled: bool,
    /// Attempts of the last state that was given, and of the last one that was durable.
    attempts_given: u32,
    attempts_durable: u32,
}

type Ledger = Rc<RefCell<BTreeMap<QueueId, Fate>>>;

#[derive(Debug, Clone, Copy)]
struct Plan {
    faults: Faults,
    /// How the tests break it.
    done_first: bool,
}

fn setup(workers: u16) -> Setup {
    let directory = Path::new("spool").to_owned();
    Setup { directory, geometry: geometry(), octets_max: 4 * 1024 * 1024, workers, touch: Touch::Tidy }
}

/// Takes over what is on the disk and compares it with the ledger.
fn take_over(disk: &SimDisk, workers: u16, ledger: &Ledger) -> Result<Vec<Spool<SimDisk>>, String> {
    let files = disk.clone();
    let recovered = finish(disk, async move { recover(&files, &setup(workers), |_| Keys::default()).await });
    let recovered = recovered.map_err(|fault| fault.to_string())?;
    let spools: Vec<Spool<SimDisk>> = (0..workers)
        .zip(recovered.shards)
        .map(|(worker, shard)| Spool::open(disk.clone(), WorkerId(worker), shard, clock))
        .collect();
    let mut found = BTreeMap::new();
    for spool in &spools {
        for summary in spool.summaries() {
            let reader = spool.clone();
            let content = finish(disk, async move { whole(&reader, summary.id).await });
            let content =
                content.map_err(|fault| format!("{} is found but not read: {fault}", summary.id))?;
            if found.insert(summary.id, content).is_some() {
                return Err(format!("{} is found twice", summary.id));
            }
        }
    }
    let mut ledger = ledger.borrow_mut();
    for (id, (entry, state, body)) in &found {
        let fate = ledger.get_mut(id).ok_or(format!("{id} was never sent"))?;
        fate.check(&entry.sender, state, body).map_err(|what| format!("{id}: {what}"))?;
    }
    for (id, fate) in ledger.iter_mut() {
        let is_found = found.contains_key(id);
        if fate.promised && !is_found && fate.delivered == 0 {
            return Err(format!("{id} was promised and is neither delivered nor on the disk"));
        }
        if fate.promised && !is_found && !fate.settling {
            return Err(format!("{id} is gone though nobody settled it"));
        }
        if fate.settled && is_found {
            return Err(format!("{id} came back after its tombstone was durable"));
        }
        // What a restart finds is in custody, whatever its client was told.
        fate.promised = is_found;
        fate.settling = false;
        fate.attempts_given = fate.attempts_durable.max(if is_found { fate.attempts_given } else { 0 });
    }
    ledger.retain(|id, fate| found.contains_key(id) || fate.settled);
    for (id, (_, state, _)) in &found {
        if let Some(fate) = ledger.get_mut(id) {
            (fate.attempts_given, fate.attempts_durable) = (state.attempts, state.attempts);
        }
    }
    Ok(spools)
}

impl Fate {
    fn check(&self, sender: &str, state: &State, body: &[u8]) -> Result<(), String> {
        if body != self.body || sender != self.sender {
            return Err(format!("other content: {} octets for {}", body.len(), self.body.len()));
        }
        if !(self.attempts_durable..=self.attempts_given).contains(&state.attempts) {
            let (from, to) = (self.attempts_durable, self.attempts_given);
            return Err(format!("state of attempt {}, not {from} to {to}", state.attempts));
        }
        Ok(())
    }
}

async fn whole(spool: &Spool<SimDisk>, id: QueueId) -> Result<(Entry, State, Vec<u8>), ReadFault> {
    let mut message = spool.read(id).await?;
    let mut body = Vec::new();
    while let Some(octets) = message.body.next().await? {
        body.extend_from_slice(&octets);
    }
    if body.len() as u64 != message.body_octets {
        return Err(ReadFault::Damaged);
    }
    Ok((message.entry, message.state, body))
}

async fn commit(spool: Spool<SimDisk>, id: QueueId, ledger: Ledger, next: Next) {
    let (sender, body) = {
        let ledger = ledger.borrow();
        (ledger[&id].sender.clone(), Bytes::from(ledger[&id].body.clone()))
    };
    let half = body.len() / 2;
    let slices = [body.slice(..half), body.slice(half..)];
    let entry = entry(&sender, &["one@example.net"], 1_000_000);
    let terms = Terms { keys: Keys::default(), next };
    if let Ok(receipt) = spool.commit(id, &entry, &slices, terms).await
        && let Some(fate) = ledger.borrow_mut().get_mut(&receipt.id())
    {
        fate.promised = true;
    }
}

/// `is_unhurried`: its tombstone goes with what is written next.
async fn deliver(spool: Spool<SimDisk>, id: QueueId, ledger: Ledger, plan: Plan, is_unhurried: bool) {
    if !plan.done_first {
        let Ok((entry, _, body)) = whole(&spool, id).await else { return };
        let mut ledger = ledger.borrow_mut();
        let Some(fate) = ledger.get_mut(&id) else { return };
        assert_eq!(
            (&entry.sender, &body),
            (&fate.sender, &fate.body),
            "{id} is delivered with other content"
        );
        fate.delivered += 1;
    }
    if let Some(fate) = ledger.borrow_mut().get_mut(&id) {
        fate.settling = true;
    }
    if is_unhurried && !plan.done_first {
        spool.settle_soon(id);
        return;
    }
    let Some(settled) = spool.settle(id) else { return };
    let settled = settled.await;
    if let Some(fate) = ledger.borrow_mut().get_mut(&id) {
        fate.settled |= settled.is_ok();
        fate.delivered += u32::from(plan.done_first && settled.is_err());
    }
}

async fn defer(spool: Spool<SimDisk>, id: QueueId, ledger: Ledger) {
    let attempts = match ledger.borrow_mut().get_mut(&id) {
        Some(fate) => {
            fate.attempts_given += 1;
            fate.attempts_given
        }
        None => return,
    };
    let Some(stated) = spool.update(id, &State { attempts, ..State::default() }) else { return };
    let stated = stated.await;
    if let Some(fate) = ledger.borrow_mut().get_mut(&id)
        && stated.is_ok()
    {
        fate.attempts_durable = fate.attempts_durable.max(attempts);
    }
}

/// An operator's word beside it.
async fn mark(spool: Spool<SimDisk>, id: QueueId) {
    if let Ok(ticket) = spool.amend(id, |state| state.delay_told = true).await {
        // Done or refused: it says nothing of attempts.
        let _ = ticket.await;
    }
}

/// One life of a process: from taking over to a crash.
struct Life {
    disk: SimDisk,
    spools: Vec<Spool<SimDisk>>,
    tasks: Tasks,
    ledger: Ledger,
    ids: QueueIds,
    plan: Plan,
}

impl Life {
    fn start(disk: SimDisk, number: u64, workers: u16, ledger: &Ledger, plan: Plan) -> Result<Self, String> {
        let spools = take_over(&disk, workers, ledger)?;
        disk.set_faults(plan.faults);
        let mut tasks = Tasks::default();
        for spool in &spools {
            tasks.spawn(spool.clone().write(yield_now));
            tasks.spawn(spool.clone().keep());
        }
        let ids = QueueIds::new(1000 + number, WorkerId(0));
        Ok(Self { disk, spools, tasks, ledger: Rc::clone(ledger), ids, plan })
    }

    fn act(&mut self, entropy: &mut Entropy) {
        let ledger = Rc::clone(&self.ledger);
        let spool = self.spools[entropy.below(self.spools.len())].clone();
        match entropy.below(12) {
            0..5 => {
                let id = self.ids.issue();
                let octets = [10, 300, 1500, 5000, 9000][entropy.below(5)];
                let body = (0..octets).map(|_| entropy.draw().to_le_bytes()[0]).collect();
                let sender = format!("sender-{id}@example.org");
                self.ledger.borrow_mut().insert(id, Fate { body, sender, ..Fate::default() });
                let next = if entropy.chance(500) { Next::Schedule } else { Next::Streaming };
                self.tasks.spawn(commit(spool.clone(), id, Rc::clone(&ledger), next));
                if entropy.chance(100) {
                    // The stream's verdict comes before the disk's.
                    self.tasks.settle(entropy);
                    if let Some(fate) = self.ledger.borrow_mut().get_mut(&id) {
                        fate.delivered += 1;
                        fate.settling = true;
                    }
                    self.tasks.spawn(async move {
                        let Some(settled) = spool.settle(id) else { return };
                        let settled = settled.await;
                        if let Some(fate) = ledger.borrow_mut().get_mut(&id) {
                            // A message that was not even pending is not settled by this.
                            fate.settled |= settled.is_ok() && fate.promised;
                        }
                    });
                }
            }
            5..9 => {
                for id in self.some(&spool, entropy, 3) {
                    let is_unhurried = entropy.chance(500);
                    let ledger = Rc::clone(&ledger);
                    self.tasks.spawn(deliver(spool.clone(), id, ledger, self.plan, is_unhurried));
                }
            }
            9 | 10 => {
                for id in self.some(&spool, entropy, 2) {
                    if entropy.chance(300) {
                        self.tasks.spawn(mark(spool.clone(), id));
                    }
                    self.tasks.spawn(defer(spool.clone(), id, Rc::clone(&ledger)));
                }
            }
            _ if spool.health() != Health::Serving => {
                self.tasks.spawn(async move {
                    let _ = spool.revive().await;
                });
            }
            _ => {}
        }
    }

    /// Some messages of a spool that nobody settles yet.
    fn some(&self, spool: &Spool<SimDisk>, entropy: &mut Entropy, count: usize) -> Vec<QueueId> {
        let mut ids: Vec<QueueId> = spool.summaries().iter().map(|summary| summary.id).collect();
        ids.sort();
        let ledger = self.ledger.borrow();
        ids.retain(|id| ledger.get(id).is_some_and(|fate| !fate.settling));
        let mut some: Vec<QueueId> =
            (0..count).filter_map(|_| ids.get(entropy.below(ids.len())).copied()).collect();
        some.dedup();
        if some.len() == 3 && some[0] == some[2] {
            some.pop();
        }
        some
    }

    fn run(&mut self, entropy: &mut Entropy, steps: usize) {
        for _ in 0..steps {
            self.tasks.settle(entropy);
            if entropy.chance(450) {
                self.act(entropy);
            } else {
                self.disk.step();
            }
        }
        self.tasks.settle(entropy);
    }

    /// Lets everything come to rest, without faults.
    fn rest(&mut self, entropy: &mut Entropy) {
        self.disk.set_faults(Faults::default());
        self.tasks.settle(entropy);
        while self.disk.step() {
            self.tasks.settle(entropy);
        }
    }

    /// Whether everybody reads of each message what was last said of it.
    fn reads_the_latest(&self) -> Result<(), String> {
        for spool in &self.spools {
            for Summary { id, .. } in spool.summaries() {
                let reader = spool.clone();
                let read = finish(&self.disk, async move { reader.read(id).await });
                let attempts = read.map_err(|fault| format!("{id} is not read: {fault}"))?.state.attempts;
                let given = self.ledger.borrow().get(&id).map(|fate| fate.attempts_given);
                if given != Some(attempts) {
                    return Err(format!("{id}: attempt {attempts} is read, {given:?} was given"));
                }
            }
        }
        Ok(())
    }

    /// The disk comes to its senses, and the daemon looks whether it takes mail: what could not be written is made up for.
    fn heal(&mut self, entropy: &mut Entropy) -> Result<(), String> {
        self.reads_the_latest()?;
        self.rest(entropy);
        for spool in self.spools.clone().into_iter().filter(|spool| spool.room(0).is_err()) {
            self.tasks.spawn(async move {
                let _ = spool.revive().await;
            });
        }
        self.rest(entropy);
        for (&id, fate) in self.ledger.borrow_mut().iter_mut() {
            // Whoever came before the message was even pending has settled nothing; of what was refused nobody knows.
            let is_there = self.spools.iter().any(|spool| spool.summary(id).is_some());
            fate.settled |= fate.settling && fate.promised && !is_there;
            fate.attempts_durable = fate.attempts_given;
        }
        self.reads_the_latest()
    }
}

/// Several lives over one disk, each ended by a crash; then the queue is drained.
fn lives(seed: u64, plan: Plan) -> Result<(), String> {
    let mut entropy = Entropy(seed);
    let ledger = Ledger::default();
    let mut disk = SimDisk::new(entropy.draw());
    for number in 0..2 + entropy.below(4) as u64 {
        let workers = 1 + u16::try_from(entropy.below(3)).unwrap();
        let mut life = Life::start(disk, number, workers, &ledger, plan)?;
        let steps = entropy.below(700);
        life.run(&mut entropy, steps);
        if entropy.chance(300) {
            life.heal(&mut entropy)?;
        }
        disk = life.disk.crash(entropy.draw());
    }
    let quiet = Plan { faults: Faults::default(), ..plan };
    let mut life = Life::start(disk, 99, 2, &ledger, quiet)?;
    for spool in life.spools.clone() {
        for summary in spool.summaries() {
            life.tasks.spawn(deliver(spool.clone(), summary.id, Rc::clone(&ledger), quiet, false));
        }
    }
    life.rest(&mut entropy);
    for spool in &life.spools {
        let (used, spare) = spool.catalogue().counts();
        if used > 2 * life.spools.len() {
            println!("{:#?}", spool.catalogue());
            return Err(format!("an empty queue keeps {used} segments, besides {spare}"));
        }
    }
    let disk = life.disk.crash(entropy.draw());
    drop(life);
    let spools = take_over(&disk, 1, &ledger)?;
    if spools[0].totals() != (0, 0) {
        return Err(format!("a drained queue holds {:?}", spools[0].totals()));
    }
    let undelivered = ledger.borrow().values().filter(|fate| fate.promised && fate.delivered == 0).count();
    if undelivered > 0 { Err(format!("{undelivered} are neither delivered nor on the disk")) } else { Ok(()) }
}

const SOUND: Plan = Plan { faults: Faults { write_short: 50, ..Faults::NONE }, done_first: false };
const FAULTY: Plan = Plan {
    faults: Faults {
        write_eio: 30,
        write_enospc: 10,
        write_short: 100,
        names: 50,
        capacity_octets: 600_000,
        ..Faults::NONE
    },
    done_first: false,
};

#[test]
fn nothing_promised_is_lost_whenever_it_crashes() {
    for seed in seeds(250) {
        lives(seed, SOUND).unwrap_or_else(|what| panic!("RINGPOST_SPOOL_SEED={seed}: {what}"));
    }
}

#[test]
fn nothing_promised_is_lost_on_a_disk_that_fails() {
    for seed in seeds(250) {
        lives(seed, FAULTY).unwrap_or_else(|what| panic!("RINGPOST_SPOOL_SEED={seed}: {what}"));
    }
}

/// The seeds that it takes to notice that something is broken on purpose.
fn notices(broken: Option<Broken>, plan: Plan) -> bool {
    BROKEN.set(broken);
    let noticed = (0..300).any(|seed| {
        // A wrong answer may also show as a panic of the code under test.
        std::panic::catch_unwind(|| lives(seed, plan)).is_ok_and(|result| result.is_err())
    });
    BROKEN.set(None);
    noticed
}

#[test]
fn an_answer_before_the_sync_is_noticed() {
    assert!(notices(Some(Broken::AckBeforeSync), SOUND));
}

#[test]
fn records_without_checksums_are_noticed() {
    assert!(notices(Some(Broken::NoChecksums), SOUND));
}

#[test]
fn a_segment_used_again_in_the_same_epoch_is_noticed() {
    assert!(notices(Some(Broken::SameEpoch), SOUND));
}

#[test]
fn forgotten_tombstones_are_noticed() {
    assert!(notices(Some(Broken::ForgottenTombstones), SOUND));
}

#[test]
fn done_before_delivery_is_noticed() {
    assert!(notices(None, Plan { done_first: true, ..SOUND }));
}
