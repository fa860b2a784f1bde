//! `DELIVERY_PATIENCE`: the upstream's own verdict within the patience, the spool beyond it.

use std::time::Duration;

use ringpost_tests::daemon::{Builder, Daemon, field};
use ringpost_tests::message;
use ringpost_tests::upstream::{Act, Script, Stage, Upstream, refusing};
use ringpost_tests::wait::Latch;

/// A relay with some patience, and retries that a test can wait for.
fn patient(hosts: &str, patience: &str) -> Daemon {
    Builder::relaying_to(hosts).with("DELIVERY_PATIENCE", patience).with("QUEUE_RETRY", "200ms").start()
}

/// More patience than any test takes.
const LONG: &str = "9m";

#[test]
fn a_verdict_in_time_is_passed_through_and_touches_no_disk() {
    let upstream = Upstream::start(Script::new().on(Stage::Message, "250 2.6.0 Taken as 4711"));
    let daemon = patient(&upstream.host(), LONG);
    let sent = message::ordinary("x\r\n");
    daemon.client().deliver(&sent).assert("250 2.6.0 Taken as 4711");
    upstream.mail().assert_carries(&sent);
    assert_eq!(daemon.metric("ringpost_messages_relayed_total{custody=\"upstream\"}"), Some(1.0));
    assert_eq!(daemon.metric("ringpost_spool_sync_seconds_count"), Some(0.0));
    daemon.stop();
}

#[test]
fn a_late_verdict_settles_the_queued_message() {
    let latch = Latch::new();
    let acts = [Act::Wait(latch.clone()), Act::Say("250 2.0.0 Ok".to_owned())];
    let upstream = Upstream::start(Script::new().on(Stage::Message, acts));
    let daemon = patient(&upstream.host(), "50ms");
    let sent = message::ordinary("x\r\n");
    daemon.client().deliver(&sent).assert("250 2.0.0 Ok: queued as ");
    daemon.logged("queued");
    assert_eq!(daemon.metric("ringpost_queue_messages{state=\"active\"}"), Some(1.0));
    latch.open();
    daemon.logged("delivered");
    daemon.reaches("ringpost_queue_octets", 0.0);
    upstream.mail().assert_carries(&sent);
    assert!(upstream.stays_quiet(Duration::from_millis(500)), "it is not sent again");
    assert_eq!(upstream.complete(), 1);
    daemon.stop();
}

#[test]
fn a_late_refusal_for_now_is_tried_again() {
    let latch = Latch::new();
    let acts = [Act::Wait(latch.clone()), Act::Say("451 4.3.0 Not now".to_owned())];
    let upstream = Upstream::start(Script::new().once(Stage::Message, acts));
    let daemon = patient(&upstream.host(), "50ms");
    let sent = message::ordinary("x\r\n");
    daemon.client().deliver(&sent).assert("250 2.0.0 Ok: queued as ");
    latch.open();
    daemon.logged("deferred");
    daemon.logged("delivered");
    daemon.reaches("ringpost_queue_octets", 0.0);
    upstream.mails(2).iter().for_each(|mail| drop(mail.assert_carries(&sent)));
    daemon.stop();
}

#[test]
fn a_dead_upstream_costs_the_client_nothing() {
    let address = refusing();
    let daemon = patient(&format!("[127.0.0.1]:{}", address.port()), "50ms");
    let sent = message::ordinary("x\r\n");
    daemon.client().deliver(&sent).assert("250 2.0.0 Ok: queued as ");
    let upstream =
        Upstream::start_at(std::net::TcpListener::bind(address).expect("the port is free"), Script::new());
    upstream.mail().assert_carries(&sent);
    daemon.stop();
}

#[test]
fn refusals_for_good_pass_through_at_every_stage() {
    for (stage, refusal) in [
        (Stage::Mail, "550 5.7.1 Not you"),
        (Stage::Rcpt, "550 5.1.1 Unknown"),
        (Stage::Data, "554 5.7.1 Not that"),
        (Stage::Message, "554 5.6.0 Not this"),
    ] {
        let upstream = Upstream::start(Script::new().once(stage, refusal));
        let daemon = patient(&upstream.host(), LONG);
        let mut client = daemon.client();
        let (at, reply) = crate::attempt::attempt(&mut client, &message::ordinary("x\r\n"));
        assert!(reply.text().starts_with(&refusal[..9]), "{stage:?} {refusal}: {at:?} {reply:?}");
        assert_eq!(daemon.metric("ringpost_queue_octets"), Some(0.0));
    }
}

#[test]
fn refusals_for_now_are_taken_for_later_at_every_stage() {
    for (stage, refusal) in [
        (Stage::Connect, "421 4.3.2 Not now"),
        (Stage::Mail, "452 4.3.1 Full"),
        (Stage::Rcpt, "450 4.2.0 Busy"),
        (Stage::Data, "451 4.3.0 Not now"),
        (Stage::Message, "452 4.3.1 Full"),
    ] {
        let upstream = Upstream::start(Script::new().once(stage, refusal));
        let daemon = patient(&upstream.host(), LONG);
        let sent = message::ordinary("x\r\n");
        daemon.client().deliver(&sent).assert("250 2.0.0 Ok: queued as ");
        daemon.logged("delivered");
        let mails = upstream.record().read(|record| record.mails.clone());
        mails.last().unwrap_or_else(|| panic!("{stage:?}")).assert_carries(&sent);
    }
}

#[test]
fn an_upstream_that_is_lost_at_any_point_is_made_up_for() {
    for stage in [Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Content, Stage::Message] {
        for chunking in [false, true] {
            let script = Script::new().once(stage, Act::Close).once(Stage::LastChunk, Act::Close);
            let script = if chunking { script.offering("CHUNKING") } else { script };
            let upstream = Upstream::start(script);
            let daemon = patient(&upstream.host(), LONG);
            let sent = message::of_size(700_000);
            daemon.client().deliver(&sent).assert("250 2.0.0 Ok: queued as ");
            daemon.logged("delivered");
            let mails = upstream.record().read(|record| record.mails.clone());
            mails.last().unwrap_or_else(|| panic!("{stage:?}")).assert_carries(&sent);
            daemon.reaches("ringpost_queue_octets", 0.0);
        }
    }
}

#[test]
fn an_upstream_that_breaks_behind_the_dot_leaves_the_outcome_unknown() {
    let upstream = Upstream::start(Script::new().once(Stage::Message, Act::Close));
    let daemon = patient(&upstream.host(), LONG);
    let sent = message::ordinary("x\r\n");
    daemon.client().deliver(&sent).assert("250 2.0.0 Ok: queued as ");
    daemon.logged("outcome_unknown");
    daemon.logged("delivered");
    assert_eq!(upstream.mails(2).len(), 2, "a duplicate is allowed, a loss is not");
    assert_eq!(daemon.metric("ringpost_outcomes_unknown_total"), Some(1.0));
    daemon.stop();
}

#[test]
fn a_message_may_be_half_delivered_and_half_queued() {
    let script =
        Script::new().on_words(Stage::Rcpt, "never@", "550 5.1.1 Unknown").once(Stage::Rcpt, "250 2.1.5 Ok");
    let upstream = Upstream::start(script.once(Stage::Rcpt, "450 4.2.0 Busy"));
    let daemon = patient(&upstream.host(), LONG);
    let mut client = daemon.client();
    client.command("MAIL FROM:<a@client.test>").assert("250");
    client.command("RCPT TO:<now@example.com>").assert("250");
    client.command("RCPT TO:<later@example.com>").assert("250");
    client.command("RCPT TO:<never@example.com>").assert("550 5.1.1");
    let sent = message::ordinary("x\r\n");
    client.data(&sent).assert("250 2.0.0 Ok: queued as ");
    let to = |event: &str| field(&daemon.logged(event), "to").map(str::to_owned);
    assert_eq!(to("relayed").as_deref(), Some("now@example.com"));
    assert_eq!(to("queued").as_deref(), Some("later@example.com"));
    assert_eq!(to("delivered").as_deref(), Some("later@example.com"));
    let mails = upstream.mails(2);
    mails.iter().for_each(|mail| drop(mail.assert_carries(&sent)));
    assert_eq!(mails[0].accepted(), ["<now@example.com>"]);
    assert_eq!(mails[1].accepted(), ["<later@example.com>"]);
    daemon.stop();
}

#[test]
fn a_silent_upstream_holds_no_client_at_any_stage() {
    for stage in [Stage::Connect, Stage::Ehlo, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Message] {
        let latch = Latch::new();
        let upstream = Upstream::start(Script::new().once(stage, [Act::Wait(latch.clone()), Act::Close]));
        let daemon = patient(&upstream.host(), "50ms");
        let sent = message::ordinary("x\r\n");
        daemon.client().deliver(&sent).assert("250 2.0.0 Ok: queued as ");
        latch.open();
        daemon.logged("delivered");
        let mails = upstream.record().read(|record| record.mails.clone());
        mails.last().unwrap_or_else(|| panic!("{stage:?}")).assert_carries(&sent);
    }
}

#[test]
fn an_upstream_that_stalls_in_the_middle_is_given_up_without_a_dot() {
    for chunking in [false, true] {
        let latch = Latch::new();
        let acts = [Act::Wait(latch.clone()), Act::Close];
        let script = Script::new().once(Stage::Content, acts.clone()).once(Stage::Chunk, acts);
        let script = if chunking { script.offering("CHUNKING") } else { script };
        let upstream = Upstream::start(script);
        let daemon = patient(&upstream.host(), "50ms");
        let sent = message::of_size(24_000_000);
        daemon.client().deliver(&sent).assert("250 2.0.0 Ok: queued as ");
        daemon.logged("stream_given_up");
        latch.open();
        daemon.logged("delivered");
        assert_eq!(upstream.complete(), 1, "nothing of the first is taken for a message");
        upstream.mail().assert_carries(&sent);
        daemon.stop();
    }
}

#[test]
fn where_a_verdict_is_expected_late_the_client_is_not_held() {
    let latch = Latch::new();
    let slow = [Act::Wait(latch.clone()), Act::Say("250 2.0.0 Ok".to_owned())];
    let upstream = Upstream::start(Script::new().once(Stage::Message, slow));
    let daemon = patient(&upstream.host(), "300ms");
    daemon.client().deliver(&message::ordinary("slow\r\n")).assert("250 2.0.0 Ok: queued as ");
    // The verdict comes after more than the patience, and tells what is to be expected.
    latch.open();
    daemon.logged("delivered");
    daemon.reaches("ringpost_spool_sync_batch_messages_sum", 1.0);
    // The next one is on its way to the disk before its verdict can tell.
    let sent = message::ordinary("next\r\n");
    daemon.client().deliver(&sent).assert("250 2.0.0 Ok");
    daemon.reaches("ringpost_spool_sync_batch_messages_sum", 2.0);
    upstream.mails(2)[1].assert_carries(&sent);
    daemon.reaches("ringpost_queue_octets", 0.0);
    assert!(upstream.stays_quiet(Duration::from_millis(500)), "it is not sent again");
    assert_eq!(upstream.complete(), 2);
    daemon.stop();
}

#[test]
fn a_slow_upstream_holds_no_memory_beyond_its_bound() {
    let address = refusing();
    let daemon = Builder::relaying_to(&format!("[127.0.0.1]:{}", address.port()))
        .with("DELIVERY_PATIENCE", "50ms")
        .with("QUEUE_RETRY", "200ms")
        .with("MESSAGE_SIZE_MAX", "100M")
        .start();
    // More than a worker keeps in memory.
    let sent = message::of_size(80_000_000);
    daemon.client().deliver(&sent).assert("250 2.0.0 Ok: queued as ");
    let resident = daemon.metric("process_resident_memory_bytes").expect("it is told");
    assert!(resident < 75e6, "{resident} octets");
    let upstream =
        Upstream::start_at(std::net::TcpListener::bind(address).expect("the port is free"), Script::new());
    upstream.mail().assert_carries(&sent);
    daemon.stop();
}

#[test]
fn recipients_of_several_domains_are_delivered_from_the_queue() {
    // Without a name server nothing is known of any exchanger: the literals are their own.
    let upstream = Upstream::plain();
    let port = upstream.address().port().to_string();
    let daemon = Builder::relaying_to("mx")
        .with("EXT_RELAY_PORT", &port)
        .with("DELIVERY_PATIENCE", LONG)
        .with("QUEUE_RETRY", "200ms")
        .start();
    let mut client = daemon.client();
    client.envelope("a@client.test", &["b@[127.0.0.1]", "c@[127.0.0.1]", "d@[IPv6:::ffff:127.0.0.1]"]);
    let sent = message::ordinary("x\r\n");
    client.data(&sent).assert("250 2.0.0 Ok: queued as ");
    let mails = upstream.mails(2);
    assert_eq!(mails[0].accepted(), ["<b@[127.0.0.1]>", "<c@[127.0.0.1]>"]);
    assert_eq!(mails[1].accepted(), ["<d@[IPv6:::ffff:127.0.0.1]>"]);
    daemon.stop();
}

#[test]
fn a_full_spool_leaves_the_streaming_relay() {
    let upstream = Upstream::start(Script::new().once(Stage::Rcpt, "450 4.2.0 Busy"));
    let daemon = Builder::relaying_to(&upstream.host())
        .with("DELIVERY_PATIENCE", LONG)
        .with("QUEUE_BYTES_MAX", "4096")
        .start();
    let mut client = daemon.client();
    client.command("MAIL FROM:<a@client.test>").assert("250");
    client.command("RCPT TO:<b@example.com>").assert("450 4.2.0");
    client.command("RSET").assert("250");
    let sent = message::ordinary("x\r\n");
    client.deliver(&sent).assert("250 2.0.0 Ok");
    assert_eq!(daemon.metric("ringpost_messages_relayed_total{custody=\"upstream\"}"), Some(1.0));
    upstream.mail().assert_carries(&sent);
    daemon.stop();
}
