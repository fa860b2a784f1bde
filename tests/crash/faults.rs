//! Disks that fail beneath a real file system, and mounts that turn read-only: clients hear 4xx, `/readyz` is red, nothing
//! acknowledged is lost, and service resumes by itself wherever the file system takes writes again.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use ringpost_tests::admin;
use ringpost_tests::daemon::Daemon;
use ringpost_tests::skip;
use ringpost_tests::wait::{PATIENCE, Watched};

use super::disks::{assert_temporary, ledger, recovers, send_until_refused, stranded};
use super::ledger::{Load, Shared};
use super::mounts::{Faulty, Mounted, Refuses, ext4};

/// Mail that is acknowledged and waits.
fn send_some(daemon: &Daemon, ledger: &Shared) {
    let before = ledger.read(|ledger| ledger.acknowledged.len());
    let load = Load::start(daemon.smtp(), 2, 20_000, ledger);
    ledger.find("some mail is taken", |ledger| (ledger.acknowledged.len() >= before + 20).then_some(()));
    load.end();
}

/// Looks until something is so: nobody tells when it comes to be.
#[track_caller]
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let look = Duration::from_millis(10);
    for _ in 0..PATIENCE.as_millis() / look.as_millis() {
        if is_so() {
            return;
        }
        Watched::new(()).find_within(look, |()| None::<()>);
    }
    panic!("waited in vain until {what}");
}

fn readiness(daemon: &Daemon) -> u16 {
    admin::get(daemon.admin(), "/readyz").status
}

/// The relay refuses mail for want of its disk, and says so to a balancer.
#[track_caller]
fn is_red_and_refuses(daemon: &Daemon, ledger: &Shared) {
    let before = ledger.read(|ledger| ledger.refusals.len());
    let load = Load::start(daemon.smtp(), 4, 400_000, ledger);
    ledger.find("the relay refuses", |ledger| (ledger.refusals.len() >= before + 10).then_some(()));
    until("/readyz is red", || readiness(daemon) == 503);
    load.end();
    assert_temporary(&ledger.read(|ledger| ledger.refusals[before..].to_vec()));
}

#[test]
fn a_disk_that_fails_to_write_is_4xx_and_service_resumes_when_it_writes_again() {
    // Without a journal the file system goes on after an error, as ext4 does where only data could not be written.
    let disk = match Faulty::ext4(&["-O", "^has_journal"]) {
        Ok(disk) => disk,
        Err(why) => skip!("{why}"),
    };
    let Some(mounted) = disk.mount(",errors=continue") else { skip!("no loop device for this user") };
    let (daemon, address) = stranded(&mounted.state());
    let ledger = ledger();
    send_some(&daemon, &ledger);
    for _ in 0..2 {
        disk.refuse(Refuses::Writes);
        is_red_and_refuses(&daemon, &ledger);
        disk.mend(Refuses::Writes);
        until("/readyz is green", || readiness(&daemon) == 200);
        send_some(&daemon, &ledger);
    }
    recovers(&daemon, address, &ledger);
    daemon.stop();
}

#[test]
fn a_file_system_that_gives_up_serves_again_after_stop_mount_and_start() {
    let disk = match Faulty::ext4(&[]) {
        Ok(disk) => disk,
        Err(why) => skip!("{why}"),
    };
    let Some(mounted) = disk.mount(",errors=remount-ro") else { skip!("no loop device for this user") };
    let (daemon, address) = stranded(&mounted.state());
    let ledger = ledger();
    send_some(&daemon, &ledger);
    disk.refuse(Refuses::Writes);
    is_red_and_refuses(&daemon, &ledger);
    until("the file system has given up", || has_given_up(mounted.path()));
    disk.mend(Refuses::Writes);
    // The disk is well, the file system is not: that takes an operator.
    is_red_and_refuses(&daemon, &ledger);
    let stopped = daemon.pause();
    drop(mounted);
    let Some(mounted) = disk.mount("") else { panic!("it could be mounted before") };
    let daemon = stopped.with("STATE_DIR", &mounted.state().display().to_string()).start();
    recovers(&daemon, address, &ledger);
    daemon.stop();
}

/// Makes the journal write, which is what fails.
fn has_given_up(path: &Path) -> bool {
    let written = File::create(path.join("probe")).and_then(|file| file.sync_all());
    written.is_err_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem)
}

#[test]
fn a_disk_that_turns_read_only_after_an_error_is_4xx_and_a_restart_serves() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(mounted) = ext4(dir.path()) else { skip!("no loop device with ext4 for this user") };
    let (daemon, address) = stranded(&mounted.state());
    let ledger = ledger();
    send_some(&daemon, &ledger);
    // What the file system does to itself after an error.
    assert!(mounted.remount("abort"), "the file system can be aborted");
    assert_temporary(&send_until_refused(&daemon, &ledger));
    let killed = daemon.kill();
    drop(mounted);
    let image = dir.path().join("disk.img");
    let mounted = Mounted::image(&image, "").expect("it could be mounted before");
    let daemon = killed.with("STATE_DIR", &mounted.state().display().to_string()).start();
    recovers(&daemon, address, &ledger);
    daemon.stop();
}

#[test]
fn a_file_system_that_is_pulled_away_is_4xx_and_a_restart_serves() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(mounted) = ext4(dir.path()) else { skip!("no loop device with ext4 for this user") };
    let (daemon, address) = stranded(&mounted.state());
    let ledger = ledger();
    send_some(&daemon, &ledger);
    mounted.pull_away();
    is_red_and_refuses(&daemon, &ledger);
    let stopped = daemon.pause();
    drop(mounted);
    let image = dir.path().join("disk.img");
    let mounted = Mounted::image(&image, "").expect("it could be mounted before");
    let daemon = stopped.with("STATE_DIR", &mounted.state().display().to_string()).start();
    recovers(&daemon, address, &ledger);
    daemon.stop();
}

#[test]
fn a_mount_that_turns_read_only_and_back_serves_again_without_a_restart() {
    let Some(mounted) = Mounted::tmpfs("size=96m") else { skip!("no mount for this user") };
    let (daemon, address) = stranded(&mounted.state());
    let ledger = ledger();
    send_some(&daemon, &ledger);
    // A segment that is open for writing keeps the kernel from turning its own mount read-only.
    let cover = mounted.cover();
    assert!(cover.remount("bind,ro"), "a bind mount turns read-only");
    is_red_and_refuses(&daemon, &ledger);
    assert!(cover.remount("bind,rw"), "and back");
    until("/readyz is green", || readiness(&daemon) == 200);
    recovers(&daemon, address, &ledger);
    daemon.stop();
}

#[test]
fn an_idle_spool_whose_disk_is_read_only_for_a_while_serves_again_without_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let Some(mounted) = ext4(dir.path()) else { skip!("no loop device with ext4 for this user") };
    let (daemon, address) = stranded(&mounted.state());
    let ledger = ledger();
    // Not while segments are made ahead.
    until("the kernel turns it read-only", || mounted.remount("ro"));
    is_red_and_refuses(&daemon, &ledger);
    assert!(mounted.remount("rw"), "and back");
    until("/readyz is green", || readiness(&daemon) == 200);
    recovers(&daemon, address, &ledger);
    daemon.stop();
}

#[test]
fn a_start_on_a_disk_that_cannot_be_read_keeps_what_is_there_for_the_next() {
    let disk = match Faulty::ext4(&[]) {
        Ok(disk) => disk,
        Err(why) => skip!("{why}"),
    };
    let Some(mounted) = disk.mount("") else { skip!("no loop device for this user") };
    let (daemon, address) = stranded(&mounted.state());
    let ledger = ledger();
    send_some(&daemon, &ledger);
    let killed = daemon.kill();
    disk.refuse(Refuses::Reads);
    let daemon = killed.start();
    daemon.logged("spool_unreadable");
    send_some(&daemon, &ledger);
    let stopped = daemon.pause();
    disk.mend(Refuses::Reads);
    let daemon = stopped.start();
    recovers(&daemon, address, &ledger);
    daemon.stop();
}
