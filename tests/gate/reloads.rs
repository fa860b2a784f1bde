//! Reloads of the real daemon: gate and daemon change together, under load, and go back together.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ringpost_tests::client::Client;
use ringpost_tests::daemon::Builder;

use crate::lab::{FRIEND, FRIEND6, STRANGER, eventually};
use crate::site;
use crate::site::{Site, port_for, with_networks_in_a_file};

const ONLY_FRIENDS: &str = "198.18.1.0/24 2001:db8:1::/48";
const STRANGERS_INSTEAD: &str = "198.18.9.0/24 2001:db8:1::/48";

fn with_a_file(builder: Builder) -> Builder {
    with_networks_in_a_file(builder, ONLY_FRIENDS)
}

#[test]
fn a_reload_under_load_gives_no_wrong_verdict() {
    let site = site!(with_a_file);
    let (is_over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        // In both lists: each of its connections relays, at every moment.
        let load = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let stream =
                    site.lab.client().connect(FRIEND6, port_for(FRIEND6, 25)).expect("it may connect");
                let mut client = Client::over(stream);
                client.reply().assert("220 ");
                client.command("EHLO client.test").assert("250 ");
                client.command("MAIL FROM:<a@client.test>").assert("250 ");
                client.command("RCPT TO:<b@example.com>").assert("250 2.1.5");
                client.quit();
                served.fetch_add(1, Ordering::Relaxed);
            }
        });
        for round in 0..6 {
            let (inside, outside, networks) = match round % 2 {
                0 => (STRANGER, FRIEND, STRANGERS_INSTEAD),
                _ => (FRIEND, STRANGER, ONLY_FRIENDS),
            };
            site.write_networks(networks);
            site.verb(&["reload"]);
            // In force when the verb returns: for the kernel and for every worker.
            assert!(site.rcpt(inside).starts_with("250 2.1.5"), "{inside}");
            site.is_kept_out(outside, 25, "dropped_network");
            let seen = served.load(Ordering::Relaxed);
            eventually("the load goes on", || (served.load(Ordering::Relaxed) > seen).then_some(()));
        }
        is_over.store(true, Ordering::Relaxed);
        load.join().expect("no connection of the load failed");
    });
    let drops = site.verb(&["gate", "drops"]);
    assert!(!drops.contains(FRIEND6), "{drops}");
}

fn serves_the_old_networks(site: &Site) {
    site.relays(FRIEND);
    site.is_kept_out(STRANGER, 25, "dropped_network");
}

#[test]
fn a_refused_reload_changes_neither_gate_nor_daemon() {
    let site = site!(with_a_file);
    site.write_networks("198.18.9.0/24 nonsense");
    let refused = site.daemon.verb(&["reload"]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    serves_the_old_networks(&site);
    // Networks that the daemon takes and that do not fit the gate: both keep the old ones.
    site.write_networks(&too_many_networks());
    let refused = site.daemon.verb(&["reload"]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("gate: the networks do not fit"), "{refused:?}");
    serves_the_old_networks(&site);
}

/// Single addresses far from each other.
fn too_many_networks() -> String {
    (0..200_000u32)
        .map(|n| format!("{}\n", std::net::Ipv4Addr::from(n.wrapping_mul(2_654_435_761))))
        .collect()
}

#[test]
fn an_unconfirmed_reload_is_taken_back_in_gate_and_daemon() {
    let site = site!(with_a_file);
    site.write_networks(STRANGERS_INSTEAD);
    site.verb(&["reload", "--confirm", "2s"]);
    assert!(site.rcpt(STRANGER).starts_with("250 2.1.5"));
    site.is_kept_out(FRIEND, 25, "dropped_network");
    site.daemon.logged("reload_rolled_back");
    serves_the_old_networks(&site);
    // Confirmed, it stays.
    site.verb(&["reload", "--confirm", "1h"]);
    site.verb(&["confirm"]);
    assert!(site.rcpt(STRANGER).starts_with("250 2.1.5"));
}
