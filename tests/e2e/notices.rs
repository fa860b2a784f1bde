//! What senders are told: of success where the upstream cannot, of delays and of the end, whatever state the upstream is in.

use std::net::{SocketAddr, TcpListener};

use ringpost_tests::daemon::{Builder, Daemon, field};
use ringpost_tests::message;
use ringpost_tests::upstream::{Act, Script, Stage, Upstream, refusing};
use ringpost_tests::wait::Latch;

/// A message for one who wants to hear of success and one who has not said anything.
fn submit(daemon: &Daemon, sender: &str) -> Vec<u8> {
    let mut client = daemon.client();
    client.command(&format!("MAIL FROM:<{sender}> RET=HDRS ENVID=x42")).assert("250");
    client
        .command("RCPT TO:<b@example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b@first.example")
        .assert("250");
    client.command("RCPT TO:<c@example.com>").assert("250");
    let sent = message::ordinary("x\r\n");
    client.data(&sent).assert("250");
    sent
}

/// The one notice among two messages.
fn assert_relayed(upstream: &Upstream, sent: &[u8]) {
    let mails = upstream.mails(2);
    mails[0].assert_carries(sent);
    assert_eq!((mails[1].reverse_path(), &mails[1].accepted()[..]), ("<>", &["<a@client.test>"][..]));
    let notice = String::from_utf8(mails[1].content()).expect("ASCII");
    for line in [
        "Original-Envelope-Id: x42",
        "Original-Recipient: rfc822;b@first.example",
        "Final-Recipient: rfc822;b@example.com",
        "Action: relayed",
        "Status: 2.",
    ] {
        assert!(notice.contains(&format!("\r\n{line}")), "{line}: {notice}");
    }
    assert!(!notice.contains("c@example.com\r\nAction"), "{notice}");
    let subject = sent.split(|&octet| octet == b'\n').find(|line| line.starts_with(b"Subject:"));
    let subject = String::from_utf8_lossy(subject.expect("it has one")).into_owned();
    assert!(notice.contains(&subject), "the header section is returned: {notice}");
}

#[test]
fn who_asks_hears_of_success_from_us_where_the_upstream_sends_no_notices() {
    for patience in ["0", "9m"] {
        let upstream = Upstream::plain();
        let daemon = Builder::relaying_to(&upstream.host()).with("DELIVERY_PATIENCE", patience).start();
        let sent = submit(&daemon, "a@client.test");
        assert_relayed(&upstream, &sent);
        daemon.reaches("ringpost_queue_octets", 0.0);
        assert_eq!(upstream.complete(), 2, "{patience}");
        daemon.stop();
    }
}

#[test]
fn who_asks_hears_of_success_also_where_the_verdict_was_late() {
    let latch = Latch::new();
    let acts = [Act::Wait(latch.clone()), Act::Say("250 2.0.0 Ok".to_owned())];
    let upstream = Upstream::start(Script::new().once(Stage::Message, acts));
    let daemon = Builder::relaying_to(&upstream.host()).with("DELIVERY_PATIENCE", "50ms").start();
    let sent = submit(&daemon, "a@client.test");
    latch.open();
    assert_relayed(&upstream, &sent);
    daemon.reaches("ringpost_queue_octets", 0.0);
    daemon.stop();
}

#[test]
fn an_upstream_that_sends_notices_is_left_to_it_and_the_null_sender_in_peace() {
    for (sender, is_passed_on) in [("a@client.test", true), ("", false)] {
        for patience in ["0", "9m"] {
            let script = if is_passed_on { Script::new().offering("DSN") } else { Script::new() };
            let upstream = Upstream::start(script);
            let daemon = Builder::relaying_to(&upstream.host()).with("DELIVERY_PATIENCE", patience).start();
            let sent = submit(&daemon, sender);
            upstream.mail().assert_carries(&sent);
            daemon.reaches("ringpost_queue_octets", 0.0);
            let said = upstream.commands(0).concat();
            assert_eq!(said.contains("NOTIFY=SUCCESS,FAILURE"), is_passed_on, "{said}");
            assert_eq!(upstream.complete(), 1, "{sender} {patience}");
            assert!(!daemon.log().contains("event=notice"), "{}", daemon.log());
            daemon.stop();
        }
    }
}

#[test]
fn without_a_spool_a_notice_of_success_is_lost_and_the_log_says_so() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    submit(&daemon, "a@client.test");
    daemon.logged("notice_lost");
    assert_eq!(upstream.complete(), 1);
    daemon.stop();
}

/// A relay whose upstream is dead, and that holds so many messages of one recipient each.
fn behind_a_dead_upstream(settings: &[(&str, &str)], messages: usize) -> (Daemon, SocketAddr, Vec<String>) {
    let address = refusing();
    let builder = Builder::relaying_to(&format!("[127.0.0.1]:{}", address.port()));
    let builder = builder.with("DELIVERY_PATIENCE", "0").with("QUEUE_RETRY", "1h");
    let daemon = settings.iter().fold(builder, |builder, (name, value)| builder.with(name, value)).start();
    let mut client = daemon.client();
    let ids = (0..messages).map(|_| {
        let reply = client.deliver(&message::ordinary("x\r\n"));
        reply.assert("250 2.0.0 Ok: queued as ");
        reply.text().rsplit(' ').next().expect("an id").trim().to_owned()
    });
    let ids = ids.collect();
    (daemon, address, ids)
}

fn says_of(daemon: &Daemon, event: &str, key: &str, id: &str) {
    daemon.says(|line| field(line, "event") == Some(event) && field(line, key) == Some(id));
}

#[test]
fn senders_hear_of_a_delay_once_also_behind_an_upstream_that_is_dead() {
    let (daemon, address, ids) = behind_a_dead_upstream(&[("DELAY_WARNING", "1s")], 8);
    ids.iter().for_each(|id| says_of(&daemon, "notice", "about", id));
    // Told once, also by the next process.
    let daemon = daemon.pause().start();
    let upstream = Upstream::start_at(TcpListener::bind(address).expect("the port is free"), Script::new());
    assert_eq!(daemon.verb(&["flush"]).code, Some(0));
    let mails = upstream.mails(16);
    daemon.reaches("ringpost_queue_octets", 0.0);
    let delayed = mails.iter().filter(|mail| {
        mail.reverse_path() == "<>"
            && String::from_utf8_lossy(&mail.content()).contains("\r\nAction: delayed")
    });
    assert_eq!((delayed.count(), upstream.complete()), (8, 16));
    daemon.stop();
}

#[test]
fn what_outlives_its_time_behind_a_dead_upstream_is_returned() {
    let (daemon, _, ids) = behind_a_dead_upstream(&[("QUEUE_LIFETIME", "2s")], 8);
    for id in &ids {
        says_of(&daemon, "deferred", "queue_id", id);
        says_of(&daemon, "bounced", "queue_id", id);
        says_of(&daemon, "notice", "about", id);
    }
    // Notices outlive their time like all mail, and nobody hears of that.
    daemon.reaches("ringpost_queue_octets", 0.0);
    daemon.stop();
}
