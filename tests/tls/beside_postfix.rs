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

/// One upstream for Postfix, and the domain that leads there.
struct Case {
    defect: usize,
    level: usize,
    upstream: Upstream,
}

impl Case {
    fn domain(&self) -> String {
        format!("d{}l{}.test", self.defect, self.level)
    }
}

fn postfix(cases: &[Case], defects: &[Defect], authority: &Authority) -> Result<Postfix, String> {
    let (mut transport, mut policy) = (String::new(), String::new());
    for case in cases {
        let (port, level) = (case.upstream.address().port(), LEVELS[case.level]);
        let fingerprint = &defects[case.defect].fingerprint;
        let pairs: Vec<&str> = (0..32).map(|at| &fingerprint[2 * at..2 * at + 2]).collect();
        let attributes =
            if level == "fingerprint" { format!(" match={}", pairs.join(":")) } else { String::new() };
        // Writing to a String cannot fail.
        let _ = writeln!(transport, "{} smtp:[{HOST}]:{port}", case.domain());
        let _ = writeln!(policy, "[{HOST}]:{port} {level}{attributes}");
    }
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    let ca = std::fs::read_to_string(authority.write(dir.path())).map_err(|error| error.to_string())?;
    let settings = "transport_maps = texthash:DIR/transport\nsmtp_tls_policy_maps = texthash:DIR/policy\n\
         smtp_tls_CAfile = DIR/ca.pem\nsmtp_tls_fingerprint_digest = sha256\nsmtp_host_lookup = native\n\
         smtp_address_preference = ipv4\nsoft_bounce = yes\nminimal_backoff_time = 1s\nmaximal_backoff_time = 1s\n\
         queue_run_delay = 1s\nsmtp_destination_concurrency_failed_cohort_limit = 0\n\
         smtpd_relay_restrictions = permit_mynetworks, reject\nrelay_domains =\n\
         default_transport = error:no such case\nsmtp_tls_connection_reuse = no\n\
         smtp_connection_cache_on_demand = no";
    let files = [("transport", &*transport), ("policy", &*policy), ("ca.pem", &*ca)];
    Postfix::with_files(settings, &files)
}

/// What became of a case's mail at Postfix: what its upstream saw, once Postfix has delivered it or given up thrice.
fn fate_beside(postfix: &Postfix, case: &Case) -> Fate {
    let to = format!("to=<b@{}>", case.domain());
    let is_kept = |line: &str| line.contains("status=deferred") || line.contains("status=SOFTBOUNCE");
    let deferrals = |log: &str| log.lines().filter(|line| line.contains(&to) && is_kept(line)).count();
    postfix.settles(&to, |log| {
        let sent = log.lines().any(|line| line.contains(&to) && line.contains("status=sent"));
        sent || deferrals(log) >= 3
    });
    if !postfix.log().lines().any(|line| line.contains(&to) && line.contains("status=sent")) {
        return Fate::Deferred;
    }
    let connection = case.upstream.mail().connection;
    let secured =
        case.upstream.record().read(|record| record.connections[connection].handshake == Some(Ok(())));
    if secured { Fate::Tls } else { Fate::Clear }
}

#[test]
fn ours_and_postfix_agree_on_every_level_and_defect() {
    let authority = Authority::root();
    let defects = defects(&authority);
    let cases: Vec<Case> = (0..defects.len())
        .flat_map(|defect| (0..LEVELS.len()).map(move |level| (defect, level)))
        .map(|(defect, level)| Case {
            defect,
            level,
            upstream: Upstream::start((defects[defect].script)()).for_others(),
        })
        .collect();
    let postfix = match postfix(&cases, &defects, &authority) {
        Ok(postfix) => postfix,
        Err(reason) => skip!("{reason}"),
    };
    for case in &cases {
        let mut client = Client::greeted(postfix.address());
        client.envelope("a@client.test", &[&format!("b@{}", case.domain())]);
        client.data(&message::ordinary("x\r\n")).assert("250");
        client.quit();
    }
    let mut differences = Vec::new();
    for case in &cases {
        let defect = &defects[case.defect];
        let level = LEVELS[case.level];
        let upstream = Upstream::start((defect.script)());
        let daemon = relay(&upstream, level, Some(&authority), Some(&defect.fingerprint));
        let (ours, theirs) = (fate(&daemon, &upstream), fate_beside(&postfix, case));
        if ours != theirs {
            differences.push(format!("{} at {level}: ours {ours:?}, Postfix {theirs:?}", defect.what));
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
}
