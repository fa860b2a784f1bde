//! Who may: networks of clients, lists of addresses.
//!
//! The daemon's own check of the networks is the authority; the gate in front of it only saves work.
//!
//! Networks are looked up as ranges of numbers, sorted and merged, one table for each family. A short table is
//! gone through without a branch that could be guessed wrong; a long one is searched by halves. The road not
//! taken is a trie: it wins nothing at the sizes people write, and costs memory in each worker.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A set of networks, IPv4 and IPv6. Loopback is *not* in it unless it was put there.
///
/// Invariant: the ranges of a family are sorted, do not overlap and do not touch.
#[derive(Debug, Clone, Default)]
pub struct Networks {
    nets: Vec<IpNet>,
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Networks {
    /// The set of these networks. A network of IPv4-mapped IPv6 addresses counts as the IPv4 network.
    #[must_use]
    pub fn new(nets: impl IntoIterator<Item = IpNet>) -> Self {
        let nets: Vec<IpNet> = nets.into_iter().map(canonical_net).collect();
        let v4 = nets.iter().filter_map(|net| match net {
            IpNet::V4(net) => Some((u32::from(net.network()), u32::from(net.broadcast()))),
            IpNet::V6(_) => None,
        });
        let v6 = nets.iter().filter_map(|net| match net {
            IpNet::V4(_) => None,
            IpNet::V6(net) => Some((u128::from(net.network()), u128::from(net.broadcast()))),
        });
        // `::/0` and its like hold the mapped addresses too, but these are always looked up as IPv4.
        let (v4, v6) = (v4.collect(), v6.collect());
        Self { v4: merged(v4, |end| end.checked_add(1)), v6: merged(v6, |end| end.checked_add(1)), nets }
    }

    /// Whether the address lies in one of the networks. An IPv4-mapped IPv6 address counts as the IPv4 address.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match canonical(address) {
            IpAddr::V4(v4) => holds(&self.v4, u32::from(v4)),
            IpAddr::V6(v6) => holds(&self.v6, u128::from(v6)),
        }
    }

    /// The narrowest of the given networks that the address lies in: for people, not for the hot path.
    #[must_use]
    pub fn matching(&self, address: IpAddr) -> Option<IpNet> {
        let address = canonical(address);
        let holding = self.nets.iter().filter(|net| net.contains(&address));
        holding.max_by_key(|net| net.prefix_len()).copied()
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

    /// The same addresses as the fewest networks, sorted, IPv4 first: what the gate is filled with.
    #[must_use]
    pub fn aggregated(&self) -> Vec<IpNet> {
        IpNet::aggregate(&self.nets)
    }
}

impl PartialEq for Networks {
    fn eq(&self, other: &Self) -> bool {
        self.nets == other.nets
    }
}

impl Eq for Networks {}

/// Sorts ranges and joins those that overlap or touch.
fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>, after: impl Fn(T) -> Option<T>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut joined: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (start, end) in ranges {
        match joined.last_mut() {
            Some(last) if after(last.1).is_none_or(|next| start <= next) => last.1 = last.1.max(end),
            _ => joined.push((start, end)),
        }
    }
    joined.shrink_to_fit();
    joined
}

fn holds<T: Ord + Copy>(ranges: &[(T, T)], number: T) -> bool {
    if ranges.len() <= SHORT_TABLE {
        return ranges
            .iter()
            .fold(false, |found, (start, end)| found | ((*start <= number) & (number <= *end)));
    }
    let before = ranges.partition_point(|(start, _)| *start <= number);
    before.checked_sub(1).is_some_and(|at| number <= ranges[at].1)
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

/// `::ffff:a.b.c.d/96+n` as `a.b.c.d/n`; every other network as it is.
#[must_use]
pub fn canonical_net(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let mapped: Option<(Ipv4Addr, u8)> = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    mapped.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok()).map_or(net, IpNet::V4)
}

/// The client that an address stands for: an IPv4 address itself, an IPv6 address its /64, which one host owns
/// whole (RFC 7934 §4). What is counted for each client is counted by this.
#[must_use]
pub fn client_of(address: IpAddr) -> IpAddr {
    match canonical(address) {
        IpAddr::V6(v6) => {
            let whole = Ipv6Net::new(v6, CLIENT_PREFIX_V6).map_or(v6, |net| net.network());
            IpAddr::V6(whole)
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Mail addresses and `@domain`s that are allowed or denied. Domains are compared without case (ASCII), local
/// parts with (RFC 5321 §2.4). `<>` is the null reverse-path.
///
/// Invariant: `domains` and `addresses` are sorted by [`compare_addresses`].
#[derive(Debug, Clone, Default)]
pub struct AddressList {
    entries: Vec<String>,
    /// Without the `@`.
    domains: Vec<String>,
    addresses: Vec<String>,
    has_null: bool,
}

impl AddressList {
    /// The list of these entries, each `local@domain`, `@domain` or `<>`.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = String>) -> Self {
        let entries: Vec<String> = entries.into_iter().collect();
        let mut domains: Vec<String> =
            entries.iter().filter_map(|entry| entry.strip_prefix('@')).map(str::to_owned).collect();
        let is_address = |entry: &&String| !entry.starts_with('@') && *entry != NULL_PATH;
        let mut addresses: Vec<String> = entries.iter().filter(is_address).cloned().collect();
        domains.sort_unstable_by(|a, b| compare_domains(a, b));
        addresses.sort_unstable_by(|a, b| compare_addresses(a, b));
        let has_null = entries.iter().any(|entry| entry == NULL_PATH);
        Self { entries, domains, addresses, has_null }
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

    /// Whether an address, without its angle brackets, is listed by itself or by its domain; the empty one is
    /// the null reverse-path. Nothing is listed in an empty list.
    #[must_use]
    pub fn matches(&self, address: &str) -> bool {
        if address.is_empty() {
            return self.has_null;
        }
        let domain = split(address).1;
        self.domains.binary_search_by(|entry| compare_domains(entry, domain)).is_ok()
            || self.addresses.binary_search_by(|entry| compare_addresses(entry, address)).is_ok()
    }
}

impl PartialEq for AddressList {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Eq for AddressList {}

/// By domain without case, then by local part with.
fn compare_addresses(one: &str, other: &str) -> Ordering {
    let ((local, domain), (other_local, other_domain)) = (split(one), split(other));
    compare_domains(domain, other_domain).then_with(|| local.cmp(other_local))
}

fn compare_domains(one: &str, other: &str) -> Ordering {
    let lower = |octet: u8| octet.to_ascii_lowercase();
    one.bytes().map(lower).cmp(other.bytes().map(lower))
}

/// Local part and domain, parted at the last `@`; a quoted local part may hold others.
fn split(address: &str) -> (&str, &str) {
    address.rsplit_once('@').unwrap_or((address, ""))
}

/// Ranges that are gone through one by one rather than searched by halves.
const SHORT_TABLE: usize = 8;
/// Bits of an IPv6 address that name a client.
const CLIENT_PREFIX_V6: u8 = 64;
const NULL_PATH: &str = "<>";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The oracle: the networks one by one, by ipnet's own comparison.
    fn naive(nets: &[IpNet], address: IpAddr) -> bool {
        let address = canonical(address);
        nets.iter().any(|net| canonical_net(*net).contains(&address))
    }

    fn any_net() -> impl Strategy<Value = IpNet> {
        // Few distinct leading bits, so that networks nest, touch and repeat.
        let v4 = (any::<[u8; 4]>(), 0u8..=32).prop_map(|(mut octets, prefix)| {
            octets[0] &= 3;
            octets[1] &= 1;
            IpNet::new(IpAddr::from(octets), prefix).unwrap().trunc()
        });
        let v6 = (any::<[u8; 16]>(), 0u8..=128).prop_map(|(mut octets, prefix)| {
            octets[..8].fill(0);
            octets[1] &= 1;
            IpNet::new(IpAddr::from(octets), prefix).unwrap().trunc()
        });
        let mapped = (any::<[u8; 4]>(), 0u8..=32).prop_map(|(mut octets, prefix)| {
            octets[0] &= 3;
            let address = IpAddr::V6(Ipv4Addr::from(octets).to_ipv6_mapped());
            IpNet::new(address, 96 + prefix).unwrap().trunc()
        });
        prop_oneof![4 => v4, 3 => v6, 1 => mapped]
    }

    /// The edges of every network and their neighbours, as they are and mapped.
    fn edges(nets: &[IpNet]) -> Vec<IpAddr> {
        let v4 = |number: u32| [number.wrapping_sub(1), number, number.wrapping_add(1)];
        let v6 = |number: u128| [number.wrapping_sub(1), number, number.wrapping_add(1)];
        let mut all = Vec::new();
        for net in nets {
            match canonical_net(*net) {
                IpNet::V4(net) => {
                    let numbers = [u32::from(net.network()), u32::from(net.broadcast())];
                    all.extend(numbers.into_iter().flat_map(v4).map(Ipv4Addr::from).map(IpAddr::V4));
                }
                IpNet::V6(net) => {
                    let numbers = [u128::from(net.network()), u128::from(net.broadcast())];
                    all.extend(numbers.into_iter().flat_map(v6).map(Ipv6Addr::from).map(IpAddr::V6));
                }
            }
        }
        let mapped: Vec<IpAddr> = all
            .iter()
            .filter_map(|address| match address {
                IpAddr::V4(v4) => Some(IpAddr::V6(v4.to_ipv6_mapped())),
                IpAddr::V6(_) => None,
            })
            .collect();
        all.extend(mapped);
        all
    }

    proptest! {
        #[test]
        fn networks_agree_with_the_naive_list(
            nets in prop::collection::vec(any_net(), 0..40),
            random in prop::collection::vec(any::<[u8; 4]>(), 0..20),
        ) {
            let set = Networks::new(nets.clone());
            let random = random.into_iter().map(|octets| IpAddr::from([octets[0] & 7, octets[1], octets[2], octets[3]]));
            for address in edges(&nets).into_iter().chain(random) {
                prop_assert_eq!(set.contains(address), naive(&nets, address), "{}", address);
                prop_assert_eq!(set.matching(address).is_some(), set.contains(address));
            }
        }

        #[test]
        fn ranges_are_sorted_and_apart(nets in prop::collection::vec(any_net(), 0..40)) {
            let set = Networks::new(nets);
            prop_assert!(set.v4.windows(2).all(|pair| pair[0].1.checked_add(1).is_some_and(|next| next < pair[1].0)));
            prop_assert!(set.v6.windows(2).all(|pair| pair[0].1.checked_add(1).is_some_and(|next| next < pair[1].0)));
        }

        #[test]
        fn aggregation_keeps_the_addresses(nets in prop::collection::vec(any_net(), 0..30)) {
            let set = Networks::new(nets.clone());
            let fewer = Networks::new(set.aggregated());
            prop_assert!(fewer.nets().len() <= set.nets().len());
            for address in edges(&nets) {
                prop_assert_eq!(set.contains(address), fewer.contains(address), "{}", address);
            }
        }

        #[test]
        fn addresses_agree_with_the_naive_list(
            entries in prop::collection::vec("(<>|[aA][bB]?@[xX][yY]?|@[xX][yY]?)", 0..8),
            address in "([aA][bB]?@[xX][yY]?)?",
        ) {
            let naive = entries.iter().any(|entry| match (entry.as_str(), address.rsplit_once('@')) {
                ("<>", None) => true,
                (_, None) | ("<>", _) => false,
                (entry, Some((local, domain))) => {
                    let (listed, listed_domain) = entry.rsplit_once('@').unwrap();
                    listed_domain.eq_ignore_ascii_case(domain) && (listed.is_empty() || listed == local)
                }
            });
            prop_assert_eq!(AddressList::new(entries).matches(&address), naive);
        }
    }

    #[test]
    fn the_whole_world_is_one_range() {
        let world = Networks::new(["0.0.0.0/0", "::/0", "10.0.0.0/8"].map(|net| net.parse().unwrap()));
        assert_eq!((world.v4.len(), world.v6.len()), (1, 1));
        for address in
            ["0.0.0.0", "255.255.255.255", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::ffff:1.2.3.4"]
        {
            assert!(world.contains(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn the_empty_set_holds_nobody() {
        assert!(!Networks::default().contains(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        assert!(!Networks::new(["::/0".parse().unwrap()]).contains("::ffff:127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn tells_the_narrowest_network() {
        let set = Networks::new(["10.0.0.0/8", "10.1.0.0/16"].map(|net| net.parse().unwrap()));
        assert_eq!(set.matching("10.1.2.3".parse().unwrap()), Some("10.1.0.0/16".parse().unwrap()));
        assert_eq!(set.matching("10.2.2.3".parse().unwrap()), Some("10.0.0.0/8".parse().unwrap()));
        assert_eq!(set.matching("192.0.2.1".parse().unwrap()), None);
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_64() {
        let client = |address: &str| client_of(address.parse().unwrap()).to_string();
        assert_eq!(client("192.0.2.1"), "192.0.2.1");
        assert_eq!(client("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(client("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(client("2001:db8:1:2:ffff::1"), client("2001:db8:1:2::"));
    }

    #[test]
    fn local_parts_keep_their_case_and_domains_do_not() {
        let list = AddressList::new(["Boss@Example.com".to_owned(), "@Partner.example".to_owned()]);
        assert!(list.matches("Boss@EXAMPLE.COM"));
        assert!(!list.matches("boss@example.com"));
        assert!(list.matches("\"a@b\"@partner.EXAMPLE"));
        assert!(!list.matches("x@sub.partner.example"));
        assert!(!list.matches(""));
        assert!(!list.matches("partner.example"));
        assert!(AddressList::new(["<>".to_owned()]).matches(""));
    }
}
