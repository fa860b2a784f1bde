//! A transaction that the client did not finish is never finished upstream.

use ringpost_tests::client::Client;
use ringpost_tests::daemon::Daemon;
use ringpost_tests::message;
use ringpost_tests::upstream::{Act, End, Script, Stage, Upstream};
use ringpost_tests::wait::Latch;

/// A client in the middle of content that has begun to reach the upstream.
fn half_way(daemon: &Daemon, upstream: &Upstream, tail: &[u8]) -> Client {
    let mut client = daemon.client();
    client.envelope("a@client.test", &["b@example.com"]).command("DATA").assert("354");
    client.send(&message::of_size(256 << 10)).send(tail);
    upstream.record().find("content reaches the upstream", |record| {
        record.mails.last().filter(|mail| !mail.wire.is_empty()).map(|_| ())
    });
    client
}

#[test]
fn aborts_upstream_without_a_dot_when_the_client_closes() {
    for tail in [&b""[..], b"x", b"x\r", b"x\r\n", b"x\r\n.", b"x\r\n.\r"] {
        let upstream = Upstream::plain();
        let daemon = Daemon::relaying_to(&upstream);
        drop(half_way(&daemon, &upstream, tail));
        assert_eq!(upstream.ended(0).end, Some(End::Closed));
        assert_eq!(upstream.complete(), 0, "after {}", tail.escape_ascii());
    }
}

#[test]
fn aborts_upstream_without_a_dot_when_the_client_resets_or_half_closes() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    half_way(&daemon, &upstream, b"x\r\n.").reset();
    assert_eq!(upstream.ended(0).end, Some(End::Closed));
    let mut client = half_way(&daemon, &upstream, b"x\r\n.\r");
    client.finish_sending();
    let said = client.rest();
    assert!(!said.contains("250"), "{said}");
    assert_eq!(upstream.ended(1).end, Some(End::Closed));
    assert_eq!(upstream.complete(), 0);
}

#[test]
fn aborts_upstream_without_a_last_chunk_when_the_client_closes() {
    let upstream = Upstream::start(Script::new().offering("CHUNKING"));
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.envelope("a@client.test", &["b@example.com"]);
    client.send(b"BDAT 18\r\nSubject: x\r\n\r\nabc\r\n").reply().assert("250");
    client.send(b"BDAT 100 LAST\r\nabc");
    drop(client);
    upstream.ended(0);
    assert_eq!(upstream.complete(), 0);
}

#[test]
fn survives_a_client_that_is_gone_when_the_verdict_comes() {
    let latch = Latch::new();
    let acts = [Act::Wait(latch.clone()), Act::Say("250 2.0.0 Ok".to_owned())];
    let upstream = Upstream::start(Script::new().on(Stage::Message, acts));
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.envelope("a@client.test", &["b@example.com"]).command("DATA").assert("354");
    client.send(b"Subject: x\r\n\r\nx\r\n.\r\n");
    upstream.mail();
    client.reset();
    latch.open();
    daemon.client().deliver(&message::ordinary("next\r\n")).assert("250 2.");
    daemon.stop();
}

#[test]
fn quit_and_rset_inside_a_transaction_deliver_nothing() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.envelope("a@client.test", &["b@example.com"]).command("RSET").assert("250 2.");
    client.command("DATA").assert("503");
    client.envelope("a@client.test", &["b@example.com"]);
    client.quit();
    daemon.stop();
    assert_eq!(upstream.complete(), 0);
}
