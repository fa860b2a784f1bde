//! A real Postfix as upstream: plain, picky, and inside TLS with a login.

use ringpost_tests::certificate::{Authority, Validity};
use ringpost_tests::daemon::{Builder, field};
use ringpost_tests::message;
use ringpost_tests::postfix::Postfix;
use ringpost_tests::skip;

#[test]
fn postfix_takes_and_delivers() {
    let postfix = match Postfix::start("") {
        Ok(postfix) => postfix,
        Err(reason) => skip!("{reason}"),
    };
    let daemon = Builder::relaying_to(&postfix.host()).start();
    let mut client = daemon.client();
    let sent = message::ordinary("one\r\n.two\r\n.\r\n\r\n..three\r\nGrüße\r\n");
    client.deliver(&sent).assert("250 2.");
    postfix.logs("status=sent");
    let mails = postfix.mailbox();
    assert_eq!(mails.len(), 1);
    assert!(mails[0].ends_with(&sent), "{}", mails[0].escape_ascii());
}

#[test]
fn postfix_takes_chunks() {
    let postfix = match Postfix::start("") {
        Ok(postfix) => postfix,
        Err(reason) => skip!("{reason}"),
    };
    let daemon = Builder::relaying_to(&postfix.host()).start();
    let mut client = daemon.client();
    let sent = message::of_size(300 << 10);
    client.envelope("a@client.test", &["b@example.com"]);
    let (first, second) = sent.split_at(100_001);
    client.send(format!("BDAT {}\r\n", first.len()).as_bytes()).send(first).reply().assert("250 2.");
    client.send(format!("BDAT {} LAST\r\n", second.len()).as_bytes()).send(second).reply().assert("250 2.");
    postfix.logs("status=sent");
    assert!(postfix.mailbox()[0].ends_with(&sent));
}

#[test]
fn postfix_refuses_and_the_client_hears_it() {
    let postfix = match Postfix::start("message_size_limit = 5000") {
        Ok(postfix) => postfix,
        Err(reason) => skip!("{reason}"),
    };
    let daemon = Builder::relaying_to(&postfix.host()).start();
    let mut client = daemon.client();
    client.command("MAIL FROM:<a@client.test>").assert("250 2.1.0");
    client.command("RCPT TO:<nobody@example.com>").assert("550 5.1.1");
    client.command("RCPT TO:<b@example.com>").assert("250 2.1.5");
    client.data(&message::of_size(8000)).assert("552 5.3.4");
    client.deliver(&message::ordinary("small\r\n")).assert("250 2.");
    postfix.logs("status=sent");
    assert_eq!(postfix.mailbox().len(), 1);
}

#[test]
fn postfix_that_is_picky_about_its_clients_is_satisfied() {
    let strict = "strict_rfc821_envelopes = yes\nsmtpd_helo_required = yes\nsmtpd_data_restrictions = \
                  reject_unauth_pipelining\nsmtpd_discard_ehlo_keywords = pipelining, chunking\nsmtpd_delay_reject = no";
    let postfix = match Postfix::start(strict) {
        Ok(postfix) => postfix,
        Err(reason) => skip!("{reason}"),
    };
    let daemon = Builder::relaying_to(&postfix.host()).start();
    let mut client = daemon.client();
    for _ in 0..5 {
        client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
    }
    daemon.stop();
    let log = postfix.log();
    for complaint in
        ["improper command pipelining", "lost connection after DATA", "lost connection after MAIL"]
    {
        assert!(!log.contains(complaint), "{log}");
    }
}

#[test]
fn postfix_inside_tls_is_verified_and_takes_large_and_small() {
    let authority = Authority::root();
    let identity = authority.host(&["localhost"], Validity::Now);
    let both = format!("{}{}", identity.key_pem(), identity.chain_pem());
    for version in ["TLSv1.2", "TLSv1.3"] {
        let settings = format!(
            "smtpd_tls_security_level = encrypt\nsmtpd_tls_chain_files = DIR/both.pem\n\
             smtpd_tls_mandatory_protocols = {version}\nsmtpd_tls_protocols = {version}"
        );
        let postfix = match Postfix::with_files(&settings, &[("both.pem", &both)]) {
            Ok(postfix) => postfix,
            Err(reason) => skip!("{reason}"),
        };
        let builder = Builder::relaying_to(&format!("[localhost]:{}", postfix.address().port()));
        let path = authority.write(builder.dir()).display().to_string();
        let daemon = builder.with("TLS_VERIFY", "secure").with("UPSTREAM_CA", &path).start();
        let sent = [message::ordinary("one\r\n.two\r\n"), message::of_size(300 << 10)];
        let mut client = daemon.client();
        for sent in &sent {
            client.deliver(sent).assert("250 2.");
        }
        let line = daemon.logged("relayed");
        let tls = field(&line, "tls").unwrap_or_default();
        assert!(tls.starts_with(version) && tls.ends_with("verified"), "{line}");
        let mut count = 0;
        postfix.settles("both mails", |log| {
            count = log.lines().filter(|line| line.contains("status=sent")).count();
            count == 2
        });
        let mails = postfix.mailbox();
        assert!(sent.iter().all(|sent| mails.iter().any(|mail| mail.ends_with(sent))));
    }
}
