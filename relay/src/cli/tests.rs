//! The promises of the command line.

use super::*;

fn parsed(line: &str) -> Result<Arguments, clap::Error> {
    Arguments::try_parse_from(std::iter::once("ringpost").chain(line.split_whitespace()))
}

/// Whether two exit codes are the same; they can only be printed.
fn assert_code(code: ExitCode, expected: u8) {
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::from(expected)));
}

fn called(line: &str) -> ExitCode {
    main(line.split_whitespace().map(OsString::from))
}

#[test]
fn every_verb_of_the_interface_is_understood() {
    for line in [
        "",
        "run",
        "check",
        "config",
        "status",
        "status --json",
        "stop",
        "reload",
        "reload --confirm 60s",
        "confirm",
        "flush",
        "queue list",
        "queue list --json",
        "queue show X",
        "queue hold X Y",
        "queue release --all",
        "queue delete --sender a@b",
        "queue requeue --recipient a@b",
        "queue bounce --domain b --older 2h",
        "queue fsck",
        "gate status",
        "gate drops",
        "gate ban 192.0.2.1 --for 1h",
        "gate unban 2001:db8::1",
        "gate bans",
        "gate trace",
        "explain 192.0.2.1",
        "explain 192.0.2.1:25 --from a@b --to c@d",
        "explain [2001:db8::1]:587",
        "top",
        "selftest",
        "selftest --to a@b",
        "version",
    ] {
        assert!(parsed(line).is_ok(), "{line}: {:?}", parsed(line).err());
    }
}

#[test]
fn wrong_usage_is_64() {
    for line in [
        "ringpost dance",
        "ringpost --nonsense",
        "ringpost queue",
        "ringpost queue hold",
        "ringpost gate ban",
        "ringpost gate ban localhost",
        "ringpost explain",
        "ringpost explain host:25",
        "ringpost reload --confirm 60",
        "ringpost queue delete --all X",
        "ringpost --set",
    ] {
        assert_code(called(line), 64);
    }
}

#[test]
fn later_verbs_say_that_they_are_not_in_this_build() {
    assert_code(called("ringpost top"), 69);
}

#[test]
fn the_names_of_old_are_answered() {
    assert_code(called("newaliases"), 0);
    assert_code(called("/usr/sbin/sendmail -bi"), 0);
    assert_code(called("/usr/lib/sendmail"), 64);
    assert_code(called("sendmail -Z"), 64);
}

#[test]
fn help_and_version_are_0() {
    assert_code(called("ringpost --help"), 0);
    assert_code(called("ringpost --version"), 0);
    assert_code(called("ringpost version"), 0);
}

#[test]
fn options_count_before_and_after_the_verb() {
    let arguments = parsed("--set a=1 --config x check --set b=2 --config y").unwrap();
    let Some(Verb::Check { common }) = arguments.verb else { panic!("another verb") };
    let together = arguments.common.and(common);
    assert_eq!(together.set, ["a=1", "b=2"]);
    assert_eq!(together.config, Some("y".into()));
}

#[test]
fn version_tells_commit_gate_and_abilities() {
    let mut out = Vec::new();
    assert_code(version(&[("io_uring", true), ("bpf", false)], &mut out), 0);
    let text = String::from_utf8(out).unwrap();
    assert!(text.starts_with(concat!("ringpost ", env!("CARGO_PKG_VERSION"), " (")), "{text}");
    assert!(text.contains("\ngate: ") && text.contains("\ntls: "), "{text}");
    assert!(text.contains("\nio_uring: yes\nbpf: no\n"), "{text}");
    assert!(text.contains("\nxdp: ") && text.contains("\nxdp-multi-buffer: "), "{text}");
}

fn sources(set: &[&str]) -> Sources {
    Sources { set: set.iter().map(|&one| one.to_owned()).collect(), ..Sources::default() }
}

#[test]
fn check_prints_all_mistakes_and_is_78() {
    let mut out = Vec::new();
    let wrong = sources(&[
        "TLS_VERIFY=maybe",
        "ACCEPTED_NETWORKS=10.0.0.0/33 10.0.0/8",
        "WORKERS=0",
        "XDP_INTERFACE=eth0",
    ]);
    assert_code(check(&wrong, &mut out), 78);
    let text = String::from_utf8(out).unwrap();
    for part in [
        "TLS_VERIFY=\"maybe\"",
        "ACCEPTED_NETWORKS=\"10.0.0.0/33\"",
        "ACCEPTED_NETWORKS=\"10.0.0/8\"",
        "WORKERS=\"0\"",
        "XDP_INTERFACES",
        "EXT_RELAY_HOST: missing",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn check_of_a_right_configuration_is_0() {
    let mut out = Vec::new();
    assert_code(check(&sources(&["EXT_RELAY_HOST=[192.0.2.1]:2525", "OUTGOING_SMTP_AUTH=off"]), &mut out), 0);
    assert!(String::from_utf8(out).unwrap().contains("may run: 0 mistakes"));
}
