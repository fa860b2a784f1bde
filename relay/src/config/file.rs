//! Reads the TOML file: keys and values as text, each with its line. It knows variables by their names only.

use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::kind::Kind;
use super::names::{advice, meaning};
use super::report::{Mistake, Origin};

/// One key of the file.
#[derive(Debug)]
pub(super) struct Entry {
    /// The name in capitals.
    pub(super) name: String,
    /// The value as text; the items of an array stand on lines of their own.
    pub(super) text: String,
    /// Whether it was written as an array.
    pub(super) is_array: bool,
    /// File and line.
    pub(super) origin: Origin,
}

/// Every known key of a file's text; the mistakes are those of TOML, unknown keys and values of a wrong type.
pub(super) fn entries(path: &Path, text: &str) -> (Vec<Entry>, Vec<Mistake>) {
    let origin = |at: usize| Origin::File { path: path.to_owned(), line: line_of(text, at) };
    let (table, errors) = DeTable::parse_recoverable(text);
    // Only the message of the error, never its excerpt: the line may hold a secret.
    let mut mistakes: Vec<Mistake> = errors
        .iter()
        .map(|error| {
            let at = error.span().map_or(0, |span| span.start);
            Mistake::in_name("TOML", Some(origin(at)), error.message().to_owned())
        })
        .collect();
    let mut entries = Vec::new();
    for (key, value) in table.get_ref() {
        let origin = origin(key.span().start);
        match entry(key.get_ref(), value, origin) {
            Ok(entry) => entries.push(entry),
            Err(mistake) => mistakes.push(mistake),
        }
    }
    (entries, mistakes)
}

fn entry(key: &str, value: &Spanned<DeValue<'_>>, origin: Origin) -> Result<Entry, Mistake> {
    let name = key.to_ascii_uppercase();
    let known = meaning(&name).filter(|_| !key.bytes().any(|octet| octet.is_ascii_uppercase()));
    let Some(known) = known else {
        let problem = match advice(&name) {
            Some(name) => format!("no such key; the nearest is {}", name.to_ascii_lowercase()),
            None => "no such key".to_owned(),
        };
        return Err(Mistake::in_name(key, Some(origin), problem));
    };
    let text = match (known.variable.kind, value.get_ref()) {
        (Kind::Tables, tables) => tables_text(tables),
        (_, scalar_or_array) => value_text(scalar_or_array),
    };
    let is_array = value.get_ref().is_array();
    match text {
        Some(text) => Ok(Entry { name, text, is_array, origin }),
        None => {
            let found = value.get_ref().type_str();
            let problem = format!("expected {}, not a TOML {found}", known.variable.kind.expected());
            Err(Mistake::in_name(key, Some(origin), problem))
        }
    }
}

fn value_text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Array(items) => {
            let lines: Option<Vec<String>> = items.iter().map(|item| scalar_text(item.get_ref())).collect();
            lines.map(|lines| lines.join("\n"))
        }
        scalar => scalar_text(scalar),
    }
}

fn scalar_text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.clone().into_owned()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).ok().map(|number| number.to_string())
        }
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Boolean(true) => Some("yes".to_owned()),
        DeValue::Boolean(false) => Some("no".to_owned()),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => None,
    }
}

/// Tables count as written where there is something in them.
fn tables_text(value: &DeValue<'_>) -> Option<String> {
    let count = match value {
        DeValue::Array(tables) => tables.len(),
        DeValue::Table(table) => table.len(),
        _ => return None,
    };
    Some(if count == 0 { String::new() } else { format!("{count} tables") })
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|octet| **octet == b'\n').count()
}
