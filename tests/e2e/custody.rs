//! The client's 250 means that somebody else holds the message: here, that the upstream said 250 before.

use std::time::Duration;

use ringpost_tests::daemon::Daemon;
use ringpost_tests::message;
use ringpost_tests::upstream::{Act, Script, Stage, Upstream};
use ringpost_tests::wait::Latch;

use crate::attempt::{At, attempt, verdict};

#[test]
fn says_250_only_after_the_upstreams_250() {
    let latch = Latch::new();
    let acts = [Act::Wait(latch.clone()), Act::Say("250 2.0.0 Ok: 4711".to_owned())];
    let upstream = Upstream::start(Script::new().on(Stage::Message, acts));
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.envelope("a@client.test", &["b@example.com"]).command("DATA").assert("354");
    client.send(b"Subject: x\r\n\r\nx\r\n.\r\n");
    upstream.mail();
    assert!(client.hears_nothing(Duration::from_millis(200)), "an answer before the upstream's");
    latch.open();
    client.reply().assert("250 2.");
}

#[test]
fn passes_the_upstreams_verdict_through_at_each_stage() {
    let refusals = [
        (Stage::Mail, "452 4.3.1 Full"),
        (Stage::Mail, "550 5.7.1 Not you"),
        (Stage::Rcpt, "450 4.2.0 Busy"),
        (Stage::Rcpt, "550 5.1.1 Unknown"),
        (Stage::Data, "451 4.3.0 Not now"),
        (Stage::Data, "554 5.7.1 Not that"),
        (Stage::Message, "452 4.3.1 Full"),
        (Stage::Message, "554 5.6.0 Not this"),
    ];
    for (stage, refusal) in refusals {
        let upstream = Upstream::start(Script::new().once(stage, refusal));
        let daemon = Daemon::relaying_to(&upstream);
        let mut client = daemon.client();
        let (at, reply) = attempt(&mut client, &message::ordinary("x\r\n"));
        assert!(reply.text().starts_with(&refusal[..9]), "{stage:?} {refusal}: {at:?} {reply:?}");
        assert!(at != At::Mail || stage == Stage::Mail, "{stage:?} {refusal}: {at:?}");
        client.command("RSET").assert("250");
        let sent = message::ordinary("again\r\n");
        client.deliver(&sent).assert("250 2.");
        let mails = upstream.record().read(|record| record.mails.clone());
        mails.last().expect("a mail").assert_carries(&sent);
    }
}

#[test]
fn takes_no_recipient_that_the_upstream_refuses() {
    let script = Script::new()
        .on_words(Stage::Rcpt, "b@", "450 4.2.1 Later")
        .on_words(Stage::Rcpt, "c@", "550 5.1.1 Unknown")
        .on_words(Stage::Rcpt, "d@", "452 4.5.3 Too many");
    let upstream = Upstream::start(script);
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.command("MAIL FROM:<s@client.test>").assert("250 2.1.0");
    client.command("RCPT TO:<a@example.com>").assert("250 2.1.5");
    client.command("RCPT TO:<b@example.com>").assert("450 4.2.1");
    client.command("RCPT TO:<c@example.com>").assert("550 5.1.1");
    client.command("RCPT TO:<d@example.com>").assert("452 4.5.3");
    client.command("RCPT TO:<e@example.com>").assert("250 2.1.5");
    client.data(b"Subject: x\r\n\r\nx\r\n").assert("250 2.");
    assert_eq!(upstream.mail().accepted(), ["<a@example.com>", "<e@example.com>"]);
}

#[test]
fn refuses_data_when_every_recipient_was_refused() {
    let upstream = Upstream::start(Script::new().on(Stage::Rcpt, "550 5.1.1 Unknown"));
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.send(b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@example.com>\r\nRCPT TO:<c@example.com>\r\nDATA\r\n");
    client.reply().assert("250 2.1.0");
    client.reply().assert("550 5.1.1");
    client.reply().assert("550 5.1.1");
    let data = client.reply();
    assert!([503, 554].contains(&data.code), "{data:?}");
    assert_eq!(upstream.complete(), 0);
    client.quit();
}

#[test]
fn never_shows_the_client_that_our_login_is_wrong() {
    for code in ["530 5.7.0", "535 5.7.8", "538 5.7.11"] {
        for stage in [Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Message] {
            let upstream = Upstream::start(Script::new().on(stage, format!("{code} Log in first").as_str()));
            let daemon = Daemon::relaying_to(&upstream);
            let reply = verdict(&mut daemon.client(), &message::ordinary("x\r\n"));
            assert_eq!(reply.code, 451, "{code} at {stage:?}: {reply:?}");
            daemon.says(|line| {
                let upper = line.to_ascii_uppercase();
                (upper.contains("ERROR") || upper.contains("WARN")) && line.contains(&code[..3])
            });
        }
    }
}

#[test]
fn answers_451_when_the_upstream_breaks_after_the_dot() {
    let breaks: [Vec<Act>; 5] = [
        vec![Act::Close],
        vec![Act::Reset],
        vec![Act::Raw(b"25".to_vec()), Act::Close],
        vec![Act::Raw(b"250-2.0.0 Ok\r\n".to_vec()), Act::Close],
        vec![Act::Raw(b"\xff\x00?\r\n".to_vec())],
    ];
    for acts in breaks {
        let shown = format!("{acts:?}");
        let upstream = Upstream::start(Script::new().once(Stage::Message, acts));
        let daemon = Daemon::relaying_to(&upstream);
        let mut client = daemon.client();
        let (at, reply) = attempt(&mut client, &message::ordinary("x\r\n"));
        assert_eq!((at, reply.code), (At::Message, 451), "{shown}: {reply:?}");
        client.deliver(&message::ordinary("again\r\n")).assert("250 2.");
    }
}

#[test]
fn answers_4xx_when_the_upstream_closes_at_any_stage() {
    for stage in [Stage::Connect, Stage::Ehlo, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Content] {
        let upstream = Upstream::start(Script::new().on(stage, Act::Close));
        let daemon = Daemon::relaying_to(&upstream);
        let reply = verdict(&mut daemon.client(), &message::of_size(64 << 10));
        assert_eq!(reply.code / 100, 4, "{stage:?}: {reply:?}");
        assert_eq!(upstream.complete(), 0);
    }
}
