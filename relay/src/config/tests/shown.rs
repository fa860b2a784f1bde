//! What `ringpost config`, mistakes and the reference show, and what they never show.

use std::fs;

use super::super::reference;
use super::super::variables::VARIABLES;
use super::{given, started};

const CANARY: &str = "canary-4711";

#[test]
fn the_effective_configuration_is_toml_and_reads_back_the_same() {
    let first = started(&[
        ("ACCEPTED_NETWORKS", "203.0.113.0/24,2001:db8::/32"),
        ("USE_TLS", "on"),
        ("UPSTREAM_RATE", "14/s burst 50"),
        ("DELIVERY_PATIENCE", "2s"),
        ("BOUNCE_TO", "ops@example.com"),
        ("LISTEN_SMTP", "127.0.0.1:0 127.0.0.1:0"),
        ("LISTEN_ADMIN", "off"),
        ("ALLOWED_SENDERS", "@example.com,<>"),
        ("DNS_SERVERS", "192.0.2.53"),
        ("RELAY_HOST_NAME", "mx.example.org"),
    ])
    .loaded();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ringpost.toml");
    fs::write(&path, first.effective.toml()).unwrap();
    let mut again = given(&[]);
    again.sources.file = Some(path);
    let again = again.loaded();
    assert_eq!(again.config.ingress, first.config.ingress);
    assert_eq!(again.config.egress, first.config.egress);
    assert_eq!(again.config.spool, first.config.spool);
    assert_eq!(again.config.gate, first.config.gate);
    assert_eq!(again.config.control, first.config.control);
    assert_eq!(again.config.log, first.config.log);
    assert_eq!(again.config.tls.upstream_level, first.config.tls.upstream_level);
}

#[test]
fn each_line_says_where_its_value_came_from() {
    let given = started(&[("RECIPIENTS_MAX", "7"), ("USE_TLS", "yes")]).set("hops_max=9");
    let toml = given.loaded().effective.toml();
    for line in [
        "recipients_max = 7  # environment RECIPIENTS_MAX",
        "hops_max = 9  # --set HOPS_MAX",
        "use_tls = true  # environment USE_TLS",
        "tls_verify = \"encrypt\"  # default: raised by USE_TLS=yes",
        "message_size_max = \"25M\"  # default",
        "relay_host_name = \"relay.example.net\"  # default: the system's host name",
        "listen_smtp = [\"0.0.0.0:25\", \"[::]:25\"]  # default",
    ] {
        assert!(toml.lines().any(|found| found == line), "{line} in {toml}");
    }
    assert_eq!(toml.lines().filter(|line| line.contains(" = ")).count(), VARIABLES.len());
    assert!(toml.lines().filter(|line| line.contains(" = ")).all(|line| line.contains("  # ")));
}

/// Every variable that holds a secret, right and wrong, in everything that is printed.
#[test]
fn no_secret_is_ever_shown() {
    let pem = format!("-----BEGIN X-----\n{CANARY}\n-----END X-----");
    let users = format!("a:{CANARY}");
    let secrets = [
        ("OUTGOING_SMTP_LOGIN", "l"),
        ("OUTGOING_SMTP_PASSWORD", CANARY),
        ("INCOMING_SMTP_AUTHLOGIN", "u"),
        ("INCOMING_SMTP_AUTHDOM", "d.example"),
        ("INCOMING_SMTP_AUTHPASSWORD", CANARY),
        ("INCOMING_SMTP_USERS", &users),
        ("SSL_CERT_PEM", "/proc/self/status"),
        ("SSL_CERT_KEY", &pem),
        ("DKIM_DOMAIN", "d.example"),
        ("DKIM_SELECTOR", "s"),
        ("DKIM_KEY", &pem),
        ("OUTGOING_SMTP_AUTH", "required"),
    ];
    let loaded = started(&secrets).loaded();
    let toml = loaded.effective.toml();
    assert!(!toml.contains(CANARY), "{toml}");
    assert_eq!(toml.matches("\"***\"").count(), 5, "{toml}");
    assert!(!format!("{loaded:?}").contains(CANARY));
    for wrong in [
        [("INCOMING_SMTP_USERS", CANARY), ("TLS_VERIFY", "x")],
        [("SSL_CERT_KEY", CANARY), ("TLS_VERIFY", "x")],
        [("DKIM_KEY", CANARY), ("TLS_VERIFY", "x")],
        [("OUTGOING_SMTP_PASSWORD", CANARY), ("WORKERS", "x")],
    ] {
        let refused = started(&wrong).load().err().unwrap();
        assert!(!format!("{refused:?}").contains(CANARY), "{refused:?}");
    }
    let today = started(&secrets).today().load().err().unwrap();
    assert!(!format!("{today:?}").contains(CANARY), "{today:?}");
}

#[test]
fn what_was_written_is_shown_escaped_and_cut() {
    let long = format!("\u{1b}]0;x\u{7}{}", "y".repeat(500));
    let mistake = started(&[("TLS_VERIFY", &long)]).mistake();
    assert!(!mistake.contains(['\u{1b}', '\u{7}']), "{mistake:?}");
    assert!(mistake.len() < 400, "{mistake}");
    let toml = started(&[("OUTGOING_SMTP_LOGIN", "a\"b\\c\u{e4}")]).loaded().effective.toml();
    assert!(toml.contains(r#"outgoing_smtp_login = "a\"b\\cä""#), "{toml}");
}

#[test]
fn the_reference_names_every_variable_once() {
    let reference = reference();
    for variable in VARIABLES {
        let rows =
            reference.lines().filter(|line| line.starts_with(&format!("| `{}` |", variable.name))).count();
        assert_eq!(rows, 1, "{}", variable.name);
    }
    let rows = reference.lines().filter(|line| line.starts_with("| `"));
    assert!(
        rows.into_iter()
            .all(|row| row.replace("\\|", "").matches('|').count() == 4 || row.matches('|').count() == 3)
    );
}
