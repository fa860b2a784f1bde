//! What the relay adds to a message, and what it refuses to add to.

use ringpost_tests::client::Client;
use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::upstream::Upstream;

use crate::attempt::verdict;

const SUBJECT: &[u8] = b"Subject: x\r\n\r\nx\r\n";

/// The `Received:` field of one mail sent after this greeting.
fn received(greeting: &str, to: &[&str]) -> String {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = Client::connect(daemon.smtp());
    client.command(greeting).assert("250 ");
    let sent = message::ordinary("x\r\n");
    client.envelope("a@client.test", to).data(&sent).assert("250 2.");
    let added = upstream.mail().assert_carries(&sent);
    added[0].replace("\r\n", "")
}

#[test]
fn tells_who_handed_it_over_how_and_to_whom() {
    let field = received("EHLO client.test", &["b@example.com"]);
    for part in [
        "from client.test",
        "[127.0.0.1]",
        "by relay.test",
        "with ESMTP",
        " id ",
        "for <b@example.com>",
        "; ",
    ] {
        assert!(field.contains(part), "{part} is missing in {field:?}");
    }
    assert!(received("HELO client.test", &["b@example.com"]).contains("with SMTP"));
}

#[test]
fn names_no_recipient_when_there_are_several() {
    let field = received("EHLO client.test", &["b@example.com", "c@example.com"]);
    assert!(!field.contains("@example.com"), "{field:?}");
}

#[test]
fn lets_no_greeting_write_into_the_header_section() {
    for name in ["a(b", "a)b;c", "a\"b", "a\tb", "[1.2.3", "x y z", "a\u{1b}[2J", &"h".repeat(300)] {
        let upstream = Upstream::plain();
        let daemon = Daemon::relaying_to(&upstream);
        let mut client = Client::connect(daemon.smtp());
        if client.command(&format!("EHLO {name}")).code / 100 != 2 {
            continue;
        }
        let sent = message::ordinary("x\r\n");
        client.deliver(&sent).assert("250 2.");
        let added = upstream.mail().assert_carries(&sent);
        assert_eq!(added.len(), 1, "{name:?}: {added:?}");
        let controls = added[0].replace("\r\n", "").chars().any(|c| c.is_control() && c != '\t');
        assert!(!controls && added[0].len() < 1000, "{name:?}: {added:?}");
    }
}

#[test]
fn adds_date_and_message_id_where_they_are_missing() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    daemon.client().deliver(SUBJECT).assert("250 2.");
    let mail = upstream.mail();
    let content = mail.content();
    let end = content.windows(4).position(|window| window == b"\r\n\r\n").expect("a header section") + 2;
    let fields = message::fields(&content[..end]).expect("fields only");
    for name in ["Received:", "Date:", "Message-ID:", "Subject:"] {
        let count =
            fields.iter().filter(|field| field.to_ascii_lowercase().starts_with(&name.to_ascii_lowercase()));
        assert_eq!(count.count(), 1, "{name} in {fields:?}");
    }
    assert!(content.ends_with(b"\r\n\r\nx\r\n"));
}

#[test]
fn keeps_its_trace_apart_from_what_is_no_header_section() {
    let bodies =
        [&b" folded from nowhere\r\n"[..], b"\tfolded\r\n\r\nx\r\n", b"\r\nbody only\r\n", b"just text\r\n"];
    for sent in bodies {
        let upstream = Upstream::plain();
        let daemon = Daemon::relaying_to(&upstream);
        daemon.client().deliver(sent).assert("250 2.");
        let content = upstream.mail().content();
        let added = content.strip_suffix(sent).unwrap_or_else(|| panic!("{}", content.escape_ascii()));
        // An empty line stands between, unless what was sent begins with it.
        let section = if sent.starts_with(b"\r\n") { Some(added) } else { added.strip_suffix(b"\r\n") };
        let fields = section.and_then(message::fields);
        assert!(fields.is_some_and(|fields| !fields.is_empty()), "{}", content.escape_ascii());
    }
}

#[test]
fn refuses_a_message_that_has_gone_in_circles() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).with("HOPS_MAX", "5").start();
    let mut client = daemon.client();
    let forms = ["Received: from a\r\n by b\r\n", "received: x\r\n", "RECEIVED: x\r\n", "Received : x\r\n"];
    for form in forms {
        let hops = |count: usize| [form.repeat(count).as_bytes(), SUBJECT].concat();
        client.deliver(&hops(5)).assert("250 2.");
        verdict(&mut client, &hops(6)).assert("554 5.4.6");
        client.command("RSET").assert("250 2.");
    }
    // What stands in the body does not count.
    client.deliver(&[SUBJECT, "Received: x\r\n".repeat(20).as_bytes()].concat()).assert("250 2.");
    assert_eq!(upstream.mails(5).len(), 5);
}

#[test]
fn refuses_a_header_section_without_end() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    let many = "X-Field: a value that says nothing\r\n".repeat(20_000);
    let long = format!("X-Field: {}\r\n", "x".repeat(1 << 20));
    for section in [many, long] {
        let reply = verdict(&mut client, &[section.as_bytes(), SUBJECT].concat());
        assert!(["552 5.3.4", "554 5.6.0"].iter().any(|start| reply.text().starts_with(start)), "{reply:?}");
        client.command("RSET").assert("250 2.");
    }
    assert_eq!(upstream.complete(), 0);
    let long_but_bounded = [format!("X-Field: {}\r\n", "x".repeat(64 << 10)).as_bytes(), SUBJECT].concat();
    client.deliver(&long_but_bounded).assert("250 2.");
}
