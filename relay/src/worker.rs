//! One core: its runtime, listeners, sessions and pools; it ties inbound to outbound, and drains.
//!
//! A worker shares nothing with the others but the tables of admission and permits, touched once a connection. The control
//! plane asks it by [`Order`]s. It must not resolve names, read files or serve HTTP: those are the control plane's.

pub mod post;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;

use self::post::{Kit, Post};
use crate::egress::operator::{Line, Tally};
use crate::egress::permit::PermitBook;
use crate::envelope::Peer;
use crate::gate::banned::Banned;
use crate::ingress::admission::{Admission, Admitted, Full};
use crate::ingress::login::Checker;
use crate::ingress::proxy;
use crate::io::buffer::{Buffer, Size};
use crate::io::clock;
use crate::io::files::ring::RingFiles;
use crate::io::ladder::{self, Rung};
use crate::io::ring::{RingIo, RingStream, stop_accepting};
use crate::io::{Io, Stream};
use crate::limits::{PROXY_HEADER_TIMEOUT, REPLY_TIMEOUT, TICK};
use crate::meter::{IoDriver, Listener, SessionOutcome};
use crate::orders::{Drained, Order, Settings};
use crate::policy::rate::ClientRates;
use crate::resolve;
use crate::smtp::reply::{self, ReplyBuf};
use crate::spool::{self, Berths};
use crate::units::{Moment, SessionId, WorkerId};

/// What a worker is made of.
pub struct Parts {
    /// Its number.
    pub id: WorkerId,
    /// The CPU it is pinned to; `None`: none.
    pub cpu: Option<usize>,
    /// The best driver to try.
    pub best: Rung,
    /// Its own listening sockets.
    pub listeners: Vec<(Listener, TcpListener)>,
    /// What it runs by.
    pub settings: Settings,
    /// Where it is asked.
    pub orders: flume::Receiver<Order>,
    /// What it shares with the other workers.
    pub shared: Shared,
    /// Its way to the control plane's name look-ups.
    pub look_ups: flume::Sender<resolve::Request>,
    /// How many workers there are.
    pub workers: u32,
    /// When the process started, in milliseconds since the Unix epoch.
    pub started_ms: u64,
}

/// What all workers of the process share.
#[derive(Debug, Clone, Default)]
pub struct Shared {
    /// The open sessions.
    pub admission: Arc<Admission>,
    /// The connections to upstreams.
    pub permits: Arc<PermitBook>,
    /// The rates of clients.
    pub rates: Arc<Mutex<ClientRates>>,
    /// The thread that checks logins.
    pub logins: Checker,
    /// Where workers fetch their messages, once there is a spool.
    pub berths: Arc<Berths>,
    /// Who is banned.
    pub banned: Arc<Banned>,
    /// Where offences are reported; `None`: nobody counts them.
    pub offences: Option<flume::Sender<IpAddr>>,
}

/// Runs a worker on this thread until it is drained. `ready` hears the driver that was had.
///
/// # Errors
/// No driver could be had, or a listener could not be taken over.
pub fn run(parts: Parts, ready: &flume::Sender<io::Result<Rung>>) -> io::Result<()> {
    if let Some(cpu) = parts.cpu {
        // Not being pinned costs speed, nothing else.
        let _ = monoio::utils::bind_to_cpu_set([cpu]);
    }
    let (mut driver, rung) = match ladder::build(parts.best) {
        Ok(built) => built,
        Err(error) => {
            let _ = ready.send(Err(io::Error::new(error.kind(), error.to_string())));
            return Err(error);
        }
    };
    let mut result = Ok(());
    driver.block_on(async {
        result = match Worker::new(parts, rung) {
            Ok((worker, orders)) => {
                let _ = ready.send(Ok(rung));
                worker.work(orders).await;
                Ok(())
            }
            Err(error) => {
                let _ = ready.send(Err(io::Error::new(error.kind(), error.to_string())));
                Err(error)
            }
        };
    });
    result
}

/// One core at work. Cheap to share within its thread.
struct Worker {
    id: WorkerId,
    io: RingIo,
    post: Post<RingIo, RingFiles>,
    rung: Rung,
    berths: Arc<Berths>,
    /// What its part of the spool is opened by, once there is one.
    spool: RefCell<Arc<spool::Config>>,
    admission: Arc<Admission>,
    banned: Arc<Banned>,
    listening: Vec<RawFd>,
    sessions: Cell<u64>,
    sessions_open: Cell<u64>,
}

impl Worker {
    fn new(parts: Parts, rung: Rung) -> io::Result<(Rc<Self>, flume::Receiver<Order>)> {
        let io = RingIo::new(parts.started_ms ^ u64::from(parts.id.0) << 48);
        let (admission, banned) = (Arc::clone(&parts.shared.admission), Arc::clone(&parts.shared.banned));
        let (berths, spool) = (Arc::clone(&parts.shared.berths), Arc::clone(&parts.settings.spool));
        let kit = Kit {
            id: parts.id,
            workers: parts.workers,
            settings: parts.settings,
            shared: parts.shared,
            look_ups: parts.look_ups,
            started_ms: parts.started_ms,
            clock: clock::now,
        };
        let post = Post::new(io.clone(), kit);
        post.meter.borrow_mut().io_driver[label_of(rung)] = 1;
        let worker = Rc::new(Self {
            id: parts.id,
            io,
            post,
            rung,
            berths,
            spool: RefCell::new(spool),
            admission,
            banned,
            listening: parts.listeners.iter().map(|(_, listener)| listener.as_raw_fd()).collect(),
            sessions: Cell::new(0),
            sessions_open: Cell::new(0),
        });
        worker.open_spool()?;
        for (kind, listener) in parts.listeners {
            // epoll needs it; a ring would answer EAGAIN instead of waiting.
            listener.set_nonblocking(rung == Rung::Epoll)?;
            worker.listen(kind, listener)?;
        }
        Ok((worker, parts.orders))
    }

    /// Opens its part of the spool, where one was taken over for it.
    fn open_spool(&self) -> io::Result<()> {
        if self.post.delivery().is_some() || !self.berths.has_for(self.id) {
            return Ok(());
        }
        // What may fail comes first: the berth is there for the next reload then.
        let files = if self.rung == Rung::Epoll { RingFiles::on_threads() } else { RingFiles::on_ring() }?;
        if let Some(shard) = self.berths.take(self.id) {
            self.post.open_spool(files, shard, Arc::clone(&self.spool.borrow()));
        }
        Ok(())
    }

    fn listen(self: &Rc<Self>, kind: Listener, listener: TcpListener) -> io::Result<()> {
        let listener = Rc::new(monoio::net::TcpListener::from_std(listener)?);
        let worker = Rc::clone(self);
        self.io.spawn(async move {
            let serve = |stream, peer| worker.admit(kind, stream, peer);
            worker.io.accept_all(listener, serve).await;
        });
        Ok(())
    }

    /// Answers orders and looks after deadlines, until it is drained.
    async fn work(self: Rc<Self>, orders: flume::Receiver<Order>) {
        let ticking = Rc::clone(&self);
        self.io.spawn(async move {
            loop {
                ticking.io.sleep(TICK).await;
                ticking.tick();
            }
        });
        while let Ok(order) = orders.recv_async().await {
            match order {
                Order::Snapshot(answer) => {
                    let _ = answer.send(Box::new(self.post.snapshot()));
                }
                Order::Reload(settings, answer) => {
                    let _ = answer.send(self.reload(settings));
                }
                Order::Queue(order) => match self.post.delivery() {
                    Some(delivery) => delivery.obey(order),
                    // Without a spool nothing is ever queued.
                    None => drop(order.lines.try_send(Line::End(Tally::default()))),
                },
                Order::Flush(answer) => {
                    let messages = self.post.delivery().map_or(0, |delivery| delivery.flush());
                    let _ = answer.send(messages);
                }
                Order::Drain { within, done } => {
                    let _ = done.send(self.drain(within).await);
                    return;
                }
            }
        }
    }

    fn reload(&self, settings: Settings) -> Result<(), String> {
        self.spool.replace(Arc::clone(&settings.spool));
        self.open_spool().map_err(|error| format!("STATE_DIR: {error}"))?;
        self.post.reload(settings)
    }

    fn tick(&self) {
        self.io.expire();
        // There is one at last, if it was awaited. What fails now is tried again with the next tick.
        let _ = self.open_spool();
        self.post.tick();
        if self.post.ingress.is_draining() {
            self.io.interrupt();
        }
    }

    /// No new connection, no new transaction; open ones may end within the time (RFC 5321 §3.8).
    async fn drain(&self, within: Duration) -> Drained {
        let by = self.io.now().after(within);
        self.listening.iter().for_each(|&listener| stop_accepting(listener));
        self.post.ingress.drain();
        self.io.interrupt();
        while self.sessions_open.get() > 0 && self.io.now() < by {
            self.io.sleep(DRAIN_LOOK).await;
        }
        self.post.close(by).await;
        Drained { sessions_cut: self.sessions_open.get() }
    }

    fn admit(self: &Rc<Self>, listener: Listener, stream: RingStream, socket: SocketAddr) {
        if self.banned.holds(socket.ip()) {
            // Closed without a banner: the gate would not even have let it connect.
            self.post.meter.borrow_mut().sessions[listener][SessionOutcome::Refused] += 1;
            return;
        }
        let (process_max, client_max) = {
            let config = self.post.ingress.config();
            (config.sessions_max, config.sessions_per_client_max)
        };
        let admitted = self.admission.admit(socket.ip(), process_max, client_max);
        self.sessions_open.set(self.sessions_open.get() + 1);
        self.post.meter.borrow_mut().sessions_open[listener] += 1;
        let worker = Rc::clone(self);
        self.io.spawn(async move {
            let outcome = match admitted {
                Ok(admitted) => worker.serve(listener, stream, socket, admitted).await,
                // Plain text would be no reply to a client that waits for a handshake.
                Err(_) if listener == Listener::Submissions => SessionOutcome::Refused,
                Err(full) => refuse(&worker.io, stream, full).await,
            };
            worker.sessions_open.set(worker.sessions_open.get() - 1);
            let mut meter = worker.post.meter.borrow_mut();
            meter.sessions_open[listener] -= 1;
            meter.sessions[listener][outcome] += 1;
        });
    }

    async fn serve(
        self: &Rc<Self>,
        listener: Listener,
        mut stream: RingStream,
        socket: SocketAddr,
        _admitted: Admitted,
    ) -> SessionOutcome {
        let mut peer = Peer { listener, socket, client: socket };
        let mut input = Bytes::new();
        let is_proxy = self.post.ingress.config().proxy_protocol.contains(socket.ip());
        if is_proxy {
            let by = self.io.now().after(PROXY_HEADER_TIMEOUT);
            match Box::pin(read_proxy_header(&mut stream, by)).await {
                Some((client, rest)) => {
                    peer.client = client.unwrap_or(socket);
                    input = rest;
                }
                None => return SessionOutcome::Abuse,
            }
        }
        if is_proxy && self.banned.holds(peer.client.ip()) {
            return SessionOutcome::Refused;
        }
        if listener != Listener::Smtp && !self.may_submit(&peer) {
            return SessionOutcome::Refused;
        }
        self.sessions.set(self.sessions.get() + 1);
        let id = SessionId { worker: self.id, number: self.sessions.get() };
        self.post.session(self.post.sink(), stream, peer, id, input).serve().await
    }

    /// Who may not reach 465 and 587 at all is closed without a banner, as the gate would have done.
    fn may_submit(&self, peer: &Peer) -> bool {
        let config = self.post.ingress.config();
        [peer.client, peer.socket].iter().all(|address| config.submission_networks.contains(address.ip()))
    }
}

fn label_of(rung: Rung) -> IoDriver {
    match rung {
        Rung::DeferTaskrun => IoDriver::DeferTaskrun,
        Rung::CoopTaskrun => IoDriver::CoopTaskrun,
        Rung::Plain => IoDriver::Plain,
        Rung::Epoll => IoDriver::Epoll,
    }
}

/// How often a draining worker looks whether its sessions have ended.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

async fn refuse(io: &RingIo, mut stream: RingStream, full: Full) -> SessionOutcome {
    let mut replies = ReplyBuf::new();
    replies.push(match full {
        Full::Process => &reply::TOO_MANY_SESSIONS,
        Full::Client => &reply::TOO_MANY_SESSIONS_FROM_CLIENT,
    });
    let _ = stream.send_octets(replies.take(), io.now().after(REPLY_TIMEOUT)).await;
    SessionOutcome::Refused
}

/// The client that a PROXY header names (`None`: the peer itself), and what was read behind the header.
async fn read_proxy_header(stream: &mut RingStream, by: Moment) -> Option<(Option<SocketAddr>, Bytes)> {
    let mut buffer = Buffer::take(Size::Command);
    loop {
        let result;
        (result, buffer) = stream.receive(buffer, by).await;
        if result.ok()? == 0 {
            return None;
        }
        match proxy::read(buffer.filled()) {
            proxy::Header::Partial => {}
            proxy::Header::Invalid => return None,
            proxy::Header::Whole { octets, client } => {
                return Some((client, buffer.freeze().slice(octets..)));
            }
        }
    }
}
