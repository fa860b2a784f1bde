//! The real daemon behind its gate, end to end: who relays, who is kept out, and what the verbs and metrics say.

use std::io::ErrorKind;

use ringpost_tests::daemon::Builder;

use crate::lab::{FRIEND, FRIEND6, Greeter, INTERFACE, RELAY, STRANGER, STRANGER6, eventually};
use crate::packet::{VLAN, syn};
use crate::site;
use crate::site::{Site, port_for};

fn relays_for_friends_alone(site: &Site, mode: &str) {
    for stranger in [STRANGER, STRANGER6] {
        site.is_kept_out(stranger, 25, "dropped_network");
    }
    for friend in [FRIEND, FRIEND6] {
        site.relays(friend);
    }
    let attached = format!("ringpost_gate_attached{{interface=\"{INTERFACE}\",mode=\"{mode}\"}}");
    assert_eq!(site.daemon.metric(&attached), Some(1.0));
    assert!(site.packets("accepted") > 0);
    let status = site.verb(&["gate", "status"]);
    assert!(status.starts_with(&format!("{INTERFACE} {mode}")), "{status}");
    assert!(status.lines().any(|line| line.starts_with("network 198.18.1.0/24 ")), "{status}");
    let drops = site.verb(&["gate", "drops"]);
    for stranger in [STRANGER, STRANGER6] {
        let line = drops.lines().find(|line| line.starts_with(stranger)).unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().take(4).collect();
        assert_eq!(words, [stranger, "port", "25", "dropped_network"], "{drops}");
    }
    let ready = site.daemon.logged("ready");
    assert!(ready.contains(&format!("gate=\"{INTERFACE} {mode}\"")), "{ready}");
    assert!(site.verb(&["status"]).contains(&format!("gate       {INTERFACE} {mode}\n")));
}

#[test]
fn the_relay_serves_friends_and_hides_from_strangers_natively() {
    let site = site!(|builder: Builder| builder.with("XDP_MODE", "native"));
    relays_for_friends_alone(&site, "native");
    site.daemon.stop();
}

#[test]
fn the_relay_serves_friends_and_hides_from_strangers_generically() {
    let site = site!(|builder: Builder| builder.with("XDP_MODE", "generic"));
    relays_for_friends_alone(&site, "generic");
    site.daemon.stop();
}

#[test]
fn a_stranger_reaches_the_port_of_ssh() {
    let site = site!();
    let ssh = Greeter::start_on(22);
    for stranger in [STRANGER, STRANGER6] {
        assert_eq!(site.lab.client().greet(stranger, port_for(stranger, 22)).unwrap(), "220 \n");
    }
    site.verb(&["gate", "ban", STRANGER]);
    assert_eq!(site.lab.client().greet(STRANGER, ssh.v4).unwrap(), "220 \n", "a ban does not cut port 22");
    assert_eq!(site.packets("dropped_network") + site.packets("dropped_ban"), 0);
}

#[test]
fn a_tagged_stranger_is_kept_out_too() {
    let site = site!();
    for frame in [syn().from(STRANGER).to(RELAY, 25).tagged(VLAN), syn().from(STRANGER).to(RELAY, 25)] {
        let before = site.packets("dropped_network");
        site.lab.client().send(frame.octets());
        eventually("it is counted", || (site.packets("dropped_network") > before).then_some(()));
    }
}

#[test]
fn a_reset_fails_a_strangers_connect_at_once() {
    let site = site!(|builder: Builder| builder.with("XDP_ACTION", "reset"));
    for stranger in [STRANGER, STRANGER6] {
        let refused = site.lab.client().connect(stranger, port_for(stranger, 25)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    }
    assert_eq!(site.packets("reset"), 2);
    site.relays(FRIEND);
}

#[test]
fn counting_tells_who_would_be_cut_off_and_the_daemon_answers_them() {
    let site = site!(|builder: Builder| builder.with("XDP_ACTION", "count"));
    assert_eq!(site.rcpt(STRANGER), "454 4.7.1 Relay access denied");
    assert!(site.packets("counted") > 0);
    let drops = site.verb(&["gate", "drops"]);
    assert!(drops.starts_with(STRANGER) && drops.contains("port 25    counted"), "{drops}");
    let explained = site.verb(&["explain", STRANGER]);
    assert!(explained.contains("passes and counts its packets"), "{explained}");
}

#[test]
fn each_port_has_its_own_networks() {
    let site = site!(|builder: Builder| {
        builder
            .with("LISTEN_SUBMISSION", "0.0.0.0:587 [::]:587")
            .with("INCOMING_SMTP_AUTHLOGIN", "l")
            .with("INCOMING_SMTP_AUTHDOM", "d.test")
            .with("INCOMING_SMTP_AUTHPASSWORD", "p")
            .with("SUBMISSION_NETWORKS", "198.18.9.0/24 2001:db8:9::/48")
    });
    for stranger in [STRANGER, STRANGER6] {
        assert!(site.lab.client().greet(stranger, port_for(stranger, 587)).unwrap().starts_with("220 "));
        site.is_kept_out(stranger, 25, "dropped_network");
    }
    site.is_kept_out(FRIEND, 587, "dropped_network");
    let explained = site.verb(&["explain", &format!("{FRIEND}:587")]);
    assert!(explained.contains("drops its packets: outside the networks of port 587"), "{explained}");
    let explained = site.verb(&["explain", &format!("{STRANGER}:587")]);
    assert!(explained.contains("passes its packets"), "{explained}");
}

#[test]
fn the_trace_shows_refusals_as_they_come() {
    let site = site!();
    let tracing = site.daemon.begin(&["gate", "trace"]);
    let _knocking = site.lab.client().knock(STRANGER6, port_for(STRANGER6, 25));
    let line = tracing.said().find("the SYN is traced", |said| said.stdout.first().cloned());
    assert!(line.contains(&format!(" {INTERFACE} [{STRANGER6}]:")), "{line}");
    assert!(line.contains(":25 dropped_network"), "{line}");
}

#[test]
fn what_version_tells_is_true() {
    let site = site!();
    let version = site.verb(&["version"]);
    for line in ["gate: embedded", "xdp: yes"] {
        assert!(version.lines().any(|told| told == line), "{version}");
    }
}
