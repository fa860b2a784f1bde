//! Only CRLF.CRLF ends a message, inbound and outbound; bare newlines are made whole or refused, for everybody.

use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::upstream::Upstream;

const SMUGGLED: &str = "MAIL FROM:<evil@x.test>\r\nRCPT TO:<victim@example.com>\r\nDATA\r\nevil\r\n";

/// What looks like an end to somebody, and what it is: content.
const FALSE_ENDS: &[(&str, &str)] = &[
    ("x\n.\n", "x\r\n.\r\n"),
    ("x\n.\r\n", "x\r\n.\r\n"),
    ("x\r\n.\n", "x\r\n.\r\n"),
    ("x\n.\r", "x\r\n.\r\n"),
    ("x\r.\r", "x\r\n.\r\n"),
    ("x\r.\n", "x\r\n.\r\n"),
    ("x\r.\r\n", "x\r\n.\r\n"),
    ("x\r\n.\r", "x\r\n.\r\n"),
    ("x\r\r\n.\r\r\n", "x\r\n\r\n.\r\n\r\n"),
    ("x\r\n.\r\r\n", "x\r\n.\r\n\r\n"),
    ("x\n..\n", "x\r\n..\r\n"),
    ("x\r\n..\n", "x\r\n.\r\n"),
];

#[test]
fn takes_no_other_sequence_for_the_end() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    for (count, (false_end, content)) in FALSE_ENDS.iter().enumerate() {
        let head = String::from_utf8(message::ordinary("")).expect("text");
        client.envelope("a@client.test", &["b@example.com"]);
        let wire = format!("{head}{false_end}{SMUGGLED}.\r\n");
        client.raw_data(wire.as_bytes()).assert("250 2.");
        let mails = upstream.mails(count + 1);
        assert_eq!(mails.len(), count + 1, "one mail each: {}", false_end.escape_debug());
        mails[count].assert_carries(format!("{head}{content}{SMUGGLED}").as_bytes());
    }
    client.quit();
}

#[test]
fn refuses_bare_newlines_where_it_is_told_to() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).with("BARE_NEWLINE", "reject").start();
    let mut client = daemon.client();
    for (false_end, _) in FALSE_ENDS {
        client.envelope("a@client.test", &["b@example.com"]);
        client
            .raw_data(format!("Subject: x\r\n\r\n{false_end}{SMUGGLED}.\r\n").as_bytes())
            .assert("550 5.6.11");
    }
    assert_eq!(upstream.complete(), 0);
    let sent = message::ordinary("good\r\n");
    client.deliver(&sent).assert("250 2.");
    upstream.mail().assert_carries(&sent);
}

#[test]
fn refuses_nul_and_does_not_end_at_it() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    for body in ["x\0y\r\n", "x\r\n\0.\r\n", "x\r\n.\0\r\n"] {
        client.envelope("a@client.test", &["b@example.com"]);
        client.raw_data(format!("Subject: x\r\n\r\n{body}{SMUGGLED}.\r\n").as_bytes()).assert("550 5.6.0");
    }
    assert_eq!(upstream.complete(), 0);
    client.deliver(&message::ordinary("good\r\n")).assert("250 2.");
}

#[test]
fn keeps_dots_at_the_edges() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    let bodies = [".\r\n", "..\r\n", "...\r\n", ".\r\n.\r\n", "a\r\n.\r\n", ".a\r\n.", "\r\n.\r\n\r\n"];
    for (count, body) in bodies.iter().enumerate() {
        let sent = message::ordinary(&format!("{}\r\n", body.trim_end_matches("\r\n")));
        client.deliver(&sent).assert("250 2.");
        upstream.mails(count + 1)[count].assert_carries(&sent);
    }
}

#[test]
fn relays_an_empty_message() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.envelope("a@client.test", &["b@example.com"]).raw_data(b".\r\n").assert("250 2.");
    upstream.mail();
    client.deliver(&message::ordinary("next\r\n")).assert("250 2.");
}

#[test]
fn honours_commands_pipelined_behind_the_end() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.envelope("a@client.test", &["b@example.com"]).command("DATA").assert("354");
    client.send(
        b"Subject: x\r\n\r\nx\r\n.\r\nMAIL FROM:<c@client.test>\r\nRCPT TO:<d@example.com>\r\nDATA\r\n",
    );
    for start in ["250 2.", "250 2.1.0", "250 2.1.5", "354"] {
        client.reply().assert(start);
    }
    client.send(b"Subject: y\r\n\r\ny\r\n.\r\nQUIT\r\n");
    client.reply().assert("250 2.");
    client.reply().assert("221 2.0.0");
    assert_eq!(client.rest(), "");
    let mails = upstream.mails(2);
    assert_eq!(mails[1].accepted(), ["<d@example.com>"]);
}

#[test]
fn passes_long_lines_as_they_are() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    for (count, octets) in [998, 1000, 1001, 64 << 10, 2 << 20].into_iter().enumerate() {
        let sent = message::ordinary(&format!("{}\r\n", "x".repeat(octets)));
        client.deliver(&sent).assert("250 2.");
        upstream.mails(count + 1)[count].assert_carries(&sent);
    }
}

#[test]
fn stays_strict_while_it_discards_what_is_too_big() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).with("MESSAGE_SIZE_MAX", "64K").start();
    let mut client = daemon.client();
    client.envelope("a@client.test", &["b@example.com"]).command("DATA").assert("354");
    client.send(b"Subject: x\r\n\r\n").send("x".repeat(200 << 10).as_bytes());
    client.send(b"\n.\n").send(SMUGGLED.as_bytes()).send(b"\r\n.\r\n");
    client.reply().assert("552 5.3.4");
    assert_eq!(upstream.complete(), 0);
    client.deliver(&message::ordinary("small\r\n")).assert("250 2.");
    assert_eq!(upstream.mails(1).len(), 1);
}

#[test]
fn treats_an_mbox_line_as_no_header() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    let sent = b"From a@x Fri Nov 21 10:00:00 2025\r\nSubject: x\r\n\r\nx\r\n";
    client.deliver(sent).assert("250 2.");
    let content = upstream.mail().content();
    let added = content.strip_suffix(&sent[..]).expect("what was sent is there");
    let added = added.strip_suffix(b"\r\n\r\n").expect("an empty line parts the trace from it");
    assert!(message::fields(&[added, b"\r\n"].concat()).is_some(), "{}", added.escape_ascii());
}
