//! The TCP reset of `XDP_ACTION=reset`, written over the very frame that it answers.
//!
//! It turns a frame round in place: addresses swapped, VLAN tags kept, IP options and extension headers left
//! out, every checksum computed anew. What it must not do: answer a reset, or an address that is not one host's.

use crate::packet::{ACK, FIN, Family, IPV6_OCTETS, Packet, RST, SYN, TCP_OCTETS, Tcp, word};

/// A frame that can be written with its bounds checked.
pub trait PacketMut: Packet {
    /// Writes pairs of octets from `offset` on; `None` where the frame is shorter, and then nothing is written.
    fn set_pairs<const N: usize>(&mut self, offset: usize, pairs: [u16; N]) -> Option<()>;
}

/// A frame in a slice.
impl PacketMut for [u8] {
    fn set_pairs<const N: usize>(&mut self, offset: usize, pairs: [u16; N]) -> Option<()> {
        let octets = self.get_mut(offset..offset.checked_add(2 * N)?)?;
        for (octets, pair) in octets.chunks_exact_mut(2).zip(pairs) {
            octets.copy_from_slice(&pair.to_ne_bytes());
        }
        Some(())
    }
}

/// Octets of the shortest frame that goes on an Ethernet, without its check sequence.
pub const FRAME_OCTETS_MIN: usize = 60;
const TCP_PROTOCOL: u8 = 6;
const HOPS: u8 = 64;
/// Octets of the answer's TCP segment, as its headers say it.
const SEGMENT_OCTETS: u16 = 20;
const _: () = assert!(SEGMENT_OCTETS as usize == TCP_OCTETS);

/// Turns the frame into the reset that answers it. The octets that the answer has; what lies behind them must
/// be cut off. `None`: there is no answer to this frame, and the frame may be half written.
#[inline(always)]
pub fn answer<P: PacketMut + ?Sized>(packet: &mut P, tcp: &Tcp) -> Option<usize> {
    if tcp.flags & RST != 0 {
        return None;
    }
    let ip_octets = match tcp.family {
        Family::V4 => answer_ipv4(packet, tcp)?,
        Family::V6 => answer_ipv6(packet, tcp)?,
    };
    let [d0, d1, d2, s0, s1, s2] = packet.pairs::<6>(0)?;
    packet.set_pairs(0, [s0, s1, s2, d0, d1, d2])?;
    Some(tcp.ip_at + ip_octets)
}

#[inline(always)]
fn answer_ipv4<P: PacketMut + ?Sized>(packet: &mut P, tcp: &Tcp) -> Option<usize> {
    let [_, total, _, _, _, _, s0, s1, d0, d1] = packet.pairs::<10>(tcp.ip_at)?;
    // 224.0.0.0/3 and 0.0.0.0/8 are nobody's address (RFC 1122 §3.2.1.3).
    let [first, _] = s0.to_ne_bytes();
    if first >= 224 || first == 0 {
        return None;
    }
    let ip_octets = usize::from(u16::from_be(total));
    let segment = reset_segment(packet, tcp, ip_octets.saturating_sub(tcp.tcp_at - tcp.ip_at))?;
    let whole = 20 + SEGMENT_OCTETS;
    let mut ip = [
        u16::from_ne_bytes([0x45, 0]),
        whole.to_be(),
        0,
        0x4000u16.to_be(),
        u16::from_ne_bytes([HOPS, TCP_PROTOCOL]),
        0,
        d0,
        d1,
        s0,
        s1,
    ];
    ip[5] = !fold(sum(&ip));
    let pseudo = [d0, d1, s0, s1];
    packet.set_pairs(tcp.ip_at, ip)?;
    packet.set_pairs(tcp.ip_at + 20, checked(segment, sum(&pseudo)))?;
    Some(20 + TCP_OCTETS)
}

#[inline(always)]
fn answer_ipv6<P: PacketMut + ?Sized>(packet: &mut P, tcp: &Tcp) -> Option<usize> {
    let [v0, _, payload, _, a @ ..] = packet.pairs::<20>(tcp.ip_at)?;
    let [first, _] = a[0].to_ne_bytes();
    // RFC 4291 §2.7: a multicast address is never a source.
    if first == 0xff {
        return None;
    }
    let extensions = tcp.tcp_at - tcp.ip_at - IPV6_OCTETS;
    let segment = reset_segment(packet, tcp, usize::from(u16::from_be(payload)).saturating_sub(extensions))?;
    let [version, _] = v0.to_ne_bytes();
    let length = SEGMENT_OCTETS.to_be();
    let hops = u16::from_ne_bytes([TCP_PROTOCOL, HOPS]);
    let ip = [
        u16::from_ne_bytes([version & 0xf0, 0]),
        0,
        length,
        hops, //
        a[8],
        a[9],
        a[10],
        a[11],
        a[12],
        a[13],
        a[14],
        a[15], //
        a[0],
        a[1],
        a[2],
        a[3],
        a[4],
        a[5],
        a[6],
        a[7],
    ];
    packet.set_pairs(tcp.ip_at, ip)?;
    packet.set_pairs(tcp.ip_at + IPV6_OCTETS, checked(segment, sum(&a)))?;
    Some(IPV6_OCTETS + TCP_OCTETS)
}

/// The reset for a segment to a closed port, RFC 9293 §3.10.7.1, its checksum still 0. `tcp_octets`: the
/// segment's length by its IP header.
#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "a segment is shorter than 64 KiB; halves are cut out")]
fn reset_segment<P: Packet + ?Sized>(packet: &P, tcp: &Tcp, tcp_octets: usize) -> Option<[u16; 10]> {
    let [from, to, s0, s1, a0, a1, offset, ..] = packet.pairs::<10>(tcp.tcp_at)?;
    let [data_offset, _] = offset.to_ne_bytes();
    let header_octets = usize::from(data_offset >> 4) * 4;
    let data_octets = tcp_octets.saturating_sub(header_octets) as u32;
    if tcp.flags & ACK != 0 {
        return Some([to, from, a0, a1, 0, 0, u16::from_ne_bytes([5 << 4, RST]), 0, 0, 0]);
    }
    let controls = u32::from(tcp.flags & SYN != 0) + u32::from(tcp.flags & FIN != 0);
    let acknowledged = word([s0, s1]).wrapping_add(data_octets).wrapping_add(controls);
    let high = ((acknowledged >> 16) as u16).to_be();
    let low = (acknowledged as u16).to_be();
    Some([to, from, 0, 0, high, low, u16::from_ne_bytes([5 << 4, RST | ACK]), 0, 0, 0])
}

/// The segment with its checksum, RFC 9293 §3.1; `addresses` is the sum of the pseudo-header's addresses.
#[inline(always)]
fn checked(mut segment: [u16; 10], addresses: u32) -> [u16; 10] {
    let constants = u32::from(SEGMENT_OCTETS.to_be()) + u32::from(u16::from(TCP_PROTOCOL).to_be());
    segment[8] = !fold(sum(&segment) + addresses + constants);
    segment
}

/// The sum of pairs: in any byte order, as long as it is stored in the same (RFC 1071 §1).
#[inline(always)]
fn sum(pairs: &[u16]) -> u32 {
    pairs.iter().fold(0, |sum, pair| sum + u32::from(*pair))
}

#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "folded twice, a sum of 30 pairs fits")]
const fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}
