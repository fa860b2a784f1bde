//! What all doors of the control plane share: the facts, the settings in force, the phase, and the acts on them.
//!
//! Acts that change the settings (reload, confirm, roll back) are serialized by one lock; the phase only goes
//! forward. Everything here is shared between tasks of one thread, but is `Send` as the HTTP library asks.

use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{Mutex, watch};

use super::census::{Census, Gatherer};
use super::protocol::{self, Answer};
use super::{Bound, Config, DrainEnd, Reread, Workers};
use crate::egress::Patience;
use crate::gate::Gate;
use crate::io::clock;
use crate::limits;
use crate::meter::labels::PerReloadOutcome;
use crate::meter::{self, IoDriver, Label as _, Listener, ReloadOutcome};
use crate::orders::Settings;
use crate::units::Moment;

/// What does not change while the process lives.
pub(super) struct Facts {
    /// With the addresses really bound.
    pub(super) config: Config,
    pub(super) listeners: Vec<Bound>,
    pub(super) version: &'static str,
    pub(super) commit: &'static str,
    pub(super) workers: Workers,
    pub(super) reread: Reread,
    pub(super) log_lines_dropped: Box<dyn Fn() -> u64 + Send + Sync>,
    pub(super) gate: Arc<Gate>,
}

/// Where the relay is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Taking mail.
    Serving,
    /// Letting open transactions end.
    Draining,
    /// No worker runs any more.
    Drained(DrainEnd),
}

/// See the module.
pub(super) struct Plane {
    pub(super) facts: Facts,
    pub(super) phase: watch::Sender<Phase>,
    started: Moment,
    gatherer: Mutex<Gatherer>,
    in_force: Mutex<InForce>,
    waiters: Mutex<Vec<UnixStream>>,
}

/// The settings and what became of reloads so far.
struct InForce {
    settings: Settings,
    /// What to go back to unless the trial is confirmed.
    trial: Option<Trial>,
    trials: u64,
    reloads: PerReloadOutcome,
}

/// A reload that waits for its confirmation.
struct Trial {
    number: u64,
    before: Settings,
}

impl Plane {
    /// With the settings at the start. They hold secrets: they go with the first reload.
    pub(super) fn new(facts: Facts, settings: Settings) -> Self {
        let in_force = InForce { settings, trial: None, trials: 0, reloads: PerReloadOutcome::default() };
        Self {
            gatherer: Mutex::new(Gatherer::new(facts.workers.clone())),
            facts,
            phase: watch::Sender::new(Phase::Serving),
            started: clock::now(),
            in_force: Mutex::new(in_force),
            waiters: Mutex::default(),
        }
    }

    /// The numbers of all workers now; once the drain has begun, those of just before.
    pub(super) async fn census(&self) -> Census {
        let mut gatherer = self.gatherer.lock().await;
        match *self.phase.borrow() {
            Phase::Serving => {}
            Phase::Draining | Phase::Drained(_) => return gatherer.recall(),
        }
        gatherer.gather().await
    }

    /// Time since the control plane was bound.
    pub(super) fn uptime(&self) -> Duration {
        clock::now().since(self.started)
    }

    /// The settings that the workers run by now.
    pub(super) async fn settings(&self) -> Settings {
        self.in_force.lock().await.settings.clone()
    }

    /// The patience in force.
    pub(super) async fn patience(&self) -> Patience {
        self.in_force.lock().await.settings.egress.delivery_patience
    }

    /// The text of `/metrics`.
    pub(super) async fn metrics(&self) -> String {
        let census = self.census().await;
        let acceptor = self.settings().await.tls.acceptor;
        let (gate, gate_bans) = self.gate_metrics().await;
        let process = meter::Process {
            certificate_not_after: acceptor
                .and_then(|acceptor| acceptor.not_after())
                .and_then(|seconds| u64::try_from(seconds).ok()),
            version: self.facts.version,
            commit: self.facts.commit,
            uptime: self.uptime(),
            resident_octets: resident_octets(),
            workers: census.workers as u64,
            workers_stuck: census.workers_stuck as u64,
            reloads: self.in_force.lock().await.reloads,
            log_lines_dropped: (self.facts.log_lines_dropped)(),
            gate: &gate,
            gate_bans,
        };
        meter::expose(&meter::Snapshot { meter: &census.meter, process: &process })
    }

    /// Begins the drain. `false`: it had begun before.
    pub(super) fn stop(self: &Arc<Self>) -> bool {
        let begins = self.phase.send_if_modified(|phase| {
            let begins = *phase == Phase::Serving;
            if begins {
                *phase = Phase::Draining;
            }
            begins
        });
        if begins {
            tracing::info!(event = "stopping", within_seconds = limits::DRAIN_TIMEOUT.as_secs());
            let plane = Arc::clone(self);
            tokio::spawn(async move {
                let _ = plane.gatherer.lock().await.gather().await;
                let end = plane.facts.workers.drain(limits::DRAIN_TIMEOUT).await;
                plane.phase.send_replace(Phase::Drained(end));
            });
        }
        begins
    }

    /// Keeps a connection whose peer waits for the end of the process.
    pub(super) async fn wait_for_stop(&self, stream: UnixStream) {
        let mut waiters = self.waiters.lock().await;
        if waiters.len() < limits::STOP_WAITERS_MAX {
            waiters.push(stream);
        }
    }

    /// Tells those who wait how the drain ended; their connections end with the process.
    pub(super) async fn dismiss_waiters(&self, end: Option<DrainEnd>) -> Vec<StdUnixStream> {
        let end = end.unwrap_or_default();
        let answer = Answer::Stopped { sessions_cut: end.sessions_cut, workers_stuck: end.workers_stuck };
        let mut kept = Vec::new();
        for mut stream in std::mem::take(&mut *self.waiters.lock().await) {
            if protocol::write(&mut stream, &answer).await.is_ok() {
                kept.extend(stream.into_std().ok());
            }
        }
        kept
    }

    /// Reads the configuration again and puts it in force on all workers, or on none.
    pub(super) async fn reload(self: &Arc<Self>, confirm: Option<Duration>) -> Answer {
        let mut in_force = self.in_force.lock().await;
        let answer = self.try_reload(&mut in_force, confirm).await;
        match &answer {
            Answer::Refused { mistakes } => {
                in_force.reloads[ReloadOutcome::Refused] += 1;
                for mistake in mistakes {
                    tracing::error!(event = "reload_refused", mistake = mistake.as_str());
                }
            }
            _ => {
                in_force.reloads[ReloadOutcome::Ok] += 1;
                tracing::info!(event = "reloaded", confirm_seconds = confirm.map(|wait| wait.as_secs()));
            }
        }
        answer
    }

    async fn try_reload(self: &Arc<Self>, in_force: &mut InForce, confirm: Option<Duration>) -> Answer {
        let refused = |mistakes| Answer::Refused { mistakes };
        if *self.phase.borrow() != Phase::Serving {
            return refused(vec!["the relay is stopping".to_owned()]);
        }
        if in_force.trial.is_some() {
            return refused(vec!["an earlier reload waits for `ringpost confirm`".to_owned()]);
        }
        let reread = Arc::clone(&self.facts.reread);
        let read = match tokio::task::spawn_blocking(move || reread()).await {
            Ok(Ok(read)) => read,
            Ok(Err(mistakes)) => return refused(mistakes),
            Err(_) => return refused(vec!["reading the configuration failed".to_owned()]),
        };
        if let Err(mistakes) = self.facts.workers.reload(&read.settings).await {
            self.restore(&in_force.settings).await;
            return refused(mistakes);
        }
        if let Err(mistake) = self.replace_gate(&read.settings).await {
            self.restore(&in_force.settings).await;
            return refused(vec![mistake]);
        }
        let mut warnings = read.warnings;
        warnings.extend(self.facts.gate.waits_for_start(&read.settings.gate));
        let before = std::mem::replace(&mut in_force.settings, read.settings);
        if let Some(wait) = confirm {
            in_force.trials += 1;
            in_force.trial = Some(Trial { number: in_force.trials, before });
            tokio::spawn(Arc::clone(self).roll_back(in_force.trials, wait.min(limits::CONFIRM_MAX)));
        }
        Answer::Reloaded { warnings, confirm_ms: confirm.map(protocol::millis) }
    }

    /// Keeps the settings on trial for good.
    pub(super) async fn confirm(&self) -> Answer {
        match self.in_force.lock().await.trial.take() {
            Some(_) => {
                tracing::info!(event = "reload_confirmed");
                Answer::Confirmed
            }
            None => Answer::Refused { mistakes: vec!["no reload waits for a confirmation".to_owned()] },
        }
    }

    /// Takes a trial back after its time, unless it was confirmed.
    async fn roll_back(self: Arc<Self>, number: u64, wait: Duration) {
        tokio::time::sleep(wait).await;
        let mut in_force = self.in_force.lock().await;
        let Some(trial) = in_force.trial.take_if(|trial| trial.number == number) else {
            return;
        };
        self.restore(&trial.before).await;
        in_force.settings = trial.before;
        in_force.reloads[ReloadOutcome::RolledBack] += 1;
        tracing::warn!(event = "reload_rolled_back", after_seconds = wait.as_secs());
    }

    /// Puts settings that were in force before back in force. A worker or gate that refuses them is logged: it answers
    /// for itself by what it serves.
    async fn restore(&self, settings: &Settings) {
        let of_workers = self.facts.workers.reload(settings).await.err().unwrap_or_default();
        let of_gate = self.replace_gate(settings).await.err();
        for reason in of_workers.into_iter().chain(of_gate) {
            tracing::error!(event = "restore_refused", reason = reason.as_str());
        }
    }

    /// The one line that tells where the relay listens.
    pub(super) async fn log_ready(&self, census: &Census) {
        let gate = self.gate_words().await;
        let drivers: Vec<&str> = census
            .meter
            .io_driver
            .iter()
            .filter(|(_, workers)| **workers > 0)
            .map(|(driver, _): (IoDriver, _)| driver.text())
            .collect();
        tracing::info!(
            event = "ready",
            smtp = self.addresses(Listener::Smtp),
            submission = self.addresses(Listener::Submission),
            submissions = self.addresses(Listener::Submissions),
            admin = spaced(&self.facts.config.listen_admin),
            control_socket = %self.facts.config.control_socket.display(),
            version = self.facts.version,
            workers = census.workers,
            io_driver = drivers.join(" "),
            gate = gate.as_deref().map_or("off", |words| if words.starts_with("none:") { "none" } else { words }),
        );
    }

    fn addresses(&self, kind: Listener) -> Option<String> {
        let of_kind = self.facts.listeners.iter().filter(|bound| bound.listener == kind);
        spaced(&of_kind.map(|bound| bound.address).collect::<Vec<_>>())
    }
}

/// Addresses in one value; `None`, so no field at all, where there are none.
fn spaced(addresses: &[std::net::SocketAddr]) -> Option<String> {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(" "))
}

/// Resident memory of this process; 0 where the kernel does not tell.
pub(super) fn resident_octets() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap_or(0);
    kibibytes * 1024
}
