//! What two of ours agree on by their crypto provider: with aws-lc-rs a key exchange that is proof against quantum
//! computers too, with ring the best one without that.

use ringpost_tests::daemon::{Builder, field};
use ringpost_tests::message;
use ringpost_tests::upstream::Upstream;

#[test]
fn two_of_ours_agree_on_the_best_group_of_their_provider() {
    let upstream = Upstream::plain();
    let inner = Builder::relaying_to(&upstream.host()).start();
    let host = format!("[127.0.0.1]:{}", inner.smtp().port());
    let outer = Builder::relaying_to(&host).with("TLS_VERIFY", "encrypt").start();
    let version = outer.verb(&["version"]).stdout;
    let group = match version.lines().find_map(|line| line.strip_prefix("tls: ")) {
        Some("aws-lc-rs") => "X25519MLKEM768",
        Some("ring") => "X25519",
        other => panic!("no provider: {other:?} in {version}"),
    };
    let sent = message::ordinary("x\r\n");
    outer.client().deliver(&sent).assert("250 2.");
    upstream.mail().assert_carries(&sent);
    for (daemon, name) in [(&outer, "tls"), (&inner, "client_tls")] {
        let line = daemon.logged("relayed");
        let tls = field(&line, name).unwrap_or_default();
        assert_eq!(tls.split(' ').nth(2), Some(group), "{line}");
    }
    let shown = outer.verb(&["selftest"]).stdout;
    assert!(shown.contains(&format!(" {group} unverified")), "{shown}");
}
