//! What is left of passwords in the daemon's memory, and that no core dump takes it away.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::process::Command;

use ringpost_tests::certificate::Identity;
use ringpost_tests::client::Client;
use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::process::{Finished, Process};
use ringpost_tests::skip;
use ringpost_tests::upstream::{Script, Upstream};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

/// Of length 24, so that base64 has no padding, and without a common start with each other.
const INBOUND: &str = "user-canary-in-the-mine!";
const OUTBOUND: &str = "host-sparrow-on-the-roof";
const WRONG: &str = "oops-parrot-in-the-cage!";

fn base64(text: &str) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let sextets = |group: &[u8]| {
        let bits = group.iter().fold(0usize, |bits, octet| bits << 8 | usize::from(*octet));
        [18, 12, 6, 0].map(|shift| char::from(ALPHABET[bits >> shift & 63]))
    };
    text.as_bytes().chunks_exact(3).flat_map(sextets).collect()
}

/// How often each needle stands in memory that the daemon may write to; none where this process may not look.
fn counts(daemon: &Daemon, needles: &[&[u8]]) -> Option<Vec<usize>> {
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", daemon.id())).ok()?;
    let memory = File::open(format!("/proc/{}/mem", daemon.id())).ok()?;
    let mut counts = vec![0; needles.len()];
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        let mut octets = vec![0; usize::try_from(end - start).ok()?];
        // What the kernel keeps for itself (rings) cannot be read from outside.
        let read = memory.read_at(&mut octets, start).unwrap_or(0);
        for (needle, count) in needles.iter().zip(&mut counts) {
            *count += memchr::memmem::find_iter(&octets[..read], needle).count();
        }
    }
    Some(counts)
}

/// A relay to an upstream that wants a login, with the passwords and the key as this says.
fn relay(upstream: &Upstream, secrets: impl Fn(Builder) -> Builder) -> Daemon {
    let builder = Builder::relaying_to(&upstream.host())
        .with("TLS_VERIFY", "encrypt")
        .without("OUTGOING_SMTP_AUTH")
        .with("OUTGOING_SMTP_LOGIN", "user")
        .with("LISTEN_SUBMISSIONS", "127.0.0.1:0")
        .with("INCOMING_SMTP_AUTHLOGIN", "user")
        .with("INCOMING_SMTP_AUTHDOM", "client.test");
    secrets(builder).start()
}

/// Clients that log in with a wrong and with the right password, mail to the upstream, and reloads.
fn live(daemon: &Daemon) {
    for _ in 0..2 {
        let mut client = Client::connect_inside(daemon.listener("submissions"));
        client.command("EHLO client.test").assert("250");
        for (password, answer) in [(WRONG, "535"), (INBOUND, "235")] {
            client.command("AUTH LOGIN dXNlckBjbGllbnQudGVzdA==").assert("334");
            client.command(&base64(password)).assert(answer);
        }
        client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
        client.quit();
        assert_eq!(daemon.verb(&["reload"]).code, Some(0));
    }
    let mut client = Client::connect_inside(daemon.listener("submissions"));
    client.command("EHLO client.test").assert("250");
    client.command(&format!("AUTH PLAIN {}", base64(&format!("\0{WRONG}\0{WRONG}.")))).assert("535");
    client.quit();
}

#[test]
fn a_password_stays_in_memory_once_for_each_use_and_nothing_stays_of_a_login() {
    let identity = Identity::self_signed(&["localhost"]);
    let script = Script::new().with_tls(identity.server()).offering_inside("AUTH PLAIN LOGIN");
    let key = identity.key_pem();
    // A line of the key as PEM, and its number itself as it stands in the key's DER.
    let (line, number) = (key.lines().nth(1).expect("a key"), identity.key_der()[36..60].to_vec());
    let logins = [base64(INBOUND), base64(WRONG), base64(&format!("\0user\0{OUTBOUND}")), base64(OUTBOUND)];
    let needles = [INBOUND, OUTBOUND, line].map(str::as_bytes).into_iter().chain([&*number]);
    // Of a login whose octets are cut elsewhere, the middle.
    let needles = needles.chain([WRONG.as_bytes()]).chain(logins.iter().map(|text| &text.as_bytes()[8..]));
    let needles: Vec<&[u8]> = needles.collect();
    let upstream = Upstream::start(script);
    let in_environment = relay(&upstream, |builder| {
        let builder =
            builder.with("INCOMING_SMTP_AUTHPASSWORD", INBOUND).with("OUTGOING_SMTP_PASSWORD", OUTBOUND);
        builder.with("SSL_CERT_PEM", &identity.chain_pem()).with("SSL_CERT_KEY", &key)
    });
    let in_files = relay(&upstream, |mut builder| {
        for (name, text) in [
            ("INCOMING_SMTP_AUTHPASSWORD", INBOUND),
            ("OUTGOING_SMTP_PASSWORD", OUTBOUND),
            ("SSL_CERT_KEY", &key),
        ] {
            let path = builder.dir().join(name);
            std::fs::write(&path, text).expect("a file can be written");
            builder = builder.with(&format!("{name}_FILE"), &path.display().to_string());
        }
        builder.with("SSL_CERT_PEM", &identity.chain_pem())
    });
    // In force for comparison and for the next login; the environment's own once more, for reloads. rustls keeps the key
    // in its own form.
    for (daemon, expected) in [(in_environment, [2, 2, 1]), (in_files, [1, 1, 0])] {
        live(&daemon);
        let Some(counts) = counts(&daemon, &needles) else { skip!("this process may not look into others") };
        assert_eq!(counts[..3], expected, "passwords and key");
        assert_eq!(counts[3..], [0; 6], "the key's number, and logins as they were said");
    }
}

/// Crashes a process that may dump core by its limits, where those can be raised again after it has lowered them.
#[track_caller]
fn crash(process: u32, end: impl FnOnce() -> Finished) -> Finished {
    let id = i32::try_from(process).ok().and_then(Pid::from_raw).expect("a process");
    // Without CAP_SYS_RESOURCE a limit stays where the process has put it.
    prlimit(Some(id), Resource::Core, Rlimit { current: None, maximum: None }).ok();
    kill_process(id, Signal::ABORT).expect("a signal is sent");
    end()
}

#[test]
fn a_crash_leaves_no_core_dump_where_that_of_others_leaves_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let other = Process::start(Command::new("sleep").arg("1000").current_dir(dir.path()));
    if !crash(other.id(), || other.finish()).has_dumped_core {
        skip!("this machine dumps no cores");
    }
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let finished = crash(daemon.id(), || daemon.finish());
    assert_eq!((finished.code, finished.has_dumped_core), (None, false));
}
