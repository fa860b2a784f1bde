//! Logins of clients: who may submit, and what everybody else hears.

use ringpost_tests::client::Client;
use ringpost_tests::daemon::{Builder, Daemon, field};
use ringpost_tests::message;
use ringpost_tests::upstream::Upstream;

/// `\0user@client.test\0secret`
const RIGHT: &str = "AHVzZXJAY2xpZW50LnRlc3QAc2VjcmV0";
/// `\0user@client.test\0wrong`
const WRONG: &str = "AHVzZXJAY2xpZW50LnRlc3QAd3Jvbmc=";

fn relay(upstream: &Upstream) -> Daemon {
    Builder::relaying_to(&upstream.host())
        .with("ACCEPTED_NETWORKS", "192.0.2.0/24")
        .with("LISTEN_SUBMISSION", "127.0.0.1:0")
        .with("LISTEN_SUBMISSIONS", "127.0.0.1:0")
        .with("INCOMING_SMTP_AUTHLOGIN", "user")
        .with("INCOMING_SMTP_AUTHDOM", "client.test")
        .with("INCOMING_SMTP_AUTHPASSWORD", "secret")
        // `bcrypted` at the lowest cost.
        .with(
            "INCOMING_SMTP_USERS",
            "hashed:$2b$04$abcdefghijklmnopqrstuuNneZBb5TtVOrkkaHzzGITnj13I/1aAm\nother:plain",
        )
        .start()
}

fn inside(daemon: &Daemon) -> Client {
    let mut client = Client::connect_inside(daemon.listener("submissions"));
    client.command("EHLO client.test").assert("250 ");
    client
}

#[test]
fn before_tls_the_submission_port_hears_nothing_but_how_to_get_there() {
    let upstream = Upstream::plain();
    let daemon = relay(&upstream);
    let mut client = Client::greeted(daemon.listener("submission"));
    for refused in [&format!("AUTH PLAIN {RIGHT}")[..], "MAIL FROM:<a@client.test>", "VRFY a", "DATA", "HELP"]
    {
        client.command(refused).assert("530 5.7.0 Must issue a STARTTLS command first");
    }
    for allowed in ["NOOP", "RSET", "EHLO client.test"] {
        client.command(allowed).assert("250");
    }
    client.starttls();
    client.command("MAIL FROM:<a@client.test>").assert("530 5.7.0 Authentication required");
    client.command(&format!("AUTH PLAIN {RIGHT}")).assert("235 2.7.0");
    client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
    let added = upstream.mail();
    let content = String::from_utf8(added.content()).expect("text");
    assert!(content.contains("with ESMTPSA id"), "{content}");
    let logged = daemon.logged("relayed");
    assert_eq!(field(&logged, "user"), Some("user@client.test"));
    client.quit();
}

#[test]
fn both_mechanisms_work_with_and_without_an_initial_response() {
    let upstream = Upstream::plain();
    let daemon = relay(&upstream);
    let mut client = inside(&daemon);
    client.command("AUTH PLAIN").assert("334");
    client.command(RIGHT).assert("235 2.7.0");
    let mut client = inside(&daemon);
    client.command("auth login").assert("334 VXNlcm5hbWU6");
    client.command("dXNlckBjbGllbnQudGVzdA==").assert("334 UGFzc3dvcmQ6");
    client.command("c2VjcmV0").assert("235 2.7.0");
    let mut client = inside(&daemon);
    client.command("AUTH LOGIN dXNlckBjbGllbnQudGVzdA==").assert("334 UGFzc3dvcmQ6");
    client.command("c2VjcmV0").assert("235 2.7.0");
    client.command(&format!("AUTH PLAIN {RIGHT}")).assert("503 5.5.1");
    client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
}

#[test]
fn a_wrong_login_is_told_apart_from_nothing() {
    let upstream = Upstream::plain();
    let daemon = relay(&upstream);
    let mut client = inside(&daemon);
    let wrong = client.command(&format!("AUTH PLAIN {WRONG}"));
    wrong.assert("535 5.7.8");
    // `\0nobody\0secret`
    assert_eq!(client.command("AUTH PLAIN AG5vYm9keQBzZWNyZXQ="), wrong);
    for (said, heard) in [
        ("AUTH PLAIN !!!", "501"),
        ("AUTH PLAIN =", "501"),
        // One NUL, and three.
        ("AUTH PLAIN AHVzZXI=", "501"),
        ("AUTH PLAIN AABhAGI=", "501"),
        // Somebody else's authzid.
        ("AUTH PLAIN cm9vdAB1c2VyQGNsaWVudC50ZXN0AHNlY3JldA==", "535 5.7.8"),
        ("AUTH DIGEST-MD5", "504"),
        ("AUTH", "501"),
    ] {
        client.command(said).assert(heard);
    }
    client.command("AUTH LOGIN").assert("334");
    client.command("*").assert("501");
    client.command("MAIL FROM:<a@client.test>").assert("530 5.7.0");
    client.command(&format!("AUTH PLAIN {RIGHT}")).assert("235 2.7.0");
    let sample = r#"ringpost_auth_total{outcome="failed"}"#;
    assert!(daemon.metric(sample).is_some_and(|count| count >= 2.0));
    assert_eq!(daemon.metric(r#"ringpost_auth_total{outcome="ok"}"#), Some(1.0));
}

#[test]
fn guessing_without_end_is_ended() {
    let upstream = Upstream::plain();
    let daemon = relay(&upstream);
    let mut client = inside(&daemon);
    let mut guesses = 0;
    while client
        .send_gladly(format!("AUTH PLAIN {WRONG}\r\n").as_bytes())
        .try_reply()
        .is_some_and(|r| r.code == 535)
    {
        guesses += 1;
        assert!(guesses < 100, "no end of it");
    }
}

#[test]
fn further_users_may_be_hashed() {
    let upstream = Upstream::plain();
    let daemon = relay(&upstream);
    // `\0hashed\0bcrypted`, `\0other\0plain`
    for right in ["AGhhc2hlZABiY3J5cHRlZA==", "AG90aGVyAHBsYWlu"] {
        inside(&daemon).command(&format!("AUTH PLAIN {right}")).assert("235 2.7.0");
    }
}

#[test]
fn a_login_lasts_over_rset_and_ehlo() {
    let upstream = Upstream::plain();
    let daemon = relay(&upstream);
    let mut client = inside(&daemon);
    client.command(&format!("AUTH PLAIN {RIGHT}")).assert("235 2.7.0");
    client.command("RSET").assert("250");
    client.command("EHLO client.test").assert("250");
    client.command("MAIL FROM:<a@client.test>").assert("250");
    client.command("AUTH PLAIN").assert("503 5.5.1");
}

#[test]
fn without_a_login_both_ports_are_closed() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host())
        .with("LISTEN_SUBMISSION", "127.0.0.1:0")
        .with("LISTEN_SUBMISSIONS", "127.0.0.1:0")
        .start();
    assert!(daemon.listeners("submission").is_empty() && daemon.listeners("submissions").is_empty());
    assert!(daemon.log().contains("no incoming login is set"));
}

#[test]
fn a_user_may_use_the_senders_of_the_list_and_no_others() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host())
        .with("LISTEN_SUBMISSIONS", "127.0.0.1:0")
        .with("INCOMING_SMTP_USERS", "bound@x:secret\nfree@x:secret")
        .with("INCOMING_SMTP_SENDERS", "bound@x: one@client.test @own.test <>")
        .start();
    let logged_in = |user: &str| {
        let mut client = inside(&daemon);
        client.command("AUTH LOGIN").assert("334");
        client.command(user).assert("334");
        client.command("c2VjcmV0").assert("235");
        client
    };
    let mut bound = logged_in("Ym91bmRAeA==");
    for allowed in ["one@client.test", "any@own.test", ""] {
        bound.command(&format!("MAIL FROM:<{allowed}>")).assert("250");
        bound.command("RSET").assert("250");
    }
    for refused in ["two@client.test", "one@sub.own.test", "one@x"] {
        bound.command(&format!("MAIL FROM:<{refused}>")).assert("553 5.7.1");
    }
    logged_in("ZnJlZUB4").command("MAIL FROM:<two@client.test>").assert("250");
}
