//! Entry point for fuzzing the gate: any octets as a frame.
//!
//! It holds the promises that matter most: what is dropped is a whole TCP header to a listener, what follows the headers
//! changes nothing, and a reset is addressed to whom it answers.

use ringpost_ebpf::abi::{Action, Address, Class, Units, Verdict};
use ringpost_ebpf::compile::{Listener, Network, Plan, Table, bits_of_address};
use ringpost_ebpf::packet::{Located, RST, endpoints, locate};
use ringpost_ebpf::reset::answer;
use ringpost_ebpf::verdict::{Kernel, judge_frame};
use std::net::IpAddr;
use std::sync::OnceLock;

const OWN: [&str; 2] = ["198.18.0.1", "2001:db8::1"];
const PORT: u16 = 25;

/// A frame: judged, and answered if it was dropped.
pub fn fuzz_verdict(octets: &[u8]) {
    static UNITS: OnceLock<Box<Units>> = OnceLock::new();
    let units = UNITS.get_or_init(table);
    let verdict = judge_frame(units, octets, &NoServices).verdict;
    let longer = [octets, b"trailing octets"].concat();
    if verdict != Verdict::Unparsed {
        assert_eq!(
            judge_frame(units, &longer[..], &NoServices).verdict,
            verdict,
            "{}",
            octets.escape_ascii()
        );
    }
    if verdict != Verdict::DroppedNetwork {
        return;
    }
    let Located::Tcp(asked) = locate(octets) else { panic!("dropped: {}", octets.escape_ascii()) };
    let (source, destination) = endpoints(octets, &asked).expect("judged by it");
    let own = OWN.map(|own| bits_of_address(own.parse().expect("an address")));
    assert!(asked.port == PORT && own.contains(&destination), "{}", octets.escape_ascii());
    let mut reply = octets.to_vec();
    if let Some(length) = answer(&mut reply[..], &asked) {
        let Located::Tcp(answered) = locate(&reply[..length]) else { panic!("{}", reply.escape_ascii()) };
        assert_eq!(endpoints(&reply[..], &answered), Some((destination, source)));
        assert_eq!((answered.source_port, answered.port), (asked.port, asked.source_port));
        assert!(answered.flags & RST != 0 && asked.flags & RST == 0);
    }
}

fn table() -> Box<Units> {
    let listener =
        |own: &str| Listener { address: own.parse().expect("an address"), port: PORT, class: Class::Smtp };
    let plan = Plan {
        generation: 1,
        action: Action::Drop,
        syn_rate: None,
        listeners: OWN.map(listener).to_vec(),
        networks: vec![(Class::Smtp, Network { address: IpAddr::from([10, 0, 0, 0]), prefix: 8, number: 1 })],
    };
    Table::compile(&plan).and_then(|table| table.whole()).expect("a small plan fits")
}

/// No bans, no buckets, no time.
struct NoServices;

impl Kernel for NoServices {
    fn now_ns(&self) -> u64 {
        0
    }

    fn ban_ends_ns(&self, _: &Address) -> Option<u64> {
        None
    }

    fn bucket_ns(&self, _: &Address) -> Option<u64> {
        None
    }

    fn set_bucket_ns(&self, _: &Address, _: u64) {}
}
