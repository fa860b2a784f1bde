//! The gate as the control plane uses it: its verbs, its metrics, its part of a reload, and bans of offenders.
//!
//! Every call of the gate may wait for its lock or for the kernel, so all of them are made on a thread of the
//! runtime's own pool. It must not decide about packets.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Bound;
use super::plane::Plane;
use super::protocol::{Answer, GateQuestion};
use crate::gate::{Gate, GateError, Lists, report};
use crate::limits::{GATE_TICK, GATE_TRACE_WAIT};
use crate::meter::{GateInterface, Label as _, Listener};
use crate::orders::Settings;
use crate::{gate, ingress};

/// What the gate is told of where the daemon listens and whom it serves.
#[must_use]
pub fn lists(bound: &[Bound], ingress: &ingress::Config) -> Lists {
    let addresses = |wanted: fn(Listener) -> bool| {
        let of_kind = bound.iter().filter(|bound| wanted(bound.listener));
        of_kind.map(|bound| bound.address).collect()
    };
    Lists {
        smtp: addresses(|listener| listener == Listener::Smtp),
        submission: addresses(|listener| listener != Listener::Smtp),
        accepted_networks: ingress.accepted_networks.clone(),
        submission_networks: ingress.submission_networks.clone(),
    }
}

/// Bans who offends too often (`AUTOBAN`), for as long as workers report offences.
pub async fn ban_offenders(offences: flume::Receiver<IpAddr>, gate: Arc<Gate>) {
    while let Ok(source) = offences.recv_async().await {
        let Some(lasting) = gate.offence(source) else { continue };
        let gate = Arc::clone(&gate);
        let banned = tokio::task::spawn_blocking(move || gate.ban(source, lasting)).await;
        match banned {
            Ok(Ok(_)) => {
                tracing::warn!(event = "banned", client = %source, seconds = lasting.as_secs());
            }
            Ok(Err(error)) => tracing::error!(event = "ban_failed", client = %source, reason = %error),
            // The pool does not take work any more: the process ends.
            Err(_) => return,
        }
    }
}

impl Plane {
    /// Asks the gate on a thread that may wait.
    async fn gate<R: Default + Send + 'static>(&self, ask: impl FnOnce(&Gate) -> R + Send + 'static) -> R {
        let gate = Arc::clone(&self.facts.gate);
        tokio::task::spawn_blocking(move || ask(&gate)).await.unwrap_or_default()
    }

    /// What the gate's metrics show, and how many bans stand.
    pub(super) async fn gate_metrics(&self) -> (Vec<GateInterface>, u64) {
        self.gate(|gate| {
            let of_interface = |on: gate::status::InterfaceCounters| {
                let mode = on.mode.map_or("", gate::advice::AttachMode::word).to_owned();
                let mut shown = GateInterface { interface: on.interface, mode, ..Default::default() };
                for (verdict, packets) in crate::meter::GateVerdict::ALL.iter().zip(on.packets) {
                    shown.packets[*verdict] = packets;
                }
                shown
            };
            (gate.counters().into_iter().map(of_interface).collect(), gate.banned().count() as u64)
        })
        .await
    }

    /// Where it stands, in words: `eth0 native`; why it does not; `None` where it is off.
    pub(super) async fn gate_words(&self) -> Option<String> {
        self.gate(|gate| {
            gate.standing_words().or_else(|| {
                let notes = gate.notes();
                notes.first().map(|note| format!("none: {note}"))
            })
        })
        .await
    }

    /// Puts the gate's part of these settings in force.
    pub(super) async fn replace_gate(&self, settings: &Settings) -> Result<(), String> {
        let config = Arc::clone(&settings.gate);
        let lists = lists(&self.facts.listeners, &settings.ingress);
        let replaced: Option<Result<(), GateError>> =
            self.gate(move |gate| Some(gate.replace_lists(&config, lists))).await;
        match replaced {
            Some(done) => done.map_err(|error| format!("gate: {error}")),
            None => Err("gate: asking it failed".to_owned()),
        }
    }

    /// What the gate would do with a new connection, and whether its source is banned.
    pub(super) async fn explain_gate(&self, source: IpAddr, port: Option<u16>) -> (String, bool) {
        let port = port.unwrap_or_else(|| super::explain::default_port(&self.facts.listeners));
        self.gate(move |gate| {
            let words = match gate.standing_words().and_then(|_| gate.explain(source, port, None)) {
                Some(explained) => report::explained(explained, port),
                None => "no gate".to_owned(),
            };
            (words, gate.banned().holds(source))
        })
        .await
    }

    /// Answers a verb.
    pub(super) async fn answer_gate(&self, question: GateQuestion) -> Answer {
        match question {
            GateQuestion::Trace { after } => self.trace(after).await,
            GateQuestion::Status => self.gate(|gate| told(gate.status_text())).await,
            GateQuestion::Drops => self.gate(|gate| told(gate.drops_text())).await,
            GateQuestion::Bans => self.gate(|gate| told(report::bans(&gate.bans()))).await,
            GateQuestion::Ban { source, for_ms } => {
                let lasting = for_ms.map_or(Duration::MAX, Duration::from_millis);
                self.gate(move |gate| ban(gate, source, lasting)).await
            }
            GateQuestion::Unban { source } => self.gate(move |gate| unban(gate, source)).await,
        }
        .unwrap_or_else(|| refused("asking the gate failed"))
    }

    /// New refusals, as soon as there are any; nothing after a while, so that a peer that went away is noticed.
    async fn trace(&self, after: Option<u64>) -> Option<Answer> {
        let until = crate::io::clock::now().after(GATE_TRACE_WAIT);
        loop {
            let (lines, last) = self.gate(move |gate| gate.trace(after)).await;
            if !lines.is_empty() || after.is_none() || crate::io::clock::now() >= until {
                return Some(Answer::Traced { lines, last });
            }
            tokio::time::sleep(GATE_TICK).await;
        }
    }
}

fn told(text: String) -> Option<Answer> {
    Some(Answer::Told { text })
}

fn refused(why: &str) -> Answer {
    Answer::Refused { mistakes: vec![why.to_owned()] }
}

fn ban(gate: &Gate, source: IpAddr, lasting: Duration) -> Option<Answer> {
    let how_long = report::remaining(lasting);
    match gate.ban(source, lasting) {
        Ok(true) => told(format!("{source} is banned {how_long}\n")),
        Ok(false) => told(format!("{source} is banned {how_long}, by the daemon alone: there is no gate\n")),
        Err(error) => Some(refused(&format!("{source} is not banned: {error}"))),
    }
}

fn unban(gate: &Gate, source: IpAddr) -> Option<Answer> {
    match gate.unban(source) {
        Ok(true) => told(format!("{source} is banned no more\n")),
        Ok(false) => told(format!("{source} was not banned\n")),
        Err(error) => Some(refused(&format!("{source}: {error}"))),
    }
}
