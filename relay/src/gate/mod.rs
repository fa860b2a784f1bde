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
//! | `host`, `lists`, `advice`, `bans`, `drops`, `autoban` | decide; pure |
//! | `loaded`, `link`, `netlink`, `caps`, `clock` | talk to the kernel |
//! | `state` | brings them together |
//!
//! Nothing is pinned: when the process ends, killed too, the kernel takes the programs off.

pub mod advice;
pub mod autoban;
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

use bans::Ban;
use config::Wanted;
use drops::{Drop, DroppedSource};
use loaded::LoadError;
use state::State;
use status::{Explained, InterfaceCounters, NetworkCounter, Status};
use watch::Watch;

/// The object that `cargo xtask build` embedded.
pub mod object {
    include!(concat!(env!("OUT_DIR"), "/gate_object.rs"));
}

/// The gate, or the reason why there is none. Dropping it takes the programs off.
pub struct Gate {
    standing: Option<Standing>,
    absent: Option<GateError>,
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
        if config.wanted == Wanted::Off {
            return Ok(Self { standing: None, absent: None });
        }
        match stand(object, config, lists) {
            Ok(standing) => Ok(Self { standing: Some(standing), absent: None }),
            Err(error) if config.wanted == Wanted::Require => Err(error),
            Err(error) => Ok(Self { standing: None, absent: Some(error) }),
        }
    }

    fn state(&self) -> Option<MutexGuard<'_, State>> {
        let standing = self.standing.as_ref()?;
        Some(standing.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the program is on some interface.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.state().is_some_and(|state| !state.status().interfaces.is_empty())
    }

    /// Swaps lists, action and rate as a whole: a packet meets the old ones or the new ones.
    ///
    /// # Errors
    /// Why the old ones stay in force.
    pub fn replace_lists(&self, config: &Config, lists: Lists) -> Result<(), GateError> {
        match self.state() {
            Some(mut state) => state.replace(config.clone(), lists),
            None => Ok(()),
        }
    }

    /// Bans a source for so long. Its packets to listen ports are dropped from the next one on; a ban that stands is
    /// replaced. Whether there is a gate to do so.
    ///
    /// # Errors
    /// The kernel's.
    pub fn ban(&self, source: IpAddr, lasting: Duration) -> Result<bool, LoadError> {
        match self.state() {
            Some(mut state) => state.ban(source, lasting).map(|()| true),
            None => Ok(false),
        }
    }

    /// Lifts a ban. Whether there was one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn unban(&self, source: IpAddr) -> Result<bool, LoadError> {
        self.state().map_or(Ok(false), |mut state| state.unban(source))
    }

    /// The bans that stand, the one that ends first foremost.
    #[must_use]
    pub fn bans(&self) -> Vec<Ban> {
        self.state().map_or_else(Vec::new, |state| state.bans().standing(clock::monotonic_ns()))
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
            None => Status { notes: self.notes(), ..Status::default() },
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

fn stand(object: Option<&[u8]>, config: &Config, lists: Lists) -> Result<Standing, GateError> {
    let object = object.ok_or(GateError::NotBuilt)?;
    if lists.listeners().any(|(address, _)| address.port() == SSH) {
        return Err(GateError::Ssh);
    }
    let missing = caps::missing().unwrap_or_default();
    if !missing.is_empty() {
        return Err(GateError::NoPermission(missing));
    }
    // Heard from before the first look, so that no change falls between the two.
    let watch = Watch::prepare().map_err(GateError::Host)?;
    let mut state = State::load(object, config.clone(), lists)?;
    state.attach_all();
    if config.wanted == Wanted::Require
        && let Some(failure) = state.take_failure()
    {
        return Err(failure);
    }
    // Not worth failing for: a process that may not change its capabilities has few to lose.
    let _ = caps::give_up();
    let state = Arc::new(Mutex::new(state));
    let watch = watch.start(Arc::clone(&state)).map_err(GateError::Host)?;
    Ok(Standing { _watch: watch, state })
}

/// The port that a gate never filters.
const SSH: u16 = 22;
