//! Where the real daemon's gate stands and falls: permissions, others' programs, links made anew, sudden death.

use std::path::Path;

use ringpost_tests::daemon::Builder;
use ringpost_tests::upstream::Upstream;
use rustix::process::Signal;

use crate::lab::{FRIEND, INTERFACE, STRANGER, bound_to, eventually, ip};
use crate::site::{Site, builder, embedded};
use crate::{lab, object, site};

/// What `ip link` shows of the lab's interface.
fn shown() -> String {
    let output = std::process::Command::new("ip").args(["-d", "link", "show", INTERFACE]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_killed_daemon_leaves_no_program() {
    let site = site!();
    assert!(shown().contains("prog/xdp"), "{}", shown());
    site.daemon.signal(Signal::KILL);
    site.daemon.finish();
    eventually("the program is off", || (!shown().contains("xdp")).then_some(()));
}

#[test]
fn no_thread_of_the_daemon_keeps_what_only_attaching_needs() {
    let site = site!();
    let tasks = Path::new("/proc").join(site.daemon.id().to_string()).join("task");
    let once = 1u64 << 12 | 1 << 38;
    let mut threads = 0;
    for task in std::fs::read_dir(tasks).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        threads += 1;
        for set in ["CapEff:\t", "CapPrm:\t", "CapInh:\t", "CapBnd:\t", "CapAmb:\t"] {
            let held = status.lines().find_map(|line| line.strip_prefix(set)).unwrap();
            assert_eq!(u64::from_str_radix(held, 16).unwrap() & once, 0, "{status}");
        }
    }
    assert!(threads > 3, "workers, the log, the gate");
}

#[test]
fn without_capabilities_auto_serves_and_require_ends_with_77() {
    let _object = object!();
    if let Err(reason) = embedded() {
        ringpost_tests::skip!("{reason}");
    }
    let lab = lab!();
    let upstream = Upstream::plain();
    // This thread's, its bounding set too, and so those of the daemons that it starts.
    ringpost::gate::caps::give_up().unwrap();
    let ended = builder(&upstream).try_start().unwrap_err();
    assert_eq!(ended.code, Some(77), "{ended:#?}");
    // CAP_SYS_ADMIN, which a root has left, stands for the others.
    assert!(ended.stderr.contains("CAP_NET_ADMIN missing"), "{ended:#?}");
    let daemon = builder(&upstream).with("XDP", "auto").start();
    let site = Site { lab, upstream, daemon };
    assert!(site.daemon.logged("gate_note").contains("CAP_NET_ADMIN"));
    site.relays(FRIEND);
    assert_eq!(site.rcpt(STRANGER), "454 4.7.1 Relay access denied");
    let status = site.verb(&["gate", "status"]);
    assert!(status.starts_with("not attached\n") && status.contains("CAP_NET_ADMIN"), "{status}");
    assert!(site.verb(&["status"]).contains("gate       none: no permission"));
}

#[test]
fn the_daemon_needs_three_capabilities_and_names_the_one_that_is_missing() {
    const NET_BIND_SERVICE: u32 = 10;
    const NEEDED: [(u32, &str); 3] = [(12, "CAP_NET_ADMIN"), (38, "CAP_PERFMON"), (39, "CAP_BPF")];
    let _object = object!();
    if let Err(reason) = embedded() {
        ringpost_tests::skip!("{reason}");
    }
    let lab = lab!();
    let upstream = Upstream::plain();
    // A thread for each: what is taken from its bounding set is gone for good.
    let start_with = |left_out: Option<u32>| {
        let needed = NEEDED.iter().map(|(number, _)| *number);
        let held: Vec<u32> =
            needed.filter(|number| Some(*number) != left_out).chain([NET_BIND_SERVICE]).collect();
        std::thread::scope(|scope| {
            let starting = scope.spawn(|| {
                bound_to(&held);
                builder(&upstream).try_start()
            });
            starting.join().unwrap()
        })
    };
    for (number, name) in NEEDED {
        let ended = start_with(Some(number)).unwrap_err();
        assert_eq!(ended.code, Some(77), "{ended:#?}");
        assert!(ended.stderr.contains(&format!("load the gate: {name} missing")), "{ended:#?}");
    }
    let daemon = start_with(None).unwrap();
    let site = Site { lab, upstream, daemon };
    site.is_kept_out(STRANGER, 25, "dropped_network");
    site.relays(FRIEND);
    site.verb(&["reload"]);
}

#[test]
fn a_program_of_others_stays_auto_serves_and_require_ends_with_71() {
    let first = site!();
    let program = shown();
    let upstream = Upstream::plain();
    let another = |xdp: &str| builder(&upstream).with("LISTEN_SMTP", "0.0.0.0:2525").with("XDP", xdp);
    let ended = another("require").try_start().unwrap_err();
    assert_eq!(ended.code, Some(71), "{ended:#?}");
    assert!(ended.stderr.contains("another XDP program"), "{ended:#?}");
    let second = another("auto").start();
    assert!(second.logged("gate_note").contains("another XDP program"));
    let status = second.verb(&["gate", "status"]).stdout;
    assert!(status.starts_with("not attached\n") && status.contains("another XDP program"), "{status}");
    assert_eq!(shown(), program);
    first.relays(FRIEND);
}

#[test]
fn a_link_made_anew_gets_the_gate_again() {
    let site = site!();
    site.is_kept_out(STRANGER, 25, "dropped_network");
    ip(&["link", "del", INTERFACE]).unwrap();
    site.daemon.logged("gate_detached");
    site.lab.link(1500).unwrap();
    eventually("it is attached again", || shown().contains("prog/xdp").then_some(()));
    site.is_kept_out(STRANGER, 25, "dropped_network");
    assert_eq!(site.packets("dropped_network"), 2, "counts go on where they were");
    site.relays(FRIEND);
}

#[test]
fn a_gate_that_is_off_is_off() {
    let lab = lab!();
    let upstream = Upstream::plain();
    let daemon = builder(&upstream).with("XDP", "off").start();
    let site = Site { lab, upstream, daemon };
    assert!(!shown().contains("xdp"));
    assert_eq!(site.rcpt(STRANGER), "454 4.7.1 Relay access denied");
    assert_eq!(site.verb(&["gate", "status"]).lines().next(), Some("not attached"));
}

#[test]
fn a_reload_switches_the_gate_off_and_on_again() {
    let site = site!(|builder: Builder| {
        let file = builder.dir().join("xdp");
        std::fs::write(&file, "auto").unwrap();
        builder.without("XDP").with("XDP_FILE", &file.display().to_string())
    });
    let file = site.daemon.dir().join("xdp");
    std::fs::write(&file, "off").unwrap();
    site.verb(&["reload"]);
    assert!(!shown().contains("xdp"), "{}", shown());
    assert_eq!(site.rcpt(STRANGER), "454 4.7.1 Relay access denied");
    std::fs::write(&file, "require").unwrap();
    site.verb(&["reload"]);
    site.is_kept_out(STRANGER, 25, "dropped_network");
}
