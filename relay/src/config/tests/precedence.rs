//! Command line over environment over credentials over the file over the default.

use std::fs;

use super::started;

fn recipients_max(given: &super::Given) -> u32 {
    given.config().ingress.recipients_max
}

#[test]
fn starts_in_this_build_with_an_upstream_that_needs_no_login() {
    started(&[]).today().loaded();
}

#[test]
fn each_source_comes_before_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let credentials = directory.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    let file = directory.path().join("ringpost.toml");
    fs::write(&file, "recipients_max = 1\n").unwrap();
    fs::write(credentials.join("RECIPIENTS_MAX"), "2\n").unwrap();
    let named = directory.path().join("named");
    fs::write(&named, "3\n").unwrap();
    let (credentials, named) = (credentials.to_str().unwrap(), named.to_str().unwrap());

    assert_eq!(recipients_max(&started(&[])), 1000);
    assert_eq!(recipients_max(&started(&[]).file(&file)), 1);
    let with_credentials = [("CREDENTIALS_DIRECTORY", credentials)];
    assert_eq!(recipients_max(&started(&with_credentials).file(&file)), 2);
    let with_named = [with_credentials[0], ("RECIPIENTS_MAX_FILE", named)];
    assert_eq!(recipients_max(&started(&with_named).file(&file)), 3);
    let with_all = [with_named[0], with_named[1], ("RECIPIENTS_MAX", "4")];
    assert_eq!(recipients_max(&started(&with_all).file(&file)), 4);
    assert_eq!(recipients_max(&started(&with_all).file(&file).set("recipients_max=5")), 5);
    assert_eq!(recipients_max(&started(&with_all).set(&format!("RECIPIENTS_MAX_FILE={named}"))), 3);
}

#[test]
fn of_several_on_the_command_line_the_last_is_meant() {
    assert_eq!(recipients_max(&started(&[]).set("RECIPIENTS_MAX=1").set("recipients_max=2")), 2);
}

#[test]
fn a_value_before_it_hides_a_wrong_one() {
    assert_eq!(recipients_max(&started(&[("RECIPIENTS_MAX", "many")]).set("RECIPIENTS_MAX=2")), 2);
}

#[test]
fn the_right_name_comes_before_an_older_one_and_its_file() {
    let networks = [
        ("ACCEPTED_NETWORKS", "10.0.0.0/8"),
        ("MYNETWORKS", "0.0.0.0/0"),
        ("ACCEPTED_NETWORKS_FILE", "/nonexistent"),
    ];
    let given = started(&networks);
    assert!(!given.config().ingress.accepted_networks.contains("192.0.2.1".parse().unwrap()));
    let warnings = given.warnings();
    for name in ["MYNETWORKS", "ACCEPTED_NETWORKS_FILE"] {
        let expected = format!("{name}: not read: ACCEPTED_NETWORKS says the same and comes first");
        assert!(warnings.contains(&expected), "{warnings:#?}");
    }
}

#[test]
fn an_empty_value_is_none_and_the_next_source_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ringpost.toml");
    fs::write(&file, "recipients_max = 7\naccepted_networks = \"203.0.113.0/24\"\n").unwrap();
    assert_eq!(recipients_max(&started(&[("RECIPIENTS_MAX", " ")]).file(&file)), 7);
    let networks = started(&[("ACCEPTED_NETWORKS", "")]).file(&file).config().ingress.accepted_networks;
    assert!(!networks.contains("203.0.113.1".parse().unwrap()), "an empty list is written on purpose");
}

#[test]
fn the_file_is_named_by_option_then_by_environment_then_by_default() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str, value: u32| {
        let path = directory.path().join(name);
        fs::write(&path, format!("recipients_max = {value}\n")).unwrap();
        path
    };
    let (option, environment, default) = (path("a", 1), path("b", 2), path("c", 3));
    let by_environment = [("RINGPOST_CONFIG", environment.to_str().unwrap())];
    assert_eq!(recipients_max(&started(&by_environment).file(&option)), 1);
    let mut given = started(&by_environment);
    given.sources.file_default = default.clone();
    assert_eq!(recipients_max(&given), 2);
    let mut given = started(&[]);
    given.sources.file_default = default;
    assert_eq!(recipients_max(&given), 3);
    let missing = started(&[("RINGPOST_CONFIG", "/nonexistent/x.toml")]).mistake();
    assert!(
        missing.starts_with("RINGPOST_CONFIG=\"/nonexistent/x.toml\": expected a readable file: "),
        "{missing}"
    );
    let missing = started(&[]).file("/nonexistent/x.toml".as_ref()).mistake();
    assert!(missing.starts_with("--config=\"/nonexistent/x.toml\": expected a readable file: "), "{missing}");
}

#[test]
fn the_control_socket_is_found_in_a_wrong_configuration() {
    let given = started(&[("TLS_VERIFY", "maybe"), ("CONTROL_SOCKET", "/run/x.sock")]);
    assert_eq!(super::super::control_socket(&given.sources).to_str(), Some("/run/x.sock"));
    assert_eq!(
        super::super::control_socket(&started(&[]).sources).to_str(),
        Some("/run/ringpost/control.sock")
    );
}
