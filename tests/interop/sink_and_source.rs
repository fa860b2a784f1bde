//! Postfix's own load tools: smtp-source in front of the relay, smtp-sink behind it.

use std::process::Command;

use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::need;
use ringpost_tests::process::{Process, run};
use ringpost_tests::upstream::{Upstream, refusing};
use ringpost_tests::wait::until_listening;

#[test]
fn smtp_source_sends_over_many_sessions() {
    let source = need!("smtp-source");
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let relay = daemon.smtp().to_string();
    let words = ["-s", "10", "-m", "200", "-l", "5000", "-f", "a@client.test", "-t", "b@example.com", &relay];
    for reuse in [&["-d"][..], &[]] {
        let finished = run(Command::new(&source).args(reuse).args(words));
        assert_eq!(finished.code, Some(0), "{finished:#?}");
    }
    assert_eq!(upstream.mails(400).len(), 400);
    assert_eq!(daemon.metric("ringpost_messages_relayed_total{custody=\"upstream\"}"), Some(400.0));
}

#[test]
fn smtp_sink_takes_everything() {
    let sink = need!("smtp-sink");
    let source = need!("smtp-source");
    let address = refusing();
    let listening = Process::start(Command::new(sink).args(["-u", "nobody", &address.to_string(), "100"]));
    until_listening(address);
    let daemon =
        Builder::relaying_to(&format!("[127.0.0.1]:{}", address.port())).with("WORKERS", "2").start();
    let relay = daemon.smtp().to_string();
    let words =
        ["-s", "10", "-m", "300", "-l", "2000", "-d", "-f", "a@client.test", "-t", "b@example.com", &relay];
    let finished = run(Command::new(source).args(words));
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(daemon.metric("ringpost_messages_relayed_total{custody=\"upstream\"}"), Some(300.0));
    drop(listening);
}

#[test]
fn smtp_sink_refuses_and_the_client_hears_it() {
    let sink = need!("smtp-sink");
    for (refuse, class) in [("-f", 5), ("-r", 4)] {
        // `-f` refuses for good, `-r` for now; both at RCPT only.
        let address = refusing();
        let words = ["-u", "nobody", refuse, "rcpt", &address.to_string(), "100"];
        let _listening = Process::start(Command::new(&sink).args(words));
        until_listening(address);
        let daemon = Builder::relaying_to(&format!("[127.0.0.1]:{}", address.port())).start();
        let mut client = daemon.client();
        client.command("MAIL FROM:<a@client.test>").assert("250 2.1.0");
        let reply = client.command("RCPT TO:<b@example.com>");
        assert_eq!(reply.code / 100, class, "{refuse}: {reply:?}");
    }
}

#[test]
fn smtp_sink_that_breaks_off_after_the_dot_is_no_custody() {
    let sink = need!("smtp-sink");
    let address = refusing();
    let words = ["-u", "nobody", "-q", ".", &address.to_string(), "100"];
    let _listening = Process::start(Command::new(sink).args(words));
    until_listening(address);
    let daemon = Builder::relaying_to(&format!("[127.0.0.1]:{}", address.port())).start();
    let reply = daemon.client().deliver(&message::ordinary("x\r\n"));
    assert_eq!(reply.code, 451, "{reply:?}");
}
