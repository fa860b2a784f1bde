//! Plays one scene: the real inbound and outbound side of a worker between simulated clients and upstreams.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringpost::egress::permit::PermitBook;
use ringpost::egress::stream::UpstreamStream;
use ringpost::egress::{self, Egress};
use ringpost::envelope::Peer;
use ringpost::ingress::session::Session;
use ringpost::ingress::sink::Sink;
use ringpost::ingress::{self, Ingress};
use ringpost::io::Io;
use ringpost::io::sim::{Faults, SimStream, World};
use ringpost::limits::TICK;
use ringpost::meter::{Listener, Upstreams};
use ringpost::policy::acl::{AddressList, Networks};
use ringpost::resolve::{self, Resolver};
use ringpost::smtp::body::BareNewline;
use ringpost::units::{Moment, Octets, QueueIds, SessionId, WorkerId};

use crate::client::visit;
use crate::dice::Dice;
use crate::ledger::{Ledger, Tally, Terms};
use crate::mail::{HOPS_MAX, Mail, SIZE_MAX};
use crate::plan::Plan;
use crate::upstream::Upstream;

/// What came of a scene.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Course {
    pub(crate) wrongs: Vec<String>,
    pub(crate) tally: Tally,
    pub(crate) ended: Moment,
}

/// Everything that follows from a seed.
struct Scene {
    faults: Faults,
    plans: Vec<Rc<Plan>>,
    egress: egress::Config,
    clients: Vec<VecDeque<Rc<Mail>>>,
}

/// Plays the scene of a seed with this sink around the real one.
pub(crate) fn play<S: Sink + 'static>(
    seed: u64,
    wrap: impl Fn(UpstreamStream<World>) -> S + 'static,
) -> Course {
    let dice = Dice::new(seed);
    let scene = Scene::roll(&dice);
    let world = World::new(seed, scene.faults);
    let ledger = Rc::new(RefCell::new(Ledger::new(Terms {
        loses_replies: scene.faults.resets_permille > 0,
        delays: scene.faults.delay_micros_max > 0,
        returns_8bit: scene.egress.eightbit == egress::EightBit::Bounce,
    })));
    set_up_upstreams(&world, &scene, &dice, &ledger);
    let relay = Relay::new(&world, scene.egress.clone());
    relay.listen(wrap);
    relay.tick(&ledger);
    let acting = act(relay.clone(), scene, dice, Rc::clone(&ledger));
    let has_ended = world.run(Moment(0).after(PLAY_MAX), acting).is_some();
    let ended = world.now();
    world.end();
    let (mut wrongs, tally) = ledger.borrow().judge();
    if !has_ended {
        wrongs.push("the scene never ended".to_owned());
    }
    Course { wrongs, tally, ended }
}

impl Scene {
    fn roll(dice: &Dice) -> Self {
        let still = Faults { delay_micros_max: 0, ..Faults::NONE };
        let faults = dice.pick(&[still, still, Faults::NONE, Faults::CUTS, Faults::BREAKS]);
        let plans: Vec<_> = (0..1 + dice.below(2)).map(|_| Rc::new(Plan::roll(dice))).collect();
        let egress = egress_config(dice, plans.len());
        let key = Cell::new(0);
        let mail = || {
            key.set(key.get() + 1);
            Rc::new(Mail::roll(key.get(), dice))
        };
        let clients =
            (0..1 + dice.below(6)).map(|_| (0..1 + dice.below(4)).map(|_| mail()).collect()).collect();
        Self { faults, plans, egress, clients }
    }
}

fn set_up_upstreams(world: &World, scene: &Scene, dice: &Dice, ledger: &Rc<RefCell<Ledger>>) {
    for (at, plan) in scene.plans.iter().enumerate() {
        let (plan, dice, ledger, host) = (Rc::clone(plan), dice.clone(), Rc::clone(ledger), world.clone());
        let serve = move |stream: SimStream| {
            let (plan, dice, ledger) = (Rc::clone(&plan), dice.clone(), Rc::clone(&ledger));
            host.spawn(Upstream::new(host.clone(), stream, plan, dice, ledger, Rc::new(|_| {})).serve());
        };
        // Sometimes an upstream of several is not there.
        if at + 1 == scene.plans.len() || !scene.plans[at].trouble_permille.is_multiple_of(50) {
            world.listen(upstream_address(at), serve);
        }
    }
}

/// The clients do what they came for; when all are gone the relay must come to rest.
async fn act(relay: Relay, scene: Scene, dice: Dice, ledger: Rc<RefCell<Ledger>>) {
    let left = Rc::new(Cell::new(scene.clients.len()));
    for mut mails in scene.clients {
        let (world, dice, ledger, left) =
            (relay.world.clone(), dice.clone(), Rc::clone(&ledger), Rc::clone(&left));
        let wait = Duration::from_millis(dice.pick(&[0, 0, 10, 3_000]));
        relay.world.spawn(async move {
            world.sleep(wait).await;
            visit(world, RELAY, &mut mails, dice, ledger).await;
            left.set(left.get() - 1);
        });
    }
    while left.get() > 0 {
        relay.world.sleep(TICK).await;
    }
    // A session without a client may still wait for an upstream's verdict, and a pool keeps connections for a while.
    let by = relay.world.now().after(REST);
    while relay.open() != (0, 0, 0) && relay.world.now() < by {
        relay.world.sleep(TICK).await;
    }
    let (idle, busy, sessions) = relay.open();
    if (idle, busy, sessions) != (0, 0, 0) {
        ledger.borrow_mut().wrong(format!("at rest: {idle} idle, {busy} busy, {sessions} sessions"));
    }
}

/// One worker, as `worker` ties it together.
#[derive(Clone)]
struct Relay {
    world: World,
    ingress: Rc<Ingress<World>>,
    egress: Rc<Egress<World>>,
    sessions: Rc<Cell<u64>>,
}

impl Relay {
    fn new(world: &World, config: egress::Config) -> Self {
        let ingress = Ingress::new(
            world.clone(),
            Arc::new(ingress_config()),
            Rc::default(),
            Rc::new(RefCell::new(QueueIds::new(world.unix_ms(), WorkerId(0)))),
            Arc::default(),
        );
        let resolver = Resolver::new(resolve::channel().0);
        let egress = Egress::new(world.clone(), Arc::new(config), Arc::new(PermitBook::default()), resolver);
        Self {
            world: world.clone(),
            ingress: Rc::new(ingress),
            egress: Rc::new(egress),
            sessions: Rc::default(),
        }
    }

    fn listen<S: Sink + 'static>(&self, wrap: impl Fn(UpstreamStream<World>) -> S + 'static) {
        let relay = self.clone();
        let number = Cell::new(0);
        self.world.listen(RELAY, move |stream| {
            number.set(number.get() + 1);
            let id = SessionId { worker: WorkerId(0), number: number.get() };
            let peer = Peer { listener: Listener::Smtp, socket: CLIENT, client: CLIENT };
            let sink = wrap(UpstreamStream::new(Rc::clone(&relay.egress)));
            let mut session = Session::new(Rc::clone(&relay.ingress), stream, sink, peer, id, Bytes::new());
            let sessions = Rc::clone(&relay.sessions);
            sessions.set(sessions.get() + 1);
            relay.world.spawn(async move {
                session.serve().await;
                sessions.set(sessions.get() - 1);
            });
        });
    }

    /// What a worker does every tick; and never are there more connections than permitted.
    fn tick(&self, ledger: &Rc<RefCell<Ledger>>) {
        let (relay, ledger) = (self.clone(), Rc::clone(ledger));
        let most = u64::from(relay.egress.config().upstream_connections);
        self.world.spawn(async move {
            loop {
                relay.world.sleep(TICK).await;
                relay.egress.tick();
                let mut upstreams = Upstreams::default();
                relay.egress.read_into(&mut upstreams);
                if upstreams.listed().any(|upstream| upstream.idle + upstream.busy > most) {
                    ledger.borrow_mut().wrong("more connections than UPSTREAM_CONNECTIONS");
                }
            }
        });
    }

    /// Idle connections, busy ones, and sessions.
    fn open(&self) -> (u64, u64, u64) {
        let mut upstreams = Upstreams::default();
        self.egress.read_into(&mut upstreams);
        let none = (0, 0, self.sessions.get());
        upstreams
            .listed()
            .fold(none, |(idle, busy, sessions), one| (idle + one.idle, busy + one.busy, sessions))
    }
}

/// The outbound side of a scene, with so many upstreams.
pub(crate) fn egress_config(dice: &Dice, upstreams: usize) -> egress::Config {
    let addresses = (0..upstreams).map(upstream_address);
    let next_hop = egress::NextHop::Upstreams(
        addresses
            .map(|address| egress::UpstreamAddress {
                host: egress::UpstreamHost::Address(address.ip()),
                port: address.port(),
            })
            .collect(),
    );
    egress::Config {
        relay_host_name: "relay.test".into(),
        next_hop,
        login: None,
        mechanism: None,
        delivery_patience: egress::Patience::Forever,
        upstream_connections: 1 + u32::try_from(dice.below(4)).unwrap_or(0),
        upstream_idle: Duration::from_secs(30),
        upstream_messages_per_connection: dice.pick(&[1, 2, 1000]),
        upstream_rate: None,
        eightbit: dice.pick(&[egress::EightBit::Bounce, egress::EightBit::Pass]),
        dns_servers: Vec::new(),
        mta_sts: false,
        dns_trust_anchors: None,
        dkim: None,
    }
}

/// The inbound side of every scene.
pub(crate) fn ingress_config() -> ingress::Config {
    let inside = Networks::new("198.18.0.0/15".parse());
    ingress::Config {
        relay_host_name: "mx.example".into(),
        listen_smtp: Vec::new(),
        listen_submission: Vec::new(),
        listen_submissions: Vec::new(),
        accepted_networks: inside.clone(),
        submission_networks: inside,
        proxy_protocol: Networks::default(),
        message_size_max: Octets(SIZE_MAX as u64),
        recipients_max: 1000,
        sessions_max: 1000,
        sessions_per_client_max: 1000,
        client_rate: None,
        command_timeout: Duration::from_secs(30),
        data_timeout: Duration::from_secs(30),
        session_min_rate: 0,
        hops_max: u32::try_from(HOPS_MAX).unwrap_or(0),
        bare_newline: BareNewline::Normalize,
        allowed_senders: AddressList::default(),
        denied_senders: AddressList::default(),
        allowed_recipients: AddressList::default(),
        denied_recipients: AddressList::default(),
        logins: Vec::new(),
        mail_from_fqdn: None,
        always_bcc: Vec::new(),
    }
}

/// Where an upstream listens.
pub(crate) fn upstream_address(at: usize) -> SocketAddr {
    SocketAddr::from(([198, 18, 1, u8::try_from(at).unwrap_or(0)], 25))
}

pub(crate) const RELAY: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 1)), 25);
pub(crate) const CLIENT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 18, 0, 9)), 4711);
/// Longest time that a scene may take, in its own time.
const PLAY_MAX: Duration = Duration::from_secs(48 * 3600);
/// After that much time without clients nothing may be open.
const REST: Duration = Duration::from_secs(2 * 3600);
