//! The verdict on one packet: is it for a listener of this host, and may its source come there?
//!
//! The order is that of cost: port mask, port, this host's addresses, ban, networks, rate. What is not for a
//! listener leaves first and pays least. What it must not do: drop anything else (invariant 7).

use crate::abi::{
    Action, Address, CLASSES, CLASSES_MAX, HEAD, PORT_CHAIN_MAX, PORT_SLOTS, PORTS, RATE, Reason, UNITS,
    Units, Verdict,
};
use crate::packet::{ACK, Located, Packet, SYN, endpoints, locate};
use crate::trie::{Key, NOTHING, find};

/// What the verdict needs besides the packet and the table: bans, buckets and the clock.
pub trait Kernel {
    /// Nanoseconds of the monotonic clock.
    fn now_ns(&self) -> u64;
    /// When the ban of this source ends; `None` where there is none.
    fn ban_ends_ns(&self, source: &Address) -> Option<u64>;
    /// The bucket of this source: when its last connection is paid for. `None` for a new source.
    fn bucket_ns(&self, source: &Address) -> Option<u64>;
    /// Sets the bucket of this source.
    fn set_bucket_ns(&self, source: &Address, paid_ns: u64);
}

/// A packet's verdict and what is counted and sampled with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// What becomes of it.
    pub verdict: Verdict,
    /// The number of the network that accepted it, only for [`Verdict::Accepted`].
    pub network: u32,
    /// Why, from where and to where, for one that was refused.
    pub refusal: Option<(Reason, Flow)>,
}

/// One packet to judge, apart from its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// From where.
    pub source: Address,
    /// To where.
    pub destination: Address,
    /// From which port.
    pub source_port: u16,
    /// To which port.
    pub port: u16,
    /// Whether it opens a connection (SYN without ACK).
    pub is_opening: bool,
}

/// Both families' tries of a port or a class.
type Roots = [u64; 2];

/// The counter number of packets from loopback, which always may.
pub const NETWORK_LOOPBACK: u32 = 0;

/// Judges a frame.
#[inline(always)]
#[must_use]
pub fn judge_frame<P: Packet + ?Sized, K: Kernel>(units: &Units, packet: &P, kernel: &K) -> Outcome {
    let tcp = match locate(packet) {
        Located::Tcp(tcp) => tcp,
        Located::Other => return passed(Verdict::Other),
        Located::Unparsed => return passed(Verdict::Unparsed),
    };
    // Before the addresses are read: what is not for us pays for its headers only.
    if !may_listen(units, tcp.port) {
        return passed(Verdict::Other);
    }
    let Some((source, destination)) = endpoints(packet, &tcp) else { return passed(Verdict::Unparsed) };
    let is_opening = tcp.flags & (SYN | ACK) == SYN;
    judge_flow(
        units,
        &Flow { source, destination, source_port: tcp.source_port, port: tcp.port, is_opening },
        kernel,
    )
}

/// Judges a flow without its frame: also what `explain` shows.
#[inline(always)]
#[must_use]
pub fn judge_flow<K: Kernel>(units: &Units, flow: &Flow, kernel: &K) -> Outcome {
    let Some(listener) = listener(units, flow.port) else { return passed(Verdict::Other) };
    match judge(units, flow, listener, kernel) {
        Ok(None) => passed(Verdict::Other),
        Ok(Some(network)) => Outcome { verdict: Verdict::Accepted, network, refusal: None },
        Err(reason) => {
            Outcome { verdict: verdict_of(units, reason), network: 0, refusal: Some((reason, *flow)) }
        }
    }
}

#[inline(always)]
const fn passed(verdict: Verdict) -> Outcome {
    Outcome { verdict, network: 0, refusal: None }
}

/// The number of the network that lets the flow in, `None` where its destination is not a listener, or why it
/// is refused.
#[inline(always)]
fn judge<K: Kernel>(units: &Units, flow: &Flow, listener: Roots, kernel: &K) -> Result<Option<u32>, Reason> {
    let class = longest(units, listener, flow.destination);
    if class == NOTHING {
        return Ok(None);
    }
    if let Some(ends_ns) = kernel.ban_ends_ns(&flow.source)
        && kernel.now_ns() < ends_ns
    {
        return Err(Reason::Ban);
    }
    let network = network_of(units, class, flow.source).ok_or(Reason::Network)?;
    if flow.is_opening && !is_paid(units, flow.source, kernel) {
        return Err(Reason::Rate);
    }
    Ok(Some(network))
}

/// The slot of a port.
#[inline(always)]
const fn slot(port: u16) -> usize {
    PORTS + (port as usize & (PORT_SLOTS - 1))
}

/// Whether some listen port has the lowest bits of this one: most others do not, and need no further look.
#[inline(always)]
fn may_listen(units: &Units, port: u16) -> bool {
    units[slot(port)][2] != 0
}

/// The roots of this port's addresses; `None` where nothing listens on it. A copy, not a reference: a reference
/// into the ports would be one more state for the verifier at each of them.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "places are below UNITS; the mask tells the verifier")]
fn listener(units: &Units, port: u16) -> Option<Roots> {
    let mut at = slot(port) as u64;
    for _ in 0..PORT_CHAIN_MAX {
        let [v4, v6, number, next] = units[at as usize & (UNITS - 1)];
        if number == port as u64 {
            return Some([v4, v6]);
        }
        if next == 0 {
            return None;
        }
        at = next;
    }
    None
}

/// The leaf of an address, in the trie of its family under these roots. An IPv4-mapped source in an IPv6 packet
/// counts as IPv4, as it does in the daemon.
#[inline(always)]
#[allow(
    clippy::cast_possible_truncation,
    reason = "the low 32 bits of a mapped address are the IPv4 address"
)]
fn longest(units: &Units, [v4, v6]: Roots, address: Address) -> u16 {
    let (root, key) = if is_ipv4(address) {
        (v4, Key::v4(address[1] as u32))
    } else {
        (v6, Key { high: address[0], low: address[1] })
    };
    find(units, root, key)
}

#[inline(always)]
const fn is_ipv4(address: Address) -> bool {
    address[0] == 0 && address[1] >> 32 == 0xffff
}

/// The number of the network of this class that holds the source. Loopback always may.
#[inline(always)]
fn network_of(units: &Units, class: u16, source: Address) -> Option<u32> {
    let [v4, v6, ..] = units[CLASSES + (class.wrapping_sub(1) as usize & (CLASSES_MAX - 1))];
    let leaf = longest(units, [v4, v6], source);
    if leaf != NOTHING {
        return Some(leaf as u32 - 1);
    }
    let is_loopback = if is_ipv4(source) { source[1] >> 24 & 0xff == 127 } else { source == [0, 1] };
    is_loopback.then_some(NETWORK_LOOPBACK)
}

/// Whether the source may open one more connection, by the generic cell rate algorithm: a bucket is the moment
/// until which its connections are paid for. Two CPUs that serve one source at the same instant may let one
/// connection too many through; a lock would cost every packet more than that is worth.
#[inline(always)]
fn is_paid<K: Kernel>(units: &Units, source: Address, kernel: &K) -> bool {
    let [cost_ns, burst_ns, ..] = units[RATE];
    if cost_ns == 0 {
        return true;
    }
    let owner = if is_ipv4(source) { source } else { [source[0], 0] };
    let now_ns = kernel.now_ns();
    let paid_ns = match kernel.bucket_ns(&owner) {
        Some(paid_ns) if paid_ns > now_ns => paid_ns,
        _ => now_ns,
    };
    if paid_ns - now_ns > burst_ns {
        return false;
    }
    kernel.set_bucket_ns(&owner, paid_ns.wrapping_add(cost_ns));
    true
}

#[inline(always)]
fn verdict_of(units: &Units, reason: Reason) -> Verdict {
    match (Action::from_bits(units[HEAD][1]), reason) {
        (Action::Count, _) => Verdict::Counted,
        (Action::Reset, Reason::Network) => Verdict::Reset,
        (_, Reason::Network) => Verdict::DroppedNetwork,
        (_, Reason::Ban) => Verdict::DroppedBan,
        (_, Reason::Rate) => Verdict::DroppedRate,
    }
}
