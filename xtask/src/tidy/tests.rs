//! Snapshots of what tidy says about small trees made up here: one for each rule, and one clean tree.

use super::*;

fn tree(files: &[(&str, &str)], allowed: &str) -> String {
    let source =
        |(path, text): &(&str, &str)| Source { path: (*path).to_owned(), octets: text.as_bytes().to_vec() };
    let sources: Vec<Source> = files.iter().map(source).collect();
    let mut findings = judge(&sources, &["relay/src/lib.rs".to_owned()], allowed);
    findings.sort();
    findings.iter().map(|finding| format!("{finding}\n")).collect()
}

const LIB: (&str, &str) =
    ("relay/src/lib.rs", "//! Top.\npub mod limits;\npub mod smtp;\npub mod spool;\npub mod ingress;\n");

#[test]
fn says_nothing_about_a_clean_tree() {
    let files = [
        LIB,
        ("relay/src/limits.rs", "//! Bounds (RFC 5321 §4.5.3.1).\n"),
        ("relay/src/smtp/mod.rs", "//! Protocol.\npub mod line;\nuse crate::limits;\n"),
        ("relay/src/smtp/line.rs", "//! Lines.\nuse super::super::limits::A;\n"),
        ("relay/src/spool.rs", "//! Disk.\nuse crate::{limits::{A, B}, smtp};\nasync fn f() {}\n"),
        ("relay/src/ingress.rs", "//! Inbound.\nuse crate::smtp::line;\n"),
    ];
    assert_eq!(tree(&files, ""), "");
}

#[test]
fn keeps_the_layers() {
    let files = [
        LIB,
        ("relay/src/limits.rs", "//! Bounds.\n// crate::smtp in a remark is none.\nuse crate::ingress::X;\n"),
        ("relay/src/smtp.rs", "//! Protocol.\nuse crate::{limits, spool};\nasync fn f() {}\nuse std::fs;\n"),
        (
            "relay/src/spool.rs",
            "//! Disk.\nuse super::ingress;\n#[cfg(test)]\nmod tests {\n use crate::ingress;\n}\n",
        ),
        ("relay/src/ingress.rs", "//! Inbound.\nfn f() { crate::spool::g() }\n"),
    ];
    assert_eq!(
        tree(&files, ""),
        "relay/src/ingress.rs:2: ingress imports spool, which is not for it to see\n\
         relay/src/limits.rs:3: limits imports ingress, which stands below it\n\
         relay/src/smtp.rs:2: smtp imports spool, which stands below it\n\
         relay/src/smtp.rs:3: smtp is pure and must not know `async`\n\
         relay/src/smtp.rs:4: smtp is pure and must not know `std::fs`\n\
         relay/src/spool.rs:2: spool imports ingress, which stands below it\n"
    );
}

#[test]
fn ratchets_functions_and_files() {
    let long = |lines: usize| format!("fn long([a; 2]: X) {{\n{}}}\n", "    g();\n".repeat(lines - 2));
    let text = format!("//! Top.\n{}{}", long(71), "const A: u8 = 0;\n".repeat(430));
    let file = |text: &str, allowed: &str| tree(&[("relay/src/lib.rs", text)], allowed);
    assert_eq!(
        file(&text, ""),
        "relay/src/lib.rs: `file relay/src/lib.rs`: 502 lines, at most 500\n\
         relay/src/lib.rs:2: `function relay/src/lib.rs long`: 71 lines, at most 70\n"
    );
    let exact = "file relay/src/lib.rs 502\nfunction relay/src/lib.rs long 71 # an old one\n";
    assert_eq!(file(&text, exact), "");
    let loose = "file relay/src/lib.rs 600\nfunction relay/src/lib.rs long 70\nfile gone.rs 900\n";
    assert_eq!(
        file(&text, loose),
        "relay/src/lib.rs: `file relay/src/lib.rs`: shrank to 502 lines: lower its exception from 600\n\
         relay/src/lib.rs:2: `function relay/src/lib.rs long`: 71 lines, and its exception allows 70\n\
         xtask/tidy-allow.txt: `file gone.rs` is no more: remove it\n"
    );
    let tested = format!("//! Top.\n#[cfg(test)]\nmod tests {{\n{}}}\n", "    fn a() {}\n".repeat(600));
    assert_eq!(file(&tested, ""), "");
}

#[test]
fn finds_files_that_no_target_reaches() {
    let files = [
        ("relay/src/lib.rs", "//! Top.\nmod a;\n#[path = \"odd.rs\"]\nmod b;\n// mod dead;\n"),
        ("relay/src/a.rs", "//! A.\nmod c;\n"),
        ("relay/src/a/c.rs", "//! C.\n"),
        ("relay/src/odd.rs", "//! B.\n"),
        ("other/dead.rs", "//! Nobody's.\n"),
    ];
    let findings = tree(&files, "");
    assert!(findings.contains("other/dead.rs: no target reaches this file\n"), "{findings}");
    assert_eq!(findings.matches("no target").count(), 1, "{findings}");
}

#[test]
fn reads_text_for_heads_line_ends_marks_and_paths() {
    let marks = format!(
        "//! Top. {}me this, see {}home\nfn f() {{ {}!() }}",
        "FIX",
        "/ro".to_owned() + "ot/",
        "todo"
    );
    let marks = marks.replace("FIXme", concat!("FIX", "ME:"));
    let files = [("relay/src/lib.rs", marks.as_str()), ("a.md", "one\r\ntwo\n")];
    let path = concat!("/ro", "ot/");
    let mark = concat!("FIX", "ME");
    assert_eq!(
        tree(&files, ""),
        format!(
            "a.md:1: a CR: lines end in LF alone\n\
             relay/src/lib.rs: no line end after the last line\n\
             relay/src/lib.rs:1: `{path}`: a path of one machine\n\
             relay/src/lib.rs:1: `{mark}`: a mark of unfinished work\n\
             relay/src/lib.rs:2: `todo!` is not for this tree\n"
        )
    );
    assert_eq!(
        tree(&[("relay/src/lib.rs", "use a;\n")], ""),
        "relay/src/lib.rs:1: opens without `//!`: what is this file for?\n"
    );
}

#[test]
fn wants_citations_of_one_form() {
    let good =
        "RFC 5321, RFC 3848 and 6531; (RFC 5321 §4.5.2), RFC 2920 §3.1. RFCs, RFC 822. RFC 6531 3 times\n";
    assert_eq!(tree(&[("a.md", good)], ""), "");
    let cited = ["@5321", "@ 5321 4.5.2", "@ 5321 § 4", "@ 5321 section 4", "@ 5321§4"];
    let bad = cited.map(|line| line.replace('@', "RFC") + "\n").concat();
    let findings = tree(&[("a.md", &bad)], "");
    assert_eq!(findings.lines().count(), 5, "{findings}");
    let first = "a.md:1: `@5321`: a space stands before the number\n".replace('@', "RFC");
    assert!(findings.starts_with(&first), "{findings}");
}

#[test]
fn masks_comments_and_literals_only() {
    let text = "a /* b /* c */ d */ 'x' '\\'' 'lt r#\"fn q() {\"# b\"\\\"z\" r#fn // e\nf";
    assert_eq!(
        code::masked(text),
        format!("a {:17} {:3} {:4} 'lt {:13} b{:5} r#fn {:4}\nf", "", "", "", "", "", "")
    );
}
