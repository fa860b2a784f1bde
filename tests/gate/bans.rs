//! Bans with the real daemon: by hand and for abuse, in the kernel and, without a gate, by the daemon; floods.

use std::net::IpAddr;

use ringpost_tests::client::Client;
use ringpost_tests::daemon::Builder;
use ringpost_tests::upstream::Upstream;

use crate::lab::{FRIEND, FRIEND6, STRANGER, eventually};
use crate::site;
use crate::site::{Site, builder, port_for};

const BANS: &str = "ringpost_gate_bans";

#[test]
fn a_ban_cuts_a_friend_off_and_shows_at_once() {
    let site = site!();
    for friend in [FRIEND, FRIEND6] {
        site.relays(friend);
        let said = site.verb(&["gate", "ban", friend, "--for", "1h"]);
        assert_eq!(said, format!("{friend} is banned for 1 h 0 min\n"));
        assert_eq!(site.daemon.metric(BANS), Some(1.0));
        let listed = site.verb(&["gate", "bans"]);
        assert!(listed.starts_with(friend) && listed.contains("for 59 min"), "{listed}");
        site.is_kept_out(friend, 25, "dropped_ban");
        let explained = site.verb(&["explain", friend]);
        assert!(explained.contains("gate      drops its packets: banned"), "{explained}");
        assert_eq!(site.verb(&["gate", "unban", friend]), format!("{friend} is banned no more\n"));
        assert_eq!(site.daemon.metric(BANS), Some(0.0));
        site.relays(friend);
    }
    assert_eq!(site.verb(&["gate", "bans"]), "nobody is banned\n");
}

#[test]
fn a_ban_ends_by_itself() {
    let site = site!();
    site.verb(&["gate", "ban", FRIEND, "--for", "1s"]);
    site.is_kept_out(FRIEND, 25, "dropped_ban");
    eventually("the ban has ended", || (site.daemon.metric(BANS) == Some(0.0)).then_some(()));
    site.relays(FRIEND);
}

/// Speaks before its turn, which is abuse, and waits until that is answered.
fn abuse(site: &Site, from: &str) {
    let stream = site.lab.client().connect(from, port_for(from, 25)).unwrap();
    let mut client = Client::over(stream);
    client.send_gladly(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    client.rest();
}

#[test]
fn abuse_bans_its_source_alone() {
    let site = site!(|builder: Builder| builder.with("AUTOBAN", "3 in 1m for 1h"));
    (0..3).for_each(|_| abuse(&site, FRIEND));
    eventually("the source is banned", || (site.daemon.metric(BANS) == Some(1.0)).then_some(()));
    assert!(site.daemon.logged("banned").contains(&format!("client={FRIEND}")));
    site.is_kept_out(FRIEND, 25, "dropped_ban");
    site.relays(FRIEND6);
}

#[test]
fn failed_logins_ban_their_source() {
    let site = site!(|builder: Builder| {
        builder
            .with("AUTOBAN", "3 in 1m for 1h")
            .with("LISTEN_SUBMISSION", "0.0.0.0:587 [::]:587")
            .with("INCOMING_SMTP_AUTHLOGIN", "l")
            .with("INCOMING_SMTP_AUTHDOM", "d.test")
            .with("INCOMING_SMTP_AUTHPASSWORD", "p")
    });
    let stream = site.lab.client().connect(FRIEND, port_for(FRIEND, 587)).unwrap();
    let mut client = Client::over(stream);
    client.reply().assert("220 ");
    client.command("EHLO client.test").assert("250 ");
    client.starttls();
    for _ in 0..3 {
        // NUL l@d.test NUL wrong
        client.send(b"AUTH PLAIN AGxAZC50ZXN0AHdyb25n\r\n");
        client.reply();
    }
    eventually("the source is banned", || (site.daemon.metric(BANS) == Some(1.0)).then_some(()));
    site.is_kept_out(FRIEND, 587, "dropped_ban");
}

#[test]
fn without_a_gate_the_daemon_refuses_who_is_banned() {
    let lab = crate::lab!();
    let upstream = Upstream::plain();
    let daemon = builder(&upstream).with("XDP", "off").with("AUTOBAN", "3 in 1m for 1h").start();
    let site = Site { lab, upstream, daemon };
    site.relays(FRIEND);
    let said = site.verb(&["gate", "ban", FRIEND]);
    assert_eq!(
        said,
        format!("{FRIEND} is banned until it is lifted, by the daemon alone: there is no gate\n")
    );
    assert_eq!(site.daemon.metric(BANS), Some(1.0));
    let is_closed = |from: &str| {
        let stream = site.lab.client().connect(from, port_for(from, 25)).unwrap();
        Client::over(stream).rest().is_empty()
    };
    assert!(is_closed(FRIEND), "no banner");
    assert!(site.verb(&["explain", FRIEND]).contains("closed without a banner: banned"));
    site.verb(&["gate", "unban", FRIEND]);
    site.relays(FRIEND);
    (0..3).for_each(|_| abuse(&site, FRIEND6));
    eventually("the source is banned", || (site.daemon.metric(BANS) == Some(1.0)).then_some(()));
    assert!(is_closed(FRIEND6), "no banner");
    site.relays(FRIEND);
}

#[test]
fn a_flood_of_one_source_leaves_the_mail_of_another_alone() {
    let site = site!(|builder: Builder| {
        builder.with("ACCEPTED_NETWORKS", "198.18.0.0/15").with("XDP_SYN_RATE", "20/h burst 20")
    });
    let source: IpAddr = STRANGER.parse().unwrap();
    let flood = crate::packet::syn().from(&source.to_string()).to(crate::lab::RELAY, 25).octets();
    let before = site.upstream.complete();
    for _ in 0..5 {
        (0..200).for_each(|_| site.lab.client().send(flood.clone()));
        site.relays(FRIEND);
    }
    assert_eq!(site.upstream.complete(), before + 5);
    // The burst, and one more should this machine be so slow that three minutes went by.
    let dropped = site.packets("dropped_rate");
    assert!(dropped >= 1000 - 21, "of 1,000 SYNs, {dropped} were dropped");
    let drops = site.verb(&["gate", "drops"]);
    assert!(drops.contains(STRANGER) && drops.contains("too fast"), "{drops}");
}
