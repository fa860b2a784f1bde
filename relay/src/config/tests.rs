//! The promises of the configuration. Each test writes a few variables and looks at what comes of them.

mod builds;
mod files;
mod names;
mod precedence;
mod rules;
mod shown;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;

use super::features::{Feature, Features};
use super::raw::{Raw, Sources};
use super::{Config, Host, Loaded, Refused, check};

/// Sources and build of one test.
struct Given {
    sources: Sources,
    build: Features,
}

/// An environment, on a build that can do everything.
fn given(environment: &[(&str, &str)]) -> Given {
    let pair = |(name, value): &(&str, &str)| (OsString::from(name), OsString::from(value));
    let sources = Sources {
        environment: environment.iter().map(pair).collect(),
        file_default: PathBuf::from("/nonexistent/ringpost.toml"),
        ..Sources::default()
    };
    Given { sources, build: Features::ALL }
}

/// As `given`, with an upstream that needs no login unless the test writes another.
fn started(environment: &[(&str, &str)]) -> Given {
    let base = [("EXT_RELAY_HOST", "smtp.example.com"), ("OUTGOING_SMTP_AUTH", "off")];
    let unsaid = base.into_iter().filter(|(name, _)| environment.iter().all(|(other, _)| other != name));
    let all: Vec<(&str, &str)> = unsaid.chain(environment.iter().copied()).collect();
    given(&all)
}

impl Given {
    fn today(mut self) -> Self {
        self.build = Features::THIS_BUILD;
        self
    }

    fn without(mut self, features: Features) -> Self {
        self.build = features;
        self
    }

    fn set(mut self, assignment: &str) -> Self {
        self.sources.set.push(assignment.to_owned());
        self
    }

    fn file(mut self, path: &std::path::Path) -> Self {
        self.sources.file = Some(path.to_owned());
        self
    }

    fn load(&self) -> Result<Loaded, Refused> {
        let host = Host { name: "relay.example.net".to_owned(), cpus: 3 };
        check::check(&Raw::gather(&self.sources), &host, self.build)
    }

    #[track_caller]
    fn loaded(&self) -> Loaded {
        self.load().unwrap_or_else(|refused| panic!("{:#?}", refused.mistakes))
    }

    #[track_caller]
    fn config(&self) -> Config {
        self.loaded().config
    }

    /// The mistakes as they are printed.
    #[track_caller]
    fn mistakes(&self) -> Vec<String> {
        let refused = self.load().expect_err("must be refused");
        assert!(!refused.mistakes.is_empty(), "refused without a mistake");
        refused.mistakes.iter().map(ToString::to_string).collect()
    }

    /// The only mistake.
    #[track_caller]
    fn mistake(&self) -> String {
        let mistakes = self.mistakes();
        assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
        mistakes.into_iter().next().unwrap()
    }

    /// The warnings as they are printed.
    #[track_caller]
    fn warnings(&self) -> Vec<String> {
        self.loaded().warnings.iter().map(ToString::to_string).collect()
    }
}

/// Nothing but what every relay has.
const BARE: Features = Features::of(|feature| matches!(feature, Feature::RecipientMx));
