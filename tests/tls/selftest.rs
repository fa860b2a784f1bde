//! `ringpost selftest`: what it shows of an upstream, and what its exit code says.

use ringpost_tests::certificate::{Authority, Identity, Validity};
use ringpost_tests::daemon::Builder;
use ringpost_tests::upstream::{Script, Stage, Upstream};

#[test]
fn shows_tls_certificates_and_login_and_sends_a_message() {
    let authority = Authority::root();
    let identity = authority.intermediate().host(&["localhost"], Validity::Now);
    let script = Script::new().with_tls(identity.server()).offering_inside("AUTH PLAIN LOGIN");
    let upstream = Upstream::start(script);
    let builder = Builder::relaying_to(&format!("[localhost]:{}", upstream.address().port()))
        .with("TLS_VERIFY", "secure")
        .without("OUTGOING_SMTP_AUTH")
        .with("OUTGOING_SMTP_LOGIN", "user")
        .with("OUTGOING_SMTP_PASSWORD", "canary");
    let path = authority.write(builder.dir());
    let builder = builder.with("UPSTREAM_CA", &path.display().to_string());
    let finished = builder.verb(&["selftest", "--to", "b@example.com"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    for expected in [
        "level secure",
        "TLS: TLSv1.3 TLS_",
        " verified",
        "certificate 0: for localhost, ",
        "certificate 1: ",
        &identity.fingerprint(),
        &identity.key_fingerprint(),
        "PIPELINING",
        "AUTH: offers PLAIN LOGIN; logged in as user",
        "sent to b@example.com: 250",
    ] {
        assert!(finished.stdout.contains(expected), "{expected:?} is not in\n{}", finished.stdout);
    }
    assert!(!format!("{finished:?}").contains("canary"));
    let mail = upstream.mail();
    assert_eq!(mail.accepted(), ["<b@example.com>"]);
    assert!(String::from_utf8(mail.content()).expect("text").contains("Subject: ringpost selftest\r\n"));
}

#[test]
fn a_refused_certificate_is_shown_and_nothing_is_sent() {
    let identity = Identity::self_signed(&["other.test"]);
    let upstream = Upstream::start(Script::new().with_tls(identity.server()));
    let builder = Builder::relaying_to(&upstream.host())
        .with("TLS_VERIFY", "fingerprint")
        .with("UPSTREAM_FINGERPRINTS", &"00".repeat(32));
    let finished = builder.verb(&["selftest", "--to", "b@example.com"]);
    assert_eq!(finished.code, Some(69), "{finished:#?}");
    assert!(finished.stdout.contains("cannot be used: no TLS"), "{}", finished.stdout);
    assert!(finished.stdout.contains(&identity.fingerprint()), "{}", finished.stdout);
    assert!(upstream.commands(1).iter().all(|line| !line.starts_with("MAIL")));
}

#[test]
fn what_cannot_be_used_exits_69() {
    let refusals = [
        Script::new().on(Stage::Connect, "554 5.7.1 Not you"),
        Script::new().on(Stage::Rcpt, "550 5.1.1 Nobody"),
    ];
    for script in refusals {
        let upstream = Upstream::start(script);
        let builder = Builder::relaying_to(&upstream.host());
        assert_eq!(builder.verb(&["selftest", "--to", "b@example.com"]).code, Some(69));
    }
    let upstream = Upstream::plain();
    let finished = Builder::relaying_to(&upstream.host()).verb(&["selftest"]);
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    assert!(finished.stdout.contains("TLS: none"), "{}", finished.stdout);
    assert_eq!(upstream.complete(), 0);
}
