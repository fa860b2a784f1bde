//! BDAT (RFC 3030): counted content, on both sides, each independent of the other.

use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::upstream::{Framing, Script, Upstream};

const HEAD: &[u8] = b"Subject: x\r\n\r\n";

fn both_kinds() -> [Upstream; 2] {
    [Upstream::plain(), Upstream::start(Script::new().offering("CHUNKING"))]
}

#[test]
fn content_that_looks_like_an_end_is_content() {
    for upstream in both_kinds() {
        let daemon = Daemon::relaying_to(&upstream);
        let mut client = daemon.client();
        let sent = message::ordinary("x\r\n.\r\nMAIL FROM:<evil@x.test>\r\n..\r\n.");
        client.envelope("a@client.test", &["b@example.com"]);
        client.send(format!("BDAT {} LAST\r\n", sent.len()).as_bytes()).send(&sent).reply().assert("250 2.");
        let mail = upstream.mail();
        // Towards DATA the last line gets the CRLF that DATA needs.
        let ended = if mail.framing == Framing::Data { [&sent[..], b"\r\n"].concat() } else { sent };
        mail.assert_carries(&ended);
    }
}

#[test]
fn content_by_data_arrives_by_chunks_without_its_dots() {
    let upstream = Upstream::start(Script::new().offering("CHUNKING"));
    let daemon = Daemon::relaying_to(&upstream);
    let sent = message::ordinary(".\r\n..\r\n.a\r\n");
    daemon.client().deliver(&sent).assert("250 2.");
    upstream.mail().assert_carries(&sent);
}

#[test]
fn takes_the_legal_forms_of_the_last_chunk() {
    for upstream in both_kinds() {
        let daemon = Daemon::relaying_to(&upstream);
        let mut client = daemon.client();
        for (first, last) in
            [("BDAT 21", "BDAT 0 LAST"), ("bdat 021", "BDAT 0 last"), ("BDAT 00021", "BDAT 00 LAST")]
        {
            client.envelope("a@client.test", &["b@example.com"]);
            client
                .send(format!("{first}\r\n").as_bytes())
                .send(HEAD)
                .send(b"12345\r\n")
                .reply()
                .assert("250 2.");
            client.command(last).assert("250 2.");
        }
        assert!(upstream.mails(3).iter().all(|mail| mail.content().ends_with(b"\r\n\r\n12345\r\n")));
    }
}

#[test]
fn closes_where_the_length_is_unknown() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    for size in ["", " ", " -1", " +5", " 0x10", " 99999999999999999999", " 18446744073709551616", " 5 FIRST"]
    {
        let mut client = daemon.client();
        client.envelope("a@client.test", &["b@example.com"]);
        client.command(&format!("BDAT{size}")).assert("501 5.5.");
        assert_eq!(client.rest(), "", "BDAT{size}");
    }
    assert_eq!(upstream.complete(), 0);
}

#[test]
fn refuses_empty_chunks_that_are_not_the_last() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.envelope("a@client.test", &["b@example.com"]);
    let reply = client.command("BDAT 0");
    assert_eq!(reply.code / 100, 5, "{reply:?}");
    // They count against the session: a flood of them ends it.
    for _ in 0..100 {
        client.send_gladly(b"BDAT 0\r\n");
    }
    assert!(client.rest().contains("421 4.7.0"));
}

#[test]
fn swallows_exactly_the_chunk_it_refuses() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    let poison = b"RCPT TO:<evil@x.test>\r\nQUIT\r\n";
    let chunk = [format!("BDAT {} LAST\r\n", poison.len()).as_bytes(), poison].concat();
    client.send(&chunk).reply().assert("503");
    client.command("MAIL FROM:<a@client.test>").assert("250 2.1.0");
    let refused = client.send(&chunk).reply();
    assert!([503, 554].contains(&refused.code), "{refused:?}");
    client.command("RSET").assert("250 2.");
    client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
    assert_eq!(upstream.mail().accepted(), ["<b@example.com>"]);
}

#[test]
fn mixes_with_data_in_no_transaction() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.envelope("a@client.test", &["b@example.com"]);
    client.send(b"BDAT 14\r\n").send(HEAD).reply().assert("250 2.");
    client.command("DATA").assert("503");
    client.command("NOOP").assert("250 2.");
    client.command("RSET").assert("250 2.");
    client.command("BDAT 0 LAST").assert("503");
    client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
    assert_eq!(upstream.mails(1).len(), 1);
}

#[test]
fn refuses_a_chunk_that_exceeds_the_size_and_keeps_the_framing() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).with("MESSAGE_SIZE_MAX", "10K").start();
    let mut client = daemon.client();
    client.envelope("a@client.test", &["b@example.com"]);
    client.send(b"BDAT 14\r\n").send(HEAD).reply().assert("250 2.");
    client.send(b"BDAT 20000\r\n").send(&b"QUIT\r\n".repeat(4000)[..20_000]);
    client.reply().assert("552 5.3.4");
    client.command("RSET").assert("250 2.");
    client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
    assert_eq!(upstream.mails(1).len(), 1);
}
