//! Passwords are found nowhere but where they must be: not in the log, the metrics, the status, a command line.

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

#[test]
fn no_password_is_found_in_log_metrics_status_or_command_line() {
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
    let line = std::fs::read(format!("/proc/{}/cmdline", daemon.id())).expect("a command line");
    assert_clean("command line", &String::from_utf8_lossy(&line));
    assert_clean("log", &daemon.log());
}
