//! What was written, and where: the sources of the configuration in their order, each value still a text.
//!
//! Command line over environment over credentials over the TOML file; a name over its `NAME_FILE` within one
//! source. Nothing is judged here but names and readability.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

use super::file;
use super::kind::Kind;
use super::names::{Form, Meaning, advice, is_misspelled, meaning};
use super::report::{Mistake, Origin, Warning, shown};
use super::variable::{Empty, Variable};
use super::variables::VARIABLES;
use crate::limits::CONFIG_FILE_OCTETS_MAX;

/// Where the configuration is read from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `--set name=value`, in order.
    pub set: Vec<String>,
    /// `--config FILE`.
    pub file: Option<PathBuf>,
    /// The environment, but for `secrets`.
    pub environment: Vec<(OsString, OsString)>,
    /// What the environment holds in secrets, by name. A reload has them from here: the environment itself is written
    /// over, and a file is read again.
    pub secrets: Vec<(String, SecretString)>,
    /// The file that is read where it exists and no other is named.
    pub file_default: PathBuf,
}

impl Sources {
    /// The sources of this process: its environment and `/etc/ringpost/ringpost.toml`.
    #[must_use]
    pub fn of_process(set: Vec<String>, file: Option<PathBuf>) -> Self {
        let mut sources = Self { set, file, file_default: FILE_DEFAULT.into(), ..Self::default() };
        for (name, value) in std::env::vars_os() {
            match (name.into_string(), value.into_string()) {
                // The text moves: no other copy is made of it.
                (Ok(name), Ok(text)) if Self::is_secret(&name) => sources.secrets.push((name, text.into())),
                (name, value) => {
                    let name = name.map_or_else(|name| name, Into::into);
                    sources.environment.push((name, value.map_or_else(|value| value, Into::into)));
                }
            }
        }
        sources
    }

    /// Whether a variable of the environment holds a secret, by its name.
    #[must_use]
    pub fn is_secret(name: &str) -> bool {
        meaning(name).is_some_and(|found| found.form == Form::Direct && found.variable.kind.is_secret())
    }

    fn variable(&self, name: &str) -> Option<&OsString> {
        let found = self.environment.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value).filter(|value| !value.is_empty())
    }
}

/// A value as it was written.
#[derive(Debug, Clone)]
pub(super) struct Written {
    /// The text; items of a TOML array stand on lines of their own. It may be a secret: it is wiped when it goes.
    pub(super) text: Zeroizing<String>,
    /// Whether it was written as an array.
    pub(super) is_array: bool,
    /// Where.
    pub(super) origin: Origin,
}

/// What is known of a variable's value.
#[derive(Debug)]
pub(super) enum Lookup<'a> {
    /// It was written.
    Written(&'a Written),
    /// It was written, but could not be read; the mistake is noted.
    Unreadable,
    /// Nobody wrote it.
    Absent,
}

/// Everything that was written.
#[derive(Debug, Default)]
pub(super) struct Raw {
    /// `None`: unreadable.
    values: BTreeMap<&'static str, Option<Written>>,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<Warning>,
}

impl Raw {
    /// Reads every source. Files named by variables are read, nothing else is touched.
    pub(super) fn gather(sources: &Sources) -> Self {
        let mut raw = Self::default();
        raw.command_line(&sources.set);
        raw.environment(sources);
        if let Some(directory) = sources.variable("CREDENTIALS_DIRECTORY") {
            raw.credentials(Path::new(directory));
        }
        raw.file(sources);
        raw
    }

    /// What was written for a variable.
    pub(super) fn lookup(&self, variable: &Variable) -> Lookup<'_> {
        match self.values.get(variable.name) {
            Some(Some(written)) => Lookup::Written(written),
            Some(None) => Lookup::Unreadable,
            None => Lookup::Absent,
        }
    }

    /// Whether something was written for a variable, readable or not.
    pub(super) fn is_written(&self, variable: &Variable) -> bool {
        self.values.contains_key(variable.name)
    }

    fn command_line(&mut self, set: &[String]) {
        let mut found = Vec::new();
        for assignment in set {
            let Some((spelled, value)) = assignment.split_once('=') else {
                let problem = "expected --set NAME=VALUE".to_owned();
                self.mistakes.push(Mistake::in_name(assignment, None, problem));
                continue;
            };
            let name = spelled.trim().to_ascii_uppercase();
            let origin = Origin::CommandLine(name.clone());
            if Sources::is_secret(&name) {
                self.warn(&name, "everybody sees a command line: a secret belongs into a file".to_owned());
            }
            match meaning(&name) {
                // The last of several is meant, as with every option.
                Some(meaning) => found.insert(0, Candidate::new(meaning, name, value.to_owned(), origin)),
                None => self.unknown(spelled, &name, Origin::CommandLine(shown(spelled))),
            }
        }
        self.source(found);
    }

    fn environment(&mut self, sources: &Sources) {
        let mut found = Vec::new();
        for (name, secret) in &sources.secrets {
            let Some(meaning) = meaning(name) else { continue };
            let text = secret.expose_secret().to_owned();
            found.push(Candidate::new(meaning, name.clone(), text, Origin::Environment(name.clone())));
        }
        for (key, value) in &sources.environment {
            let Some(name) = key.to_str() else { continue };
            let origin = Origin::Environment(name.to_owned());
            match (meaning(name), value.to_str()) {
                (Some(meaning), Some(value)) => {
                    found.push(Candidate::new(meaning, name.to_owned(), value.to_owned(), origin));
                }
                (Some(meaning), None) => {
                    self.mistakes.push(Mistake::in_name(name, Some(origin), NOT_UTF8.to_owned()));
                    self.values.entry(meaning.variable.name).or_insert(None);
                }
                (None, value) if is_misspelled(name, value.unwrap_or_default()) => {
                    self.unknown(name, &name.to_ascii_uppercase(), origin);
                }
                (None, _) => {}
            }
        }
        self.source(found);
    }

    /// `$CREDENTIALS_DIRECTORY/NAME`, as systemd's `LoadCredential=` leaves them.
    fn credentials(&mut self, directory: &Path) {
        for variable in VARIABLES {
            let path = directory.join(variable.name);
            if path.is_file() && !self.values.contains_key(variable.name) {
                self.read_named(variable, "credential".to_owned(), &path);
            }
        }
    }

    fn file(&mut self, sources: &Sources) {
        let named = sources.file.clone().map(|path| (path, "--config"));
        let by_environment =
            || sources.variable("RINGPOST_CONFIG").map(|path| (path.into(), "RINGPOST_CONFIG"));
        let (path, name) = match named.or_else(by_environment) {
            Some(named) => named,
            None if sources.file_default.exists() => (sources.file_default.clone(), "--config"),
            None => return,
        };
        let (text, is_open) = match read(&path) {
            Ok(read) => read,
            Err(error) => {
                let mut mistake = Mistake::in_name(name, None, format!("expected a readable file: {error}"));
                mistake.value = Some(shown(&path.display().to_string()));
                self.mistakes.push(mistake);
                return;
            }
        };
        let (entries, mistakes) = file::entries(&path, &text);
        self.mistakes.extend(mistakes);
        let found = entries.into_iter().filter_map(|entry| {
            let mut candidate = Candidate::new(meaning(&entry.name)?, entry.name, entry.text, entry.origin);
            candidate.is_array = entry.is_array;
            Some(candidate)
        });
        let found: Vec<Candidate> = found.collect();
        let holds_secret =
            found.iter().any(|c| c.meaning.form == Form::Direct && c.meaning.variable.kind.is_secret());
        if holds_secret && is_open {
            self.warn(name, format!("{} holds a secret and everybody may read it", path.display()));
        }
        self.source(found);
    }

    /// Takes what one source says: of several names for one variable the first in rank, and only where no
    /// source before it said anything.
    fn source(&mut self, mut found: Vec<Candidate>) {
        found.retain(|candidate| !candidate.is_blank());
        found.sort_by_key(|candidate| (candidate.meaning.form, candidate.meaning.is_alias));
        let mut taken: BTreeMap<&'static str, String> = BTreeMap::new();
        for candidate in found {
            let variable = candidate.meaning.variable;
            match taken.get(variable.name) {
                Some(first) if *first == candidate.name => {}
                Some(first) => {
                    self.warn(&candidate.name, format!("not read: {first} says the same and comes first"));
                }
                None => {
                    taken.insert(variable.name, candidate.name.clone());
                    self.take(candidate);
                }
            }
        }
    }

    fn take(&mut self, candidate: Candidate) {
        let Candidate { meaning, name, text, is_array, origin } = candidate;
        let variable = meaning.variable;
        if meaning.is_alias {
            self.warn(&name, format!("another name of {}: please write that", variable.name));
        }
        if self.values.contains_key(variable.name) {
            return;
        }
        match meaning.form {
            Form::Direct => {
                self.values.insert(variable.name, Some(Written { text, is_array, origin }));
            }
            Form::File => self.read_named(variable, origin.to_string(), Path::new(text.trim())),
        }
    }

    /// Reads the file that holds a variable's value: its content, the trailing newline cut, comments of lists
    /// left out. An empty file is no value.
    fn read_named(&mut self, variable: &'static Variable, by: String, path: &Path) {
        let origin = Origin::Named { by, path: path.to_owned() };
        match read(path) {
            Ok((text, is_open)) => {
                if variable.kind.is_secret() && is_open {
                    self.warn(
                        variable.name,
                        format!("{} is a secret and everybody may read it", path.display()),
                    );
                }
                let text = content(variable.kind, text);
                if variable.empty == Empty::Value || !text.trim().is_empty() {
                    self.values.insert(variable.name, Some(Written { text, is_array: false, origin }));
                }
            }
            Err(error) => {
                let problem = format!("expected a readable file: {error}");
                self.mistakes.push(Mistake::in_name(variable.name, Some(origin), problem));
                self.values.insert(variable.name, None);
            }
        }
    }

    fn unknown(&mut self, spelled: &str, capitals: &str, origin: Origin) {
        let problem = match advice(capitals) {
            Some(name) => format!("no such variable; the nearest is {name}"),
            None => "no such variable".to_owned(),
        };
        self.mistakes.push(Mistake::in_name(spelled, Some(origin), problem));
    }

    fn warn(&mut self, variable: &str, text: String) {
        self.warnings.push(Warning { variable: variable.to_owned(), text });
    }
}

/// One name with its value, of one source.
#[derive(Debug)]
struct Candidate {
    meaning: Meaning,
    name: String,
    text: Zeroizing<String>,
    is_array: bool,
    origin: Origin,
}

impl Candidate {
    fn new(meaning: Meaning, name: String, text: String, origin: Origin) -> Self {
        Self { meaning, name, text: Zeroizing::new(text), is_array: false, origin }
    }

    /// Empty where an empty value means nothing: then it counts as not written.
    fn is_blank(&self) -> bool {
        let means_something =
            self.meaning.variable.empty == Empty::Value && self.meaning.form == Form::Direct;
        self.text.trim().is_empty() && !means_something
    }
}

/// A file's text, which may be a secret, and whether others than owner and group may read it.
pub(super) fn read(path: &Path) -> io::Result<(Zeroizing<String>, bool)> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    let is_open = about.permissions().mode() & 0o004 != 0;
    let too_long = || io::Error::other(format!("longer than {CONFIG_FILE_OCTETS_MAX} octets"));
    if about.len() > CONFIG_FILE_OCTETS_MAX {
        return Err(too_long());
    }
    // One allocation for what stands in the file, so that nothing of it is left behind; a pipe tells no length.
    let octets = usize::try_from(about.len()).unwrap_or(0) + PROBE_OCTETS;
    let mut text = Zeroizing::new(String::with_capacity(octets));
    file.take(CONFIG_FILE_OCTETS_MAX + 1).read_to_string(&mut text).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => io::Error::other(NOT_UTF8),
        _ => error,
    })?;
    if text.len() as u64 > CONFIG_FILE_OCTETS_MAX { Err(too_long()) } else { Ok((text, is_open)) }
}

fn content(kind: Kind, mut text: Zeroizing<String>) -> Zeroizing<String> {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if kind.is_list() || matches!(kind, Kind::SecretLines | Kind::UserLines) {
        let without_comments: Vec<&str> = text.lines().map(|line| cut_comment(kind, line)).collect();
        return without_comments.join("\n").into();
    }
    text
}

/// In a list a `#` opens a comment at the start of a word, in lines only at the start of a line: a password may
/// hold one.
fn cut_comment(kind: Kind, line: &str) -> &str {
    if line.trim_start().starts_with('#') {
        return "";
    }
    let opens = |(at, _): &(usize, &str)| line[..*at].ends_with(char::is_whitespace);
    match line.match_indices('#').find(opens) {
        Some((at, _)) if kind.is_list() => &line[..at],
        _ => line,
    }
}

const FILE_DEFAULT: &str = "/etc/ringpost/ringpost.toml";
/// The standard library reads so much at a time where room is short, and grows what it reads into.
const PROBE_OCTETS: usize = 64;
const NOT_UTF8: &str = "expected UTF-8";
