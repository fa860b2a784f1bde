//! A real OpenSMTPD inside TLS: as upstream, whose certificate is verified or not, and as a client's relay.

use ringpost_tests::certificate::{Authority, Validity};
use ringpost_tests::client::Client;
use ringpost_tests::daemon::{Builder, field};
use ringpost_tests::message;
use ringpost_tests::opensmtpd::OpenSmtpd;
use ringpost_tests::skip;
use ringpost_tests::upstream::Upstream;

#[test]
fn opensmtpd_takes_mail_after_starttls_and_inside_tls() {
    let authority = Authority::root();
    let upstream = match OpenSmtpd::upstream(&authority) {
        Ok(upstream) => upstream,
        Err(reason) => skip!("{reason}"),
    };
    let mut count = 0;
    for at in [upstream.plain(), upstream.inside()] {
        for (level, verdict) in [("may", "unverified"), ("encrypt", "unverified"), ("verify", "verified")] {
            let builder = Builder::relaying_to(&format!("[{}]:{}", at.ip(), at.port()));
            let path = authority.write(builder.dir()).display().to_string();
            let daemon = builder.with("TLS_VERIFY", level).with("UPSTREAM_CA", &path).start();
            let sent = [message::ordinary("one\r\n.two\r\n"), message::of_size(300 << 10)];
            let mut client = daemon.client();
            for sent in &sent {
                client.deliver(sent).assert("250 2.");
            }
            let tls = field(&daemon.logged("relayed"), "tls").unwrap_or_default().to_owned();
            assert!(tls.starts_with("TLSv1.3") && tls.contains(verdict), "{level} at {at}: {tls}");
            count += sent.len();
            upstream.settles("its mails", |log| log.matches("result=Ok").count() >= count);
            let mails = upstream.mailbox();
            assert!(sent.iter().all(|sent| mails.iter().any(|mail| mail.ends_with(sent))));
        }
    }
    assert_eq!(upstream.mailbox().len(), count, "{}", upstream.log());
}

#[test]
fn opensmtpd_shows_a_certificate_that_is_not_trusted_and_gets_no_mail() {
    let upstream = match OpenSmtpd::upstream(&Authority::root()) {
        Ok(upstream) => upstream,
        Err(reason) => skip!("{reason}"),
    };
    for at in [upstream.plain(), upstream.inside()] {
        let builder = Builder::relaying_to(&format!("[{}]:{}", at.ip(), at.port()));
        let path = Authority::root().write(builder.dir()).display().to_string();
        let daemon = builder.with("TLS_VERIFY", "verify").with("UPSTREAM_CA", &path).start();
        let mut client = daemon.client();
        client.command("MAIL FROM:<a@client.test>").assert("250 2.1.0");
        client.command("RCPT TO:<b@example.com>").assert("451 4.");
    }
    assert!(!upstream.log().contains("smtp message"), "{}", upstream.log());
}

#[test]
fn opensmtpd_relays_through_ours_with_a_verified_certificate() {
    let (authority, upstream) = (Authority::root(), Upstream::plain());
    let identity = authority.host(&["localhost"], Validity::Now);
    let daemon = Builder::relaying_to(&upstream.host())
        .with("SSL_CERT_PEM", &identity.chain_pem())
        .with("SSL_CERT_KEY", &identity.key_pem())
        .with("LISTEN_SUBMISSIONS", "127.0.0.1:0")
        .with("CLIENT_NETWORKS", "127.0.0.0/8")
        .start();
    let root = std::fs::read_to_string(authority.write(daemon.dir())).expect("an authority");
    let relay = |url: &str| OpenSmtpd::relaying_to(url, &root);
    let client = match relay(&format!("smtp+tls://localhost:{}", daemon.smtp().port())) {
        Ok(client) => client,
        Err(reason) => skip!("{reason}"),
    };
    let sent = message::ordinary("one\r\n.two\r\n..three\r\n");
    let mut session = Client::greeted(client.plain());
    for command in ["MAIL FROM:<a@client.test>", "RCPT TO:<b@example.com>"] {
        session.command(command).assert("250 2.");
    }
    session.data(&sent).assert("250 2.");
    upstream.mail().assert_carries(&sent);
    let tls = field(&daemon.logged("relayed"), "client_tls").unwrap_or_default().to_owned();
    assert!(tls.starts_with("TLSv1.3"), "{tls}");
    client.settles("its checks", |log| log.contains("cert-check result=\"valid\""));
}
