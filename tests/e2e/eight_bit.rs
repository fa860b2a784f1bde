//! 8-bit content and UTF-8 addresses go only where they are understood.

use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::upstream::{Script, Upstream};

use crate::attempt::verdict;

const UMLAUTS: &str = "Grüße\r\n";

#[test]
fn passes_8bit_content_to_an_upstream_with_8bitmime() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.command("MAIL FROM:<a@client.test> BODY=8BITMIME").assert("250 2.1.0");
    client.command("RCPT TO:<b@example.com>").assert("250 2.1.5");
    let sent = message::ordinary(UMLAUTS);
    client.data(&sent).assert("250 2.");
    let mail = upstream.mail();
    mail.assert_carries(&sent);
    assert!(mail.from.contains("BODY=8BITMIME"), "{mail:?}");
}

#[test]
fn returns_8bit_content_for_an_upstream_without_8bitmime() {
    let upstream = Upstream::start(Script::new().without("8BITMIME").without("SMTPUTF8"));
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    let reply = verdict(&mut client, &message::ordinary(UMLAUTS));
    assert!(reply.code / 100 == 5 && reply.text().contains("5.6.3"), "{reply:?}");
    assert_eq!(upstream.complete(), 0);
    let sent = message::ordinary("seven bits\r\n");
    client.deliver(&sent).assert("250 2.");
    upstream.mail().assert_carries(&sent);
}

#[test]
fn passes_8bit_content_to_any_upstream_where_it_is_told_to() {
    let upstream = Upstream::start(Script::new().without("8BITMIME").without("SMTPUTF8"));
    let daemon = Builder::relaying_to(&upstream.host()).with("EIGHTBIT", "pass").start();
    let sent = message::ordinary(UMLAUTS);
    daemon.client().deliver(&sent).assert("250 2.");
    upstream.mail().assert_carries(&sent);
}

#[test]
fn passes_utf8_addresses_to_an_upstream_with_smtputf8() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.command("MAIL FROM:<käthe@client.test> SMTPUTF8 BODY=8BITMIME").assert("250 2.1.0");
    client.command("RCPT TO:<jürgen@exämple.com>").assert("250 2.1.5");
    client.data(b"Subject: x\r\n\r\nx\r\n").assert("250 2.");
    let mail = upstream.mail();
    assert!(mail.from.contains("SMTPUTF8"), "{mail:?}");
    assert_eq!((mail.reverse_path(), mail.accepted()), ("<käthe@client.test>", vec!["<jürgen@exämple.com>"]));
}

#[test]
fn refuses_utf8_addresses_without_smtputf8() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.command("MAIL FROM:<käthe@client.test>").assert("553 5.6.7");
    client.command("MAIL FROM:<a@client.test>").assert("250 2.1.0");
    client.command("RCPT TO:<jürgen@example.com>").assert("553 5.6.7");
}

#[test]
fn returns_utf8_addresses_for_an_upstream_without_smtputf8() {
    let upstream = Upstream::start(Script::new().without("SMTPUTF8"));
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    let mut heard = Vec::new();
    for line in ["MAIL FROM:<käthe@client.test> SMTPUTF8", "RCPT TO:<b@example.com>", "DATA"] {
        heard.push(client.command(line));
        if heard.last().is_some_and(|reply| reply.code / 100 > 3) {
            break;
        }
    }
    let refusal = heard.last().expect("a reply");
    assert!(refusal.text().contains("5.6.7"), "{heard:?}");
    assert_eq!(upstream.complete(), 0);
}
