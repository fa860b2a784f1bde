//! The user side of the XDP gate: load, attach, lists, counters, bans. It only saves work: the daemon's own
//! checks are the authority.
//!
//! [`Gate`] is what the daemon holds. Behind it stand a thread, which takes in samples, ends bans and hears of interfaces, and
//! one lock, which only the control plane and that thread take. Publishing waits for RCU, tens of milliseconds:
//! no method of [`Gate`] belongs on a data-plane thread.
//!
//! | file | does |
//! | --- | --- |
//! | `config` | what the operator wants |
//! | `host`, `lists`, `advice`, `bans`, `drops`, `autoban`, `report` | decide or tell; pure |
//! | `banned` | the book of bans, which workers read too |
//! | `loaded`, `link`, `netlink`, `caps`, `clock` | talk to the kernel |
//! | `state` | brings them together |
//!
//! Nothing is pinned: when the process ends, killed too, the kernel takes the programs off.

pub mod advice;
pub mod autoban;
pub mod banned;
pub mod bans;
pub mod caps;
pub mod clock;
pub mod config;
pub mod drops;
pub mod error;
pub mod host;
pub mod link;
pub mod lists;
pub mod loaded;
pub mod netlink;
pub mod report;
mod state;
pub mod status;
mod watch;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use config::Config;
pub use error::GateError;
pub use lists::Lists;

use autoban::Offences;
use banned::Banned;
use bans::Ban;
use config::{Autoban, Wanted};
use drops::{Drop, DroppedSource};
use loaded::{LoadError, Loaded};
use state::State;
use status::{Explained, InterfaceCounters, NetworkCounter, Status};
use watch::{Prepared, Watch};

use crate::io::clock as wall;
use crate::policy::acl::canonical;
use crate::units::Moment;

/// The object that `cargo xtask build` embedded.
pub mod object {
    include!(concat!(env!("OUT_DIR"), "/gate_object.rs"));
}

/// The gate, or the reason why there is none. Dropping it takes the programs off.
pub struct Gate {
    standing: Option<Standing>,
    absent: Option<GateError>,
    banned: Arc<Banned>,
    offenders: Mutex<Offenders>,
}

/// Who is on the way to a ban.
#[derive(Debug)]
struct Offenders {
    rule: Option<Autoban>,
    offences: Offences,
}

/// A gate that stands. The thread ends before the state goes.
struct Standing {
    _watch: Watch,
    state: Arc<Mutex<State>>,
}

impl Gate {
    /// Loads the embedded program, publishes the lists and attaches, and then gives up CAP_NET_ADMIN and
    /// CAP_PERFMON of the calling thread: call it before other threads are started.
    ///
    /// With `XDP=auto` a gate that cannot stand is no error: [`Self::notes`] tells why it does not.
    ///
    /// # Errors
    /// With `XDP=require`, why it does not stand on every interface that it should.
    pub fn start(config: &Config, lists: Lists) -> Result<Self, GateError> {
        Self::start_with(object::OBJECT, config, lists)
    }

    /// The same with another object.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(object: Option<&[u8]>, config: &Config, lists: Lists) -> Result<Self, GateError> {
        let banned = Arc::new(Banned::default());
        let offenders = Mutex::new(Offenders { rule: config.autoban, offences: Offences::default() });
        let (standing, absent) = match config.wanted {
            Wanted::Off => (None, None),
            Wanted::Auto | Wanted::Require => match stand(object, config, lists, &banned) {
                Ok(standing) => (Some(standing), None),
                Err(error) if config.wanted == Wanted::Require => return Err(error),
                Err(error) => (None, Some(error)),
            },
        };
        Ok(Self { standing, absent, banned, offenders })
    }

    fn state(&self) -> Option<MutexGuard<'_, State>> {
        let standing = self.standing.as_ref()?;
        Some(standing.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the program is on some interface.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.state().is_some_and(|state| state.is_attached())
    }

    /// Writes to the log where it stands, and what is to be known about it.
    pub fn log(&self) {
        if let Some(state) = self.state() {
            state.log_all_attached();
        }
        if let Some(GateError::NoInterface) = self.absent {
            // A relay on loopback: nothing is wrong.
            tracing::info!(event = "gate_note", note = %GateError::NoInterface);
            return;
        }
        for note in self.notes() {
            tracing::warn!(event = "gate_note", note = note.as_str());
        }
    }

    /// Swaps lists, action and rate as a whole: a packet meets the old ones or the new ones.
    ///
    /// # Errors
    /// Why the old ones stay in force.
    pub fn replace_lists(&self, config: &Config, lists: Lists) -> Result<(), GateError> {
        match self.state() {
            Some(mut state) => state.replace(config.clone(), lists)?,
            None if config.wanted == Wanted::Require => return Err(GateError::OnlyAtStart),
            None => {}
        }
        self.offenders().rule = config.autoban;
        Ok(())
    }

    /// What of a configuration waits for the next start: a gate that was not loaded at this one.
    #[must_use]
    pub fn waits_for_start(&self, config: &Config) -> Option<String> {
        let is_off = self.standing.is_none() && self.absent.is_none();
        (is_off && config.wanted != Wanted::Off).then(|| format!("XDP: {}", GateError::OnlyAtStart))
    }

    fn offenders(&self) -> MutexGuard<'_, Offenders> {
        self.offenders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an offence. `Some`: the source is to be banned for so long. Loopback is never: who sends from there
    /// are this host's own programs, all of them at once.
    pub fn offence(&self, source: IpAddr) -> Option<Duration> {
        let mut offenders = self.offenders();
        let rule = offenders.rule.filter(|_| !canonical(source).is_loopback())?;
        offenders.offences.count(rule, source, wall::now().since(Moment::default()))
    }

    /// The bans, for workers to look into.
    #[must_use]
    pub fn banned(&self) -> Arc<Banned> {
        Arc::clone(&self.banned)
    }

    /// Bans a source for so long. Its packets to listen ports are dropped from the next one on; a ban that stands is
    /// replaced. Whether there is a gate to do so: without, the daemon refuses its connections.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ban(&self, source: IpAddr, lasting: Duration) -> Result<bool, LoadError> {
        match self.state() {
            Some(mut state) => state.ban(source, lasting).map(|()| state.is_attached()),
            None => {
                self.banned.change(|bans| bans.ban(source, clock::monotonic_ns(), lasting));
                Ok(false)
            }
        }
    }

    /// Lifts a ban. Whether there was one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn unban(&self, source: IpAddr) -> Result<bool, LoadError> {
        match self.state() {
            Some(mut state) => state.unban(source),
            None => Ok(self.banned.change(|bans| bans.unban(source))),
        }
    }

    /// The bans that stand, the one that ends first foremost.
    #[must_use]
    pub fn bans(&self) -> Vec<Ban> {
        self.banned.read().standing(clock::monotonic_ns())
    }

    /// What the metrics show of each interface.
    #[must_use]
    pub fn counters(&self) -> Vec<InterfaceCounters> {
        self.state().map_or_else(Vec::new, |state| state.counters())
    }

    /// Packets accepted for each network: a system call a network.
    #[must_use]
    pub fn networks(&self) -> Vec<NetworkCounter> {
        self.state().map_or_else(Vec::new, |state| state.networks())
    }

    /// What `gate status` prints.
    #[must_use]
    pub fn status_text(&self) -> String {
        self.status().to_string() + &report::networks(&self.networks())
    }

    /// What `gate drops` prints.
    #[must_use]
    pub fn drops_text(&self) -> String {
        let name = |index| self.state().map_or_else(String::new, |state| state.interface_name(index));
        report::drops(&self.drops(), clock::monotonic_ns(), name)
    }

    /// What `gate trace` prints of the refusals sampled after this number (without one: the last few), and the number to
    /// go on from.
    #[must_use]
    pub fn trace(&self, after: Option<u64>) -> (Vec<String>, u64) {
        let Some(state) = self.fresh() else { return (Vec::new(), 0) };
        let last = state.drops().last_number();
        let after = after.unwrap_or(last.saturating_sub(TRACE_BEGINS_BEFORE));
        let (now_ns, unix_ms) = (clock::monotonic_ns(), wall::unix_ms());
        let line = |drop: &Drop| report::trace(drop, now_ns, unix_ms, &state.interface_name(drop.interface));
        (state.drops().since(after).iter().map(line).collect(), last)
    }

    /// Where it stands, in a few words: `eth0 native`; `None` where it stands nowhere.
    #[must_use]
    pub fn standing_words(&self) -> Option<String> {
        let interfaces = self.status().interfaces;
        let words = interfaces.iter().map(|on| format!("{} {}", on.interface, on.mode.word()));
        (!interfaces.is_empty()).then(|| words.collect::<Vec<_>>().join(", "))
    }

    /// Who was refused lately and for which port, the latest first. Samples: each source of a quiet network, some of a
    /// flood's.
    #[must_use]
    pub fn drops(&self) -> Vec<DroppedSource> {
        self.fresh().map_or_else(Vec::new, |state| state.drops().sources())
    }

    /// The refusals sampled after this number, for a live view; 0 for all that are kept.
    #[must_use]
    pub fn drops_since(&self, number: u64) -> Vec<Drop> {
        self.fresh().map_or_else(Vec::new, |state| state.drops().since(number))
    }

    /// The state with all samples taken in that the kernel has so far.
    fn fresh(&self) -> Option<MutexGuard<'_, State>> {
        let mut state = self.state()?;
        state.take_samples();
        Some(state)
    }

    /// What `gate status` shows.
    #[must_use]
    pub fn status(&self) -> Status {
        match self.state() {
            Some(state) => state.status(),
            None => Status { notes: self.notes(), bans: self.banned.count(), ..Status::default() },
        }
    }

    /// What is to be said in the log: why there is no gate, or where it does not stand.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        match (self.state(), &self.absent) {
            (Some(state), _) => state.notes(),
            (None, Some(error)) => vec![error.to_string()],
            (None, None) => Vec::new(),
        }
    }

    /// What would become of a new connection from a source to a port, or to an address of this host and that port. `None`
    /// without a gate.
    #[must_use]
    pub fn explain(&self, source: IpAddr, port: u16, destination: Option<IpAddr>) -> Option<Explained> {
        let state = self.state()?;
        let named = destination.map(|address| SocketAddr::new(address, port));
        let unheard = SocketAddr::new(source, port);
        Some(state.explain(source, named.or_else(|| state.listener_for(source, port)).unwrap_or(unheard)))
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("stands", &self.standing.is_some()).finish_non_exhaustive()
    }
}

/// What this kernel and this process's permissions let the gate do, for `ringpost version`: name and whether, or why
/// not. Loads the program and attaches nothing.
#[must_use]
pub fn abilities() -> Vec<(&'static str, Result<(), String>)> {
    let loaded = object::OBJECT.ok_or(GateError::NotBuilt).and_then(|object| {
        permit()?;
        Ok(Loaded::new(object)?)
    });
    let frags = match &loaded {
        Ok(loaded) => loaded.frags_error().map_or(Ok(()), |error| Err(error.to_string())),
        Err(error) => Err(error.to_string()),
    };
    vec![("xdp", loaded.map(drop).map_err(|error| error.to_string())), ("xdp-multi-buffer", frags)]
}

/// That this thread has the capabilities that loading needs.
fn permit() -> Result<(), GateError> {
    let missing = caps::missing().unwrap_or_default();
    if missing.is_empty() { Ok(()) } else { Err(GateError::NoPermission(missing)) }
}

/// Loads and attaches, and then gives up what only that needs, also where it failed.
fn stand(
    object: Option<&[u8]>,
    config: &Config,
    lists: Lists,
    banned: &Arc<Banned>,
) -> Result<Standing, GateError> {
    let stood = attach(object, config, lists, banned);
    // Not worth failing for: a process that may not change its capabilities has few to lose.
    let _ = caps::give_up();
    let (prepared, state) = stood?;
    let state = Arc::new(Mutex::new(state));
    let watch = prepared.start(Arc::clone(&state)).map_err(GateError::Host)?;
    Ok(Standing { _watch: watch, state })
}

fn attach(
    object: Option<&[u8]>,
    config: &Config,
    lists: Lists,
    banned: &Arc<Banned>,
) -> Result<(Prepared, State), GateError> {
    let object = object.ok_or(GateError::NotBuilt)?;
    if lists.listeners().any(|(address, _)| address.port() == SSH) {
        return Err(GateError::Ssh);
    }
    let is_loopback = |(address, _): (SocketAddr, _)| address.ip().is_loopback();
    if config.interfaces.is_empty() && lists.listeners().all(is_loopback) {
        // Nor will one ever: the program is not even loaded.
        return Err(GateError::NoInterface);
    }
    permit()?;
    // Heard from before the first look, so that no change falls between the two.
    let prepared = Watch::prepare().map_err(GateError::Host)?;
    let mut state = State::load(object, config.clone(), lists, Arc::clone(banned))?;
    state.attach_all();
    if config.wanted == Wanted::Require
        && let Some(failure) = state.take_failure()
    {
        return Err(failure);
    }
    Ok((prepared, state))
}

/// Refusals before its beginning that `gate trace` shows.
const TRACE_BEGINS_BEFORE: u64 = 10;

/// The port that a gate never filters.
const SSH: u16 = 22;
