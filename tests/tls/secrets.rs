//! Passwords are found nowhere but where they must be: not in the log, the metrics, the status, `/proc`, the state
//! directory, a core dump.

use std::path::{Path, PathBuf};

use ringpost_tests::admin;
use ringpost_tests::certificate::Identity;
use ringpost_tests::client::Client;
use ringpost_tests::daemon::Builder;
use ringpost_tests::message;
use ringpost_tests::upstream::{Script, Upstream};

const CANARY: &str = "canary-in-the-mine";
/// The canary in base64, at each of the three places that it can have in a group.
const ENCODED: [&str; 3] = ["Y2FuYXJ5LWluLXRoZS1taW5l", "NhbmFyeS1pbi10aGUtbWluZ", "jYW5hcnktaW4tdGhlLW1pbm"];

#[track_caller]
fn assert_clean(what: &str, text: &str) {
    for needle in ENCODED.into_iter().chain([CANARY]) {
        assert!(!text.contains(needle), "{needle} is in the {what}:\n{text}");
    }
}

/// Every file of a directory, and of those in it. What cannot be read shows nothing either.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => files_below(&entry.path()),
            Ok(kind) if kind.is_file() => vec![entry.path()],
            _ => Vec::new(),
        })
        .collect()
}

/// What `/proc` tells of a process and its threads, but for its memory itself.
fn told_by_kernel(id: u32) -> Vec<PathBuf> {
    let told = ["cmdline", "environ", "status", "maps", "mountinfo", "limits", "auxv", "comm", "stat"];
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let places = tasks.map(|task| task.path()).chain([PathBuf::from(format!("/proc/{id}"))]);
    places.flat_map(|place| told.map(|name| place.join(name))).collect()
}

#[test]
fn no_password_is_found_in_log_metrics_status_proc_state_or_core() {
    let identity = Identity::self_signed(&["localhost"]);
    let script = Script::new().with_tls(identity.server()).offering_inside("AUTH PLAIN LOGIN");
    let upstream = Upstream::start(script);
    let daemon = Builder::relaying_to(&upstream.host())
        .with("TLS_VERIFY", "encrypt")
        .without("OUTGOING_SMTP_AUTH")
        .with("OUTGOING_SMTP_LOGIN", "user")
        .with("OUTGOING_SMTP_PASSWORD", CANARY)
        .with("LISTEN_SUBMISSIONS", "127.0.0.1:0")
        .with("INCOMING_SMTP_AUTHLOGIN", "user")
        .with("INCOMING_SMTP_AUTHDOM", "client.test")
        .with("INCOMING_SMTP_AUTHPASSWORD", CANARY)
        .with("LOG_LEVEL", "trace")
        .start();
    let mut client = Client::connect_inside(daemon.listener("submissions"));
    client.command("EHLO client.test").assert("250");
    // The password in the place of the name, too.
    client.command("AUTH LOGIN").assert("334");
    client.command(ENCODED[0]).assert("334");
    client.command(ENCODED[0]).assert("535");
    client.command("AUTH LOGIN dXNlckBjbGllbnQudGVzdA==").assert("334");
    client.command(ENCODED[0]).assert("235");
    client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
    client.quit();
    daemon.logged("relayed");
    assert_clean("metrics", &admin::get(daemon.admin(), "/metrics").body);
    assert_clean("status", &admin::get(daemon.admin(), "/status").body);
    for verb in [&["status"][..], &["config"], &["check"]] {
        assert_clean("verb's output", &format!("{:?}", daemon.verb(verb)));
    }
    let read = |path: &Path| std::fs::read(path).map(|octets| String::from_utf8_lossy(&octets).into_owned());
    let environment = read(Path::new(&format!("/proc/{}/environ", daemon.id()))).expect("an environment");
    assert!(environment.contains("OUTGOING_SMTP_PASSWORD="), "the test looks at the right place");
    for path in told_by_kernel(daemon.id()).into_iter().chain(files_below(daemon.dir())) {
        assert_clean(&path.display().to_string(), &read(&path).unwrap_or_default());
    }
    let limits = read(Path::new(&format!("/proc/{}/limits", daemon.id()))).expect("limits");
    let cores = limits.lines().find(|line| line.starts_with("Max core file size")).expect("such a limit");
    assert_eq!(cores.split_ascii_whitespace().rev().nth(1), Some("0"), "no core dumps: {cores}");
    assert_clean("log", &daemon.log());
}

#[test]
fn a_reload_still_knows_the_passwords_of_the_environment() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host())
        .with("LISTEN_SUBMISSIONS", "127.0.0.1:0")
        .with("INCOMING_SMTP_AUTHLOGIN", "user")
        .with("INCOMING_SMTP_AUTHDOM", "client.test")
        .with("INCOMING_SMTP_AUTHPASSWORD", CANARY)
        .start();
    assert_eq!(daemon.verb(&["reload"]).code, Some(0), "{}", daemon.log());
    let mut client = Client::connect_inside(daemon.listener("submissions"));
    client.command("EHLO client.test").assert("250");
    client.command("AUTH LOGIN dXNlckBjbGllbnQudGVzdA==").assert("334");
    client.command(ENCODED[0]).assert("235");
}
