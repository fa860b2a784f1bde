//! A start on a disk that reads badly: what could not be read is there for the next one.

use std::rc::Rc;

use futures_lite::future::yield_now;

use super::{Fate, Ledger, Life, Plan, Tasks, clock, commit, finish, seeds, setup, take_over};
use crate::io::files::sim::{Entropy, Faults, SimDisk};
use crate::spool::{Keys, Next, Spool, recover};
use crate::units::{QueueIds, WorkerId};

/// Mail is taken, the process starts again on a disk that reads badly and takes more, then the disk reads again.
fn unread(seed: u64) -> Result<(), String> {
    let mut entropy = Entropy(seed);
    let ledger = Ledger::default();
    let mut disk = SimDisk::new(entropy.draw());
    for (number, read_eio) in [0, 50 + entropy.below(950), entropy.below(1000), 0].into_iter().enumerate() {
        disk.set_faults(Faults { read_eio: u32::try_from(read_eio).unwrap(), ..Faults::NONE });
        let files = disk.clone();
        let recovered = finish(&disk, async move { recover(&files, &setup(1), |_| Keys::default()).await });
        let shard = recovered.map_err(|fault| fault.to_string())?.shards.remove(0);
        let spool = Spool::open(disk.clone(), WorkerId(0), shard, clock);
        let mut tasks = Tasks::default();
        tasks.spawn(spool.clone().write(yield_now));
        tasks.spawn(spool.clone().keep());
        let ids = QueueIds::new(1000 + number as u64, WorkerId(0));
        let plan = Plan { faults: Faults::NONE, done_first: false };
        let mut life =
            Life { disk, spools: vec![spool.clone()], tasks, ledger: Rc::clone(&ledger), ids, plan };
        for _ in 0..30 {
            let (id, octets) = (life.ids.issue(), [10, 1500, 9000][entropy.below(3)]);
            let fate = Fate { body: vec![7; octets], sender: "a@b".into(), ..Fate::default() };
            ledger.borrow_mut().insert(id, fate);
            life.tasks.spawn(commit(spool.clone(), id, Rc::clone(&ledger), Next::Schedule));
            life.tasks.settle(&mut entropy);
            for _ in 0..entropy.below(20) {
                life.disk.step();
            }
        }
        disk = life.disk.crash(entropy.draw());
    }
    take_over(&disk, 2, &ledger).map(drop)
}

#[test]
fn nothing_promised_is_lost_by_a_start_on_a_disk_that_reads_badly() {
    for seed in seeds(200) {
        unread(seed).unwrap_or_else(|what| panic!("RINGPOST_SPOOL_SEED={seed}: {what}"));
    }
}
