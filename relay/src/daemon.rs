//! Process life: binds, starts workers and the control plane, and ends with an exit code.
//!
//! Order matters: listeners are bound before anything else runs (privileges may be missing), the control plane before
//! the workers serve (a second instance must not take a single connection), and the `ready` line comes when every worker
//! answers. It must not do work of its own once the control plane runs.

pub mod panics;
mod recovery;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use self::recovery::{Home, When};
use crate::config::{self, Config, Loaded, Sources};
use crate::control;
use crate::control::{Bound, ControlPlane, Read, Start, Workers};
use crate::egress;
use crate::egress::token::{self, Keeping};
use crate::gate::{Gate, GateError};
use crate::ingress::login::Checker;
use crate::io::clock;
use crate::io::ladder::Rung;
use crate::limits::{CERTIFICATE_LOOK, LISTEN_BACKLOG, LOG_FLUSH_TIMEOUT, OFFENCES_PENDING_MAX};
use crate::log::Log;
use crate::meter::Listener;
use crate::orders::{self, Order, Settings};
use crate::resolve::{self, Service};
use crate::tls;
use crate::tls::server::{Tickets, Watch};
use crate::units::WorkerId;
use crate::worker::{self, Parts, Shared};

/// Why the daemon could not run: the text, and the exit code of INTERFACE §6.
#[derive(Debug)]
pub enum Fault {
    /// An address to listen on cannot be bound.
    Listen(Listener, SocketAddr, io::Error),
    /// The control plane cannot start.
    Control(control::Fault),
    /// A worker cannot start.
    Worker(WorkerId, io::Error),
    /// The log cannot be opened.
    Log(io::Error),
    /// `DNS_TRUST_ANCHORS` holds no usable keys.
    TrustAnchors(String),
    /// No thread for the logins.
    Threads(io::Error),
    /// The spool cannot be used.
    Spool(recovery::Fault),
    /// The certificate or the authorities cannot be used.
    Tls(tls::Unready),
    /// `XDP=require`, and the gate does not stand.
    Gate(GateError),
}

impl Fault {
    /// 78 configuration, 77 no permission, 71 the system, 73 what the control plane needs on disk.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Listen(_, _, error) if error.kind() == io::ErrorKind::PermissionDenied => 77,
            Self::Log(error) if error.kind() == io::ErrorKind::PermissionDenied => 77,
            Self::Control(fault) => fault.exit_code(),
            Self::Gate(error) => error.exit_code(),
            Self::Log(_) | Self::Spool(_) => 73,
            Self::Tls(_) | Self::TrustAnchors(_) => 78,
            Self::Listen(..) | Self::Worker(..) | Self::Threads(_) => 71,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(listener, address, error) if error.kind() == io::ErrorKind::PermissionDenied => {
                write!(f, "{}={address}: {error}: needs CAP_NET_BIND_SERVICE", variable_of(*listener))
            }
            Self::Listen(listener, address, error) => {
                write!(f, "{}={address}: {error}", variable_of(*listener))
            }
            Self::Control(fault) => fault.fmt(f),
            Self::Worker(worker, error) => write!(f, "worker {worker} cannot start: {error}"),
            Self::Log(error) => write!(f, "LOG_TARGET: {error}"),
            Self::TrustAnchors(why) => write!(f, "DNS_TRUST_ANCHORS: {why}"),
            Self::Threads(error) => write!(f, "no thread for the logins: {error}"),
            Self::Spool(fault) => fault.fmt(f),
            Self::Tls(unready) => unready.fmt(f),
            Self::Gate(error) => write!(f, "XDP=require: {error}"),
        }
    }
}

impl std::error::Error for Fault {}

fn variable_of(listener: Listener) -> &'static str {
    match listener {
        Listener::Smtp => "LISTEN_SMTP",
        Listener::Submission => "LISTEN_SUBMISSION",
        Listener::Submissions => "LISTEN_SUBMISSIONS",
    }
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// Why it could not start.
pub fn run(loaded: Loaded, sources: Sources, best: Rung) -> Result<(), Fault> {
    let Loaded { config, warnings, .. } = loaded;
    let (bound, sockets) = bind_all(&config)?;
    // Before any other thread: what capabilities it gives up, all threads shall be without.
    let gate =
        Gate::start(&config.gate, control::gate::lists(&bound, &config.ingress)).map_err(Fault::Gate)?;
    let gate = Arc::new(gate);
    let log = Log::start(&config.log).map_err(Fault::Log)?;
    let dropped = log.clone();
    for warning in &warnings {
        tracing::warn!(event = "configuration", warning = %warning);
    }
    gate.log();
    let (look_ups, requests) = resolve::channel();
    let tickets = Tickets::new().map_err(|fault| Fault::Tls(tls::Unready::Acceptor(fault)))?;
    let watch = Watch::default();
    let (keeping, keeper) = token::keeper(look_ups.clone());
    let settings = settings_of(&config, &tickets, &watch, &keeping).map_err(Fault::Tls)?;
    let (orders, receivers): (Vec<_>, Vec<_>) = (0..config.workers).map(|_| orders::channel()).unzip();
    let (offended, offences) = flume::bounded(OFFENCES_PENDING_MAX);
    let home = Arc::new(Home::new(config.workers));
    let berths = Arc::clone(&home.berths);
    let shared = Shared { banned: gate.banned(), offences: Some(offended), berths, ..Shared::default() };
    let service = look_up_service(requests, &config.egress, &config.tls.state_dir)?;
    let reloaded = Reloaded {
        log: log.clone(),
        look_ups: look_ups.clone(),
        tickets,
        watch: watch.clone(),
        keeping,
        home: Arc::clone(&home),
    };
    let plane = ControlPlane::bind(Start {
        config: config.control.clone(),
        settings: settings.clone(),
        workers: Workers::new(orders),
        listeners: bound,
        version: env!("CARGO_PKG_VERSION"),
        commit: crate::COMMIT,
        reread: Arc::new(move || reread(&sources, &reloaded)),
        log_lines_dropped: Box::new(move || dropped.lines_dropped()),
        companions: vec![
            Box::pin(service.run()),
            Box::pin(watch_certificates(watch)),
            Box::pin(control::gate::ban_offenders(offences, Arc::clone(&gate))),
            Box::pin(keeper.run()),
            Box::pin(Arc::clone(&home).await_room()),
        ],
        gate,
    })
    .map_err(Fault::Control)?;
    home.take_over(&config.spool, &config.egress, When::Starting).map_err(Fault::Spool)?;
    let seats = sockets.into_iter().zip(receivers);
    let seats = seats.map(|(sockets, orders)| Seat { sockets, orders }).collect();
    let workers = start_workers(seats, &settings, &look_ups, (best, shared))?;
    // The workers and the control plane have them: what a reload replaces shall be gone, passwords above all.
    drop((config, settings));
    let ending = plane.run().map_err(Fault::Control)?;
    // After a drain the workers end by themselves; a second signal does not wait for them.
    if ending.drain.is_some() {
        workers.into_iter().for_each(|worker| drop(worker.join()));
    }
    // What the target does not take by then is lost with the process.
    let _ = log.flush(LOG_FLUSH_TIMEOUT);
    drop(ending);
    // Until here the spool was ours.
    drop(home);
    Ok(())
}

fn settings_of(
    config: &Config,
    tickets: &Tickets,
    watch: &Watch,
    keeping: &Keeping,
) -> Result<Settings, tls::Unready> {
    let tls = tls::Armour::load(&config.tls, tickets)?;
    tls.acceptor.iter().for_each(|acceptor| watch.add(acceptor));
    if let Some(shelf) = config.egress.login.as_ref().and_then(|login| login.token.as_ref()) {
        keeping.keep(shelf, tls.demand.authorities());
    }
    Ok(Settings {
        ingress: Arc::new(config.ingress.clone()),
        egress: Arc::new(config.egress.clone()),
        tls,
        gate: Arc::new(config.gate.clone()),
        spool: Arc::new(config.spool.clone()),
    })
}

fn look_up_service(
    requests: flume::Receiver<resolve::Request>,
    egress: &egress::Config,
    state_dir: &Path,
) -> Result<Service, Fault> {
    let service = Service::new(requests, &egress.dns_servers).keeping_policies_in(&state_dir.join(POLICIES));
    match &egress.dns_trust_anchors {
        Some(path) => service.trusting(&egress.dns_servers, path).map_err(Fault::TrustAnchors),
        None => Ok(service),
    }
}

/// Where MTA-STS policies are kept, in the state directory.
const POLICIES: &str = "mta-sts";

/// Changed certificates are shown without a reload.
async fn watch_certificates(watch: Watch) {
    loop {
        tokio::time::sleep(CERTIFICATE_LOOK).await;
        let look = watch.clone();
        // Files may stand on a slow disk: they are read on a thread of the runtime's own pool.
        for outcome in tokio::task::spawn_blocking(move || look.look()).await.unwrap_or_default() {
            match outcome {
                Ok(()) => tracing::info!(event = "certificate_renewed"),
                Err(fault) => tracing::error!(event = "certificate_refused", reason = %fault),
            }
        }
    }
}

/// What a reload reaches besides the workers.
struct Reloaded {
    log: Log,
    look_ups: flume::Sender<resolve::Request>,
    tickets: Tickets,
    watch: Watch,
    keeping: Keeping,
    home: Arc<Home>,
}

fn reread(sources: &Sources, reloaded: &Reloaded) -> Result<Read, Vec<String>> {
    let loaded = config::load(sources, &config::Host::current())
        .map_err(|refused| refused.mistakes.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let settings = settings_of(&loaded.config, &reloaded.tickets, &reloaded.watch, &reloaded.keeping)
        .map_err(|unready| vec![unready.to_string()])?;
    reloaded
        .home
        .take_over(&loaded.config.spool, &loaded.config.egress, When::Reloading)
        .map_err(|fault| vec![fault.to_string()])?;
    reloaded.log.set_level(loaded.config.log.level);
    reloaded.log.reopen();
    // Full of look-ups under way, the service keeps its servers until the next reload.
    let _ = reloaded.look_ups.try_send(resolve::Request::Configure(loaded.config.egress.dns_servers.clone()));
    Ok(Read { settings, warnings: loaded.warnings.iter().map(ToString::to_string).collect() })
}

/// The sockets of one worker.
type Sockets = Vec<(Listener, TcpListener)>;

/// Binds every address once for each worker (SO_REUSEPORT: the kernel spreads connections). A port of 0 is chosen by the
/// first socket; the others follow it.
fn bind_all(config: &Config) -> Result<(Vec<Bound>, Vec<Sockets>), Fault> {
    let ingress = &config.ingress;
    let kinds = [
        (Listener::Smtp, &ingress.listen_smtp),
        (Listener::Submission, &ingress.listen_submission),
        (Listener::Submissions, &ingress.listen_submissions),
    ];
    let mut bound = Vec::new();
    let mut workers: Vec<Sockets> = (0..config.workers).map(|_| Vec::new()).collect();
    for (listener, addresses) in kinds {
        for &wanted in addresses {
            let mut address = wanted;
            for sockets in &mut workers {
                let fault = |error| Fault::Listen(listener, address, error);
                let socket = bind(address).map_err(fault)?;
                address = socket.local_addr().map_err(fault)?;
                sockets.push((listener, socket));
            }
            bound.push(Bound { listener, address });
        }
    }
    Ok((bound, workers))
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    // Accepted sockets inherit both: replies go out at once, and a dead peer is noticed.
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(socket.into())
}

/// What one worker is given of its own.
struct Seat {
    sockets: Sockets,
    orders: flume::Receiver<Order>,
}

fn start_workers(
    seats: Vec<Seat>,
    settings: &Settings,
    look_ups: &flume::Sender<resolve::Request>,
    (best, shared): (Rung, Shared),
) -> Result<Vec<JoinHandle<()>>, Fault> {
    let shared = Shared { logins: Checker::start().map_err(Fault::Threads)?, ..shared };
    let started_ms = clock::unix_ms();
    let cpus = crate::io::cpus();
    let mut threads = Vec::new();
    let workers = u32::try_from(seats.len()).unwrap_or(u32::MAX);
    for (number, Seat { sockets: listeners, orders }) in (0u16..).zip(seats) {
        let id = WorkerId(number);
        let parts = Parts {
            id,
            cpu: cpus.get(usize::from(number) % cpus.len().max(1)).copied(),
            best,
            listeners,
            settings: settings.clone(),
            orders,
            shared: shared.clone(),
            look_ups: look_ups.clone(),
            workers,
            started_ms,
        };
        let (ready, is_ready) = flume::bounded(1);
        let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
            // A worker that could not start has said so through `ready`.
            let _ = worker::run(parts, &ready);
        });
        threads.push(thread.map_err(|error| Fault::Worker(id, error))?);
        let gone = || io::Error::other("the thread has ended");
        is_ready.recv().unwrap_or_else(|_| Err(gone())).map_err(|error| Fault::Worker(id, error))?;
    }
    Ok(threads)
}
