//! Writing the tables that the gate reads. Host only.
//!
//! A [`Plan`] is what the operator wants; [`Table`] is the units that [`crate::verdict`] walks. Compiling is pure and
//! repeatable: the same plan gives the same units. It never writes half a table: a plan that does not fit is
//! an error.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::abi::{
    Action, Address, CLASSES, CLASSES_MAX, Class, FREE, HEAD, PORTS, PORTS_MAX, RATE, UNITS, Unit,
};
use crate::packet::Family;
use crate::trie::{Key, NODE, NOTHING, STEPS_MAX, STRIDE_MAX, Shape};

/// What a table is to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Tells tables apart in `status`.
    pub generation: u64,
    /// What becomes of refused packets.
    pub action: Action,
    /// Bound of new connections of one source.
    pub syn_rate: Option<SynRate>,
    /// Where connections are taken.
    pub listeners: Vec<Listener>,
    /// Who may come to the listeners of a class. Loopback needs no entry.
    pub networks: Vec<(Class, Network)>,
}

/// One address and port of this host, with its class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// The address: never the unspecified one (the planner puts this host's addresses in its place).
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// Whose networks it serves.
    pub class: Class,
}

/// A network that may come, with the number of its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Any address in it; bits beyond `prefix` do not count.
    pub address: IpAddr,
    /// Bits that its addresses share: at most 32 or 128.
    pub prefix: u8,
    /// Its counter: the longest network that holds a source counts its packets.
    pub number: u32,
}

/// New connections that a source may open: one a `cost_ns`, after a burst that may run `burst_ns` ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SynRate {
    /// Nanoseconds that one connection costs; not 0.
    pub cost_ns: u64,
    /// Nanoseconds of connections that may be taken at once beyond the first.
    pub burst_ns: u64,
}

/// Why a plan cannot be compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompileError {
    /// More than [`PORTS_MAX`] distinct listen ports.
    TooManyPorts,
    /// The networks need more units than a table has: about 50,000 networks fit.
    TooManyNetworks,
    /// Networks nested so deeply that a look-up would take more than [`STEPS_MAX`] steps.
    TooDeep,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyPorts => write!(f, "more than {PORTS_MAX} distinct listen ports"),
            Self::TooManyNetworks => f.write_str("the networks do not fit the gate's table"),
            Self::TooDeep => f.write_str("the networks are nested too deeply for the gate"),
        }
    }
}

impl std::error::Error for CompileError {}

/// A compiled table: the units up to the last one in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    units: Vec<Unit>,
}

impl Table {
    /// Compiles a plan.
    ///
    /// # Errors
    /// Where the plan does not fit a table.
    pub fn compile(plan: &Plan) -> Result<Self, CompileError> {
        let mut writer = Writer { units: vec![[0; 4]; FREE] };
        let ports = ports_of(&plan.listeners);
        if ports.len() > PORTS_MAX {
            return Err(CompileError::TooManyPorts);
        }
        let mask = ports.iter().fold(0u64, |mask, port| mask | 1 << (port & 63));
        let shape = plan.action as u64 | (ports.len() as u64) << 8;
        writer.units[HEAD] = [mask, plan.generation, shape, 0];
        if let Some(rate) = plan.syn_rate {
            writer.units[RATE] = [rate.cost_ns, rate.burst_ns, 0, 0];
        }
        for (at, port) in ports.iter().enumerate() {
            let roots = writer.roots(|family| addresses(&plan.listeners, *port, family))?;
            writer.units[PORTS + at] = [u64::from(*port), roots, 0, 0];
        }
        for class in [Class::Smtp, Class::Submission] {
            let roots = writer.roots(|family| prefixes(&plan.networks, class, family))?;
            writer.units[CLASSES][class as usize] = roots;
        }
        Ok(Self { units: writer.units })
    }

    /// The units, from the first; those behind the last are all zero.
    #[must_use]
    pub fn units(&self) -> &[Unit] {
        &self.units
    }
}

const _: () = assert!((Class::Submission as usize) < CLASSES_MAX);

/// The key and family of an address. An IPv4-mapped IPv6 address is its IPv4 address.
#[must_use]
pub fn key_of(address: IpAddr) -> (Family, Key) {
    match address {
        IpAddr::V4(v4) => (Family::V4, Key::v4(v4.to_bits())),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => (Family::V4, Key::v4(v4.to_bits())),
            None => {
                let bits = v6.to_bits();
                (Family::V6, Key { high: (bits >> 64) as u64, low: bits as u64 })
            }
        },
    }
}

/// The address that a map's key or an event stands for: the inverse of [`bits_of_address`].
#[must_use]
pub fn address_of(source: Address) -> IpAddr {
    let v6 = Ipv6Addr::from_bits(u128::from(source[0]) << 64 | u128::from(source[1]));
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), |v4: Ipv4Addr| IpAddr::V4(v4))
}

/// An address as a map's key, an event or a flow holds it.
#[must_use]
pub fn bits_of_address(address: IpAddr) -> Address {
    let bits = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64]
}

fn ports_of(listeners: &[Listener]) -> Vec<u16> {
    let mut ports: Vec<u16> = Vec::new();
    for listener in listeners {
        if !ports.contains(&listener.port) {
            ports.push(listener.port);
        }
    }
    ports
}

fn addresses(listeners: &[Listener], port: u16, family: Family) -> Vec<Prefix> {
    let on_port = listeners.iter().filter(|listener| listener.port == port);
    let keyed = on_port.map(|listener| (key_of(listener.address), listener.class));
    keyed
        .filter(|((of, _), _)| *of == family)
        .map(|((_, key), class)| Prefix { key, bits: bits_of(family), leaf: class as u32 + 1 })
        .collect()
}

fn prefixes(networks: &[(Class, Network)], class: Class, family: Family) -> Vec<Prefix> {
    let of_class = networks.iter().filter(|(of, _)| *of == class);
    of_class.filter_map(|(_, network)| Prefix::of_network(network, family)).collect()
}

const fn bits_of(family: Family) -> u32 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

/// A prefix and the leaf of the addresses in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Prefix {
    key: Key,
    bits: u32,
    leaf: u32,
}

impl Prefix {
    /// The network as a prefix, if it is of this family. A network of IPv4-mapped addresses is one of IPv4.
    fn of_network(network: &Network, family: Family) -> Option<Self> {
        let (of, key) = key_of(network.address);
        let bits = match (network.address, of) {
            (IpAddr::V6(_), Family::V4) if network.prefix < 96 => return None,
            (IpAddr::V6(_), Family::V4) => u32::from(network.prefix) - 96,
            _ => u32::from(network.prefix),
        };
        let leaf = network.number + 1;
        (of == family).then(|| Self { key: masked(key, bits), bits, leaf })
    }
}

/// The key with all bits behind the first `bits` cleared.
fn masked(key: Key, bits: u32) -> Key {
    let high = u64::MAX.checked_shl(64 - bits.min(64)).unwrap_or(0);
    let low = u64::MAX.checked_shl(128 - bits.clamp(64, 128)).unwrap_or(0);
    Key { high: key.high & high, low: key.low & low }
}

/// Bits that two keys share from the first on.
fn shared(a: Key, b: Key) -> u32 {
    match (a.high ^ b.high, a.low ^ b.low) {
        (0, low) => 64 + low.leading_zeros(),
        (high, _) => high.leading_zeros(),
    }
}

/// `count` bits of the key from bit `from` on, not across the middle.
fn slice(key: Key, from: u32, count: u32) -> usize {
    let half = if from < 64 { key.high } else { key.low };
    ((half << (from % 64)) >> (64 - count)) as usize
}

/// Appends nodes and entries to a table.
struct Writer {
    units: Vec<Unit>,
}

impl Writer {
    /// Both families' tries of what `prefixes` gives, as `IPv4 root | IPv6 root << 32`.
    fn roots(&mut self, prefixes: impl Fn(Family) -> Vec<Prefix>) -> Result<u64, CompileError> {
        let v4 = self.trie(prefixes(Family::V4))?;
        let v6 = self.trie(prefixes(Family::V6))?;
        Ok(u64::from(v4) | u64::from(v6) << 32)
    }

    /// The root entry of a trie of these prefixes. Narrow strides save room, wide ones depth: the
    /// first that is shallow enough wins.
    fn trie(&mut self, mut prefixes: Vec<Prefix>) -> Result<u32, CompileError> {
        prefixes.sort_unstable();
        prefixes.dedup_by_key(|prefix| (prefix.key, prefix.bits));
        let start = self.units.len();
        for stride_min in [2, 4, 8] {
            self.units.truncate(start);
            let mut depth = 0;
            let limits = Limits { stride_min };
            let (everywhere, nets) = match prefixes.first() {
                Some(first) if first.bits == 0 => (first.leaf, &prefixes[1..]),
                _ => (NOTHING, &prefixes[..]),
            };
            let root = self.entry(nets, 0, everywhere, limits, 1, &mut depth)?;
            if depth <= STEPS_MAX - 1 {
                return Ok(root);
            }
        }
        Err(CompileError::TooDeep)
    }

    /// The entry for the addresses that share their first `from` bits with all of `nets`, whose prefixes are all longer than
    /// that, sorted, and each there once. Recursion ends, because `from` grows with every level.
    fn entry(
        &mut self,
        nets: &[Prefix],
        from: u32,
        inherited: u32,
        limits: Limits,
        level: usize,
        depth: &mut usize,
    ) -> Result<u32, CompileError> {
        let (Some(first), Some(last)) = (nets.first(), nets.last()) else { return Ok(inherited) };
        *depth = (*depth).max(level);
        let node = self.take(1)?;
        if nets.len() == 1 {
            let shape = Shape { check: first.bits, stride: 0 };
            self.set_node(node, first.key, shape, first.leaf, inherited);
            return Ok(NODE | node);
        }
        let check = nets.iter().fold(shared(first.key, last.key), |bits, net| bits.min(net.bits));
        debug_assert!(check >= from);
        // The shortest prefix may hold all the others: then it is what they fall back to.
        let covering = nets.iter().position(|net| net.bits == check);
        let default = covering.map_or(inherited, |at| nets[at].leaf);
        let stride = limits.stride(nets.len(), check);
        let entries = self.take_entries(1 << stride)?;
        let mut painted = vec![default; 1 << stride];
        for net in by_length(nets, check, check + stride) {
            let at = slice(net.key, check, stride);
            let span = 1 << (check + stride - net.bits);
            painted[at..at + span].fill(net.leaf);
        }
        let longer: Vec<Prefix> = nets.iter().filter(|net| net.bits > check + stride).copied().collect();
        for group in longer.chunk_by(|a, b| slice(a.key, check, stride) == slice(b.key, check, stride)) {
            let at = slice(group[0].key, check, stride);
            painted[at] = self.entry(group, check + stride, painted[at], limits, level + 1, depth)?;
        }
        for (at, entry) in painted.iter().enumerate() {
            self.set_entry(entries as usize + at, *entry);
        }
        self.set_node(node, first.key, Shape { check, stride }, entries, inherited);
        Ok(NODE | node)
    }

    fn set_node(&mut self, at: u32, key: Key, shape: Shape, next: u32, fallback: u32) {
        let key = masked(key, shape.check);
        let links = u64::from(next) | u64::from(fallback) << 32;
        self.units[at as usize] = [key.high, key.low, shape.pack(), links];
    }

    fn set_entry(&mut self, number: usize, entry: u32) {
        let word = &mut self.units[number / 8][number / 2 % 4];
        *word |= u64::from(entry) << (number % 2 * 32);
    }

    /// The number of the first of `count` zeroed entries.
    fn take_entries(&mut self, count: usize) -> Result<u32, CompileError> {
        Ok(self.take(count.div_ceil(8))? * 8)
    }

    /// The number of the first of `count` zeroed units.
    fn take(&mut self, count: usize) -> Result<u32, CompileError> {
        let at = self.units.len();
        // One unit stays free: see `trie::find`.
        if at + count >= UNITS {
            return Err(CompileError::TooManyNetworks);
        }
        self.units.resize(at + count, [0; 4]);
        u32::try_from(at).map_err(|_| CompileError::TooManyNetworks)
    }
}

/// How wide the nodes of a trie are.
#[derive(Debug, Clone, Copy)]
struct Limits {
    stride_min: u32,
}

impl Limits {
    /// Bits that a node of `count` prefixes takes from bit `check` on: about two entries a prefix, never
    /// across the middle of a key.
    fn stride(self, count: usize, check: u32) -> u32 {
        let wanted = usize::BITS - count.leading_zeros();
        let room = 64 - check % 64;
        wanted.max(self.stride_min).min(STRIDE_MAX).min(room)
    }
}

/// The prefixes of more than `above` and at most `to` bits, short ones first: later ones paint over earlier ones.
fn by_length(nets: &[Prefix], above: u32, to: u32) -> Vec<Prefix> {
    let mut chosen: Vec<Prefix> =
        nets.iter().filter(|net| net.bits > above && net.bits <= to).copied().collect();
    chosen.sort_unstable_by_key(|net| net.bits);
    chosen
}
