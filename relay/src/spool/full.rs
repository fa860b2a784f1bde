//! A spool that fills up, is drained and must serve again: on the simulated disk, whatever it is that ran out.
//!
//! `RINGPOST_SPOOL_SEED=n` plays one seed alone.

use std::path::Path;

use bytes::Bytes;
use futures_lite::future::yield_now;

use super::drive::{Tasks, clock, finish, geometry, seeds};
use super::entry::State;
use super::entry::tests::entry;
use super::*;
use crate::io::files::sim::{Entropy, Faults, SimDisk};
use crate::units::{QueueId, QueueIds, WorkerId};

/// Segments that fit.
const SEGMENTS: u64 = 24;

/// How a spool fills.
#[derive(Debug, Clone, Copy)]
struct Plan {
    scarce: Scarce,
    /// Octets of a segment.
    segment_octets: u64,
    /// One in so many messages stays; 0: none.
    kept: usize,
    /// What the greatest message is drawn from.
    octets_max: [usize; 3],
}

/// What runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scarce {
    /// `QUEUE_BYTES_MAX` is reached.
    Budget,
    /// The file system is full.
    Disk,
    /// It has no inodes left.
    Files,
}

/// A process that uses a spool: it fills it, drains it, and looks every now and then as the daemon's tick does.
struct Relay {
    disk: SimDisk,
    spools: Vec<Spool<SimDisk>>,
    tasks: Tasks,
    entropy: Entropy,
    ids: QueueIds,
}

impl Relay {
    fn start(disk: SimDisk, plan: Plan, workers: u16, seed: u64) -> Self {
        let room = SEGMENTS * plan.segment_octets;
        let files_max = usize::try_from(SEGMENTS).unwrap() + 1;
        let faults = match plan.scarce {
            Scarce::Budget => Faults::default(),
            Scarce::Disk => Faults { capacity_octets: room, ..Faults::default() },
            Scarce::Files => Faults { files_max, ..Faults::default() },
        };
        disk.set_faults(faults);
        let octets_max = if plan.scarce == Scarce::Budget { room } else { 1 << 30 };
        let directory = Path::new("spool").to_owned();
        let geometry = Geometry { segment_octets: plan.segment_octets, ..geometry() };
        let setup = Setup { directory, geometry, octets_max, workers, touch: Touch::Tidy };
        let files = disk.clone();
        let recovered =
            finish(&disk, async move { recover(&files, &setup, |_| Keys::default()).await }).unwrap();
        let spools: Vec<_> = (0..workers)
            .zip(recovered.shards)
            .map(|(worker, shard)| Spool::open(disk.clone(), WorkerId(worker), shard, clock))
            .collect();
        let mut tasks = Tasks::default();
        for spool in &spools {
            tasks.spawn(spool.clone().write(yield_now));
            tasks.spawn(spool.clone().keep());
        }
        let ids = QueueIds::new(1000 + seed, WorkerId(0));
        Self { disk, spools, tasks, entropy: Entropy(seed), ids }
    }

    fn spool(&mut self) -> Spool<SimDisk> {
        self.spools[self.entropy.below(self.spools.len())].clone()
    }

    fn commit(&mut self, spool: Spool<SimDisk>, octets: usize) {
        let id = self.ids.issue();
        self.tasks.spawn(async move {
            let entry = entry("sender@example.org", &["one@example.net"], 1_000_000);
            let terms = Terms { keys: Keys::default(), next: Next::Schedule };
            // A refusal shows in what is there in the end.
            let _ = spool.commit(id, &entry, &[Bytes::from(vec![7; octets])], terms).await;
        });
    }

    /// Lets the disk answer some of what is asked of it.
    fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.tasks.settle(&mut self.entropy);
            self.disk.step();
        }
        self.tasks.settle(&mut self.entropy);
    }

    fn rest(&mut self) {
        self.tasks.settle(&mut self.entropy);
        while self.disk.step() {
            self.tasks.settle(&mut self.entropy);
        }
    }

    /// The daemon's look at a spool that takes no mail.
    fn look(&mut self) {
        for spool in self.spools.clone() {
            if spool.room(0).is_err() {
                self.tasks.spawn(async move {
                    let _ = spool.revive().await;
                });
            }
        }
        self.rest();
    }

    /// Sends until nothing is taken any more, for hours; attempts go on in vain.
    fn fill(&mut self, octets_max: usize) {
        let mut refused = 0;
        while refused < 300 {
            let spool = self.spool();
            for _ in 0..1 + self.entropy.below(12) {
                let octets = self.entropy.below(octets_max);
                if spool.room(octets as u64).is_ok() {
                    self.commit(spool.clone(), octets);
                } else {
                    refused += 1;
                }
            }
            let steps = self.entropy.below(6);
            self.steps(steps);
            if spool.room(0).is_ok() {
                self.defer(&spool);
            }
            if self.entropy.chance(100) {
                self.look();
            }
        }
        self.rest();
        for _ in 0..200 {
            self.look();
        }
    }

    fn defer(&mut self, spool: &Spool<SimDisk>) {
        let ids = messages(spool);
        if let Some(&id) = ids.get(self.entropy.below(ids.len())) {
            drop(spool.update(id, &State { attempts: 1, ..State::default() }));
        }
    }

    /// Settles all messages but every so many, one here, one there.
    fn drain(&mut self, kept: usize) {
        for spool in self.spools.clone() {
            let mut ids = messages(&spool);
            let mut number = 0;
            while !ids.is_empty() {
                let id = ids.swap_remove(self.entropy.below(ids.len()));
                number += 1;
                if kept == 0 || number % kept != 0 {
                    drop(spool.settle(id));
                }
                let steps = self.entropy.below(4);
                self.steps(steps);
            }
        }
        self.rest();
        for _ in 0..5 {
            self.look();
        }
    }

    fn totals(&self) -> usize {
        self.spools.iter().map(|spool| spool.totals().0).sum()
    }

    /// Whether every worker takes mail.
    fn serves(&mut self) -> Result<(), String> {
        for spool in self.spools.clone() {
            let before = spool.totals().0;
            self.commit(spool.clone(), 3000);
            self.rest();
            if spool.totals().0 != before + 1 {
                let counts = spool.catalogue().counts();
                return Err(format!(
                    "nothing is taken: {:?}, segments {counts:?}, {} octets free, {} messages left",
                    spool.health(),
                    spool.catalogue().octets_free(),
                    self.totals()
                ));
            }
        }
        Ok(())
    }
}

fn messages(spool: &Spool<SimDisk>) -> Vec<QueueId> {
    let mut ids: Vec<QueueId> = spool.summaries().iter().map(|summary| summary.id).collect();
    ids.sort();
    ids
}

/// Filled, drained, and filled again.
fn play(seed: u64, plan: Plan) -> Result<(), String> {
    let mut entropy = Entropy(seed);
    let disk = SimDisk::new(entropy.draw());
    let workers = 1 + u16::try_from(entropy.below(3)).unwrap();
    let mut relay = Relay::start(disk, plan, workers, entropy.draw());
    let octets_max = plan.octets_max[entropy.below(3)];
    for round in 0..2 {
        relay.fill(octets_max);
        // A restart finds it full.
        if entropy.chance(300) {
            let disk = relay.disk.crash(entropy.draw());
            relay = Relay::start(disk, plan, workers, entropy.draw());
        }
        let held = relay.totals();
        relay.drain(plan.kept);
        relay.serves().map_err(|what| {
            format!("{workers} workers, messages below {octets_max}, {held} held, round {round}: {what}")
        })?;
    }
    Ok(())
}

const DRAINED: Plan =
    Plan { scarce: Scarce::Budget, segment_octets: 64 * 1024, kept: 0, octets_max: [200, 1500, 9000] };
const KEPT: Plan =
    Plan { segment_octets: 256 * 1024, kept: 8, octets_max: [9000, 20_000, 40_000], ..DRAINED };

#[track_caller]
fn plays(plan: Plan, count: u64) {
    for seed in seeds(count) {
        play(seed, plan)
            .unwrap_or_else(|what| panic!("RINGPOST_SPOOL_SEED={seed}, {:?}: {what}", plan.scarce));
    }
}

#[test]
fn a_full_queue_that_is_drained_takes_mail_again() {
    plays(DRAINED, 4);
}

#[test]
fn a_full_disk_that_is_drained_takes_mail_again() {
    plays(Plan { scarce: Scarce::Disk, ..DRAINED }, 4);
}

#[test]
fn a_disk_without_inodes_that_is_drained_takes_mail_again() {
    plays(Plan { scarce: Scarce::Files, ..DRAINED }, 4);
}

#[test]
fn a_few_messages_that_nobody_takes_do_not_keep_the_room() {
    plays(KEPT, 2);
}

#[test]
fn a_few_messages_that_nobody_takes_do_not_keep_the_room_of_a_full_disk() {
    plays(Plan { scarce: Scarce::Disk, ..KEPT }, 2);
}

#[test]
fn a_few_messages_that_nobody_takes_do_not_keep_the_room_of_a_disk_without_inodes() {
    plays(Plan { scarce: Scarce::Files, ..KEPT }, 2);
}
