//! The verbs and signals: stop drains, reload drops nothing, status tells, exit codes are those of sysexits.

use ringpost_tests::client::Client;
use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::upstream::{Act, Script, Stage, Upstream};
use ringpost_tests::wait::Latch;
use rustix::process::Signal;

#[test]
fn status_tells_whether_it_runs() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let status = daemon.verb(&["status"]);
    assert_eq!(status.code, Some(0), "{status:?}");
    let nobody = Builder::relaying_to(&upstream.host());
    for verb in ["status", "stop", "reload"] {
        assert_eq!(nobody.verb(&[verb]).code, Some(3), "{verb}");
    }
}

#[test]
fn stop_ends_it_cleanly() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let stopped = daemon.verb(&["stop"]);
    assert_eq!(stopped.code, Some(0), "{stopped:?}");
    assert_eq!(daemon.finish().code, Some(0));
}

#[test]
fn every_signal_of_an_init_ends_it_cleanly() {
    for signal in [Signal::TERM, Signal::INT] {
        let upstream = Upstream::plain();
        let daemon = Daemon::relaying_to(&upstream);
        daemon.signal(signal);
        assert_eq!(daemon.finish().code, Some(0), "{signal:?}");
    }
}

#[test]
fn stop_finishes_the_transaction_that_is_open() {
    let latch = Latch::new();
    let acts = [Act::Wait(latch.clone()), Act::Say("250 2.0.0 Ok".to_owned())];
    let upstream = Upstream::start(Script::new().on(Stage::Message, acts));
    let daemon = Daemon::relaying_to(&upstream);
    let (mut busy, mut idle) = (daemon.client(), daemon.client());
    busy.envelope("a@client.test", &["b@example.com"]).command("DATA").assert("354");
    busy.send(b"Subject: x\r\n\r\nx\r\n.\r\n");
    upstream.mail();
    daemon.signal(Signal::TERM);
    // The idle session hears that it is over while the busy one still waits for its verdict.
    idle.reply().assert("421 4.3.2");
    assert_eq!(idle.rest(), "");
    latch.open();
    busy.reply().assert("250 2.");
    assert_eq!(daemon.finish().code, Some(0));
}

#[test]
fn reload_takes_new_networks_and_drops_no_session() {
    let upstream = Upstream::plain();
    let builder = Builder::relaying_to(&upstream.host()).without("EXT_RELAY_HOST");
    let file = builder.dir().join("ringpost.toml");
    let write = |denied: &str| {
        let text = format!("ext_relay_host = \"{}\"\ndenied_senders = \"{denied}\"\n", upstream.host());
        std::fs::write(&file, text).expect("a file");
    };
    write("nobody@client.test");
    let daemon = builder.with("RINGPOST_CONFIG", &file.display().to_string()).start();
    let mut client = daemon.client();
    client.envelope("a@client.test", &["b@example.com"]);
    write("a@client.test");
    let reloaded = daemon.verb(&["reload"]);
    assert_eq!(reloaded.code, Some(0), "{reloaded:?}");
    client.data(&message::ordinary("x\r\n")).assert("250 2.");
    Client::greeted(daemon.smtp()).command("MAIL FROM:<a@client.test>").assert("550 5.7.1");
    assert_eq!(upstream.mails(1).len(), 1);
}

#[test]
fn reload_refuses_a_wrong_configuration_and_keeps_the_old_one() {
    let upstream = Upstream::plain();
    let builder = Builder::relaying_to(&upstream.host());
    let file = builder.dir().join("ringpost.toml");
    std::fs::write(&file, "recipients_max = 7\n").expect("a file");
    let daemon = builder.with("RINGPOST_CONFIG", &file.display().to_string()).start();
    std::fs::write(&file, "recipients_max = \"many\"\n").expect("a file");
    let reloaded = daemon.verb(&["reload"]);
    assert_eq!(reloaded.code, Some(78), "{reloaded:?}");
    let said = format!("{}{}", reloaded.stdout, reloaded.stderr);
    assert!(said.to_ascii_lowercase().contains("recipients_max") && said.contains("many"), "{said}");
    let ehlo = Client::connect(daemon.smtp()).command("EHLO client.test");
    assert!(ehlo.lines.iter().any(|line| line.contains("RCPTMAX=7")), "{ehlo:?}");
    daemon.client().deliver(&message::ordinary("x\r\n")).assert("250 2.");
    assert_eq!(daemon.metric("ringpost_config_reloads_total{outcome=\"refused\"}"), Some(1.0));
}

#[test]
fn hup_reloads() {
    let upstream = Upstream::plain();
    let builder = Builder::relaying_to(&upstream.host());
    let file = builder.dir().join("ringpost.toml");
    std::fs::write(&file, "recipients_max = 7\n").expect("a file");
    let daemon = builder.with("RINGPOST_CONFIG", &file.display().to_string()).start();
    std::fs::write(&file, "recipients_max = 8\n").expect("a file");
    daemon.signal(Signal::HUP);
    daemon.says(|line| line.contains("reload"));
    let ehlo = Client::connect(daemon.smtp()).command("EHLO client.test");
    assert!(ehlo.lines.iter().any(|line| line.contains("RCPTMAX=8")), "{ehlo:?}");
}

#[test]
fn works_with_several_workers() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).with("WORKERS", "3").start();
    for _ in 0..20 {
        daemon.client().deliver(&message::ordinary("x\r\n")).assert("250 2.");
    }
    assert_eq!(daemon.metric("ringpost_messages_relayed_total{custody=\"upstream\"}"), Some(20.0));
    daemon.stop();
    assert_eq!(upstream.mails(20).len(), 20);
}

#[test]
fn explain_tells_what_would_happen() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let accepted = daemon.verb(&["explain", "10.1.2.3"]);
    assert_eq!(accepted.code, Some(0), "{accepted:?}");
    assert!(accepted.stdout.contains("10.0.0.0/8"), "{accepted:?}");
    let refused = daemon.verb(&["explain", "198.18.0.1"]);
    assert!(refused.stdout.contains("454") || refused.stdout.contains("denied"), "{refused:?}");
}
