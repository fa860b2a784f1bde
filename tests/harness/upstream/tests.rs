//! The harness against itself: its client talks to its upstream without a relay between them.

use super::*;
use crate::client::Client;
use crate::message;
use crate::wait::Latch;

#[test]
fn records_a_mail_as_it_was_sent() {
    let upstream = Upstream::plain();
    let mut client = Client::greeted(upstream.address());
    let sent = message::ordinary(".a\r\n..\r\nb\r\n");
    client.deliver(&sent).assert("250 2.0.0");
    let mail = upstream.mail();
    assert_eq!(mail.assert_carries(&sent), Vec::<String>::new());
    assert_eq!((mail.reverse_path(), mail.accepted()), ("<a@client.test>", vec!["<b@example.com>"]));
    client.quit();
    assert_eq!(upstream.ended(0).end, Some(End::Quit));
}

#[test]
fn follows_the_first_rule_that_fits() {
    let script =
        Script::new().once(Stage::Mail, "450 4.0.0 Later").on_words(Stage::Rcpt, "c@", "550 5.1.1 No");
    let upstream = Upstream::start(script);
    let mut client = Client::greeted(upstream.address());
    client.command("MAIL FROM:<a@x>").assert("450 4.0.0");
    client.command("RSET").assert("250");
    client.envelope("a@x", &["b@y"]).command("RCPT TO:<c@y>").assert("550 5.1.1");
    client.data(b"x\r\n").assert("250");
    assert_eq!(upstream.mail().accepted(), ["<b@y>"]);
}

#[test]
fn holds_a_reply_until_the_test_lets_it_go() {
    let latch = Latch::new();
    let script =
        Script::new().on(Stage::Message, [Act::Wait(latch.clone()), Act::Say("250 2.0.0 Ok".into())]);
    let upstream = Upstream::start(script);
    let mut client = Client::greeted(upstream.address());
    client.envelope("a@x", &["b@y"]).command("DATA").assert("354");
    client.send(b"x\r\n.\r\n");
    upstream.mail();
    assert!(client.hears_nothing(Duration::from_millis(50)));
    latch.open();
    client.reply().assert("250 2.0.0");
}

#[test]
fn sees_breaches_of_the_wire() {
    let upstream = Upstream::start(Script::new().without("PIPELINING").without("SIZE"));
    let mut client = Client::greeted(upstream.address());
    client.send(b"MAIL FROM:<a@x> SIZE=1\r\nRCPT TO:<b@y>\r\n");
    client.reply();
    client.reply();
    client.command("DATA").assert("354");
    client.send(b"a\nb\r\n.\r\nHELP ME\r\n").reply().assert("250");
    client.reply().assert("500");
    let breaches = upstream.record().read(Record::breaches);
    let expected = [
        "more octets after \"MAIL FROM:<a@x> SIZE=1\", and PIPELINING is not offered",
        "SIZE=1 without an offer of SIZE",
        "an unknown command: \"HELP ME\"",
        "bare LF at octet 1",
    ];
    assert_eq!(breaches, expected);
    let judged = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(upstream)));
    assert!(judged.is_err(), "a breach fails the test");
}

#[test]
fn takes_chunks_and_keeps_what_was_cut_off() {
    let upstream = Upstream::start(Script::new().offering("CHUNKING"));
    let mut client = Client::greeted(upstream.address());
    client.envelope("a@x", &["b@y"]).send(b"BDAT 3\r\n.\r\nBDAT 3 LAST\r\na\r\n");
    client.reply().assert("250");
    client.reply().assert("250");
    let mail = upstream.mail();
    assert_eq!((mail.framing, mail.wire.as_slice()), (Framing::Chunks, &b".\r\na\r\n"[..]));
    client.envelope("a@x", &["b@y"]).command("DATA").assert("354");
    client.send(b"half\r");
    client.reset();
    assert_eq!(upstream.ended(0).end, Some(End::Closed));
    assert_eq!(upstream.complete(), 1);
}
