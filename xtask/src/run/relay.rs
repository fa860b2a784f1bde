//! The relay as a child process: how it is started, read and stopped. It must not know what is sent through it.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use super::Event;

/// Where `/metrics` is.
pub(crate) const ADMIN_PORT: u16 = 9025;
/// The submission ports relative to the plain one: 2587 and 2465 beside 2525.
const SUBMISSION_ABOVE: u16 = 62;
const SUBMISSIONS_BELOW: u16 = 60;
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);

/// The running relay.
pub(crate) struct Relay {
    child: Child,
    binary: PathBuf,
    variables: Vec<(&'static str, String)>,
    submission: bool,
}

impl Relay {
    /// Starts it; each line that it logs becomes an event.
    ///
    /// # Errors
    /// When the port is taken or the binary cannot be started.
    pub(crate) fn start(
        binary: &Path,
        upstream: &str,
        port: u16,
        dir: &Path,
        events: Sender<Event>,
    ) -> io::Result<Self> {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            let text = format!("something listens on port {port} already: choose another with --port");
            return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
        }
        let plain = plain_variables(upstream, port, dir);
        let with_submission: Vec<_> = plain.iter().cloned().chain(submission_variables(port)).collect();
        // Submission is asked for where this build has it; `check` tells, and touches nothing.
        let submission = command(binary, &with_submission).arg("check").output()?.status.success();
        let variables = if submission { with_submission } else { plain };
        let mut child = command(binary, &variables).arg("run").stdout(Stdio::piped()).spawn()?;
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if events.send(Event::Line(line)).is_err() {
                        return;
                    }
                }
                // The receiver may be gone: then nobody waits for the end.
                events.send(Event::Ended).ok();
            });
        }
        Ok(Self { child, binary: binary.to_path_buf(), variables, submission })
    }

    /// Whose custody messages went into, by the relay's own counters: `upstream`, `spool` or both.
    pub(crate) fn custody(&self) -> Option<String> {
        let metrics = get("/metrics").ok()?;
        let counted = metrics.lines().filter_map(|line| {
            let labels = line.strip_prefix("ringpost_messages_relayed_total{custody=\"")?;
            let (custody, value) = labels.split_once("\"} ")?;
            (value.trim() != "0").then(|| custody.to_owned())
        });
        let counted: Vec<String> = counted.collect();
        (!counted.is_empty()).then(|| counted.join(" and "))
    }

    /// How to submit with a password, where this build can.
    pub(crate) fn submission_hint(&self) {
        let port = |name: &str| {
            let (_, value) = self.variables.iter().find(|(known, _)| *known == name)?;
            value.rsplit_once(':').map(|(_, port)| port.to_owned())
        };
        if let (true, Some(port)) = (self.submission, port("LISTEN_SUBMISSION")) {
            println!(
                "  swaks --server 127.0.0.1:{port} --tls --auth-user demo@localhost --auth-password demo \
                 --to you@example.com"
            );
        }
    }

    /// Asks it to drain and end. Ctrl-C has reached it already when it came from the terminal; asking twice
    /// by the verb does no harm, where a second signal would cut the drain.
    pub(crate) fn stop(&mut self) {
        let asked = command(&self.binary, &self.variables).arg("stop").stdout(Stdio::null()).spawn();
        if asked.is_err() {
            self.kill();
        }
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself: then there is nothing to end.
        self.child.kill().ok();
    }

    /// How it ended.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub(crate) fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.kill();
        self.child.wait().ok();
    }
}

/// The value of a `key=value` of a log line; quotes are taken off.
pub(crate) fn field<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let start = line.match_indices(key).map(|(at, _)| at).find(|at| {
        (*at == 0 || line.as_bytes()[at - 1] == b' ') && line[at + key.len()..].starts_with('=')
    })?;
    let value = &line[start + key.len() + 1..];
    match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => value.split(' ').next(),
    }
}

/// A clean environment: nothing of the caller's mail settings gets in.
fn command(binary: &Path, variables: &[(&'static str, String)]) -> Command {
    let mut command = Command::new(binary);
    command.env_clear().envs(env::var_os("PATH").map(|path| ("PATH", path)));
    command.envs(variables.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
    command
}

fn plain_variables(upstream: &str, port: u16, dir: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("RELAY_HOST_NAME", "ringpost.localhost".to_owned()),
        ("LISTEN_SMTP", format!("127.0.0.1:{port}")),
        ("LISTEN_SUBMISSION", "off".to_owned()),
        ("LISTEN_SUBMISSIONS", "off".to_owned()),
        ("LISTEN_ADMIN", format!("127.0.0.1:{ADMIN_PORT}")),
        ("CONTROL_SOCKET", dir.join("control.sock").display().to_string()),
        ("STATE_DIR", dir.display().to_string()),
        ("EXT_RELAY_HOST", upstream.to_owned()),
        ("OUTGOING_SMTP_AUTH", "off".to_owned()),
        ("XDP", "off".to_owned()),
    ]
}

fn submission_variables(port: u16) -> Vec<(&'static str, String)> {
    vec![
        ("LISTEN_SUBMISSION", format!("127.0.0.1:{}", port.saturating_add(SUBMISSION_ABOVE))),
        ("LISTEN_SUBMISSIONS", format!("127.0.0.1:{}", port.saturating_sub(SUBMISSIONS_BELOW))),
        ("INCOMING_SMTP_AUTHLOGIN", "demo".to_owned()),
        ("INCOMING_SMTP_AUTHDOM", "localhost".to_owned()),
        ("INCOMING_SMTP_AUTHPASSWORD", "demo".to_owned()),
    ]
}

fn get(path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", ADMIN_PORT))?;
    stream.set_read_timeout(Some(ADMIN_TIMEOUT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_of_a_log_line() {
        let line = "level=INFO event=relayed from=<a@x> reply=\"250 2.0.0 Ok\" to=<b@y>";
        assert_eq!(field(line, "event"), Some("relayed"));
        assert_eq!(field(line, "reply"), Some("250 2.0.0 Ok"));
        assert_eq!(field(line, "to"), Some("<b@y>"));
        assert_eq!(field(line, "ply"), None);
    }
}
