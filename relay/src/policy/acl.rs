//! Who may: networks of clients, lists of addresses.
//!
//! The daemon's own check of the networks is the authority; the gate in front of it only saves work.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// A set of networks, IPv4 and IPv6. Loopback is *not* in it unless it was put there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks {
    nets: Vec<IpNet>,
}

impl Networks {
    /// The set of these networks.
    #[must_use]
    pub fn new(nets: impl IntoIterator<Item = IpNet>) -> Self {
        Self { nets: nets.into_iter().collect() }
    }

    /// Whether the address lies in one of the networks. An IPv4-mapped IPv6 address counts as the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = canonical(address);
        self.nets.iter().any(|net| net.contains(&address))
    }

    /// Whether there is no network in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nets.is_empty()
    }

    /// The networks, as they were given.
    #[must_use]
    pub fn nets(&self) -> &[IpNet] {
        &self.nets
    }
}

/// `::ffff:a.b.c.d` as `a.b.c.d`; every other address as it is.
#[must_use]
pub fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => canonical_v6(v6),
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn canonical_v6(address: Ipv6Addr) -> IpAddr {
    address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4)
}

/// Mail addresses and `@domain`s that are allowed or denied. Domains are compared without case, local parts with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressList {
    entries: Vec<String>,
}

impl AddressList {
    /// The list of these entries, each `local@domain` or `@domain`.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = String>) -> Self {
        Self { entries: entries.into_iter().collect() }
    }

    /// The entries, as they were given.
    #[must_use]
    pub fn entries(&self) -> &[String] {
        &self.entries
    }

    /// Whether nothing is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
