//! What the kernel program and the daemon share: numbers, places in a table, values of the maps.
//!
//! A *table* is everything that a packet is judged by: listeners, networks, action and rate. It is one flat
//! array of [`Unit`]s, written by `compile` and published by swapping one pointer (the only slot of the map
//! [`TABLES`]): a packet sees the old table or the new one, never a mixture and never an empty one.
//!
//! | units | hold |
//! | --- | --- |
//! | [`HEAD`] | generation and action |
//! | [`RATE`] | nanoseconds a new connection costs, nanoseconds of burst |
//! | [`CLASSES`].. | one unit a class: the tries of its IPv4 and of its IPv6 sources |
//! | [`PORTS`].. | one unit a port: the tries of its IPv4 and of its IPv6 addresses, its number, the next |
//! | [`FREE`].. | nodes and entries of the tries (see [`crate::trie`]) |

/// The smallest piece of a table: 32 octets.
pub type Unit = [u64; 4];

/// Octets of one unit.
pub const UNIT_OCTETS: usize = 32;
/// Units of a table, 4 MiB: a power of two, so that an index is bounded by a mask, which the verifier of every
/// kernel understands. Older kernels refuse map values above that.
pub const UNITS: usize = 131_072;
/// All units of a table.
pub type Units = [Unit; UNITS];

/// Place of the head: `[generation, action, 0, 0]`.
pub const HEAD: usize = 0;
/// Place of the rate of new connections: `[cost_ns, burst_ns, 0, 0]`; a cost of 0 means no limit.
pub const RATE: usize = 1;
/// Place of the first class: `[IPv4 root, IPv6 root, 0, 0]`.
pub const CLASSES: usize = 2;
/// Classes that a table can hold: a power of two.
pub const CLASSES_MAX: usize = 4;
/// Place of the ports, by their lowest six bits: `[IPv4 root, IPv6 root, port, next]`. Port 0 is nobody's. `next` is
/// the place of another port with the same lowest bits, 0 for none.
pub const PORTS: usize = CLASSES + CLASSES_MAX;
/// Ports told apart without a second look: a power of two.
pub const PORT_SLOTS: usize = 64;
/// Distinct listen ports that a table can hold.
pub const PORTS_MAX: usize = 32;
/// Ports with the same lowest bits that a table can hold.
pub const PORT_CHAIN_MAX: usize = 8;
/// Place of the first unit that tries may use.
pub const FREE: usize = PORTS + PORT_SLOTS + PORTS_MAX;

/// Who may reach a listener: each class has its own networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Class {
    /// Port 25 and its like: `ACCEPTED_NETWORKS`.
    Smtp = 0,
    /// Ports 465, 587 and their like: `SUBMISSION_NETWORKS`.
    Submission = 1,
}

/// What becomes of a packet that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Action {
    /// It vanishes.
    Drop = 0,
    /// A source outside the networks gets a TCP reset. Banned and too fast sources are dropped silently all
    /// the same: an answer to each packet of a flood would only double it.
    Reset = 1,
    /// It passes and is counted.
    Count = 2,
}

impl Action {
    /// The action of this number; an unknown one counts only, because the gate fails open.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        match bits & 0xff {
            0 => Self::Drop,
            1 => Self::Reset,
            _ => Self::Count,
        }
    }
}

/// What was decided about a packet; also the place of its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Verdict {
    /// To a listener, from its networks.
    Accepted = 0,
    /// To a listener, from outside its networks.
    DroppedNetwork = 1,
    /// To a listener, from a banned source.
    DroppedBan = 2,
    /// A SYN to a listener, from a source that sent too many.
    DroppedRate = 3,
    /// To a listener, from outside its networks, answered with a TCP reset.
    Reset = 4,
    /// It would have been dropped, but the action is to count.
    Counted = 5,
    /// Understood, and not a TCP packet to a listener.
    Other = 6,
    /// Not understood: cut short, too many tags or headers, broken lengths.
    Unparsed = 7,
}

/// Number of verdicts.
pub const VERDICTS: usize = 8;

impl Verdict {
    /// Every verdict in the order of their counters.
    pub const ALL: [Self; VERDICTS] = [
        Self::Accepted,
        Self::DroppedNetwork,
        Self::DroppedBan,
        Self::DroppedRate,
        Self::Reset,
        Self::Counted,
        Self::Other,
        Self::Unparsed,
    ];

    /// The value of the metrics' label `verdict`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::DroppedNetwork => "dropped_network",
            Self::DroppedBan => "dropped_ban",
            Self::DroppedRate => "dropped_rate",
            Self::Reset => "reset",
            Self::Counted => "counted",
            Self::Other => "other",
            Self::Unparsed => "unparsed",
        }
    }
}

/// Why a packet to a listener was refused, whatever then became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Reason {
    /// Its source lies outside the listener's networks.
    Network = 1,
    /// Its source is banned.
    Ban = 2,
    /// Its source opens connections too fast.
    Rate = 3,
}

impl Reason {
    /// The reason of this number.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Option<Self> {
        match bits {
            1 => Some(Self::Network),
            2 => Some(Self::Ban),
            3 => Some(Self::Rate),
            _ => None,
        }
    }
}

/// Counters of one interface on one CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Counters {
    /// Packets by [`Verdict`].
    pub packets: [u64; VERDICTS],
    /// Refused packets that were written to the ring [`DROPS`], in the terms of [`Switches::samples`].
    pub sampled: u64,
}

/// Slots of [`COUNTERS`]; an interface has the slot of its index modulo this.
pub const INTERFACES_MAX: u32 = 256;

/// What the daemon changes without compiling a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Switches {
    /// Bans in [`BANS`], expired ones too; 0 spares the look-up.
    pub bans: u64,
    /// Refused packets that each CPU may have sampled so far. The daemon raises it at a steady pace.
    pub samples: u64,
}

/// Samples that a CPU may save up while nothing is refused, and so the largest burst of one CPU.
pub const SAMPLES_SAVED_MAX: u64 = 64;

/// An IPv6 address, or an IPv4 address in its IPv4-mapped form: the high and the low half, each as a number.
/// So it stands in flows and events, and as the key of [`BANS`] and [`BUCKETS`].
pub type Address = [u64; 2];

/// One sampled refusal, as it lies in the ring. Ports in the host's byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct DropEvent {
    /// Nanoseconds of the monotonic clock.
    pub at_ns: u64,
    /// Where it came from.
    pub source: Address,
    /// Where it wanted to go.
    pub destination: Address,
    /// Index of the interface it came in by.
    pub interface: u32,
    /// [`Reason`].
    pub reason: u32,
    /// [`Verdict`].
    pub verdict: u32,
    /// Port it came from.
    pub source_port: u16,
    /// Port it wanted.
    pub port: u16,
}

/// Octets of [`DropEvent`].
pub const DROP_EVENT_OCTETS: usize = 56;
const _: () = assert!(size_of::<DropEvent>() == DROP_EVENT_OCTETS);
const _: () = assert!(size_of::<Unit>() == UNIT_OCTETS);
const _: () = assert!(FREE < UNITS);
const _: () =
    assert!(UNITS.is_power_of_two() && CLASSES_MAX.is_power_of_two() && PORT_SLOTS.is_power_of_two());

/// Name of the program for interfaces whose frames fit one buffer.
pub const PROGRAM: &str = "ringpost_gate";
/// Name of the program for interfaces with multi-buffer frames (kernel 5.18).
pub const PROGRAM_FRAGS: &str = "ringpost_frags";
/// Array of one map: the table in force.
pub const TABLES: &str = "TABLES";
/// Per-CPU array of [`Counters`].
pub const COUNTERS: &str = "COUNTERS";
/// Per-CPU array of packets accepted for each network, by network number.
pub const NETWORKS: &str = "NETWORKS";
/// Networks that are counted each for itself; the numbers of others are not counted.
pub const NETWORKS_MAX: u32 = 16_384;
/// LRU hash of [`Address`] to the end of its ban, nanoseconds of the monotonic clock.
pub const BANS: &str = "BANS";
/// Bans that can stand at once; the one unused for longest gives way.
pub const BANS_MAX: u32 = 16_384;
/// LRU hash of [`Address`] (IPv6: its /64) to the state of its token bucket.
pub const BUCKETS: &str = "BUCKETS";
/// Sources whose rate of new connections is watched at once.
pub const BUCKETS_MAX: u32 = 65_536;
/// Array of one [`Switches`].
pub const SWITCHES: &str = "SWITCHES";
/// Ring of [`DropEvent`]s.
pub const DROPS: &str = "DROPS";
/// Octets of the ring.
pub const DROPS_OCTETS: usize = 256 * 1024;
