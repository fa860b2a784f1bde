//! Text injected around STARTTLS, by a client and by an upstream: nothing that came before TLS counts after it.

use ringpost_tests::certificate::Identity;
use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::upstream::{Act, Script, Stage, Upstream};

#[test]
fn commands_sent_with_starttls_are_not_carried_out_inside_tls() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    for injected in [
        &b"STARTTLS\r\nMAIL FROM:<evil@client.test>\r\n"[..],
        b"STARTTLS\r\nNOOP\r\n",
        b"STARTTLS\r\nRSET\r\nQUIT\r\n",
    ] {
        let mut client = daemon.client();
        client.send(injected).reply().assert("220 ");
        client.shake_hands();
        client.command("EHLO client.test").assert("250 ");
        // A transaction that had been begun would make this 503.
        client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
        client.quit();
    }
    assert_eq!(upstream.mails(3).iter().filter(|mail| mail.from.contains("evil")).count(), 0);
}

#[test]
fn what_was_agreed_in_clear_is_void_inside_tls() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    client.command("MAIL FROM:<a@client.test>").assert("250");
    client.command("STARTTLS").assert("503 5.5.1");
    client.command("RSET").assert("250");
    client.command("STARTTLS").assert("220 ");
    client.shake_hands();
    // The EHLO before TLS does not count.
    client.command("MAIL FROM:<a@client.test>").assert("503 5.5.1");
}

#[test]
fn an_upstream_that_sends_text_behind_its_220_is_not_believed() {
    let identity = Identity::self_signed(&["localhost"]);
    for level in ["may", "encrypt"] {
        let script = Script::new()
            .with_tls(identity.server())
            .offering_inside("AUTH PLAIN")
            .on(Stage::StartTls, Act::Raw(b"220 Go\r\n250-evil\r\n250 AUTH PLAIN\r\n".to_vec()));
        let upstream = Upstream::start(script);
        let daemon = Builder::relaying_to(&upstream.host())
            .with("TLS_VERIFY", level)
            .without("OUTGOING_SMTP_AUTH")
            .with("OUTGOING_SMTP_LOGIN", "user")
            .with("OUTGOING_SMTP_PASSWORD", "canary")
            .start();
        let mut client = daemon.client();
        client.command("MAIL FROM:<a@client.test>").assert("250");
        client.command("RCPT TO:<b@example.com>").assert("451 4.");
        assert_eq!(upstream.complete(), 0);
        let heard = upstream.commands(0);
        assert!(!heard.iter().any(|line| line.starts_with("AUTH")), "{heard:?}");
    }
}

#[test]
fn an_offer_of_auth_in_clear_does_not_count_inside_tls() {
    let identity = Identity::self_signed(&["localhost"]);
    // AUTH is offered in clear; inside TLS the same list is heard again, and only that one is used.
    let script = Script::new()
        .with_tls(identity.server())
        .offering_inside("AUTH LOGIN")
        .on(Stage::Auth, "334 VXNlcm5hbWU6");
    let script = script.once(Stage::AuthResponse, "334 UGFzc3dvcmQ6");
    let upstream = Upstream::start(script);
    let daemon = Builder::relaying_to(&upstream.host())
        .with("TLS_VERIFY", "encrypt")
        .without("OUTGOING_SMTP_AUTH")
        .with("OUTGOING_SMTP_LOGIN", "user")
        .with("OUTGOING_SMTP_PASSWORD", "secret")
        .start();
    daemon.client().deliver(&message::ordinary("x\r\n")).assert("250 2.");
    assert_eq!(
        upstream.commands(0)[..6],
        ["EHLO relay.test", "STARTTLS", "EHLO relay.test", "AUTH LOGIN", "dXNlcg==", "c2VjcmV0"]
    );
}
