//! MTA-STS policies that outlive the process: a file in the state directory, a line a policy, a domain's last one counts.
//!
//! Without it whoever can suppress a domain's record and web server would only have to wait for a restart (RFC 8461
//! §10.2). A line is appended as a policy comes, and the file is written anew at start without what is over. A line that a
//! crash loses is a policy that is fetched again; one that cannot be read is left out.
//!
//! It must not be called on a thread that others wait for: it reads and writes files.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::Mode;
use crate::limits::{STS_FILE_OCTETS_MAX, STS_PATTERNS_MAX, STS_POLICIES_MAX};

/// The file.
#[derive(Debug)]
pub(super) struct Kept(PathBuf);

/// One policy as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) domain: String,
    /// Of its record.
    pub(super) id: String,
    /// When it is over, in seconds since the Unix epoch.
    pub(super) until_unix_secs: u64,
    pub(super) mode: Mode,
    pub(super) exchangers: Vec<String>,
}

impl Kept {
    /// Reads what is kept in a file and is not over by now, and writes that anew.
    pub(super) fn open(path: &Path, now_unix_secs: u64) -> (Self, Vec<Line>) {
        let kept = Self(path.to_owned());
        let text = kept.text().unwrap_or_default();
        let of_domains: BTreeMap<String, Line> =
            text.lines().filter_map(Line::parse).map(|line| (line.domain.clone(), line)).collect();
        let lines = of_domains.into_values().filter(|line| line.until_unix_secs > now_unix_secs);
        let lines: Vec<Line> = lines.take(STS_POLICIES_MAX).collect();
        if !text.is_empty() {
            kept.tell(kept.rewrite(&lines));
        }
        (kept, lines)
    }

    /// Adds a policy. Where it cannot, it says so: the policy holds until the end of the process all the same.
    pub(super) fn append(&self, line: &Line) {
        if line.is_speakable() {
            self.tell(self.add(line));
        }
    }

    fn text(&self) -> io::Result<String> {
        if fs::metadata(&self.0)?.len() > STS_FILE_OCTETS_MAX {
            return Err(io::Error::other("too long"));
        }
        fs::read_to_string(&self.0)
    }

    fn add(&self, line: &Line) -> io::Result<()> {
        let folder = self.0.parent().unwrap_or(Path::new("/"));
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.0)?;
        // One write: lines of two policies that come at once do not mix.
        file.write_all(line.text().as_bytes())
    }

    /// Beside its place and moved there: a crash leaves the old file or the new one.
    fn rewrite(&self, lines: &[Line]) -> io::Result<()> {
        let beside = self.0.with_extension("new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(lines.iter().map(Line::text).collect::<String>().as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &self.0)
    }

    fn tell(&self, outcome: io::Result<()>) {
        if let Err(error) = outcome {
            tracing::warn!(event = "mta_sts_not_kept", path = %self.0.display(), reason = %error);
        }
    }
}

impl Line {
    /// `UNTIL ID DOMAIN MODE PATTERN,PATTERN…`.
    fn text(&self) -> String {
        let mode = self.mode.word();
        let patterns = self.exchangers.join(",");
        format!("{} {} {} {mode} {patterns}\n", self.until_unix_secs, self.id, self.domain)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let (until, id, domain) = (words.next()?, words.next()?, words.next()?);
        let (word, patterns, None) = (words.next()?, words.next()?, words.next()) else { return None };
        let patterns = patterns.split(',').filter(|pattern| !pattern.is_empty());
        Some(Self {
            domain: domain.to_owned(),
            id: id.to_owned(),
            until_unix_secs: until.parse().ok()?,
            mode: Mode::of(word)?,
            exchangers: patterns.take(STS_PATTERNS_MAX).map(str::to_owned).collect(),
        })
    }

    /// Whether what is written is read as the same again.
    fn is_speakable(&self) -> bool {
        Self::parse(self.text().trim_end_matches('\n')).as_ref() == Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(domain: &str, id: &str, until_unix_secs: u64) -> Line {
        let exchangers = vec!["mx.a.example".to_owned(), "*.b.example".to_owned()];
        Line {
            domain: domain.to_owned(),
            id: id.to_owned(),
            until_unix_secs,
            mode: Mode::Enforce,
            exchangers,
        }
    }

    #[test]
    fn the_last_of_a_domain_is_read_again_until_it_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/mta-sts");
        let (kept, lines) = Kept::open(&path, 0);
        assert_eq!(lines, []);
        let none = Line { mode: Mode::None, exchangers: Vec::new(), ..line("c.example", "7", 300) };
        for added in [
            line("a.example", "1", 100),
            line("b.example", "1", 200),
            line("a.example", "2", 150),
            none.clone(),
        ] {
            kept.append(&added);
        }
        let expected = [line("a.example", "2", 150), line("b.example", "1", 200), none.clone()];
        assert_eq!(Kept::open(&path, 99).1, expected);
        assert_eq!(Kept::open(&path, 200).1, [none]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "300 7 c.example none \n", "what is over is gone");
    }

    #[test]
    fn what_is_no_line_is_left_out_and_what_would_be_none_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mta-sts");
        let whole = line("a.example", "1", 100);
        fs::write(&path, format!("\n1 2 3\nx 1 a.example enforce a\n{}100 1 b.exa", whole.text())).unwrap();
        let (kept, lines) = Kept::open(&path, 0);
        assert_eq!(lines, std::slice::from_ref(&whole));
        for odd in ["a b.example", "a.example\n9 9 c.example none "] {
            kept.append(&line(odd, "1", 100));
        }
        assert_eq!(Kept::open(&path, 0).1, [whole]);
    }
}
