//! Real file systems that fill up: clients hear 4xx, nothing acknowledged is lost, and service resumes.

use std::fs::DirBuilder;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use ringpost_tests::admin;
use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::upstream::{Script, Upstream, refusing};
use ringpost_tests::wait::Watched;
use ringpost_tests::{need, skip};

use super::ledger::{Ledger, Load, Shared, balance};
use super::mounts::{Mounted, ext4};

/// A relay whose spool is there and whose upstream is down.
pub(crate) fn stranded(state: &Path) -> (Daemon, SocketAddr) {
    let address = refusing();
    (strandable(state, address).start(), address)
}

fn strandable(state: &Path, upstream: SocketAddr) -> Builder {
    Builder::relaying_to(&format!("[127.0.0.1]:{}", upstream.port()))
        .with("DELIVERY_PATIENCE", "0")
        .with("QUEUE_RETRY", "100ms")
        .with("STATE_DIR", &state.display().to_string())
}

/// Sends until the relay refuses for want of its disk, and some more; says what it heard.
pub(crate) fn send_until_refused(daemon: &Daemon, ledger: &Shared) -> Vec<String> {
    let before = ledger.read(|ledger| ledger.refusals.len());
    let load = Load::start(daemon.smtp(), 4, 400_000, ledger);
    ledger.find("the relay refuses", |ledger| (ledger.refusals.len() >= before + 10).then_some(()));
    load.end();
    ledger.read(|ledger| ledger.refusals[before..].to_vec())
}

#[track_caller]
pub(crate) fn assert_temporary(refusals: &[String]) {
    let is_fit = |reply: &&String| reply.starts_with("452 4.3.1") || reply.starts_with("451 4.3.0");
    assert!(refusals.iter().all(|reply| is_fit(&reply)), "{refusals:?}");
}

/// The upstream comes up: what was acknowledged is delivered.
pub(crate) fn delivers(daemon: &Daemon, address: SocketAddr) -> Upstream {
    let upstream = Upstream::start_at(TcpListener::bind(address).expect("the port is free"), Script::new());
    daemon.verb(&["flush"]);
    daemon.reaches("ringpost_queue_octets", 0.0);
    upstream
}

/// The upstream comes up: what was acknowledged is delivered, and then new mail is taken again.
pub(crate) fn recovers(daemon: &Daemon, address: SocketAddr, ledger: &Shared) {
    let upstream = delivers(daemon, address);
    let before = ledger.read(|ledger| ledger.acknowledged.len());
    let load = Load::start(daemon.smtp(), 2, 1000, ledger);
    ledger.find("mail is taken again", |ledger| (ledger.acknowledged.len() >= before + 10).then_some(()));
    load.end();
    daemon.reaches("ringpost_queue_octets", 0.0);
    let found = balance(ledger, &upstream);
    assert!(found.twice_across_lives == 0 && found.twice_in_one_life == 0, "{found:?}");
}

pub(crate) fn ledger() -> Shared {
    Arc::new(Watched::new(Ledger::default()))
}

/// The disk fills up, the upstream comes up: the room is there again, and mail is taken without a restart.
fn fills_up(mounted: &Mounted) {
    let (daemon, address) = stranded(&mounted.state());
    let ledger = ledger();
    assert_temporary(&send_until_refused(&daemon, &ledger));
    recovers(&daemon, address, &ledger);
    daemon.stop();
}

#[test]
fn a_full_tmpfs_is_4xx_and_service_resumes() {
    match Mounted::tmpfs("size=64m") {
        Some(mounted) => fills_up(&mounted),
        None => skip!("no mount for this user"),
    }
}

#[test]
fn a_file_system_without_inodes_is_4xx_and_service_resumes() {
    match Mounted::tmpfs("size=256m,nr_inodes=20") {
        Some(mounted) => fills_up(&mounted),
        None => skip!("no mount for this user"),
    }
}

#[test]
fn a_full_ext4_is_4xx_and_service_resumes() {
    need!("mkfs.ext4");
    let dir = tempfile::tempdir().expect("a directory");
    match ext4(dir.path()) {
        Some(mounted) => fills_up(&mounted),
        None => skip!("no loop device for this user"),
    }
}

#[test]
fn a_full_tmpfs_with_messages_that_nobody_takes_in_every_segment_takes_mail_again() {
    let Some(mounted) = Mounted::tmpfs("size=64m") else { skip!("no mount for this user") };
    let address = refusing();
    // The file system is to be what is full.
    let daemon = strandable(&mounted.state(), address).with("QUEUE_BYTES_MAX", "100%").start();
    let ledger = ledger();
    assert_temporary(&send_until_refused(&daemon, &ledger));
    // In the order that they came.
    let listed = daemon.verb(&["queue", "list", "--json"]).stdout;
    let mut ids: Vec<String> = listed.lines().map(queue_id).collect();
    ids.sort();
    let held: Vec<&str> = ids.iter().step_by(6).map(String::as_str).collect();
    assert!(held.len() >= 16, "as many as there are segments: {}", held.len());
    let done = daemon.verb(&[&["queue", "hold"][..], &held].concat());
    assert_eq!(done.code, Some(0), "{done:#?}");
    let upstream = Upstream::start_at(TcpListener::bind(address).expect("the port is free"), Script::new());
    daemon.verb(&["flush"]);
    let before = ledger.read(|ledger| ledger.acknowledged.len());
    let load = Load::start(daemon.smtp(), 2, 1000, &ledger);
    ledger.find("mail is taken", |ledger| (ledger.acknowledged.len() >= before + 10).then_some(()));
    load.end();
    daemon.verb(&["queue", "release", "--all"]);
    daemon.verb(&["flush"]);
    daemon.reaches("ringpost_queue_octets", 0.0);
    let found = balance(&ledger, &upstream);
    assert!(found.twice_across_lives == 0 && found.twice_in_one_life == 0, "{found:?}");
    daemon.stop();
}

fn queue_id(line: &str) -> String {
    let entry: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
    entry["queue_id"].as_str().expect("an id").to_owned()
}

#[test]
fn a_restart_on_a_full_disk_serves_what_it_has_and_then_new_mail() {
    let Some(mounted) = Mounted::tmpfs("size=64m") else {
        skip!("no mount for this user");
    };
    let (daemon, address) = stranded(&mounted.state());
    let ledger = ledger();
    send_until_refused(&daemon, &ledger);
    let killed = daemon.kill();
    // What is left goes to somebody else.
    let ballast = mounted.fill();
    let daemon = killed.start();
    assert_temporary(&send_until_refused(&daemon, &ledger));
    std::fs::remove_file(ballast).expect("it is there");
    recovers(&daemon, address, &ledger);
    daemon.stop();
}

/// A relay that is started on a disk without any room, where there may be an empty spool directory already.
fn starts_on_a_full_disk(mounted: &Mounted) {
    let ballast = mounted.fill();
    let (daemon, address) = stranded(&mounted.state());
    let ledger = ledger();
    let refusals = send_until_refused(&daemon, &ledger);
    assert!(refusals.iter().all(|reply| reply.starts_with("452 4.3.1")), "{refusals:?}");
    assert_eq!(admin::get(daemon.admin(), "/readyz").status, 503);
    std::fs::remove_file(ballast).expect("it is there");
    let load = Load::start(daemon.smtp(), 2, 1000, &ledger);
    ledger.find("mail is taken", |ledger| (ledger.acknowledged.len() >= 10).then_some(()));
    load.end();
    assert_eq!(admin::get(daemon.admin(), "/readyz").status, 200);
    let spool = mounted.state().join("spool");
    let mode = spool.metadata().expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let second = strandable(&mounted.state(), address).try_start().expect_err("the spool is locked");
    assert_eq!(second.code, Some(73), "{second:#?}");
    recovers(&daemon, address, &ledger);
    daemon.stop();
}

#[test]
fn a_full_disk_without_a_spool_is_452_and_the_spool_is_made_as_soon_as_there_is_room() {
    need!("mkfs.ext4");
    let dir = tempfile::tempdir().expect("a directory");
    match ext4(dir.path()) {
        Some(mounted) => starts_on_a_full_disk(&mounted),
        None => skip!("no loop device for this user"),
    }
}

#[test]
fn a_full_disk_with_an_empty_spool_directory_is_452_and_serves_as_soon_as_there_is_room() {
    need!("mkfs.ext4");
    let dir = tempfile::tempdir().expect("a directory");
    let Some(mounted) = ext4(dir.path()) else { skip!("no loop device for this user") };
    let spool = mounted.state().join("spool");
    DirBuilder::new().mode(0o700).recursive(true).create(spool).expect("a directory");
    starts_on_a_full_disk(&mounted);
}

#[test]
fn a_full_disk_does_not_excuse_a_spool_that_is_not_ours() {
    need!("mkfs.ext4");
    let dir = tempfile::tempdir().expect("a directory");
    let Some(mounted) = ext4(dir.path()) else { skip!("no loop device for this user") };
    let spool = mounted.state().join("spool");
    DirBuilder::new().mode(0o755).recursive(true).create(&spool).expect("a directory");
    mounted.fill();
    let refused = strandable(&mounted.state(), refusing()).try_start().expect_err("it is open to others");
    assert_eq!(refused.code, Some(73), "{refused:#?}");
    assert!((refused.stdout + &refused.stderr).contains("must be closed to group and others"));
}

#[test]
fn a_full_disk_without_a_spool_lets_mail_through_to_an_upstream_that_answers_in_time() {
    need!("mkfs.ext4");
    let dir = tempfile::tempdir().expect("a directory");
    let Some(mounted) = ext4(dir.path()) else { skip!("no loop device for this user") };
    mounted.fill();
    let upstream = Upstream::plain();
    for patience in ["forever", "10s"] {
        let daemon = Builder::relaying_to(&upstream.host())
            .with("DELIVERY_PATIENCE", patience)
            .with("STATE_DIR", &mounted.state().display().to_string())
            .start();
        let ledger = ledger();
        let load = Load::start(daemon.smtp(), 1, 1000, &ledger);
        ledger.find("mail goes through", |ledger| (ledger.acknowledged.len() >= 3).then_some(()));
        load.end();
        assert_eq!(ledger.read(|ledger| ledger.refusals.len()), 0);
        daemon.stop();
    }
}
