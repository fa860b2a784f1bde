//! Dead files: a `.rs` file that no target reaches by `mod` is compiled by nobody.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::code::{identifier, masked, words};
use super::{Finding, Source};

pub(crate) fn judge(sources: &[Source], roots: &[String]) -> Vec<Finding> {
    let rust: Vec<&Source> = sources.iter().filter(|source| source.is_rust()).collect();
    let mut reached: BTreeSet<String> = BTreeSet::new();
    let mut next: Vec<String> = roots.to_vec();
    while let Some(path) = next.pop() {
        let Some(source) = rust.iter().find(|source| source.path == path) else { continue };
        if reached.insert(path.clone()) {
            let is_root = roots.contains(&path);
            next.extend(source.text().map_or_else(Vec::new, |text| declared(&path, text, is_root)));
        }
    }
    let dead = rust.into_iter().filter(|source| !reached.contains(&source.path));
    dead.map(|source| Finding::new(source, 0, "no target reaches this file")).collect()
}

/// The files that a file may mean by its `mod name;` and `include!` lines.
fn declared(path: &str, text: &str, is_root: bool) -> Vec<String> {
    let code = masked(text);
    let path = Path::new(path);
    let here = path.parent().unwrap_or(Path::new(""));
    let is_mod = path.file_name().is_some_and(|name| name == "mod.rs");
    let below = if is_root || is_mod { here.to_path_buf() } else { path.with_extension("") };
    let mut files = Vec::new();
    for at in words(&code, "mod") {
        let name = identifier(code[at + 3..].trim_start());
        let explicit = text[..at].trim_end_matches("pub ").trim_end().strip_suffix("\"]");
        let explicit = explicit.and_then(|before| before.rsplit_once("#[path = \"")).map(|(_, file)| file);
        if let Some(file) = explicit {
            files.push(here.join(file));
        }
        files.push(below.join(format!("{name}.rs")));
        files.push(below.join(name).join("mod.rs"));
    }
    let included = words(&code, "include!").filter_map(|at| text[at..].split('"').nth(1));
    files.extend(included.map(|file| here.join(file)));
    files.iter().map(|file| plain(file)).collect()
}

/// The path without `.` and `..`.
fn plain(path: &Path) -> String {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain.to_string_lossy().into_owned()
}
