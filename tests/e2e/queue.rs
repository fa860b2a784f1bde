//! What the spool has taken is delivered, whatever happens in between.

use std::net::TcpListener;

use ringpost::io::clock;
use ringpost_tests::daemon::{Builder, field};
use ringpost_tests::message;
use ringpost_tests::upstream::{Act, Script, Stage, Upstream, refusing};
use ringpost_tests::wait::Latch;

/// A relay that takes everything for later.
fn queueing(hosts: &str) -> Builder {
    Builder::relaying_to(hosts).with("DELIVERY_PATIENCE", "0").with("QUEUE_RETRY", "200ms")
}

#[test]
fn delivers_what_it_has_queued() {
    let upstream = Upstream::plain();
    let daemon = queueing(&upstream.host()).start();
    let sent = message::ordinary(".\r\n..dots\r\n.a\r\n");
    let reply = daemon.client().deliver(&sent);
    reply.assert("250 2.0.0 Ok: queued as ");
    let mail = upstream.mail();
    mail.assert_carries(&sent);
    let queued = daemon.logged("queued");
    let delivered = daemon.logged("delivered");
    let id = field(&queued, "queue_id");
    assert!(id.is_some_and(|id| reply.text().contains(id)), "{reply:?} {queued}");
    assert_eq!(field(&delivered, "queue_id"), id);
    daemon.reaches("ringpost_queue_messages{state=\"active\"}", 0.0);
    assert_eq!(daemon.metric("ringpost_messages_relayed_total{custody=\"spool\"}"), Some(1.0));
    assert_eq!(daemon.metric("ringpost_recipients_total{outcome=\"delivered\"}"), Some(1.0));
    daemon.stop();
}

#[test]
fn delivers_when_an_upstream_that_was_down_is_up() {
    let address = refusing();
    let daemon = queueing(&format!("[127.0.0.1]:{}", address.port())).start();
    let sent = message::ordinary("later\r\n");
    daemon.client().deliver(&sent).assert("250 2.0.0 Ok: queued as ");
    daemon.logged("deferred");
    let upstream = Upstream::start_at(TcpListener::bind(address).expect("the port is free"), Script::new());
    upstream.mail().assert_carries(&sent);
    daemon.logged("delivered");
    daemon.stop();
}

#[test]
fn what_was_queued_survives_a_kill() {
    let address = refusing();
    let hosts = format!("[127.0.0.1]:{}", address.port());
    let daemon = queueing(&hosts).start();
    let sent: Vec<_> = (0..20).map(|n| message::of_size(n * 40_000)).collect();
    let mut client = daemon.client();
    for sent in &sent {
        client.deliver(sent).assert("250 2.0.0 Ok: queued as ");
    }
    drop(client);
    let killed = daemon.kill();
    let upstream = Upstream::start_at(TcpListener::bind(address).expect("the port is free"), Script::new());
    let daemon = killed.with("WORKERS", "2").start();
    let mails = upstream.mails(sent.len());
    assert_eq!(mails.len(), sent.len());
    for sent in &sent {
        let found = mails.iter().filter(|mail| mail.content().ends_with(sent)).count();
        assert_eq!(found, 1);
    }
    daemon.reaches("ringpost_queue_octets", 0.0);
    // Nothing is left for another start.
    let daemon = daemon.pause().start();
    assert_eq!(daemon.metric("ringpost_queue_octets"), Some(0.0));
    daemon.stop();
}

#[test]
fn tries_again_whom_the_upstream_puts_off_and_nobody_else() {
    let script = Script::new()
        .once(Stage::Rcpt, "250 2.1.5 Ok")
        .once(Stage::Rcpt, "450 4.2.0 Busy")
        .once(Stage::Rcpt, "451 4.7.1 Greylisted");
    let upstream = Upstream::start(script);
    let daemon = queueing(&upstream.host()).start();
    let mut client = daemon.client();
    client.envelope("a@client.test", &["b@example.com", "c@example.com"]);
    let sent = message::ordinary("x\r\n");
    client.data(&sent).assert("250 2.0.0 Ok: queued as ");
    let mails = upstream.mails(2);
    for mail in &mails {
        mail.assert_carries(&sent);
    }
    assert_eq!(mails[0].accepted(), ["<b@example.com>"]);
    assert_eq!(mails[1].accepted(), ["<c@example.com>"]);
    daemon.reaches("ringpost_recipients_total{outcome=\"deferred\"}", 2.0);
    daemon.reaches("ringpost_recipients_total{outcome=\"delivered\"}", 2.0);
    daemon.stop();
}

#[test]
fn refuses_a_second_daemon_on_the_same_spool() {
    let daemon = queueing("[127.0.0.1]:9").start();
    let state = daemon.dir().join("state").display().to_string();
    let second = queueing("[127.0.0.1]:9").with("STATE_DIR", &state).try_start().expect_err("it is taken");
    assert_eq!(second.code, Some(73), "{second:#?}");
    daemon.stop();
}

#[test]
fn a_full_spool_is_foreseen_at_mail() {
    let upstream = Upstream::plain();
    let daemon = queueing(&upstream.host()).with("QUEUE_BYTES_MAX", "4096").start();
    let mut client = daemon.client();
    client.command("MAIL FROM:<a@client.test>").assert("452 4.3.1");
    daemon.stop();
    let daemon = queueing(&upstream.host()).with("QUEUE_BYTES_MAX", "8M").start();
    let mut client = daemon.client();
    client.command("MAIL FROM:<a@client.test> SIZE=20000000").assert("452 4.3.1");
    client.deliver(&message::ordinary("x\r\n")).assert("250 2.0.0 Ok: queued as ");
    daemon.stop();
}

#[test]
fn no_more_messages_go_out_than_the_rate_allows() {
    let upstream = Upstream::plain();
    for patience in ["0", "forever", "9m"] {
        let daemon = Builder::relaying_to(&upstream.host())
            .with("DELIVERY_PATIENCE", patience)
            .with("UPSTREAM_RATE", "10/s burst 2")
            .with("WORKERS", "2")
            .start();
        let before = upstream.complete();
        let start = clock::now();
        let mut client = daemon.client();
        for _ in 0..8 {
            client.deliver(&message::ordinary("x\r\n")).assert("250");
        }
        upstream.mails(before + 8);
        let least = std::time::Duration::from_millis(600);
        assert!(clock::now().since(start) >= least, "{patience}: two at once, six in six tenths of a second");
        daemon.stop();
    }
}

#[test]
fn one_noisy_sender_does_not_delay_the_others() {
    let latch = Latch::new();
    let acts = [Act::Wait(latch.clone()), Act::Say("250 2.0.0 Ok".to_owned())];
    let upstream = Upstream::start(Script::new().once(Stage::Message, acts));
    let daemon = queueing(&upstream.host()).with("UPSTREAM_CONNECTIONS", "1").start();
    let mut client = daemon.client();
    for _ in 0..50 {
        client.envelope("noisy@client.test", &["b@example.com"]);
        client.data(&message::ordinary("x\r\n")).assert("250");
    }
    client.envelope("quiet@client.test", &["b@example.com"]);
    client.data(&message::ordinary("x\r\n")).assert("250");
    latch.open();
    let mails = upstream.mails(51);
    let place = mails.iter().position(|mail| mail.from.contains("quiet@")).expect("it came");
    assert!(place <= 3, "after {place} others");
    daemon.stop();
}

#[test]
fn new_mail_takes_turns_with_whatever_has_piled_up() {
    const BACKLOG: usize = 1000;
    for is_restarted in [false, true] {
        let address = refusing();
        let hosts = format!("[127.0.0.1]:{}", address.port());
        let daemon = queueing(&hosts).with("UPSTREAM_CONNECTIONS", "1").start();
        let mut client = daemon.client();
        for _ in 0..BACKLOG {
            client.deliver(&message::ordinary("old\r\n")).assert("250 2.0.0 Ok: queued as ");
        }
        drop(client);
        let daemon = if is_restarted { daemon.kill().start() } else { daemon };
        let latch = Latch::new();
        let held = [Act::Wait(latch.clone()), Act::Say("250 2.0.0 Ok".to_owned())];
        let script = Script::new().once(Stage::Message, "250 2.0.0 Ok").once(Stage::Message, held);
        let upstream = Upstream::start_at(TcpListener::bind(address).expect("the port is free"), script);
        // From its first delivery on the destination is alive, and what comes now is no backlog.
        daemon.logged("delivered");
        let sent = message::ordinary("new\r\n");
        daemon.client().deliver(&sent).assert("250 2.0.0 Ok: queued as ");
        latch.open();
        let mails = upstream.mails(BACKLOG + 1);
        let place = mails.iter().position(|mail| mail.content().ends_with(b"new\r\n")).expect("it came");
        // A few came before the destination was known to be dead, and stand in the line of new mail too.
        assert!(place <= BACKLOG / 50, "after {place} others");
        daemon.reaches("ringpost_queue_octets", 0.0);
        assert_eq!(upstream.complete(), BACKLOG + 1, "each once");
        daemon.stop();
    }
}

#[test]
fn the_sender_hears_of_what_was_refused_for_good() {
    let script = Script::new().on_words(Stage::Rcpt, "nobody@", "550 5.1.1 No such user");
    let upstream = Upstream::start(script);
    let daemon = queueing(&upstream.host()).start();
    let mut client = daemon.client();
    client.envelope("a@client.test", &["b@example.com", "nobody@example.com"]);
    let sent = message::ordinary("x\r\n");
    client.data(&sent).assert("250 2.0.0 Ok: queued as ");
    let mails = upstream.mails(2);
    mails[0].assert_carries(&sent);
    assert_eq!((mails[1].reverse_path(), &mails[1].accepted()[..]), ("<>", &["<a@client.test>"][..]));
    let notice = String::from_utf8(mails[1].content()).expect("ASCII");
    assert!(notice.contains("Final-Recipient: rfc822;nobody@example.com"), "{notice}");
    assert!(
        notice.contains("550 5.1.1 No such user") && !notice.contains("b@example.com\r\nAction"),
        "{notice}"
    );
    daemon.reaches("ringpost_queue_octets", 0.0);
    assert_eq!(daemon.metric("ringpost_recipients_total{outcome=\"bounced\"}"), Some(1.0));
    assert_eq!(field(&daemon.logged("bounced"), "to"), Some("nobody@example.com"));
    daemon.stop();
}

#[test]
fn what_outlives_its_time_is_returned_after_an_attempt() {
    let script = Script::new().on_words(Stage::Rcpt, "later@", "450 4.2.0 Busy");
    let upstream = Upstream::start(script);
    let daemon = queueing(&upstream.host()).with("QUEUE_LIFETIME", "1s").start();
    let mut client = daemon.client();
    client.envelope("a@client.test", &["later@example.com"]);
    client.data(&message::ordinary("x\r\n")).assert("250 2.0.0 Ok: queued as ");
    let notice = upstream.mail();
    assert_eq!(notice.accepted(), ["<a@client.test>"]);
    assert!(upstream.commands(0).iter().any(|line| line.contains("later@")), "it was attempted");
    daemon.reaches("ringpost_queue_octets", 0.0);
    daemon.stop();
}

#[test]
fn nobody_hears_of_a_notice_that_cannot_be_delivered() {
    let upstream = Upstream::start(Script::new().on(Stage::Rcpt, "550 5.1.1 No such user"));
    let daemon = queueing(&upstream.host()).start();
    let mut client = daemon.client();
    client.envelope("a@client.test", &["b@example.com"]);
    client.data(&message::ordinary("x\r\n")).assert("250 2.0.0 Ok: queued as ");
    daemon.reaches("ringpost_recipients_total{outcome=\"bounced\"}", 2.0);
    daemon.reaches("ringpost_queue_octets", 0.0);
    assert_eq!(upstream.complete(), 0);
    daemon.stop();
}
