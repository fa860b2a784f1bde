//! What the spool has taken is delivered, whatever happens in between.

use std::net::TcpListener;

use ringpost_tests::daemon::{Builder, field};
use ringpost_tests::message;
use ringpost_tests::upstream::{Script, Stage, Upstream, refusing};

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
    mails.iter().for_each(|mail| drop(mail.assert_carries(&sent)));
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
