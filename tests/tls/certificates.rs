//! The certificate that clients see: given as a file or as text, made up, renewed while sessions go on.

use std::fs;
use std::path::Path;

use ringpost_tests::certificate::{Authority, Identity, Validity};
use ringpost_tests::client::Client;
use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::upstream::Upstream;

/// The chain that the relay shows.
fn shown(daemon: &Daemon) -> Vec<Vec<u8>> {
    let mut client = Client::greeted(daemon.smtp());
    shown_to(client.starttls())
}

fn shown_to(client: &mut Client) -> Vec<Vec<u8>> {
    let chain = client.pipe().client().and_then(|connection| connection.peer_certificates());
    chain.expect("a chain").iter().map(|certificate| certificate.to_vec()).collect()
}

fn chain(identity: &Identity) -> Vec<Vec<u8>> {
    identity.chain.iter().map(|certificate| certificate.to_vec()).collect()
}

fn write(folder: &Path, identity: &Identity) {
    fs::write(folder.join("chain.pem"), identity.chain_pem()).expect("a file can be written");
    fs::write(folder.join("key.pem"), identity.key_pem()).expect("a file can be written");
}

fn with_files(builder: Builder) -> Builder {
    let path = |name: &str| builder.dir().join(name).display().to_string();
    let (chain, key) = (path("chain.pem"), path("key.pem"));
    builder.with("SSL_CERT_PEM", &chain).with("SSL_CERT_KEY", &key)
}

#[test]
fn a_made_up_certificate_is_the_same_after_a_restart() {
    let upstream = Upstream::plain();
    let folder = tempfile::tempdir().expect("a directory");
    let state = folder.path().join("state").display().to_string();
    let start = || Builder::relaying_to(&upstream.host()).with("STATE_DIR", &state).start();
    let first = shown(&start());
    assert_eq!(shown(&start()), first);
}

#[test]
fn the_whole_chain_is_shown_from_files_and_from_text() {
    let upstream = Upstream::plain();
    let identity = Authority::root().intermediate().host(&["relay.test"], Validity::Now);
    let builder = Builder::relaying_to(&upstream.host());
    write(builder.dir(), &identity);
    let daemon = with_files(builder).start();
    assert_eq!(shown(&daemon), chain(&identity));
    // 2090-01-01.
    assert_eq!(daemon.metric("ringpost_certificate_not_after_seconds"), Some(3_786_912_000.0));
    let text = Builder::relaying_to(&upstream.host())
        .with("SSL_CERT_PEM", &identity.chain_pem())
        .with("SSL_CERT_KEY", &identity.key_pem());
    assert_eq!(shown(&text.start()), chain(&identity));
    // As an environment file has it: line ends written as `\n`.
    let flat = Builder::relaying_to(&upstream.host())
        .with("SSL_CERT_PEM", &identity.chain_pem().replace('\n', "\\n"))
        .with("SSL_CERT_KEY", &identity.key_pem().replace('\n', "\\n"));
    assert_eq!(shown(&flat.start()), chain(&identity));
}

#[test]
fn a_reload_shows_the_new_certificate_and_drops_no_session() {
    let upstream = Upstream::plain();
    let (old, new) = (Identity::self_signed(&["old.test"]), Identity::self_signed(&["new.test"]));
    let builder = Builder::relaying_to(&upstream.host());
    write(builder.dir(), &old);
    let daemon = with_files(builder).start();
    let mut client = daemon.client();
    client.starttls();
    write(daemon.dir(), &new);
    assert_eq!(daemon.verb(&["reload"]).code, Some(0));
    assert_eq!(shown(&daemon), chain(&new));
    client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
    assert_eq!(shown_to(&mut client), chain(&old));
}

#[test]
fn changed_files_are_noticed_and_broken_ones_are_not_shown() {
    let upstream = Upstream::plain();
    let (old, new) = (Identity::self_signed(&["old.test"]), Identity::self_signed(&["newer.test"]));
    let builder = Builder::relaying_to(&upstream.host());
    write(builder.dir(), &old);
    let daemon = with_files(builder).start();
    fs::write(daemon.dir().join("key.pem"), "half a fi").expect("a file can be written");
    daemon.logged("certificate_refused");
    let refused = daemon.verb(&["reload"]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert_eq!(shown(&daemon), chain(&old));
    write(daemon.dir(), &new);
    daemon.logged("certificate_renewed");
    assert_eq!(shown(&daemon), chain(&new));
}

#[test]
fn a_certificate_and_a_key_that_do_not_belong_together_stop_the_start() {
    let (one, other) = (Identity::self_signed(&["a.test"]), Identity::self_signed(&["b.test"]));
    let builder = Builder::relaying_to("[127.0.0.1]:25")
        .with("SSL_CERT_PEM", &one.pem())
        .with("SSL_CERT_KEY", &other.key_pem());
    let finished = builder.verb(&["check"]);
    assert_eq!(finished.code, Some(78));
    let said = format!("{finished:?}");
    assert!(said.contains("SSL_CERT_KEY") && said.contains("does not belong"), "{said}");
    assert!(!said.contains("PRIVATE"), "no key in a message: {said}");
}
