//! The spool on real files: recovery, damage, bounds. What needs crashes at chosen moments is in `crash`.

use std::fs;
use std::future::Future;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use futures_lite::future::{block_on, yield_now};

use super::entry::tests::entry;
use super::entry::{Attempt, State};
use super::*;
use crate::io::files::blocking::BlockingFiles;
use crate::units::{Moment, QueueId, QueueIds, WorkerId};

fn clock() -> Moment {
    Moment(0)
}

fn setup(directory: &Path, workers: u16, octets_max: u64) -> Setup {
    let geometry = Geometry::for_budget(octets_max.min(64 << 20), workers);
    Setup { directory: directory.to_owned(), geometry, octets_max, workers, touch: Touch::Tidy }
}

fn open(setup: &Setup) -> (Vec<Spool<BlockingFiles>>, Report) {
    let recovered = block_on(recover(&BlockingFiles, setup, |_| Keys::default())).unwrap();
    let spools = (0..).map(WorkerId).zip(recovered.shards);
    let spools = spools.map(|(worker, shard)| Spool::open(BlockingFiles, worker, shard, clock)).collect();
    (spools, recovered.report)
}

/// Runs a future beside the tasks of a spool.
fn run<T>(spool: &Spool<BlockingFiles>, future: impl Future<Output = T>) -> T {
    let tasks = futures_lite::future::zip(spool.clone().write(yield_now), spool.clone().keep());
    let never = async {
        tasks.await;
        std::future::pending().await
    };
    block_on(futures_lite::future::or(future, never))
}

const TERMS: Terms = Terms { keys: Keys { destination: 0, source: 0 }, next: Next::Schedule };

async fn commit(spool: &Spool<BlockingFiles>, id: QueueId, body: &[u8]) -> Result<Receipt, Refusal> {
    let entry = entry("sender@example.org", &["one@example.net"], 5000);
    spool.commit(id, &entry, &[Bytes::copy_from_slice(body)], TERMS).await
}

async fn body(spool: &Spool<BlockingFiles>, id: QueueId) -> Result<Vec<u8>, ReadFault> {
    let mut message = spool.read(id).await?;
    let mut body = Vec::new();
    while let Some(octets) = message.body.next().await? {
        body.extend_from_slice(&octets);
    }
    Ok(body)
}

fn ids(count: usize) -> Vec<QueueId> {
    let mut ids = QueueIds::new(77, WorkerId(0));
    (0..count).map(|_| ids.issue()).collect()
}

fn large(octets: usize) -> Vec<u8> {
    (0..octets).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(directory.join("segments")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn messages_survive_a_restart_with_more_and_with_fewer_workers() {
    let directory = tempfile::tempdir().unwrap();
    let ids = ids(9);
    let bodies: Vec<Vec<u8>> = (0..9).map(|number| large(number * 150_000)).collect();
    let (spools, report) = open(&setup(directory.path(), 1, 256 << 20));
    assert_eq!(report, Report::default());
    run(&spools[0], async {
        for (&id, octets) in ids.iter().zip(&bodies) {
            assert_eq!(commit(&spools[0], id, octets).await.unwrap().id(), id);
        }
        let mut state = State { attempts: 2, due_ms: 90_000, held: true, ..State::default() };
        state.remember(Attempt { reply: "450 later".into(), ..Attempt::default() });
        spools[0].update(ids[1], &state).unwrap().await.unwrap();
        spools[0].settle(ids[0]).unwrap().await.unwrap();
    });
    drop(spools);
    for workers in [4, 1, 3] {
        let (spools, report) = open(&setup(directory.path(), workers, 256 << 20));
        assert_eq!((report.messages, report.damage.len(), report.incomplete.len()), (8, 0, 0));
        for (number, &id) in ids.iter().enumerate() {
            let owners: Vec<_> = spools.iter().filter(|spool| spool.summary(id).is_some()).collect();
            assert_eq!(owners.len(), usize::from(number != 0), "one worker has it");
            let Some(spool) = owners.first() else { continue };
            assert_eq!(block_on(body(spool, id)).unwrap(), bodies[number]);
        }
        let spool = spools.iter().find(|spool| spool.summary(ids[1]).is_some()).unwrap();
        let state = block_on(spool.read(ids[1])).unwrap().state;
        assert_eq!((state.attempts, state.held, &state.history[0].reply[..]), (2, true, "450 later"));
        let summary = spool.summary(ids[1]).unwrap();
        assert_eq!((summary.attempts, summary.due_s, summary.held), (2, 90, true));
    }
}

#[test]
fn a_damaged_record_is_put_aside_and_the_rest_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let ids = ids(3);
    let (spools, _) = open(&setup(directory.path(), 1, 256 << 20));
    run(&spools[0], async {
        for &id in &ids {
            commit(&spools[0], id, &[b'x'; 1000]).await.unwrap();
        }
    });
    drop(spools);
    let path = segments(directory.path())
        .into_iter()
        .find(|path| fs::read(path).unwrap()[4096..8192].iter().any(|&octet| octet != 0));
    let file = fs::OpenOptions::new().write(true).open(path.unwrap()).unwrap();
    // Each message was committed alone, in blocks of its own: this is the middle of the second.
    file.write_all_at(b"rot", 8192 + 500).unwrap();
    let (spools, report) = open(&setup(directory.path(), 1, 256 << 20));
    assert_eq!(report.messages, 2);
    assert_eq!(report.damage.iter().map(|damage| damage.id).collect::<Vec<_>>(), [Some(ids[1])]);
    assert_eq!(fs::read_dir(directory.path().join("quarantine")).unwrap().count(), 1);
    assert_eq!(block_on(body(&spools[0], ids[2])).unwrap(), [b'x'; 1000]);
    assert!(spools[0].summary(ids[1]).is_none());
}

#[test]
fn a_look_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("not-there");
    let look = Setup { touch: Touch::Nothing, ..setup(&path, 1, 256 << 20) };
    let recovered = block_on(recover(&BlockingFiles, &look, |_| Keys::default())).unwrap();
    assert_eq!(recovered.report, Report::default());
    assert!(!path.exists());
}

#[test]
fn a_newer_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("format-2"), b"").unwrap();
    let fault = block_on(recover(&BlockingFiles, &setup(directory.path(), 1, 1 << 30), |_| Keys::default()));
    assert!(matches!(fault, Err(RecoverFault::Newer(2))));
}

#[test]
fn the_bound_on_the_queue_is_foreseen_and_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let ids = ids(200);
    let (spools, _) = open(&setup(directory.path(), 1, 6 << 20));
    let spool = &spools[0];
    run(spool, async {
        let mut taken = Vec::new();
        let refusal = loop {
            if let Err(refusal) = commit(spool, ids[taken.len()], &large(100_000)).await {
                break refusal;
            }
            taken.push(ids[taken.len()]);
        };
        assert_eq!(refusal, Refusal::Full);
        assert_eq!(spool.room(100_000), Err(Refusal::Full));
        assert!(taken.len() > 25, "{}", taken.len());
        // What is settled and what is deferred can be written all the same.
        spool.update(taken[0], &State::default()).unwrap().await.unwrap();
        for &id in &taken {
            spool.settle(id).unwrap().await.unwrap();
        }
        while spool.room(100_000).is_err() {
            yield_now().await;
        }
        commit(spool, ids[199], &large(100_000)).await.unwrap();
    });
    assert!(spool.catalogue().disk_octets() <= 6 << 20);
}

#[test]
fn a_full_file_system_is_a_refusal_and_the_start_works_on_it() {
    let Ok(directory) = tempfile::tempdir_in("/dev/shm") else { return };
    let mount = Mount::tmpfs(directory.path(), "size=3m");
    let Some(_mount) = mount else { return };
    let ids = ids(100);
    let path = directory.path().join("spool");
    fs::create_dir(&path).unwrap();
    let (spools, _) = open(&setup(&path, 1, 12 << 20));
    let taken = Rc::new(std::cell::RefCell::new(Vec::new()));
    run(&spools[0], async {
        loop {
            let id = ids[taken.borrow().len()];
            match commit(&spools[0], id, &large(100_000)).await {
                Ok(_) => taken.borrow_mut().push(id),
                Err(refusal) => return assert_eq!(refusal, Refusal::Full),
            }
        }
    });
    drop(spools);
    fs::write(directory.path().join("filler"), vec![1; 4 << 20]).unwrap_err();
    let (spools, report) = open(&setup(&path, 1, 12 << 20));
    assert_eq!(report.messages, taken.borrow().len() as u64);
    assert!(!taken.borrow().is_empty());
    assert_eq!(spools[0].room(100_000), Err(Refusal::Full));
    fs::remove_file(directory.path().join("filler")).unwrap();
    for &id in taken.borrow().iter() {
        assert_eq!(block_on(body(&spools[0], id)).unwrap(), large(100_000));
    }
}

/// A file system of our own, gone when dropped; `None` where we may not mount.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(at: &Path, options: &str) -> Option<Self> {
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(at)
            .stderr(std::process::Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(at.to_owned()));
        }
        eprintln!("skipped: a tmpfs cannot be mounted here");
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
