//! What the configuration is told of: where a value came from, mistakes, warnings. Secrets never get in here.

use std::fmt;
use std::path::PathBuf;

use super::variable::Variable;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// `--set`, under this name.
    CommandLine(String),
    /// An environment variable of this name.
    Environment(String),
    /// A file that was named by a variable, or a credential of the service manager.
    Named {
        /// What named it: `environment ACCEPTED_NETWORKS_FILE`, `credential`.
        by: String,
        /// The file.
        path: PathBuf,
    },
    /// A line of the configuration file, from 1.
    File {
        /// The configuration file.
        path: PathBuf,
        /// The line.
        line: usize,
    },
    /// Nobody wrote it; the words tell how the default came about, where that needs telling.
    Default(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine(name) => write!(f, "--set {name}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Named { by, path } => write!(f, "{by}={}", path.display().to_string().escape_debug()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display().to_string().escape_debug()),
            Self::Default("") => f.write_str("default"),
            Self::Default(words) => write!(f, "default: {words}"),
        }
    }
}

/// One mistake in the configuration: which variable, its value, where it came from, what is expected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The variable as it was spelled.
    pub variable: String,
    /// The value, or the item of the list that is wrong; `***` for a secret, none where there is none.
    pub value: Option<String>,
    /// Where it came from; none where nobody wrote it.
    pub origin: Option<Origin>,
    /// What is wrong and what is expected.
    pub problem: String,
}

impl Mistake {
    /// A mistake in a variable's written value.
    #[must_use]
    pub fn in_value(variable: &Variable, value: &str, origin: &Origin, problem: String) -> Self {
        let value = if variable.kind.is_secret() { SECRET.to_owned() } else { shown(value) };
        Self { variable: variable.name.to_owned(), value: Some(value), origin: Some(origin.clone()), problem }
    }

    /// A mistake about a name, not about its value.
    #[must_use]
    pub fn in_name(name: &str, origin: Option<Origin>, problem: String) -> Self {
        Self { variable: shown(name), value: None, origin, problem }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.variable)?;
        if let Some(value) = &self.value {
            write!(f, "=\"{value}\"")?;
        }
        if let Some(origin) = &self.origin {
            write!(f, " ({origin})")?;
        }
        write!(f, ": {}", self.problem)
    }
}

/// Something that does not keep the relay from starting, but that its operator should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// The variable that it is about.
    pub variable: String,
    /// What there is to know.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.variable, self.text)
    }
}

/// A value as it may stand in a message: control characters escaped, at most 80 characters.
#[must_use]
pub fn shown(value: &str) -> String {
    let mut text: String = value.chars().take(SHOWN_CHARS_MAX).flat_map(char::escape_debug).collect();
    if value.chars().nth(SHOWN_CHARS_MAX).is_some() {
        text.push('…');
    }
    text
}

/// What stands in the place of a secret.
pub const SECRET: &str = "***";
const SHOWN_CHARS_MAX: usize = 80;
