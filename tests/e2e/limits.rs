//! The limits of the interface (section 3.5): each is kept, each says so, none costs anybody else anything.

use std::time::Duration;

use ringpost_tests::client::Client;
use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::upstream::Upstream;

use crate::attempt::verdict;

#[test]
fn offers_and_keeps_the_size_limit() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).with("MESSAGE_SIZE_MAX", "10K").start();
    let mut client = Client::connect(daemon.smtp());
    let ehlo = client.command("EHLO client.test");
    assert!(ehlo.lines.iter().any(|line| line == "SIZE 10240"), "{ehlo:?}");
    client.command("MAIL FROM:<a@client.test> SIZE=10241").assert("552 5.3.4");
    client.command("MAIL FROM:<a@client.test> SIZE=99999999999999999999").assert("552 5.3.4");
    client.command("MAIL FROM:<a@client.test> SIZE=999999999999999999999").assert("501 5.5.4");
    client.command("MAIL FROM:<a@client.test> SIZE=10240").assert("250 2.1.0");
    client.command("RSET").assert("250 2.");
    let exact = "x".repeat(10_240 - 4 - 78 * 100);
    let full = format!("\r\n{}{exact}\r\n", format!("{}\r\n", "y".repeat(76)).repeat(100));
    assert_eq!(full.len(), 10_240);
    client.deliver(full.as_bytes()).assert("250 2.");
    verdict(&mut client, format!("{full}\r\n").as_bytes()).assert("552 5.3.4");
    client.deliver(full.as_bytes()).assert("250 2.");
    assert_eq!(upstream.mails(2).len(), 2);
}

#[test]
fn stuffing_does_not_count_towards_the_size() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).with("MESSAGE_SIZE_MAX", "3002").start();
    let mut client = daemon.client();
    let dots = format!("\r\n{}", ".\r\n".repeat(1000));
    client.deliver(dots.as_bytes()).assert("250 2.");
}

#[test]
fn takes_as_many_recipients_as_allowed_and_keeps_them() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).with("RECIPIENTS_MAX", "100").start();
    let mut client = daemon.client();
    client.command("MAIL FROM:<a@client.test>").assert("250 2.1.0");
    for number in 0..100 {
        client.command(&format!("RCPT TO:<{number}@example.com>")).assert("250 2.1.5");
    }
    client.command("RCPT TO:<101@example.com>").assert("452 4.5.3");
    client.data(b"Subject: x\r\n\r\nx\r\n").assert("250 2.");
    assert_eq!(upstream.mail().accepted().len(), 100);
}

#[test]
fn turns_sessions_away_when_it_is_full() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).with("SESSIONS_MAX", "2").start();
    let (first, _second) = (daemon.client(), daemon.client());
    let mut third = Client::dial(daemon.smtp());
    third.reply().assert("421 4.7.0");
    assert_eq!(third.rest(), "");
    first.quit();
    daemon_takes_again(&daemon);
}

#[test]
fn turns_sessions_away_when_one_client_has_too_many() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).with("SESSIONS_PER_CLIENT_MAX", "2").start();
    let (first, _second) = (daemon.client(), daemon.client());
    let mut third = Client::dial(daemon.smtp());
    third.reply().assert("421 4.7.0");
    assert_eq!(third.rest(), "");
    first.quit();
    daemon_takes_again(&daemon);
}

/// A place that QUIT freed is free at the latest a few connections later.
#[track_caller]
fn daemon_takes_again(daemon: &Daemon) {
    let taken = (0..100).any(|_| Client::dial(daemon.smtp()).reply().code == 220);
    assert!(taken, "a session that ended leaves its place");
}

#[test]
fn slows_a_client_that_sends_too_many_messages() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).with("CLIENT_RATE", "1/h burst 2").start();
    let mut client = daemon.client();
    for _ in 0..2 {
        client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
    }
    verdict(&mut client, &message::ordinary("x\r\n")).assert("450 4.7.1");
    assert_eq!(upstream.mails(2).len(), 2);
}

#[test]
fn ends_a_session_that_only_makes_errors() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.send_gladly("FOO\r\n".repeat(1000).as_bytes());
    let said = client.rest();
    assert!(
        said.contains("500 5.5.2")
            && said.trim_end().lines().last().is_some_and(|l| l.starts_with("421 4.7.0")),
        "{said}"
    );
    assert!(said.lines().count() >= 15, "a few errors are forgiven: {said}");
}

#[test]
fn ends_a_session_that_only_passes_time() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    for line in ["NOOP\r\n", "RSET\r\n", "VRFY x\r\n", "EHLO x\r\n"] {
        let mut client = daemon.client();
        client.send_gladly(line.repeat(20_000).as_bytes());
        let said = client.rest();
        assert!(said.trim_end().lines().last().is_some_and(|last| last.starts_with("421 4.7.0")), "{line}");
    }
}

#[test]
fn ends_a_session_that_says_nothing() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).with("COMMAND_TIMEOUT", "1s").start();
    let mut silent = daemon.client();
    silent.reply().assert("421 4.4.2");
    assert_eq!(silent.rest(), "");
    let mut half = daemon.client();
    half.send(b"MAIL FROM:<a@cli");
    half.reply().assert("421 4.4.2");
}

#[test]
fn ends_a_message_that_does_not_go_on() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).with("DATA_TIMEOUT", "1s").start();
    let mut client = daemon.client();
    client.envelope("a@client.test", &["b@example.com"]).command("DATA").assert("354");
    client.send(b"Subject: x\r\n\r\nx\r\n");
    client.reply().assert("421 4.4.2");
    daemon.stop();
    assert_eq!(upstream.complete(), 0);
}

#[test]
fn ends_a_message_that_comes_too_slowly() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).with("SESSION_MIN_RATE", "1000000").start();
    let mut client = daemon.client();
    client.envelope("a@client.test", &["b@example.com"]).command("DATA").assert("354");
    // Octets keep coming, so that no wait for the next ones is ever too long.
    let has_ended = (0..300).any(|_| {
        let is_silent = client.hears_nothing(Duration::from_millis(200));
        client.send_gladly(if is_silent { b"x\r\n" } else { b"" });
        !is_silent
    });
    assert!(has_ended);
    // Octets that cross with the reply may turn it into a reset.
    if let Some(reply) = client.try_reply() {
        reply.assert("421 4.4.2");
    }
    daemon.stop();
    assert_eq!(upstream.complete(), 0);
}

#[test]
fn takes_command_lines_up_to_its_bound_and_survives_longer_ones() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.command(&format!("NOOP {}", "x".repeat(512 - 7))).assert("250 2.");
    client.command(&format!("NOOP {}", "x".repeat(4096))).assert("500 5.5.6");
    client.send(b"NOOP ").send("x".repeat(1 << 20).as_bytes()).send(b"\r\n").reply().assert("500 5.5.6");
    client.command("NOOP").assert("250 2.");
}
