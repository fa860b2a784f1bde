//! The control plane: control socket, HTTP admin, signals, the service manager, the verbs' answers.
//!
//! One thread, one tokio runtime (on io_uring where the kernel gives it). It owns nothing that mail needs: workers go
//! on when it is busy, and it asks them by message ([`workers`]). The daemon binds it early ([`ControlPlane::bind`],
//! so that a second instance or a closed port is an error before any worker starts) and runs it last; it returns
//! when the relay has stopped.
//!
//! Must not: touch a session or an upstream itself; show a secret or a message's content; block on a file that an
//! operator names (the configuration is read again on a thread of the runtime's own pool).

mod census;
pub mod client;
pub mod config;
pub mod explain;
pub mod gate;
mod http;
mod notify;
mod plane;
pub mod protocol;
mod queue;
mod signals;
mod socket;
pub mod status;
mod workers;

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::{fmt, io};

pub use census::Rates;
pub use config::Config;
pub use workers::{DrainEnd, Workers};

use crate::gate::Gate;
use crate::limits;
use crate::meter::Listener;
use crate::orders::Settings;
use notify::ServiceManager;
use plane::{Phase, Plane};

/// What the daemon gives to the control plane.
pub struct Start {
    /// Where it listens.
    pub config: Config,
    /// The settings that the workers run by.
    pub settings: Settings,
    /// The workers.
    pub workers: Workers,
    /// What the workers listen on.
    pub listeners: Vec<Bound>,
    /// The release.
    pub version: &'static str,
    /// The source that it was built from.
    pub commit: &'static str,
    /// Reads the configuration again.
    pub reread: Reread,
    /// How many log lines were dropped so far.
    pub log_lines_dropped: Box<dyn Fn() -> u64 + Send + Sync>,
    /// The gate, or the reason why there is none.
    pub gate: Arc<Gate>,
    /// Further tasks of the control plane's thread, such as the resolver. They end with it.
    pub companions: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// Reads the configuration again: what is to be in force, or all mistakes. May block.
pub type Reread = Arc<dyn Fn() -> Result<Read, Vec<String>> + Send + Sync>;

/// A configuration that was read and found good.
#[derive(Debug, Clone)]
pub struct Read {
    /// For the workers.
    pub settings: Settings,
    /// What the operator should know, such as values that take effect only at the next start.
    pub warnings: Vec<String>,
}

/// A listener of the workers and the address that it really has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Its kind.
    pub listener: Listener,
    /// Its address; the port is never 0.
    pub address: SocketAddr,
}

/// Why the control plane cannot start.
#[derive(Debug)]
pub enum Fault {
    /// Another ringpost answers on the control socket.
    AlreadyRunning(PathBuf),
    /// The control socket cannot be made.
    Socket(PathBuf, io::Error),
    /// An admin address cannot be bound.
    Admin(SocketAddr, io::Error),
    /// No runtime can be had.
    Runtime(io::Error),
}

impl Fault {
    /// The exit code of the daemon: 77 where a permission is missing, 71 where the system fails, else 73.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Socket(_, error) | Self::Admin(_, error)
                if error.kind() == io::ErrorKind::PermissionDenied =>
            {
                77
            }
            Self::Runtime(_) => 71,
            Self::AlreadyRunning(_) | Self::Socket(..) | Self::Admin(..) => 73,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyRunning(path) => {
                write!(f, "ringpost is already running: it answers on CONTROL_SOCKET={}", path.display())
            }
            Self::Socket(path, error) => write!(f, "CONTROL_SOCKET={}: {error}", path.display()),
            Self::Admin(address, error) => write!(f, "LISTEN_ADMIN={address}: {error}"),
            Self::Runtime(error) => write!(f, "no runtime for the control plane: {error}"),
        }
    }
}

impl std::error::Error for Fault {}

/// How the relay ended. Keep it until the process ends: those who asked for the stop see the end of their
/// connection only then.
#[derive(Debug)]
pub struct Ending {
    /// What the drain came to; `None`: a second signal ended it at once.
    pub drain: Option<DrainEnd>,
    waiters: Vec<UnixStream>,
}

impl Ending {
    /// How many verbs wait for the end of the process.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.waiters.len()
    }
}

/// The control plane, bound and ready to run.
pub struct ControlPlane {
    plane: Arc<Plane>,
    admin: Vec<TcpListener>,
    socket: socket::Listening,
    companions: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl ControlPlane {
    /// Binds the admin addresses and the control socket.
    ///
    /// # Errors
    /// What could not be bound and why.
    pub fn bind(start: Start) -> Result<Self, Fault> {
        let socket = socket::Listening::bind(&start.config.control_socket)?;
        let admin = start.config.listen_admin.iter().map(bind_admin).collect::<Result<Vec<_>, _>>()?;
        let addresses = admin.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let companions = start.companions;
        let facts = plane::Facts {
            config: Config { listen_admin: addresses, control_socket: start.config.control_socket },
            listeners: start.listeners,
            version: start.version,
            commit: start.commit,
            workers: start.workers,
            reread: start.reread,
            log_lines_dropped: start.log_lines_dropped,
            gate: start.gate,
        };
        let plane = Plane::new(facts, start.settings);
        Ok(Self { plane: Arc::new(plane), admin, socket, companions })
    }

    /// The admin addresses, with the ports that were really bound.
    #[must_use]
    pub fn admin_addresses(&self) -> &[SocketAddr] {
        &self.plane.facts.config.listen_admin
    }

    /// Serves on this thread until the relay has stopped.
    ///
    /// # Errors
    /// [`Fault::Runtime`] where no runtime can be had.
    pub fn run(self) -> Result<Ending, Fault> {
        // Docker's default seccomp profile forbids io_uring; the control plane then runs on epoll.
        if let Ok(runtime) = tokio_uring::Runtime::new(&tokio_uring::builder()) {
            return runtime.block_on(self.serve());
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Fault::Runtime)?;
        runtime.block_on(self.serve())
    }

    async fn serve(self) -> Result<Ending, Fault> {
        let Self { plane, admin, socket, companions } = self;
        let mut signals = signals::Signals::listen().map_err(Fault::Runtime)?;
        for companion in companions {
            tokio::spawn(companion);
        }
        for listener in admin {
            tokio::spawn(http::serve(listener, Arc::clone(&plane)).map_err(Fault::Runtime)?);
        }
        let (_socket_file, accept) = socket.serve(Arc::clone(&plane)).map_err(Fault::Runtime)?;
        tokio::spawn(accept);
        let manager = ServiceManager::from_environment();
        tokio::spawn(pulse(Arc::clone(&plane), manager.clone()));

        let mut phase = plane.phase.subscribe();
        let drain = loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    signals::Signal::Reload => drop(tokio::spawn(reload(Arc::clone(&plane), manager.clone()))),
                    signals::Signal::Stop if plane.stop() => {}
                    signals::Signal::Stop => break None,
                },
                // The plane, which this future holds, keeps the sender.
                _ = phase.changed() => match *phase.borrow_and_update() {
                    Phase::Serving => {}
                    Phase::Draining => manager.stopping(),
                    Phase::Drained(end) => break Some(end),
                },
            }
        };
        tracing::info!(event = "stopped", at_once = drain.is_none());
        Ok(Ending { drain, waiters: plane.dismiss_waiters(drain).await })
    }
}

fn bind_admin(address: &SocketAddr) -> Result<TcpListener, Fault> {
    let bind = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|error| Fault::Admin(*address, error))
}

async fn reload(plane: Arc<Plane>, manager: ServiceManager) {
    manager.reloading();
    // The outcome is logged and counted where it is made.
    let _ = plane.reload(None).await;
    manager.ready();
}

/// Looks at the workers now and then: tells the service manager that the relay is ready, and alive, and keeps the
/// rates' samples. A relay with a stuck worker is not alive: the watchdog starts it anew.
async fn pulse(plane: Arc<Plane>, manager: ServiceManager) {
    let mut every = tokio::time::interval(
        manager.watchdog().map_or(limits::PULSE, |period| (period / 2).min(limits::PULSE)),
    );
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut is_ready = false;
    loop {
        every.tick().await;
        let census = plane.census().await;
        if census.workers_stuck > 0 {
            tracing::error!(event = "worker_stuck", workers = census.workers_stuck);
            continue;
        }
        if !is_ready {
            plane.log_ready(&census).await;
            manager.ready();
            is_ready = true;
        }
        manager.alive();
    }
}

#[cfg(test)]
mod tests;
