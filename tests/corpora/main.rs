//! The fuzzing corpora, replayed by plain cargo: what was once found stays found, on stable and in seconds.

use std::fs;
use std::path::PathBuf;

use ringpost_tests::dialog::{Dialog, Turn};
use ringpost_tests::fuzz;
use ringpost_tests::verdict::fuzz_verdict;

type Target = fn(&[u8]);

/// Every target by the name of its file.
const TARGETS: &[(&str, Target)] = &[
    ("body", fuzz::fuzz_body),
    ("command", fuzz::fuzz_command),
    ("config", fuzz::fuzz_config),
    ("header", fuzz::fuzz_header),
    ("line", fuzz::fuzz_line),
    ("path", fuzz::fuzz_path),
    ("proxy", fuzz::fuzz_proxy),
    ("reply", fuzz::fuzz_reply),
    ("session", fuzz::fuzz_session),
    ("verdict", fuzz_verdict),
];

fn fuzz_folder(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", name].iter().collect()
}

/// The files of a folder by name, without their ending.
fn names(folder: &PathBuf) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry.expect("an entry").path().file_stem().unwrap_or_default().to_string_lossy().into_owned()
        })
        .collect();
    names.sort();
    names
}

#[test]
fn every_corpus_is_replayed() {
    for (name, target) in TARGETS {
        let folder = fuzz_folder("corpus").join(name);
        for file in fs::read_dir(&folder).expect("each target has a corpus") {
            let path = file.expect("an entry").path();
            println!("{}", path.display());
            target(&fs::read(path).expect("a file"));
        }
    }
}

#[test]
fn every_target_has_a_corpus_and_is_replayed() {
    let known: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names(&fuzz_folder("targets")), known);
    assert_eq!(names(&fuzz_folder("corpus")), known);
}

#[test]
fn what_the_dialogs_say_is_a_corpus_too() {
    for dialog in Dialog::all().expect("dialogs that can be read") {
        let said = dialog.turns.iter().filter_map(|turn| match turn {
            Turn::Client(octets) => Some(octets.as_slice()),
            Turn::Server(_) | Turn::Tls => None,
        });
        let said: Vec<u8> = said.flatten().copied().collect();
        println!("{}", dialog.name);
        fuzz::fuzz_session(&said);
        said.split(|octet| *octet == b'\n').for_each(fuzz::fuzz_command);
    }
}
