//! A million queued messages: how long a start takes to index them, and how much memory index and schedule hold.
//!
//! `cargo bench -p ringpost-benches --bench spool_recover [-- MESSAGES [DIRECTORY]]`. It writes the spool first, through
//! the log itself. It judges nothing and keeps no results.
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock; nothing of the relay runs on it")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_lite::future::{block_on, or, yield_now, zip};
use ringpost::io::clock;
use ringpost::io::files::blocking::BlockingFiles;
use ringpost::spool::entry::{Body, Client, Entry, Origin, Recipient};
use ringpost::spool::schedule::{Now, Retry, Schedule};
use ringpost::spool::{Geometry, Keys, Next, Recovered, Setup, Spool, Terms, Touch, recover};
use ringpost::units::{QueueIds, WorkerId};

/// Octets of a body.
const BODY_OCTETS: usize = 1024;
/// Messages that are committed together.
const TOGETHER: usize = 512;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let messages: usize =
        arguments.next().map_or(1_000_000, |count| count.parse().expect("a number of messages"));
    let directory = arguments.next().map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let directory = tempfile::tempdir_in(directory).expect("a directory to write to");
    fill(directory.path(), messages);
    let before = resident();
    let start = Instant::now();
    let recovered = take_over(directory.path(), 2);
    let indexed = start.elapsed();
    let schedule = schedule(&recovered);
    println!("{:?}", recovered.report);
    println!(
        "{messages} messages of {BODY_OCTETS} octets: indexed in {:.2} s, scheduled after {:.2} s; {:.0} MiB more \
         resident, {} waiting or ready",
        indexed.as_secs_f64(),
        start.elapsed().as_secs_f64(),
        (resident() - before) / f64::from(1 << 20),
        schedule.counts().waiting + schedule.counts().ready,
    );
}

fn take_over(directory: &Path, workers: u16) -> Recovered {
    let setup = Setup {
        directory: directory.to_owned(),
        geometry: Geometry::for_budget(64 << 30, workers),
        octets_max: 64 << 30,
        workers,
        touch: Touch::Tidy,
    };
    block_on(recover(&BlockingFiles, &setup, |entry| Keys {
        destination: 0,
        source: u32::try_from(entry.sender.len()).unwrap_or(0),
    }))
    .expect("a spool")
}

fn schedule(recovered: &Recovered) -> Schedule {
    let mut schedule = Schedule::new(Retry::new(Vec::new(), Duration::from_secs(432_000)), 20);
    let now = Now { moment: clock::now(), unix_ms: clock::unix_ms() };
    for shard in &recovered.shards {
        shard.summaries().for_each(|summary| schedule.insert(&summary, now));
    }
    schedule
}

fn fill(directory: &Path, messages: usize) {
    let shard = take_over(directory, 1).shards.remove(0);
    let spool = Spool::open(BlockingFiles, WorkerId(0), shard, clock::now);
    let mut ids = QueueIds::new(1, WorkerId(0));
    let body = [Bytes::from_static(&[b'x'; BODY_OCTETS])];
    let terms = Terms { keys: Keys::default(), next: Next::Streaming };
    let write = async {
        spool.clone().write(yield_now).await;
        std::future::pending::<()>().await;
    };
    let commits = async {
        for first in (0..messages).step_by(TOGETHER) {
            let entry = entry();
            let batch: Vec<_> = (first..messages.min(first + TOGETHER)).map(|_| ids.issue()).collect();
            let all = batch.iter().map(|&id| Box::pin(spool.commit(id, &entry, &body, terms)));
            let mut all: Vec<_> = all.collect();
            // Each is polled once, so that all stand in one batch, then awaited.
            for commit in &mut all {
                let _ = futures_lite::future::poll_once(commit).await;
            }
            let (last, _) = zip(all.pop().expect("one"), async {}).await;
            last.expect("room");
        }
    };
    block_on(or(commits, write));
}

/// Octets of this process in memory.
fn resident() -> f64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0.0);
    pages * 4096.0
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
            address: std::net::Ipv4Addr::new(198, 18, 0, 1).into(),
            port: 4025,
            helo: "client.example".to_owned(),
            login: None,
            tls: None,
            listener: "smtp".to_owned(),
        },
    }
}
