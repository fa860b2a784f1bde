//! The ratchets: a function has at most 70 lines, a file at most 500 before its unit tests.
//!
//! What is larger stands in the list of exceptions with its size; the list may only shrink.

use std::collections::BTreeMap;

use super::code::{before_tests, functions, line_of, masked};
use super::{Finding, Source};

/// The exceptions, one a line: `function PATH NAME LINES` or `file PATH LINES`; `#` begins a remark.
pub(crate) const ALLOWED: &str = "xtask/tidy-allow.txt";

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 500;

pub(crate) fn judge(sources: &[Source], allowed: &str) -> Vec<Finding> {
    let mut exceptions = exceptions(allowed);
    let mut findings = Vec::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        for Size { key, line, lines, bound } in sizes(source) {
            let exception = exceptions.remove(&key);
            let what = match exception {
                None if lines <= bound => continue,
                None => format!("{lines} lines, at most {bound}"),
                Some(_) if lines <= bound => "needs its exception no longer: remove it".to_owned(),
                Some(exception) if exception == lines => continue,
                Some(exception) if exception > lines => {
                    format!("shrank to {lines} lines: lower its exception from {exception}")
                }
                Some(exception) => format!("{lines} lines, and its exception allows {exception}"),
            };
            findings.push(Finding::new(source, line, format!("`{key}`: {what}")));
        }
    }
    findings.extend(exceptions.into_keys().map(|key| Finding {
        path: ALLOWED.to_owned(),
        line: 0,
        what: format!("`{key}` is no more: remove it"),
    }));
    findings
}

struct Size {
    key: String,
    line: usize,
    lines: usize,
    bound: usize,
}

fn sizes(source: &Source) -> Vec<Size> {
    let Some(text) = source.text() else { return Vec::new() };
    let code = masked(text);
    let code = before_tests(&code);
    let path = &source.path;
    let file =
        Size { key: format!("file {path}"), line: 0, lines: code.lines().count(), bound: FILE_LINES_MAX };
    // Functions of one name in one file share a key: the largest of them counts.
    let mut largest: BTreeMap<&str, Size> = BTreeMap::new();
    for (name, range) in functions(code) {
        let lines = 1 + code[range.clone()].matches('\n').count();
        if largest.get(name).is_none_or(|known| known.lines < lines) {
            let key = format!("function {path} {name}");
            largest.insert(
                name,
                Size { key, line: line_of(code, range.start), lines, bound: FUNCTION_LINES_MAX },
            );
        }
    }
    largest.into_values().chain([file]).collect()
}

fn exceptions(allowed: &str) -> BTreeMap<String, usize> {
    let entries = allowed.lines().map(|line| line.split('#').next().unwrap_or("").trim());
    entries
        .filter_map(|entry| {
            let (key, lines) = entry.rsplit_once(' ')?;
            Some((key.trim().to_owned(), lines.parse().ok()?))
        })
        .collect()
}
