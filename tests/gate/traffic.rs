//! End to end over veth: who gets through, who does not, and what is told about it. Native and generic.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ringpost::gate::Gate;
use ringpost::gate::advice::AttachMode;
use ringpost::gate::config::{Action, Config, Mode};
use ringpost::policy::rate::Rate;
use ringpost_ebpf::abi::{Reason, Verdict};

use crate::lab::{
    FRIEND, FRIEND6, FRIENDS, Greeter, INTERFACE, RELAY, STRANGER, STRANGER6, config, eventually, gate,
};
use crate::packet::{VLAN, syn};
use crate::{lab, object};

/// Packets with this verdict on the lab's interface.
fn packets(gate: &Gate, verdict: Verdict) -> u64 {
    gate.counters().iter().filter(|on| on.interface == INTERFACE).map(|on| on.packets[verdict as usize]).sum()
}

/// TCP segments that came up to this namespace's stack so far.
fn segments_in() -> u64 {
    let snmp = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = snmp.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|name| name == "InSegs").unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

fn let_in_and_keep_out(mode: Mode) {
    let object = object!();
    let lab = lab!();
    let relay = Greeter::start();
    let gate = gate(&object, &config(mode), relay.lists(FRIENDS));
    let knocking =
        [(STRANGER, relay.v4), (STRANGER6, relay.v6)].map(|(from, to)| lab.client().knock(from, to));
    eventually("both SYNs are counted", || (packets(&gate, Verdict::DroppedNetwork) >= 2).then_some(()));
    assert_eq!(segments_in(), 0, "no SYN reached the stack");
    for socket in &knocking {
        assert!(socket.peer_addr().is_err(), "no answer came");
    }
    let drops = gate.drops();
    for (stranger, to) in [(STRANGER, relay.v4), (STRANGER6, relay.v6)] {
        let source: IpAddr = stranger.parse().unwrap();
        let dropped = drops.iter().find(|dropped| dropped.source == source).unwrap();
        assert_eq!((dropped.port, dropped.reason), (to.port(), Reason::Network));
    }
    for (friend, to) in [(FRIEND, relay.v4), (FRIEND6, relay.v6)] {
        assert_eq!(lab.client().greet(friend, to).unwrap(), "220 \n");
    }
    let counted: u64 = gate.networks().iter().map(|network| network.packets).sum();
    assert!(counted > 0, "accepted packets are counted for their networks");
}

#[test]
fn lets_friends_in_and_keeps_strangers_out_natively() {
    let_in_and_keep_out(Mode::Native);
}

#[test]
fn lets_friends_in_and_keeps_strangers_out_generically() {
    let_in_and_keep_out(Mode::Generic);
}

fn other_ports_stay_open(mode: Mode) {
    let object = object!();
    let lab = lab!();
    let (relay, other) = (Greeter::start(), Greeter::start());
    let gate = gate(&object, &config(mode), relay.lists(FRIENDS));
    for (stranger, to) in [(STRANGER, other.v4), (STRANGER6, other.v6)] {
        assert_eq!(lab.client().greet(stranger, to).unwrap(), "220 \n");
    }
    assert_eq!(packets(&gate, Verdict::DroppedNetwork), 0);
    assert!(packets(&gate, Verdict::Other) > 0);
}

#[test]
fn strangers_reach_other_ports_natively() {
    other_ports_stay_open(Mode::Native);
}

#[test]
fn strangers_reach_other_ports_generically() {
    other_ports_stay_open(Mode::Generic);
}

fn reset(mode: Mode) {
    let object = object!();
    let lab = lab!();
    let relay = Greeter::start();
    let _passing = (mode == Mode::Native).then(|| lab.with_xdp_on_both_ends(&object));
    let gate = gate(&object, &Config { action: Action::Reset, ..config(mode) }, relay.lists(FRIENDS));
    for (stranger, to) in [(STRANGER, relay.v4), (STRANGER6, relay.v6)] {
        let error = lab.client().greet(stranger, to).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{stranger}");
    }
    assert_eq!(packets(&gate, Verdict::Reset), 2, "refused at the first SYN");
    assert_eq!(lab.client().greet(FRIEND, relay.v4).unwrap(), "220 \n");
}

#[test]
fn a_reset_refuses_the_connection_at_once_natively() {
    reset(Mode::Native);
}

#[test]
fn a_reset_refuses_the_connection_at_once_generically() {
    reset(Mode::Generic);
}

#[test]
fn a_reset_leaves_a_veth_that_has_no_xdp_at_its_other_end() {
    // Native XDP_TX would be lost there: `auto` takes the generic mode, also when the action changes later.
    reset(Mode::Auto);
    let object = object!();
    let lab = lab!();
    let relay = Greeter::start();
    let gate = gate(&object, &config(Mode::Auto), relay.lists(FRIENDS));
    assert_eq!(gate.status().interfaces[0].mode, AttachMode::Native);
    gate.replace_lists(&Config { action: Action::Reset, ..config(Mode::Auto) }, relay.lists(FRIENDS))
        .unwrap();
    assert_eq!(gate.status().interfaces[0].mode, AttachMode::Generic);
    let error = lab.client().greet(STRANGER, relay.v4).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn counting_lets_strangers_in_and_tells_who_they_are() {
    let object = object!();
    let lab = lab!();
    let relay = Greeter::start();
    let gate = gate(&object, &Config { action: Action::Count, ..config(Mode::Auto) }, relay.lists(FRIENDS));
    assert_eq!(lab.client().greet(STRANGER, relay.v4).unwrap(), "220 \n");
    assert!(packets(&gate, Verdict::Counted) > 0);
    let dropped = gate.drops();
    assert_eq!((dropped[0].source, dropped[0].verdict), (STRANGER.parse().unwrap(), Verdict::Counted));
}

#[test]
fn a_reload_under_load_never_drops_who_is_in_both_lists() {
    let object = object!();
    let lab = lab!();
    let relay = Greeter::start();
    let config = config(Mode::Auto);
    let both = [&["198.18.1.0/24"][..], &["198.18.0.0/16", "10.0.0.0/8", "2001:db8:1::/48"][..]];
    let gate = gate(&object, &config, relay.lists(both[0]));
    let to = relay.v4;
    for round in 0..40 {
        let swapped = gate.replace_lists(&config, relay.lists(both[round % 2]));
        swapped.unwrap_or_else(|error| panic!("{error}"));
        for _ in 0..5 {
            assert_eq!(lab.client().greet(FRIEND, to).unwrap(), "220 \n");
        }
    }
    assert_eq!(packets(&gate, Verdict::DroppedNetwork), 0);
    // From A to B: who is only in A is out as soon as the call returns, who is only in B is in.
    gate.replace_lists(&config, relay.lists(&["198.18.9.0/24"])).unwrap();
    assert_eq!(lab.client().greet(STRANGER, to).unwrap(), "220 \n");
    let _knocking = lab.client().knock(FRIEND, to);
    eventually("the SYN is counted", || (packets(&gate, Verdict::DroppedNetwork) >= 1).then_some(()));
}

#[test]
fn a_ban_cuts_a_friend_off_until_it_ends() {
    let object = object!();
    let lab = lab!();
    let (relay, other) = (Greeter::start(), Greeter::start());
    let gate = gate(&object, &config(Mode::Auto), relay.lists(FRIENDS));
    let friend: IpAddr = FRIEND.parse().unwrap();
    assert!(gate.ban(friend, Duration::from_secs(3600)).unwrap());
    assert_eq!(gate.bans().iter().map(|ban| ban.source).collect::<Vec<_>>(), [friend]);
    let knocking = lab.client().knock(FRIEND, relay.v4);
    eventually("the SYN is counted", || (packets(&gate, Verdict::DroppedBan) >= 1).then_some(()));
    assert_eq!(gate.explain(friend, relay.v4.port(), None).unwrap().reason, Some(Reason::Ban));
    assert_eq!(lab.client().greet(FRIEND, other.v4).unwrap(), "220 \n", "a ban is for listen ports only");
    drop(knocking);
    assert!(gate.unban(friend).unwrap());
    assert_eq!(lab.client().greet(FRIEND, relay.v4).unwrap(), "220 \n");
    // A short one ends by itself.
    gate.ban(friend, Duration::from_millis(1)).unwrap();
    eventually("the ban is over", || gate.bans().is_empty().then_some(()));
    assert_eq!(lab.client().greet(FRIEND, relay.v4).unwrap(), "220 \n");
}

#[test]
fn a_flood_of_syns_from_one_source_leaves_the_others_alone() {
    let object = object!();
    let lab = lab!();
    let relay = Greeter::start();
    let rate = Rate { events: 1, period: Duration::from_secs(3600), burst: 3 };
    let lists = relay.lists(&["198.18.0.0/16", "2001:db8::/32"]);
    let gate = gate(&object, &Config { syn_rate: Some(rate), ..config(Mode::Auto) }, lists);
    let _flood: Vec<_> = (0..50).map(|_| lab.client().knock(STRANGER, relay.v4)).collect();
    eventually("the flood is counted", || (packets(&gate, Verdict::DroppedRate) >= 47).then_some(()));
    assert_eq!(lab.client().greet(FRIEND, relay.v4).unwrap(), "220 \n");
    assert_eq!(gate.drops()[0].reason, Reason::Rate);
}

#[test]
fn the_relays_own_connections_are_left_alone() {
    let object = object!();
    let lab = lab!();
    let relay = Greeter::start();
    let gate = gate(&object, &config(Mode::Auto), relay.lists(FRIENDS));
    // An upstream among the strangers: our SYN goes out, its answer comes in from outside the networks.
    let upstream = lab.client().run(|| {
        let listener = std::net::TcpListener::bind(format!("{STRANGER}:0")).unwrap();
        let at = listener.local_addr().unwrap();
        std::thread::spawn(move || drop(listener.accept()));
        at
    });
    std::net::TcpStream::connect(upstream).unwrap();
    assert_eq!(packets(&gate, Verdict::DroppedNetwork), 0);
}

#[test]
fn explains_as_the_kernel_decides() {
    let object = object!();
    let _lab = lab!();
    let relay = Greeter::start();
    let gate = gate(&object, &config(Mode::Auto), relay.lists(FRIENDS));
    let ask = |source: &str, port: u16| gate.explain(source.parse().unwrap(), port, None).unwrap().verdict;
    assert_eq!(ask(FRIEND, relay.v4.port()), Verdict::Accepted);
    assert_eq!(ask(FRIEND6, relay.v6.port()), Verdict::Accepted);
    assert_eq!(ask(STRANGER, relay.v4.port()), Verdict::DroppedNetwork);
    assert_eq!(ask(STRANGER6, relay.v6.port()), Verdict::DroppedNetwork);
    assert_eq!(ask("127.0.0.1", relay.v4.port()), Verdict::Accepted);
    assert_eq!(ask(STRANGER, 22), Verdict::Other);
    let elsewhere =
        gate.explain(STRANGER.parse().unwrap(), relay.v4.port(), Some("198.18.0.77".parse().unwrap()));
    assert_eq!(elsewhere.unwrap().verdict, Verdict::Other);
}

fn tagged(mode: Mode) {
    let object = object!();
    let lab = lab!();
    let relay = Greeter::start();
    let gate = gate(&object, &config(mode), relay.lists(FRIENDS));
    for (from, verdict) in [(STRANGER, Verdict::DroppedNetwork), (FRIEND, Verdict::Accepted)] {
        let once = syn().from(from).to(RELAY, relay.v4.port()).tagged(VLAN);
        lab.client().send(once.octets());
        lab.client().send(once.tagged(VLAN).octets());
        eventually("both are counted", || (packets(&gate, verdict) >= 2).then_some(()));
    }
}

#[test]
fn tagged_frames_are_judged_natively() {
    tagged(Mode::Native);
}

#[test]
fn tagged_frames_are_judged_generically() {
    tagged(Mode::Generic);
}
