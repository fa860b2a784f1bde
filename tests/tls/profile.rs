//! What a scanner finds at our ports: nothing below Mozilla's intermediate profile (TLS 1.2 and 1.3, forward secrecy,
//! AEAD ciphers), inside STARTTLS and where TLS is there from the first octet. OpenSSL asks, with its guards down; a run
//! of testssl.sh says the same at length.

use std::path::Path;
use std::process::Command;

use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::need;
use ringpost_tests::process::Process;
use ringpost_tests::upstream::Upstream;

/// What the profile does not have: protocols before 1.2, and ciphers without forward secrecy, AEAD or authentication.
const BELOW: [&[&str]; 8] = [
    &["-tls1", "-cipher", "ALL:@SECLEVEL=0"],
    &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
    &["-tls1_2", "-cipher", "kRSA:@SECLEVEL=0"],
    &["-tls1_2", "-cipher", "DHE:@SECLEVEL=0"],
    &["-tls1_2", "-cipher", "ALL:!AESGCM:!CHACHA20:!AESCCM:@SECLEVEL=0"],
    &["-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"],
    &["-tls1_2", "-cipher", "eNULL:@SECLEVEL=0"],
    &["-tls1_2", "-cipher", "PSK:@SECLEVEL=0"],
];

/// What it has.
const WITHIN: [&[&str]; 5] = [
    &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
    &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"],
    &["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
    &["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"],
    &["-tls1_3", "-groups", "X25519:P-256"],
];

/// Whether a handshake that offers only this comes to an end.
fn agrees(openssl: &Path, daemon: &Daemon, listener: &str, offer: &[&str]) -> bool {
    let mut command = Command::new(openssl);
    command.args(["s_client", "-connect", &daemon.listener(listener).to_string()]).args(offer);
    if listener == "smtp" {
        command.args(["-starttls", "smtp"]);
    }
    Process::with_input(&mut command, b"QUIT\r\n").finish().stdout.contains("Server certificate")
}

#[test]
fn openssl_agrees_on_the_intermediate_profile_and_on_nothing_below() {
    let openssl = need!("openssl");
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host())
        .with("LISTEN_SUBMISSIONS", "127.0.0.1:0")
        .with("INCOMING_SMTP_USERS", "a:b")
        .start();
    for listener in ["smtp", "submissions"] {
        for offer in BELOW {
            assert!(!agrees(&openssl, &daemon, listener, offer), "{listener}: {offer:?}");
        }
        for offer in WITHIN {
            assert!(agrees(&openssl, &daemon, listener, offer), "{listener}: {offer:?}\n{}", daemon.log());
        }
    }
}

#[test]
fn tls_1_2_can_be_switched_off() {
    let openssl = need!("openssl");
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).with("TLS_INCOMING_MIN", "1.3").start();
    assert!(!agrees(&openssl, &daemon, "smtp", &["-tls1_2"]));
    assert!(agrees(&openssl, &daemon, "smtp", &["-tls1_3"]));
}
