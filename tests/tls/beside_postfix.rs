//! The same upstreams, the same levels, Debian's Postfix beside ours: what one delivers the other delivers, in clear or
//! in TLS, and what one keeps the other keeps.
//!
//! Postfix falls back to plaintext at `may` only once a mail has waited for a while; it is told to wait a second. Where
//! TLS is required and STARTTLS refused for good it returns the mail; ours keeps it, because whoever stands in the way
//! could make mail come back. It is told to be soft about that.

use std::fmt::Write as _;

use ringpost_tests::certificate::{Authority, Identity, Validity};
use ringpost_tests::client::Client;
use ringpost_tests::message;
use ringpost_tests::postfix::Postfix;
use ringpost_tests::skip;
use ringpost_tests::upstream::{Act, Script, Stage, Upstream};

use crate::levels::{Fate, HOST, fate, relay};

const LEVELS: [&str; 6] = ["none", "may", "encrypt", "fingerprint", "verify", "secure"];

/// A kind of upstream, and the fingerprint by which it is known.
struct Defect {
    what: &'static str,
    script: Box<dyn Fn() -> Script>,
    fingerprint: String,
}

fn showing(what: &'static str, identity: Identity) -> Defect {
    let fingerprint = identity.fingerprint();
    Defect { what, script: Box::new(move || Script::new().with_tls(identity.server())), fingerprint }
}

fn talking(what: &'static str, script: impl Fn() -> Script + 'static) -> Defect {
    Defect { what, script: Box::new(script), fingerprint: "00".repeat(32) }
}

fn defects(authority: &Authority) -> Vec<Defect> {
    let broken = || vec![Act::Say("220 Go".to_owned()), Act::Close];
    let reset = || vec![Act::Raw(b"220 Go\r\n".to_vec()), Act::Reset];
    let injected = || vec![Act::Raw(b"220 Go\r\n250-evil\r\n250 AUTH PLAIN\r\n".to_vec())];
    let offering = || Script::new().offering("STARTTLS");
    vec![
        talking("no STARTTLS", Script::new),
        showing("self-signed", Identity::self_signed(&[HOST])),
        showing("private authority, right name", authority.host(&[HOST], Validity::Now)),
        showing("intermediate", authority.intermediate().host(&[HOST], Validity::Now)),
        showing("wrong name", authority.host(&["other.test"], Validity::Now)),
        showing("expired", authority.host(&[HOST], Validity::Expired)),
        showing("not yet valid", authority.host(&[HOST], Validity::Future)),
        showing(
            "missing intermediate",
            authority.intermediate().host(&[HOST], Validity::Now).without_chain(),
        ),
        talking("handshake broken", move || offering().on(Stage::StartTls, broken())),
        talking("handshake reset", move || offering().on(Stage::StartTls, reset())),
        talking("STARTTLS refused for now", move || offering().on(Stage::StartTls, "454 4.7.0 Not now")),
        talking("STARTTLS unknown", move || offering().on(Stage::StartTls, "502 5.5.1 No")),
        talking("text injected after 220", move || offering().on(Stage::StartTls, injected())),
    ]
}

/// One upstream for Postfix, and how mail gets there.
pub(crate) struct Case {
    /// The recipient's domain, of this case alone.
    pub(crate) domain: String,
    /// Where its mail goes, but for the port: `[host]`, or a domain.
    pub(crate) next_hop: String,
    /// The level, and what it needs.
    pub(crate) policy: String,
    pub(crate) upstream: Upstream,
}

/// A Postfix that knows these cases, with further settings and files.
pub(crate) fn postfix(cases: &[Case], settings: &str, files: &[(&str, &str)]) -> Result<Postfix, String> {
    let (mut transport, mut policies) = (String::new(), String::new());
    for Case { domain, next_hop, policy, upstream } in cases {
        let port = upstream.address().port();
        // Writing to a String cannot fail.
        let _ = writeln!(transport, "{domain} smtp:{next_hop}:{port}");
        let _ = writeln!(policies, "{next_hop}:{port} {policy}");
    }
    let settings = format!(
        "transport_maps = texthash:DIR/transport\nsmtp_tls_policy_maps = texthash:DIR/policy\n\
         smtp_address_preference = ipv4\nsoft_bounce = yes\nminimal_backoff_time = 1s\nmaximal_backoff_time = 1h\n\
         queue_run_delay = 1s\nsmtp_destination_concurrency_failed_cohort_limit = 0\n\
         smtpd_relay_restrictions = permit_mynetworks, reject\nrelay_domains =\n\
         default_transport = error:no such case\nsmtp_tls_connection_reuse = no\n\
         smtp_connection_cache_on_demand = no\n{settings}"
    );
    let mut files = files.to_vec();
    files.extend([("transport", &*transport), ("policy", &*policies)]);
    Postfix::with_files(&settings, &files)
}

/// Hands it one mail for each case.
pub(crate) fn hand_in(postfix: &Postfix, cases: &[Case]) {
    for case in cases {
        let mut client = Client::greeted(postfix.address());
        client.envelope("a@client.test", &[&format!("b@{}", case.domain)]);
        client.data(&message::ordinary("x\r\n")).assert("250");
        client.quit();
    }
}

/// What became of a case's mail at Postfix: what its upstream saw, once Postfix has delivered it or given up; thrice where
/// it may still deliver in clear.
pub(crate) fn fate_beside(postfix: &Postfix, case: &Case) -> Fate {
    let to = format!("to=<b@{}>", case.domain);
    let is_kept = |line: &str| line.contains("status=deferred") || line.contains("status=SOFTBOUNCE");
    let deferrals = |log: &str| log.lines().filter(|line| line.contains(&to) && is_kept(line)).count();
    let is_open = ["may", "dane"].contains(&case.policy.as_str());
    let enough = if is_open { 3 } else { 1 };
    postfix.settles(&to, |log| {
        let sent = log.lines().any(|line| line.contains(&to) && line.contains("status=sent"));
        sent || deferrals(log) >= enough
    });
    if !postfix.log().lines().any(|line| line.contains(&to) && line.contains("status=sent")) {
        return Fate::Deferred;
    }
    let connection = case.upstream.mail().connection;
    let secured =
        case.upstream.record().read(|record| record.connections[connection].handshake == Some(Ok(())));
    if secured { Fate::Tls } else { Fate::Clear }
}

/// The policy of a level, as `smtp_tls_policy_maps` has it.
fn policy(level: &str, fingerprint: &str) -> String {
    let pairs: Vec<&str> = (0..32).map(|at| &fingerprint[2 * at..2 * at + 2]).collect();
    if level == "fingerprint" { format!("{level} match={}", pairs.join(":")) } else { level.to_owned() }
}

#[test]
fn ours_and_postfix_agree_on_every_level_and_defect() {
    let authority = Authority::root();
    let defects = defects(&authority);
    let pairs: Vec<(&Defect, &str)> =
        defects.iter().flat_map(|defect| LEVELS.map(|level| (defect, level))).collect();
    let case = |(number, (defect, level)): (usize, &(&Defect, &str))| Case {
        domain: format!("case{number}.test"),
        next_hop: format!("[{HOST}]"),
        policy: policy(level, &defect.fingerprint),
        upstream: Upstream::start((defect.script)()).for_others(),
    };
    let cases: Vec<Case> = pairs.iter().enumerate().map(case).collect();
    let dir = tempfile::tempdir().expect("a directory");
    let ca = std::fs::read_to_string(authority.write(dir.path())).expect("a file can be read");
    let settings =
        "smtp_tls_CAfile = DIR/ca.pem\nsmtp_tls_fingerprint_digest = sha256\nsmtp_host_lookup = native";
    let postfix = match postfix(&cases, settings, &[("ca.pem", &ca)]) {
        Ok(postfix) => postfix,
        Err(reason) => skip!("{reason}"),
    };
    hand_in(&postfix, &cases);
    let mut differences = Vec::new();
    for (case, (defect, level)) in cases.iter().zip(&pairs) {
        let upstream = Upstream::start((defect.script)());
        let daemon = relay(&upstream, level, Some(&authority), Some(&defect.fingerprint));
        let (ours, theirs) = (fate(&daemon, &upstream), fate_beside(&postfix, case));
        if ours != theirs {
            differences.push(format!("{} at {level}: ours {ours:?}, Postfix {theirs:?}", defect.what));
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
}
