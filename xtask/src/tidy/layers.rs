//! The layers of the relay: a module imports only from modules that stand above it in `relay/src/lib.rs`.
//!
//! Two fences go further than the order: protocol code is a value machine, and the inbound side knows neither
//! the spool nor the outbound side. Unit tests may look anywhere. It must not judge other packages.

use super::code::{before_tests, identifier, line_of, masked, words};
use super::{Finding, Source};

/// Modules that see less than the order would let them see.
const NARROWER: &[(&str, &[&str])] =
    &[("smtp", &["limits", "units"]), ("limits", &[]), ("units", &["limits"])];
/// Modules that a module must not see although they stand above it.
const FORBIDDEN: &[(&str, &[&str])] = &[("ingress", &["spool", "egress"])];
/// Modules without a runtime, a clock, a file or a log, and the words that would bring one in.
const PURE: &[&str] = &["limits", "units", "smtp", "trace", "envelope", "policy"];
const IMPURE_WORDS: &[&str] =
    &["async", "await", "TcpStream", "UnixStream", "SystemTime", "Instant", "monoio", "tokio", "tracing"];
const IMPURE_PATHS: &[&str] = &["std::fs", "std::thread", "std::process", "std::env"];

pub(crate) fn judge(sources: &[Source]) -> Vec<Finding> {
    let lib = sources.iter().find(|source| source.path == "relay/src/lib.rs");
    let Some(lib) = lib.and_then(Source::text) else { return Vec::new() };
    let order = order(lib);
    let modules = sources.iter().filter(|source| source.is_rust()).filter_map(|source| {
        let inside = source.path.strip_prefix("relay/src/")?.strip_suffix(".rs")?;
        (inside != "lib" && inside != "main").then(|| (source, path_of(inside)))
    });
    modules.flat_map(|(source, path)| module(source, &path, &order)).collect()
}

/// The modules of the crate root, in their order.
fn order(lib: &str) -> Vec<String> {
    let lib = masked(lib);
    words(&lib, "mod").map(|at| identifier(lib[at + 3..].trim_start()).to_owned()).collect()
}

/// `smtp/mod` is the module `smtp`, `smtp/line` is `smtp::line`.
fn path_of(inside: &str) -> Vec<String> {
    inside.split('/').filter(|part| *part != "mod").map(str::to_owned).collect()
}

fn module(source: &Source, path: &[String], order: &[String]) -> Vec<Finding> {
    let Some(text) = source.text() else { return Vec::new() };
    let code = masked(text);
    let code = before_tests(&code);
    let own = path[0].as_str();
    let place = |name: &str| order.iter().position(|module| module == name);
    let Some(own_place) = place(own) else {
        return vec![Finding::new(source, 0, format!("module {own} has no place in relay/src/lib.rs"))];
    };
    let mut findings = Vec::new();
    for (at, target) in imports(code, path) {
        let complaint = match place(&target) {
            Some(_) if target == own => None,
            Some(target_place) if target_place > own_place => Some("stands below it"),
            Some(_) if !sees(own, &target) => Some("is not for it to see"),
            _ => None,
        };
        if let Some(complaint) = complaint {
            let what = format!("{own} imports {target}, which {complaint}");
            findings.push(Finding::new(source, line_of(code, at), what));
        }
    }
    if PURE.contains(&own) {
        let used = IMPURE_WORDS
            .iter()
            .chain(IMPURE_PATHS)
            .flat_map(|word| words(code, word).map(move |at| (at, word)));
        findings.extend(used.map(|(at, word)| {
            Finding::new(source, line_of(code, at), format!("{own} is pure and must not know `{word}`"))
        }));
    }
    findings
}

fn sees(own: &str, target: &str) -> bool {
    let narrowed = NARROWER.iter().find(|(module, _)| *module == own);
    let forbidden = FORBIDDEN.iter().find(|(module, _)| *module == own);
    narrowed.is_none_or(|(_, seen)| seen.contains(&target))
        && forbidden.is_none_or(|(_, unseen)| !unseen.contains(&target))
}

/// Top modules named in a file, each with where: after `crate::`, in its braces, and above enough `super::`.
fn imports(code: &str, path: &[String]) -> Vec<(usize, String)> {
    let root = words(code, "crate::").map(|at| (at, "crate::".len()));
    let climb = "super::".repeat(path.len());
    let above = words(code, &climb).map(|at| (at, climb.len()));
    let starts: Vec<(usize, usize)> = root.chain(above).collect();
    starts
        .into_iter()
        .flat_map(|(at, length)| {
            heads(&code[at + length..]).into_iter().map(move |head| (at, head.to_owned()))
        })
        .collect()
}

/// The first names of a path or of a group of paths.
fn heads(rest: &str) -> Vec<&str> {
    let Some(group) = rest.strip_prefix('{') else { return vec![identifier(rest)] };
    let mut depth = 0_u32;
    let mut heads = vec![identifier(group.trim_start())];
    for (at, octet) in group.bytes().enumerate() {
        match octet {
            b'{' => depth += 1,
            b'}' if depth == 0 => break,
            b'}' => depth -= 1,
            b',' if depth == 0 => heads.push(identifier(group[at + 1..].trim_start())),
            _ => {}
        }
    }
    heads
}
