//! The log tells each outcome in one line, and nothing a peer says can write a line of its own.

use ringpost_tests::daemon::{Builder, Daemon, field};
use ringpost_tests::message;
use ringpost_tests::upstream::{Script, Stage, Upstream};

use crate::attempt::verdict;

#[test]
fn tells_each_recipients_outcome() {
    let upstream = Upstream::start(Script::new().on_words(Stage::Rcpt, "no@", "550 5.1.1 Unknown"));
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.command("MAIL FROM:<a@client.test>").assert("250 2.1.0");
    client.command("RCPT TO:<b@example.com>").assert("250 2.1.5");
    client.command("RCPT TO:<no@example.com>").assert("550 5.1.1");
    client.data(&message::ordinary("x\r\n")).assert("250 2.");
    let relayed = daemon.says(|line| {
        matches!(field(line, "event"), Some("relayed" | "delivered")) && line.contains("b@example.com")
    });
    for name in ["session", "queue_id", "client", "from", "to", "size", "upstream", "reply", "delay"] {
        assert!(field(&relayed, name).is_some(), "{name} is missing: {relayed}");
    }
    let rejected =
        daemon.says(|line| field(line, "event") == Some("rejected") && line.contains("no@example.com"));
    assert!(rejected.contains("550") && rejected.contains("5.1.1"), "{rejected}");
}

#[test]
fn escapes_what_peers_say() {
    let refusal = "554 5.6.0 \u{1b}[2J\u{7}\" event=ready \u{202e}x";
    let upstream = Upstream::start(Script::new().on(Stage::Message, refusal));
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.command("EHLO evil\u{202e}\\\"name").code.to_string();
    let reply = verdict(&mut client, &message::ordinary("x\r\n"));
    assert!(reply.text().chars().all(|c| !c.is_control()), "{reply:?}");
    daemon.logged("rejected");
    let log = daemon.log();
    assert!(log.chars().all(|c| c == '\n' || (!c.is_control() && c != '\u{202e}')), "{}", log.escape_debug());
    assert_eq!(log.lines().filter(|line| field(line, "event") == Some("ready")).count(), 1);
}

#[test]
fn tells_no_content() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).with("LOG_LEVEL", "debug").start();
    daemon.client().deliver(&message::ordinary("the secret of the soup\r\n")).assert("250 2.");
    upstream.mail();
    daemon.says(|line| matches!(field(line, "event"), Some("relayed" | "delivered")));
    assert!(!daemon.log().contains("secret of the soup"));
}

#[test]
fn writes_json_where_it_is_told_to() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).with("LOG_FORMAT", "json").start();
    daemon.client().deliver(&message::ordinary("x\r\n")).assert("250 2.");
    let line = daemon.says(|line| line.contains("relayed") || line.contains("delivered"));
    let json: serde_json::Value = serde_json::from_str(&line).expect("one object a line");
    assert!(matches!(json["event"].as_str(), Some("relayed" | "delivered")), "{line}");
}
