//! Every header shape and every verdict, once each, in the kernel by both entry points and on the host.

use std::net::IpAddr;

use ringpost::gate::loaded::Entry;
use ringpost_ebpf::abi::{Action, Class, Verdict};
use ringpost_ebpf::compile::{Listener, Network, Plan, SynRate, bits_of_address};

use crate::kernel::{Bench, DROP, PASS, TX};
use crate::object;
use crate::packet::{Packet, QINQ, VLAN, ack, icmp, syn, tcp, udp};

pub(crate) const OWN: &str = "198.18.0.1";
pub(crate) const OWN6: &str = "2001:db8::1";
pub(crate) const FRIEND: &str = "10.1.2.3";
pub(crate) const FRIEND6: &str = "2001:db8:1::3";
pub(crate) const STRANGER: &str = "198.18.9.9";
pub(crate) const STRANGER6: &str = "2001:db8:9::9";

/// A relay on 25, 465 and 587 of one address of each family: 10/8 and 2001:db8:1::/48 may come to 25, 192.168/16
/// to the others.
pub(crate) fn plan() -> Plan {
    let own = [OWN, OWN6].map(|text| text.parse::<IpAddr>().unwrap());
    let ports = [(25, Class::Smtp), (465, Class::Submission), (587, Class::Submission)];
    let listeners =
        own.iter().flat_map(|address| ports.map(|(port, class)| Listener { address: *address, port, class }));
    let network = |class: Class, text: &str, prefix: u8, number: u16| {
        (class, Network { address: text.parse().unwrap(), prefix, number })
    };
    Plan {
        generation: 1,
        action: Action::Drop,
        syn_rate: None,
        listeners: listeners.collect(),
        networks: vec![
            network(Class::Smtp, "10.0.0.0", 8, 1),
            network(Class::Smtp, "2001:db8:1::", 48, 2),
            network(Class::Submission, "192.168.0.0", 16, 3),
        ],
    }
}

fn from_stranger() -> Packet {
    syn().from(STRANGER).to(OWN, 25)
}

fn from_stranger6() -> Packet {
    syn().from(STRANGER6).to(OWN6, 25)
}

/// Name, packet, verdict. A stranger's packet that passes shows that it was not taken for one to a listener.
type Case = (&'static str, Packet, Verdict);

fn cases() -> Vec<Case> {
    [whose(), shapes(), shapes6()].concat()
}

/// From whom, to whom, with what.
fn whose() -> Vec<Case> {
    use Verdict::{Accepted, DroppedNetwork, Other};
    vec![
        ("a friend's SYN", syn().from(FRIEND).to(OWN, 25), Accepted),
        ("a friend's ACK", ack().from(FRIEND).to(OWN, 25), Accepted),
        ("a friend over IPv6", syn().from(FRIEND6).to(OWN6, 25), Accepted),
        ("a friend of 25 on 587", syn().from(FRIEND).to(OWN, 587), DroppedNetwork),
        ("a friend of 587 on 587", syn().from("192.168.3.4").to(OWN, 587), Accepted),
        ("a friend of 587 on 465", syn().from("192.168.3.4").to(OWN, 465), Accepted),
        ("a friend of 587 on 25", syn().from("192.168.3.4").to(OWN, 25), DroppedNetwork),
        ("first address of a network", syn().from("10.0.0.0").to(OWN, 25), Accepted),
        ("last address of a network", syn().from("10.255.255.255").to(OWN, 25), Accepted),
        ("one before a network", syn().from("9.255.255.255").to(OWN, 25), DroppedNetwork),
        ("one after a network", syn().from("11.0.0.0").to(OWN, 25), DroppedNetwork),
        ("loopback", syn().from("127.0.0.5").to(OWN, 25), Accepted),
        ("loopback over IPv6", syn().from("::1").to(OWN6, 25), Accepted),
        ("a mapped friend", syn().from("::ffff:10.1.2.3").to(OWN6, 25), Accepted),
        ("a mapped stranger", syn().from("::ffff:11.1.2.3").to(OWN6, 25), DroppedNetwork),
        ("a stranger's SYN", from_stranger(), DroppedNetwork),
        ("a stranger's ACK", ack().from(STRANGER).to(OWN, 25), DroppedNetwork),
        ("a stranger's RST", tcp(0x04).from(STRANGER).to(OWN, 25), DroppedNetwork),
        ("a stranger over IPv6", from_stranger6(), DroppedNetwork),
        ("a stranger's data", ack().from(STRANGER).to(OWN, 25).with_payload(1400), DroppedNetwork),
        ("a stranger on ssh", syn().from(STRANGER).to(OWN, 22), Other),
        ("a stranger on a port with the same low bits", syn().from(STRANGER).to(OWN, 25 + 64), Other),
        ("a stranger on ssh over IPv6", syn().from(STRANGER6).to(OWN6, 22), Other),
        ("an upstream's reply", ack().from(STRANGER).with_source_port(25).to(OWN, 40_000), Other),
        ("another host's port 25", syn().from(STRANGER).to("198.18.0.2", 25), Other),
        ("another host's port 25 over IPv6", syn().from(STRANGER6).to("2001:db8::2", 25), Other),
        ("UDP to 25", udp().from(STRANGER).to(OWN, 25), Other),
        ("ICMP", icmp().from(STRANGER).to(OWN, 25), Other),
        ("ICMPv6", icmp().from(STRANGER6).to(OWN6, 25), Other),
        ("ESP", from_stranger().carrying(50), Other),
        ("ESP over IPv6", from_stranger6().carrying(50), Other),
        ("no next header", from_stranger6().carrying(59), Other),
        ("TCP in IP in IP", from_stranger().carrying(4), Other),
        ("ARP", from_stranger().of_type(0x0806), Other),
        ("LLC", from_stranger().of_type(0x0030), Other),
        ("PPPoE", from_stranger().of_type(0x8864), Other),
    ]
}

/// Ethernet and IPv4 in every shape.
fn shapes() -> Vec<Case> {
    use Verdict::{Accepted, DroppedNetwork, Other, Unparsed};
    vec![
        ("one tag", from_stranger().tagged(VLAN), DroppedNetwork),
        ("one tag over IPv6", from_stranger6().tagged(VLAN), DroppedNetwork),
        ("two tags", from_stranger().tagged(QINQ).tagged(VLAN), DroppedNetwork),
        ("two old tags", from_stranger().tagged(0x9100).tagged(VLAN), DroppedNetwork),
        ("a friend's two tags", syn().from(FRIEND).to(OWN, 25).tagged(QINQ).tagged(VLAN), Accepted),
        ("three tags", from_stranger().tagged(QINQ).tagged(VLAN).tagged(VLAN), Unparsed),
        ("a tag and ARP", from_stranger().tagged(VLAN).of_type(0x0806), Other),
        ("a tag cut short", from_stranger().tagged(VLAN).cut_to(16), Unparsed),
        ("4 octets of options", from_stranger().with_options(4), DroppedNetwork),
        ("40 octets of options", from_stranger().with_options(40), DroppedNetwork),
        ("a friend's options", syn().from(FRIEND).to(OWN, 25).with_options(40), Accepted),
        ("a header of 4 words", from_stranger().claiming_words(4), Unparsed),
        ("a header that runs out of the frame", from_stranger().claiming_words(15), Unparsed),
        ("a first fragment", from_stranger().fragment(0, true).with_payload(1200), DroppedNetwork),
        ("a later fragment that looks like a SYN", from_stranger().fragment(1480, true), Other),
        ("a last fragment that looks like a SYN", from_stranger().fragment(2960, false), Other),
        ("an Ethernet header alone", from_stranger().cut_to(14), Unparsed),
        ("half an IPv4 header", from_stranger().cut_to(30), Unparsed),
        ("no ports", from_stranger().cut_to(34), Unparsed),
        ("ports and no more", from_stranger().cut_to(38), Unparsed),
        ("all but one octet of TCP", from_stranger().cut_to(53), Unparsed),
    ]
}

/// IPv6 in every shape.
fn shapes6() -> Vec<Case> {
    use Verdict::{Accepted, DroppedNetwork, Other, Unparsed};
    vec![
        ("half an IPv6 header", from_stranger6().cut_to(40), Unparsed),
        ("IPv6 without ports", from_stranger6().cut_to(54), Unparsed),
        ("IPv6 in IPv4's clothes", from_stranger6().of_type(0x0800), Unparsed),
        ("IPv4 in IPv6's clothes", from_stranger().of_type(0x86dd).with_payload(40), Unparsed),
        ("hop by hop", from_stranger6().behind(0, 8), DroppedNetwork),
        ("long destination options", from_stranger6().behind(60, 24), DroppedNetwork),
        ("a routing header at its end", from_stranger6().behind(43, 24), DroppedNetwork),
        ("a routing header on its way", from_stranger6().behind(43, 24).with_segments_left(1), Other),
        ("authentication", from_stranger6().behind(51, 24), DroppedNetwork),
        ("a friend behind six headers", six(syn().from(FRIEND6).to(OWN6, 25)), Accepted),
        ("a stranger behind six headers", six(from_stranger6()), DroppedNetwork),
        ("seven headers", six(from_stranger6()).behind(60, 8), Unparsed),
        ("UDP behind six headers", six(udp().from(STRANGER6).to(OWN6, 25)), Other),
        ("an atomic fragment", from_stranger6().fragment(0, false), DroppedNetwork),
        ("an IPv6 first fragment", from_stranger6().fragment(0, true).with_payload(1200), DroppedNetwork),
        ("an IPv6 later fragment", from_stranger6().fragment(1480, true), Other),
        ("an extension header cut short", from_stranger6().behind(60, 24).cut_to(56), Unparsed),
        ("an extension header that eats the rest", from_stranger6().behind(60, 24).cut_to(70), Unparsed),
    ]
}

fn six(packet: Packet) -> Packet {
    packet.behind(0, 8).behind(60, 8).behind(43, 8).behind(51, 16).behind(60, 16).behind(60, 8)
}

fn action_of(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::DroppedNetwork | Verdict::DroppedBan | Verdict::DroppedRate => DROP,
        Verdict::Reset => TX,
        Verdict::Accepted | Verdict::Counted | Verdict::Other | Verdict::Unparsed => PASS,
    }
}

#[test]
fn host_and_naive_reading_agree_on_every_shape() {
    let bench = OnHost::new(&plan());
    for (name, packet, verdict) in cases() {
        assert_eq!(bench.verdict(&packet.octets()), verdict, "{name}");
    }
}

#[test]
fn kernel_and_host_agree_on_every_shape() {
    let bench = Bench::new(&object!(), &plan());
    for (name, packet, verdict) in cases() {
        let frame = packet.octets();
        for entry in [Entry::Linear, Entry::Frags] {
            if bench.loaded.program(entry).is_ok_and(|program| program.fd().is_ok()) {
                let ran = bench.run_by(entry, &frame);
                assert_eq!((ran.action, ran.verdict), (action_of(verdict), verdict), "{name}, {entry:?}");
                assert_eq!(ran.octets, frame, "{name}: left as it was");
            }
        }
        assert_eq!(bench.judge(&frame).verdict, verdict, "{name}, host");
    }
}

#[test]
fn only_the_listen_ports_are_judged() {
    let bench = Bench::new(&object!(), &plan());
    for port in 0..=u16::MAX {
        let frame = syn().from(STRANGER).to(OWN, port).octets();
        let expected = if [25, 465, 587].contains(&port) { Verdict::DroppedNetwork } else { Verdict::Other };
        assert_eq!(bench.run(&frame).verdict, expected, "{port}");
    }
}

#[test]
fn the_longest_network_counts_the_packet() {
    let mut nested = plan();
    let network = |text: &str, prefix, number| {
        (Class::Smtp, Network { address: text.parse().unwrap(), prefix, number })
    };
    nested.networks = vec![network("10.0.0.0", 8, 1), network("10.1.0.0", 16, 2), network("10.1.2.3", 32, 3)];
    let bench = Bench::new(&object!(), &nested);
    for (source, times) in [("10.9.9.9", 1), ("10.1.9.9", 2), ("10.1.2.3", 3), ("127.0.0.1", 4)] {
        (0..times).for_each(|_| drop(bench.run(&syn().from(source).to(OWN, 25).octets())));
    }
    let counts = [1, 2, 3, 0].map(|number| bench.loaded.network_packets(number).unwrap());
    assert_eq!(counts, [1, 2, 3, 4]);
}

#[test]
fn without_a_table_everything_passes() {
    let loaded = ringpost::gate::loaded::Loaded::new(&object!()).unwrap();
    let options = aya::programs::TestRunOptions {
        data_in: Some(&from_stranger().octets()),
        ..aya::programs::TestRunOptions::default()
    };
    let program = loaded.program(Entry::Linear).unwrap();
    assert_eq!(aya::programs::TestRun::test_run(program, options).unwrap().return_value, PASS);
}

#[test]
fn a_ban_counts_for_listeners_and_for_its_time_only() {
    let mut bench = Bench::new(&object!(), &plan());
    let banned = |text: &str| bits_of_address(text.parse().unwrap());
    bench.ban(banned(FRIEND), u64::MAX);
    bench.ban(banned(FRIEND6), u64::MAX);
    bench.ban(banned("10.5.5.5"), 1);
    for (source, own) in [(FRIEND, OWN), (FRIEND6, OWN6)] {
        let to = |port| bench.run(&syn().from(source).to(own, port).octets());
        assert_eq!((to(25).verdict, to(25).action), (Verdict::DroppedBan, DROP));
        assert_eq!(to(22).verdict, Verdict::Other, "a ban does not cut ssh");
    }
    assert_eq!(bench.run(&syn().from("10.5.5.5").to(OWN, 25).octets()).verdict, Verdict::Accepted, "over");
    assert_eq!(bench.run(&syn().from("10.5.5.6").to(OWN, 25).octets()).verdict, Verdict::Accepted);
    bench.loaded.unban(banned(FRIEND));
    assert_eq!(bench.run(&syn().from(FRIEND).to(OWN, 25).octets()).verdict, Verdict::Accepted);
}

#[test]
fn a_source_that_opens_too_fast_is_dropped_and_others_are_not() {
    // A connection costs an hour, three may come at once: no clock decides this test.
    const HOUR: u64 = 3_600_000_000_000;
    let rate = Some(SynRate { cost_ns: HOUR, burst_ns: 2 * HOUR });
    let bench = Bench::new(&object!(), &Plan { syn_rate: rate, ..plan() });
    let from = |source: &str, own: &str| bench.run(&syn().from(source).to(own, 25).octets()).verdict;
    let first: Vec<Verdict> = (0..5).map(|_| from(FRIEND, OWN)).collect();
    let (yes, no) = (Verdict::Accepted, Verdict::DroppedRate);
    assert_eq!(first, [yes, yes, yes, no, no]);
    assert_eq!(from("10.1.2.4", OWN), yes, "another source");
    assert_eq!(
        bench.run(&ack().from(FRIEND).to(OWN, 25).octets()).verdict,
        yes,
        "an open connection goes on"
    );
    // IPv6: one bucket for all of a /64.
    let six: Vec<Verdict> = (1..=4).map(|n| from(&format!("2001:db8:1::{n}"), OWN6)).collect();
    assert_eq!(six, [yes, yes, yes, no]);
    assert_eq!(from("2001:db8:1:1::1", OWN6), yes);
}

#[test]
fn counting_passes_and_counts_whatever_would_be_dropped() {
    let mut bench = Bench::new(&object!(), &Plan { action: Action::Count, ..plan() });
    bench.ban(bits_of_address(FRIEND.parse().unwrap()), u64::MAX);
    for source in [STRANGER, FRIEND] {
        let ran = bench.run(&syn().from(source).to(OWN, 25).octets());
        assert_eq!((ran.action, ran.verdict), (PASS, Verdict::Counted));
    }
}

#[test]
fn refusals_are_sampled_as_far_as_granted() {
    let mut bench = Bench::new(&object!(), &plan());
    bench.set_switches(2);
    // BPF_PROG_TEST_RUN stays on this thread's CPU only by luck: each CPU has a grant of its own.
    for port in [25, 465, 587] {
        bench.run(&syn().from(STRANGER).to(OWN, port).octets());
    }
    bench.run(&from_stranger6().octets());
    let mut events = Vec::new();
    while let Some(event) = bench.loaded.take_drop() {
        events.push(event);
    }
    assert!((2..=4).contains(&events.len()), "{events:?}");
    let first = events[0];
    assert_eq!(ringpost_ebpf::compile::address_of(first.source), STRANGER.parse::<IpAddr>().unwrap());
    assert_eq!(ringpost_ebpf::compile::address_of(first.destination), OWN.parse::<IpAddr>().unwrap());
    assert_eq!((first.port, first.source_port, first.interface), (25, 40_000, 1));
    assert!(first.at_ns > 0 && first.at_ns <= ringpost::gate::clock::monotonic_ns());
}

/// The verdict on the host alone: runs everywhere, root or not.
struct OnHost(Box<ringpost_ebpf::abi::Units>);

impl OnHost {
    fn new(plan: &Plan) -> Self {
        Self(ringpost_ebpf::compile::Table::compile(plan).unwrap().whole().unwrap())
    }

    fn verdict(&self, frame: &[u8]) -> Verdict {
        ringpost_ebpf::verdict::judge_frame(&self.0, frame, &NoServices).verdict
    }
}

/// No bans, no buckets, no time.
pub(crate) struct NoServices;

impl ringpost_ebpf::verdict::Kernel for NoServices {
    fn now_ns(&self) -> u64 {
        0
    }

    fn ban_ends_ns(&self, _: &ringpost_ebpf::abi::Address) -> Option<u64> {
        None
    }

    fn bucket_ns(&self, _: &ringpost_ebpf::abi::Address) -> Option<u64> {
        None
    }

    fn set_bucket_ns(&self, _: &ringpost_ebpf::abi::Address, _: u64) {}
}
