//! The real daemon as a child: started with a clean environment on free ports, read by its log, killed with
//! the test. It must not look inside: what it knows comes from the ready line, the log and the verbs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::admin;
use crate::client::Client;
use crate::process::{self, Finished, Process, Said};
use crate::upstream::Upstream;
use crate::wait::{PATIENCE, Watched};

/// How a daemon is to be started. Variables given later replace earlier ones.
#[derive(Debug)]
pub struct Builder {
    variables: Vec<(String, String)>,
    dir: TempDir,
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    variables: Vec<(String, String)>,
    addresses: Vec<(String, SocketAddr)>,
    dir: TempDir,
}

impl Builder {
    /// A pure streaming relay to one upstream: one worker, plain, no login, nothing but loopback.
    ///
    /// # Panics
    /// When no directory can be made.
    pub fn relaying_to(hosts: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("ringpost-").tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let variables = [
            ("RELAY_HOST_NAME", "relay.test".to_owned()),
            ("LISTEN_SMTP", "127.0.0.1:0".to_owned()),
            ("LISTEN_SUBMISSION", "off".to_owned()),
            ("LISTEN_SUBMISSIONS", "off".to_owned()),
            ("LISTEN_ADMIN", "127.0.0.1:0".to_owned()),
            ("CONTROL_SOCKET", path("control.sock")),
            ("STATE_DIR", path("state")),
            ("EXT_RELAY_HOST", hosts.to_owned()),
            ("OUTGOING_SMTP_AUTH", "off".to_owned()),
            ("TLS_VERIFY", "none".to_owned()),
            ("DELIVERY_PATIENCE", "forever".to_owned()),
            ("XDP", "off".to_owned()),
            ("WORKERS", "1".to_owned()),
        ];
        Self { variables: variables.map(|(name, value)| (name.to_owned(), value)).into(), dir }
    }

    /// With this variable too.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Without this variable.
    pub fn without(mut self, name: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self
    }

    /// The directory that goes away with the daemon, for files that a test wants to name.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Panics
    /// When it is not ready in time, or ends.
    #[track_caller]
    pub fn start(self) -> Daemon {
        match self.try_start() {
            Ok(daemon) => daemon,
            Err(finished) => panic!("the daemon ended before it was ready: {finished:#?}"),
        }
    }

    /// Starts it and waits until it is ready or has ended.
    ///
    /// # Errors
    /// When it ends before it is ready: how it ended.
    #[track_caller]
    pub fn try_start(self) -> Result<Daemon, Finished> {
        let process = Process::start(command(&self.variables).arg("run"));
        let ready = process.said().find("the daemon is ready or ends", |said| match ready_line(said) {
            Some(line) => Some(Some(line)),
            None => Process::is_silent(said).then_some(None),
        });
        match ready {
            Some(line) => {
                let addresses = addresses(&line);
                Ok(Daemon { process, variables: self.variables, addresses, dir: self.dir })
            }
            None => Err(process.finish()),
        }
    }

    /// Runs a verb that needs no daemon, in the same environment.
    #[track_caller]
    pub fn verb(&self, words: &[&str]) -> Finished {
        process::run(command(&self.variables).args(words))
    }
}

impl Daemon {
    /// A relay to this upstream, as [`Builder::relaying_to`].
    #[track_caller]
    pub fn relaying_to(upstream: &Upstream) -> Self {
        Builder::relaying_to(&upstream.host()).start()
    }

    /// Where the plain port is bound.
    ///
    /// # Panics
    /// When the ready line names none.
    #[track_caller]
    pub fn smtp(&self) -> SocketAddr {
        self.listener("smtp")
    }

    /// Where the HTTP admin port is bound.
    ///
    /// # Panics
    /// When the ready line names none.
    #[track_caller]
    pub fn admin(&self) -> SocketAddr {
        self.listener("admin")
    }

    /// Where a listener is bound, by its name in the ready line.
    ///
    /// # Panics
    /// When the ready line does not name it.
    #[track_caller]
    pub fn listener(&self, name: &str) -> SocketAddr {
        let found = self.addresses.iter().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("no listener {name} among {:?}", self.addresses)).1
    }

    /// Everywhere that a listener is bound.
    pub fn listeners(&self, name: &str) -> Vec<SocketAddr> {
        let named = self.addresses.iter().filter(|(known, _)| known == name);
        named.map(|(_, address)| *address).collect()
    }

    /// A client that has greeted.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::greeted(self.smtp())
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The directory that goes away with it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Runs a verb against it.
    #[track_caller]
    pub fn verb(&self, words: &[&str]) -> Finished {
        process::run(command(&self.variables).args(words))
    }

    /// The binary under another name, such as `sendmail`, in the daemon's environment.
    ///
    /// # Panics
    /// When the name cannot be made.
    #[track_caller]
    pub fn called(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        if !path.exists() {
            std::os::unix::fs::symlink(binary(), &path).expect("a link");
        }
        path
    }

    /// A command in the daemon's environment, for programs that call the binary by its other names.
    pub fn environment_of(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts a verb against it that runs until it is dropped.
    #[track_caller]
    pub fn begin(&self, words: &[&str]) -> Process {
        Process::start(command(&self.variables).args(words))
    }

    /// The value of a sample of `/metrics`, by its whole name and labels; none when there is no such sample.
    #[track_caller]
    pub fn metric(&self, sample: &str) -> Option<f64> {
        admin::sample(&admin::get(self.admin(), "/metrics").body, sample)
    }

    /// Waits for a log line that `fits`.
    #[track_caller]
    pub fn says(&self, mut fits: impl FnMut(&str) -> bool) -> String {
        self.process
            .said()
            .find("such a line is logged", |said| said.stdout.iter().find(|line| fits(line)).cloned())
    }

    /// Waits for a log line of this event.
    #[track_caller]
    pub fn logged(&self, event: &str) -> String {
        self.says(|line| field(line, "event") == Some(event))
    }

    /// Everything that it has logged so far.
    pub fn log(&self) -> String {
        self.process.said().read(Said::all)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Kills it, to be started again in the same place.
    #[track_caller]
    pub fn kill(self) -> Builder {
        self.signal(Signal::KILL);
        self.process.finish();
        Builder { variables: self.variables, dir: self.dir }
    }

    /// Ends it as an init would, to be started again in the same place.
    ///
    /// # Panics
    /// When it does not end with 0 in time.
    #[track_caller]
    pub fn pause(self) -> Builder {
        self.signal(Signal::TERM);
        let finished = self.process.finish();
        assert_eq!(finished.code, Some(0), "a clean stop: {finished:#?}");
        Builder { variables: self.variables, dir: self.dir }
    }

    /// Waits until a sample of `/metrics` has this value.
    ///
    /// # Panics
    /// When it does not in time.
    #[track_caller]
    pub fn reaches(&self, sample: &str, value: f64) {
        let looks = PATIENCE.as_millis() / LOOK.as_millis();
        for _ in 0..looks {
            if self.metric(sample) == Some(value) {
                return;
            }
            // Nobody tells when a metric changes: it has to be asked for.
            Watched::new(()).find_within(LOOK, |()| None::<()>);
        }
        panic!("{sample} is {:?}, not {value}", self.metric(sample));
    }

    /// Waits until it has ended.
    #[track_caller]
    pub fn finish(self) -> Finished {
        self.process.finish()
    }

    /// Ends it as an init would, and sees it end cleanly.
    ///
    /// # Panics
    /// When it does not end with 0 in time.
    #[track_caller]
    pub fn stop(self) {
        self.signal(Signal::TERM);
        let finished = self.finish();
        assert_eq!(finished.code, Some(0), "a clean stop: {finished:#?}");
    }
}

/// Between two looks at a metric.
const LOOK: std::time::Duration = std::time::Duration::from_millis(10);

/// The value of a `key=value` of a log line; quotes are taken off.
pub fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let start = line.match_indices(key).map(|(at, _)| at).find(|at| {
        let begins = *at == 0 || line.as_bytes()[at - 1] == b' ';
        begins && line[at + key.len()..].starts_with('=')
    })?;
    let value = &line[start + key.len() + 1..];
    match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => value.split(' ').next(),
    }
}

/// The binary under test: `$RINGPOST_BIN`, or the one beside the test program.
///
/// # Panics
/// When there is none: it must have been built before.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("RINGPOST_BIN") {
        return path.into();
    }
    let here = std::env::current_exe().expect("a test program has a path");
    let beside = here.ancestors().nth(2).map(|dir| dir.join("ringpost"));
    let beside = beside.filter(|path| path.is_file());
    beside.expect("no binary to test: `cargo build --package ringpost` first, or set RINGPOST_BIN")
}

/// A clean environment: the variables given, and where programs are.
fn command(variables: &[(String, String)]) -> Command {
    let mut command = Command::new(binary());
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    command
}

fn ready_line(said: &Said) -> Option<String> {
    said.stdout.iter().map(|line| plain(line)).find(|line| field(line, "event") == Some("ready"))
}

/// A log line as text, whichever of the two forms it came in.
fn plain(line: &str) -> String {
    let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(line) else { return line.to_owned() };
    fields.iter().map(|(name, value)| format!("{name}={value} ")).collect()
}

/// `smtp=127.0.0.1:4125` of the ready line; several addresses of one listener are parted by commas.
fn addresses(line: &str) -> Vec<(String, SocketAddr)> {
    let pairs = line.split(' ').filter_map(|word| word.split_once('='));
    pairs
        .flat_map(|(name, _)| {
            let values = field(line, name).unwrap_or("").split([',', ' ']);
            values.filter_map(move |value| Some((name.to_owned(), value.parse().ok()?)))
        })
        .collect()
}

const _: () = assert!(PATIENCE.as_secs() >= 10, "a debug build on a busy machine takes seconds to start");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_ready_line_in_json() {
        let line = plain(r#"{"event":"ready","smtp":"127.0.0.1:41,[::1]:42","workers":1}"#);
        assert_eq!(field(&line, "event"), Some("ready"));
        assert_eq!(addresses(&line).len(), 2);
    }

    #[test]
    fn reads_the_ready_line() {
        let line = r#"ts=1 event=ready smtp="127.0.0.1:41,[::1]:42" admin=127.0.0.1:43 pid=1"#;
        let found: Vec<(String, String)> =
            addresses(line).into_iter().map(|(name, address)| (name, address.to_string())).collect();
        let expected = [("smtp", "127.0.0.1:41"), ("smtp", "[::1]:42"), ("admin", "127.0.0.1:43")];
        assert_eq!(found, expected.map(|(name, address)| (name.to_owned(), address.to_owned())));
    }
}
