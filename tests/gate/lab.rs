//! Two network namespaces and a veth pair between them: `relay0` with the relay's addresses, `client0` with those of its
//! clients. A thread each, since a namespace is the thread's. Nothing of the machine's own network is touched.
#![allow(unsafe_code, reason = "unshare(2) is not in std")]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ringpost::gate::advice::AttachMode;
use ringpost::gate::config::{Action, Config, Mode, Wanted};
use ringpost::gate::link::Link;
use ringpost::gate::loaded::{Entry, Loaded};
use ringpost::gate::{Gate, GateError, Lists};
use ringpost::policy::acl::Networks;
use ringpost_tests::wait::PATIENCE;
use socket2::{Domain, Protocol, Socket, Type};

/// The relay's IPv4 address.
pub(crate) const RELAY: &str = "198.18.0.1";
/// The relay's IPv6 address.
pub(crate) const RELAY6: &str = "2001:db8::1";
/// A client in the accepted networks.
pub(crate) const FRIEND: &str = "198.18.1.2";
/// The same over IPv6.
pub(crate) const FRIEND6: &str = "2001:db8:1::2";
/// A client outside of them.
pub(crate) const STRANGER: &str = "198.18.9.9";
/// The same over IPv6.
pub(crate) const STRANGER6: &str = "2001:db8:9::9";
/// The relay's interface.
pub(crate) const INTERFACE: &str = "relay0";

/// The relay's side; the calling thread lives in its namespace from now on.
pub(crate) struct Lab {
    client: Client,
}

/// A thread in the clients' namespace that runs what it is given.
pub(crate) struct Client {
    work: Option<Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<JoinHandle<()>>,
}

impl Lab {
    /// Builds it, or tells why that cannot be.
    pub(crate) fn build() -> Result<Self, String> {
        unshare()?;
        ip(&["link", "set", "lo", "up"])?;
        let client = Client::start()?;
        let lab = Self { client };
        lab.link(1500)?;
        Ok(lab)
    }

    /// Makes the veth pair, with addresses on both ends and a packet size of `mtu`.
    pub(crate) fn link(&self, mtu: u32) -> Result<(), String> {
        let there = self.client.run(thread_id);
        let mtu = mtu.to_string();
        ip(&[
            "link", "add", INTERFACE, "mtu", &mtu, "type", "veth", "peer", "name", "client0", "mtu", &mtu,
            "netns", &there,
        ])?;
        ip(&["addr", "add", &format!("{RELAY}/15"), "dev", INTERFACE])?;
        ip(&["addr", "add", &format!("{RELAY6}/32"), "dev", INTERFACE, "nodad"])?;
        ip(&["link", "set", INTERFACE, "up"])?;
        self.client.run(|| {
            for (address, length) in [(FRIEND, 15), (STRANGER, 15), (FRIEND6, 32), (STRANGER6, 32)] {
                let address = format!("{address}/{length}");
                let nodad: &[&str] = if address.contains(':') { &["nodad"] } else { &[] };
                ip(&[&["addr", "add", &address, "dev", "client0"], nodad].concat())?;
            }
            ip(&["link", "set", "client0", "up"])?;
            Ok(())
        })
    }

    /// Puts a program that passes everything on the clients' end: veth takes what a native XDP_TX sends to it only
    /// where that end runs XDP too.
    pub(crate) fn with_xdp_on_both_ends(&self, object: &[u8]) -> impl Sized + use<> {
        let object = object.to_vec();
        self.client.run(move || {
            // Without a table the gate passes everything.
            let loaded = Loaded::new(&object).unwrap();
            let host = ringpost::gate::netlink::host().unwrap();
            let end = host.interfaces.iter().find(|interface| interface.name == "client0").unwrap();
            let program = loaded.program(Entry::Linear).and_then(Loaded::fd_of).unwrap();
            let link = Link::attach(program, end.index, AttachMode::Native).unwrap();
            (link, loaded)
        })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }
}

impl Client {
    fn start() -> Result<Self, String> {
        let (work, jobs) = channel::<Box<dyn FnOnce() + Send>>();
        let (ready, started) = channel();
        let thread = std::thread::spawn(move || {
            let entered = unshare().and_then(|()| ip(&["link", "set", "lo", "up"]));
            let failed = entered.is_err();
            if ready.send(entered).is_ok() && !failed {
                jobs.into_iter().for_each(|job| job());
            }
        });
        started.recv().map_err(|error| error.to_string())??;
        Ok(Self { work: Some(work), thread: Some(thread) })
    }

    /// Runs something in the clients' namespace and waits for its result.
    pub(crate) fn run<R: Send + 'static>(&self, job: impl FnOnce() -> R + Send + 'static) -> R {
        let (sender, result) = channel();
        let job = Box::new(move || drop(sender.send(job())));
        self.work.as_ref().expect("runs until dropped").send(job).expect("the thread runs");
        result.recv().expect("the job ended")
    }

    /// Connects from one address.
    pub(crate) fn connect(&self, from: &str, to: SocketAddr) -> std::io::Result<TcpStream> {
        let from: IpAddr = from.parse().expect("an address");
        self.run(move || {
            let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
            socket.bind(&SocketAddr::new(from, 0).into())?;
            socket.connect_timeout(&to.into(), PATIENCE)?;
            Ok(TcpStream::from(socket))
        })
    }

    /// Connects from one address and reads the greeting.
    pub(crate) fn greet(&self, from: &str, to: SocketAddr) -> std::io::Result<String> {
        let mut stream = self.connect(from, to)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut greeting = [0; 5];
        stream.read_exact(&mut greeting)?;
        Ok(String::from_utf8_lossy(&greeting).into_owned())
    }

    /// Puts a frame on the wire as it is.
    pub(crate) fn send(&self, frame: Vec<u8>) {
        self.run(move || {
            let host = ringpost::gate::netlink::host().unwrap();
            let end = host.interfaces.iter().find(|interface| interface.name == "client0").unwrap();
            let socket = Socket::new(Domain::PACKET, Type::RAW, None).expect("a socket");
            // SAFETY: zero is a value of this plain struct.
            let mut name: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
            name.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
            name.sll_ifindex = i32::try_from(end.index).unwrap();
            // SAFETY: the frame and the name outlive the call and are of the sizes given.
            let sent = unsafe {
                libc::sendto(
                    socket.as_raw_fd(),
                    frame.as_ptr().cast(),
                    frame.len(),
                    0,
                    (&raw const name).cast(),
                    u32::try_from(size_of_val(&name)).unwrap(),
                )
            };
            assert_eq!(usize::try_from(sent).ok(), Some(frame.len()), "{}", std::io::Error::last_os_error());
        });
    }

    /// Sends a SYN from one address and does not wait for an answer. The socket tells what became of it.
    pub(crate) fn knock(&self, from: &str, to: SocketAddr) -> Socket {
        let from: IpAddr = from.parse().expect("an address");
        self.run(move || {
            let socket =
                Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)).expect("a socket");
            socket.bind(&SocketAddr::new(from, 0).into()).expect("an address of this end");
            socket.set_nonblocking(true).expect("a flag");
            let begun = socket.connect(&to.into());
            assert!(begun.is_err_and(|error| error.raw_os_error() == Some(libc::EINPROGRESS)));
            socket
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.work = None;
        self.thread.take().map(JoinHandle::join);
    }
}

/// A server that greets everybody, on every address and a port of the kernel's choice.
pub(crate) struct Greeter {
    pub(crate) v4: SocketAddr,
    pub(crate) v6: SocketAddr,
}

impl Greeter {
    pub(crate) fn start() -> Self {
        Self::start_on(0)
    }

    /// On this port: one that the namespace has free.
    pub(crate) fn start_on(port: u16) -> Self {
        let serve = |on: &str, reached: &str| {
            let on: SocketAddr = format!("{on}:{port}").parse().expect("an address");
            let socket = Socket::new(Domain::for_address(on), Type::STREAM, None).expect("a socket");
            if on.is_ipv6() {
                socket.set_only_v6(true).expect("a flag");
            }
            socket.bind(&on.into()).and_then(|()| socket.listen(16)).expect("a free port");
            let listener = TcpListener::from(socket);
            let port = listener.local_addr().expect("a port").port();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    // One that went away meanwhile needs no greeting.
                    let _ = (&stream).write_all(b"220 \n");
                }
            });
            SocketAddr::new(reached.parse().expect("an address"), port)
        };
        Self { v4: serve("0.0.0.0", RELAY), v6: serve("[::]", RELAY6) }
    }

    /// The gate's lists for it: these networks may come.
    pub(crate) fn lists(&self, networks: &[&str]) -> Lists {
        let nets = networks.iter().map(|net| net.parse().expect("a network"));
        let wild = |address: SocketAddr| {
            let any = if address.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
            SocketAddr::new(any, address.port())
        };
        Lists {
            smtp: vec![wild(self.v4), wild(self.v6)],
            accepted_networks: Networks::new(nets),
            ..Lists::default()
        }
    }
}

/// Both friends.
pub(crate) const FRIENDS: &[&str] = &["198.18.1.0/24", "2001:db8:1::/48"];

/// A required gate that drops, in this mode.
pub(crate) fn config(mode: Mode) -> Config {
    Config {
        wanted: Wanted::Require,
        interfaces: Vec::new(),
        mode,
        action: Action::Drop,
        syn_rate: None,
        autoban: None,
    }
}

/// Starts a gate with the built object, in a thread of its own: the start gives up capabilities that the test needs
/// again.
pub(crate) fn start(object: &[u8], config: &Config, lists: Lists) -> Result<Gate, GateError> {
    let object = Some(object);
    std::thread::scope(|scope| {
        scope.spawn(move || Gate::start_with(object, config, lists)).join().expect("no panic")
    })
}

/// A gate that stands.
pub(crate) fn gate(object: &[u8], config: &Config, lists: Lists) -> Gate {
    start(object, config, lists).unwrap_or_else(|error| panic!("{error}"))
}

/// Looks again and again until `look` finds something: the kernel and the gate's thread cannot be waited on.
#[track_caller]
pub(crate) fn eventually<R>(what: &str, mut look: impl FnMut() -> Option<R>) -> R {
    let steps = PATIENCE.as_millis() / 5;
    for _ in 0..steps {
        if let Some(found) = look() {
            return found;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    panic!("{what}: not within {PATIENCE:?}");
}

/// The lab, or a return from the test with a visible reason.
#[macro_export]
macro_rules! lab {
    () => {
        match $crate::lab::Lab::build() {
            Ok(lab) => lab,
            Err(reason) => ringpost_tests::skip!("{reason}"),
        }
    };
}

fn unshare() -> Result<(), String> {
    // SAFETY: it only changes which network this thread sees.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } == 0 {
        return Ok(());
    }
    Err(format!("no network namespace: {}", std::io::Error::last_os_error()))
}

/// Leaves this thread with the capabilities of these numbers and no others.
pub(crate) fn keep_only(capabilities: &[u32]) {
    let set = capabilities.iter().fold(0u64, |set, number| set | 1 << number);
    let (low, high) = (u32::try_from(set & 0xffff_ffff).unwrap(), u32::try_from(set >> 32).unwrap());
    // Version 3, the calling thread; effective and permitted, nothing inheritable; low halves, high halves.
    let mut header = [0x2008_0522u32, 0];
    let data = [low, low, 0, high, high, 0];
    // SAFETY: both point to memory of the sizes that version 3 asks for.
    let done = unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), data.as_ptr()) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// Leaves what this thread starts with the capabilities of these numbers and no others, even as root.
pub(crate) fn bound_to(capabilities: &[u32]) {
    let last: u32 = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").unwrap().trim().parse().unwrap();
    for capability in (0..=last).filter(|capability| !capabilities.contains(capability)) {
        // SAFETY: numbers in, a number out.
        let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability), 0, 0, 0) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
}

fn thread_id() -> String {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::gettid() }.to_string()
}

/// Runs `ip` in the calling thread's namespace.
pub(crate) fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
