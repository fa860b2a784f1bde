//! Our login at an upstream: how it is proved, and that it never travels in clear.

use ringpost_tests::certificate::Identity;
use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::upstream::{Script, Stage, Upstream};

/// `\0user\0secret`
const PLAIN: &str = "AUTH PLAIN AHVzZXIAc2VjcmV0";

fn builder(upstream: &Upstream) -> Builder {
    Builder::relaying_to(&upstream.host())
        .without("OUTGOING_SMTP_AUTH")
        .with("TLS_VERIFY", "may")
        .with("OUTGOING_SMTP_LOGIN", "user")
        .with("OUTGOING_SMTP_PASSWORD", "secret")
}

fn secure(mechanisms: &str) -> Script {
    Script::new()
        .with_tls(Identity::self_signed(&["localhost"]).server())
        .offering_inside(&format!("AUTH {mechanisms}"))
}

#[track_caller]
fn deferred(daemon: &Daemon) {
    let mut client = daemon.client();
    client.command("MAIL FROM:<a@client.test>").assert("250");
    let reply = client.command("RCPT TO:<b@example.com>");
    reply.assert("451 4.");
    assert!(!reply.text().contains("535"), "none of the client's business: {reply:?}");
}

#[test]
fn each_mechanism_is_spoken_as_its_rfc_says() {
    for (mechanism, wanted, expected) in [
        ("PLAIN LOGIN", "", PLAIN.to_owned()),
        ("PLAIN", "PLAIN", PLAIN.to_owned()),
        // `user=user^Aauth=Bearer secret^A^A`
        ("XOAUTH2 PLAIN", "XOAUTH2", "AUTH XOAUTH2 dXNlcj11c2VyAWF1dGg9QmVhcmVyIHNlY3JldAEB".to_owned()),
    ] {
        let upstream = Upstream::start(secure(mechanism));
        let daemon = builder(&upstream).with("OUTGOING_SMTP_MECHANISM", wanted).start();
        daemon.client().deliver(&message::ordinary("x\r\n")).assert("250 2.");
        assert_eq!(upstream.commands(0)[3], expected, "{mechanism} {wanted}");
    }
}

#[test]
fn cram_md5_answers_the_challenge() {
    let upstream = Upstream::start(
        secure("CRAM-MD5").once(Stage::Auth, "334 PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+"),
    );
    let daemon = builder(&upstream)
        .with("OUTGOING_SMTP_LOGIN", "tim")
        .with("OUTGOING_SMTP_PASSWORD", "tanstaaftanstaaf")
        .start();
    daemon.client().deliver(&message::ordinary("x\r\n")).assert("250 2.");
    // RFC 2195 §2.
    assert_eq!(
        upstream.commands(0)[3..5],
        ["AUTH CRAM-MD5", "dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw"]
    );
}

#[test]
fn an_upstream_that_asks_on_behind_a_digest_hears_no_password() {
    let script = secure("CRAM-MD5").once(Stage::Auth, "334 PDFAYT4=").once(Stage::AuthResponse, "334 ");
    let upstream = Upstream::start(script);
    deferred(&builder(&upstream).start());
    assert_eq!(upstream.commands(0)[5], "*");
}

#[test]
fn the_login_is_never_sent_in_clear() {
    // No TLS, TLS refused, TLS broken: with a login, `may` does not fall back.
    let scripts = [
        Script::new().offering("AUTH PLAIN LOGIN"),
        Script::new().offering("AUTH PLAIN").offering("STARTTLS").on(Stage::StartTls, "454 4.7.0 Not now"),
        Script::new().offering("AUTH PLAIN").offering("STARTTLS"),
    ];
    for script in scripts {
        let upstream = Upstream::start(script);
        deferred(&builder(&upstream).start());
        assert!(!upstream.record().read(|record| record.connections.iter().any(|one| one.login_in_clear)));
    }
}

#[test]
fn on_purpose_it_is_sent_in_clear() {
    let upstream = Upstream::start(Script::new().offering("AUTH PLAIN"));
    let daemon = builder(&upstream).with("OUTGOING_SMTP_AUTH", "plaintext").start();
    daemon.client().deliver(&message::ordinary("x\r\n")).assert("250 2.");
    assert_eq!(upstream.commands(0)[1], PLAIN);
}

#[test]
fn a_refused_login_defers_and_is_not_hammered() {
    let upstream = Upstream::start(secure("PLAIN").on(Stage::Auth, "535 5.7.8 Who are you?"));
    let daemon = builder(&upstream).start();
    for _ in 0..5 {
        deferred(&daemon);
    }
    let tried = upstream.connections();
    assert!(tried <= 2, "{tried} connections for five mails in a moment");
    daemon.logged("upstream_refuses_us");
}

#[test]
fn no_mechanism_in_common_defers() {
    for (offered, wanted) in [("GSSAPI", ""), ("PLAIN", "SCRAM-SHA-256")] {
        let upstream = Upstream::start(secure(offered));
        let daemon = builder(&upstream).with("OUTGOING_SMTP_MECHANISM", wanted).start();
        deferred(&daemon);
        daemon.logged("login_impossible");
    }
}
