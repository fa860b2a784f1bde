//! Clients that people use: each sends one mail in its own way, and it arrives.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use lettre::message::{Mailbox, SinglePart};
use lettre::{Message, SmtpTransport, Transport};
use ringpost_tests::daemon::Daemon;
use ringpost_tests::message;
use ringpost_tests::need;
use ringpost_tests::process::Process;
use ringpost_tests::upstream::{Mail, Upstream};

const FROM: &str = "a@client.test";
const TO: &str = "b@example.com";

/// Lets a program send through a relay with this input, and returns the mail that arrived.
#[track_caller]
fn sent_by(input: &[u8], command: impl FnOnce(SocketAddr) -> Command) -> Mail {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let finished = Process::with_input(&mut command(daemon.smtp()), input).finish();
    assert_eq!(finished.code, Some(0), "{finished:#?}\n{}", daemon.log());
    let mail = upstream.mail();
    assert_eq!((mail.reverse_path(), mail.accepted()), ("<a@client.test>", vec!["<b@example.com>"]));
    mail
}

#[track_caller]
fn assert_says(mail: &Mail, text: &str) {
    let content = mail.content();
    let found = content.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(found, "{text:?} is not in\n{}", content.escape_ascii());
}

fn program(path: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(path);
    // No settings of whoever runs the tests.
    command.args(words).env("HOME", "/nonexistent");
    command
}

#[test]
fn swaks_sends() {
    let swaks = need!("swaks");
    for way in [&[][..], &["--pipeline"], &["--protocol", "SMTP"]] {
        let mail = sent_by(b"", |relay| {
            let mut command = program(&swaks, &["--server", &relay.to_string(), "--from", FROM, "--to", TO]);
            command
                .args(["--helo", "client.test", "--body", "one\\n.two\\n..three", "--silent", "2"])
                .args(way);
            command
        });
        assert_says(&mail, "\r\n.two\r\n..three\r\n");
    }
}

#[test]
fn curl_sends() {
    let curl = need!("curl");
    let sent = message::ordinary("one\r\n.two\r\n.\r\n..three\r\n");
    let mail = sent_by(&sent, |relay| {
        let url = format!("smtp://{relay}/client.test");
        program(&curl, &["-sS", &url, "--mail-from", FROM, "--mail-rcpt", TO, "--upload-file", "-"])
    });
    mail.assert_carries(&sent);
}

#[test]
fn s_nail_sends() {
    let s_nail = need!("s-nail");
    let mail = sent_by("Grüße\n.\n".as_bytes(), |relay| {
        let mta = format!("mta=smtp://{relay}");
        let set =
            ["v15-compat", &mta, "smtp-auth=none", "hostname=client.test", "nosave", "from=a@client.test"];
        let mut command = program(&s_nail, &["-n", "-#", "-S", "expandaddr"]);
        // Where no locale is set it takes its input for ASCII.
        command.env("LC_ALL", "C.UTF-8");
        for setting in set {
            command.args(["-S", setting]);
        }
        command.args(["-S", "sendcharsets=utf-8", "-s", "Subject", TO]);
        command
    });
    assert_says(&mail, "Subject: Subject\r\n");
}

#[test]
fn msmtp_sends() {
    let msmtp = need!("msmtp");
    let sent =
        String::from_utf8(message::ordinary("one\r\n.two\r\n.\r\n")).expect("text").replace("\r\n", "\n");
    let mail = sent_by(sent.as_bytes(), |relay| {
        let (host, port) = (format!("--host={}", relay.ip()), format!("--port={}", relay.port()));
        program(
            &msmtp,
            &["--file=/dev/null", &host, &port, "--from=a@client.test", "--auth=off", "--tls=off", TO],
        )
    });
    mail.assert_carries(sent.replace('\n', "\r\n").as_bytes());
}

#[test]
fn python_sends() {
    let python = need!("python3");
    let script = r#"
import smtplib, sys
from email.message import EmailMessage
mail = EmailMessage()
mail["From"], mail["To"], mail["Subject"] = "a@client.test", "b@example.com", "Gr\u00fc\u00dfe"
mail.set_content("one\n.two\n.\n\u00e4\n", cte="8bit")
with smtplib.SMTP("127.0.0.1", int(sys.argv[1]), local_hostname="client.test") as relay:
    assert relay.send_message(mail, mail_options=["BODY=8BITMIME"]) == {}
    assert relay.verify("b@example.com")[0] == 252
"#;
    let mail = sent_by(b"", |relay| program(&python, &["-c", script, &relay.port().to_string()]));
    assert_says(&mail, "\r\none\r\n.two\r\n.\r\nä\r\n");
    assert!(mail.from.contains("BODY=8BITMIME"), "{mail:?}");
}

#[test]
fn python_sends_utf8_addresses() {
    let python = need!("python3");
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let script = r#"
import smtplib, sys
with smtplib.SMTP("127.0.0.1", int(sys.argv[1])) as relay:
    relay.ehlo()
    options = ["SMTPUTF8", "BODY=8BITMIME"]
    relay.sendmail("k\u00e4the@client.test", ["j\u00fcrgen@example.com"], b"Subject: x\r\n\r\nx\r\n", options)
"#;
    let port = daemon.smtp().port().to_string();
    let finished = ringpost_tests::process::run(&mut program(&python, &["-c", script, &port]));
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert_eq!(upstream.mail().reverse_path(), "<käthe@client.test>");
}

#[test]
fn lettre_sends() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let address = |text: &str| text.parse::<Mailbox>().expect("an address");
    let mail = Message::builder().from(address(FROM)).to(address(TO)).subject("lettre");
    let mail = mail.singlepart(SinglePart::plain("one\r\n.two\r\n.\r\nä\r\n".to_owned())).expect("a message");
    let relay = SmtpTransport::builder_dangerous("127.0.0.1").port(daemon.smtp().port()).build();
    let response = relay.send(&mail).expect("the relay takes it");
    assert!(response.is_positive(), "{response:?}");
    // It ends the content with a line end of its own.
    upstream.mail().assert_carries(&[&mail.formatted()[..], b"\r\n"].concat());
}
