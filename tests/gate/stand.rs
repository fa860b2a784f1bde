//! Where the gate stands and how it leaves: modes, jumbo frames, others' programs, permissions, interfaces that come and go.

use ringpost::gate::Gate;
use ringpost::gate::advice::AttachMode;
use ringpost::gate::config::{Config, Mode, Wanted};
use ringpost_ebpf::abi::Verdict;

use crate::lab::{
    FRIEND, FRIENDS, Greeter, INTERFACE, STRANGER, config, eventually, gate, ip, keep_only, start,
};
use crate::{lab, object};

/// What `ip link` shows of the lab's interface.
fn shown() -> String {
    let output = std::process::Command::new("ip").args(["-d", "link", "show", INTERFACE]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn stands_as_asked_and_leaves_nothing_behind() {
    let object = object!();
    let _lab = lab!();
    let relay = Greeter::start();
    for (mode, expected, word) in [
        (Mode::Auto, AttachMode::Native, "prog/xdp "),
        (Mode::Native, AttachMode::Native, "prog/xdp "),
        (Mode::Generic, AttachMode::Generic, "xdpgeneric"),
    ] {
        let gate = gate(&object, &config(mode), relay.lists(FRIENDS));
        let status = gate.status();
        let on: Vec<_> = status.interfaces.iter().map(|on| (on.interface.as_str(), on.mode)).collect();
        assert_eq!(on, [(INTERFACE, expected)]);
        // An address that the link gets late makes another generation.
        assert!(status.interfaces[0].program > 0 && status.generation >= 1, "{status}");
        assert!(shown().contains(word), "{}", shown());
        drop(gate);
        assert!(!shown().contains("xdp"), "{}", shown());
    }
}

#[test]
fn jumbo_frames_get_the_multi_buffer_program() {
    let object = object!();
    let lab = lab!();
    ip(&["link", "del", INTERFACE]).unwrap();
    lab.link(9000).unwrap();
    let relay = Greeter::start();
    let gate = gate(&object, &config(Mode::Native), relay.lists(FRIENDS));
    assert!(gate.status().interfaces[0].takes_frags);
    assert_eq!(lab.client().greet(FRIEND, relay.v4).unwrap(), "220 \n");
    let _knocking = lab.client().knock(STRANGER, relay.v4);
    eventually("the SYN is counted", || {
        (gate.counters()[0].packets[Verdict::DroppedNetwork as usize] >= 1).then_some(())
    });
}

#[test]
fn a_program_of_others_stays() {
    let object = object!();
    let _lab = lab!();
    let relay = Greeter::start();
    let first = gate(&object, &config(Mode::Auto), relay.lists(FRIENDS));
    let program = first.status().interfaces[0].program;
    let required = start(&object, &config(Mode::Auto), relay.lists(FRIENDS));
    assert_eq!(required.unwrap_err().exit_code(), 71);
    let auto = Config { wanted: Wanted::Auto, ..config(Mode::Auto) };
    let second = start(&object, &auto, relay.lists(FRIENDS)).unwrap();
    let (is_attached, notes) = (second.is_attached(), second.notes());
    assert!(!is_attached && notes.iter().any(|note| note.contains("another XDP program")), "{notes:?}");
    assert_eq!(first.status().interfaces[0].program, program);
}

#[test]
fn without_capabilities_auto_serves_and_require_names_them() {
    let object = object!();
    let _lab = lab!();
    let relay = Greeter::start();
    // This thread's, and so those of the threads that it starts.
    ringpost::gate::caps::give_up().unwrap();
    let refused = Gate::start_with(Some(&object), &config(Mode::Auto), relay.lists(FRIENDS)).unwrap_err();
    assert_eq!(refused.exit_code(), 77);
    assert!(refused.to_string().contains("CAP_NET_ADMIN"), "{refused}");
    let auto = Config { wanted: Wanted::Auto, ..config(Mode::Auto) };
    let gate = Gate::start_with(Some(&object), &auto, relay.lists(FRIENDS)).unwrap();
    assert!(!gate.is_attached() && gate.notes()[0].contains("CAP_NET_ADMIN"), "{:?}", gate.notes());
}

#[test]
fn an_interface_made_anew_is_attached_again() {
    let object = object!();
    let lab = lab!();
    let relay = Greeter::start();
    let gate = gate(&object, &config(Mode::Auto), relay.lists(FRIENDS));
    let knock_and_count = |times: u64| {
        let _knocking = lab.client().knock(STRANGER, relay.v4);
        eventually("the SYN is counted", || {
            let on = gate.counters().into_iter().find(|on| on.interface == INTERFACE && on.mode.is_some())?;
            (on.packets[Verdict::DroppedNetwork as usize] >= times).then_some(())
        });
    };
    knock_and_count(1);
    // Its thread has CAP_BPF left and no CAP_NET_ADMIN.
    ip(&["link", "del", INTERFACE]).unwrap();
    eventually("it is gone", || (!gate.is_attached()).then_some(()));
    lab.link(1500).unwrap();
    eventually("it is back", || gate.is_attached().then_some(()));
    // Counts go on where they were.
    knock_and_count(2);
}

#[test]
fn three_capabilities_are_enough_and_one_afterwards() {
    const THREE: [u32; 3] = [12, 38, 39];
    let object = object!();
    let lab = lab!();
    let relay = Greeter::start();
    let config = config(Mode::Auto);
    let gate = std::thread::scope(|scope| {
        let starting = scope.spawn(|| {
            keep_only(&THREE);
            let gate = Gate::start_with(Some(&object), &config, relay.lists(FRIENDS));
            let gate = gate.unwrap_or_else(|error| panic!("{error}"));
            // What is left is CAP_BPF alone: lists are swapped and sources banned with it.
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            assert!(status.contains("CapEff:\t0000008000000000\n"), "{status}");
            gate.replace_lists(&config, relay.lists(&["10.0.0.0/8"])).unwrap();
            gate.replace_lists(&config, relay.lists(FRIENDS)).unwrap();
            gate.ban("10.1.1.1".parse().unwrap(), std::time::Duration::from_secs(60)).unwrap();
            gate
        });
        starting.join().unwrap()
    });
    // And so are interfaces that come anew.
    ip(&["link", "del", INTERFACE]).unwrap();
    eventually("it is gone", || (!gate.is_attached()).then_some(()));
    lab.link(1500).unwrap();
    eventually("it is back", || gate.is_attached().then_some(()));
    assert_eq!(lab.client().greet(FRIEND, relay.v4).unwrap(), "220 \n");
}

#[test]
fn named_interfaces_must_be_there_if_required() {
    let object = object!();
    let _lab = lab!();
    let relay = Greeter::start();
    for name in ["lo", "nosuch0"] {
        let named = Config { interfaces: vec![name.to_owned()], ..config(Mode::Auto) };
        let refused = start(&object, &named, relay.lists(FRIENDS)).unwrap_err();
        assert_eq!(refused.exit_code(), 71);
        assert!(refused.to_string().contains(name), "{refused}");
    }
}

#[test]
fn ssh_is_never_gated() {
    let object = object!();
    let relay = Greeter::start();
    let mut lists = relay.lists(FRIENDS);
    lists.smtp.push("0.0.0.0:22".parse().unwrap());
    let refused = start(&object, &config(Mode::Auto), lists).unwrap_err();
    assert_eq!(refused.exit_code(), 78);
}

#[test]
fn a_build_without_an_object_has_no_gate() {
    let lists = ringpost::gate::Lists::default();
    let refused = Gate::start_with(None, &config(Mode::Auto), lists.clone()).unwrap_err();
    assert_eq!(refused.exit_code(), 71);
    let auto = Config { wanted: Wanted::Auto, ..config(Mode::Auto) };
    let gate = Gate::start_with(None, &auto, lists.clone()).unwrap();
    assert!(!gate.is_attached() && gate.notes()[0].contains("no gate"), "{:?}", gate.notes());
    let off = Config { wanted: Wanted::Off, ..config(Mode::Auto) };
    assert_eq!(Gate::start_with(None, &off, lists).unwrap().notes(), [""; 0]);
}
