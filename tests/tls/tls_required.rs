//! `TLS-Required: No` (RFC 8689 §3): mail that its sender would rather have delivered than protected as the recipients'
//! domain asks, beside mail that says nothing of the kind.

use std::path::Path;

use ringpost_tests::certificate::Identity;
use ringpost_tests::client::{Client, Reply};
use ringpost_tests::daemon::{Builder, Daemon, field};
use ringpost_tests::message;
use ringpost_tests::need;
use ringpost_tests::upstream::{Script, Upstream};
use ringpost_tests::zone::Zone;

/// Domains whose exchanger does not show what its TLSA record asks for, or has no proof of anything.
const DOMAINS: [&str; 2] = ["wrong.test", "domain.bogus"];
const MAIL: &str = "MAIL FROM:<a@client.test>";

struct Stage {
    zone: Zone,
    anchors: String,
    upstream: Upstream,
}

impl Stage {
    fn new(knotd: &Path, keymgr: &Path, script: Script) -> Self {
        let upstream = Upstream::start(script);
        let port = upstream.address().port();
        let zeros = "00".repeat(32);
        let root = format!(
            "wrong.test. 300 IN MX 10 mx.wrong.test.\nmx.wrong.test. 300 IN A 127.0.0.1\n\
             _{port}._tcp.mx.wrong.test. 300 IN TLSA 3 1 1 {zeros}\n"
        );
        let bogus = "domain.bogus. 300 IN MX 10 mx.domain.bogus.\nmx.domain.bogus. 300 IN A 127.0.0.1\n";
        let zone = Zone::start(knotd, &root, "", bogus);
        let anchors = zone.trust_anchors(keymgr).display().to_string();
        Self { zone, anchors, upstream }
    }

    fn relay(&self, host: &str, level: &str, patience: &str) -> Daemon {
        Builder::relaying_to(host)
            .with("EXT_RELAY_PORT", &self.upstream.address().port().to_string())
            .with("DNS_SERVERS", &self.zone.address().to_string())
            .with("DNS_TRUST_ANCHORS", &self.anchors)
            .with("DELIVERY_PATIENCE", patience)
            .with("TLS_VERIFY", level)
            .start()
    }
}

fn saying(header: &str) -> Vec<u8> {
    [header.as_bytes(), &message::ordinary("x\r\n")].concat()
}

/// Has a message queued; its id.
#[track_caller]
fn queue(client: &mut Client, mail: &str, domain: &str, header: &str) -> String {
    client.command(mail).assert("250");
    client.command(&format!("RCPT TO:<b@{domain}>")).assert("250");
    let reply: Reply = client.data(&saying(header));
    reply.assert("250");
    reply.text().rsplit_once(" queued as ").expect("it is queued").1.to_owned()
}

/// Waits for what becomes of a queued message at its first attempt.
#[track_caller]
fn outcome(daemon: &Daemon, id: &str) -> String {
    let line = daemon.says(|line| {
        let event = field(line, "event").unwrap_or_default();
        ["delivered", "deferred", "bounced"].contains(&event) && field(line, "queue_id") == Some(id)
    });
    field(&line, "event").expect("an event").to_owned()
}

#[test]
fn a_policy_that_cannot_be_kept_is_waived_from_the_queue() {
    let (knotd, keymgr) = (need!("knotd"), need!("keymgr"));
    let identity = Identity::self_signed(&["elsewhere.test"]);
    for (script, is_secure) in [(Script::new().with_tls(identity.server()), true), (Script::new(), false)] {
        let stage = Stage::new(&knotd, &keymgr, script);
        let daemon = stage.relay("mx", "dane", "0");
        for (count, domain) in DOMAINS.into_iter().enumerate() {
            let mut client = daemon.client();
            let kept = queue(&mut client, MAIL, domain, "");
            assert_eq!(outcome(&daemon, &kept), "deferred", "{domain} without the field");
            let waived = queue(&mut client, MAIL, domain, "TLS-Required: No\r\n");
            assert_eq!(outcome(&daemon, &waived), "delivered", "{domain}");
            let mail = &stage.upstream.mails(count + 1)[count];
            let text = String::from_utf8(mail.content()).expect("text");
            assert!(text.contains("TLS-Required: No\r\n"), "{text}");
            let secured = stage
                .upstream
                .record()
                .read(|record| record.connections[mail.connection].handshake == Some(Ok(())));
            assert_eq!(secured, is_secure, "TLS where it is to be had");
            let again = queue(&mut client, MAIL, domain, "");
            assert_eq!(daemon.verb(&["flush"]).code, Some(0));
            assert_eq!(outcome(&daemon, &again), "deferred", "{domain}: that connection is not for others");
        }
        daemon.logged("tls_policy_waived");
        assert_eq!(stage.upstream.complete(), DOMAINS.len());
    }
}

#[test]
fn a_stream_that_the_policy_refuses_falls_back_on_the_queue() {
    let (knotd, keymgr) = (need!("knotd"), need!("keymgr"));
    let identity = Identity::self_signed(&["elsewhere.test"]);
    let stage = Stage::new(&knotd, &keymgr, Script::new().with_tls(identity.server()));
    let daemon = stage.relay("mx", "dane", "10s");
    let waived = queue(&mut daemon.client(), MAIL, "wrong.test", "TLS-Required: No\r\n");
    assert_eq!(outcome(&daemon, &waived), "delivered");
    // Without a queue the recipient is refused before the header is seen (decision 0006).
    let daemon = stage.relay("mx", "dane", "forever");
    let mut client = daemon.client();
    client.command(MAIL).assert("250");
    client.command("RCPT TO:<b@wrong.test>").assert("451");
}

#[test]
fn what_is_configured_here_and_requiretls_are_not_waived() {
    let (knotd, keymgr) = (need!("knotd"), need!("keymgr"));
    let identity = Identity::self_signed(&["elsewhere.test"]);
    let script = Script::new().with_tls(identity.server()).offering_inside("REQUIRETLS");
    let stage = Stage::new(&knotd, &keymgr, script);
    let once = "TLS-Required: No\r\n";
    for (host, level, header) in [
        ("mx", "dane-only", once),
        ("mx", "secure", once),
        ("[mx.wrong.test]", "dane", once),
        ("mx", "dane", "TLS-Required: No\r\nTLS-Required: No\r\n"),
        ("mx", "dane", "TLS-Required: Yes\r\n"),
    ] {
        let daemon = stage.relay(host, level, "0");
        let kept = queue(&mut daemon.client(), MAIL, "wrong.test", header);
        assert_eq!(outcome(&daemon, &kept), "deferred", "{host} at {level}: {header}");
    }
    let daemon = stage.relay("mx", "dane", "0");
    let mut client = daemon.client();
    client.starttls();
    let refused = queue(&mut client, &format!("{MAIL} REQUIRETLS"), "wrong.test", once);
    assert_eq!(outcome(&daemon, &refused), "bounced");
    assert_eq!(stage.upstream.complete(), 0);
}
