//! The sentences of the interface, one test each.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use secrecy::ExposeSecret;

use super::{given, started};
use crate::egress::config::{NextHop, Patience, Plaintext, UpstreamAddress, UpstreamHost};
use crate::ingress::config::Config as Ingress;
use crate::policy::rate::Rate;
use crate::spool::config::{BounceTo, SpaceMax};
use crate::tls::config::{Level, Pem};
use crate::units::Octets;

fn accepts(config: &Ingress, address: &str) -> bool {
    config.accepted_networks.contains(address.parse::<IpAddr>().unwrap())
}

fn upstreams(environment: &[(&str, &str)]) -> Vec<UpstreamAddress> {
    match started(environment).config().egress.next_hop {
        NextHop::Upstreams(upstreams) => upstreams,
        NextHop::RecipientMx { .. } => panic!("delivers to the recipients' MX"),
    }
}

#[test]
fn the_defaults_are_those_of_the_interface() {
    let config = started(&[]).config();
    let sockets = |list: &[&str]| list.iter().map(|one| one.parse().unwrap()).collect::<Vec<SocketAddr>>();
    assert_eq!(config.ingress.listen_smtp, sockets(&["0.0.0.0:25", "[::]:25"]));
    assert_eq!(config.control.listen_admin, sockets(&["127.0.0.1:9025"]));
    assert_eq!(config.control.control_socket.to_str(), Some("/run/ringpost/control.sock"));
    assert_eq!(config.tls.state_dir.to_str(), Some("/var/lib/ringpost"));
    assert_eq!(config.workers, 3);
    assert_eq!(config.ingress.message_size_max, Octets(25 << 20));
    assert_eq!((config.ingress.recipients_max, config.ingress.hops_max), (1000, 50));
    assert_eq!((config.ingress.sessions_max, config.ingress.sessions_per_client_max), (20_000, 1000));
    assert_eq!(config.ingress.command_timeout, Duration::from_secs(300));
    assert_eq!(config.ingress.data_timeout, Duration::from_secs(180));
    assert_eq!(config.ingress.session_min_rate, 100);
    assert_eq!(config.egress.delivery_patience, Patience::Within(Duration::from_millis(50)));
    assert_eq!(
        (config.egress.upstream_connections, config.egress.upstream_messages_per_connection),
        (20, 1000)
    );
    assert_eq!(config.egress.upstream_idle, Duration::from_secs(30));
    assert_eq!(config.tls.upstream_level, Level::May);
    assert_eq!(
        config.spool.retry.iter().map(Duration::as_secs).collect::<Vec<_>>(),
        [60, 300, 600, 1200, 2400, 3600]
    );
    assert_eq!(config.spool.lifetime, Duration::from_secs(5 * 86_400));
    assert_eq!((config.spool.bounce_to, config.spool.space_max), (BounceTo::Sender, SpaceMax::Percent(80)));
    assert_eq!((config.spool.delay_warning, config.gate.autoban, config.gate.syn_rate), (None, None, None));
    for (address, is_accepted) in [
        ("192.168.255.1", true),
        ("172.31.0.1", true),
        ("10.1.2.3", true),
        ("172.32.0.1", false),
        ("2001:db8::1", false),
    ] {
        assert_eq!(accepts(&config.ingress, address), is_accepted, "{address}");
    }
}

#[test]
fn loopback_always_may_relay_and_submit() {
    for networks in ["", "203.0.113.0/24"] {
        let config =
            started(&[("ACCEPTED_NETWORKS", networks), ("SUBMISSION_NETWORKS", networks)]).config().ingress;
        for loopback in ["127.0.0.1", "127.255.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(accepts(&config, loopback), "{loopback}");
            assert!(config.submission_networks.contains(loopback.parse().unwrap()), "{loopback}");
        }
        assert!(!accepts(&config, "10.0.0.1"));
    }
}

#[test]
fn empty_networks_leave_loopback_alone_with_a_warning() {
    let given = started(&[("ACCEPTED_NETWORKS", "")]);
    assert!(given.warnings().contains(&"ACCEPTED_NETWORKS: empty: only loopback may relay".to_owned()));
}

#[test]
fn empty_networks_and_a_required_gate_are_an_error() {
    let mistake = started(&[("ACCEPTED_NETWORKS", ""), ("XDP", "require")]).mistake();
    assert!(
        mistake
            .starts_with("ACCEPTED_NETWORKS=\"\" (environment ACCEPTED_NETWORKS): empty: with XDP=require"),
        "{mistake}"
    );
}

#[test]
fn submission_networks_are_the_accepted_ones_unless_written() {
    let config = started(&[("ACCEPTED_NETWORKS", "203.0.113.0/24")]).config().ingress;
    assert_eq!(config.submission_networks, config.accepted_networks);
    let config = started(&[("SUBMISSION_NETWORKS", "0.0.0.0/0 ::/0")]).config().ingress;
    assert!(config.submission_networks.contains("2001:db8::1".parse().unwrap()));
    assert!(!accepts(&config, "2001:db8::1"));
}

#[test]
fn without_a_login_and_mail_from_fqdn_an_upstream_is_demanded() {
    let mistake = given(&[("OUTGOING_SMTP_AUTH", "off")]).mistake();
    assert!(mistake.starts_with("EXT_RELAY_HOST: missing: expected "), "{mistake}");
    let all = given(&[]).mistakes();
    for name in ["EXT_RELAY_HOST", "OUTGOING_SMTP_LOGIN", "OUTGOING_SMTP_PASSWORD"] {
        assert!(all.iter().any(|mistake| mistake.starts_with(name)), "{name}: {all:#?}");
    }
}

#[test]
fn with_a_login_the_upstream_is_the_first_seeds() {
    let config =
        given(&[("OUTGOING_SMTP_LOGIN", "l"), ("OUTGOING_SMTP_PASSWORD", "p"), ("EXT_RELAY_PORT", "587")])
            .config();
    let expected =
        UpstreamAddress { host: UpstreamHost::Mx("email-smtp.us-east-1.amazonaws.com".into()), port: 587 };
    assert_eq!(config.egress.next_hop, NextHop::Upstreams(vec![expected]));
    let login = config.egress.login.unwrap();
    assert_eq!(
        (&*login.name, login.password.expose_secret(), login.plaintext),
        ("l", "p", Plaintext::Refused)
    );
}

#[test]
fn with_mail_from_fqdn_alone_mail_goes_to_the_recipients_mx() {
    let config = given(&[("MAIL_FROM_FQDN", "example.com")]).config();
    assert_eq!(config.egress.next_hop, NextHop::RecipientMx { port: 25 });
    assert_eq!(config.ingress.mail_from_fqdn.as_deref(), Some("example.com"));
    assert_eq!(config.egress.login, None);
    let both = given(&[
        ("MAIL_FROM_FQDN", "example.com"),
        ("OUTGOING_SMTP_LOGIN", "l"),
        ("OUTGOING_SMTP_PASSWORD", "p"),
    ]);
    assert!(matches!(both.config().egress.next_hop, NextHop::Upstreams(_)));
}

#[test]
fn an_upstream_that_is_this_relay_is_warned_of() {
    let warns = |upstream: &str, listen: &str| {
        let given = started(&[("EXT_RELAY_HOST", upstream), ("LISTEN_SMTP", listen)]);
        given.warnings().iter().any(|warning| warning.starts_with("EXT_RELAY_HOST: leads back"))
    };
    for (upstream, listen) in [
        ("127.0.0.1", "0.0.0.0:25"),
        ("[::1]:25", "[::]:25"),
        ("192.0.2.1:2525", "192.0.2.1:2525"),
        ("192.0.2.7,127.0.0.2", "0.0.0.0:25"),
    ] {
        assert!(warns(upstream, listen), "{upstream} {listen}");
    }
    for (upstream, listen) in [
        ("127.0.0.1", "127.0.0.2:25"),
        ("127.0.0.1", "[::]:25"),
        ("127.0.0.1:2525", "0.0.0.0:25"),
        ("192.0.2.1", "0.0.0.0:25"),
        ("localhost", "0.0.0.0:25"),
    ] {
        assert!(!warns(upstream, listen), "{upstream} {listen}");
    }
}

#[test]
fn upstreams_are_looked_up_as_they_are_written() {
    let host = |text: &str| UpstreamHost::Host(text.into());
    let mx = |text: &str| UpstreamHost::Mx(text.into());
    let address = |text: &str| UpstreamHost::Address(text.parse().unwrap());
    for (text, expected) in [
        ("a.example", vec![(mx("a.example"), 2525)]),
        ("a.example:587,b.example:588", vec![(mx("a.example"), 587), (mx("b.example"), 588)]),
        ("[a.example] [b.example]:465", vec![(host("a.example"), 2525), (host("b.example"), 465)]),
        ("192.0.2.1", vec![(address("192.0.2.1"), 2525)]),
        ("192.0.2.1:26", vec![(address("192.0.2.1"), 26)]),
        ("[192.0.2.1]:26", vec![(address("192.0.2.1"), 26)]),
        ("2001:db8::1", vec![(address("2001:db8::1"), 2525)]),
        ("[2001:db8::1]:26", vec![(address("2001:db8::1"), 26)]),
        ("[IPv6:2001:db8::1]", vec![(address("2001:db8::1"), 2525)]),
    ] {
        let found = upstreams(&[("EXT_RELAY_HOST", text), ("EXT_RELAY_PORT", "2525")]);
        let found: Vec<_> = found.into_iter().map(|one| (one.host, one.port)).collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn an_upstream_host_needs_a_login_or_a_word_that_there_is_none() {
    let mistakes = given(&[("EXT_RELAY_HOST", "smtp.example.com")]).mistakes();
    assert_eq!(mistakes.len(), 2, "{mistakes:#?}");
    assert!(mistakes[0].starts_with("OUTGOING_SMTP_LOGIN: missing: "), "{mistakes:#?}");
    assert!(mistakes[1].starts_with("OUTGOING_SMTP_PASSWORD: missing: "), "{mistakes:#?}");
    assert!(mistakes.iter().all(|mistake| mistake.contains("OUTGOING_SMTP_AUTH=off")), "{mistakes:#?}");
    let half = given(&[
        ("EXT_RELAY_HOST", "smtp.example.com"),
        ("OUTGOING_SMTP_LOGIN", "l"),
        ("OUTGOING_SMTP_PASSWORD", ""),
    ]);
    assert!(half.mistake().starts_with("OUTGOING_SMTP_PASSWORD: missing"));
    given(&[("EXT_RELAY_HOST", "smtp.example.com"), ("OUTGOING_SMTP_AUTH", "off")]).loaded();
    given(&[("EXT_RELAY_HOST", "mx")]).loaded();
}

#[test]
fn a_login_that_is_not_used_is_told_of() {
    let login = [("OUTGOING_SMTP_LOGIN", "l"), ("OUTGOING_SMTP_PASSWORD", "p")];
    for (name, value) in [("OUTGOING_SMTP_AUTH", "off"), ("EXT_RELAY_HOST", "mx")] {
        let given = started(&[login[0], login[1], (name, value)]);
        assert_eq!(given.config().egress.login, None);
        assert!(
            given.warnings().iter().any(|warning| warning.starts_with("OUTGOING_SMTP_LOGIN: not used")),
            "{name}"
        );
    }
    let none = given(&[login[0], login[1], ("TLS_VERIFY", "none")]);
    assert!(none.warnings().iter().any(|warning| warning.starts_with("OUTGOING_SMTP_LOGIN: never sent")));
    let plain = given(&[login[0], login[1], ("TLS_VERIFY", "none"), ("OUTGOING_SMTP_AUTH", "plaintext")]);
    assert_eq!(plain.config().egress.login.unwrap().plaintext, Plaintext::Allowed);
    assert!(!plain.warnings().iter().any(|warning| warning.starts_with("OUTGOING_SMTP_LOGIN")));
}

#[test]
fn the_incoming_login_is_three_variables_or_none() {
    let all = [
        ("INCOMING_SMTP_AUTHLOGIN", "u"),
        ("INCOMING_SMTP_AUTHDOM", "d.example"),
        ("INCOMING_SMTP_AUTHPASSWORD", "p"),
    ];
    let logins = started(&all).config().ingress.logins;
    assert_eq!(logins.iter().map(|login| &*login.name).collect::<Vec<_>>(), ["u@d.example"]);
    for missing in 0..3 {
        let two: Vec<_> =
            all.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, pair)| *pair).collect();
        let mistake = started(&two).mistake();
        assert!(mistake.starts_with(&format!("{}: missing: expected all of ", all[missing].0)), "{mistake}");
    }
}

#[test]
fn further_logins_come_in_lines() {
    let logins = started(&[(
        "INCOMING_SMTP_USERS",
        "a@x:p#1:2\n\nb@x:$2b$05$abcdefghijklmnopqrstuuxsbsaBxjcdKF1gjwf5R/Y4ftAE9sRq2",
    )])
    .config()
    .ingress
    .logins;
    let pairs: Vec<_> = logins.iter().map(|login| (&*login.name, login.password.expose_secret())).collect();
    assert_eq!(
        pairs,
        [("a@x", "p#1:2"), ("b@x", "$2b$05$abcdefghijklmnopqrstuuxsbsaBxjcdKF1gjwf5R/Y4ftAE9sRq2")]
    );
}

#[test]
fn submission_is_closed_with_a_warning_while_nobody_can_log_in() {
    let given = started(&[("LISTEN_SUBMISSION", "127.0.0.1:5870")]);
    let config = given.config().ingress;
    assert!(config.listen_submission.is_empty() && config.listen_submissions.is_empty());
    let warnings = given.warnings();
    for name in ["LISTEN_SUBMISSION", "LISTEN_SUBMISSIONS"] {
        assert!(warnings.contains(&format!("{name}: closed: no incoming login is set")), "{warnings:#?}");
    }
    let silent = started(&[("LISTEN_SUBMISSION", "off"), ("LISTEN_SUBMISSIONS", "")]).warnings();
    assert!(!silent.iter().any(|warning| warning.starts_with("LISTEN_")), "{silent:#?}");
    let open = started(&[("INCOMING_SMTP_USERS", "a:b")]).config().ingress;
    assert_eq!((open.listen_submission.len(), open.listen_submissions.len()), (2, 2));
}

#[test]
fn off_and_empty_close_a_listener() {
    for closed in ["off", "", "OFF", " "] {
        let config = started(&[("LISTEN_SMTP", closed), ("LISTEN_ADMIN", closed)]).config();
        assert!(
            config.ingress.listen_smtp.is_empty() && config.control.listen_admin.is_empty(),
            "{closed:?}"
        );
    }
}

#[test]
fn one_socket_serves_one_listener() {
    for (smtp, admin) in
        [("127.0.0.1:25", "127.0.0.1:25"), ("0.0.0.0:25", "127.0.0.1:25"), ("[::1]:25", "[::]:25")]
    {
        let mistake = started(&[("LISTEN_SMTP", smtp), ("LISTEN_ADMIN", admin)]).mistake();
        assert!(mistake.starts_with("LISTEN_ADMIN="), "{mistake}");
        assert!(mistake.contains(&format!("{admin} is taken: {smtp} stands in LISTEN_SMTP")), "{mistake}");
    }
    for (smtp, admin) in [
        ("127.0.0.1:0 127.0.0.1:0", "127.0.0.1:0"),
        ("0.0.0.0:25", "[::1]:25"),
        ("127.0.0.1:25", "127.0.0.2:25"),
    ] {
        started(&[("LISTEN_SMTP", smtp), ("LISTEN_ADMIN", admin)]).loaded();
    }
}

#[test]
fn use_tls_raises_none_and_may_and_no_other_level() {
    for (written, level) in [
        ("none", Level::Encrypt),
        ("may", Level::Encrypt),
        ("encrypt", Level::Encrypt),
        ("dane", Level::Dane),
        ("secure", Level::Secure),
    ] {
        let config = started(&[("USE_TLS", "yes"), ("TLS_VERIFY", written)]).config();
        assert_eq!(config.tls.upstream_level, level, "{written}");
        assert!(config.tls.upstream_tls_only, "{written}");
    }
    assert_eq!(started(&[("USE_TLS", "yes")]).config().tls.upstream_level, Level::Encrypt);
    assert_eq!(
        started(&[("USE_TLS", "no"), ("TLS_VERIFY", "none")]).config().tls.upstream_level,
        Level::None
    );
}

#[test]
fn fingerprint_needs_fingerprints() {
    assert!(
        started(&[("TLS_VERIFY", "fingerprint")]).mistake().starts_with("UPSTREAM_FINGERPRINTS: missing")
    );
}

#[test]
fn certificate_and_key_come_together_as_text_or_path() {
    let text = "-----BEGIN X-----\\nAA\\n-----END X-----";
    assert!(started(&[("SSL_CERT_PEM", text)]).mistake().starts_with("SSL_CERT_KEY: missing"));
    let certificate = started(&[("SSL_CERT_PEM", text), ("SSL_CERT_KEY", "/proc/self/status")])
        .config()
        .tls
        .certificate
        .unwrap();
    let Pem::Text(chain) = certificate.chain else { panic!("a path") };
    assert_eq!(chain.expose_secret(), "-----BEGIN X-----\nAA\n-----END X-----");
    assert!(matches!(certificate.key, Pem::Path(_)));
}

#[test]
fn patience_is_a_span_or_one_of_its_two_ends() {
    for (text, patience) in [
        ("0", Patience::Within(Duration::ZERO)),
        ("0s", Patience::Within(Duration::ZERO)),
        ("forever", Patience::Forever),
        ("2s", Patience::Within(Duration::from_secs(2))),
    ] {
        assert_eq!(
            started(&[("DELIVERY_PATIENCE", text)]).config().egress.delivery_patience,
            patience,
            "{text}"
        );
    }
}

#[test]
fn rates_have_a_burst_of_one_period_unless_written() {
    let second = Duration::from_secs(1);
    for (text, rate) in [
        ("100/s", Rate { events: 100, period: second, burst: 100 }),
        ("14/s burst 50", Rate { events: 14, period: second, burst: 50 }),
        ("3/10m", Rate { events: 3, period: Duration::from_secs(600), burst: 3 }),
    ] {
        assert_eq!(started(&[("UPSTREAM_RATE", text)]).config().egress.upstream_rate, Some(rate), "{text}");
        assert_eq!(started(&[("CLIENT_RATE", text)]).config().ingress.client_rate, Some(rate), "{text}");
    }
}

#[test]
fn a_name_server_without_a_port_is_asked_at_53() {
    let servers = started(&[("DNS_SERVERS", "192.0.2.53 [2001:db8::53]:5353")]).config().egress.dns_servers;
    assert_eq!(
        servers,
        ["192.0.2.53:53".parse().unwrap(), "[2001:db8::53]:5353".parse::<SocketAddr>().unwrap()]
    );
    assert!(started(&[("DNS_SERVERS", "/etc/resolv.conf")]).config().egress.dns_servers.is_empty());
}

#[test]
fn the_hosts_name_is_the_relays_unless_written() {
    assert_eq!(&*started(&[]).config().ingress.relay_host_name, "relay.example.net");
    let config = started(&[("RELAY_HOST_NAME", "mx.example.org")]).config();
    assert_eq!(&*config.ingress.relay_host_name, "mx.example.org");
    assert_eq!(&*config.egress.relay_host_name, "mx.example.org");
}

#[test]
fn postfix_habits_are_taken_with_a_warning() {
    let habits = [
        ("RELAYHOST", "[smtp.example.com]:587"),
        ("MYNETWORKS", "203.0.113.0/24"),
        ("RELAYHOST_USERNAME", "l"),
        ("RELAYHOST_PASSWORD", "p"),
        ("SMTP_AUTHLOGIN", "u"),
        ("SMTP_AUTHDOM", "d.example"),
        ("SMTP_AUTHPASSWORD", "p"),
    ];
    let given = given(&habits);
    let config = given.config();
    assert_eq!(
        config.egress.next_hop,
        NextHop::Upstreams(vec![UpstreamAddress {
            host: UpstreamHost::Host("smtp.example.com".into()),
            port: 587
        }])
    );
    assert!(accepts(&config.ingress, "203.0.113.9"));
    assert_eq!(&*config.egress.login.unwrap().name, "l");
    assert_eq!(&*config.ingress.logins[0].name, "u@d.example");
    let warnings = given.warnings();
    for (name, _) in habits {
        assert!(
            warnings.iter().any(|warning| warning.starts_with(&format!("{name}: another name of "))),
            "{name}"
        );
    }
}

#[test]
fn the_first_seeds_example_runs() {
    let config = given(&[
        ("SMTP_LOGIN", "myLogin"),
        ("SMTP_PASSWORD", "myPassword"),
        ("USE_TLS", ""),
        ("TLS_VERIFY", ""),
        ("INCOMING_SMTP_AUTHLOGIN", ""),
    ])
    .config();
    assert_eq!(&*config.egress.login.unwrap().name, "myLogin");
    assert_eq!(config.tls.upstream_level, Level::May);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let wrong = [
        ("RELAY_HOST_NAME", "a b"),
        ("ACCEPTED_NETWORKS", "10.0.0.0/33 10.0.0.0/8 x"),
        ("EXT_RELAY_PORT", "0"),
        ("TLS_VERIFY", "maybe"),
        ("LISTEN_SMTP", "25"),
        ("WORKERS", "0"),
        ("DELIVERY_PATIENCE", "soon"),
        ("QUEUE_RETRY", "1"),
        ("UPSTREAM_RATE", "fast"),
        ("MESSAGE_SIZE_MAX", "big"),
        ("XDP", "maybe"),
        ("LOG_LEVEL", "loud"),
        ("XDP_INTERFACE", "eth0"),
    ];
    let mistakes = started(&wrong).mistakes();
    for (name, _) in wrong {
        assert!(mistakes.iter().any(|mistake| mistake.starts_with(name)), "{name}: {mistakes:#?}");
    }
    assert_eq!(mistakes.len(), wrong.len() + 1, "{mistakes:#?}");
}

#[test]
fn a_list_of_wrong_items_is_not_told_without_end() {
    let list: String = (0..1000).map(|number| format!("wrong{number} ")).collect();
    let mistakes = started(&[("ACCEPTED_NETWORKS", &list)]).mistakes();
    assert_eq!(mistakes.len(), 21);
    assert!(mistakes[20].ends_with("980 more items are wrong"), "{}", mistakes[20]);
}

#[test]
fn an_impossible_host_name_of_the_system_is_told_of() {
    let raw = super::Raw::gather(&started(&[]).sources);
    let host = super::Host { name: "-bad-".to_owned(), cpus: 1 };
    let refused = super::check::check(&raw, &host, super::Features::ALL).err().unwrap();
    assert_eq!(refused.mistakes[0].variable, "RELAY_HOST_NAME");
}
