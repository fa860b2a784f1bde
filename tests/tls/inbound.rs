//! TLS with clients: STARTTLS, TLS from the first octet, versions, the end of a session, large mail.

use std::io::Write;
use std::process::Command;

use ringpost_tests::client::Client;
use ringpost_tests::daemon::{Builder, field};
use ringpost_tests::message;
use ringpost_tests::need;
use ringpost_tests::process;
use ringpost_tests::upstream::Upstream;

/// A relay with both submission listeners.
fn builder(upstream: &Upstream) -> Builder {
    Builder::relaying_to(&upstream.host())
        .with("LISTEN_SUBMISSION", "127.0.0.1:0")
        .with("LISTEN_SUBMISSIONS", "127.0.0.1:0")
        .with("INCOMING_SMTP_AUTHLOGIN", "user")
        .with("INCOMING_SMTP_AUTHDOM", "client.test")
        .with("INCOMING_SMTP_AUTHPASSWORD", "secret")
}

#[test]
fn starttls_is_offered_once_and_mail_goes_through_it() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).start();
    let mut client = daemon.client();
    let offered = client.command("EHLO client.test").lines;
    assert!(offered.contains(&"STARTTLS".to_owned()), "{offered:?}");
    client.starttls();
    let offered = client.command("EHLO client.test").lines;
    assert!(!offered.contains(&"STARTTLS".to_owned()), "RFC 3207 §4.2: {offered:?}");
    assert!(!offered.iter().any(|line| line.starts_with("AUTH")), "no logins at port 25: {offered:?}");
    client.command("STARTTLS").assert("503 5.5.1");
    let sent = message::ordinary("x\r\n.\r\n..y\r\n");
    client.deliver(&sent).assert("250 2.");
    let added = upstream.mail().assert_carries(&sent);
    assert!(added[0].contains("with ESMTPS id"), "{added:?}");
    assert!(added[0].contains("(using TLSv1.3 with cipher TLS_"), "{added:?}");
    let logged = daemon.logged("relayed");
    assert!(field(&logged, "client_tls").is_some_and(|tls| tls.starts_with("TLSv1.3 TLS_")), "{logged}");
    client.quit();
}

#[test]
fn a_large_mail_arrives_whole_however_it_is_cut() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).start();
    for octets in [1, 4000, 16_000, 17_000, 100_000, 3_000_000] {
        let mut client = daemon.client();
        client.starttls();
        let sent = message::of_size(octets.max(2));
        client.deliver(&sent).assert("250 2.");
        upstream.record().read(|record| record.mails.last().cloned()).expect("a mail").assert_carries(&sent);
    }
    // One octet a record.
    let mut client = daemon.client();
    client.starttls();
    let sent = message::ordinary("dribbled\r\n.\r\n");
    client.envelope("a@client.test", &["b@example.com"]).command("DATA").assert("354");
    client.dribble(&ringpost_tests::wire::stuffed(&sent)).dribble(b".\r\n").reply().assert("250 2.");
    upstream.record().read(|record| record.mails.last().cloned()).expect("a mail").assert_carries(&sent);
}

#[test]
fn a_pipelined_group_in_one_record_is_answered_in_order() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).start();
    let mut client = daemon.client();
    client.starttls();
    client.send(b"MAIL FROM:<a@client.test>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n");
    for expected in ["250 2.1.0", "250 2.1.5", "354"] {
        client.reply().assert(expected);
    }
    client.send(b"Subject: x\r\n\r\nx\r\n.\r\nQUIT\r\n").reply().assert("250 2.");
    client.reply().assert("221 2.");
    assert_eq!(client.rest(), "");
}

#[test]
fn a_message_that_ends_with_tls_but_without_its_dot_is_not_delivered() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).start();
    for says_goodbye in [false, true] {
        let mut client = daemon.client();
        client.starttls();
        client.envelope("a@client.test", &["b@example.com"]).command("DATA").assert("354");
        client.send(b"Subject: x\r\n\r\nhalf a message\r\n");
        if says_goodbye {
            // What comes behind a close_notify is nobody's (CVE-2026-45185): neither in TLS nor in clear.
            client.pipe().close_notify();
            client.pipe().socket().write_all(b".\r\n").ok();
        }
        client.finish_sending();
        client.rest();
    }
    daemon.client().deliver(&message::ordinary("whole\r\n")).assert("250 2.");
    assert_eq!(upstream.mails(1).len(), 1);
}

#[test]
fn port_465_speaks_tls_from_the_first_octet_and_nothing_else() {
    let upstream = Upstream::plain();
    let daemon = builder(&upstream).start();
    let address = daemon.listener("submissions");
    let mut client = Client::connect_inside(address);
    let offered = client.command("EHLO client.test").lines;
    assert!(offered.contains(&"AUTH PLAIN LOGIN".to_owned()), "{offered:?}");
    assert!(!offered.contains(&"STARTTLS".to_owned()), "{offered:?}");
    client.quit();
    let mut plain = Client::dial(address);
    plain.send(b"EHLO client.test\r\n");
    let heard = plain.rest();
    assert!(!heard.contains("220") && !heard.contains("250"), "{heard:?}");
    daemon.logged("tls_failed");
}

#[test]
fn a_client_hello_at_a_plain_port_is_not_answered_with_its_octets() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).start();
    let mut client = Client::connect(daemon.smtp());
    client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03EVIL\r\n");
    assert!(!client.rest().contains("EVIL"));
}

#[test]
fn the_oldest_version_is_what_was_configured() {
    let openssl = need!("openssl");
    let upstream = Upstream::plain();
    for (oldest, version, is_spoken) in [
        ("1.2", "-tls1_2", true),
        ("1.2", "-tls1_3", true),
        ("1.3", "-tls1_2", false),
        ("1.3", "-tls1_3", true),
        ("1.2", "-tls1_1", false),
    ] {
        let daemon = builder(&upstream).with("TLS_INCOMING_MIN", oldest).start();
        let address = daemon.listener("submissions").to_string();
        let finished = process::run(
            Command::new(&openssl)
                .args(["s_client", "-connect", &address, version, "-brief", "-cipher"])
                .arg("DEFAULT:@SECLEVEL=0"),
        );
        let heard = finished.stdout + &finished.stderr;
        assert_eq!(heard.contains("CONNECTION ESTABLISHED"), is_spoken, "{oldest} {version}: {heard}");
    }
}

#[test]
fn tickets_are_good_for_their_own_listener_only() {
    let openssl = need!("openssl");
    let upstream = Upstream::plain();
    let daemon = builder(&upstream).with("WORKERS", "2").start();
    let ticket = daemon.dir().join("ticket");
    let ticket = ticket.display().to_string();
    let (own, other) =
        (daemon.listener("submissions").to_string(), daemon.listener("submission").to_string());
    let connect = |address: &str, more: &[&str]| {
        let finished = process::Process::with_input(
            Command::new(&openssl)
                .args(["s_client", "-connect", address, "-tls1_2", "-crlf", "-ign_eof"])
                .args(more),
            b"EHLO client.test\nQUIT\n",
        )
        .finish();
        finished.stdout
    };
    // Octets before the banner would be an early talker's: the listener of port 465 is asked for its ticket alone.
    let first = connect(&other, &["-starttls", "smtp", "-sess_out", &ticket]);
    assert!(first.contains("New, TLSv1.2"), "{first}");
    for _ in 0..4 {
        let again = connect(&other, &["-starttls", "smtp", "-sess_in", &ticket]);
        assert!(again.contains("Reused, TLSv1.2"), "any worker knows the ticket: {again}");
    }
    let elsewhere = connect(&own, &["-sess_in", &ticket]);
    assert!(elsewhere.contains("New, TLSv1.2"), "{elsewhere}");
}
