//! The load: sessions that send messages as fast as the target takes them, each waiting for its own verdict (closed loop).
//! Only loopback targets: this is no tool to point at anybody's server.
//!
//! A message's latency runs from its first octet (from `connect`, where it opens a connection) to the verdict on its end.
//! In a closed loop a slow target is asked less often, so percentiles tell of the messages sent, not of arrivals missed.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use hdrhistogram::{CreationError, Histogram};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::link::{Link, LinkError};
use crate::mail::{DATA, Framing, MAIL_FROM, Mail, RCPT_TO};
use crate::process;

/// Failed messages after which a load gives up: the figures would mean nothing.
const FAILURES_MAX: u64 = 100;
/// Latencies up to ten minutes are told apart; longer ones count as that.
const LATENCY_MICROS_MAX: u64 = 600_000_000;
/// A load that has run this much longer than it was told to is stuck.
const OVERTIME: Duration = Duration::from_secs(60);

/// How commands are put into segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Each command waits for the reply to the one before.
    Lockstep,
    /// MAIL, RCPT and DATA in one segment (RFC 2920).
    Pipelined,
    /// MAIL, RCPT, BDAT and the message in one write (RFC 3030).
    Chunking,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Mode::Lockstep => "lockstep",
            Mode::Pipelined => "pipelined",
            Mode::Chunking => "chunking",
        })
    }
}

impl Mode {
    fn needs(self) -> &'static [&'static str] {
        match self {
            Mode::Lockstep => &[],
            Mode::Pipelined => &["PIPELINING"],
            Mode::Chunking => &["PIPELINING", "CHUNKING"],
        }
    }

    fn framing(self) -> Framing {
        if self == Mode::Chunking { Framing::Bdat } else { Framing::Data }
    }
}

/// What to send where.
#[derive(Debug, Clone)]
pub struct Plan {
    /// A loopback address.
    pub target: SocketAddr,
    /// Concurrent sessions.
    pub sessions: u32,
    /// Messages in all; none: until time is up.
    pub messages: Option<u64>,
    /// For how long messages are begun; none: until all are sent.
    pub duration: Option<Duration>,
    /// Octets of a message.
    pub octets: usize,
    /// How commands are put into segments.
    pub mode: Mode,
    /// After how many a connection is opened anew; none: never.
    pub messages_per_connection: Option<u64>,
    /// Messages begun a second, by all sessions together; none: as fast as the target takes them.
    pub rate: Option<f64>,
    /// Marks the messages of this run.
    pub run: u32,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoadReport {
    /// Messages that the target acknowledged.
    pub messages: u64,
    /// Messages that failed.
    pub failures: u64,
    /// The first failure.
    pub failure: Option<String>,
    /// Connections opened.
    pub connections: u64,
    /// From the first connect to the last verdict.
    pub seconds: f64,
    /// CPU of this process, in microseconds (user and system).
    pub cpu_micros: u64,
    /// Latency percentiles and the maximum, in microseconds.
    pub p50_micros: u64,
    /// 99 %.
    pub p99_micros: u64,
    /// 99.9 %.
    pub p999_micros: u64,
    /// The slowest.
    pub max_micros: u64,
}

/// Why a load did not run to its end.
#[derive(Debug)]
pub enum LoadError {
    /// The target is no loopback address.
    NotLoopback(SocketAddr),
    /// Neither a count nor a duration.
    Unbounded,
    /// The message size does not hold the header section; the least that does.
    TooSmall(usize),
    /// Neither count nor duration were reached in a minute more than the time given.
    Stuck,
    /// The histogram's bounds are wrong.
    Histogram(CreationError),
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LoadError::NotLoopback(target) => {
                write!(out, "{target} is no loopback address; only those are loaded")
            }
            LoadError::Unbounded => {
                out.write_str("neither --messages nor --seconds: this load would never end")
            }
            LoadError::TooSmall(least) => write!(out, "a message has at least {least} octets"),
            LoadError::Stuck => out.write_str("the target stopped answering"),
            LoadError::Histogram(error) => write!(out, "{error}"),
        }
    }
}

/// Shared by the sessions of one load; all run on one thread.
struct Tally {
    plan: Plan,
    started: Instant,
    begun: Cell<u64>,
    connections: Cell<u64>,
    failures: Cell<u64>,
    failure: RefCell<Option<String>>,
    latency_micros: RefCell<Histogram<u64>>,
}

impl Tally {
    /// Claims the right to send one more message.
    fn claim(&self) -> bool {
        let in_time = self.plan.duration.is_none_or(|most| clock::now() - self.started < most);
        let in_count = self.plan.messages.is_none_or(|most| self.begun.get() < most);
        let go = in_time && in_count && self.failures.get() < FAILURES_MAX;
        self.begun.set(self.begun.get() + u64::from(go));
        go
    }

    /// Waits for the turn of the message that was claimed last.
    async fn pace(&self) {
        let Some(rate) = self.plan.rate else { return };
        let due = Duration::from_secs_f64((self.begun.get() - 1) as f64 / rate);
        tokio::time::sleep(due.saturating_sub(clock::now() - self.started)).await;
    }

    fn acknowledged(&self, since: Instant) {
        let micros = u64::try_from((clock::now() - since).as_micros()).unwrap_or(LATENCY_MICROS_MAX);
        self.latency_micros.borrow_mut().saturating_record(micros);
    }

    fn failed(&self, error: &LinkError) {
        self.failures.set(self.failures.get() + 1);
        self.failure.borrow_mut().get_or_insert_with(|| error.to_string());
    }

    fn report(&self) -> LoadReport {
        let latency = self.latency_micros.borrow();
        LoadReport {
            messages: latency.len(),
            failures: self.failures.get(),
            failure: self.failure.borrow().clone(),
            connections: self.connections.get(),
            seconds: (clock::now() - self.started).as_secs_f64(),
            cpu_micros: process::own_cpu_micros(),
            p50_micros: latency.value_at_quantile(0.5),
            p99_micros: latency.value_at_quantile(0.99),
            p999_micros: latency.value_at_quantile(0.999),
            max_micros: latency.max(),
        }
    }
}

/// Runs a load inside a tokio-uring runtime.
///
/// # Errors
/// A plan that cannot run, or a target that stopped answering. A target's refusals are counted, not errors.
pub async fn run(plan: Plan) -> Result<LoadReport, LoadError> {
    if !plan.target.ip().is_loopback() {
        return Err(LoadError::NotLoopback(plan.target));
    }
    if plan.messages.is_none() && plan.duration.is_none() {
        return Err(LoadError::Unbounded);
    }
    let mails = (0..plan.sessions)
        .map(|session| Mail::new(plan.octets, plan.run, session, plan.mode.framing()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(LoadError::TooSmall)?;
    let most = plan.duration.unwrap_or(Duration::from_secs(3600)) + OVERTIME;
    let latency = Histogram::new_with_bounds(1, LATENCY_MICROS_MAX, 3).map_err(LoadError::Histogram)?;
    let tally = Rc::new(Tally {
        plan,
        started: clock::now(),
        begun: Cell::new(0),
        connections: Cell::new(0),
        failures: Cell::new(0),
        failure: RefCell::new(None),
        latency_micros: RefCell::new(latency),
    });
    let sessions: Vec<_> =
        mails.into_iter().map(|mail| tokio_uring::spawn(session(Rc::clone(&tally), mail))).collect();
    let all = async {
        for session in sessions {
            // A session's panic would be a bug here; the messages it did not send show in the count.
            drop(session.await);
        }
    };
    tokio::time::timeout(most, all).await.map_err(|_| LoadError::Stuck)?;
    Ok(tally.report())
}

/// One session: messages one after another until the plan is fulfilled.
async fn session(tally: Rc<Tally>, mut mail: Mail) {
    let mut link: Option<(Link, u64)> = None;
    let mut number = 0;
    while tally.claim() {
        tally.pace().await;
        let since = clock::now();
        number += 1;
        mail.stamp(number);
        match message(&tally, &mut mail, link.take()).await {
            Ok((open, sent)) => {
                tally.acknowledged(since);
                if tally.plan.messages_per_connection.is_some_and(|most| sent >= most) {
                    if let Err(error) = open.quit().await {
                        tally.failed(&error);
                    }
                } else {
                    link = Some((open, sent));
                }
            }
            Err(error) => tally.failed(&error),
        }
    }
    if let Some((open, _)) = link {
        // The figures are complete without the farewell.
        drop(open.quit().await);
    }
}

/// Sends one message over `link`, or over a new connection; returns the connection and how many it has carried.
async fn message(
    tally: &Tally,
    mail: &mut Mail,
    link: Option<(Link, u64)>,
) -> Result<(Link, u64), LinkError> {
    let mode = tally.plan.mode;
    let (mut link, sent) = match link {
        Some(open) => open,
        None => {
            tally.connections.set(tally.connections.get() + 1);
            let mut link = Link::connect(tally.plan.target).await?;
            link.greet(mode.needs()).await?;
            (link, 0)
        }
    };
    match mode {
        Mode::Lockstep => {
            link.ask("MAIL", MAIL_FROM, 250).await?;
            link.ask("RCPT", RCPT_TO, 250).await?;
            link.ask("DATA", DATA, 354).await?;
            content(&mut link, mail).await?;
        }
        Mode::Pipelined => {
            link.send([MAIL_FROM, RCPT_TO, DATA].concat()).await.0?;
            link.expect("MAIL", 250).await?;
            link.expect("RCPT", 250).await?;
            link.expect("DATA", 354).await?;
            content(&mut link, mail).await?;
        }
        Mode::Chunking => {
            content(&mut link, mail).await?;
            link.expect("MAIL", 250).await?;
            link.expect("RCPT", 250).await?;
        }
    }
    link.expect("the message", 250).await?;
    Ok((link, sent + 1))
}

async fn content(link: &mut Link, mail: &mut Mail) -> Result<(), LinkError> {
    let (result, wire) = link.send(mail.take()).await;
    mail.put_back(wire);
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receiver::Offers;
    use crate::ring;
    use crate::sink::{Manners, Sink, SinkReport, listen};

    /// A load of 30 messages by 3 sessions on a sink that checks everything, both on one ring.
    fn loaded(
        mode: Mode,
        octets: usize,
        per_connection: Option<u64>,
        offers: Offers,
    ) -> (LoadReport, SinkReport) {
        ring::run(async {
            let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            let target = listener.local_addr().unwrap();
            let sink = Sink::new(Manners { offers, delay: Duration::ZERO, check_every: 1 });
            let serving = sink.clone();
            tokio_uring::spawn(async move { serving.serve(listener).await });
            let plan = Plan {
                target,
                sessions: 3,
                messages: Some(30),
                duration: None,
                octets,
                mode,
                messages_per_connection: per_connection,
                rate: None,
                run: 1,
            };
            (run(plan).await.unwrap(), sink.report())
        })
    }

    const ALL: Offers = Offers { pipelining: true, chunking: true };

    #[test]
    fn every_message_arrives_once_and_unchanged_in_every_mode() {
        for mode in [Mode::Lockstep, Mode::Pipelined, Mode::Chunking] {
            for octets in [1024, 300_000] {
                let (sent, taken) = loaded(mode, octets, None, ALL);
                assert_eq!((sent.messages, sent.failures, sent.connections), (30, 0, 3), "{mode:?}");
                assert_eq!(
                    (taken.messages, taken.checked, taken.damaged, taken.repeated),
                    (30, 30, 0, 0),
                    "{mode:?}"
                );
                assert_eq!(taken.octets, 30 * octets as u64);
                assert!(
                    sent.p50_micros > 0
                        && sent.p50_micros <= sent.p999_micros
                        && sent.p999_micros <= sent.max_micros
                );
            }
        }
    }

    #[test]
    fn opens_a_connection_for_as_many_messages_as_told() {
        let (sent, taken) = loaded(Mode::Lockstep, 1024, Some(1), ALL);
        assert_eq!((sent.connections, taken.connections, taken.messages), (30, 30, 30));
        let (sent, _) = loaded(Mode::Lockstep, 1024, Some(1000), ALL);
        assert_eq!(sent.connections, 3);
    }

    #[test]
    fn says_what_the_target_lacks() {
        let (sent, taken) = loaded(Mode::Chunking, 1024, None, Offers { pipelining: true, chunking: false });
        assert_eq!((sent.messages, taken.messages), (0, 0));
        assert_eq!(sent.failure.unwrap(), "does not offer CHUNKING");
    }

    #[test]
    fn loads_nobody_but_loopback_and_never_without_end() {
        let plan = |target: [u8; 4], messages| Plan {
            target: SocketAddr::from((target, 25)),
            sessions: 1,
            messages,
            duration: None,
            octets: 1024,
            mode: Mode::Lockstep,
            messages_per_connection: None,
            rate: None,
            run: 1,
        };
        let foreign = ring::run(run(plan([198, 18, 0, 1], Some(1))));
        assert!(matches!(foreign, Err(LoadError::NotLoopback(_))));
        let endless = ring::run(run(plan([127, 0, 0, 1], None)));
        assert!(matches!(endless, Err(LoadError::Unbounded)));
    }
}
