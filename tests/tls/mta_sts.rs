//! MTA-STS (RFC 8461): what a domain's policy makes of its exchangers, with a name server and a web server of our own,
//! in a network of the test's own, because policies stand at port 443.

use std::net::TcpListener;
use std::path::Path;

use ringpost_tests::certificate::{Authority, Identity, Validity};
use ringpost_tests::daemon::{Builder, field};
use ringpost_tests::message;
use ringpost_tests::namespace::{Place, enter};
use ringpost_tests::need;
use ringpost_tests::skip;
use ringpost_tests::upstream::{Script, Upstream};
use ringpost_tests::web::{Asked, Web, answer};
use ringpost_tests::zone::Zone;

/// Every domain has its exchanger at one address, and its web server at another.
fn records() -> String {
    let domain = |name: &str, record: &str| {
        format!(
            "{name}.test. 300 IN MX 10 mx.{name}.test.\nmx.{name}.test. 300 IN A 127.0.0.1\n\
             mta-sts.{name}.test. 300 IN A 127.0.0.3\n{record}\n"
        )
    };
    let with_record =
        |name: &str| domain(name, &format!("_mta-sts.{name}.test. 300 IN TXT \"v=STSv1; id=1\""));
    let named = ["enforce", "other", "testing", "moved", "html", "untrusted"].map(with_record).concat();
    named + &domain("silent", "")
}

/// What each domain's web server says.
fn policy(asked: &Asked) -> String {
    let host = asked.head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    let domain = host.strip_prefix("mta-sts.").unwrap_or_default();
    let text = |mode: &str, mx: &str| format!("version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: 86400\n");
    assert_eq!(asked.line, "GET /.well-known/mta-sts.txt HTTP/1.1");
    match domain {
        "enforce.test" => answer("200 OK", "text/plain", &text("enforce", "*.enforce.test")),
        "other.test" => answer("200 OK", "text/plain", &text("enforce", "mx.elsewhere.test")),
        "testing.test" => answer("200 OK", "text/plain", &text("testing", "mx.elsewhere.test")),
        "html.test" => answer("200 OK", "text/html", &text("enforce", "mx.elsewhere.test")),
        "moved.test" => {
            "HTTP/1.1 301 Moved\r\nLocation: https://mta-sts.other.test/.well-known/mta-sts.txt\r\n\
                         Content-Length: 0\r\n\r\n"
                .to_owned()
        }
        other => panic!("{other} was not to be asked"),
    }
}

struct Stage {
    zone: Zone,
    authority: Authority,
    /// The web server of all domains.
    web: Web,
}

impl Stage {
    /// The zone, and the policies of these domains under `test`.
    fn of(knotd: &Path, domains: &[&str]) -> Self {
        let zone = Zone::start(knotd, &records(), "", "");
        let authority = Authority::root();
        let names: Vec<String> = domains.iter().map(|domain| format!("mta-sts.{domain}.test")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let listener = TcpListener::bind("127.0.0.3:443").expect("the port is ours alone");
        let web = Web::start(listener, authority.host(&names, Validity::Now).server(), policy);
        Self { zone, authority, web }
    }

    fn relay(&self, upstream: &Upstream, level: &str, sts: &str) -> Builder {
        let builder = Builder::relaying_to("mx")
            .with("EXT_RELAY_PORT", &upstream.address().port().to_string())
            .with("DNS_SERVERS", &self.zone.address().to_string())
            .with("MTA_STS", sts)
            .with("TLS_VERIFY", level);
        let path = self.authority.write(builder.dir()).display().to_string();
        builder.with("UPSTREAM_CA", &path)
    }

    /// The TLS that a mail to a domain was delivered by; `None`: it was not.
    fn sends(&self, upstream: &Upstream, level: &str, sts: &str, domain: &str) -> Option<String> {
        let daemon = self.relay(upstream, level, sts).start();
        let mut client = daemon.client();
        client.command("MAIL FROM:<a@client.test>").assert("250");
        let reply = client.command(&format!("RCPT TO:<b@{domain}>"));
        if reply.code != 250 {
            reply.assert("451");
            return None;
        }
        client.data(&message::ordinary("x\r\n")).assert("250");
        let line = daemon.logged("relayed");
        Some(field(&line, "tls").unwrap_or("none").to_owned())
    }
}

#[test]
fn a_policy_in_force_is_kept_and_none_is_made_up() {
    match enter(&[]) {
        Place::Done => return,
        Place::Unable(why) => skip!("{why}"),
        Place::Inside => {}
    }
    let stage = Stage::of(&need!("knotd"), &["enforce", "other", "testing", "moved", "html"]);
    let exchangers = ["mx.enforce.test", "mx.other.test", "mx.testing.test"];
    let trusted =
        Upstream::start(Script::new().with_tls(stage.authority.host(&exchangers, Validity::Now).server()));
    let stranger = Upstream::start(Script::new().with_tls(Identity::self_signed(&exchangers).server()));
    let clear = Upstream::plain();
    for level in ["may", "encrypt"] {
        let verdict = |upstream, domain| {
            let tls = stage.sends(upstream, level, "yes", domain);
            tls.map(|tls| if tls == "none" { tls } else { tls.rsplit(' ').next().unwrap_or("").to_owned() })
        };
        assert_eq!(verdict(&trusted, "enforce.test").as_deref(), Some("verified"), "{level}");
        assert_eq!(verdict(&stranger, "enforce.test"), None, "{level}: nobody vouches for it");
        assert_eq!(verdict(&clear, "enforce.test"), None, "{level}: no TLS");
        assert_eq!(verdict(&trusted, "other.test"), None, "{level}: not named");
        for domain in ["testing.test", "moved.test", "html.test", "untrusted.test", "silent.test"] {
            assert_eq!(verdict(&stranger, domain).as_deref(), Some("unverified"), "{level} {domain}");
        }
    }
    assert_eq!(stage.sends(&clear, "may", "yes", "testing.test").as_deref(), Some("none"));
    assert_eq!(stage.sends(&clear, "may", "no", "enforce.test").as_deref(), Some("none"), "MTA_STS=no");
    let asked = stage.web.asked().read(|asked| asked.len());
    assert_eq!(
        stage.sends(&clear, "none", "yes", "enforce.test").as_deref(),
        Some("none"),
        "TLS_VERIFY=none"
    );
    assert_eq!(stage.web.asked().read(|all| all.len()), asked, "at `none` nobody is asked");
}

#[test]
fn a_policy_in_force_is_waived_by_tls_required_no() {
    match enter(&[]) {
        Place::Done => return,
        Place::Unable(why) => skip!("{why}"),
        Place::Inside => {}
    }
    let stage = Stage::of(&need!("knotd"), &["enforce"]);
    let clear = Upstream::plain();
    for (level, outcome) in [("may", "delivered"), ("encrypt", "deferred")] {
        let daemon = stage.relay(&clear, level, "yes").with("DELIVERY_PATIENCE", "0").start();
        let mut client = daemon.client();
        client.envelope("a@client.test", &["b@enforce.test"]);
        client.data(&message::ordinary("x\r\n")).assert("250");
        daemon.logged("deferred");
        client.envelope("a@client.test", &["b@enforce.test"]);
        let waived = [b"TLS-Required: No\r\n", &message::ordinary("x\r\n")[..]].concat();
        let reply = client.data(&waived).text();
        let id = reply.rsplit(' ').next().expect("an id");
        let of_it = |line: &str| field(line, "event") == Some(outcome) && field(line, "queue_id") == Some(id);
        daemon.says(of_it);
    }
    assert_eq!(clear.complete(), 1);
}

#[test]
fn selftest_shows_the_policy_and_the_name_that_matches() {
    match enter(&[]) {
        Place::Done => return,
        Place::Unable(why) => skip!("{why}"),
        Place::Inside => {}
    }
    let stage = Stage::of(&need!("knotd"), &["enforce", "other", "testing"]);
    let hosts = ["mx.enforce.test", "mx.other.test", "mx.testing.test", "mx.silent.test"];
    let upstream =
        Upstream::start(Script::new().with_tls(stage.authority.host(&hosts, Validity::Now).server()));
    for (domain, code, expected) in [
        ("enforce", 0, &["mode enforce, mx.enforce.test is named by *.enforce.test", " verified"][..]),
        ("other", 69, &["mode enforce, mx.other.test is not named", "does not name mx.other.test"]),
        ("testing", 0, &["mode testing, mx.testing.test is not named", " unverified"]),
        ("silent", 0, &["MTA-STS: no policy", " unverified"]),
    ] {
        let builder = stage.relay(&upstream, "may", "yes");
        let finished = builder.verb(&["selftest", "--to", &format!("b@{domain}.test")]);
        assert_eq!(finished.code, Some(code), "{finished:#?}");
        for text in expected {
            assert!(finished.stdout.contains(text), "{text:?} is not in\n{}", finished.stdout);
        }
    }
}

#[test]
fn a_known_policy_is_fetched_once() {
    match enter(&[]) {
        Place::Done => return,
        Place::Unable(why) => skip!("{why}"),
        Place::Inside => {}
    }
    let stage = Stage::of(&need!("knotd"), &["enforce"]);
    let host = stage.authority.host(&["mx.enforce.test"], Validity::Now);
    let upstream = Upstream::start(Script::new().with_tls(host.server()));
    let daemon = stage.relay(&upstream, "may", "yes").start();
    for _ in 0..2 {
        let mut client = daemon.client();
        client.command("MAIL FROM:<a@client.test>").assert("250");
        let reply = client.command("RCPT TO:<b@enforce.test>");
        assert_eq!(reply.code, 250, "{}", daemon.log());
        client.data(&message::ordinary("x\r\n")).assert("250");
        assert_eq!(daemon.verb(&["reload"]).code, Some(0), "a reload forgets what the worker knows");
    }
    assert_eq!(stage.web.asked().read(|asked| asked.len()), 1);
    let daemon = daemon.pause().start();
    let mut client = daemon.client();
    client.command("MAIL FROM:<a@client.test>").assert("250");
    client.command("RCPT TO:<b@enforce.test>").assert("250");
    client.data(&message::ordinary("x\r\n")).assert("250");
    assert!(field(&daemon.logged("relayed"), "tls").is_some_and(|tls| tls.ends_with("verified")));
    assert_eq!(stage.web.asked().read(|asked| asked.len()), 1, "not even after a restart");
}
