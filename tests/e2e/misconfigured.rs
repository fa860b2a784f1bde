//! Misspelled or impossible configuration never runs, and says why.

use ringpost_tests::daemon::Builder;

/// The output of a daemon that must refuse to start with this code.
#[track_caller]
fn refused(builder: Builder, code: i32) -> String {
    match builder.try_start() {
        Ok(daemon) => panic!("it runs: {}", daemon.log()),
        Err(finished) => {
            assert_eq!(finished.code, Some(code), "{finished:#?}");
            format!("{}{}", finished.stdout, finished.stderr)
        }
    }
}

fn relay() -> Builder {
    Builder::relaying_to("[127.0.0.1]:25")
}

#[test]
fn gives_the_nearest_right_name() {
    for (wrong, right) in [("ACCEPTED_NETWORK", "ACCEPTED_NETWORKS"), ("XDP_INTERFACE", "XDP_INTERFACES")] {
        let said = refused(relay().with(wrong, "10.0.0.0/8"), 78);
        assert!(said.contains(wrong) && said.contains(right), "{said}");
    }
}

#[test]
fn names_variable_value_and_what_is_expected() {
    let wrong = [
        ("ACCEPTED_NETWORKS", "10.0.0.0/33"),
        ("LISTEN_SMTP", "nowhere"),
        ("TLS_VERIFY", "maybe"),
        ("COMMAND_TIMEOUT", "5 parsecs"),
        ("MESSAGE_SIZE_MAX", "big"),
        ("USE_TLS", "perhaps"),
        ("BARE_NEWLINE", "sometimes"),
        ("EXT_RELAY_PORT", "99999"),
        ("WORKERS", "-1"),
    ];
    for (name, value) in wrong {
        let said = refused(relay().with(name, value), 78);
        assert!(said.contains(name) && said.contains(value), "{name}={value}: {said}");
    }
}

#[test]
fn check_tells_all_mistakes_at_once() {
    let builder =
        relay().with("ACCEPTED_NETWORKS", "nonsense").with("WORKERS", "many").with("LISTEN_SMPT", "off");
    let checked = builder.verb(&["check"]);
    assert_eq!(checked.code, Some(78), "{checked:?}");
    let said = format!("{}{}", checked.stdout, checked.stderr);
    for name in ["ACCEPTED_NETWORKS", "WORKERS", "LISTEN_SMPT", "LISTEN_SMTP"] {
        assert!(said.contains(name), "{name} is missing: {said}");
    }
    assert_eq!(relay().verb(&["check"]).code, Some(0));
}

#[test]
fn wants_a_login_or_a_word_that_there_is_none() {
    let said = refused(relay().without("OUTGOING_SMTP_AUTH"), 78);
    assert!(said.contains("OUTGOING_SMTP_AUTH"), "{said}");
}

#[test]
fn wants_somewhere_to_relay_to() {
    let said = refused(relay().without("EXT_RELAY_HOST"), 78);
    assert!(said.contains("EXT_RELAY_HOST"), "{said}");
}

#[test]
fn usage_errors_are_64() {
    for words in [&["nonsense"][..], &["run", "--nonsense"], &["explain"]] {
        assert_eq!(relay().verb(words).code, Some(64), "{words:?}");
    }
}

#[test]
fn config_shows_no_secret() {
    let builder = relay().with("OUTGOING_SMTP_LOGIN", "me").with("OUTGOING_SMTP_PASSWORD", "hunter2");
    let shown = builder.without("OUTGOING_SMTP_AUTH").verb(&["config"]);
    assert!(!format!("{}{}", shown.stdout, shown.stderr).contains("hunter2"), "{shown:?}");
    let shown = relay().verb(&["config"]);
    assert_eq!(shown.code, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("relay_host_name = \"relay.test\""), "{shown:?}");
}

#[test]
fn a_taken_port_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    match relay().with("LISTEN_SMTP", &address).try_start() {
        Ok(daemon) => panic!("it runs: {}", daemon.log()),
        Err(finished) => {
            assert!(finished.code.is_some_and(|code| code != 0), "{finished:#?}");
            assert!(format!("{}{}", finished.stdout, finished.stderr).contains(&address), "{finished:#?}");
        }
    }
}
