//! Every dialog of this folder, held with the server machine: whole, one octet at a time and at random cuts, with a
//! driver that answers recipients at once and one that answers them in groups, with bodies in both forms.
//!
//! The daemon holds the dialogs marked `live` in the end-to-end suite.

use proptest::prelude::*;
use ringpost::smtp::body::Form;
use ringpost_tests::dialog::Dialog;
use ringpost_tests::dialog::run::{Manner, Recipients, check};

fn dialogs() -> Vec<Dialog> {
    let dialogs = Dialog::all().unwrap_or_else(|mistake| panic!("{mistake}"));
    assert!(dialogs.len() >= 40, "only {} dialogs", dialogs.len());
    dialogs
}

/// Holds every dialog in every manner with these cuts; tells all that went wrong.
fn check_all(cuts: &[usize]) {
    let mut wrong = Vec::new();
    for dialog in dialogs() {
        for recipients in [Recipients::AtOnce, Recipients::Postponed] {
            for form in [Form::Plain, Form::Stuffed] {
                let manner = Manner { cuts: cuts.to_vec(), recipients, form };
                wrong.extend(
                    check(&dialog, &manner).err().map(|what| format!("{recipients:?} {form:?}: {what}")),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_dialog_holds_in_one_piece() {
    check_all(&[usize::MAX]);
}

#[test]
fn every_dialog_holds_octet_by_octet() {
    check_all(&[1]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 4, max_shrink_iters: 8, ..ProptestConfig::default() })]

    #[test]
    fn every_dialog_holds_at_random_cuts(cuts in prop::collection::vec(1usize..60, 1..50)) {
        check_all(&cuts);
    }
}

#[test]
fn the_daemon_has_dialogs_to_hold() {
    let live = dialogs().iter().filter(|dialog| dialog.is_live).count();
    assert!(live >= 20, "only {live} dialogs are live");
}
