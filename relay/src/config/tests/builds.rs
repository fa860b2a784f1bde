//! What is not in a build is known and checked all the same, and says so when it is switched on.

use super::{BARE, started};
use crate::egress::config::Patience;
use crate::tls::config::Level;

#[test]
fn what_is_missing_says_so_when_it_is_switched_on() {
    for (name, value) in [
        ("DELIVERY_PATIENCE", "50ms"),
        ("DELIVERY_PATIENCE", "0"),
        ("DELAY_WARNING", "4h"),
        ("USE_TLS", "yes"),
        ("TLS_VERIFY", "encrypt"),
        ("TLS_VERIFY", "dane"),
        ("EXT_RELAY_PORT", "465"),
        ("EXT_RELAY_HOST", "[192.0.2.1]:465"),
        ("INCOMING_SMTP_USERS", "a:b"),
        ("ALWAYS_BCC", "a@b.example"),
        ("MAIL_FROM_FQDN", "b.example"),
        ("XDP", "require"),
        ("XDP_SYN_RATE", "200/s burst 400"),
    ] {
        let mistake = started(&[(name, value)]).without(BARE).mistake();
        assert!(mistake.starts_with(&format!("{name}=")), "{mistake}");
        assert!(mistake.contains("not in this build"), "{mistake}");
        started(&[(name, value)]).loaded();
    }
}

#[test]
fn logins_are_refused_where_there_is_no_auth() {
    let login = [("OUTGOING_SMTP_LOGIN", "l"), ("OUTGOING_SMTP_PASSWORD", "p")];
    let mistakes =
        started(&[login[0], login[1], ("OUTGOING_SMTP_AUTH", "required")]).without(BARE).mistakes();
    assert_eq!(mistakes.len(), 2, "{mistakes:#?}");
    assert!(mistakes.iter().all(|mistake| mistake.contains("AUTH is not in this build")), "{mistakes:#?}");
    started(&login).without(BARE).loaded();
}

#[test]
fn what_keeps_it_switched_off_is_fine() {
    for (name, value) in [
        ("DELIVERY_PATIENCE", "forever"),
        ("DELAY_WARNING", "off"),
        ("USE_TLS", "no"),
        ("USE_TLS", "0"),
        ("TLS_VERIFY", "none"),
        ("TLS_VERIFY", "may"),
        ("XDP", "off"),
        ("XDP", "auto"),
        ("AUTOBAN", "10 in 1m for 1h"),
        ("XDP_SYN_RATE", "off"),
        ("MAIL_FROM_FQDN", ""),
        ("OUTGOING_SMTP_LOGIN", ""),
        ("EXT_RELAY_PORT", "587"),
        ("MAIL_FROM_FQDN", "none"),
        ("ALWAYS_BCC", "none"),
    ] {
        started(&[(name, value)]).without(BARE).loaded();
    }
}

#[test]
fn what_only_tunes_has_no_effect_and_says_so() {
    for (name, value) in [
        ("QUEUE_RETRY", "1m"),
        ("QUEUE_LIFETIME", "1d"),
        ("BOUNCE_TO", "off"),
        ("QUEUE_BYTES_MAX", "1G"),
        ("TLS_INCOMING_MIN", "1.3"),
        ("XDP_MODE", "native"),
        ("XDP_ACTION", "count"),
        ("XDP_INTERFACES", "eth0"),
        ("OUTGOING_SMTP_MECHANISM", "PLAIN"),
        ("SUBMISSION_NETWORKS", "0.0.0.0/0"),
    ] {
        let warnings = started(&[(name, value)]).without(BARE).warnings();
        let about =
            warnings.iter().find(|warning| warning.starts_with(&format!("{name}: has no effect"))).unwrap();
        assert!(about.contains("not in this build"), "{about}");
    }
    let default = started(&[("QUEUE_RETRY", "1m, 5m,10m 20m 40m 1h")]).without(BARE).warnings();
    assert!(!default.iter().any(|warning| warning.starts_with("QUEUE_RETRY")), "{default:#?}");
}

#[test]
fn a_wrong_value_is_wrong_though_it_has_no_effect() {
    assert!(started(&[("QUEUE_RETRY", "soon")]).without(BARE).mistake().starts_with("QUEUE_RETRY=\"soon\""));
}

#[test]
fn without_a_spool_patience_is_forever_unless_written() {
    let given = started(&[]).without(BARE);
    assert_eq!(given.config().egress.delivery_patience, Patience::Forever);
    assert!(
        given
            .warnings()
            .contains(&"DELIVERY_PATIENCE: taken as forever: the spool is not in this build".to_owned())
    );
    assert!(
        !started(&[("DELIVERY_PATIENCE", "forever")])
            .without(BARE)
            .warnings()
            .iter()
            .any(|w| w.starts_with("DELIVERY"))
    );
}

#[test]
fn without_tls_may_means_in_clear_and_says_so() {
    let given = started(&[]).without(BARE);
    assert_eq!(given.config().tls.upstream_level, Level::May);
    assert!(
        given.warnings().iter().any(|warning| warning.starts_with("TLS_VERIFY: TLS is not in this build"))
    );
    let on_purpose = started(&[("TLS_VERIFY", "none")]).without(BARE).warnings();
    assert!(!on_purpose.iter().any(|warning| warning.starts_with("TLS_VERIFY")), "{on_purpose:#?}");
}

#[test]
fn without_a_gate_auto_says_so_and_off_does_not() {
    let says = |xdp: &str| {
        started(&[("XDP", xdp)])
            .without(BARE)
            .warnings()
            .iter()
            .any(|w| w.starts_with("XDP: no gate in this build"))
    };
    assert!(says("auto"));
    assert!(!says("off"));
}

#[test]
fn of_a_wrong_value_nothing_more_is_said() {
    let mistake = started(&[("TLS_VERIFY", "x")]).without(BARE).mistake();
    assert!(mistake.contains("expected none, may, encrypt, "), "{mistake}");
}
