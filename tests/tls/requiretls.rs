//! REQUIRETLS (RFC 8689): a message that asks for it goes by a verified certificate to an upstream that offers it too,
//! or comes back.

use ringpost_tests::certificate::{Authority, Identity, Validity};
use ringpost_tests::client::{Client, Reply};
use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::upstream::{Script, Upstream};

const HOST: &str = "localhost";

fn relay(upstream: &Upstream, level: &str, authority: &Authority) -> Daemon {
    let builder =
        Builder::relaying_to(&format!("[{HOST}]:{}", upstream.address().port())).with("TLS_VERIFY", level);
    let path = authority.write(builder.dir()).display().to_string();
    builder.with("UPSTREAM_CA", &path).start()
}

fn inside(daemon: &Daemon) -> Client {
    let mut client = daemon.client();
    client.starttls();
    client
}

/// Sends a message with REQUIRETLS; the reply to its recipient, or to its content.
fn send(daemon: &Daemon) -> Reply {
    let mut client = inside(daemon);
    client.command("MAIL FROM:<a@client.test> REQUIRETLS").assert("250");
    let reply = client.command("RCPT TO:<b@example.com>");
    if reply.code != 250 {
        return reply;
    }
    client.data(&message::ordinary("x\r\n"))
}

#[test]
fn it_is_offered_inside_tls_and_where_it_can_be_kept() {
    let authority = Authority::root();
    let upstream = Upstream::plain();
    let daemon = relay(&upstream, "may", &authority);
    let mut plain = daemon.client();
    assert!(!plain.command("EHLO client.test").text().contains("REQUIRETLS"));
    plain.command("MAIL FROM:<a@client.test> REQUIRETLS").assert("555");
    assert!(inside(&daemon).command("EHLO client.test").text().contains("REQUIRETLS"));
    let daemon = relay(&upstream, "none", &authority);
    assert!(!inside(&daemon).command("EHLO client.test").text().contains("REQUIRETLS"));
}

#[test]
fn it_is_carried_on_to_a_verified_upstream_that_offers_it() {
    let authority = Authority::root();
    let identity = authority.host(&[HOST], Validity::Now);
    for level in ["may", "encrypt", "verify", "secure"] {
        let script = Script::new().with_tls(identity.server()).offering_inside("REQUIRETLS");
        let upstream = Upstream::start(script);
        let daemon = relay(&upstream, level, &authority);
        send(&daemon).assert("250");
        let mail = upstream.commands(0).into_iter().find(|line| line.starts_with("MAIL")).expect("a MAIL");
        assert!(mail.contains(" REQUIRETLS"), "{mail}");
    }
}

#[test]
fn what_cannot_be_carried_on_comes_back() {
    let authority = Authority::root();
    let trusted = authority.host(&[HOST], Validity::Now);
    let stranger = Identity::self_signed(&[HOST]);
    for (what, script) in [
        ("not offered", Script::new().with_tls(trusted.server())),
        ("not trusted", Script::new().with_tls(stranger.server()).offering_inside("REQUIRETLS")),
        ("no TLS", Script::new()),
        ("offered outside TLS", Script::new().offering("REQUIRETLS")),
    ] {
        let upstream = Upstream::start(script);
        let daemon = relay(&upstream, "may", &authority);
        for _ in 0..2 {
            let reply = send(&daemon);
            assert!(
                reply.code == 550 && reply.text().contains("5.7.30"),
                "{what}: {reply:?}\n{}",
                daemon.log()
            );
        }
        assert_eq!(upstream.complete(), 0, "{what}");
        // Mail that does not ask for it is not hindered.
        daemon.client().deliver(&message::ordinary("x\r\n")).assert("250 2.");
    }
}

#[test]
fn a_connection_for_other_mail_does_not_serve() {
    let authority = Authority::root();
    let identity = authority.host(&[HOST], Validity::Now);
    let upstream = Upstream::start(Script::new().with_tls(identity.server()).offering_inside("REQUIRETLS"));
    let daemon = relay(&upstream, "may", &authority);
    daemon.client().deliver(&message::ordinary("x\r\n")).assert("250 2.");
    send(&daemon).assert("250");
    send(&daemon).assert("250");
    assert_eq!(upstream.connections(), 2, "one unverified, one verified and used again");
}
