//! What is left of passwords in the daemon's memory, and that no core dump takes it away.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringpost_tests::certificate::Identity;
use ringpost_tests::client::Client;
use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::process::{Finished, run};
use ringpost_tests::skip;
use ringpost_tests::skip::found;
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
    daemon.reaches(r#"ringpost_sessions_open{listener="submissions"}"#, 0.0);
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

/// A library that goes in front of the C library: it moves the process to a directory and lets it dump core there, and
/// keeps it from one of the two ways in which it forbids that to itself, or from both.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>
__attribute__((constructor)) static void begin(void) {
    struct rlimit all;
    if (getrlimit(RLIMIT_CORE, &all) || chdir(getenv("SHIM_DIR"))) _exit(99);
    all.rlim_cur = all.rlim_max;
    int (*real)(int, const struct rlimit *) = dlsym(RTLD_NEXT, "setrlimit");
    if (real(RLIMIT_CORE, &all)) _exit(99);
}
int setrlimit(__rlimit_resource_t what, const struct rlimit *limit) {
    if (what == RLIMIT_CORE && getenv("SHIM_WITHOUT_LIMIT")) return 0;
    int (*real)(int, const struct rlimit *) = dlsym(RTLD_NEXT, "setrlimit");
    return real(what, limit);
}
int setrlimit64(__rlimit_resource_t what, const struct rlimit64 *limit) {
    return setrlimit(what, (const struct rlimit *)limit);
}
int prctl(int what, ...) {
    if (what == PR_SET_DUMPABLE && getenv("SHIM_WITHOUT_MARK")) return 0;
    va_list more;
    va_start(more, what);
    unsigned long a = va_arg(more, unsigned long), b = va_arg(more, unsigned long);
    unsigned long c = va_arg(more, unsigned long), d = va_arg(more, unsigned long);
    va_end(more);
    int (*real)(int, ...) = dlsym(RTLD_NEXT, "prctl");
    return real(what, a, b, c, d);
}
"#;

const WITHOUT_LIMIT: &str = "SHIM_WITHOUT_LIMIT";
const WITHOUT_MARK: &str = "SHIM_WITHOUT_MARK";

/// Compiles the library; `None` without a compiler.
fn shim(dir: &Path) -> Option<String> {
    let (source, library) = (dir.join("shim.c"), dir.join("shim.so"));
    std::fs::write(&source, SHIM).expect("a file can be written");
    let mut compiler = Command::new(found("cc")?);
    let finished = run(compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl"));
    (finished.code == Some(0)).then(|| library.display().to_string())
}

/// A crash in the middle of the daemon's life, with these of its two precautions taken away, and the core file.
fn crash(upstream: &Upstream, without: &[&str]) -> Option<(Finished, Option<Vec<u8>>)> {
    let dir = tempfile::tempdir().expect("a directory");
    let library = shim(dir.path())?;
    let daemon = relay(upstream, |builder| {
        let path = builder.dir().join("password");
        std::fs::write(&path, OUTBOUND).expect("a file can be written");
        let builder = builder.with("OUTGOING_SMTP_PASSWORD_FILE", &path.display().to_string());
        let builder = builder.with("INCOMING_SMTP_AUTHPASSWORD", INBOUND);
        let builder =
            builder.with("LD_PRELOAD", &library).with("SHIM_DIR", &dir.path().display().to_string());
        without.iter().fold(builder, |builder, name| builder.with(name, "yes"))
    });
    live(&daemon);
    let id = i32::try_from(daemon.id()).ok().and_then(Pid::from_raw).expect("a process");
    if !without.contains(&WITHOUT_MARK) {
        // Whoever has CAP_SYS_RESOURCE can raise the limit again from outside; what is left is the mark.
        prlimit(Some(id), Resource::Core, Rlimit { current: None, maximum: None }).ok();
    }
    kill_process(id, Signal::ABORT).expect("a signal is sent");
    let finished = daemon.finish();
    let files = std::fs::read_dir(dir.path()).expect("a directory").flatten().map(|entry| entry.path());
    let is_core =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("core"));
    let core = files.filter(is_core).find_map(|path| std::fs::read(path).ok());
    Some((finished, core))
}

/// The parts of a core file (ELF, 64 bits) that were memory, without the notes that hold registers.
fn memory_of(core: &[u8]) -> Vec<&[u8]> {
    let number = |at: usize| usize::try_from(u64::from_le_bytes(core[at..at + 8].try_into().expect("eight")));
    let number = |at| number(at).expect("a place in a file that is in memory");
    let (headers, count) = (number(32), usize::from(u16::from_le_bytes([core[56], core[57]])));
    let headers = (0..count).map(|index| headers + 56 * index);
    let is_memory = |header: &usize| core[*header..*header + 4] == 1u32.to_le_bytes();
    headers.filter(is_memory).map(|header| &core[number(header + 8)..][..number(header + 32)]).collect()
}

#[test]
fn either_precaution_keeps_a_crash_from_leaving_a_core_dump() {
    let identity = Identity::self_signed(&["localhost"]);
    let upstream =
        Upstream::start(Script::new().with_tls(identity.server()).offering_inside("AUTH PLAIN LOGIN"));
    let Some((finished, core)) = crash(&upstream, &[WITHOUT_LIMIT, WITHOUT_MARK]) else {
        skip!("there is no C compiler")
    };
    if !finished.has_dumped_core {
        skip!("this machine dumps no cores, by core_pattern or by limits");
    }
    for without in [&[][..], &[WITHOUT_LIMIT], &[WITHOUT_MARK]] {
        let (finished, core) = crash(&upstream, without).expect("there is a compiler");
        assert_eq!((finished.code, finished.has_dumped_core), (None, false), "{without:?}");
        assert!(core.is_none(), "{without:?}");
    }
    // What a core would tell where neither holds: the passwords in force, but nothing of what clients have said. That is of
    // memory: a vector register of a thread that rests still has what it has copied last.
    let Some(core) = core else {
        skip!("the core went elsewhere, by core_pattern: its content is not looked at")
    };
    let memory = memory_of(&core);
    let has =
        |needle: &str| memory.iter().any(|part| memchr::memmem::find(part, needle.as_bytes()).is_some());
    assert!(has(OUTBOUND), "it is a core of this daemon");
    for gone in [WRONG, &base64(WRONG)[8..], &base64(INBOUND)[8..], &base64(OUTBOUND)[8..]] {
        assert!(!has(gone), "{gone}");
    }
}
