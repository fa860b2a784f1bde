//! `DELIVERY_PATIENCE` changes by a reload, with and without a spool from the start.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::upstream::{Script, Stage, Upstream, refusing};

/// A relay whose patience stands in a file.
fn starting_with(patience: &str, hosts: &str) -> (Builder, PathBuf) {
    let builder = Builder::relaying_to(hosts).without("DELIVERY_PATIENCE").with("QUEUE_RETRY", "200ms");
    let file = builder.dir().join("ringpost.toml");
    write(&file, patience);
    (builder.with("RINGPOST_CONFIG", &file.display().to_string()).with("WORKERS", "2"), file)
}

fn write(file: &Path, patience: &str) {
    std::fs::write(file, format!("delivery_patience = \"{patience}\"\n")).expect("a file");
}

fn reload(daemon: &Daemon, code: i32) -> String {
    let reloaded = daemon.verb(&["reload"]);
    assert_eq!(reloaded.code, Some(code), "{reloaded:?}");
    format!("{}{}", reloaded.stdout, reloaded.stderr)
}

#[test]
fn patience_ends_and_becomes_endless_again_by_reloads() {
    let address = refusing();
    let (builder, file) = starting_with("forever", &format!("[127.0.0.1]:{}", address.port()));
    let daemon = builder.start();
    let mut open = daemon.client();
    open.command("MAIL FROM:<a@client.test>").assert("250");
    open.command("RCPT TO:<b@example.com>").assert("451 4.4.1");
    open.command("RSET").assert("250");
    assert!(!daemon.dir().join("state/spool").exists(), "nothing was asked of the disk");
    write(&file, "0");
    reload(&daemon, 0);
    // In the session that was open as in new ones, whichever worker has them.
    let sent = message::ordinary("x\r\n");
    open.deliver(&sent).assert("250 2.0.0 Ok: queued as ");
    for _ in 0..5 {
        daemon.client().deliver(&sent).assert("250 2.0.0 Ok: queued as ");
    }
    let script = Script::new().on(Stage::Message, "250 2.6.0 Taken as 4711");
    let upstream = Upstream::start_at(TcpListener::bind(address).expect("the port is free"), script);
    upstream.mails(6).iter().for_each(|mail| drop(mail.assert_carries(&sent)));
    daemon.reaches("ringpost_queue_octets", 0.0);
    write(&file, "forever");
    reload(&daemon, 0);
    open.deliver(&sent).assert("250 2.6.0 Taken as 4711");
    daemon.client().deliver(&sent).assert("250 2.6.0 Taken as 4711");
    write(&file, "9m");
    reload(&daemon, 0);
    open.deliver(&sent).assert("250 2.6.0 Taken as 4711");
    assert_eq!(daemon.metric("ringpost_messages_relayed_total{custody=\"spool\"}"), Some(6.0));
    daemon.stop();
}

#[test]
fn a_patience_whose_spool_cannot_be_had_is_refused_and_the_old_one_stays() {
    let upstream = Upstream::start(Script::new().on(Stage::Message, "250 2.6.0 Taken as 4711"));
    let (builder, file) = starting_with("forever", &upstream.host());
    let state = builder.dir().join("state");
    std::fs::write(&state, "in the way").expect("a file");
    let daemon = builder.start();
    write(&file, "0");
    let said = reload(&daemon, 78);
    assert!(said.contains("STATE_DIR"), "{said}");
    let sent = message::ordinary("x\r\n");
    daemon.client().deliver(&sent).assert("250 2.6.0 Taken as 4711");
    assert_eq!(daemon.metric("ringpost_config_reloads_total{outcome=\"refused\"}"), Some(1.0));
    std::fs::remove_file(&state).expect("it is ours");
    reload(&daemon, 0);
    daemon.client().deliver(&sent).assert("250 2.0.0 Ok: queued as ");
    upstream.mails(2).iter().for_each(|mail| drop(mail.assert_carries(&sent)));
    // The spool is this process's, and no other's.
    let second = Builder::relaying_to(&upstream.host())
        .with("DELIVERY_PATIENCE", "0")
        .with("STATE_DIR", &state.display().to_string());
    assert_eq!(second.try_start().expect_err("it is taken").code, Some(73));
    daemon.stop();
}
