//! What a client hands over is what the upstream gets: envelope as given, content octet for octet.

use ringpost_tests::daemon::Daemon;
use ringpost_tests::message;
use ringpost_tests::upstream::{End, Script, Upstream};

#[test]
fn relays_a_mail_and_adds_one_received_field() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    let sent = message::ordinary("Hello.\r\n.hidden\r\n..\r\n trailing space \r\n");
    client.deliver(&sent).assert("250 2.");
    let mail = upstream.mail();
    let added = mail.assert_carries(&sent);
    assert_eq!(added.len(), 1, "{added:?}");
    assert!(added[0].starts_with("Received: "), "{added:?}");
    assert_eq!((mail.reverse_path(), mail.accepted()), ("<a@client.test>", vec!["<b@example.com>"]));
    client.quit();
}

#[test]
fn keeps_case_and_quoting_of_addresses() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    let to =
        ["Abc@Example.COM", "\"a b\"@example.com", "a%b@example.com", "b!a@example.com", "x@[127.0.0.1]"];
    client.envelope("\"o'x\"@client.test", &to).data(b"Subject: x\r\n\r\nx\r\n").assert("250 2.");
    let mail = upstream.mail();
    assert_eq!(mail.reverse_path(), "<\"o'x\"@client.test>");
    assert_eq!(mail.accepted(), to.map(|to| format!("<{to}>")));
}

#[test]
fn relays_the_null_sender_and_postmaster() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.envelope("", &["postmaster"]).data(b"Subject: x\r\n\r\nx\r\n").assert("250 2.");
    let mail = upstream.mail();
    assert_eq!(mail.reverse_path(), "<>");
    assert!(mail.accepted()[0].eq_ignore_ascii_case("<postmaster>"), "{mail:?}");
}

#[test]
fn relays_every_octet_but_nul_in_a_body() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    let mut sent = message::ordinary("");
    for octet in (1..=255_u8).filter(|octet| !b"\r\n".contains(octet)) {
        sent.extend_from_slice(&[b'.', octet, b'\r', b'\n']);
    }
    client.deliver(&sent).assert("250 2.");
    upstream.mail().assert_carries(&sent);
}

#[test]
fn relays_sizes_around_every_buffer() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    let buffers = [4 << 10, 16 << 10, 64 << 10, 128 << 10];
    let sizes = buffers.into_iter().flat_map(|octets: usize| [octets - 1, octets, octets + 1]);
    for (count, size) in sizes.chain([0, 3 << 20]).enumerate() {
        let sent = message::of_size(size);
        client.deliver(&sent).assert("250 2.");
        upstream.mails(count + 1)[count].assert_carries(&sent);
    }
}

#[test]
fn streams_while_the_client_still_sends() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.envelope("a@client.test", &["b@example.com"]).command("DATA").assert("354");
    let sent = message::of_size(512 << 10);
    client.send(&sent);
    upstream.record().find("the upstream has most of what the client sent so far", |record| {
        record.mails.first().filter(|mail| mail.wire.len() > 256 << 10 && !mail.complete).map(|_| ())
    });
    client.send(b".\r\n").reply().assert("250 2.");
    upstream.mail().assert_carries(&sent);
}

#[test]
fn passes_dsn_parameters_to_an_upstream_that_offers_dsn() {
    let upstream = Upstream::start(Script::new().offering("DSN"));
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.command("MAIL FROM:<a@client.test> RET=HDRS ENVID=Q+2B1").assert("250 2.1.0");
    client
        .command("RCPT TO:<b@example.com> NOTIFY=FAILURE,DELAY ORCPT=rfc822;b+40x@example.com")
        .assert("250 2.1.5");
    client.data(b"Subject: x\r\n\r\nx\r\n").assert("250 2.");
    let mail = upstream.mail();
    assert!(mail.from.contains("RET=HDRS") && mail.from.contains("ENVID=Q+2B1"), "{mail:?}");
    let to = &mail.recipients[0].argument;
    assert!(to.contains("NOTIFY=FAILURE,DELAY") && to.contains("ORCPT=rfc822;b+40x@example.com"), "{mail:?}");
}

#[test]
fn strips_dsn_parameters_for_an_upstream_without_dsn() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.command("MAIL FROM:<a@client.test> RET=HDRS ENVID=Q1").assert("250 2.1.0");
    client.command("RCPT TO:<b@example.com> NOTIFY=NEVER").assert("250 2.1.5");
    client.data(b"Subject: x\r\n\r\nx\r\n").assert("250 2.");
    // That no parameter goes unoffered is checked by the upstream itself.
    upstream.mail();
}

#[test]
fn talks_to_an_upstream_that_knows_only_helo() {
    use ringpost_tests::upstream::Stage;
    let bare = Script::new().on(Stage::Ehlo, "502 5.5.1 EHLO?").without("PIPELINING").without("SIZE");
    let upstream = Upstream::start(bare.without("8BITMIME").without("SMTPUTF8"));
    let daemon = Daemon::relaying_to(&upstream);
    let sent = message::ordinary("x\r\n");
    daemon.client().deliver(&sent).assert("250 2.");
    upstream.mail().assert_carries(&sent);
    daemon.stop();
    assert_eq!(upstream.ended(0).end, Some(End::Quit));
}
