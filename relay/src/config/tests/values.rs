//! For every variable what is taken and what is not. A variable without a row here fails a test.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::variables::VARIABLES;
use super::started;

/// Values of one variable that are taken, and values that are not.
struct Row {
    name: &'static str,
    good: &'static [&'static str],
    bad: &'static [&'static str],
    /// What must be written besides.
    with: &'static [(&'static str, &'static str)],
}

const fn row(name: &'static str, good: &'static [&'static str], bad: &'static [&'static str]) -> Row {
    Row { name, good, bad, with: &[] }
}

const fn row_with(
    name: &'static str,
    with: &'static [(&'static str, &'static str)],
    good: &'static [&'static str],
    bad: &'static [&'static str],
) -> Row {
    Row { name, good, bad, with }
}

const LOGIN: &[(&str, &str)] = &[
    ("INCOMING_SMTP_AUTHLOGIN", "user"),
    ("INCOMING_SMTP_AUTHDOM", "b.example"),
    ("INCOMING_SMTP_AUTHPASSWORD", "pw"),
];
const OUT: &[(&str, &str)] =
    &[("OUTGOING_SMTP_LOGIN", "user"), ("OUTGOING_SMTP_PASSWORD", "pw"), ("OUTGOING_SMTP_AUTH", "required")];
const OAUTH: &[(&str, &str)] = &[
    ("OUTGOING_SMTP_LOGIN", "user"),
    ("OUTGOING_SMTP_AUTH", "required"),
    ("OUTGOING_OAUTH_ENDPOINT", "https://a.example/"),
    ("OUTGOING_OAUTH_CLIENT_ID", "id"),
    ("OUTGOING_OAUTH_REFRESH_TOKEN", "token"),
];
const PEM: &str = "-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----";
const SSL: &[(&str, &str)] = &[("SSL_CERT_PEM", PEM), ("SSL_CERT_KEY", PEM)];
const USERS: &[(&str, &str)] = &[("INCOMING_SMTP_USERS", "a:b")];
const DKIM: &[(&str, &str)] = &[("DKIM_DOMAIN", "example.com"), ("DKIM_SELECTOR", "s1"), ("DKIM_KEY", PEM)];
const FINGERPRINT: &str =
    "AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22:33:44:55:66:77:88:99";
const BOOLEANS: &[&str] = &["yes", "no", "on", "off", "true", "false", "1", "0", "YES", "No", " yes "];
const NOT_BOOLEANS: &[&str] = &["2", "y", "n", "ja", "enabled", "yes no"];
const DURATIONS: &[&str] = &["500ms", "30s", "5m", "2h", "5d", "1ms", "3650d"];
const NOT_DURATIONS: &[&str] = &[
    "5",
    "0",
    "0s",
    "-1s",
    "1.5h",
    "5 m",
    "m",
    "5x",
    "5M",
    "1h30m",
    "99999999999999999999s",
    "3651d",
    "five minutes",
    "inf",
];
const RATES: &[&str] = &["100/s", "14/s burst 50", "5/m", "1/h", "1/d", "200/10s burst 1", "off", "none"];
const NOT_RATES: &[&str] = &[
    "100",
    "0/s",
    "100/",
    "/s",
    "100/s burst",
    "100/s burst 0",
    "14/s 50",
    "1/s burst 2 x",
    "-1/s",
    "1/0s",
    "1/x",
    "many",
];
const NETWORKS: &[&str] = &[
    "10.0.0.0/8",
    "10.0.0.1",
    "10.0.0.1/32",
    "2001:db8::/32",
    "2001:db8::1",
    "[2001:db8::]/32",
    "::ffff:10.0.0.0/104",
    "0.0.0.0/0 ::/0",
    "10.0.0.0/8,192.168.0.0/16",
    "10.0.0.0/8 , 192.168.0.0/16\n172.16.0.0/12",
    "none",
];
const NOT_NETWORKS: &[&str] = &[
    "10.0.0.0/33",
    "10.0.0/8",
    "10.0.0.1/8",
    "2001:db8::/129",
    "2001:db8::1/32",
    "localhost",
    "10.0.0.0/-1",
    "10.0.0.0/",
    "/8",
    "10.0.0.0/255.0.0.0",
    "!10.0.0.1",
    "hash:/etc/networks",
    "10.0.0.0/8;10.0.0.1",
    "[10.0.0.1]",
    "010.0.0.1",
    "10.0.0.0/+8",
];
const LISTENS: &[&str] = &[
    "127.0.0.1:2525",
    "[::1]:2525",
    "127.0.0.1:0",
    "0.0.0.0:2526 [::]:2526",
    "127.0.0.1:0,127.0.0.1:0",
    "off",
    "",
];
const NOT_LISTENS: &[&str] = &[
    "2525",
    "127.0.0.1",
    "localhost:25",
    "*:25",
    ":25",
    "127.0.0.1:65536",
    "::1:25x",
    "127.0.0.1:x",
    "127.0.0.1:2525 127.0.0.1:2525",
    "on",
];
const HOSTS: &[&str] = &[
    "relay.example.com",
    "relay",
    "relay.example.com.",
    "a-b.example",
    "xn--bcher-kva.example",
    "my_host",
    "6ba2d5764050",
];
const NOT_HOSTS: &[&str] = &[
    "-relay.example",
    "relay..example",
    "re lay",
    "relay.example:25",
    "a/b",
    "192.0.2.1",
    "bücher.example",
    ".",
    "a@b",
];
const PATTERNS: &[&str] =
    &["a@b.example", "@b.example", "a@b.example @c.example, <>", "a.b+c@bücher.example"];
const NOT_PATTERNS: &[&str] =
    &["b.example", "a@", "@", "a@b@c.example", "a@b..c", "\"a b\"@c.example", "*@b.example@x"];

const ROWS: &[Row] = &[
    row("RELAY_HOST_NAME", HOSTS, NOT_HOSTS),
    row("ACCEPTED_NETWORKS", NETWORKS, NOT_NETWORKS),
    row(
        "EXT_RELAY_HOST",
        &[
            "smtp.example.com",
            "smtp.example.com:587",
            "[smtp.example.com]",
            "[smtp.example.com]:587",
            "192.0.2.1",
            "192.0.2.1:2525",
            "[192.0.2.1]:2525",
            "[2001:db8::1]:25",
            "2001:db8::1",
            "[IPv6:2001:db8::1]",
            "a:587,b:587",
            "a, b",
            "mx",
            "[localhost]:465",
        ],
        &[
            "smtp example..com",
            "smtp.example.com:0",
            "smtp.example.com:65536",
            "smtp.example.com:",
            "[smtp.example.com",
            "[smtp.example.com]587",
            "smtp://example.com",
            "user@example.com",
            "mx,a",
            "none",
            "a:25:26",
            "[]",
            "300.1.2.3",
        ],
    ),
    row(
        "EXT_RELAY_PORT",
        &["25", "587", "465", "65535"],
        &["0", "65536", "-25", "smtp", "+25", "25,26", "tcp://10.0.0.1:25"],
    ),
    row_with("INCOMING_SMTP_AUTHLOGIN", LOGIN, &["someone"], &["some\u{7}one"]),
    row_with("INCOMING_SMTP_AUTHDOM", LOGIN, &["example.com"], &["exa mple", "@example.com"]),
    row_with("INCOMING_SMTP_AUTHPASSWORD", LOGIN, &["secret", " blanks count ", "off"], &[]),
    row(
        "INCOMING_SMTP_USERS",
        &[
            "a:b",
            "a@x:b:c\nb@x:$2b$05$abcdefghijklmnopqrstuuxsbsaBxjcdKF1gjwf5R/Y4ftAE9sRq2",
            "a:b\r\n\r\nc:d",
        ],
        &["a", "a:", ":b", "a:b\nc", "a:b\na:c", "a:$2y$05$abc", "a:$argon2id$v=19"],
    ),
    row_with(
        "INCOMING_SMTP_SENDERS",
        USERS,
        &["a: x@b.example", "a:", "a: @b.example <>\n\n", "a:x@b.example,@c.example"],
        &["a", ": x@b.example", "b: x@b.example", "a: x", "a: @b.example\na: @c.example"],
    ),
    row_with("OUTGOING_SMTP_LOGIN", OUT, &["AKIA+/=", "none"], &["a\nb"]),
    row_with("OUTGOING_SMTP_PASSWORD", OUT, &["secret", "#,; \"'"], &[]),
    row_with("OUTGOING_SMTP_AUTH", OUT, &["required", "off", "plaintext", "OFF"], &["no", "yes", "plain"]),
    row("USE_TLS", BOOLEANS, NOT_BOOLEANS),
    row_with(
        "TLS_VERIFY",
        &[("UPSTREAM_FINGERPRINTS", FINGERPRINT)],
        &["none", "may", "encrypt", "dane", "dane-only", "fingerprint", "verify", "secure", "SECURE"],
        &["yes", "full", "dane only", "verify,secure", "danec"],
    ),
    row_with("SSL_CERT_PEM", SSL, &[PEM, "/proc/self/status"], &["/nonexistent/cert.pem", "cert.pem", "/"]),
    row_with("SSL_CERT_KEY", SSL, &[PEM, "/proc/self/status"], &["/nonexistent/key.pem", "AAAA"]),
    row("MAIL_FROM_FQDN", HOSTS, NOT_HOSTS),
    row("LISTEN_SMTP", LISTENS, NOT_LISTENS),
    row_with("LISTEN_SUBMISSION", USERS, LISTENS, NOT_LISTENS),
    row_with("LISTEN_SUBMISSIONS", USERS, LISTENS, NOT_LISTENS),
    row("SUBMISSION_NETWORKS", NETWORKS, NOT_NETWORKS),
    row("LISTEN_ADMIN", LISTENS, NOT_LISTENS),
    row(
        "CONTROL_SOCKET",
        &["/run/r.sock"],
        &[
            "r.sock",
            "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ],
    ),
    row("STATE_DIR", &["/tmp/x"], &["x", "./x", "~/x"]),
    row("WORKERS", &["1", "64", "1024"], &["0", "1025", "all", "-1", "1.5"]),
    row("PROXY_PROTOCOL", NETWORKS, NOT_NETWORKS),
    row("TLS_INCOMING_MIN", &["1.2", "1.3"], &["1.0", "1.1", "TLSv1.2", "1"]),
    row("DELIVERY_PATIENCE", &["50ms", "0", "0s", "forever", "9m"], &["50", "never", "10m", "5d", "-1s"]),
    row("QUEUE_RETRY", &["1m 5m", "30s", "1m,2m, 1h"], &["1m 5", "0s", "off", "1m;5m"]),
    row("QUEUE_LIFETIME", DURATIONS, NOT_DURATIONS),
    row("DELAY_WARNING", &["4h", "off", "none"], &["4", "yes", "0"]),
    row(
        "BOUNCE_TO",
        &["sender", "off", "postmaster@example.com"],
        &["postmaster", "@example.com", "a@b c@d"],
    ),
    row(
        "QUEUE_BYTES_MAX",
        &["80%", "1%", "100%", "10G", "1000000"],
        &["0%", "101%", "80 %", "%", "0", "-1G", "80percent"],
    ),
    row("UPSTREAM_CONNECTIONS", &["1", "65535"], &["0", "65536", "many"]),
    row("UPSTREAM_IDLE", &["0", "30s"], &["30", "-1s"]),
    row("UPSTREAM_MESSAGES_PER_CONNECTION", &["1", "4294967295"], &["0", "4294967296"]),
    row("UPSTREAM_RATE", RATES, NOT_RATES),
    row("UPSTREAM_FINGERPRINTS", &[FINGERPRINT], &["AA:BB", "xyz", "sha256:00"]),
    row("UPSTREAM_CA", &["/proc/self/status"], &["/nonexistent/ca.pem", "ca.pem"]),
    row(
        "OUTGOING_SMTP_MECHANISM",
        &["PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "XOAUTH2", "OAUTHBEARER", "plain"],
        &["DIGEST-MD5", "NTLM", "PLAIN LOGIN"],
    ),
    row("DNS_TRUST_ANCHORS", &["/proc/self/status"], &["/nonexistent/keys", "keys"]),
    row_with(
        "OUTGOING_OAUTH_ENDPOINT",
        OAUTH,
        &["https://oauth2.googleapis.com/token", "https://[2001:db8::1]:8443/t?x=1"],
        &["http://a.example/", "a.example/token", "https://"],
    ),
    row_with("OUTGOING_OAUTH_CLIENT_ID", OAUTH, &["id.apps.example"], &["a\u{7}b"]),
    row_with("OUTGOING_OAUTH_CLIENT_SECRET", OAUTH, &["secret"], &[]),
    row_with("OUTGOING_OAUTH_REFRESH_TOKEN", OAUTH, &["1//x"], &[]),
    row_with("OUTGOING_OAUTH_SCOPE", OAUTH, &["https://mail.google.com/ offline"], &["a\u{7}b"]),
    row_with(
        "OUTGOING_OAUTH_TOKEN_PATH",
        &[("OUTGOING_SMTP_LOGIN", "user"), ("OUTGOING_SMTP_AUTH", "required")],
        &["/run/token"],
        &["token"],
    ),
    row("MTA_STS", BOOLEANS, NOT_BOOLEANS),
    row(
        "DNS_SERVERS",
        &["192.0.2.53", "192.0.2.53:5353 [2001:db8::53]:53", "2001:db8::53", "/etc/resolv.conf"],
        &["ns.example.com", "192.0.2.53:0", "192.0.2", "/etc/hosts"],
    ),
    row("ROUTES", &[""], &["a=b"]),
    row(
        "MESSAGE_SIZE_MAX",
        &["25M", "512K", "1G", "10240000", "1t"],
        &["0", "25MB", "2.5M", "M", "-1", "99999999999T", "unlimited"],
    ),
    row("RECIPIENTS_MAX", &["1", "1000"], &["0", "-1", "1k", "4294967296"]),
    row("SESSIONS_MAX", &["1"], &["0", "x"]),
    row("SESSIONS_PER_CLIENT_MAX", &["1"], &["0", "x"]),
    row("CLIENT_RATE", RATES, NOT_RATES),
    row("COMMAND_TIMEOUT", DURATIONS, NOT_DURATIONS),
    row("DATA_TIMEOUT", DURATIONS, NOT_DURATIONS),
    row("SESSION_MIN_RATE", &["0", "100"], &["-1", "100/s"]),
    row("HOPS_MAX", &["1", "50", "1000"], &["0", "1001"]),
    row("BARE_NEWLINE", &["normalize", "reject"], &["yes", "normalise", "pass"]),
    row("ALLOWED_SENDERS", PATTERNS, NOT_PATTERNS),
    row("DENIED_SENDERS", PATTERNS, NOT_PATTERNS),
    row("ALLOWED_RECIPIENTS", PATTERNS, NOT_PATTERNS),
    row("DENIED_RECIPIENTS", PATTERNS, NOT_PATTERNS),
    row("EIGHTBIT", &["bounce", "pass"], &["yes", "reject"]),
    row("ALWAYS_BCC", &["a@b.example", "a@b.example,c@d.example"], &["@b.example", "a"]),
    row_with("DKIM_DOMAIN", DKIM, &["example.com"], &["exa mple"]),
    row_with("DKIM_SELECTOR", DKIM, &["2024-01", "s.mail"], &["a b"]),
    row_with("DKIM_KEY", DKIM, &[PEM, "/proc/self/status"], &["/nonexistent/key.pem"]),
    row("XDP", &["auto", "require", "off"], &["yes", "on", "native", "none"]),
    row("XDP_INTERFACES", &["eth0", "eth0,eth1 wlp2s0"], &["eth0/1", "an-interface-name-too-long", "eth0:1"]),
    row("XDP_MODE", &["auto", "native", "generic", "offload"], &["skb", "drv"]),
    row("XDP_ACTION", &["drop", "reset", "count"], &["pass", "reject"]),
    row("XDP_SYN_RATE", RATES, NOT_RATES),
    row(
        "AUTOBAN",
        &["10 in 1m for 1h", "off", "none"],
        &["10", "10 in 1m", "0 in 1m for 1h", "10 in 1 for 1h", "on", "10 in 1m for 0s"],
    ),
    row(
        "LOG_TARGET",
        &["stdout", "syslog", "journald", "/var/log/ringpost.log"],
        &["stderr", "ringpost.log", "file"],
    ),
    row("LOG_FORMAT", &["text", "json", "JSON"], &["plain", "xml"]),
    row(
        "LOG_LEVEL",
        &["error", "warn", "warning", "info", "debug", "trace", "INFO"],
        &["verbose", "3", "notice"],
    ),
];

fn written<'a>(row: &'a Row, value: &'a str) -> Vec<(&'a str, &'a str)> {
    let besides = row.with.iter().copied().filter(|(name, _)| *name != row.name);
    besides.chain([(row.name, value)]).collect()
}

#[test]
fn takes_what_is_promised() {
    for row in ROWS {
        for value in row.good {
            if let Err(refused) = started(&written(row, value)).load() {
                panic!("{}={value:?}: {:#?}", row.name, refused.mistakes);
            }
        }
    }
}

#[test]
fn refuses_all_else_and_names_variable_value_origin_and_what_is_expected() {
    for row in ROWS {
        let variable = super::super::variables::named(row.name).unwrap();
        for value in row.bad {
            let Err(refused) = started(&written(row, value)).load() else {
                panic!("{}={value:?} is taken", row.name);
            };
            let about: Vec<String> = refused
                .mistakes
                .iter()
                .filter(|mistake| mistake.variable == row.name)
                .map(ToString::to_string)
                .collect();
            assert!(!about.is_empty(), "{}={value:?}: {:#?}", row.name, refused.mistakes);
            for mistake in about {
                assert!(mistake.contains(&format!("(environment {})", row.name)), "{mistake}");
                assert!(
                    mistake.contains("expected ") || mistake.contains("twice") || mistake.contains("taken"),
                    "{mistake}"
                );
                assert_eq!(mistake.contains("=\"***\""), variable.kind.is_secret(), "{mistake}");
            }
        }
    }
}

#[test]
fn every_variable_has_its_row() {
    let rows: BTreeSet<&str> = ROWS.iter().map(|row| row.name).collect();
    let variables: BTreeSet<&str> = VARIABLES.iter().map(|variable| variable.name).collect();
    assert_eq!(rows, variables);
}

/// What a variable's default says in the table is what the relay runs with, and the check takes it.
#[test]
fn every_default_may_be_written() {
    for variable in VARIABLES.iter().filter(|variable| !variable.default.is_empty()) {
        let given = started(&[(variable.name, variable.default)]);
        if variable.name == "OUTGOING_SMTP_AUTH" {
            assert!(given.mistakes().iter().all(|mistake| mistake.starts_with("OUTGOING_SMTP_")));
            continue;
        }
        given.loaded();
    }
}

#[test]
fn every_variable_is_looked_at() {
    let effective = started(&[]).loaded().effective;
    for variable in VARIABLES {
        assert!(effective.text(variable).is_some(), "{} is never read", variable.name);
    }
}

proptest! {
    #[test]
    fn no_value_whatever_panics_or_reaches_the_terminal_raw(
        at in 0..VARIABLES.len(),
        value in prop_oneof!["\\PC{0,60}", any::<String>(), "[0-9a-z:./@, \\[\\]%-]{0,60}"],
        build in prop_oneof![Just(super::BARE), Just(super::Features::ALL)],
    ) {
        let value = value.replace('\0', "");
        let given = started(&[(VARIABLES[at].name, &value)]).without(build);
        let printed = match given.load() {
            Ok(loaded) => {
                let toml = loaded.effective.toml();
                prop_assert!(toml.parse::<toml::Table>().is_ok(), "{}", toml);
                loaded.warnings.iter().map(|warning| format!("{warning}")).collect::<Vec<_>>()
            }
            Err(refused) => refused.mistakes.iter().map(|mistake| format!("{mistake}")).collect(),
        };
        prop_assert!(printed.iter().all(|line| !line.chars().any(char::is_control)), "{:?}", printed);
    }

    #[test]
    fn no_file_whatever_panics(text in prop_oneof![any::<String>(), "([a-z_]{1,9} = [\"\\[\\]0-9a-z{}, ]{0,9}\n?){0,5}"]) {
        let path = std::path::Path::new("x.toml");
        let (_, mistakes) = super::super::file::entries(path, &text);
        prop_assert!(mistakes.iter().all(|mistake| !mistake.to_string().chars().any(char::is_control)));
    }
}
