//! The admin port: metrics, health, status.

use ringpost_tests::admin;
use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::upstream::{Script, Stage, Upstream, refusing};

use crate::attempt::verdict;

/// Every metric that the interface names, for a relay without gate and spool.
const NAMES: &[&str] = &[
    "ringpost_sessions_open",
    "ringpost_sessions_total",
    "ringpost_messages_received_total",
    "ringpost_messages_relayed_total",
    "ringpost_recipients_total",
    "ringpost_message_octets_total",
    "ringpost_queue_messages",
    "ringpost_queue_octets",
    "ringpost_queue_oldest_seconds",
    "ringpost_spool_sync_seconds",
    "ringpost_spool_sync_batch_messages",
    "ringpost_accept_seconds",
    "ringpost_delivery_seconds",
    "ringpost_upstream_connections",
    "ringpost_upstream_up",
    "ringpost_auth_total",
    "ringpost_tls_handshakes_total",
    "ringpost_gate_bans",
    "ringpost_config_reloads_total",
    "ringpost_build_info",
];

#[test]
fn names_every_metric_of_the_interface() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    daemon.client().deliver(&message::ordinary("x\r\n")).assert("250 2.");
    let metrics = admin::get(daemon.admin(), "/metrics");
    assert_eq!(metrics.status, 200);
    for name in NAMES {
        assert!(metrics.body.contains(&format!("# TYPE {name} ")), "{name} is missing:\n{}", metrics.body);
    }
}

#[test]
fn counts_what_was_relayed_and_under_whose_custody() {
    let upstream = Upstream::start(Script::new().on_words(Stage::Rcpt, "no@", "550 5.1.1 Unknown"));
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = daemon.client();
    for _ in 0..3 {
        client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
    }
    client.command("MAIL FROM:<a@client.test>").assert("250 2.1.0");
    client.command("RCPT TO:<no@example.com>").assert("550 5.1.1");
    let expected = [
        ("ringpost_messages_relayed_total{custody=\"upstream\"}", 3.0),
        ("ringpost_messages_relayed_total{custody=\"spool\"}", 0.0),
        ("ringpost_messages_received_total{listener=\"smtp\"}", 3.0),
        ("ringpost_recipients_total{outcome=\"delivered\"}", 3.0),
        ("ringpost_recipients_total{outcome=\"rejected\"}", 1.0),
        ("ringpost_sessions_open{listener=\"smtp\"}", 1.0),
        ("ringpost_accept_seconds_count", 3.0),
        ("ringpost_delivery_seconds_count", 3.0),
    ];
    for (sample, value) in expected {
        assert_eq!(daemon.metric(sample), Some(value), "{sample}");
    }
}

#[test]
fn is_healthy_and_ready() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    assert_eq!(admin::get(daemon.admin(), "/healthz").status, 200);
    assert_eq!(admin::get(daemon.admin(), "/readyz").status, 200);
    let status: serde_json::Value =
        serde_json::from_str(&admin::get(daemon.admin(), "/status").body).expect("JSON");
    assert!(status.to_string().contains(&daemon.smtp().to_string()), "{status}");
    assert_eq!(admin::get(daemon.admin(), "/nowhere").status, 404);
    assert_eq!(admin::get(daemon.admin(), "/").status, 200);
}

#[test]
fn is_not_ready_while_its_only_upstream_is_known_to_be_down() {
    let daemon = Builder::relaying_to(&format!("[127.0.0.1]:{}", refusing().port())).start();
    let mut client = daemon.client();
    for _ in 0..20 {
        assert_eq!(verdict(&mut client, &message::ordinary("x\r\n")).code, 451);
        client.command("RSET").assert("250 2.");
        if admin::get(daemon.admin(), "/readyz").status == 503 {
            assert_eq!(admin::get(daemon.admin(), "/healthz").status, 200);
            return;
        }
    }
    panic!("still ready after twenty failures");
}
