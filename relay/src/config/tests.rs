//! The promises of the configuration. Each test writes a few variables and looks at what comes of them.

mod precedence;

use std::ffi::OsString;
use std::path::PathBuf;

use super::features::Features;
use super::raw::{Raw, Sources};
use super::{Host, Loaded, Refused, check};

/// Sources and build of one test; a relay that starts unless the test writes something else.
pub(super) struct Given {
    pub(super) sources: Sources,
    pub(super) build: Features,
}

/// An environment, on a build that can do everything.
pub(super) fn given(environment: &[(&str, &str)]) -> Given {
    let pair = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
    let sources = Sources {
        environment: environment.iter().map(pair).collect(),
        file_default: PathBuf::from("/nonexistent/ringpost.toml"),
        ..Sources::default()
    };
    Given { sources, build: Features::ALL }
}

/// As `given`, with an upstream that needs no login.
pub(super) fn started(environment: &[(&str, &str)]) -> Given {
    let base = [("EXT_RELAY_HOST", "smtp.example.com"), ("OUTGOING_SMTP_AUTH", "off")];
    let unsaid = base.into_iter().filter(|(name, _)| environment.iter().all(|(other, _)| other != name));
    let all: Vec<(&str, &str)> = unsaid.chain(environment.iter().copied()).collect();
    given(&all)
}

impl Given {
    pub(super) fn today(mut self) -> Self {
        self.build = Features::THIS_BUILD;
        self
    }

    pub(super) fn set(mut self, assignment: &str) -> Self {
        self.sources.set.push(assignment.to_owned());
        self
    }

    pub(super) fn load(&self) -> Result<Loaded, Refused> {
        let host = Host { name: "relay.example.net".to_owned(), cpus: 3 };
        check::check(&Raw::gather(&self.sources), &host, self.build)
    }

    pub(super) fn loaded(&self) -> Loaded {
        self.load().unwrap_or_else(|refused| panic!("{:#?}", refused.mistakes))
    }

    /// The mistakes as they are printed.
    pub(super) fn mistakes(&self) -> Vec<String> {
        let refused = self.load().expect_err("must be refused");
        refused.mistakes.iter().map(ToString::to_string).collect()
    }

    /// The warnings as they are printed.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.loaded().warnings.iter().map(ToString::to_string).collect()
    }
}
