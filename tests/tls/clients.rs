//! Clients that people use, inside TLS and logged in: each sends one mail in its own way, and it arrives.

use std::path::Path;
use std::process::Command;

use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::need;
use ringpost_tests::process::{self, Process};
use ringpost_tests::skip;
use ringpost_tests::upstream::Upstream;

const FROM: &str = "a@client.test";
const TO: &str = "b@example.com";

/// A relay that takes mail of logged-in users only.
fn relay(upstream: &Upstream) -> Daemon {
    Builder::relaying_to(&upstream.host())
        .with("LISTEN_SUBMISSION", "127.0.0.1:0")
        .with("LISTEN_SUBMISSIONS", "127.0.0.1:0")
        .with("INCOMING_SMTP_AUTHLOGIN", "user")
        .with("INCOMING_SMTP_AUTHDOM", "client.test")
        .with("INCOMING_SMTP_AUTHPASSWORD", "secret")
        .start()
}

/// Runs a program against the relay and sees its mail arrive.
#[track_caller]
fn sends(listener: &str, input: &[u8], command: impl FnOnce(u16) -> Command) {
    let upstream = Upstream::plain();
    let daemon = relay(&upstream);
    let mut command = command(daemon.listener(listener).port());
    // No settings of whoever runs the tests.
    let finished = Process::with_input(command.env("HOME", "/nonexistent"), input).finish();
    assert_eq!(finished.code, Some(0), "{finished:#?}\n{}", daemon.log());
    let content = String::from_utf8(upstream.mail().content()).expect("text");
    assert!(content.contains("with ESMTPSA id"), "{content}");
}

fn program(path: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(path);
    command.args(words);
    command
}

#[test]
fn swaks_logs_in_by_each_mechanism_on_both_ports() {
    let swaks = need!("swaks");
    if process::run(Command::new(need!("perl")).args(["-MNet::SSLeay", "-e1"])).code != Some(0) {
        skip!("swaks has no TLS: libnet-ssleay-perl is not installed");
    }
    for (listener, tls) in [("submission", "--tls"), ("submissions", "--tls-on-connect")] {
        for mechanism in ["PLAIN", "LOGIN"] {
            sends(listener, b"", |port| {
                let server = format!("127.0.0.1:{port}");
                let mut command = program(&swaks, &["--server", &server, "--from", FROM, "--to", TO, tls]);
                command.args(["--auth", mechanism, "--auth-user", "user@client.test"]);
                command.args(["--auth-password", "secret", "--helo", "client.test", "--silent", "2"]);
                command
            });
        }
    }
}

#[test]
fn curl_logs_in_on_both_ports() {
    let curl = need!("curl");
    let sent = message::ordinary("one\r\n.two\r\n");
    for (listener, scheme) in [("submission", "smtp"), ("submissions", "smtps")] {
        sends(listener, &sent, |port| {
            let url = format!("{scheme}://127.0.0.1:{port}/client.test");
            let words = ["-sS", "--insecure", "--ssl-reqd", "--user", "user@client.test:secret", &url];
            let mut command = program(&curl, &words);
            command.args(["--mail-from", FROM, "--mail-rcpt", TO, "--upload-file", "-"]);
            command
        });
    }
}

#[test]
fn msmtp_logs_in() {
    let msmtp = need!("msmtp");
    let sent = message::ordinary("one\r\n");
    for (listener, starttls) in [("submission", "on"), ("submissions", "off")] {
        sends(listener, &sent, |port| {
            let mut command = program(&msmtp, &["--file=/dev/null", "--host=127.0.0.1", "--tls=on"]);
            command
                .arg(format!("--port={port}"))
                .arg(format!("--tls-starttls={starttls}"))
                .args(["--tls-certcheck=off", "--auth=on", "--user=user@client.test"])
                .args(["--passwordeval=echo secret", "--from", FROM, TO]);
            command
        });
    }
}

#[test]
fn s_nail_logs_in() {
    let nail = need!("s-nail");
    for (listener, scheme) in [("submission", "smtp"), ("submissions", "submissions")] {
        sends(listener, b"one\n.two\n", |port| {
            let mta = format!("-Smta={scheme}://user%40client.test:secret@127.0.0.1:{port}");
            let mut command = program(&nail, &["-:/", "-Sv15-compat", "-Sttycharset=utf-8", &mta]);
            command.args(["-Ssmtp-use-starttls", "-Ssmtp-auth=plain", "-Stls-verify=ignore"]);
            command.args(["-Ssendwait", "-s", "hello", "-r", FROM, TO]);
            command
        });
    }
}

#[test]
fn python_logs_in() {
    let python = need!("python3");
    let script = "import smtplib, ssl, sys\n\
         context = ssl.create_default_context()\n\
         context.check_hostname = False\n\
         context.verify_mode = ssl.CERT_NONE\n\
         port, inside = int(sys.argv[1]), sys.argv[2] == 'inside'\n\
         if inside:\n    client = smtplib.SMTP_SSL('127.0.0.1', port, context=context)\n\
         else:\n    client = smtplib.SMTP('127.0.0.1', port)\n    client.starttls(context=context)\n\
         client.login('user@client.test', 'secret')\n\
         client.sendmail('a@client.test', ['b@example.com'], 'Subject: x\\n\\n.x\\n')\n\
         client.quit()\n";
    for (listener, way) in [("submission", "starttls"), ("submissions", "inside")] {
        sends(listener, b"", |port| program(&python, &["-c", script, &port.to_string(), way]));
    }
}
