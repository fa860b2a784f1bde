//! Command line over environment over credentials over the file over the default.

use super::started;

#[test]
fn starts_in_this_build_with_an_upstream_that_needs_no_login() {
    let warnings = started(&[]).today().warnings();
    let about: Vec<&str> = warnings.iter().filter_map(|warning| warning.split(':').next()).collect();
    assert_eq!(about, ["LISTEN_SUBMISSION", "LISTEN_SUBMISSIONS", "DELIVERY_PATIENCE", "TLS_VERIFY", "XDP"]);
}

#[test]
fn command_line_comes_before_the_environment() {
    let given = started(&[("RECIPIENTS_MAX", "5")]).set("recipients_max=7");
    assert_eq!(given.loaded().config.ingress.recipients_max, 7);
    let mistakes = started(&[("RECIPIENTS_MAX", "5")]).set("recipients_max=many").mistakes();
    assert_eq!(
        mistakes,
        ["RECIPIENTS_MAX=\"many\" (--set RECIPIENTS_MAX): expected a whole number from 1 to 4294967295"]
    );
}
