//! An upstream that misbehaves costs its own mail a delay, and nothing else.

use ringpost_tests::daemon::Daemon;
use ringpost_tests::message;
use ringpost_tests::upstream::{Act, Script, Stage, Upstream};

use crate::attempt::verdict;

/// The verdict on one mail through an upstream that follows this script once, and that the relay lives on.
#[track_caller]
fn judged(script: Script) -> u16 {
    let upstream = Upstream::start(script);
    let daemon = Daemon::relaying_to(&upstream);
    let reply = verdict(&mut daemon.client(), &message::of_size(64 << 10));
    daemon.client().command("NOOP").assert("250 2.");
    reply.code
}

#[test]
fn a_reply_that_cannot_be_is_a_temporary_failure() {
    let impossible = [
        (Stage::Data, "250 2.0.0 Ok"),
        (Stage::Mail, "354 Go on"),
        (Stage::Rcpt, "354 Go on"),
        (Stage::Mail, "100 Hm"),
        (Stage::Rcpt, "199 Hm"),
        (Stage::Message, "354 More"),
        (Stage::Mail, "250-2.1.0 Ok\n251 2.1.0 Ok"),
        (Stage::Rcpt, "2"),
        (Stage::Rcpt, ""),
        (Stage::Rcpt, "abc"),
        (Stage::Message, "999 9.9.9 Ok"),
        (Stage::Message, "25x 2.0.0 Ok"),
    ];
    for (stage, reply) in impossible {
        let code = judged(Script::new().on(stage, reply));
        assert_eq!(code / 100, 4, "{reply:?} at {stage:?} became {code}");
    }
}

#[test]
fn replies_without_text_or_with_odd_codes_are_judged_by_their_first_digit() {
    for reply in ["250", "250 ", "250 5.1.1 odd", "299 Ok", "250-\n250"] {
        assert_eq!(judged(Script::new().on(Stage::Message, reply)) / 100, 2, "{reply:?}");
    }
    for (reply, class) in [("499", 4), ("599 x", 5), ("550 2.0.0 odd", 5)] {
        assert_eq!(judged(Script::new().on(Stage::Message, reply)) / 100, class, "{reply:?}");
    }
}

#[test]
fn a_flood_of_reply_lines_is_cut_off() {
    for stage in [Stage::Connect, Stage::Ehlo, Stage::Mail, Stage::Message] {
        let flood = "250-flood\r\n".repeat(200_000).into_bytes();
        let code = judged(Script::new().on(stage, [Act::Raw(flood), Act::Close]));
        assert_eq!(code / 100, 4, "{stage:?}");
    }
    let line = [b"220 ".to_vec(), b"x".repeat(1 << 20), b"\r\n".to_vec()].concat();
    assert_eq!(judged(Script::new().on(Stage::Connect, [Act::Raw(line), Act::Close])) / 100, 4);
}

#[test]
fn replies_may_come_one_octet_at_a_time() {
    let script = Script::new()
        .on(Stage::Connect, Act::Dribble(b"220-a\r\n220 b\r\n".to_vec()))
        .on(Stage::Message, Act::Dribble(b"250-2.0.0 a\r\n250 2.0.0 b\r\n".to_vec()));
    assert_eq!(judged(script), 250);
}

#[test]
fn an_early_refusal_stops_the_content_and_no_dot_is_sent() {
    for (reply, class) in [("421 4.3.2 Going down", 4), ("451 4.3.0 Not now", 4), ("552 5.3.4 Too big", 5)] {
        let upstream =
            Upstream::start(Script::new().on(Stage::Content, [Act::Say(reply.to_owned()), Act::Close]));
        let daemon = Daemon::relaying_to(&upstream);
        let code = verdict(&mut daemon.client(), &message::of_size(1 << 20)).code;
        assert_eq!(code / 100, class, "{reply} became {code}");
        upstream.ended(0);
        assert_eq!(upstream.complete(), 0, "no dot after {reply}");
    }
}

#[test]
fn a_421_at_any_stage_is_a_temporary_failure() {
    for stage in [Stage::Connect, Stage::Ehlo, Stage::Mail, Stage::Rcpt, Stage::Data, Stage::Message] {
        let acts = [Act::Say("421 4.3.2 Going down".to_owned()), Act::Close];
        assert_eq!(judged(Script::new().on(stage, acts)) / 100, 4, "{stage:?}");
    }
}

#[test]
fn obeys_the_limits_an_upstream_states() {
    let upstream = Upstream::start(Script::new().offering("LIMITS MAILMAX=2 RCPTMAX=2"));
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    for _ in 0..4 {
        client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
    }
    client.command("MAIL FROM:<a@client.test>").assert("250 2.1.0");
    let replies: Vec<u16> =
        (0..3).map(|number| client.command(&format!("RCPT TO:<{number}@example.com>")).code).collect();
    assert_eq!(replies[..2], [250, 250]);
    let taken = client.data(b"Subject: x\r\n\r\nx\r\n");
    taken.assert("250 2.");
    let mails = upstream.mails(5);
    for connection in 0..upstream.connections() {
        assert!(mails.iter().filter(|mail| mail.connection == connection).count() <= 2);
    }
    assert!(mails.iter().all(|mail| mail.recipients.len() <= 2), "{mails:#?}");
}

#[test]
fn works_without_a_single_extension() {
    let bare = ["PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"];
    let script = bare.into_iter().fold(Script::new(), Script::without);
    let upstream = Upstream::start(script);
    let daemon = Daemon::relaying_to(&upstream);
    let sent = message::ordinary("x\r\n");
    let mut client = daemon.client();
    client.command("MAIL FROM:<a@client.test> SIZE=100 BODY=7BIT").assert("250 2.1.0");
    client.command("RCPT TO:<b@example.com>").assert("250 2.1.5");
    client.data(&sent).assert("250 2.");
    upstream.mail().assert_carries(&sent);
}

#[test]
fn knows_what_each_connection_offers() {
    // The second connection offers less than the first: what was learnt there is not used here.
    let less = "250-upstream.test\n250 ENHANCEDSTATUSCODES";
    let upstream = Upstream::start(
        Script::new().once(Stage::Ehlo, "250-a\n250-PIPELINING\n250 SIZE").on(Stage::Ehlo, less),
    );
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
    upstream.hang_up(0);
    upstream.ended(0);
    client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
    let mails = upstream.mails(2);
    assert!(!mails[1].from.contains("SIZE="), "{mails:#?}");
}
