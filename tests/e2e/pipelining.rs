//! Pipelined groups, early talkers and protocols that are not this one.

use ringpost_tests::client::Client;
use ringpost_tests::daemon::Daemon;
use ringpost_tests::upstream::{Script, Stage, Upstream};
use rustix::process::Signal;

#[test]
fn answers_a_group_in_order_each_command_its_own() {
    let upstream = Upstream::start(Script::new().on_words(Stage::Rcpt, "no@", "550 5.1.1 Unknown"));
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.send(
        b"MAIL FROM:<a@client.test>\r\nRCPT TO:<no@example.com>\r\nRCPT TO:<b@example.com>\r\n\
          RCPT TO:<bad@@example.com>\r\nRCPT TO:<c@example.com>\r\nDATA\r\n",
    );
    for start in ["250 2.1.0", "550 5.1.1", "250 2.1.5", "501 5.1.3", "250 2.1.5", "354"] {
        client.reply().assert(start);
    }
    client.send(b"Subject: x\r\n\r\nx\r\n.\r\n").reply().assert("250 2.");
    assert_eq!(upstream.mail().accepted(), ["<b@example.com>", "<c@example.com>"]);
}

#[test]
fn takes_many_mails_in_one_breath_by_chunks() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    let mail =
        "MAIL FROM:<a@client.test>\r\nRCPT TO:<b@example.com>\r\nBDAT 17 LAST\r\nSubject: x\r\n\r\nx\r\n";
    client.send(mail.repeat(50).as_bytes());
    for _ in 0..50 {
        client.reply().assert("250 2.1.0");
        client.reply().assert("250 2.1.5");
        client.reply().assert("250 2.");
    }
    assert_eq!(upstream.mails(50).len(), 50);
}

#[test]
fn turns_early_talkers_away() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    // The kernel answers for a process that sleeps: what is sent now is there before the relay can greet.
    daemon.signal(Signal::STOP);
    let mut client = Client::dial(daemon.smtp());
    client.send(b"EHLO client.test\r\nMAIL FROM:<a@client.test>\r\n");
    daemon.signal(Signal::CONT);
    client.reply().assert("554 5.5.0");
    assert_eq!(client.finish_sending().rest(), "");
}

#[test]
fn does_not_talk_to_browsers() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    for verb in ["GET / HTTP/1.1", "POST /x HTTP/1.1", "CONNECT a:25 HTTP/1.1", "PUT / HTTP/1.0"] {
        let mut client = Client::connect(daemon.smtp());
        client.send_gladly(format!("{verb}\r\nHost: x\r\n\r\nEHLO x\r\nMAIL FROM:<a@x.test>\r\n").as_bytes());
        client.reply().assert("502 5.5.2");
        assert_eq!(client.rest(), "", "{verb}");
    }
}

#[test]
fn closes_when_tls_comes_to_the_plain_port() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = Client::connect(daemon.smtp());
    client.send_gladly(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n");
    let said = client.rest();
    assert!(said.len() < 200 && !said.contains("250"), "{said}");
}

#[test]
fn stops_reading_from_a_client_that_does_not_read() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut greedy = daemon.client();
    greedy.send_gladly("HELP\r\n".repeat(200_000).as_bytes());
    // The others are served all the same.
    daemon.client().deliver(&ringpost_tests::message::ordinary("x\r\n")).assert("250 2.");
}
