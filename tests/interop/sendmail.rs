//! `sendmail` as programs call it: the message arrives, and the exit code says so.

use std::path::Path;
use std::process::Command;

use ringpost_tests::daemon::Daemon;
use ringpost_tests::need;
use ringpost_tests::process::{Finished, Process, run};
use ringpost_tests::upstream::{Act, Mail, Script, Stage, Upstream, refusing};

fn sendmail(daemon: &Daemon, words: &[&str], input: &str) -> Finished {
    let mut command = daemon.environment_of(&daemon.called("sendmail"));
    Process::with_input(command.args(words), input.as_bytes()).finish()
}

#[track_caller]
fn assert_says(mail: &Mail, text: &str) {
    let content = mail.content();
    let found = content.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(found, "{text:?} is not in\n{}", content.escape_ascii());
}

fn program(daemon: &Daemon, path: &Path) -> Command {
    let mut command = daemon.environment_of(path);
    // No settings of whoever runs the tests.
    command.env("HOME", "/nonexistent");
    command
}

#[test]
fn cron_sends() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let words = ["-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t", "-f", "root"];
    let input = "From: root (Cron Daemon)\nTo: admin@example.com\nSubject: Cron <root@h> job\nContent-Type: text/plain; charset=UTF-8\n\n.\nout\n";
    let sent = sendmail(&daemon, &words, input);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    let mail = upstream.mail();
    assert_eq!((mail.reverse_path(), mail.accepted()), ("<root@relay.test>", vec!["<admin@example.com>"]));
    assert_says(&mail, "\r\n\r\n.\r\nout\r\n");
}

#[test]
fn php_style_calls_send_to_all_and_keep_blind_copies_blind() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let input = "To: One <a@example.com>,\r\n \"B, C\" <b@example.com>\r\nBcc: c@example.com\r\nSubject: x\r\n\r\nbody\r\n";
    let sent = sendmail(&daemon, &["-t", "-i", "-fwww@client.test"], input);
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    let mail = upstream.mail();
    assert_eq!(mail.reverse_path(), "<www@client.test>");
    assert_eq!(mail.accepted(), ["<a@example.com>", "<b@example.com>", "<c@example.com>"]);
    let content = String::from_utf8(mail.content()).expect("text");
    assert!(!content.contains("Bcc") && !content.contains("c@example.com"), "{content}");
    assert!(content.contains("From: ") && content.contains("<www@client.test>"), "{content}");
}

#[test]
fn s_nail_sends_through_sendmail() {
    let s_nail = need!("s-nail");
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mta = format!("mta={}", daemon.called("sendmail").display());
    let mut command = program(&daemon, &s_nail);
    command.args(["-n", "-#", "-S", "v15-compat", "-S", &mta, "-S", "nosave", "-S", "from=a@client.test"]);
    command.args(["-r", "a@client.test", "-s", "Subject", "b@example.com"]);
    let sent = Process::with_input(&mut command, b"one\n.\ntwo\n").finish();
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    let mail = upstream.mail();
    assert_eq!((mail.reverse_path(), mail.accepted()), ("<a@client.test>", vec!["<b@example.com>"]));
    assert_says(&mail, "Subject: Subject\r\n");
}

#[test]
fn bsd_mailx_sends_through_sendmail() {
    let mailx = need!("bsd-mailx");
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let settings = daemon.dir().join("mailrc");
    let text = format!("set sendmail={}\n", daemon.called("sendmail").display());
    std::fs::write(&settings, text).expect("a file");
    let mut command = program(&daemon, &mailx);
    command.env("MAILRC", &settings).args(["-n", "-s", "Subject", "-r", "a@client.test", "b@example.com"]);
    let sent = Process::with_input(&mut command, b"text\n").finish();
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    let mail = upstream.mail();
    assert_eq!((mail.reverse_path(), mail.accepted()), ("<a@client.test>", vec!["<b@example.com>"]));
}

#[test]
fn exit_codes_are_those_of_sysexits() {
    let acts = |reply: &str| Act::Say(reply.to_owned());
    let script = Script::new().on_words(Stage::Rcpt, "nobody", acts("550 5.1.1 no such user")).on_words(
        Stage::Rcpt,
        "later",
        acts("450 4.2.0 later"),
    );
    let upstream = Upstream::start(script);
    let daemon = Daemon::relaying_to(&upstream);
    let mail = "Subject: x\n\ny\n";
    for (words, input, code) in [
        (&["b@example.com"][..], mail, 0),
        (&[], mail, 64),
        (&["-Z", "b@example.com"], mail, 64),
        (&["-t"], mail, 65),
        (&["-t"], "To: \"open\n\ny\n", 65),
        (&["b@example.com", "nobody@example.com"], mail, 67),
        (&["later@example.com"], mail, 75),
        (&["-bi"], "", 0),
    ] {
        let sent = sendmail(&daemon, words, input);
        assert_eq!(sent.code, Some(code), "{words:?}: {sent:#?}");
    }
    assert_eq!(upstream.mails(1).len(), 1, "all recipients or none");
    let aliases = run(&mut daemon.environment_of(&daemon.called("newaliases")));
    assert_eq!(aliases.code, Some(0));
}

#[test]
fn a_relay_that_is_not_there_is_75_for_mail_and_69_for_the_queue() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let nobody = refusing().to_string();
    let mut command = daemon.environment_of(&daemon.called("sendmail"));
    command.env("LISTEN_SMTP", nobody).env("CONTROL_SOCKET", "/nonexistent/control.sock");
    let sent = Process::with_input(command.arg("b@example.com"), b"x\n").finish();
    assert_eq!(sent.code, Some(75), "{sent:#?}");
    for words in [["-bp"], ["-q"]] {
        let mut command = daemon.environment_of(&daemon.called("sendmail"));
        command.env("CONTROL_SOCKET", "/nonexistent/control.sock");
        assert_eq!(run(command.args(words)).code, Some(69), "{words:?}");
    }
}

#[test]
fn smtp_is_spoken_on_standard_input() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let dialog = "EHLO client.test\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@example.com>\r\nDATA\r\nSubject: x\r\n\r\ny\r\n.\r\nQUIT\r\n";
    let said = sendmail(&daemon, &["-bs"], dialog);
    assert_eq!(said.code, Some(0), "{said:#?}");
    assert!(said.stdout.starts_with("220 ") && said.stdout.contains("\n221 "), "{said:#?}");
    assert_eq!(upstream.mail().accepted(), ["<b@example.com>"]);
}

#[test]
fn notices_are_asked_for_as_rfc_3461_says() {
    let upstream = Upstream::start(Script::new().offering("DSN"));
    let daemon = Daemon::relaying_to(&upstream);
    let words = ["-N", "success,failure", "-R", "hdrs", "-V", "id+1", "b@example.com"];
    let sent = sendmail(&daemon, &words, "Subject: x\n\ny\n");
    assert_eq!(sent.code, Some(0), "{sent:#?}");
    let commands = upstream.commands(0).join("\n");
    assert!(commands.contains("RET=HDRS") && commands.contains("ENVID=id+2B1"), "{commands}");
    assert!(commands.contains("NOTIFY=SUCCESS,FAILURE"), "{commands}");
}
