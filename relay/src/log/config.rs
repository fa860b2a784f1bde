//! What the log is configured by: checked values, ready to use. No behaviour.

use std::path::PathBuf;

/// Everything that the log reads of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `LOG_TARGET`.
    pub target: Target,
    /// `LOG_FORMAT`.
    pub format: Format,
    /// `LOG_LEVEL`.
    pub level: Level,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// The local syslog socket.
    Syslog,
    /// The journal's own socket.
    Journald,
    /// This file, appended to.
    File(PathBuf),
}

/// How a line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `key=value`.
    Text,
    /// One JSON object.
    Json,
}

/// The least severe event that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Only what needs a human.
    Error,
    /// What looks wrong.
    Warn,
    /// One line for each outcome.
    Info,
    /// One line for each step.
    Debug,
    /// Everything but content and secrets.
    Trace,
}
