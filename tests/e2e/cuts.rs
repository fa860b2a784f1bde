//! How octets are cut into segments makes no difference.

use ringpost_tests::daemon::Daemon;
use ringpost_tests::upstream::{Script, Upstream};

const CONTENT: &[u8] = b"Subject: c\r\n\r\n.a\r\n..\r\n.\n.\r\n\rb\n.\r\nc\r\n";
/// The same as it is written after DATA, with bare newlines and lone dots that end nothing.
const WIRE: &[u8] = b"Subject: c\r\n\r\n..a\r\n...\r\n..\n.\r\n\rb\n.\r\nc\r\n.\r\n";
/// What must arrive: every bare CR or LF a CRLF.
const ARRIVES: &[u8] = b"Subject: c\r\n\r\n.a\r\n..\r\n.\r\n.\r\n\r\nb\r\n.\r\nc\r\n";

#[test]
fn content_cut_in_two_at_any_octet_arrives_the_same() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    for cut in 0..=WIRE.len() {
        client.envelope("a@client.test", &["b@example.com"]).command("DATA").assert("354");
        client.send_cut(WIRE, &[cut]).reply().assert("250 2.");
    }
    for (cut, mail) in upstream.mails(WIRE.len() + 1).iter().enumerate() {
        let content = mail.content();
        assert!(content.ends_with(ARRIVES), "cut at {cut}: {}", content.escape_ascii());
    }
}

#[test]
fn chunks_cut_in_two_at_any_octet_arrive_the_same() {
    for capability in ["CHUNKING", "8BITMIME"] {
        let upstream = Upstream::start(Script::new().offering(capability));
        let daemon = Daemon::relaying_to(&upstream);
        let mut client = daemon.client();
        for cut in 0..=CONTENT.len() {
            client.envelope("a@client.test", &["b@example.com"]);
            client.send(format!("BDAT {cut}\r\n").as_bytes()).send(&CONTENT[..cut]);
            // A chunk of nothing that is not the last is refused: then there is one chunk.
            if cut == 0 {
                assert_eq!(client.reply().code / 100, 5);
            } else {
                client.reply().assert("250");
            }
            let rest = CONTENT.len() - cut;
            client.send(format!("BDAT {rest} LAST\r\n").as_bytes()).send(&CONTENT[cut..]);
            client.reply().assert("250 2.");
        }
        for (cut, mail) in upstream.mails(CONTENT.len() + 1).iter().enumerate() {
            let content = mail.content();
            assert!(content.ends_with(ARRIVES), "{capability}, cut at {cut}: {}", content.escape_ascii());
        }
    }
}

#[test]
fn a_conversation_of_single_octets_is_a_conversation() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.dribble(b"MAIL FROM:<a@client.test> SIZE=60\r\nRCPT TO:<b@example.com>\r\nDATA\r\n");
    client.reply().assert("250 2.1.0");
    client.reply().assert("250 2.1.5");
    client.reply().assert("354");
    client.dribble(WIRE).reply().assert("250 2.");
    assert!(upstream.mail().content().ends_with(ARRIVES));
}
