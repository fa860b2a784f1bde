//! The TCP resets of `XDP_ACTION=reset`, octet by octet.

use ringpost_ebpf::abi::{Action, Verdict};
use ringpost_ebpf::compile::{Plan, bits_of_address};
use ringpost_ebpf::packet::{Located, locate};
use ringpost_ebpf::reset::answer;

use crate::golden::{FRIEND, OWN, OWN6, STRANGER, STRANGER6, plan};
use crate::kernel::{Bench, DROP, TX};
use crate::object;
use crate::packet::{Packet, QINQ, VLAN, ack, syn, tcp};

fn resetting() -> Plan {
    Plan { action: Action::Reset, ..plan() }
}

/// What an answer must be, read from the frame by hand.
struct Answer<'a> {
    frame: &'a [u8],
    ip: &'a [u8],
    tcp: &'a [u8],
    is_v4: bool,
}

impl<'a> Answer<'a> {
    fn of(frame: &'a [u8], packet: &Packet) -> Self {
        let at = packet.ip_at();
        let is_v4 = packet.is_v4();
        let ip_octets = if is_v4 { 20 } else { 40 };
        Self {
            frame,
            ip: &frame[at..at + ip_octets],
            tcp: &frame[at + ip_octets..at + ip_octets + 20],
            is_v4,
        }
    }

    /// Checks all that does not depend on the question's flags.
    fn check(&self, packet: &Packet) {
        let asked = packet.octets();
        assert_eq!(self.frame[..6], asked[6..12], "to whom it came from");
        assert_eq!(self.frame[6..12], asked[..6]);
        assert_eq!(self.frame[12..packet.ip_at()], asked[12..packet.ip_at()], "tags and type stay");
        let (source, destination, rest) = if self.is_v4 {
            assert_eq!((self.ip[0], self.ip[9], sum(self.ip)), (0x45, 6, 0xffff));
            assert_eq!(u16::from_be_bytes([self.ip[2], self.ip[3]]), 40);
            (&self.ip[12..16], &self.ip[16..20], &asked[packet.ip_at() + 12..packet.ip_at() + 20])
        } else {
            assert_eq!((self.ip[0] >> 4, self.ip[6], &self.ip[4..6]), (6, 6, &[0, 20][..]));
            (&self.ip[8..24], &self.ip[24..40], &asked[packet.ip_at() + 8..packet.ip_at() + 40])
        };
        let half = rest.len() / 2;
        assert_eq!((source, destination), (&rest[half..], &rest[..half]), "addresses swapped");
        assert_eq!(self.tcp[..2], packet.port.to_be_bytes());
        assert_eq!(self.tcp[2..4], packet.source_port.to_be_bytes());
        assert_eq!((self.tcp[12], &self.tcp[14..16]), (0x50, &[0, 0][..]), "no options, no window");
        let pseudo = [source, destination, &[0, 6, 0, 20], self.tcp].concat();
        assert_eq!(sum(&pseudo), 0xffff, "checksum");
    }

    fn sequence(&self) -> u32 {
        u32::from_be_bytes(self.tcp[4..8].try_into().unwrap())
    }

    fn acknowledged(&self) -> u32 {
        u32::from_be_bytes(self.tcp[8..12].try_into().unwrap())
    }

    fn flags(&self) -> u8 {
        self.tcp[13]
    }
}

/// The Internet checksum's sum, RFC 1071, without the complement: 0xffff where a checksum in it is right.
fn sum(octets: &[u8]) -> u16 {
    let total: u32 =
        octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    let folded = (total & 0xffff) + (total >> 16);
    u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap()
}

/// The frame after the answer was written over it, on the host.
fn on_host(packet: &Packet) -> Option<Vec<u8>> {
    let mut frame = packet.octets();
    let Located::Tcp(tcp) = locate(&frame[..]) else { return None };
    let octets = answer(&mut frame[..], &tcp)?;
    frame.truncate(octets.max(60));
    Some(frame)
}

fn questions() -> Vec<(&'static str, Packet)> {
    vec![
        ("plain", syn().from(STRANGER).to(OWN, 25)),
        ("IPv6", syn().from(STRANGER6).to(OWN6, 25)),
        ("a tag", syn().from(STRANGER).to(OWN, 25).tagged(VLAN)),
        ("two tags", syn().from(STRANGER6).to(OWN6, 25).tagged(QINQ).tagged(VLAN)),
        ("options", syn().from(STRANGER).to(OWN, 25).with_options(40)),
        ("extension headers", syn().from(STRANGER6).to(OWN6, 25).behind(0, 8).behind(60, 24)),
        ("data", ack().from(STRANGER).to(OWN, 25).with_payload(1001)),
        ("an odd port", syn().from(STRANGER).with_source_port(65_535).to(OWN, 587)),
    ]
}

#[test]
fn an_answer_is_right_in_every_octet() {
    for (name, packet) in questions() {
        let frame = on_host(&packet).unwrap_or_else(|| panic!("{name}: no answer"));
        Answer::of(&frame, &packet).check(&packet);
    }
}

#[test]
fn a_syn_is_answered_by_what_it_takes_to_acknowledge_it() {
    // RFC 9293 §3.10.7.1: without ACK the answer has sequence 0 and acknowledges all that came.
    for (packet, length) in [
        (syn().from(STRANGER).to(OWN, 25), 1),
        (syn().from(STRANGER).to(OWN, 25).with_payload(7), 8),
        (tcp(0x01).from(STRANGER6).to(OWN6, 25).with_payload(2), 3),
        (tcp(0x00).from(STRANGER).to(OWN, 25).with_options(8).with_payload(5), 5),
    ] {
        let frame = on_host(&packet).unwrap();
        let answer = Answer::of(&frame, &packet);
        assert_eq!((answer.flags(), answer.sequence()), (0x14, 0));
        assert_eq!(answer.acknowledged(), packet.sequence + length);
    }
}

#[test]
fn a_segment_with_ack_is_answered_where_it_expects() {
    let packet = ack().from(STRANGER).to(OWN, 25).acknowledging(0xdead_beef).with_payload(9);
    let frame = on_host(&packet).unwrap();
    let answer = Answer::of(&frame, &packet);
    assert_eq!((answer.flags(), answer.sequence(), answer.acknowledged()), (0x04, 0xdead_beef, 0));
}

#[test]
fn resets_and_nobodys_addresses_get_no_answer() {
    for packet in [
        tcp(0x04).from(STRANGER).to(OWN, 25),
        syn().from("224.0.0.1").to(OWN, 25),
        syn().from("255.255.255.255").to(OWN, 25),
        syn().from("0.0.0.0").to(OWN, 25),
        syn().from("ff02::1").to(OWN6, 25),
    ] {
        assert_eq!(on_host(&packet), None, "{packet:?}");
    }
}

#[test]
fn the_kernel_sends_the_same_answer() {
    let bench = Bench::new(&object!(), &resetting());
    for (name, packet) in questions() {
        let frame = packet.octets();
        let ran = bench.run(&frame);
        let mut expected = on_host(&packet).unwrap();
        // A frame shorter than Ethernet's least stays as short as it came.
        expected.truncate(frame.len());
        assert_eq!((ran.action, ran.verdict), (TX, Verdict::Reset), "{name}");
        assert_eq!(ran.octets, expected, "{name}");
    }
    let ran = bench.run(&tcp(0x04).from(STRANGER).to(OWN, 25).octets());
    assert_eq!((ran.action, ran.verdict), (DROP, Verdict::Reset), "a reset is never answered");
}

#[test]
fn banned_sources_are_not_answered() {
    let mut bench = Bench::new(&object!(), &resetting());
    bench.ban(bits_of_address(FRIEND.parse().unwrap()), u64::MAX);
    let ran = bench.run(&syn().from(FRIEND).to(OWN, 25).octets());
    assert_eq!((ran.action, ran.verdict), (DROP, Verdict::DroppedBan));
}
