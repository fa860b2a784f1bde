//! Upstream connections are reused, and only clean ones.

use std::sync::Arc;
use std::time::Duration;

use ringpost::limits::UPSTREAM_RSET_AFTER;
use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::upstream::{Act, End, Script, Stage, Upstream};
use ringpost_tests::wait::Watched;

use crate::attempt::verdict;

#[test]
fn sends_the_next_mail_over_the_same_connection() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    for _ in 0..3 {
        daemon.client().deliver(&message::ordinary("x\r\n")).assert("250 2.");
    }
    assert_eq!(upstream.mails(3).len(), 3);
    assert_eq!(upstream.connections(), 1);
    daemon.stop();
    assert_eq!(upstream.ended(0).end, Some(End::Quit));
}

#[test]
fn gives_each_connection_its_number_of_mails() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).with("UPSTREAM_MESSAGES_PER_CONNECTION", "2").start();
    let mut client = daemon.client();
    for _ in 0..5 {
        client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
    }
    let connections: Vec<usize> = upstream.mails(5).iter().map(|mail| mail.connection).collect();
    assert_eq!(connections, [0, 0, 1, 1, 2]);
}

#[test]
fn does_not_take_a_stray_reply_for_an_answer() {
    // The stray 250 must not stand for the verdict on the second mail, which is a refusal.
    for stray in ["250 2.0.0 Ok\r\n", "250 a\r\n250 b\r\n250 c\r\n250 d\r\n354 e\r\n250 f\r\n", "25"] {
        let script = Script::new().once(Stage::Message, "250 2.0.0 Ok").on(Stage::Message, "554 5.6.0 No");
        let upstream = Upstream::start(script);
        let daemon = Daemon::relaying_to(&upstream);
        let mut client = daemon.client();
        client.deliver(&message::ordinary("first\r\n")).assert("250 2.");
        upstream.interject(0, stray.as_bytes());
        let reply = verdict(&mut client, &message::ordinary("second\r\n"));
        assert!(matches!(reply.code / 100, 4 | 5), "{stray:?}: {reply:?}");
    }
}

#[test]
fn leaves_a_connection_that_said_two_replies_to_one_command() {
    let twice = Act::Raw(b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n".to_vec());
    let script = Script::new().once(Stage::Mail, twice).on(Stage::Message, "554 5.6.0 No");
    let upstream = Upstream::start(script);
    let daemon = Daemon::relaying_to(&upstream);
    let reply = verdict(&mut daemon.client(), &message::ordinary("x\r\n"));
    assert!(matches!(reply.code / 100, 4 | 5), "{reply:?}");
}

#[test]
fn outlives_an_idle_connection_that_the_upstream_closes() {
    for farewell in [&b""[..], b"421 4.4.2 Idle for too long\r\n"] {
        let upstream = Upstream::plain();
        let daemon = Daemon::relaying_to(&upstream);
        let mut client = daemon.client();
        client.deliver(&message::ordinary("first\r\n")).assert("250 2.");
        upstream.interject(0, farewell);
        upstream.hang_up(0);
        upstream.ended(0);
        let sent = message::ordinary("second\r\n");
        client.deliver(&sent).assert("250 2.");
        upstream.mails(2)[1].assert_carries(&sent);
        assert_eq!(upstream.connections(), 2);
    }
}

#[test]
fn resets_a_connection_that_was_idle_before_it_trusts_it() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.deliver(&message::ordinary("first\r\n")).assert("250 2.");
    upstream.mail();
    assert!(
        upstream.stays_quiet(UPSTREAM_RSET_AFTER + Duration::from_secs(1)),
        "an idle connection is left alone"
    );
    client.deliver(&message::ordinary("second\r\n")).assert("250 2.");
    let commands = upstream.commands(0);
    let mails = commands.iter().filter(|command| command.starts_with("MAIL")).count();
    assert_eq!((mails, commands.iter().any(|command| command == "RSET")), (2, true), "{commands:?}");
}

#[test]
fn closes_a_connection_that_is_idle_for_too_long() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).with("UPSTREAM_IDLE", "1s").start();
    daemon.client().deliver(&message::ordinary("x\r\n")).assert("250 2.");
    let ended = upstream.ended(0);
    assert!(matches!(ended.end, Some(End::Quit | End::Closed)), "{ended:?}");
}

#[test]
fn keeps_a_connection_whose_recipients_were_all_refused() {
    let upstream = Upstream::start(Script::new().on_words(Stage::Rcpt, "no@", "550 5.1.1 Unknown"));
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.command("MAIL FROM:<a@client.test>").assert("250 2.1.0");
    client.command("RCPT TO:<no@example.com>").assert("550 5.1.1");
    client.command("RSET").assert("250 2.");
    let sent = message::ordinary("x\r\n");
    client.deliver(&sent).assert("250 2.");
    upstream.mails(1)[0].assert_carries(&sent);
}

#[test]
fn uses_no_more_connections_than_allowed() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).with("UPSTREAM_CONNECTIONS", "2").start();
    let senders: Vec<_> = (0..8)
        .map(|_| {
            let mut client = daemon.client();
            std::thread::spawn(move || {
                for _ in 0..5 {
                    client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
                }
            })
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().expect("every mail is taken"));
    assert_eq!(upstream.mails(40).len(), 40);
    let open = upstream.record().read(|record| record.connections.iter().filter(|c| c.end.is_none()).count());
    assert!(open <= 2, "{open} connections at once");
}

#[test]
fn no_worker_keeps_the_connections_from_another_whose_clients_wait() {
    let upstream = Upstream::plain();
    for connections in ["1", "3"] {
        let daemon = Builder::relaying_to(&upstream.host())
            .with("WORKERS", "2")
            .with("UPSTREAM_CONNECTIONS", connections)
            .start();
        // Everybody goes on until the last has had its turns, so that nobody ever has none waiting.
        let turns = Arc::new(Watched::new([0; 16]));
        let senders: Vec<_> = (0..16)
            .map(|number| {
                let (mut client, turns) = (daemon.client(), Arc::clone(&turns));
                std::thread::spawn(move || {
                    while turns.read(|turns| turns.iter().any(|&taken| taken < 5)) {
                        client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
                        turns.update(|turns| turns[number] += 1);
                    }
                })
            })
            .collect();
        senders.into_iter().for_each(|sender| sender.join().expect("every mail is taken"));
    }
}
