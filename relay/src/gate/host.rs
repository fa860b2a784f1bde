//! Which interfaces the gate belongs on. Pure: the host is a value.
//!
//! The program sees frames, so it belongs where frames with our packets come in from outside: on Ethernet devices,
//! under their VLANs, bridges and bonds' ports aside. It must not go on loopback, where only the host itself
//! speaks, nor on a bridge or a VLAN device, where drivers do not take it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// One interface of a network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Interface {
    /// Its number.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// `vlan`, `bridge`, `bond`, `veth`, …; none for hardware.
    pub kind: Option<String>,
    /// The one it stands on (a VLAN's), or for veth its other end.
    pub parent: Option<u32>,
    /// The bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// Octets of its largest packet.
    pub mtu: u32,
    /// Switched on.
    pub is_up: bool,
    /// Loopback.
    pub is_loopback: bool,
    /// Carries Ethernet frames.
    pub is_ethernet: bool,
}

/// An address of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Address {
    /// The index of the interface it is on.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
}

/// All interfaces and addresses of a network namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Host {
    /// In the kernel's order.
    pub interfaces: Vec<Interface>,
    /// In the kernel's order.
    pub addresses: Vec<Address>,
}

/// Where the program is to go, and what is to be said about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Interfaces to attach to, each once.
    pub interfaces: Vec<Interface>,
    /// Interfaces that were named or found and cannot take it, with the reason.
    pub refused: Vec<Refused>,
}

/// An interface that the program does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its name.
    pub name: String,
    /// Why.
    pub why: Why,
}

/// Why the program does not go on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There is none of this name (now).
    Absent,
    /// Loopback.
    Loopback,
    /// A bridge without a hardware port.
    Bridge,
    /// A VLAN whose parent is in another network namespace.
    Vlan,
    /// No Ethernet: a tunnel.
    NotEthernet,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = match self.why {
            Why::Absent => "there is no such interface",
            Why::Loopback => "loopback: only this host speaks there, and it always may",
            Why::Bridge => "a bridge: attach to its ports by XDP_INTERFACES, if they are ours to filter",
            Why::Vlan => "a VLAN whose parent is not in this network namespace",
            Why::NotEthernet => "it carries no Ethernet frames",
        };
        write!(f, "{}: {why}", self.name)
    }
}

impl Host {
    /// The addresses that a wildcard listener listens on.
    #[must_use]
    pub fn own_addresses(&self) -> Vec<IpAddr> {
        let mut own: Vec<IpAddr> = self.addresses.iter().map(|address| address.address).collect();
        own.sort_unstable();
        own.dedup();
        own
    }

    /// Where to attach: to the named interfaces, or without names to those that own the listen addresses. An address that
    /// only loopback owns (anycast, say) comes in by any of the others.
    #[must_use]
    pub fn choose(&self, names: &[String], listeners: &[SocketAddr]) -> Choice {
        let mut choice = Choice::default();
        for name in names {
            match self.interfaces.iter().find(|interface| interface.name == *name) {
                Some(interface) => self.add(interface, &mut choice),
                None => choice.refused.push(Refused { name: name.clone(), why: Why::Absent }),
            }
        }
        if names.is_empty() {
            for interface in self.owning(listeners) {
                self.add(interface, &mut choice);
            }
        }
        choice
    }

    fn owning(&self, listeners: &[SocketAddr]) -> Vec<&Interface> {
        let (wild, named): (Vec<&SocketAddr>, Vec<&SocketAddr>) =
            listeners.iter().partition(|listener| listener.ip().is_unspecified());
        let named: Vec<IpAddr> =
            named.into_iter().map(SocketAddr::ip).filter(|ip| !ip.is_loopback()).collect();
        let owners = |ip: &IpAddr| {
            let ip = *ip;
            let of_ip = self.addresses.iter().filter(move |address| address.address == ip);
            of_ip.filter_map(|address| self.by_index(address.interface)).filter(|owner| !owner.is_loopback)
        };
        let is_routed = |ip: &IpAddr| owners(ip).next().is_none();
        if !wild.is_empty() || named.iter().any(is_routed) {
            return self.interfaces.iter().filter(|interface| self.is_outward(interface)).collect();
        }
        let owning = |interface: &&Interface| {
            named.iter().any(|ip| owners(ip).any(|owner| owner.index == interface.index))
        };
        self.interfaces.iter().filter(owning).collect()
    }

    /// Whether strangers may come in by it: up, and with an address that is more than link-local. The host's ends
    /// of containers' links have none; so have ports of bridges, whose bridge has it.
    fn is_outward(&self, interface: &Interface) -> bool {
        let of_it = self.addresses.iter().filter(|address| address.interface == interface.index);
        interface.is_up
            && !interface.is_loopback
            && of_it.into_iter().any(|address| is_global(address.address))
    }

    fn by_index(&self, index: u32) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.index == index)
    }

    /// The interface itself, or in its place what its frames come in by.
    fn add(&self, interface: &Interface, choice: &mut Choice) {
        // A VLAN on a VLAN on a bridge: deeper stacks are nobody's.
        self.add_at(interface, choice, 4);
    }

    fn add_at(&self, interface: &Interface, choice: &mut Choice, depth: u32) {
        let refused = |why: Why| Refused { name: interface.name.clone(), why };
        match interface.kind.as_deref() {
            _ if interface.is_loopback => choice.refused.push(refused(Why::Loopback)),
            Some("bridge") => {
                let is_port = |port: &&Interface| port.master == Some(interface.index) && port.is_hardware();
                let ports: Vec<&Interface> = self.interfaces.iter().filter(is_port).collect();
                if ports.is_empty() || depth == 0 {
                    choice.refused.push(refused(Why::Bridge));
                }
                ports.into_iter().for_each(|port| self.add_at(port, choice, depth.saturating_sub(1)));
            }
            Some("vlan") => match interface.parent.and_then(|parent| self.by_index(parent)) {
                Some(parent) if depth > 0 => self.add_at(parent, choice, depth - 1),
                _ => choice.refused.push(refused(Why::Vlan)),
            },
            _ if !interface.is_ethernet => choice.refused.push(refused(Why::NotEthernet)),
            _ if choice.interfaces.iter().any(|chosen| chosen.index == interface.index) => {}
            _ => choice.interfaces.push(interface.clone()),
        }
    }
}

impl Interface {
    /// Hardware, or a bond of it.
    fn is_hardware(&self) -> bool {
        matches!(self.kind.as_deref(), None | Some("bond" | "team" | "vlan"))
    }
}

fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interfaces as `index name kind@parent>master addresses…`, up and Ethernet but for lo and tun.
    fn host(lines: &[&str]) -> Host {
        let mut host = Host::default();
        for line in lines {
            let mut words = line.split(' ');
            let index = words.next().unwrap().parse().unwrap();
            let name = words.next().unwrap().to_owned();
            let shape = words.next().unwrap();
            let (shape, master) = shape.split_once('>').map_or((shape, None), |(s, m)| (s, m.parse().ok()));
            let (kind, parent) = shape.split_once('@').map_or((shape, None), |(k, p)| (k, p.parse().ok()));
            host.interfaces.push(Interface {
                index,
                is_loopback: name == "lo",
                is_ethernet: name != "lo" && kind != "tun",
                kind: (kind != "hw").then(|| kind.to_owned()),
                parent,
                master,
                mtu: 1500,
                is_up: true,
                name,
            });
            for address in words {
                host.addresses.push(Address { interface: index, address: address.parse().unwrap() });
            }
        }
        host
    }

    fn chosen(host: &Host, names: &[&str], listeners: &[&str]) -> (Vec<String>, Vec<(String, Why)>) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let listeners: Vec<SocketAddr> = listeners.iter().map(|text| text.parse().unwrap()).collect();
        let choice = host.choose(&names, &listeners);
        (
            choice.interfaces.into_iter().map(|interface| interface.name).collect(),
            choice.refused.into_iter().map(|refused| (refused.name, refused.why)).collect(),
        )
    }

    fn server() -> Host {
        host(&[
            "1 lo hw 127.0.0.1 ::1 198.18.9.9",
            "2 eth0 hw 198.18.0.1 fe80::1",
            "3 eth1 hw 10.0.0.1",
            "4 eth0.10 vlan@2 198.18.1.1",
            "5 docker0 bridge 172.17.0.1",
            "6 veth6 veth@9>5 fe80::6",
            "7 br0 bridge 198.18.2.1",
            "8 eth2 hw>7",
            "9 tun0 tun 198.18.3.1",
        ])
    }

    #[test]
    fn a_wildcard_goes_where_strangers_come_in() {
        let (attach, refused) = chosen(&server(), &[], &["0.0.0.0:25", "[::]:25"]);
        assert_eq!(attach, ["eth0", "eth1", "eth2"]);
        assert_eq!(refused, [("docker0".to_owned(), Why::Bridge), ("tun0".to_owned(), Why::NotEthernet)]);
    }

    #[test]
    fn an_address_goes_to_its_owner() {
        assert_eq!(chosen(&server(), &[], &["10.0.0.1:25"]).0, ["eth1"]);
        assert_eq!(chosen(&server(), &[], &["198.18.1.1:25"]).0, ["eth0"], "a VLAN stands on its parent");
        assert_eq!(chosen(&server(), &[], &["198.18.2.1:25"]).0, ["eth2"], "a bridge stands on its hardware");
        assert_eq!(chosen(&server(), &[], &["127.0.0.1:25"]).0, [""; 0], "nobody comes in to loopback");
        assert_eq!(
            chosen(&server(), &[], &["198.18.9.9:25"]).0,
            ["eth0", "eth1", "eth2"],
            "routed to loopback"
        );
    }

    #[test]
    fn named_interfaces_are_taken_at_their_word() {
        assert_eq!(chosen(&server(), &["veth6", "eth1"], &["0.0.0.0:25"]).0, ["veth6", "eth1"]);
        assert_eq!(chosen(&server(), &["eth0.10", "eth0"], &["0.0.0.0:25"]).0, ["eth0"], "once each");
        let (attach, refused) = chosen(&server(), &["lo", "docker0", "eth7"], &["0.0.0.0:25"]);
        assert_eq!(attach, [""; 0]);
        let whys: Vec<Why> = refused.into_iter().map(|(_, why)| why).collect();
        assert_eq!(whys, [Why::Loopback, Why::Bridge, Why::Absent]);
    }

    #[test]
    fn a_vlan_without_its_parent_is_refused() {
        let host = host(&["4 eth0.10 vlan@2 198.18.1.1"]);
        assert_eq!(chosen(&host, &[], &["0.0.0.0:25"]).1, [("eth0.10".to_owned(), Why::Vlan)]);
    }
}
