//! The configuration in force as TOML, each line with where its value came from, secrets as `"***"`.

use std::fmt::Write as _;

use super::kind::Kind;
use super::report::{Origin, SECRET};
use super::values::{boolean, items};
use super::variable::Variable;
use super::variables::VARIABLES;

/// Every variable's value and its origin.
#[derive(Debug, Clone, Default)]
pub struct Effective {
    lines: Vec<Line>,
}

#[derive(Debug, Clone)]
struct Line {
    variable: &'static Variable,
    text: String,
    origin: Origin,
}

impl Effective {
    /// Notes a variable's value; a later note replaces an earlier one. Of a secret only its presence is kept.
    pub(super) fn set(&mut self, variable: &'static Variable, text: &str, origin: Origin) {
        let is_hidden = variable.kind.is_secret() && !text.is_empty();
        let text = if is_hidden { SECRET.to_owned() } else { text.to_owned() };
        self.lines.retain(|line| line.variable != variable);
        self.lines.push(Line { variable, text, origin });
    }

    /// The value of a variable as text; `***` for a secret.
    #[must_use]
    pub fn text(&self, variable: &Variable) -> Option<&str> {
        self.lines.iter().find(|line| line.variable == variable).map(|line| line.text.as_str())
    }

    /// The whole as TOML, in the order of the reference. It can be read back as a configuration file.
    #[must_use]
    pub fn toml(&self) -> String {
        let mut toml = String::from("# The configuration in force. An empty value is none.\n");
        let mut section = None;
        for variable in VARIABLES {
            let Some(line) = self.lines.iter().find(|line| line.variable == variable) else { continue };
            if section != Some(variable.section) {
                section = Some(variable.section);
                let _ = writeln!(toml, "\n# {}", variable.section.heading());
            }
            let value = value(variable.kind, &line.text);
            let _ = writeln!(toml, "{} = {value}  # {}", variable.key(), line.origin);
        }
        toml
    }
}

fn value(kind: Kind, text: &str) -> String {
    let trimmed = text.trim();
    match kind {
        Kind::Tables => "[]".to_owned(),
        Kind::Integer(..) if trimmed.parse::<i64>().is_ok() => trimmed.to_owned(),
        Kind::Boolean => boolean(trimmed).map_or_else(|_| string(trimmed), |is| is.to_string()),
        kind if kind.is_list() => {
            let items: Vec<String> = items(text).map(string).collect();
            format!("[{}]", items.join(", "))
        }
        _ => string(trimmed),
    }
}

/// A basic string (TOML 1.0), on one line whatever it holds.
fn string(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
