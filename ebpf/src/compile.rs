//! Writing the tables that the gate reads. Host only.
//!
//! A [`Plan`] is what the operator wants; [`Table`] is the units that [`crate::verdict`] walks. Compiling is pure and
//! repeatable: the same plan gives the same units. It never writes half a table: a plan that does not fit is
//! an error.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::abi::{
    Action, Address, CLASSES, CLASSES_MAX, Class, FREE, HEAD, PORT_CHAIN_MAX, PORT_SLOTS, PORTS, PORTS_MAX,
    RATE, UNITS, Unit, Units,
};
use crate::packet::Family;
use crate::trie::{CHECKED_MAX, Entry, Key, NOTHING, STEPS_MAX, STRIDE_MAX, Shape};

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
    /// Its counter: the longest network that holds a source counts its packets. Below [`NUMBERS_MAX`].
    pub number: u16,
}

/// Numbers that networks may have: a leaf is one more, in 16 bits.
pub const NUMBERS_MAX: u16 = u16::MAX;

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
    /// More than [`PORTS_MAX`] distinct listen ports, or more than [`PORT_CHAIN_MAX`] with the same lowest bits.
    TooManyPorts,
    /// The networks need more units than a table has: about 30,000 of each family fit.
    TooManyNetworks,
    /// Networks nested so deeply that a look-up would take more than [`STEPS_MAX`] steps.
    TooDeep,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyPorts => write!(
                f,
                "more than {PORTS_MAX} distinct listen ports, or more than {PORT_CHAIN_MAX} that differ by \
                 multiples of {PORT_SLOTS}"
            ),
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
        let mut writer = Writer { units: vec![[0; 4]; FREE], written: Vec::new() };
        let ports = ports_of(&plan.listeners);
        if ports.len() > PORTS_MAX {
            return Err(CompileError::TooManyPorts);
        }
        writer.units[HEAD] = [plan.generation, plan.action as u64, 0, 0];
        if let Some(rate) = plan.syn_rate {
            writer.units[RATE] = [rate.cost_ns, rate.burst_ns, 0, 0];
        }
        let mut spare = PORTS + PORT_SLOTS;
        for port in ports {
            let [v4, v6] = writer.roots(|family| addresses(&plan.listeners, port, family))?;
            let at = writer.place_of_port(port, &mut spare)?;
            writer.units[at] = [v4, v6, u64::from(port), 0];
        }
        for class in [Class::Smtp, Class::Submission] {
            let [v4, v6] = writer.roots(|family| prefixes(&plan.networks, class, family))?;
            writer.units[CLASSES + class as usize] = [v4, v6, 0, 0];
        }
        Ok(Self { units: writer.units })
    }

    /// The units up to the last one in use; those behind are all zero.
    #[must_use]
    pub fn used(&self) -> &[Unit] {
        &self.units
    }

    /// All units, to look things up in on the host.
    ///
    /// # Errors
    /// Never: a table is compiled to fit.
    pub fn whole(&self) -> Result<Box<Units>, CompileError> {
        let mut units = self.units.clone();
        units.resize(UNITS, [0; 4]);
        units.into_boxed_slice().try_into().map_err(|_| CompileError::TooManyNetworks)
    }
}

const _: () = assert!((Class::Submission as usize) < CLASSES_MAX);

/// The key and family of an address. An IPv4-mapped IPv6 address is its IPv4 address.
#[must_use]
#[allow(clippy::cast_possible_truncation, reason = "the low half is cut out")]
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
#[allow(clippy::cast_possible_truncation, reason = "the low half is cut out")]
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
        .map(|((_, key), class)| Prefix { key, bits: bits_of(family), leaf: class as u16 + 1 })
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
    leaf: u16,
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
        let leaf = network.number.saturating_add(1);
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
#[allow(clippy::cast_possible_truncation, reason = "at most 24 bits are asked for")]
fn slice(key: Key, from: u32, count: u32) -> u32 {
    debug_assert!((1..=CHECKED_MAX).contains(&count) && from % 64 + count <= 64);
    let half = if from < 64 { key.high } else { key.low };
    ((half << (from % 64)) >> (64 - count)) as u32
}

/// Appends nodes and entries to a table.
struct Writer {
    units: Vec<Unit>,
    /// Tries already written, by what they hold: classes with the same networks share one.
    written: Vec<(Vec<Prefix>, Entry)>,
}

impl Writer {
    /// The port's slot, or a spare unit at the end of the slot's chain.
    fn place_of_port(&mut self, port: u16, spare: &mut usize) -> Result<usize, CompileError> {
        let mut at = PORTS + (usize::from(port) & (PORT_SLOTS - 1));
        if self.units[at][2] == 0 {
            return Ok(at);
        }
        for _ in 1..PORT_CHAIN_MAX {
            match self.units[at][3] {
                0 => {
                    self.units[at][3] = *spare as u64;
                    *spare += 1;
                    return Ok(*spare - 1);
                }
                next => at = usize::try_from(next).map_err(|_| CompileError::TooManyPorts)?,
            }
        }
        Err(CompileError::TooManyPorts)
    }

    /// The roots of both families' tries of what `prefixes` gives.
    fn roots(&mut self, prefixes: impl Fn(Family) -> Vec<Prefix>) -> Result<[u64; 2], CompileError> {
        let v4 = self.trie(prefixes(Family::V4))?;
        let v6 = self.trie(prefixes(Family::V6))?;
        Ok([v4.pack(), v6.pack()])
    }

    /// The root of a trie of these prefixes. Narrow strides save room, wide ones depth: the first that is
    /// shallow enough wins.
    fn trie(&mut self, mut prefixes: Vec<Prefix>) -> Result<Entry, CompileError> {
        prefixes.sort_unstable();
        prefixes.dedup_by_key(|prefix| (prefix.key, prefix.bits));
        if let Some((_, root)) = self.written.iter().find(|(same, _)| *same == prefixes) {
            return Ok(*root);
        }
        let root = self.new_trie(&prefixes)?;
        self.written.push((prefixes, root));
        Ok(root)
    }

    fn new_trie(&mut self, prefixes: &[Prefix]) -> Result<Entry, CompileError> {
        let (everywhere, nets) = match prefixes.first() {
            Some(first) if first.bits == 0 => (first.leaf, &prefixes[1..]),
            _ => (NOTHING, prefixes),
        };
        let start = self.units.len();
        for stride_min in [2, 4, 8, 12] {
            self.units.truncate(start);
            let mut depth = 0;
            let place = Place { from: 0, inherited: everywhere, level: 1, stride_min };
            let root = self.entry(nets, place, &mut depth)?;
            if depth < STEPS_MAX {
                return Ok(root);
            }
        }
        Err(CompileError::TooDeep)
    }

    /// The entry at this place for `nets`, whose prefixes are all longer than the place's, sorted, and each there
    /// once. The recursion ends, because every level is further in the key.
    fn entry(&mut self, nets: &[Prefix], place: Place, depth: &mut usize) -> Result<Entry, CompileError> {
        *depth = (*depth).max(place.level);
        let Some(first) = nets.first() else { return Ok(Entry::Leaf(place.inherited)) };
        if nets.len() == 1 {
            return self.single(first, place);
        }
        let common = nets.iter().fold(128, |bits, net| bits.min(shared(first.key, net.key)).min(net.bits));
        let shape =
            Shape { check: common, stride: place.stride(nets.len(), common), fallback: place.inherited };
        let node = self.take(1)?;
        // A stride cut short at the middle of the key may have fewer entries than a unit.
        let entries = self.take((1usize << shape.stride).div_ceil(4))? as usize * 4;
        for (at, entry) in self.entries(nets, shape, place, depth)?.iter().enumerate() {
            let number = entries + at;
            self.units[number / 4][number % 4] = entry.pack();
        }
        self.set_node(node, first.key, shape, entries as u64);
        Ok(Entry::Node(node))
    }

    /// One network: in the entry itself where the rest of it is short, else a node without a stride.
    fn single(&mut self, net: &Prefix, place: Place) -> Result<Entry, CompileError> {
        let bits = net.bits - place.from;
        // The reader goes on in the half where the stride began: not beyond its end.
        if bits <= CHECKED_MAX && place.from != 64 && place.from % 64 + bits <= 64 {
            let value = slice(net.key, place.from, bits);
            return Ok(Entry::Checked { bits, value, leaf: net.leaf, fallback: place.inherited });
        }
        let node = self.take(1)?;
        let shape = Shape { check: net.bits, stride: 0, fallback: place.inherited };
        self.set_node(node, net.key, shape, u64::from(net.leaf));
        Ok(Entry::Node(node))
    }

    /// The entries of a node: prefixes that end within its stride are painted over all that they hold, the short
    /// ones first; longer ones go one level down.
    fn entries(
        &mut self,
        nets: &[Prefix],
        shape: Shape,
        place: Place,
        depth: &mut usize,
    ) -> Result<Vec<Entry>, CompileError> {
        let Shape { check, stride, .. } = shape;
        let slot = |net: &Prefix| slice(net.key, check, stride) as usize;
        let (mut short, long): (Vec<Prefix>, Vec<Prefix>) =
            nets.iter().partition(|net| net.bits <= check + stride);
        short.sort_by_key(|net| net.bits);
        let mut painted = vec![place.inherited; 1 << stride];
        for net in &short {
            let span = 1usize << (check + stride - net.bits);
            painted[slot(net)..slot(net) + span].fill(net.leaf);
        }
        let mut entries: Vec<Entry> = painted.iter().map(|leaf| Entry::Leaf(*leaf)).collect();
        for group in long.chunk_by(|a, b| slot(a) == slot(b)) {
            let at = slot(&group[0]);
            let below =
                Place { from: check + stride, inherited: painted[at], level: place.level + 1, ..place };
            entries[at] = self.entry(group, below, depth)?;
        }
        Ok(entries)
    }

    fn set_node(&mut self, at: u32, key: Key, shape: Shape, next: u64) {
        let key = masked(key, shape.check);
        self.units[at as usize] = [key.high, key.low, shape.pack(), next];
    }

    /// The number of the first of `count` zeroed units.
    fn take(&mut self, count: usize) -> Result<u32, CompileError> {
        let at = self.units.len();
        if at + count > UNITS {
            return Err(CompileError::TooManyNetworks);
        }
        self.units.resize(at + count, [0; 4]);
        u32::try_from(at).map_err(|_| CompileError::TooManyNetworks)
    }
}

/// Where in a trie an entry stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Bits that were taken on the way there.
    from: u32,
    /// The leaf of the longest network that holds all of the place.
    inherited: u16,
    /// Nodes on the way, this one included.
    level: usize,
    /// Bits that a node takes at least.
    stride_min: u32,
}

impl Place {
    /// Bits that a node of `count` prefixes takes from bit `check` on: two to four entries a prefix (half as many
    /// cost 6 ns more at 10,000 networks, twice as many 4 ns), never across the middle of a key or beyond it.
    fn stride(self, count: usize, check: u32) -> u32 {
        let wanted = usize::BITS - count.leading_zeros() + 1;
        let room = 64 - check % 64;
        wanted.max(self.stride_min).min(STRIDE_MAX).min(room)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use crate::trie::find;

    fn network(text: &str, number: u16) -> (Class, Network) {
        let (address, prefix) = text.split_once('/').unwrap();
        let network = Network { address: address.parse().unwrap(), prefix: prefix.parse().unwrap(), number };
        (Class::Smtp, network)
    }

    fn plan(networks: Vec<(Class, Network)>) -> Plan {
        Plan { generation: 1, action: Action::Drop, syn_rate: None, listeners: Vec::new(), networks }
    }

    /// The number of the network that a compiled plan finds for an address.
    fn look_up(units: &Units, address: IpAddr) -> Option<u16> {
        let (family, key) = key_of(address);
        let roots = units[CLASSES];
        let root = if family == Family::V4 { roots[0] } else { roots[1] };
        find(units, root, key).checked_sub(1)
    }

    /// The same, by looking at each network: the longest wins, and of equals the smallest number.
    fn naive(networks: &[(Class, Network)], address: IpAddr) -> Option<u16> {
        let (family, key) = key_of(address);
        let nets = networks.iter().filter_map(|(_, network)| Prefix::of_network(network, family));
        let holding = nets.filter(|net| masked(key, net.bits) == masked(net.key, net.bits));
        holding.max_by_key(|net| (net.bits, u16::MAX - net.leaf)).map(|net| net.leaf - 1)
    }

    #[test]
    fn the_longest_network_wins_and_its_ends_are_exact() {
        let networks = vec![
            network("10.0.0.0/8", 1),
            network("10.1.0.0/16", 2),
            network("10.1.2.0/24", 3),
            network("10.1.2.3/32", 4),
            network("2001:db8::/32", 5),
            network("2001:db8:0:1::/64", 6),
            network("2001:db8:0:1::5/128", 7),
        ];
        let units = Table::compile(&plan(networks)).unwrap().whole().unwrap();
        let expected = [
            ("9.255.255.255", None),
            ("10.0.0.0", Some(1)),
            ("10.255.255.255", Some(1)),
            ("11.0.0.0", None),
            ("10.1.1.255", Some(2)),
            ("10.1.2.2", Some(3)),
            ("10.1.2.3", Some(4)),
            ("10.1.2.4", Some(3)),
            ("10.1.3.0", Some(2)),
            ("::ffff:10.1.2.3", Some(4)),
            ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", None),
            ("2001:db8::", Some(5)),
            ("2001:db8:0:1::4", Some(6)),
            ("2001:db8:0:1::5", Some(7)),
            ("2001:db8:0:2::", Some(5)),
            ("2001:db9::", None),
        ];
        for (address, number) in expected {
            assert_eq!(look_up(&units, address.parse().unwrap()), number, "{address}");
        }
    }

    #[test]
    fn a_network_of_mapped_addresses_is_one_of_ipv4() {
        let networks = vec![network("::ffff:10.0.0.0/104", 1)];
        let units = Table::compile(&plan(networks)).unwrap().whole().unwrap();
        assert_eq!(look_up(&units, "10.9.9.9".parse().unwrap()), Some(1));
        assert_eq!(look_up(&units, "11.0.0.0".parse().unwrap()), None);
    }

    #[test]
    fn the_whole_world_is_a_network_of_each_family() {
        let units = Table::compile(&plan(vec![network("0.0.0.0/0", 1)])).unwrap().whole().unwrap();
        assert_eq!(look_up(&units, "255.255.255.255".parse().unwrap()), Some(1));
        assert_eq!(look_up(&units, "2001:db8::1".parse().unwrap()), None);
        let units = Table::compile(&plan(vec![network("::/0", 1)])).unwrap().whole().unwrap();
        assert_eq!(look_up(&units, "1.2.3.4".parse().unwrap()), None);
        assert_eq!(look_up(&units, "2001:db8::1".parse().unwrap()), Some(1));
    }

    #[test]
    fn networks_nested_in_every_bit_are_found() {
        let nets: Vec<_> = (0..=128u8)
            .map(|prefix| {
                let address = IpAddr::V6(Ipv6Addr::from_bits(u128::MAX / 3));
                (Class::Smtp, Network { address, prefix, number: u16::from(prefix) })
            })
            .collect();
        let units = Table::compile(&plan(nets)).unwrap().whole().unwrap();
        for bit in 0..128u32 {
            let address = IpAddr::V6(Ipv6Addr::from_bits((u128::MAX / 3) ^ (1 << (127 - bit))));
            assert_eq!(look_up(&units, address), Some(u16::try_from(bit).unwrap()));
        }
    }

    #[test]
    fn thirty_thousand_networks_of_each_family_fit() {
        let nets = (0..30_000u32).flat_map(|n| {
            let spread = n.wrapping_mul(0x9e37_79b9);
            let v4 = IpAddr::V4(Ipv4Addr::from_bits(spread));
            let v6 = IpAddr::V6(Ipv6Addr::from_bits(u128::from(spread) << 64 | 0x2001_0db8 << 96));
            let number = (n % 60_000) as u16;
            [
                (Class::Smtp, Network { address: v4, prefix: 32, number }),
                (Class::Smtp, Network { address: v6, prefix: 64, number }),
            ]
        });
        assert!(Table::compile(&plan(nets.collect())).is_ok());
    }

    #[test]
    fn too_many_networks_are_an_error_and_no_table() {
        let nets = (0..200_000u32).map(|n| {
            let address = IpAddr::V6(Ipv6Addr::from_bits(u128::from(n.wrapping_mul(0x9e37_79b9)) << 64 | 7));
            (Class::Smtp, Network { address, prefix: 128, number: 1 })
        });
        assert_eq!(Table::compile(&plan(nets.collect())), Err(CompileError::TooManyNetworks));
    }

    #[test]
    fn ports_with_the_same_lowest_bits_share_a_chain_of_bounded_length() {
        let listener =
            |n: u16| Listener { address: [198, 18, 0, 1].into(), port: 25 + 64 * n, class: Class::Smtp };
        let with = |count: u16| Plan { listeners: (0..count).map(listener).collect(), ..plan(Vec::new()) };
        let units = Table::compile(&with(8)).unwrap().whole().unwrap();
        let slot = units[PORTS + 25];
        assert_eq!((slot[2], slot[3]), (25, (PORTS + PORT_SLOTS) as u64));
        assert_eq!(Table::compile(&with(9)), Err(CompileError::TooManyPorts));
    }

    #[test]
    fn classes_with_the_same_networks_share_one_trie() {
        let mut nets = vec![network("10.0.0.0/8", 1), network("192.168.0.0/16", 2)];
        nets.extend(nets.clone().into_iter().map(|(_, network)| (Class::Submission, network)));
        let units = Table::compile(&plan(nets)).unwrap().whole().unwrap();
        assert_eq!(units[CLASSES], units[CLASSES + 1]);
    }

    fn any_network() -> impl Strategy<Value = (Class, Network)> {
        // Few distinct bits, so that networks nest and touch.
        let v4 = (0..64u32, 0..=32u8).prop_map(|(bits, prefix)| {
            (IpAddr::V4(Ipv4Addr::from_bits(bits.wrapping_mul(0x0410_4104))), prefix)
        });
        let v6 = (0..64u128, 0..=128u8).prop_map(|(bits, prefix)| {
            let bits = bits * 0x0410_4104_1041_0410_4104_1041;
            (IpAddr::V6(Ipv6Addr::from_bits(bits << 40 | bits)), prefix)
        });
        (prop_oneof![v4, v6], 0..1000u16)
            .prop_map(|((address, prefix), number)| (Class::Smtp, Network { address, prefix, number }))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]
        #[test]
        fn finds_what_the_naive_search_finds(
            nets in proptest::collection::vec(any_network(), 0..60),
            noise in proptest::collection::vec((any::<u32>(), any::<u128>()), 0..20),
        ) {
            let units = Table::compile(&plan(nets.clone())).unwrap().whole().unwrap();
            // Around the ends of each network, and anywhere.
            let near = nets.iter().flat_map(|(_, network)| near(network));
            let far = noise.iter().flat_map(|(v4, v6)| {
                [IpAddr::V4(Ipv4Addr::from_bits(*v4)), IpAddr::V6(Ipv6Addr::from_bits(*v6))]
            });
            for address in near.chain(far) {
                prop_assert_eq!(look_up(&units, address), naive(&nets, address), "{}", address);
            }
        }
    }

    fn near(network: &Network) -> Vec<IpAddr> {
        match network.address {
            IpAddr::V4(v4) => {
                let span = u32::MAX.checked_shr(u32::from(network.prefix)).unwrap_or(0);
                let (first, last) = (v4.to_bits() & !span, v4.to_bits() | span);
                let all = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
                all.into_iter().map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits))).collect()
            }
            IpAddr::V6(v6) => {
                let span = u128::MAX.checked_shr(u32::from(network.prefix)).unwrap_or(0);
                let (first, last) = (v6.to_bits() & !span, v6.to_bits() | span);
                let all = [first, last, first.wrapping_sub(1), last.wrapping_add(1)];
                all.into_iter().map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))).collect()
            }
        }
    }
}
