//! The gate at work: what is loaded, attached, published and banned, behind one lock on the control plane.
//!
//! Order: the table is published before the first program is attached, so that none ever runs without lists. A
//! failure to publish keeps the old table; a failure to attach keeps all other interfaces.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use ringpost_ebpf::abi::{self, Class, VERDICTS};
use ringpost_ebpf::compile::{Table, bits_of_address};
use ringpost_ebpf::verdict::{Flow, Kernel, judge_flow};

use super::advice::AttachMode;
use super::banned::Banned;
use super::config::{Action, Config, Mode, Wanted};
use super::drops::Drops;
use super::error::GateError;
use super::host::{Choice, Host, Interface};
use super::link::Link;
use super::lists::{self, Lists, Numbers};
use super::loaded::{Entry, LoadError, Loaded};
use super::status::{Explained, InterfaceCounters, InterfaceStatus, NetworkCounter, Status};
use super::{clock, netlink};
use crate::limits::GATE_SAMPLES_PER_TICK;

/// Everything of a gate that stands.
pub(super) struct State {
    loaded: Loaded,
    config: Config,
    lists: Lists,
    numbers: Numbers,
    table: Table,
    generation: u64,
    host: Host,
    attached: Vec<Attached>,
    /// Interfaces that did not take the program, as they were then: tried again when they change.
    failed: HashMap<Interface, GateError>,
    /// Counts of attachments that are gone, by interface.
    past: HashMap<String, [u64; VERDICTS]>,
    bans: Arc<Banned>,
    drops: Drops,
    samples: u64,
}

/// The program on one interface.
struct Attached {
    interface: Interface,
    mode: AttachMode,
    entry: Entry,
    /// What the interface's slot of the counters held when the program came there.
    base: [u64; VERDICTS],
    _link: Link,
}

impl State {
    /// Loads the object and publishes the first table. Nothing is attached yet.
    pub(super) fn load(
        object: &[u8],
        config: Config,
        lists: Lists,
        bans: Arc<Banned>,
    ) -> Result<Self, GateError> {
        let host = netlink::host().map_err(GateError::Host)?;
        let mut state = Self {
            loaded: Loaded::new(object)?,
            numbers: Numbers::default(),
            table: Table::compile(&lists::plan(&Lists::default(), &config, &[], &mut Numbers::default(), 0))
                .map_err(GateError::Lists)?,
            generation: 0,
            attached: Vec::new(),
            failed: HashMap::new(),
            past: HashMap::new(),
            bans,
            drops: Drops::default(),
            samples: 0,
            config,
            lists,
            host,
        };
        state.publish()?;
        state.tick()?;
        Ok(state)
    }

    /// Compiles the lists and swaps them in. On an error the table before stays in force.
    fn publish(&mut self) -> Result<(), GateError> {
        let own = self.host.own_addresses();
        let generation = self.generation + 1;
        let plan = lists::plan(&self.lists, &self.config, &own, &mut self.numbers, generation);
        let table = Table::compile(&plan).map_err(GateError::Lists)?;
        for number in self.numbers.take_reused() {
            self.loaded.clear_network(u32::from(number))?;
        }
        self.loaded.publish(&table)?;
        self.table = table;
        self.generation = generation;
        Ok(())
    }

    /// New lists, action and rate, as a whole. On an error the old ones stay.
    pub(super) fn replace(&mut self, config: Config, lists: Lists) -> Result<(), GateError> {
        let before = (std::mem::replace(&mut self.config, config), std::mem::replace(&mut self.lists, lists));
        if let Err(error) = self.publish() {
            (self.config, self.lists) = before;
            return Err(error);
        }
        self.failed.clear();
        self.attach_all();
        match self.config.wanted {
            Wanted::Require => self.take_failure().map_or(Ok(()), |failure| self.go_back(before, failure)),
            Wanted::Auto | Wanted::Off => Ok(()),
        }
    }

    /// A configuration that requires more than can be had is taken back as a whole.
    fn go_back(&mut self, before: (Config, Lists), failure: GateError) -> Result<(), GateError> {
        (self.config, self.lists) = before;
        self.publish()?;
        self.failed.clear();
        self.attach_all();
        Err(failure)
    }

    /// Where the program is to be; nowhere while `XDP=off`.
    fn choice(&self) -> Choice {
        match self.config.wanted {
            Wanted::Off => Choice::default(),
            Wanted::Auto | Wanted::Require => self.host.choose(&self.config.interfaces, &self.listeners()),
        }
    }

    /// Looks at the host anew: interfaces that came, went or were made again, and addresses.
    pub(super) fn look_around(&mut self) -> Result<(), GateError> {
        let host = netlink::host().map_err(GateError::Host)?;
        if host == self.host {
            return Ok(());
        }
        let own = std::mem::replace(&mut self.host, host).own_addresses();
        self.attach_all();
        if own == self.host.own_addresses() { Ok(()) } else { self.publish() }
    }

    /// Attaches where the program should be and is not, and takes it off where it should not be any more.
    pub(super) fn attach_all(&mut self) {
        let choice = self.choice();
        let is_wanted = |on: &Attached| {
            let same = |it: &&Interface| it.index == on.interface.index && it.name == on.interface.name;
            choice.interfaces.iter().any(|it| same(&it) && modes(&self.config, it).contains(&on.mode))
        };
        let (stay, leave) = std::mem::take(&mut self.attached).into_iter().partition(is_wanted);
        self.attached = stay;
        for gone in leave {
            let counted = self.counted(&gone);
            tracing::info!(event = "gate_detached", interface = gone.interface.name.as_str());
            self.past.insert(gone.interface.name, counted);
        }
        self.failed.retain(|interface, _| choice.interfaces.contains(interface));
        for interface in choice.interfaces {
            let is_there = self.attached.iter().any(|on| on.interface.index == interface.index);
            if is_there || self.failed.contains_key(&interface) {
                continue;
            }
            match self.attach(&interface) {
                Ok(attached) => {
                    self.log_attached(&attached);
                    self.attached.push(attached);
                }
                Err(error) => {
                    tracing::warn!(event = "gate_refused", reason = %error);
                    self.failed.insert(interface, error);
                }
            }
        }
    }

    /// Whether the program is on some interface.
    pub(super) fn is_attached(&self) -> bool {
        !self.attached.is_empty()
    }

    /// The lines of the daemon's start: where the program is. Later ones are logged as they come.
    pub(super) fn log_all_attached(&self) {
        self.attached.iter().for_each(|attached| self.log_attached(attached));
    }

    fn log_attached(&self, attached: &Attached) {
        tracing::info!(
            event = "gate_attached",
            interface = attached.interface.name.as_str(),
            mode = attached.mode.word(),
            program = self.program_of(attached),
        );
    }

    fn program_of(&self, on: &Attached) -> u32 {
        self.loaded.program(on.entry).map_or(0, Loaded::id_of)
    }

    fn listeners(&self) -> Vec<SocketAddr> {
        self.lists.listeners().map(|(address, _)| address).collect()
    }

    /// Attaches in the first way that works: native before generic, one buffer before several where frames fit
    /// one. Another program on the interface ends the attempts: it would refuse them all.
    fn attach(&self, interface: &Interface) -> Result<Attached, GateError> {
        let base = self.loaded.counters(interface.index)?;
        let fits = interface.mtu <= STANDARD_MTU;
        let entries = if fits { [Entry::Linear, Entry::Frags] } else { [Entry::Frags, Entry::Linear] };
        let mut refused = GateError::NoInterface;
        for mode in modes(&self.config, interface) {
            for entry in entries {
                let Ok(program) = self.loaded.program(entry).and_then(Loaded::fd_of) else { continue };
                match Link::attach(program.as_fd(), interface.index, *mode) {
                    Ok(link) => {
                        let interface = interface.clone();
                        return Ok(Attached { interface, mode: *mode, entry, base, _link: link });
                    }
                    Err(error) => {
                        let ends =
                            matches!(error.raw_os_error(), Some(libc::EBUSY | libc::EEXIST | libc::EPERM));
                        refused = GateError::Attach { interface: interface.name.clone(), mode: *mode, error };
                        if ends {
                            return Err(refused);
                        }
                    }
                }
            }
        }
        Err(refused)
    }

    /// The first thing that keeps the gate from standing everywhere it should: what `XDP=require` does not bear.
    pub(super) fn take_failure(&mut self) -> Option<GateError> {
        let choice = self.choice();
        if !self.config.interfaces.is_empty()
            && let Some(refused) = choice.refused.into_iter().next()
        {
            return Some(GateError::Refused(refused));
        }
        let failed = self.failed.keys().next().cloned();
        match failed.and_then(|interface| self.failed.remove(&interface)) {
            None if self.attached.is_empty() => Some(GateError::NoInterface),
            failure => failure,
        }
    }

    /// Takes in samples, grants new ones, ends bans. Every [`GATE_TICK`](crate::limits::GATE_TICK).
    pub(super) fn tick(&mut self) -> Result<(), LoadError> {
        self.take_samples();
        for source in self.bans.change(|bans| bans.expire(clock::monotonic_ns())) {
            self.forget(source);
        }
        self.samples += GATE_SAMPLES_PER_TICK;
        self.set_switches()
    }

    /// Takes in what the kernel has sampled so far.
    pub(super) fn take_samples(&mut self) {
        while let Some(event) = self.loaded.take_drop() {
            self.drops.take(&event);
        }
    }

    fn set_switches(&mut self) -> Result<(), LoadError> {
        let bans = self.bans.read().len() as u64;
        self.loaded.set_switches(abi::Switches { bans, samples: self.samples })
    }

    /// Bans a source, from its next packet on.
    pub(super) fn ban(&mut self, source: IpAddr, lasting: Duration) -> Result<(), LoadError> {
        let now_ns = clock::monotonic_ns();
        let (ends_ns, evicted) = self.bans.change(|bans| bans.ban(source, now_ns, lasting));
        if let Some(evicted) = evicted {
            self.forget(evicted);
        }
        if let Err(error) = self.loaded.ban(bits_of_address(source), ends_ns) {
            self.bans.change(|bans| bans.unban(source));
            return Err(error);
        }
        self.set_switches()
    }

    /// Lifts a ban. Whether there was one.
    pub(super) fn unban(&mut self, source: IpAddr) -> Result<bool, LoadError> {
        let stood = self.bans.change(|bans| bans.unban(source));
        self.forget(source);
        self.set_switches()?;
        Ok(stood)
    }

    /// Takes a source out of the kernel's copy; one that is not there is out of it already.
    fn forget(&mut self, source: IpAddr) {
        self.loaded.unban(bits_of_address(source));
    }

    pub(super) fn drops(&self) -> &Drops {
        &self.drops
    }

    /// Packets of an attachment since the daemon started, those of earlier ones of the same name too.
    fn counted(&self, on: &Attached) -> [u64; VERDICTS] {
        let now = self.loaded.counters(on.interface.index).unwrap_or(on.base);
        let mut packets = self.past.get(&on.interface.name).copied().unwrap_or_default();
        for ((packets, now), base) in packets.iter_mut().zip(now).zip(on.base) {
            *packets += now.saturating_sub(base);
        }
        packets
    }

    pub(super) fn counters(&self) -> Vec<InterfaceCounters> {
        let here = self.attached.iter().map(|on| InterfaceCounters {
            interface: on.interface.name.clone(),
            mode: Some(on.mode),
            packets: self.counted(on),
        });
        let is_gone = |name: &&String| !self.attached.iter().any(|on| on.interface.name == **name);
        let gone = self.past.keys().filter(is_gone).map(|name| InterfaceCounters {
            interface: name.clone(),
            mode: None,
            packets: self.past[name],
        });
        here.chain(gone).collect()
    }

    pub(super) fn networks(&self) -> Vec<NetworkCounter> {
        let mut order: Vec<IpNet> = Vec::new();
        let mut classes: HashMap<IpNet, Vec<Class>> = HashMap::new();
        for (class, net) in self.lists.networks() {
            let of_net = classes.entry(net).or_default();
            if of_net.is_empty() {
                order.push(net);
            }
            if !of_net.contains(&class) {
                of_net.push(class);
            }
        }
        let counter = |network: IpNet| NetworkCounter {
            packets: self.loaded.network_packets(u32::from(self.numbers.of(&network))).unwrap_or(0),
            classes: classes.remove(&network).unwrap_or_default(),
            network,
        };
        order.into_iter().map(counter).collect()
    }

    pub(super) fn status(&self) -> Status {
        let interfaces = self.attached.iter().map(|on| InterfaceStatus {
            interface: on.interface.name.clone(),
            mode: on.mode,
            program: self.program_of(on),
            takes_frags: on.entry == Entry::Frags,
            packets: self.counted(on),
        });
        Status {
            interfaces: interfaces.collect(),
            generation: self.generation,
            networks: self.lists.networks().count(),
            bans: self.bans.count(),
            notes: self.notes(),
        }
    }

    /// Where the gate does not stand, and what it may do that nobody wants.
    pub(super) fn notes(&self) -> Vec<String> {
        if self.config.wanted == Wanted::Off {
            return Vec::new();
        }
        let choice = self.choice();
        let is_nowhere = choice.interfaces.is_empty() && choice.refused.is_empty();
        let nowhere = is_nowhere.then(|| GateError::NoInterface.to_string());
        let refused = choice.refused;
        let refused = refused.iter().map(ToString::to_string);
        let failed = self.failed.values().map(ToString::to_string);
        let shared = self.attached.iter().filter(|on| self.shares_a_slot(on));
        let shared =
            shared.map(|on| format!("{}: counted together with another interface", on.interface.name));
        refused
            .chain(nowhere)
            .chain(failed)
            .chain(shared)
            .chain(lists::port_warnings(&self.lists, clock::ephemeral_ports().as_ref()))
            .collect()
    }

    fn shares_a_slot(&self, on: &Attached) -> bool {
        let slot = |on: &Attached| on.interface.index % abi::INTERFACES_MAX;
        self.attached.iter().filter(|other| slot(other) == slot(on)).count() > 1
    }

    /// What would become of a new connection from a source, by the same code that the kernel runs.
    pub(super) fn explain(&self, source: IpAddr, destination: SocketAddr) -> Explained {
        let now_ns = clock::monotonic_ns();
        let flow = Flow {
            source: bits_of_address(source),
            destination: bits_of_address(destination.ip()),
            source_port: 0,
            port: destination.port(),
            is_opening: true,
        };
        let ban = self.bans.read().ends_ns(source);
        match self.table.whole() {
            Ok(units) => {
                let outcome = judge_flow(&units, &flow, &OnHost { now_ns, ban });
                Explained { verdict: outcome.verdict, reason: outcome.refusal.map(|(reason, _)| reason) }
            }
            Err(_) => Explained { verdict: abi::Verdict::Other, reason: None },
        }
    }

    /// The name of the interface with this number; the number where it is gone.
    pub(super) fn interface_name(&self, index: u32) -> String {
        let named = self.host.interfaces.iter().find(|interface| interface.index == index);
        named.map_or_else(|| format!("#{index}"), |interface| interface.name.clone())
    }

    /// An address of this host that listens on the port, in the source's family.
    pub(super) fn listener_for(&self, source: IpAddr, port: u16) -> Option<SocketAddr> {
        let is_v4 = source.is_ipv4();
        let fits = |address: &SocketAddr| address.port() == port && address.is_ipv4() == is_v4;
        let listener = self.lists.listeners().map(|(address, _)| address).find(fits)?;
        if !listener.ip().is_unspecified() {
            return Some(listener);
        }
        let own = self.host.own_addresses().into_iter().find(|own| own.is_ipv4() == is_v4)?;
        Some(SocketAddr::new(own, port))
    }
}

/// The ways to attach, in the order they are tried.
///
/// A veth hands on what a native XDP_TX sends only where its other end runs XDP too, which a container's mostly does
/// not: resets would be lost there.
fn modes(config: &Config, interface: &Interface) -> &'static [AttachMode] {
    let is_veth = interface.kind.as_deref() == Some("veth");
    match config.mode {
        Mode::Auto if is_veth && config.action == Action::Reset => &[AttachMode::Generic],
        Mode::Auto => &[AttachMode::Native, AttachMode::Generic],
        Mode::Native => &[AttachMode::Native],
        Mode::Generic => &[AttachMode::Generic],
        Mode::Offload => &[AttachMode::Offload],
    }
}

/// Largest packet that every driver takes in one buffer.
const STANDARD_MTU: u32 = 1500;

/// The kernel's services for a flow that is only asked about: its source opened no connection yet.
struct OnHost {
    now_ns: u64,
    ban: Option<u64>,
}

impl Kernel for OnHost {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn ban_ends_ns(&self, _: &abi::Address) -> Option<u64> {
        self.ban
    }

    fn bucket_ns(&self, _: &abi::Address) -> Option<u64> {
        None
    }

    fn set_bucket_ns(&self, _: &abi::Address, _: u64) {}
}
