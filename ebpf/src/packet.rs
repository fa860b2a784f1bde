//! Finding the TCP header of a frame: Ethernet, up to two VLAN tags, IPv4 with options, IPv6 with extension
//! headers, fragments.
//!
//! It knows three ends: a TCP header that is there as a whole, something else that was understood, and something
//! that was not. It reads only through [`Packet`], so it can neither run past the frame nor past the verifier.

use crate::abi::Address;

/// A frame that is read with its bounds checked.
pub trait Packet {
    /// `N` pairs of octets from `offset` on, as they lie in the frame; `None` where the frame is shorter.
    ///
    /// All headers here begin at even offsets, and so do frames in memory: pairs are the widest reads that
    /// need neither unaligned loads nor single octets.
    fn pairs<const N: usize>(&self, offset: usize) -> Option<[u16; N]>;

    /// The same offset, of which the verifier knows nothing any more but that it is below 16 KiB. Every way
    /// to the same header would else be a state of its own: three lengths of six extension headers behind up
    /// to two tags are thousands, more than kernel 5.10 has memory for.
    fn forget(&self, offset: usize) -> usize {
        offset
    }
}

/// A frame in a slice.
impl Packet for [u8] {
    fn pairs<const N: usize>(&self, offset: usize) -> Option<[u16; N]> {
        let octets = self.get(offset..offset.checked_add(2 * N)?)?;
        let mut pairs = [0; N];
        for (pair, octets) in pairs.iter_mut().zip(octets.chunks_exact(2)) {
            *pair = u16::from_ne_bytes([octets[0], octets[1]]);
        }
        Some(pairs)
    }
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Where a TCP header is and what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tcp {
    /// Which IP header stands before it.
    pub family: Family,
    /// Offset of the IP header.
    pub ip_at: usize,
    /// Offset of the TCP header.
    pub tcp_at: usize,
    /// Where the segment comes from.
    pub source_port: u16,
    /// Where it wants to go.
    pub port: u16,
    /// The flags' octet: `CWR ECE URG ACK PSH RST SYN FIN`.
    pub flags: u8,
}

/// FIN in [`Tcp::flags`].
pub const FIN: u8 = 0x01;
/// SYN in [`Tcp::flags`].
pub const SYN: u8 = 0x02;
/// RST in [`Tcp::flags`].
pub const RST: u8 = 0x04;
/// ACK in [`Tcp::flags`].
pub const ACK: u8 = 0x10;

/// What a frame turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Located {
    /// A TCP segment whose header is there.
    Tcp(Tcp),
    /// Understood, and not the beginning of a TCP segment.
    Other,
    /// Not understood.
    Unparsed,
}

const ETHERNET_OCTETS: usize = 14;
const VLAN_OCTETS: usize = 4;
const VLAN_TAGS_MAX: usize = 2;
/// Octets of a TCP header without options, RFC 9293 §3.1.
pub const TCP_OCTETS: usize = 20;
/// Octets of an IPv4 header without options, RFC 791 §3.1.
pub const IPV4_OCTETS: usize = 20;
/// Octets of an IPv6 header, RFC 8200 §3.
pub const IPV6_OCTETS: usize = 40;
const EXTENSIONS_MAX: usize = 6;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;
const ETHERTYPE_QINQ_OLD: u16 = 0x9100;

const PROTOCOL_TCP: u8 = 6;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// Finds the TCP header of a frame that begins with an Ethernet header.
#[inline(always)]
#[must_use]
pub fn locate<P: Packet + ?Sized>(packet: &P) -> Located {
    let Some([.., ethertype]) = packet.pairs::<7>(0) else { return Located::Unparsed };
    let mut ethertype = u16::from_be(ethertype);
    let mut ip_at = ETHERNET_OCTETS;
    for _ in 0..VLAN_TAGS_MAX {
        if !is_vlan(ethertype) {
            break;
        }
        let Some([_, inner]) = packet.pairs::<2>(ip_at) else { return Located::Unparsed };
        ethertype = u16::from_be(inner);
        ip_at = packet.forget(ip_at + VLAN_OCTETS);
    }
    match ethertype {
        ETHERTYPE_IPV4 => locate_in_ipv4(packet, ip_at),
        ETHERTYPE_IPV6 => locate_in_ipv6(packet, ip_at),
        third if is_vlan(third) => Located::Unparsed,
        _ => Located::Other,
    }
}

#[inline(always)]
const fn is_vlan(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_QINQ | ETHERTYPE_QINQ_OLD)
}

/// RFC 791 §3.1. Fragments after the first carry no ports: they pass, the first one was judged.
#[inline(always)]
fn locate_in_ipv4<P: Packet + ?Sized>(packet: &P, ip_at: usize) -> Located {
    let Some(header) = packet.pairs::<10>(ip_at) else { return Located::Unparsed };
    let [first, _] = header[0].to_ne_bytes();
    let header_octets = usize::from(first & 0x0f) * 4;
    if first >> 4 != 4 || header_octets < IPV4_OCTETS {
        return Located::Unparsed;
    }
    let [_, protocol] = header[4].to_ne_bytes();
    if protocol != PROTOCOL_TCP || u16::from_be(header[3]) & 0x1fff != 0 {
        return Located::Other;
    }
    locate_tcp(packet, Family::V4, ip_at, ip_at + header_octets)
}

/// RFC 8200 §4: walks at most [`EXTENSIONS_MAX`] extension headers to the TCP header.
#[inline(always)]
fn locate_in_ipv6<P: Packet + ?Sized>(packet: &P, ip_at: usize) -> Located {
    let Some(header) = packet.pairs::<20>(ip_at) else { return Located::Unparsed };
    let [first, _] = header[0].to_ne_bytes();
    if first >> 4 != 6 {
        return Located::Unparsed;
    }
    let [mut next, _] = header[3].to_ne_bytes();
    let mut at = ip_at + IPV6_OCTETS;
    for _ in 0..EXTENSIONS_MAX {
        if next == PROTOCOL_TCP {
            return locate_tcp(packet, Family::V6, ip_at, at);
        }
        if !is_extension(next) {
            return Located::Other;
        }
        let Some([kind, second]) = packet.pairs::<2>(at) else { return Located::Unparsed };
        let ([following, length], [_, left]) = (kind.to_ne_bytes(), second.to_ne_bytes());
        match next {
            // RFC 8200 §4.5: only the first fragment (an atomic one is first and last) has the ports.
            FRAGMENT if u16::from_be(second) & 0xfff8 != 0 => return Located::Other,
            // RFC 8200 §4.4: with segments left this host is not the destination, but a hop on the way.
            ROUTING if left != 0 => return Located::Other,
            _ => {}
        }
        at = packet.forget(at + extension_octets(next, length));
        next = following;
    }
    match next {
        PROTOCOL_TCP => locate_tcp(packet, Family::V6, ip_at, at),
        more if is_extension(more) => Located::Unparsed,
        _ => Located::Other,
    }
}

#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
}

#[inline(always)]
const fn extension_octets(kind: u8, length: u8) -> usize {
    match kind {
        // RFC 8200 §4.5: a fragment header has no length of its own.
        FRAGMENT => 8,
        // RFC 4302 §2.2: in 4-octet words, minus 2.
        AUTHENTICATION => (length as usize + 2) * 4,
        // RFC 8200 §4.3, §4.4, §4.6: in 8-octet words, not counting the first.
        _ => (length as usize + 1) * 8,
    }
}

#[inline(always)]
fn locate_tcp<P: Packet + ?Sized>(packet: &P, family: Family, ip_at: usize, tcp_at: usize) -> Located {
    let Some(header) = packet.pairs::<10>(tcp_at) else { return Located::Unparsed };
    let [_, flags] = header[6].to_ne_bytes();
    Located::Tcp(Tcp {
        family,
        ip_at,
        tcp_at,
        source_port: u16::from_be(header[0]),
        port: u16::from_be(header[1]),
        flags,
    })
}

/// Source and destination address of a located segment.
#[inline(always)]
#[must_use]
pub fn endpoints<P: Packet + ?Sized>(packet: &P, tcp: &Tcp) -> Option<(Address, Address)> {
    match tcp.family {
        Family::V4 => {
            let [s0, s1, d0, d1] = packet.pairs::<4>(tcp.ip_at + 12)?;
            Some((mapped(word([s0, s1])), mapped(word([d0, d1]))))
        }
        Family::V6 => {
            let [s0, s1, s2, s3, s4, s5, s6, s7, d0, d1, d2, d3, d4, d5, d6, d7] =
                packet.pairs::<16>(tcp.ip_at + 8)?;
            let source = [long([s0, s1, s2, s3]), long([s4, s5, s6, s7])];
            let destination = [long([d0, d1, d2, d3]), long([d4, d5, d6, d7])];
            Some((source, destination))
        }
    }
}

/// An IPv4 address in its IPv4-mapped form, RFC 4291 §2.5.5.2.
#[inline(always)]
#[must_use]
pub const fn mapped(address: u32) -> Address {
    [0, 0xffff << 32 | address as u64]
}

/// Two pairs as a number in the host's byte order.
#[inline(always)]
#[must_use]
pub const fn word([a, b]: [u16; 2]) -> u32 {
    (u16::from_be(a) as u32) << 16 | u16::from_be(b) as u32
}

#[inline(always)]
const fn long([a, b, c, d]: [u16; 4]) -> u64 {
    (word([a, b]) as u64) << 32 | word([c, d]) as u64
}
