//! The TOML file, files that variables name, credentials.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::ExposeSecret;

use super::{BARE, Given, started};

struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, content: &str, mode: u32) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    fn toml(&self, content: &str) -> Given {
        started(&[]).file(&self.write("ringpost.toml", content, 0o600))
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn every_toml_type_that_fits_is_taken() {
    let given = Scratch::new();
    let given = given.toml(
        r#"
        accepted_networks = ["203.0.113.0/24", "2001:db8::/32"]
        proxy_protocol = "198.51.100.0/24, 198.51.100.1"
        queue_retry = ["1m", "2m"]
        recipients_max = 1_000
        sessions_max = 0x10
        use_tls = true
        tls_incoming_min = 1.3
        incoming_smtp_users = ["a:b c", "d:e"]
        mynetworks = "10.0.0.0/8"
        "#,
    );
    let config = given.config();
    assert!(config.ingress.accepted_networks.contains("2001:db8::1".parse().unwrap()));
    assert_eq!(config.ingress.proxy_protocol.nets().len(), 2);
    assert_eq!(
        (config.spool.retry.len(), config.ingress.recipients_max, config.ingress.sessions_max),
        (2, 1000, 16)
    );
    assert_eq!(config.ingress.logins[0].password.expose_secret(), "b c");
    assert_eq!(config.tls.incoming_min, crate::tls::config::Version::Tls13);
}

#[test]
fn mistakes_in_the_file_name_its_lines() {
    let scratch = Scratch::new();
    let given = scratch.toml("accepted_network = []\n\ntls_verify = \"maybe\"\nworkers = [1, 2]\nWORKERS = 3\nxdp = 1979-05-27\n[tls]\na = 1\n");
    let path = scratch.0.path().join("ringpost.toml").display().to_string();
    let mistakes = given.mistakes();
    for expected in [
        format!("accepted_network ({path}:1): no such key; the nearest is accepted_networks"),
        format!("TLS_VERIFY=\"maybe\" ({path}:3): expected none, may, "),
        format!("WORKERS=\"1\\n2\" ({path}:4): expected a whole number from 1 to 1024, not a list"),
        format!("WORKERS ({path}:5): no such key; the nearest is workers"),
        format!("xdp ({path}:6): expected auto, require or off, not a TOML datetime"),
        format!("tls ({path}:7): no such key"),
    ] {
        assert!(mistakes.iter().any(|mistake| mistake.starts_with(&expected)), "{expected} in {mistakes:#?}");
    }
    assert_eq!(mistakes.len(), 6, "{mistakes:#?}");
}

#[test]
fn a_broken_file_is_told_of_without_showing_its_lines() {
    let mistakes = Scratch::new().toml("outgoing_smtp_password = \"canary\n").mistakes();
    assert!(mistakes[0].starts_with("TOML ("), "{mistakes:#?}");
    assert!(mistakes.iter().all(|mistake| !mistake.contains("canary")), "{mistakes:#?}");
}

#[test]
fn a_file_that_is_no_text_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.write("ringpost.toml", "", 0o600);
    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(started(&[]).file(&path).mistake().ends_with("expected a readable file: expected UTF-8"));
}

#[test]
fn routes_stand_in_the_file_alone() {
    let routes = "[[routes]]\nrecipient_domain = \"example.com\"\nupstream = \"a\"\n";
    Scratch::new().toml(routes).loaded();
    let mistake = Scratch::new().toml(routes).without(BARE).mistake();
    assert!(mistake.contains("routing by domain is not in this build"), "{mistake}");
    Scratch::new().toml("routes = []\n").without(BARE).loaded();
    assert!(started(&[("ROUTES", "x")]).mistake().contains("expected tables, in the TOML file only"));
}

#[test]
fn a_named_file_gives_its_content_less_one_newline() {
    let scratch = Scratch::new();
    let password = scratch.write("password", " p w\n\n", 0o600);
    let given = started(&[
        ("OUTGOING_SMTP_LOGIN", "l"),
        ("OUTGOING_SMTP_PASSWORD_FILE", text(&password)),
        ("OUTGOING_SMTP_AUTH", "required"),
    ]);
    assert_eq!(given.config().egress.login.unwrap().password.expose_secret(), " p w\n");
    let windows = scratch.write("windows", "pw\r\n", 0o600);
    let given = started(&[
        ("OUTGOING_SMTP_LOGIN", "l"),
        ("SMTP_PASSWORD_FILE", text(&windows)),
        ("OUTGOING_SMTP_AUTH", "required"),
    ]);
    assert_eq!(given.config().egress.login.unwrap().password.expose_secret(), "pw");
}

#[test]
fn lists_of_thousands_come_by_a_file_with_comments() {
    let scratch = Scratch::new();
    let mut list = String::from("# those of the north\n10.0.0.0/24 # the first\n\n");
    for number in 0..20_000u32 {
        list += &format!("{}\n", std::net::Ipv4Addr::from(0xC612_0000 + number * 2));
    }
    assert!(list.len() > 128 * 1024);
    let path = scratch.write("networks", &list, 0o644);
    let networks = started(&[("ACCEPTED_NETWORKS_FILE", text(&path))]).config().ingress.accepted_networks;
    assert!(
        networks.contains("198.18.0.2".parse().unwrap()) && !networks.contains("198.18.0.3".parse().unwrap())
    );
    assert!(networks.contains("10.0.0.255".parse().unwrap()));
}

#[test]
fn a_password_may_hold_what_opens_a_comment_elsewhere() {
    let scratch = Scratch::new();
    let path = scratch.write("users", "# people\na:p #1\n", 0o600);
    let logins = started(&[("INCOMING_SMTP_USERS_FILE", text(&path))]).config().ingress.logins;
    assert_eq!(logins.len(), 1);
    assert_eq!(logins[0].password.expose_secret(), "p #1");
}

#[test]
fn an_unreadable_file_is_one_mistake() {
    let mistake = started(&[
        ("OUTGOING_SMTP_LOGIN", "l"),
        ("OUTGOING_SMTP_PASSWORD_FILE", "/nonexistent/pw"),
        ("OUTGOING_SMTP_AUTH", "required"),
    ])
    .mistake();
    let expected = "OUTGOING_SMTP_PASSWORD (environment OUTGOING_SMTP_PASSWORD_FILE=/nonexistent/pw): expected a readable file: ";
    assert!(mistake.starts_with(expected), "{mistake}");
}

#[test]
fn a_secret_that_everybody_may_read_is_warned_of() {
    let scratch = Scratch::new();
    let warned = |mode: u32| {
        let path = scratch.write("password", "pw\n", mode);
        let given = started(&[("OUTGOING_SMTP_PASSWORD_FILE", text(&path))]);
        given.warnings().iter().any(|warning| warning.contains("is a secret and everybody may read it"))
    };
    assert!(warned(0o644));
    assert!(!warned(0o640));
    assert!(!warned(0o600));
    let file = scratch.write("ringpost.toml", "outgoing_smtp_password = \"p\"\n", 0o644);
    assert!(
        started(&[])
            .file(&file)
            .warnings()
            .iter()
            .any(|warning| warning.contains("holds a secret and everybody may read it"))
    );
}

#[test]
fn credentials_of_the_service_manager_are_read_by_name() {
    let scratch = Scratch::new();
    scratch.write("OUTGOING_SMTP_PASSWORD", "pw\n", 0o600);
    scratch.write("other", "x", 0o600);
    let given = started(&[
        ("CREDENTIALS_DIRECTORY", text(scratch.0.path())),
        ("OUTGOING_SMTP_LOGIN", "l"),
        ("OUTGOING_SMTP_AUTH", "required"),
    ]);
    assert_eq!(given.config().egress.login.unwrap().password.expose_secret(), "pw");
}

#[test]
fn a_value_that_is_no_text_is_told_of() {
    use std::os::unix::ffi::OsStringExt;
    let mut given = started(&[]);
    given.sources.environment.push(("RECIPIENTS_MAX".into(), std::ffi::OsString::from_vec(vec![0xff])));
    assert_eq!(given.mistake(), "RECIPIENTS_MAX (environment RECIPIENTS_MAX): expected UTF-8");
}
