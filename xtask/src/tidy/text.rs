//! Rules that need only one file: its head, its line ends, its size, its marks, citations and paths.

use super::code::{line_of, masked, words};
use super::{Finding, Source};

const FILE_OCTETS_MAX: usize = 1 << 20;
/// Marks of unfinished work, in code, comments and documents alike. Written apart, so that this file has none.
const MARKS: &[&str] = &[concat!("FIX", "ME"), concat!("XX", "X"), concat!("HA", "CK")];
const MACROS: &[&str] = &["todo!", "unimplemented!", "dbg!"];
/// Places that exist on one machine only.
const MACHINE_PATHS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/fa", "rm/")];

pub(crate) fn judge(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    if source.octets.len() > FILE_OCTETS_MAX {
        findings.push(Finding::new(
            source,
            0,
            format!("{} octets, at most {FILE_OCTETS_MAX}", source.octets.len()),
        ));
    }
    // Corpora and vectors hold the octets that they hold.
    let is_data = source.path.starts_with("tests/fuzz/corpus/") || source.path.starts_with("tests/vectors/");
    let Some(text) = source.text().filter(|_| !is_data) else { return findings };
    findings.extend(lines(source, text));
    findings.extend(citations(source, text));
    if source.is_rust() {
        findings.extend(rust(source, text));
    }
    findings
}

fn lines(source: &Source, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(at) = text.find('\r') {
        findings.push(Finding::new(source, line_of(text, at), "a CR: lines end in LF alone"));
    }
    if !text.is_empty() && !text.ends_with('\n') {
        findings.push(Finding::new(source, 0, "no line end after the last line"));
    }
    for (mark, complaint) in MARKS
        .iter()
        .map(|mark| (mark, "a mark of unfinished work"))
        .chain(MACHINE_PATHS.iter().map(|path| (path, "a path of one machine")))
    {
        let places = words(text, mark).map(|at| line_of(text, at));
        findings.extend(places.map(|line| Finding::new(source, line, format!("`{mark}`: {complaint}"))));
    }
    findings
}

fn rust(source: &Source, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let head = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("");
    if !head.starts_with("//! ") {
        findings.push(Finding::new(source, 1, "opens without `//!`: what is this file for?"));
    }
    let code = masked(text);
    let in_tests = source.path.starts_with("tests/");
    let banned =
        MACROS.iter().chain(&["#[ignore"]).chain(if in_tests { &["thread::sleep"][..] } else { &[] });
    for word in banned {
        let places = words(&code, word).map(|at| line_of(&code, at));
        findings
            .extend(places.map(|line| Finding::new(source, line, format!("`{word}` is not for this tree"))));
    }
    findings
}

/// `RFC 5321 §4.5.2`: a space before the number, a section sign before the section.
fn citations(source: &Source, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, rest) in text.match_indices("RFC").map(|(at, word)| (at, &text[at + word.len()..])) {
        let complaint = if rest.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            Some("a space stands before the number")
        } else {
            rest.strip_prefix(' ').and_then(malformed)
        };
        if let Some(complaint) = complaint {
            let cited: String = text[at..].chars().take(16).take_while(|c| *c != '\n').collect();
            findings.push(Finding::new(source, line_of(text, at), format!("`{cited}`: {complaint}")));
        }
    }
    findings
}

/// What is wrong with a citation, from its number on. A word after `RFC ` makes it no citation.
fn malformed(citation: &str) -> Option<&'static str> {
    let digits = citation.find(|c: char| !c.is_ascii_digit()).unwrap_or(citation.len());
    let after = &citation[digits..];
    let section = after.strip_prefix(" §").or_else(|| after.strip_prefix(", §"));
    match digits {
        0 => None,
        1..=2 | 6.. => Some("no such RFC"),
        _ if section.is_some_and(|section| !section.starts_with(|c: char| c.is_ascii_alphanumeric())) => {
            Some("no section after the section sign")
        }
        _ if after.starts_with('§') => Some("a space stands before the section sign"),
        _ if names_a_section(after) => Some("a section sign stands before the section"),
        _ => None,
    }
}

/// ` 4.5.2` or ` section 4`: a section without its sign. A number with one dot may end a sentence.
fn names_a_section(after: &str) -> bool {
    let lower = after.to_ascii_lowercase();
    let number = after.strip_prefix(' ').filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let dotted = number.and_then(|rest| rest.split_once('.'));
    [" section", ", section", " sec."].iter().any(|word| lower.starts_with(word))
        || dotted.is_some_and(|(major, minor)| {
            major.chars().all(|c| c.is_ascii_digit()) && minor.starts_with(|c: char| c.is_ascii_digit())
        })
}
