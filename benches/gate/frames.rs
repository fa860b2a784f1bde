//! The frames and networks that are measured.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The relay's own IPv4 address.
pub(crate) const OWN_V4: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// The relay's own IPv6 address.
pub(crate) const OWN_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// Networks of one family, and addresses inside and outside of them.
pub(crate) struct Sources {
    family: &'static str,
    networks: Vec<(IpAddr, u8)>,
    /// The /24 or /64 of each.
    blocks: HashSet<u64>,
}

impl Sources {
    /// So many /24 (one in four a /32), spread over the address space by a fixed rule.
    pub(crate) fn v4(count: usize) -> Self {
        let network = |n: usize| {
            // The top bit is 0: what has it set is outside.
            let bits = scatter(n as u64) as u32 & 0x7fff_ffff;
            let prefix = if n % 4 == 3 { 32 } else { 24 };
            (IpAddr::V4(Ipv4Addr::from_bits(bits & (u32::MAX << (32 - prefix)))), prefix as u8)
        };
        Self::of("IPv4", (0..count).map(network).collect())
    }

    /// So many /64 (one in four a /128) of 2001:db8::/32.
    pub(crate) fn v6(count: usize) -> Self {
        let network = |n: usize| {
            let low = if n % 4 == 3 { scatter(n as u64 + 7) } else { 0 };
            let high = 0x2001_0db8_0000_0000 | (scatter(n as u64) >> 33);
            let prefix = if n % 4 == 3 { 128 } else { 64 };
            (IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low))), prefix)
        };
        Self::of("IPv6", (0..count).map(network).collect())
    }

    fn of(family: &'static str, networks: Vec<(IpAddr, u8)>) -> Self {
        let blocks = networks.iter().map(|(address, _)| block(*address)).collect();
        Self { family, networks, blocks }
    }

    /// `IPv4` or `IPv6`.
    pub(crate) fn family(&self) -> &'static str {
        self.family
    }

    /// Address and prefix of each.
    pub(crate) fn networks(&self) -> &[(IpAddr, u8)] {
        &self.networks
    }

    /// An address in the networks; another one for each number, as far as there are networks.
    pub(crate) fn inside(&self, number: usize) -> IpAddr {
        self.networks[scatter(number as u64) as usize % self.networks.len()].0
    }

    /// An address outside the networks; another one for each number. Half are the next neighbour of a network,
    /// which is told apart last; half are anywhere.
    pub(crate) fn outside(&self, number: usize) -> IpAddr {
        let noise = scatter(number as u64 + 99);
        let near = number.is_multiple_of(2).then(|| neighbour(self.inside(number)));
        match near.filter(|near| !self.blocks.contains(&block(*near))) {
            Some(near) => near,
            None => match self.networks[0].0 {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(noise as u32 | 0x8000_0000)),
                IpAddr::V6(_) => {
                    let high = 0x2001_0db8_8000_0000 | (noise >> 33);
                    IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(noise)))
                }
            },
        }
    }
}

/// The /24 or /64 that an address is in.
fn block(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(v4) => u64::from(v4.to_bits() >> 8),
        IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
    }
}

/// The same address one block on.
fn neighbour(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() ^ 1 << 8)),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() ^ 1 << 64)),
    }
}

/// SplitMix64: numbers without a pattern, the same in every run.
fn scatter(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A SYN from this address to a port of ours.
pub(crate) fn syn(source: IpAddr, port: u16) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    match source {
        IpAddr::V4(source) => {
            let mut header = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
            header.extend(source.octets());
            header.extend(OWN_V4.octets());
            let sum = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>();
            let checksum = !(((sum & 0xffff) + (sum >> 16)) as u16);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            frame.extend([0x08, 0x00]);
            frame.extend(header);
        }
        IpAddr::V6(source) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
            frame.extend(source.octets());
            frame.extend(OWN_V6.octets());
        }
    }
    frame.extend(40_000u16.to_be_bytes());
    frame.extend(port.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(frame.len().max(64), 0);
    frame
}
