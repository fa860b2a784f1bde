//! From the configuration's lists to a plan that compiles: listeners spelled out, networks numbered.
//!
//! Pure but for the book of numbers that it keeps. It must not widen a list: what is not written is outside.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use ringpost_ebpf::abi::{Action, Class, NETWORKS_MAX};
use ringpost_ebpf::compile::{Listener, Network, Plan, SynRate};
use ringpost_ebpf::verdict::NETWORK_LOOPBACK;

use super::config;
use crate::policy::acl::Networks;
use crate::policy::rate::Rate;

/// Where the daemon listens, and who may come there. Ports as bound, never 0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lists {
    /// `LISTEN_SMTP`.
    pub smtp: Vec<SocketAddr>,
    /// `LISTEN_SUBMISSION` and `LISTEN_SUBMISSIONS`.
    pub submission: Vec<SocketAddr>,
    /// `ACCEPTED_NETWORKS`.
    pub accepted_networks: Networks,
    /// `SUBMISSION_NETWORKS`.
    pub submission_networks: Networks,
}

impl Lists {
    /// Every listener with its class.
    pub fn listeners(&self) -> impl Iterator<Item = (SocketAddr, Class)> {
        let smtp = self.smtp.iter().map(|address| (*address, Class::Smtp));
        smtp.chain(self.submission.iter().map(|address| (*address, Class::Submission)))
    }

    /// Every network with its class.
    pub fn networks(&self) -> impl Iterator<Item = (Class, IpNet)> {
        let accepted = self.accepted_networks.nets().iter().map(|net| (Class::Smtp, *net));
        accepted.chain(self.submission_networks.nets().iter().map(|net| (Class::Submission, *net)))
    }
}

/// The plan of these lists on a host with these addresses.
///
/// A listener on the unspecified address listens on each address of the host: spelled out, because a frame to
/// another host may pass the same interface (a router, a bridge's port, a container's address), and
/// that is not ours to judge.
#[must_use]
pub fn plan(
    lists: &Lists,
    config: &config::Config,
    own: &[IpAddr],
    numbers: &mut Numbers,
    generation: u64,
) -> Plan {
    let networks: Vec<(Class, IpNet)> = lists.networks().collect();
    numbers.assign(networks.iter().map(|(_, net)| *net));
    let numbered = networks.into_iter().map(|(class, net)| {
        let network = Network { address: net.network(), prefix: net.prefix_len(), number: numbers.of(&net) };
        (class, network)
    });
    Plan {
        generation,
        action: match config.action {
            config::Action::Drop => Action::Drop,
            config::Action::Reset => Action::Reset,
            config::Action::Count => Action::Count,
        },
        syn_rate: config.syn_rate.map(syn_rate),
        listeners: lists.listeners().flat_map(|(address, class)| spelled_out(address, class, own)).collect(),
        networks: numbered.collect(),
    }
}

/// What to say about listen ports to which the kernel may also get replies of its own connections.
pub fn port_warnings(lists: &Lists, ephemeral: Option<&RangeInclusive<u16>>) -> Vec<String> {
    let ports: BTreeSet<u16> = lists.listeners().map(|(address, _)| address.port()).collect();
    let in_range = |port: &u16| ephemeral.is_some_and(|range| range.contains(port));
    let warning = |port: u16| {
        format!(
            "port {port} is one of net.ipv4.ip_local_port_range: replies to our own connections may come in there \
             and be dropped; reserve it by net.ipv4.ip_local_reserved_ports"
        )
    };
    ports.into_iter().filter(in_range).map(warning).collect()
}

fn spelled_out(address: SocketAddr, class: Class, own: &[IpAddr]) -> Vec<Listener> {
    let ip = address.ip();
    let listener = |address: IpAddr, port: u16| Listener { address, port, class };
    if !ip.is_unspecified() {
        return vec![listener(ip, address.port())];
    }
    let same_family = own.iter().filter(|own| own.is_ipv4() == ip.is_ipv4());
    same_family.map(|own| listener(*own, address.port())).collect()
}

/// A rate as the kernel keeps it: what one connection costs, and how far a burst may run ahead of time.
fn syn_rate(rate: Rate) -> SynRate {
    let nanos = u64::try_from(rate.period.as_nanos()).unwrap_or(u64::MAX);
    let cost_ns = (nanos / u64::from(rate.events.max(1))).max(1);
    SynRate { cost_ns, burst_ns: cost_ns.saturating_mul(u64::from(rate.burst.max(1)) - 1) }
}

/// Which counter belongs to which network, through all reloads: a network keeps its number, and so its count,
/// as long as it is in the lists.
#[derive(Debug, Default)]
pub struct Numbers {
    by_net: HashMap<IpNet, u16>,
    free: BTreeSet<u16>,
    /// Free from the next reload on: packets may still be counted by the table before.
    retired: BTreeSet<u16>,
    next: u16,
    fresh: Vec<u16>,
}

/// The counter of loopback.
const LOOPBACK: u16 = 0;
/// The counter that all networks share for which there is no other.
pub const SHARED: u16 = 16_383;
const _: () = assert!(LOOPBACK as u32 == NETWORK_LOOPBACK && SHARED as u32 == NETWORKS_MAX - 1);

impl Numbers {
    /// Gives each network of the next table its number.
    fn assign(&mut self, nets: impl Iterator<Item = IpNet> + Clone) {
        self.free.append(&mut self.retired);
        let wanted: std::collections::HashSet<IpNet> = nets.clone().collect();
        let gone: Vec<IpNet> = self.by_net.keys().filter(|net| !wanted.contains(*net)).copied().collect();
        for net in gone {
            self.retired.extend(self.by_net.remove(&net).filter(|number| *number != SHARED));
        }
        for net in nets {
            if !self.by_net.contains_key(&net) {
                let number = self.take();
                self.by_net.insert(net, number);
            }
        }
    }

    fn take(&mut self) -> u16 {
        if let Some(number) = self.free.pop_first() {
            self.fresh.push(number);
            return number;
        }
        if self.next + 1 >= SHARED {
            return SHARED;
        }
        self.next += 1;
        self.next
    }

    /// The number of a network; that of loopback for one that was never assigned.
    #[must_use]
    pub fn of(&self, net: &IpNet) -> u16 {
        self.by_net.get(net).copied().unwrap_or(LOOPBACK)
    }

    /// Numbers that had another network before: their counters must be cleared before the table is published.
    pub fn take_reused(&mut self) -> Vec<u16> {
        std::mem::take(&mut self.fresh)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn config() -> config::Config {
        config::Config {
            wanted: config::Wanted::Auto,
            interfaces: Vec::new(),
            mode: config::Mode::Auto,
            action: config::Action::Drop,
            syn_rate: None,
            autoban: None,
        }
    }

    #[test]
    fn a_wildcard_listens_on_the_hosts_addresses_of_its_family() {
        let lists = Lists {
            smtp: vec!["0.0.0.0:25".parse().unwrap(), "[::]:25".parse().unwrap()],
            submission: vec!["198.18.0.7:587".parse().unwrap()],
            ..Lists::default()
        };
        let own = ["198.18.0.1", "127.0.0.1", "2001:db8::1"].map(|text| text.parse::<IpAddr>().unwrap());
        let plan = plan(&lists, &config(), &own, &mut Numbers::default(), 1);
        let mut listeners: Vec<(IpAddr, u16)> =
            plan.listeners.iter().map(|listener| (listener.address, listener.port)).collect();
        listeners.sort();
        let expected = [("127.0.0.1", 25), ("198.18.0.1", 25), ("198.18.0.7", 587), ("2001:db8::1", 25)];
        assert_eq!(listeners, expected.map(|(text, port)| (text.parse().unwrap(), port)));
    }

    #[test]
    fn warns_of_ports_that_replies_come_to() {
        let smtp = vec!["0.0.0.0:2525".parse().unwrap(), "0.0.0.0:40025".parse().unwrap()];
        let lists = Lists { smtp, ..Lists::default() };
        let warnings = port_warnings(&lists, Some(&(32_768..=60_999)));
        assert!(warnings.len() == 1 && warnings[0].starts_with("port 40025 "), "{warnings:?}");
        assert!(port_warnings(&lists, None).is_empty());
    }

    #[test]
    fn a_rate_becomes_a_price_and_a_burst() {
        let rate = Rate { events: 200, period: Duration::from_secs(1), burst: 400 };
        assert_eq!(syn_rate(rate), SynRate { cost_ns: 5_000_000, burst_ns: 399 * 5_000_000 });
        let whole = Rate { events: u32::MAX, period: Duration::from_nanos(1), burst: 1 };
        assert_eq!(syn_rate(whole), SynRate { cost_ns: 1, burst_ns: 0 });
    }

    #[test]
    fn a_network_keeps_its_number_as_long_as_it_is_listed() {
        let mut numbers = Numbers::default();
        let (a, b, c) = (net("10.0.0.0/8"), net("192.168.0.0/16"), net("2001:db8::/32"));
        numbers.assign([a, b].into_iter());
        let (of_a, of_b) = (numbers.of(&a), numbers.of(&b));
        assert!(of_a != of_b && of_a != LOOPBACK && of_b != LOOPBACK);
        // b goes, c comes: a's number stays, b's is not given away at once.
        numbers.assign([a, c].into_iter());
        assert_eq!(numbers.of(&a), of_a);
        assert_ne!(numbers.of(&c), of_b);
        assert_eq!(numbers.take_reused(), [0u16; 0]);
        // At the next reload it may be, and is named as one to clear.
        numbers.assign([a, c, b].into_iter());
        assert_eq!(numbers.of(&b), of_b);
        assert_eq!(numbers.take_reused(), [of_b]);
    }

    #[test]
    fn networks_without_a_counter_of_their_own_share_the_last() {
        let mut numbers = Numbers::default();
        let nets: Vec<IpNet> = (0..NETWORKS_MAX + 10)
            .map(|n| IpNet::new(IpAddr::from((n << 8).to_be_bytes()), 24).unwrap())
            .collect();
        numbers.assign(nets.iter().copied());
        assert_eq!(nets.iter().filter(|net| numbers.of(net) == SHARED).count(), 12);
    }
}
