//! What is known of a variable. The variables themselves are the table in `variables`.

use super::features::Feature;
use super::kind::Kind;

/// One variable.
#[derive(Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name in the environment; in the TOML file the same in lower case.
    pub name: &'static str,
    /// Where it stands in the reference.
    pub section: Section,
    /// The shape of its value.
    pub kind: Kind,
    /// The default as it would be written; empty where there is none or where it is found out at start.
    pub default: &'static str,
    /// The default in words, where `default` does not tell.
    pub default_in_words: &'static str,
    /// What it is for, in a sentence.
    pub meaning: &'static str,
    /// What an empty value means.
    pub empty: Empty,
    /// The part of ringpost that it needs, and what becomes of it in a build without.
    pub needs: Option<(Feature, Without)>,
}

/// What an empty value means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Empty {
    /// The same as none: the next source is asked, the default at last.
    Unset,
    /// An empty list, on purpose.
    Value,
}

/// What becomes of a variable in a build that lacks what it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Without {
    /// It only tunes: it has no effect, and the start says so.
    Ineffective,
    /// It switches something on: the start is refused, but for these values.
    RefusedUnless(&'static [&'static str]),
}

/// The sections of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    /// Upstream, networks, logins: the seeds' variables.
    Relay,
    /// Where it listens, whom it serves.
    Listening,
    /// When the client hears 250.
    Custody,
    /// Connections to the upstream.
    Upstream,
    /// Limits and manners.
    Limits,
    /// The XDP gate.
    Gate,
    /// The log.
    Log,
}

impl Section {
    /// Every section, in the order of the reference.
    pub const ALL: [Self; 7] =
        [Self::Relay, Self::Listening, Self::Custody, Self::Upstream, Self::Limits, Self::Gate, Self::Log];

    /// The heading in the reference.
    #[must_use]
    pub fn heading(self) -> &'static str {
        match self {
            Self::Relay => "Relay, logins, TLS",
            Self::Listening => "Where it listens, whom it serves",
            Self::Custody => "Custody: when the client hears 250",
            Self::Upstream => "Upstream",
            Self::Limits => "Limits and manners",
            Self::Gate => "Gate (XDP)",
            Self::Log => "Log",
        }
    }
}

impl Variable {
    pub(super) const fn new(
        name: &'static str,
        section: Section,
        kind: Kind,
        default: &'static str,
        meaning: &'static str,
    ) -> Self {
        Self { name, section, kind, default, default_in_words: "", meaning, empty: Empty::Unset, needs: None }
    }

    pub(super) const fn else_said(mut self, words: &'static str) -> Self {
        self.default_in_words = words;
        self
    }

    pub(super) const fn may_be_empty(mut self) -> Self {
        self.empty = Empty::Value;
        self
    }

    pub(super) const fn needs(mut self, feature: Feature, without: Without) -> Self {
        self.needs = Some((feature, without));
        self
    }

    /// The key in the TOML file.
    #[must_use]
    pub fn key(&self) -> String {
        self.name.to_ascii_lowercase()
    }
}
