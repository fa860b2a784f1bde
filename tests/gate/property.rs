//! Random packets: the host's verdict against ten naive lines, and the kernel's against the host's, also for frames that are
//! cut and scrambled.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use ringpost_ebpf::abi::Verdict;
use ringpost_ebpf::compile::{Plan, Table};
use ringpost_ebpf::verdict::judge_frame;

use crate::golden::{NoServices, plan};
use crate::kernel::Bench;
use crate::object;
use crate::packet::{Carries, Packet, QINQ, VLAN, syn};

/// What should become of an unscrambled packet, said as simply as possible.
fn naive(packet: &Packet, plan: &Plan) -> Verdict {
    let frame = packet.cut.map_or(usize::MAX, |cut| cut.max(14));
    let is_later_fragment = packet.fragment.is_some_and(|(offset, _)| offset > 0);
    let is_listener =
        plan.listeners.iter().find(|l| l.address == packet.destination && l.port == packet.port);
    let in_net = |net: &ringpost_ebpf::compile::Network| {
        ipnet::IpNet::new(net.address, net.prefix).unwrap().contains(&packet.source)
    };
    match (packet.carries, is_listener) {
        _ if packet.tags.len() > 2 => Verdict::Unparsed,
        (carries, _) if !matches!(carries, Carries::Tcp(_)) || is_later_fragment => Verdict::Other,
        _ if packet.transport_at() + 20 > frame => Verdict::Unparsed,
        (_, None) => Verdict::Other,
        (_, Some(l)) if plan.networks.iter().any(|(class, net)| *class == l.class && in_net(net)) => {
            Verdict::Accepted
        }
        _ => Verdict::DroppedNetwork,
    }
}

fn packets() -> impl Strategy<Value = Packet> {
    let v4 = (
        prop_oneof![Just("10.1.2.3"), Just("192.168.7.7"), Just("198.18.9.9"), Just("11.0.0.1")],
        prop_oneof![3 => Just("198.18.0.1"), 1 => Just("198.18.0.2")],
    );
    let v6 = (
        prop_oneof![Just("2001:db8:1::3"), Just("2001:db8:9::9"), Just("2001:db8:2::1")],
        prop_oneof![3 => Just("2001:db8::1"), 1 => Just("2001:db8::2")],
    );
    let port = prop_oneof![Just(25u16), Just(465), Just(587), Just(22), Just(89), any::<u16>()];
    let carries = prop_oneof![
        6 => any::<u8>().prop_map(Carries::Tcp),
        1 => Just(Carries::Udp),
        1 => Just(Carries::Icmp),
    ];
    let tags = proptest::collection::vec(prop_oneof![Just(VLAN), Just(QINQ), Just(0x9100)], 0..=3);
    let extensions = proptest::collection::vec(
        (prop_oneof![Just(0u8), Just(60), Just(51), Just(43)], 1..4usize)
            .prop_map(|(kind, units)| (kind, units * 8)),
        0..=5,
    );
    let fragment = proptest::option::weighted(0.2, (0..100u16, any::<bool>()));
    let addresses = prop_oneof![v4, v6];
    (addresses, port, carries, tags, (0..=10usize, extensions), fragment, 0..64usize).prop_map(
        |((source, destination), port, carries, tags, (words, extensions), fragment, payload)| {
            let packet = syn().from(source).to(destination, port).with_payload(payload);
            let (options, extensions) =
                if packet.is_v4() { (words * 4, Vec::new()) } else { (0, extensions) };
            Packet { carries, tags, options, extensions, fragment, ..packet }
        },
    )
}

#[test]
fn the_hosts_verdict_is_the_naive_one() {
    let plan = plan();
    let units = Table::compile(&plan).unwrap().whole().unwrap();
    runner(20_000)
        .run(&packets(), |packet| {
            prop_assert_eq!(
                judge_frame(&units, &packet.octets()[..], &NoServices).verdict,
                naive(&packet, &plan)
            );
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_packet_cut_inside_its_headers_is_never_dropped() {
    let plan = plan();
    let units = Table::compile(&plan).unwrap().whole().unwrap();
    runner(5_000)
        .run(&(packets(), 14..200usize), |(packet, cut)| {
            let verdict = judge_frame(&units, &packet.clone().cut_to(cut).octets()[..], &NoServices).verdict;
            let is_whole = cut >= packet.transport_at() + 20;
            prop_assert!(is_whole || matches!(verdict, Verdict::Other | Verdict::Unparsed), "{:?}", verdict);
            Ok(())
        })
        .unwrap();
}

#[test]
fn kernel_and_host_agree_on_random_frames() {
    let bench = Bench::new(&object!(), &plan());
    let scrambled = (
        packets(),
        proptest::option::of(14..140usize),
        proptest::collection::vec((0..100usize, any::<u8>()), 0..4),
    );
    runner(20_000)
        .run(&scrambled, |(packet, cut, changes)| {
            let mut frame = packet.octets();
            for (at, octet) in changes {
                if let Some(place) = frame.get_mut(at) {
                    *place = octet;
                }
            }
            frame.truncate(cut.unwrap_or(usize::MAX));
            prop_assert_eq!(bench.run(&frame).verdict, bench.judge(&frame).verdict);
            Ok(())
        })
        .unwrap();
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) })
}
