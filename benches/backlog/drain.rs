//! The queue drains while new mail comes: watched at the sink, and by the relay's own histogram of delays.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ringpost_benches::children::{SinkProcess, run_load};
use ringpost_benches::clock;
use ringpost_benches::load::LoadReport;

use super::GLANCE;
use super::relay::Relay;

/// A queue that delivers nothing for so long does not drain.
const STANDSTILL: Duration = Duration::from_secs(90);
/// One load of new mail; as many as it takes follow each other.
const FRESH_SECONDS: u32 = 5;
/// What is older when it is delivered has been in the queue before.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// How it went.
pub(crate) struct Drained {
    pub(crate) delivered: u64,
    pub(crate) seconds: f64,
    pub(crate) slowest_second: f64,
    pub(crate) fresh_sent: u64,
    pub(crate) fresh_p50_micros: u64,
    pub(crate) fresh_p99_micros: u64,
    /// New messages delivered within [`SOON`].
    pub(crate) fresh_soon: u64,
    pub(crate) fresh_half_within_ms: f64,
    pub(crate) fresh_most_within_ms: f64,
    pub(crate) lost: u64,
}

/// Waits until the sink has so many messages; how long that took.
pub(crate) fn wait_for(sink: &mut SinkProcess, messages: u64) -> io::Result<Duration> {
    let start = clock::now();
    let (mut seen, mut moved) = (0, start);
    while seen < messages && clock::now() - moved < STANDSTILL {
        thread::sleep(GLANCE);
        let now = sink.report()?.messages;
        if now > seen {
            (seen, moved) = (now, clock::now());
        }
    }
    Ok(clock::now() - start)
}

/// Watches `queued` messages drain while `fresh` new ones come each second.
pub(crate) fn drain(relay: &Relay, sink: &mut SinkProcess, queued: u64, fresh: u32) -> io::Result<Drained> {
    let before = relay.delays()?;
    let is_drained = AtomicBool::new(false);
    let start = clock::now();
    let (watched, loads) = thread::scope(|scope| {
        let loading = scope.spawn(|| new_mail(relay, fresh, &is_drained));
        let watched = watch(sink, queued, start);
        is_drained.store(true, Ordering::Relaxed);
        let loads = loading.join().map_err(|_| io::Error::other("the load broke off"))?;
        io::Result::Ok((watched?, loads?))
    })?;
    let sent: u64 = loads.iter().map(|load| load.messages).sum();
    wait_for(sink, queued + sent)?;
    let delays = relay.delays()?;
    let soon = |bound_ms: f64| {
        let count = |delays: &[(f64, u64)]| {
            delays.iter().rev().find(|(ms, _)| *ms <= bound_ms).map_or(0, |(_, n)| *n)
        };
        count(&delays) - count(&before)
    };
    let fresh_soon = soon(SOON.as_secs_f64() * 1000.0);
    let within = |share: f64| {
        let enough = |bound: &f64| soon(*bound) as f64 >= share * fresh_soon as f64;
        delays.iter().map(|(ms, _)| *ms).find(enough).unwrap_or(f64::INFINITY)
    };
    Ok(Drained {
        delivered: watched.delivered,
        seconds: watched.seconds,
        slowest_second: watched.slowest_second,
        fresh_sent: sent,
        fresh_p50_micros: loads.iter().map(|load| load.p50_micros).max().unwrap_or(0),
        fresh_p99_micros: loads.iter().map(|load| load.p99_micros).max().unwrap_or(0),
        fresh_soon,
        fresh_half_within_ms: within(0.5),
        fresh_most_within_ms: within(0.99),
        lost: (queued + sent).saturating_sub(sink.report()?.messages),
    })
}

struct Watched {
    delivered: u64,
    seconds: f64,
    slowest_second: f64,
}

/// Until as many messages have come as were queued; new ones among them, so that the queue's last come a little later.
fn watch(sink: &mut SinkProcess, queued: u64, start: Instant) -> io::Result<Watched> {
    let mut watched = Watched { delivered: 0, seconds: 0.0, slowest_second: f64::INFINITY };
    let (mut mark, mut at) = (sink.report()?.messages, start);
    let mut moved = start;
    while watched.delivered < queued && clock::now() - moved < STANDSTILL {
        thread::sleep(GLANCE);
        let (seen, now) = (sink.report()?.messages, clock::now());
        if seen > watched.delivered {
            moved = now;
        }
        watched.delivered = seen;
        let span = (now - at).as_secs_f64();
        if span >= 1.0 {
            watched.slowest_second = watched.slowest_second.min((seen - mark) as f64 / span);
            (mark, at) = (seen, now);
        }
    }
    watched.seconds = (clock::now() - start).as_secs_f64();
    Ok(watched)
}

fn new_mail(relay: &Relay, fresh: u32, is_drained: &AtomicBool) -> io::Result<Vec<LoadReport>> {
    let mut loads = Vec::new();
    while fresh > 0 && !is_drained.load(Ordering::Relaxed) {
        let words = [
            relay.address.to_string(),
            "--sessions".to_owned(),
            "20".to_owned(),
            "--rate".to_owned(),
            fresh.to_string(),
            "--seconds".to_owned(),
            FRESH_SECONDS.to_string(),
            "--run".to_owned(),
            (2 + loads.len()).to_string(),
        ];
        let load = run_load(&words, None)?;
        if let Some(failure) = &load.failure {
            return Err(io::Error::other(failure.clone()));
        }
        loads.push(load);
    }
    Ok(loads)
}
