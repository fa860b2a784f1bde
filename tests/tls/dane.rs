//! DANE (RFC 7672) against a real signed zone: each kind of record, and each way in which there is none.

use std::path::{Path, PathBuf};

use ring::digest::{SHA256, SHA512, digest};
use ringpost_tests::certificate::{Authority, Identity, Validity};
use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::namespace::{Place, enter_resolving};
use ringpost_tests::need;
use ringpost_tests::resolver::Resolver;
use ringpost_tests::skip;
use ringpost_tests::upstream::{Script, Upstream};
use ringpost_tests::zone::Zone;

use crate::beside_postfix::{self, Case};
use crate::levels::Fate;
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

    fn relay(&self, host: &str, level: &str) -> Builder {
        Builder::relaying_to(host)
            .with("TLS_VERIFY", level)
            .with("DNS_SERVERS", &self.zone.address().to_string())
            .with("DNS_TRUST_ANCHORS", &self.anchors.display().to_string())
    }

    /// What becomes of one mail to the upstream under this name, as `EXT_RELAY_HOST` takes it.
    #[track_caller]
    fn fate(&self, name: &str, level: &str, upstream: &Upstream) -> Fate {
        fate(&self.relay(&format!("{name}:{}", upstream.address().port()), level).start(), upstream)
    }
}

/// What becomes of one mail to an upstream that may have had others.
#[track_caller]
fn fate(daemon: &Daemon, upstream: &Upstream) -> Fate {
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
    let secured = upstream.record().read(|record| record.connections[connection].handshake == Some(Ok(())));
    if secured { Tls } else { Clear }
}

/// What a host shows.
#[derive(Debug, Clone, Copy)]
enum Shows {
    /// `Hosts::leaf`, whose names are wrong on purpose: usage 3 looks at neither names nor dates.
    Leaf,
    /// A certificate by the authority, and the authority.
    Signed,
    /// The same, but it has expired.
    Expired,
    /// No TLS.
    Nothing,
}

use Shows::{Expired, Leaf, Nothing, Signed};

/// The upstream as `EXT_RELAY_HOST` takes it, what it shows, and what becomes of mail at `dane` and at `dane-only`.
const CASES: [(&str, Shows, Fate, Fate); 25] = [
    // Usable records that match.
    ("[ee-key.test]", Leaf, Tls, Tls),
    ("[ee-cert.test]", Leaf, Tls, Tls),
    ("[ee-512.test]", Leaf, Tls, Tls),
    ("[ee-full.test]", Leaf, Tls, Tls),
    ("[one-of-two.test]", Leaf, Tls, Tls),
    ("[alias.test]", Leaf, Tls, Tls),
    ("[ta.test]", Signed, Tls, Tls),
    ("[ta-key.test]", Signed, Tls, Tls),
    ("domain.test", Leaf, Tls, Tls),
    // Usable records that do not.
    ("[wrong.test]", Leaf, Deferred, Deferred),
    ("[ta.test]", Leaf, Deferred, Deferred),
    ("[ta.test]", Expired, Deferred, Deferred),
    ("[ta-other-name.test]", Signed, Deferred, Deferred),
    ("[ee-key.test]", Nothing, Deferred, Deferred),
    // Records that nobody can use ask for TLS all the same.
    ("[pkix.test]", Leaf, Tls, Deferred),
    ("[odd.test]", Leaf, Tls, Deferred),
    ("[pkix.test]", Nothing, Deferred, Deferred),
    // No records, or none that are proved.
    ("[none.test]", Leaf, Tls, Deferred),
    ("[none.test]", Nothing, Clear, Deferred),
    ("[wrong.insecure]", Leaf, Tls, Deferred),
    ("[wrong.insecure]", Nothing, Clear, Deferred),
    // The way to the host is not proved, the host itself is.
    ("domain.insecure", Leaf, Tls, Deferred),
    ("domain.insecure", Nothing, Deferred, Deferred),
    // A proof that ought to be there is not: an attack, or as good as one.
    ("[host.bogus]", Leaf, Deferred, Deferred),
    ("[host.bogus]", Nothing, Deferred, Deferred),
];

/// What the hosts of the test have.
struct Hosts {
    authority: Authority,
    leaf: Identity,
}

impl Hosts {
    fn new() -> Self {
        Self { authority: Authority::root(), leaf: Identity::self_signed(&["elsewhere.test"]) }
    }

    fn script(&self, shows: Shows) -> Script {
        let by_authority = |names: &[&str], validity| {
            let identity = self.authority.host(names, validity).with(self.authority.der());
            Script::new().with_tls(identity.server())
        };
        match shows {
            Leaf => Script::new().with_tls(self.leaf.server()),
            Signed => by_authority(&["ta.test", "ta-key.test"], Validity::Now),
            Expired => by_authority(&["ta.test"], Validity::Expired),
            Nothing => Script::new(),
        }
    }

    /// The signed root, the unsigned zone, and the bogus one, with records for these ports.
    fn zones(&self, ports: impl Iterator<Item = u16>) -> [String; 3] {
        let (certificate, key) = (self.leaf.chain[0].to_vec(), self.leaf.public_key());
        let zeros = "00".repeat(32);
        let records = [
            ("ee-key", format!("3 1 1 {}", sha256(&key))),
            ("ee-cert", format!("3 0 1 {}", sha256(&certificate))),
            ("ee-512", format!("3 1 2 {}", hex(digest(&SHA512, &key).as_ref()))),
            ("ee-full", format!("3 1 0 {}", hex(&key))),
            ("ta", format!("2 0 1 {}", sha256(self.authority.der()))),
            ("ta-key", format!("2 1 1 {}", sha256(&self.authority.public_key()))),
            ("ta-other-name", format!("2 0 1 {}", sha256(self.authority.der()))),
            ("wrong", format!("3 1 1 {zeros}")),
            ("pkix", format!("1 1 1 {}", sha256(&key))),
            ("odd", format!("3 1 1 {}", "ab".repeat(31))),
        ];
        let [mut root, mut insecure, mut bogus] = [const { String::new() }; 3];
        let (right, wrong) = (records[0].1.clone(), format!("3 1 1 {zeros}"));
        for port in ports {
            for (name, record) in &records {
                root += &host(&format!("{name}.test"), port, std::slice::from_ref(record));
            }
            root += &host("one-of-two.test", port, &[wrong.clone(), right.clone()]);
            root += &host("none.test", port, &[]);
            insecure += &host("wrong.insecure", port, std::slice::from_ref(&wrong));
            bogus += &host("host.bogus", port, std::slice::from_ref(&right));
        }
        root += "alias.test. 300 IN CNAME ee-key.test.\ndomain.test. 300 IN MX 10 ee-key.test.\n";
        insecure += "domain.insecure. 300 IN MX 10 ee-key.test.\n";
        [root, insecure, bogus]
    }
}

#[test]
fn records_decide_as_rfc_7672_says() {
    let (knotd, keymgr) = (need!("knotd"), need!("keymgr"));
    let hosts = Hosts::new();
    let upstreams = [Leaf, Signed, Expired, Nothing].map(|shows| Upstream::start(hosts.script(shows)));
    let [root, insecure, bogus] = hosts.zones(upstreams.iter().map(|upstream| upstream.address().port()));
    let stage = Stage::new(&knotd, &keymgr, &root, &insecure, &bogus);
    for (name, shows, at_dane, at_dane_only) in CASES {
        let upstream = &upstreams[shows as usize];
        assert_eq!(stage.fate(name, "dane", upstream), at_dane, "{name} {shows:?} at dane");
        assert_eq!(stage.fate(name, "dane-only", upstream), at_dane_only, "{name} {shows:?} at dane-only");
    }
}

#[test]
fn ours_and_postfix_agree_on_every_record() {
    match enter_resolving() {
        Place::Done => return,
        Place::Unable(why) => skip!("{why}"),
        Place::Inside => {}
    }
    let (knotd, keymgr, unbound) = (need!("knotd"), need!("keymgr"), need!("unbound"));
    let hosts = Hosts::new();
    let pairs: Vec<(&str, Shows, &str)> = CASES
        .iter()
        .flat_map(|(name, shows, ..)| ["dane", "dane-only"].map(|level| (*name, *shows, level)))
        .collect();
    let case = |(number, (name, shows, level)): (usize, &(&str, Shows, &str))| Case {
        domain: format!("case{number}.test"),
        next_hop: (*name).to_owned(),
        policy: (*level).to_owned(),
        upstream: Upstream::start(hosts.script(*shows)).for_others(),
    };
    let cases: Vec<Case> = pairs.iter().enumerate().map(case).collect();
    let upstreams = [Leaf, Signed, Expired, Nothing].map(|shows| Upstream::start(hosts.script(shows)));
    let all = cases.iter().map(|case| &case.upstream).chain(&upstreams);
    let [root, insecure, bogus] = hosts.zones(all.map(|upstream| upstream.address().port()));
    let stage = Stage::new(&knotd, &keymgr, &root, &insecure, &bogus);
    let _resolver = Resolver::start(&unbound, &stage.zone, &stage.anchors);
    // The level stands in main.cf too: what an exchanger is worth that an unsigned record names goes by that.
    let settings = "smtp_dns_support_level = dnssec\nsmtp_host_lookup = dns\nsmtp_tls_security_level = dane";
    let postfix = match beside_postfix::postfix(&cases, settings, &[]) {
        Ok(postfix) => postfix,
        Err(reason) => skip!("{reason}"),
    };
    beside_postfix::hand_in(&postfix, &cases);
    let mut differences = Vec::new();
    for (case, (name, shows, level)) in cases.iter().zip(&pairs) {
        let ours = stage.fate(name, level, &upstreams[*shows as usize]);
        let theirs = beside_postfix::fate_beside(&postfix, case);
        if ours != theirs {
            differences.push(format!("{name} {shows:?} at {level}: ours {ours:?}, Postfix {theirs:?}"));
        }
    }
    assert!(differences.is_empty(), "{differences:#?}\n{}", postfix.log());
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

#[test]
fn use_tls_means_tls_where_there_is_no_record_too() {
    let leaf = Identity::self_signed(&["elsewhere.test"]);
    let (knotd, keymgr) = (need!("knotd"), need!("keymgr"));
    let stage = Stage::new(&knotd, &keymgr, "mx.test. 300 IN A 127.0.0.1\n", "", "");
    let secure = Upstream::start(Script::new().with_tls(leaf.server()));
    for (upstream, expected) in [(&secure, Tls), (&Upstream::plain(), Deferred)] {
        let host = format!("[mx.test]:{}", upstream.address().port());
        let daemon = stage.relay(&host, "dane").with("USE_TLS", "yes").start();
        assert_eq!(fate(&daemon, upstream), expected);
    }
}

#[test]
fn selftest_shows_the_records_and_what_they_decide() {
    let (knotd, keymgr) = (need!("knotd"), need!("keymgr"));
    let leaf = Identity::self_signed(&["elsewhere.test"]);
    let upstream = Upstream::start(Script::new().with_tls(leaf.server()));
    let port = upstream.address().port();
    let right = format!("3 1 1 {}", sha256(&leaf.public_key()));
    let wrong = format!("3 1 1 {}", "00".repeat(32));
    let pkix = format!("1 1 1 {}", "00".repeat(32));
    let hosts = [("right.test", &right), ("wrong.test", &wrong), ("pkix.test", &pkix)];
    let root = hosts.map(|(name, record)| host(name, port, std::slice::from_ref(record))).concat();
    let stage = Stage::new(&knotd, &keymgr, &(root + &host("none.test", port, &[])), "", "");
    for (name, code, expected) in [
        ("right", 0, [&*format!("1 usable: {right}"), " dane"]),
        ("wrong", 69, [&*format!("1 usable: {wrong}"), "cannot be used: no TLS"]),
        ("pkix", 0, ["signed, but none is usable", " unverified"]),
        ("none", 0, ["none that is signed", " unverified"]),
    ] {
        let finished = stage.relay(&format!("[{name}.test]:{port}"), "dane").verb(&["selftest"]);
        assert_eq!(finished.code, Some(code), "{finished:#?}");
        for text in expected {
            assert!(finished.stdout.contains(text), "{text:?} is not in\n{}", finished.stdout);
        }
    }
}
