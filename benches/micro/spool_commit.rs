//! Group commit against one fsync a message, on the same file system: commits a second and CPU a commit.
//!
//! `cargo bench -p ringpost-benches --bench spool_commit [-- DIRECTORY]`; without a directory, below `target`. The naive
//! baselines write a file per message (write, fsync, rename, fsync of the directory), or append to one file with an
//! fdatasync each. The rounds of all rows are interleaved. It judges nothing and keeps no results.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock; nothing of the relay runs on it")]

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringpost::io::clock;
use ringpost::io::files::ring::RingFiles;
use ringpost::io::ladder::{Rung, build};
use ringpost::spool::entry::{Body, Client, Entry, Origin, Recipient};
use ringpost::spool::{Geometry, Keys, Next, Setup, Spool, Terms, Touch, recover};
use ringpost::units::{QueueIds, WorkerId};

/// Octets of a body.
const BODY_OCTETS: usize = 1024;
/// How long each row runs in each round.
const ROUND: Duration = Duration::from_millis(600);
const ROUNDS: usize = 5;
const COMMITTERS: [usize; 3] = [1, 16, 128];

/// Commits a second, and microseconds of CPU for each.
#[derive(Clone, Copy)]
struct Rate {
    commits: f64,
    cpu_micros: f64,
}

fn main() {
    let directory = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let directory = directory.map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let directory = tempfile::tempdir_in(directory).expect("a directory to write to");
    println!("| {BODY_OCTETS}-octet messages | committers | commits/s | CPU µs/commit | to a file each |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    for committers in COMMITTERS {
        let mut rows: [Vec<Rate>; 3] = Default::default();
        for _ in 0..ROUNDS {
            rows[0].push(measure(|| file_each(directory.path(), committers)));
            rows[1].push(measure(|| sync_each(directory.path(), committers)));
            rows[2].push(measure(|| group(directory.path(), committers)));
        }
        let medians = rows.map(median);
        for (name, rate) in
            ["a file a message, fsync and rename", "one file, fdatasync a message", "group commit"]
                .iter()
                .zip(medians)
        {
            let ratio = rate.commits / medians[0].commits;
            println!(
                "| {name} | {committers} | {:.0} | {:.1} | {ratio:.1}x |",
                rate.commits, rate.cpu_micros
            );
        }
    }
}

fn median(mut rates: Vec<Rate>) -> Rate {
    rates.sort_by(|one, other| one.commits.total_cmp(&other.commits));
    rates[rates.len() / 2]
}

fn measure(run: impl FnOnce() -> u64) -> Rate {
    let (start, cpu) = (Instant::now(), cpu_micros());
    let commits = run() as f64;
    Rate { commits: commits / start.elapsed().as_secs_f64(), cpu_micros: (cpu_micros() - cpu) / commits }
}

/// User and system time of this process.
fn cpu_micros() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) * 10_000.0
}

fn committing(committers: usize, commit: impl Fn(u64) + Sync) -> u64 {
    let (end, count) = (Instant::now() + ROUND, AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..committers {
            scope.spawn(|| {
                while Instant::now() < end {
                    commit(count.fetch_add(1, Relaxed));
                }
            });
        }
    });
    count.into_inner()
}

fn file_each(directory: &Path, committers: usize) -> u64 {
    let directory = tempfile::tempdir_in(directory).expect("a directory");
    let names = File::open(directory.path()).expect("the directory");
    committing(committers, |number| {
        let (draft, path) =
            (directory.path().join(format!("{number}.tmp")), directory.path().join(number.to_string()));
        let mut file = File::create(&draft).expect("a file");
        file.write_all(&[b'x'; BODY_OCTETS]).expect("room");
        file.sync_all().expect("a sync");
        fs::rename(&draft, &path).expect("a name");
        names.sync_all().expect("a sync");
    })
}

fn sync_each(directory: &Path, committers: usize) -> u64 {
    let file = tempfile::tempfile_in(directory).expect("a file");
    let writer = Mutex::new(file.try_clone().expect("a descriptor"));
    committing(committers, |_| {
        writer.lock().expect("nobody panics").write_all(&[b'x'; BODY_OCTETS]).expect("room");
        file.sync_data().expect("a sync");
    })
}

fn group(directory: &Path, committers: usize) -> u64 {
    let directory = tempfile::tempdir_in(directory).expect("a directory");
    let (mut driver, rung) = build(Rung::DeferTaskrun).expect("a driver");
    let count = Rc::new(Cell::new(0));
    let counted = Rc::clone(&count);
    driver.block_on(async move {
        let epoll = rung == Rung::Epoll;
        let files = if epoll { RingFiles::on_threads() } else { RingFiles::on_ring() }.expect("a thread");
        let setup = Setup {
            directory: directory.path().to_owned(),
            geometry: Geometry::for_budget(4 << 30, 1),
            octets_max: 4 << 30,
            workers: 1,
            touch: Touch::Tidy,
        };
        let mut recovered = recover(&files, &setup, |_| Keys::default()).await.expect("a spool");
        let shard = recovered.shards.remove(0);
        let spool = Spool::open(files, WorkerId(0), shard, clock::now);
        monoio::spawn(spool.clone().write());
        let ids = Rc::new(std::cell::RefCell::new(QueueIds::new(1, WorkerId(0))));
        let end = Instant::now() + ROUND;
        let tasks: Vec<_> = (0..committers)
            .map(|_| {
                let (spool, ids, count) = (spool.clone(), Rc::clone(&ids), Rc::clone(&counted));
                monoio::spawn(async move {
                    let body = [Bytes::from_static(&[b'x'; BODY_OCTETS])];
                    let entry = entry();
                    let terms = Terms { keys: Keys::default(), next: Next::Streaming };
                    while Instant::now() < end {
                        let id = ids.borrow_mut().issue();
                        spool.commit(id, &entry, &body, terms).await.expect("room");
                        drop(spool.settle(id));
                        count.set(count.get() + 1);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        spool.close();
    });
    count.get()
}

fn entry() -> Entry {
    let recipient = Recipient { address: "recipient@example.net".to_owned(), ..Recipient::default() };
    Entry {
        origin: Origin::Client,
        sender: "sender@example.org".to_owned(),
        recipients: vec![recipient],
        ret: None,
        envid: None,
        auth: None,
        body: Body::SevenBit,
        smtputf8: false,
        requiretls: false,
        arrival_ms: 1_790_000_000_000,
        client: Client {
            address: Ipv4Addr::new(198, 18, 0, 1).into(),
            port: 4025,
            helo: "client.example".to_owned(),
            login: None,
            tls: None,
            listener: "smtp".to_owned(),
        },
    }
}
