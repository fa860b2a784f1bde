//! Every level of `TLS_VERIFY` against every kind of upstream: delivered in clear, delivered in TLS, or deferred, as
//! Postfix does it at the level of the same name.

use std::path::Path;

use ringpost_tests::certificate::{Authority, Identity, Validity};
use ringpost_tests::daemon::{Builder, Daemon, field};
use ringpost_tests::message;
use ringpost_tests::skip;
use ringpost_tests::upstream::{Act, Script, Stage, Upstream, at_port_465};

/// What became of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Clear,
    Tls,
    Deferred,
}

use Fate::{Clear, Deferred, Tls};

/// The name under which every upstream here is configured and reached.
pub(crate) const HOST: &str = "localhost";

/// A relay to an upstream at this level, with an authority that `verify` and `secure` trust.
pub(crate) fn relay(
    upstream: &Upstream,
    level: &str,
    authority: Option<&Authority>,
    fingerprint: Option<&str>,
) -> Daemon {
    let mut builder = Builder::relaying_to(&format!("[{HOST}]:{}", upstream.address().port()))
        .with("TLS_VERIFY", level)
        .with("UPSTREAM_FINGERPRINTS", fingerprint.unwrap_or(&"00".repeat(32)));
    if let Some(authority) = authority {
        let path = authority.write(builder.dir());
        builder = builder.with("UPSTREAM_CA", &path.display().to_string());
    }
    builder.start()
}

/// Sends one mail and tells what became of it, by what the upstream saw.
#[track_caller]
pub(crate) fn fate(daemon: &Daemon, upstream: &Upstream) -> Fate {
    let sent = message::ordinary("x\r\n");
    let mut client = daemon.client();
    client.command("MAIL FROM:<a@client.test>").assert("250");
    let reply = client.command("RCPT TO:<b@example.com>");
    if reply.code / 100 == 4 {
        assert_eq!(upstream.complete(), 0);
        return Deferred;
    }
    reply.assert("250");
    client.data(&sent).assert("250");
    let mail = upstream.mail();
    mail.assert_carries(&sent);
    let logged = daemon.logged("relayed");
    let tls = field(&logged, "tls").unwrap_or("").to_owned();
    let secured =
        upstream.record().read(|record| record.connections[mail.connection].handshake == Some(Ok(())));
    assert_eq!(tls != "none", secured, "the log says {tls:?}");
    if secured { Tls } else { Clear }
}

const LEVELS: [&str; 7] = ["none", "may", "encrypt", "fingerprint", "verify", "secure", "dane"];

/// One row of the matrix: the same upstream at all levels, in the order of [`LEVELS`].
#[track_caller]
fn row(
    what: &str,
    script: impl Fn() -> Script,
    authority: Option<&Authority>,
    fingerprint: Option<&str>,
    expected: [Fate; 7],
) {
    for (level, expected) in LEVELS.iter().zip(expected) {
        let upstream = Upstream::start(script());
        let daemon = relay(&upstream, level, authority, fingerprint);
        assert_eq!(fate(&daemon, &upstream), expected, "{what} at {level}\n{}", daemon.log());
    }
}

#[test]
fn without_starttls_only_none_and_may_deliver() {
    let authority = Authority::root();
    let script = || Script::new();
    row(
        "no STARTTLS",
        script,
        Some(&authority),
        None,
        [Clear, Clear, Deferred, Deferred, Deferred, Deferred, Clear],
    );
}

#[test]
fn a_refused_starttls_only_none_and_may_deliver() {
    let authority = Authority::root();
    for refusal in ["454 4.7.0 Not now", "500 5.5.1 What?", "502 5.5.1 No"] {
        let script = || Script::new().offering("STARTTLS").on(Stage::StartTls, refusal);
        row(
            refusal,
            script,
            Some(&authority),
            None,
            [Clear, Clear, Deferred, Deferred, Deferred, Deferred, Clear],
        );
    }
}

#[test]
fn a_broken_handshake_falls_back_at_may_alone() {
    let authority = Authority::root();
    for acts in
        [vec![Act::Say("220 Go".to_owned()), Act::Close], vec![Act::Raw(b"220 Go\r\n".to_vec()), Act::Reset]]
    {
        let script = || Script::new().offering("STARTTLS").on(Stage::StartTls, acts.clone());
        row(
            "broken handshake",
            script,
            Some(&authority),
            None,
            [Clear, Clear, Deferred, Deferred, Deferred, Deferred, Clear],
        );
    }
}

#[test]
fn a_self_signed_certificate_is_enough_where_none_is_looked_at() {
    let (authority, identity) = (Authority::root(), Identity::self_signed(&[HOST]));
    let script = || Script::new().with_tls(identity.server());
    row("self-signed", script, Some(&authority), None, [Clear, Tls, Tls, Deferred, Deferred, Deferred, Tls]);
}

#[test]
fn a_private_authority_and_the_right_name_are_enough_for_all() {
    let authority = Authority::root();
    let identity = authority.host(&[HOST], Validity::Now);
    let script = || Script::new().with_tls(identity.server());
    let fingerprint = identity.fingerprint();
    row("right name", script, Some(&authority), Some(&fingerprint), [Clear, Tls, Tls, Tls, Tls, Tls, Tls]);
}

#[test]
fn a_wrong_name_or_date_or_authority_is_refused_where_it_is_looked_at() {
    let (authority, other) = (Authority::root(), Authority::root());
    for (what, identity) in [
        ("wrong name", authority.host(&["other.test"], Validity::Now)),
        ("expired", authority.host(&[HOST], Validity::Expired)),
        ("not yet valid", authority.host(&[HOST], Validity::Future)),
        ("unknown authority", other.host(&[HOST], Validity::Now)),
        ("missing intermediate", authority.intermediate().host(&[HOST], Validity::Now).without_chain()),
    ] {
        let script = || Script::new().with_tls(identity.server());
        let fingerprint = identity.fingerprint();
        // A fingerprint is all that counts where it is asked for.
        row(
            what,
            script,
            Some(&authority),
            Some(&fingerprint),
            [Clear, Tls, Tls, Tls, Deferred, Deferred, Tls],
        );
    }
}

#[test]
fn an_intermediate_is_followed_to_the_root() {
    let authority = Authority::root();
    let identity = authority.intermediate().host(&[HOST], Validity::Now);
    let script = || Script::new().with_tls(identity.server());
    let fingerprint = identity.fingerprint();
    row("intermediate", script, Some(&authority), Some(&fingerprint), [Clear, Tls, Tls, Tls, Tls, Tls, Tls]);
}

#[test]
fn a_fingerprint_may_be_that_of_the_public_key_and_is_refused_when_it_is_another() {
    let identity = Identity::self_signed(&["anything.test"]);
    let case = |fingerprint: &str| {
        let upstream = Upstream::start(Script::new().with_tls(identity.server()));
        fate(&relay(&upstream, "fingerprint", None, Some(fingerprint)), &upstream)
    };
    assert_eq!(case(&identity.key_fingerprint()), Tls);
    assert_eq!(case(&format!("{} {}", "11".repeat(32), identity.fingerprint())), Tls);
    assert_eq!(case(&"11".repeat(32)), Deferred);
}

#[test]
fn a_self_signed_upstream_is_trusted_where_its_certificate_is_the_authority() {
    for identity in [Identity::self_signed(&[HOST]), Identity::self_signed_authority(&[HOST])] {
        for level in ["verify", "secure"] {
            let upstream = Upstream::start(Script::new().with_tls(identity.server()));
            let builder = Builder::relaying_to(&format!("[{HOST}]:{}", upstream.address().port()));
            let path = builder.dir().join("ca.pem");
            std::fs::write(&path, identity.pem()).expect("a file can be written");
            let daemon =
                builder.with("TLS_VERIFY", level).with("UPSTREAM_CA", &path.display().to_string()).start();
            assert_eq!(fate(&daemon, &upstream), Tls, "{}", daemon.log());
        }
    }
}

#[test]
fn an_address_is_matched_by_a_certificate_for_the_address() {
    let authority = Authority::root();
    for (name, expected) in [("127.0.0.1", Tls), ("127.0.0.2", Deferred), (HOST, Deferred)] {
        for level in ["verify", "secure"] {
            let identity = authority.host(&[name], Validity::Now);
            let upstream = Upstream::start(Script::new().with_tls(identity.server()));
            let builder = Builder::relaying_to(&upstream.host()).with("TLS_VERIFY", level);
            let path = authority.write(builder.dir());
            let daemon = builder.with("UPSTREAM_CA", &path.display().to_string()).start();
            assert_eq!(fate(&daemon, &upstream), expected, "{name} at {level}\n{}", daemon.log());
        }
    }
}

#[test]
fn dane_only_does_without_mail_where_there_is_no_record() {
    let identity = Identity::self_signed(&[HOST]);
    let upstream = Upstream::start(Script::new().with_tls(identity.server()));
    let daemon = relay(&upstream, "dane-only", None, None);
    assert_eq!(fate(&daemon, &upstream), Deferred);
    assert_eq!(upstream.connections(), 0, "nothing is said to a host that cannot be trusted");
}

#[test]
fn use_tls_raises_may_and_none_to_encrypt() {
    for level in ["none", "may"] {
        let upstream = Upstream::plain();
        let builder = Builder::relaying_to(&upstream.host()).with("TLS_VERIFY", level).with("USE_TLS", "yes");
        assert_eq!(fate(&builder.start(), &upstream), Deferred);
    }
}

#[test]
fn port_465_means_tls_from_the_first_octet() {
    let Some(listener) = at_port_465() else { skip!("port 465 cannot be bound here") };
    let identity = Identity::self_signed(&[HOST]);
    let upstream = Upstream::start_at(listener, Script::new().inside_tls(identity.server()));
    for level in ["may", "encrypt"] {
        let daemon = Builder::relaying_to(&upstream.host()).with("TLS_VERIFY", level).start();
        daemon.client().deliver(&message::ordinary("x\r\n")).assert("250 2.");
    }
    assert!(upstream.mails(2).iter().all(|mail| {
        upstream.record().read(|record| record.connections[mail.connection].handshake == Some(Ok(())))
    }));
    let hangs_up = vec![Act::Say("220 upstream.test ESMTP".to_owned()), Act::Close];
    // Never in clear at that port, whatever the level.
    let plain = at_port_465()
        .map(|listener| Upstream::start_at(listener, Script::new().on(Stage::Connect, hangs_up.clone())));
    let Some(plain) = plain else { skip!("port 465 cannot be bound twice here") };
    let daemon = Builder::relaying_to(&plain.host()).with("TLS_VERIFY", "may").start();
    assert_eq!(fate(&daemon, &plain), Deferred);
}

#[test]
fn sessions_are_resumed_and_metrics_tell() {
    let identity = Identity::self_signed(&[HOST]);
    let upstream = Upstream::start(
        Script::new()
            .with_tls(identity.server())
            .on(Stage::Message, vec![Act::Say("250 2.0.0 Ok".to_owned()), Act::Close]),
    );
    let daemon = relay(&upstream, "encrypt", None, None);
    for _ in 0..2 {
        daemon.client().deliver(&message::ordinary("x\r\n")).assert("250 2.");
    }
    daemon.says(|line| field(line, "tls").is_some_and(|tls| tls.ends_with("resumed")));
    let sample = r#"ringpost_tls_handshakes_total{side="outbound",version="1.3",outcome="ok"}"#;
    assert_eq!(daemon.metric(sample), Some(2.0));
}

#[test]
fn a_stricter_level_does_not_reuse_what_a_laxer_one_has_made() {
    let authority = Authority::root();
    let identity = Identity::self_signed(&[HOST]);
    let upstream = Upstream::start(Script::new().with_tls(identity.server()));
    let builder = Builder::relaying_to(&format!("[{HOST}]:{}", upstream.address().port()));
    let path = authority.write(builder.dir());
    let config = builder.dir().join("ringpost.toml");
    let put = |path: &Path, level: &str| {
        std::fs::write(path, format!("tls_verify = \"{level}\"\n")).expect("a file can be written");
    };
    put(&config, "encrypt");
    let daemon = builder
        .without("TLS_VERIFY")
        .with("RINGPOST_CONFIG", &config.display().to_string())
        .with("UPSTREAM_CA", &path.display().to_string())
        .start();
    let mut client = daemon.client();
    client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
    put(&config, "secure");
    assert_eq!(daemon.verb(&["reload"]).code, Some(0));
    client.command("MAIL FROM:<a@client.test>").assert("250");
    client.command("RCPT TO:<b@example.com>").assert("451");
    assert_eq!(upstream.complete(), 1);
}
