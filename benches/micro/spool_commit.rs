//! Group commit against one fsync a message, on the same file system: commits a second and CPU a commit.
//!
//! `cargo bench -p ringpost-benches --bench spool_commit [-- DIRECTORY]`; without a directory, below `target`. The naive
//! baselines write a file per message (write, fsync, rename, fsync of the directory), or append to one file with an
//! fdatasync each (which the kernel may share between threads). The rounds of all rows are interleaved. It judges nothing and keeps no results.
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
use futures_lite::future::yield_now;
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
            rows[0].push(file_each(directory.path(), committers));
            rows[1].push(sync_each(directory.path(), committers));
            rows[2].push(group(directory.path(), committers));
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

/// Counts over one round, after one that nobody counts: files are made, segments are recycled.
struct Meter {
    start: Instant,
    begun: Mutex<Option<(Instant, f64)>>,
    count: AtomicU64,
}

impl Meter {
    fn new() -> Self {
        Self { start: Instant::now(), begun: Mutex::new(None), count: AtomicU64::new(0) }
    }

    /// One more is durable; false when the round is over.
    fn count(&self) -> bool {
        let elapsed = self.start.elapsed();
        if elapsed < ROUND {
            return true;
        }
        if self.count.fetch_add(1, Relaxed) == 0 {
            *self.begun.lock().expect("nobody panics") = Some((Instant::now(), cpu_micros()));
        }
        elapsed < 2 * ROUND
    }

    fn rate(&self) -> Rate {
        let (begun, cpu) = self.begun.lock().expect("nobody panics").expect("a round has begun");
        let commits = self.count.load(Relaxed) as f64;
        Rate { commits: commits / begun.elapsed().as_secs_f64(), cpu_micros: (cpu_micros() - cpu) / commits }
    }
}

/// User and system time of this process.
fn cpu_micros() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) * 10_000.0
}

fn committing(committers: usize, commit: impl Fn(u64) + Sync) -> Rate {
    let (meter, number) = (Meter::new(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..committers {
            scope.spawn(|| {
                loop {
                    commit(number.fetch_add(1, Relaxed));
                    if !meter.count() {
                        return;
                    }
                }
            });
        }
    });
    meter.rate()
}

fn file_each(directory: &Path, committers: usize) -> Rate {
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

fn sync_each(directory: &Path, committers: usize) -> Rate {
    let file = tempfile::tempfile_in(directory).expect("a file");
    let writer = Mutex::new(file.try_clone().expect("a descriptor"));
    committing(committers, |_| {
        writer.lock().expect("nobody panics").write_all(&[b'x'; BODY_OCTETS]).expect("room");
        file.sync_data().expect("a sync");
    })
}

fn group(directory: &Path, committers: usize) -> Rate {
    let directory = tempfile::tempdir_in(directory).expect("a directory");
    let (mut driver, rung) = build(Rung::DeferTaskrun).expect("a driver");
    let rate = Rc::new(Cell::new(None));
    let measured = Rc::clone(&rate);
    driver.block_on(async move {
        let epoll = rung == Rung::Epoll;
        let files = if epoll { RingFiles::on_threads() } else { RingFiles::on_ring() }.expect("a thread");
        let setup = Setup {
            directory: directory.path().to_owned(),
            geometry: Geometry::for_budget(512 << 20, 1),
            octets_max: 512 << 20,
            workers: 1,
            touch: Touch::Tidy,
        };
        let mut recovered = recover(&files, &setup, |_| Keys::default()).await.expect("a spool");
        let shard = recovered.shards.remove(0);
        let spool = Spool::open(files, WorkerId(0), shard, clock::now);
        monoio::spawn(spool.clone().write(yield_now));
        monoio::spawn(spool.clone().keep());
        let ids = Rc::new(std::cell::RefCell::new(QueueIds::new(1, WorkerId(0))));
        // Making segments ahead is not what is measured; using them again is.
        while spool.catalogue().counts().1 < 2 {
            monoio::time::sleep(Duration::from_millis(5)).await;
        }
        let meter = Rc::new(Meter::new());
        let tasks: Vec<_> = (0..committers)
            .map(|_| {
                let (spool, ids, meter) = (spool.clone(), Rc::clone(&ids), Rc::clone(&meter));
                monoio::spawn(async move {
                    let body = [Bytes::from_static(&[b'x'; BODY_OCTETS])];
                    let entry = entry();
                    let terms = Terms { keys: Keys::default(), next: Next::Streaming };
                    loop {
                        let id = ids.borrow_mut().issue();
                        spool.commit(id, &entry, &body, terms).await.expect("room");
                        drop(spool.settle(id));
                        if !meter.count() {
                            return;
                        }
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await;
        }
        measured.set(Some(meter.rate()));
        spool.close();
    });
    rate.get().expect("a rate")
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
        waives_tls: false,
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
