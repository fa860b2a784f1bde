//! Access tokens in the password's place: fetched, renewed before their end and after a refusal, read from a file.

use std::fs;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};

use ringpost_tests::certificate::{Authority, Identity, Validity};
use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::upstream::{Script, Stage, Upstream};
use ringpost_tests::web::{Web, answer};

const SECRETS: [&str; 3] = ["client-secret-canary", "refresh-canary", "access-canary"];

/// An endpoint whose tokens are numbered and good for so many seconds.
fn endpoint(authority: &Authority, seconds: u32) -> Web {
    let count = AtomicUsize::new(0);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    Web::start(listener, authority.host(&["localhost"], Validity::Now).server(), move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        let body = format!(
            r#"{{"access_token":"access-canary-{number}","expires_in":{seconds},"token_type":"Bearer"}}"#
        );
        answer("200 OK", "application/json; charset=utf-8", &body)
    })
}

fn script(mechanisms: &str) -> Script {
    Script::new()
        .with_tls(Identity::self_signed(&["localhost"]).server())
        .offering_inside(&format!("AUTH {mechanisms}"))
}

fn builder(upstream: &Upstream) -> Builder {
    Builder::relaying_to(&upstream.host())
        .without("OUTGOING_SMTP_AUTH")
        .with("TLS_VERIFY", "encrypt")
        .with("UPSTREAM_MESSAGES_PER_CONNECTION", "1")
        .with("OUTGOING_SMTP_LOGIN", "user")
}

fn refreshing(upstream: &Upstream, web: &Web, authority: &Authority) -> Builder {
    let builder = builder(upstream);
    let path = authority.write(builder.dir()).display().to_string();
    builder
        .with("UPSTREAM_CA", &path)
        .with("OUTGOING_OAUTH_ENDPOINT", &format!("https://localhost:{}/token", web.address().port()))
        .with("OUTGOING_OAUTH_CLIENT_ID", "id")
        .with("OUTGOING_OAUTH_CLIENT_SECRET", SECRETS[0])
        .with("OUTGOING_OAUTH_REFRESH_TOKEN", SECRETS[1])
        .with("OUTGOING_OAUTH_SCOPE", "mail send")
}

fn deliver(daemon: &Daemon) {
    daemon.client().deliver(&message::ordinary("x\r\n")).assert("250 2.");
}

fn deferred(daemon: &Daemon) {
    let mut client = daemon.client();
    client.command("MAIL FROM:<a@client.test>").assert("250");
    client.command("RCPT TO:<b@example.com>").assert("451");
}

/// `user=user^Aauth=Bearer access-canary-N^A^A`, in base64.
const XOAUTH2: [&str; 2] = [
    "AUTH XOAUTH2 dXNlcj11c2VyAWF1dGg9QmVhcmVyIGFjY2Vzcy1jYW5hcnktMAEB",
    "AUTH XOAUTH2 dXNlcj11c2VyAWF1dGg9QmVhcmVyIGFjY2Vzcy1jYW5hcnktMQEB",
];

#[test]
fn a_refresh_token_is_exchanged_and_the_token_serves_as_the_login() {
    let authority = Authority::root();
    let web = endpoint(&authority, 3600);
    let upstream = Upstream::start(script("XOAUTH2 PLAIN"));
    let daemon = refreshing(&upstream, &web, &authority).start();
    daemon.logged("token_renewed");
    deliver(&daemon);
    assert_eq!(upstream.commands(0)[3], XOAUTH2[0]);
    let asked = web.asked().read(Clone::clone);
    assert_eq!(asked.len(), 1, "{asked:#?}");
    assert_eq!(asked[0].line, "POST /token HTTP/1.1");
    assert_eq!(
        asked[0].body,
        format!(
            "grant_type=refresh_token&refresh_token={}&client_id=id&client_secret={}&scope=mail+send",
            SECRETS[1], SECRETS[0]
        )
    );
    let told = [daemon.log(), format!("{:?}", daemon.verb(&["config"]))].concat();
    assert!(SECRETS.iter().all(|secret| !told.contains(secret)), "{told}");
}

#[test]
fn oauthbearer_is_preferred_for_tokens_and_a_password_mechanism_never_used() {
    let authority = Authority::root();
    let web = endpoint(&authority, 3600);
    let upstream = Upstream::start(script("PLAIN XOAUTH2 OAUTHBEARER"));
    let daemon = refreshing(&upstream, &web, &authority).start();
    daemon.logged("token_renewed");
    deliver(&daemon);
    assert!(upstream.commands(0)[3].starts_with("AUTH OAUTHBEARER "), "{:?}", upstream.commands(0));
    let upstream = Upstream::start(script("PLAIN LOGIN"));
    let daemon = refreshing(&upstream, &web, &authority).start();
    daemon.logged("token_renewed");
    deferred(&daemon);
    assert!(upstream.commands(0).iter().all(|line| !line.starts_with("AUTH")), "{:?}", upstream.commands(0));
}

#[test]
fn a_token_is_renewed_before_its_end() {
    let authority = Authority::root();
    let web = endpoint(&authority, 2);
    let upstream = Upstream::start(script("XOAUTH2"));
    let daemon = refreshing(&upstream, &web, &authority).start();
    renewed(&daemon, 2);
    deliver(&daemon);
    assert_ne!(upstream.commands(0)[3], XOAUTH2[0]);
}

#[test]
fn a_refresh_token_that_was_replaced_is_not_used_again_after_a_reload() {
    let authority = Authority::root();
    let count = AtomicUsize::new(0);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let web = Web::start(listener, authority.host(&["localhost"], Validity::Now).server(), move |_| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        let body =
            format!(r#"{{"access_token":"a{number}","expires_in":3600,"refresh_token":"next-{number}"}}"#);
        answer("200 OK", "application/json", &body)
    });
    let upstream = Upstream::start(script("XOAUTH2"));
    let daemon = refreshing(&upstream, &web, &authority).start();
    daemon.logged("token_renewed");
    assert_eq!(daemon.verb(&["reload"]).code, Some(0));
    let bodies = web.asked().find("another token is asked for", |asked| {
        let bodies: Vec<String> = asked.iter().map(|asked| asked.body.clone()).collect();
        (bodies.len() >= 2).then_some(bodies)
    });
    assert!(bodies[0].contains(&format!("refresh_token={}&", SECRETS[1])), "{bodies:?}");
    assert!(bodies[1].contains("refresh_token=next-0&"), "{bodies:?}");
}

#[test]
fn a_refused_token_is_renewed_at_once_and_the_account_left_alone() {
    let authority = Authority::root();
    let web = endpoint(&authority, 3600);
    let upstream = Upstream::start(script("XOAUTH2").on(Stage::Auth, "535 5.7.8 Expired"));
    let daemon = refreshing(&upstream, &web, &authority).start();
    daemon.logged("token_renewed");
    deferred(&daemon);
    deferred(&daemon);
    renewed(&daemon, 2);
    assert_eq!(upstream.connections(), 1, "one refusal is enough");
}

#[test]
fn an_endpoint_that_nobody_vouches_for_hears_no_secret() {
    let authority = Authority::root();
    let web = endpoint(&Authority::root(), 3600);
    let upstream = Upstream::start(script("XOAUTH2"));
    let daemon = refreshing(&upstream, &web, &authority).start();
    let line = daemon.logged("token_not_renewed");
    assert!(line.contains("certificate"), "{line}");
    deferred(&daemon);
    assert_eq!(web.asked().read(Vec::len), 0);
}

/// Waits until so many tokens have come.
fn renewed(daemon: &Daemon, count: usize) {
    let mut seen = std::collections::BTreeSet::new();
    daemon.says(|line| {
        if line.contains("event=token_renewed") {
            seen.insert(line.to_owned());
        }
        seen.len() >= count
    });
}

#[test]
fn a_token_in_a_file_is_read_again_when_it_changes() {
    let upstream = Upstream::start(script("XOAUTH2"));
    let builder = builder(&upstream);
    let path = builder.dir().join("token");
    fs::write(&path, "access-canary-0\n").expect("a file can be written");
    let daemon = builder.with("OUTGOING_OAUTH_TOKEN_PATH", &path.display().to_string()).start();
    daemon.logged("token_renewed");
    deliver(&daemon);
    assert_eq!(upstream.commands(0)[3], XOAUTH2[0]);
    fs::write(&path, "access-canary-1\n").expect("a file can be written");
    renewed(&daemon, 2);
    deliver(&daemon);
    assert_eq!(upstream.commands(1)[3], XOAUTH2[1]);
}
