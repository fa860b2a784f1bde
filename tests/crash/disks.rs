//! Real file systems that fill up or turn read-only: clients hear 4xx, and nothing acknowledged is lost.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::process::run;
use ringpost_tests::skip::found;
use ringpost_tests::upstream::{Script, Upstream, refusing};
use ringpost_tests::wait::Watched;
use ringpost_tests::{need, skip};

use super::ledger::{Ledger, Load, Shared, balance};

/// A mount that goes away with its directory.
struct Mounted {
    dir: tempfile::TempDir,
}

impl Mounted {
    /// Mounts; `None` where this process may not.
    fn new(arguments: &[&str]) -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("ringpost-disk-").tempdir().expect("a directory");
        let done = run(Command::new(found("mount")?).args(arguments).arg(dir.path()));
        (done.code == Some(0)).then_some(Self { dir })
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn remount(&self, options: &str) {
        let done =
            run(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(self.dir.path()));
        assert_eq!(done.code, Some(0), "{done:#?}");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The directory under it stays empty, whatever becomes of this.
        Command::new("umount").arg("-l").arg(self.dir.path()).status().ok();
    }
}

/// A relay whose spool is there and whose upstream is down.
fn stranded(state: &Path) -> (Daemon, SocketAddr) {
    let address = refusing();
    let daemon = Builder::relaying_to(&format!("[127.0.0.1]:{}", address.port()))
        .with("DELIVERY_PATIENCE", "0")
        .with("QUEUE_RETRY", "100ms")
        .with("STATE_DIR", &state.display().to_string())
        .start();
    (daemon, address)
}

/// Sends until the relay refuses for want of its disk, and some more; says what it heard.
fn send_until_refused(daemon: &Daemon, ledger: &Shared) -> Vec<String> {
    let before = ledger.read(|ledger| ledger.refusals.len());
    let load = Load::start(daemon.smtp(), 4, 400_000, ledger);
    ledger.find("the relay refuses", |ledger| (ledger.refusals.len() >= before + 10).then_some(()));
    load.end();
    ledger.read(|ledger| ledger.refusals[before..].to_vec())
}

#[track_caller]
fn assert_temporary(refusals: &[String]) {
    let is_fit = |reply: &&String| reply.starts_with("452 4.3.1") || reply.starts_with("451 4.3.0");
    assert!(refusals.iter().all(|reply| is_fit(&reply)), "{refusals:?}");
}

/// The upstream comes up: what was acknowledged is delivered.
fn delivers(daemon: &Daemon, address: SocketAddr) -> Upstream {
    let upstream = Upstream::start_at(TcpListener::bind(address).expect("the port is free"), Script::new());
    daemon.verb(&["flush"]);
    daemon.reaches("ringpost_queue_octets", 0.0);
    upstream
}

/// The upstream comes up: what was acknowledged is delivered, and then new mail is taken again.
fn recovers(daemon: &Daemon, address: SocketAddr, ledger: &Shared) {
    let upstream = delivers(daemon, address);
    let before = ledger.read(|ledger| ledger.acknowledged.len());
    let load = Load::start(daemon.smtp(), 2, 1000, ledger);
    ledger.find("mail is taken again", |ledger| (ledger.acknowledged.len() >= before + 10).then_some(()));
    load.end();
    daemon.reaches("ringpost_queue_octets", 0.0);
    let found = balance(ledger, &upstream);
    assert!(found.twice_across_lives == 0 && found.twice_in_one_life == 0, "{found:?}");
}

fn ledger() -> Shared {
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
    match Mounted::new(&["-t", "tmpfs", "-o", "size=64m", "tmpfs"]) {
        Some(mounted) => fills_up(&mounted),
        None => skip!("no mount for this user"),
    }
}

#[test]
fn a_file_system_without_inodes_is_4xx_and_service_resumes() {
    match Mounted::new(&["-t", "tmpfs", "-o", "size=256m,nr_inodes=20", "tmpfs"]) {
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

/// A small file system of its own in a file.
fn ext4(dir: &Path) -> Option<Mounted> {
    let image = dir.join("disk.img");
    std::fs::File::create(&image).and_then(|file| file.set_len(96 << 20)).expect("an image");
    let made = run(Command::new(found("mkfs.ext4")?).args(["-q", "-F"]).arg(&image));
    assert_eq!(made.code, Some(0), "{made:#?}");
    Mounted::new(&["-o", "loop", &image.display().to_string()])
}

#[test]
fn a_restart_on_a_full_disk_serves_what_it_has_and_then_new_mail() {
    let Some(mounted) = Mounted::new(&["-t", "tmpfs", "-o", "size=64m", "tmpfs"]) else {
        skip!("no mount for this user");
    };
    let (daemon, address) = stranded(&mounted.state());
    let ledger = ledger();
    send_until_refused(&daemon, &ledger);
    let ballast = mounted.dir.path().join("ballast");
    let killed = daemon.kill();
    // What is left goes to somebody else.
    let done =
        run(Command::new("dd").args(["if=/dev/zero", "bs=64k"]).arg(format!("of={}", ballast.display())));
    assert_ne!(done.code, Some(0), "the disk is full now");
    let daemon = killed.start();
    assert_temporary(&send_until_refused(&daemon, &ledger));
    std::fs::remove_file(ballast).expect("it is there");
    recovers(&daemon, address, &ledger);
    daemon.stop();
}

#[test]
fn a_disk_that_turns_read_only_is_4xx_and_service_resumes() {
    need!("mkfs.ext4");
    let dir = tempfile::tempdir().expect("a directory");
    let Some(mounted) = ext4(dir.path()) else { skip!("no loop device for this user") };
    let (daemon, address) = stranded(&mounted.state());
    let ledger = ledger();
    let load = Load::start(daemon.smtp(), 2, 1000, &ledger);
    ledger.find("some mail is taken", |ledger| (ledger.acknowledged.len() >= 20).then_some(()));
    load.end();
    // Open files keep a file system from a plain remount; this is what the file system does to itself after an error.
    mounted.remount("abort");
    assert_temporary(&send_until_refused(&daemon, &ledger));
    let _ = address;
    let killed = daemon.kill();
    drop(mounted);
    let image = dir.path().join("disk.img").display().to_string();
    let Some(mounted) = Mounted::new(&["-o", "loop", &image]) else { skip!("no loop device for this user") };
    let daemon = killed.with("STATE_DIR", &mounted.state().display().to_string()).start();
    recovers(&daemon, address, &ledger);
    daemon.stop();
}
