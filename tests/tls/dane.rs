//! DANE (RFC 7672) against a real signed zone: each kind of record, and each way in which there is none.

use std::path::{Path, PathBuf};

use ring::digest::{SHA256, SHA512, digest};
use ringpost_tests::certificate::{Authority, Identity, Validity};
use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::need;
use ringpost_tests::upstream::{Script, Upstream};
use ringpost_tests::zone::Zone;

/// What became of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Clear,
    Tls,
    Deferred,
}

use Fate::{Clear, Deferred, Tls};

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn sha256(octets: &[u8]) -> String {
    hex(digest(&SHA256, octets).as_ref())
}

/// A host at this loopback with TLSA records for a port.
fn host(name: &str, port: u16, records: &[String]) -> String {
    let tlsa = records.iter().map(|record| format!("_{port}._tcp.{name}. 300 IN TLSA {record}\n"));
    format!("{name}. 300 IN A 127.0.0.1\n") + &tlsa.collect::<String>()
}

/// The name space and how the relay gets there.
struct Stage {
    zone: Zone,
    anchors: PathBuf,
}

impl Stage {
    fn new(knotd: &Path, keymgr: &Path, root: &str, insecure: &str, bogus: &str) -> Self {
        let zone = Zone::start(knotd, root, insecure, bogus);
        let anchors = zone.trust_anchors(keymgr);
        Self { zone, anchors }
    }

    fn relay(&self, host: &str, level: &str) -> Daemon {
        Builder::relaying_to(host)
            .with("TLS_VERIFY", level)
            .with("DNS_SERVERS", &self.zone.address().to_string())
            .with("DNS_TRUST_ANCHORS", &self.anchors.display().to_string())
            .start()
    }

    /// What becomes of one mail to the upstream under this name, as `EXT_RELAY_HOST` takes it.
    #[track_caller]
    fn fate(&self, name: &str, level: &str, upstream: &Upstream) -> Fate {
        let daemon = self.relay(&format!("{name}:{}", upstream.address().port()), level);
        let before = upstream.complete();
        let mut client = daemon.client();
        client.command("MAIL FROM:<a@client.test>").assert("250");
        let reply = client.command("RCPT TO:<b@example.com>");
        if reply.code / 100 == 4 {
            assert_eq!(upstream.complete(), before);
            return Deferred;
        }
        reply.assert("250");
        client.data(&message::ordinary("x\r\n")).assert("250");
        let mails = upstream.mails(before + 1);
        let connection = mails[before].connection;
        let secured =
            upstream.record().read(|record| record.connections[connection].handshake == Some(Ok(())));
        if secured { Tls } else { Clear }
    }
}

#[test]
fn records_decide_as_rfc_7672_says() {
    let (knotd, keymgr) = (need!("knotd"), need!("keymgr"));
    let authority = Authority::root();
    // Names and dates are wrong on purpose: usage 3 looks at neither.
    let leaf = Identity::self_signed(&["elsewhere.test"]);
    let signed = authority.host(&["ta.test", "ta-key.test"], Validity::Now).with(authority.der());
    let expired = authority.host(&["ta.test"], Validity::Expired).with(authority.der());
    let leaf_upstream = Upstream::start(Script::new().with_tls(leaf.server()));
    let signed_upstream = Upstream::start(Script::new().with_tls(signed.server()));
    let expired_upstream = Upstream::start(Script::new().with_tls(expired.server()));
    let clear_upstream = Upstream::start(Script::new());
    let authority_key = authority.public_key();
    let zeros = "00".repeat(32);
    let (certificate, key) = (leaf.chain[0].to_vec(), leaf.public_key());
    let sha512 = hex(digest(&SHA512, &key).as_ref());
    let upstreams = [&leaf_upstream, &signed_upstream, &expired_upstream, &clear_upstream];
    let mut root = String::new();
    let mut insecure = String::new();
    let mut bogus = String::new();
    for port in upstreams.map(|upstream| upstream.address().port()) {
        let records = |name: &str, records: &[String]| host(name, port, records);
        for (name, usable) in [
            ("ee-key", format!("3 1 1 {}", sha256(&key))),
            ("ee-cert", format!("3 0 1 {}", sha256(&certificate))),
            ("ee-512", format!("3 1 2 {sha512}")),
            ("ee-full", format!("3 1 0 {}", hex(&key))),
            ("ta", format!("2 0 1 {}", sha256(authority.der()))),
            ("ta-key", format!("2 1 1 {}", sha256(&authority_key))),
            ("ta-other-name", format!("2 0 1 {}", sha256(authority.der()))),
            ("wrong", format!("3 1 1 {zeros}")),
            ("pkix", format!("1 1 1 {}", sha256(&key))),
            ("odd", format!("3 1 1 {}", "ab".repeat(31))),
        ] {
            root += &records(&format!("{name}.test"), &[usable]);
        }
        root += &records("one-of-two.test", &[format!("3 1 1 {zeros}"), format!("3 1 1 {}", sha256(&key))]);
        root += &records("none.test", &[]);
        root += "alias.test. 300 IN CNAME ee-key.test.\n";
        root += "domain.test. 300 IN MX 10 ee-key.test.\n";
        insecure += &records("wrong.insecure", &[format!("3 1 1 {zeros}")]);
        insecure += "domain.insecure. 300 IN MX 10 ee-key.test.\n";
        bogus += &records("host.bogus", &[format!("3 1 1 {}", sha256(&key))]);
    }
    let stage = Stage::new(&knotd, &keymgr, &root, &insecure, &bogus);
    for (name, upstream, at_dane, at_dane_only) in [
        // Usable records that match.
        ("[ee-key.test]", &leaf_upstream, Tls, Tls),
        ("[ee-cert.test]", &leaf_upstream, Tls, Tls),
        ("[ee-512.test]", &leaf_upstream, Tls, Tls),
        ("[ee-full.test]", &leaf_upstream, Tls, Tls),
        ("[one-of-two.test]", &leaf_upstream, Tls, Tls),
        ("[alias.test]", &leaf_upstream, Tls, Tls),
        ("[ta.test]", &signed_upstream, Tls, Tls),
        ("[ta-key.test]", &signed_upstream, Tls, Tls),
        ("domain.test", &leaf_upstream, Tls, Tls),
        // Usable records that do not.
        ("[wrong.test]", &leaf_upstream, Deferred, Deferred),
        ("[ta.test]", &leaf_upstream, Deferred, Deferred),
        ("[ta.test]", &expired_upstream, Deferred, Deferred),
        ("[ta-other-name.test]", &signed_upstream, Deferred, Deferred),
        ("[ee-key.test]", &clear_upstream, Deferred, Deferred),
        // Records that nobody can use ask for TLS all the same.
        ("[pkix.test]", &leaf_upstream, Tls, Deferred),
        ("[odd.test]", &leaf_upstream, Tls, Deferred),
        ("[pkix.test]", &clear_upstream, Deferred, Deferred),
        // No records, or none that are proved.
        ("[none.test]", &leaf_upstream, Tls, Deferred),
        ("[none.test]", &clear_upstream, Clear, Deferred),
        ("[wrong.insecure]", &leaf_upstream, Tls, Deferred),
        ("[wrong.insecure]", &clear_upstream, Clear, Deferred),
        // The way to the host is not proved, the host itself is.
        ("domain.insecure", &leaf_upstream, Tls, Deferred),
        ("domain.insecure", &clear_upstream, Deferred, Deferred),
        // A proof that ought to be there is not: an attack, or as good as one.
        ("[host.bogus]", &leaf_upstream, Deferred, Deferred),
        ("[host.bogus]", &clear_upstream, Deferred, Deferred),
    ] {
        let port = upstream.address().port();
        assert_eq!(stage.fate(name, "dane", upstream), at_dane, "{name}:{port} at dane");
        assert_eq!(stage.fate(name, "dane-only", upstream), at_dane_only, "{name}:{port} at dane-only");
    }
}

#[test]
fn without_an_answer_there_is_no_mail() {
    let leaf = Identity::self_signed(&["elsewhere.test"]);
    let upstream = Upstream::start(Script::new().with_tls(leaf.server()));
    let (knotd, keymgr) = (need!("knotd"), need!("keymgr"));
    let stage = Stage::new(&knotd, &keymgr, "mx.test. 300 IN A 127.0.0.1\n", "", "");
    // Another root's key: nothing that this server says is proved, and everything ought to be.
    let strangers = Stage::new(&knotd, &keymgr, "", "", "");
    let stage = Stage { zone: stage.zone, anchors: strangers.anchors.clone() };
    assert_eq!(stage.fate("[mx.test]", "dane", &upstream), Deferred);
}
