//! A child process: its output by lines as it comes, its end, its death with the test. Waits are bounded.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::Watched;

/// What a process has said so far.
#[derive(Debug, Default)]
pub struct Said {
    /// Lines of stdout.
    pub stdout: Vec<String>,
    /// Lines of stderr.
    pub stderr: Vec<String>,
    open_pipes: usize,
}

impl Said {
    /// Everything, for a message of failure.
    pub fn all(&self) -> String {
        self.stdout.iter().chain(&self.stderr).map(|line| format!("{line}\n")).collect()
    }
}

/// How a process ended and what it had said.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Whether the kernel has written down its memory.
    pub has_dumped_core: bool,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
}

/// A running child. It is killed, by its own id, when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    said: Arc<Watched<Said>>,
}

impl Process {
    /// Starts a command with no input.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        Self::with_input(command, b"")
    }

    /// Starts a command and feeds it its input.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn with_input(command: &mut Command, input: &[u8]) -> Self {
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = started.unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let said = Arc::new(Watched::new(Said { open_pipes: 2, ..Said::default() }));
        if let Some(pipe) = child.stdout.take() {
            collect(pipe, Arc::clone(&said), |said| &mut said.stdout);
        }
        if let Some(pipe) = child.stderr.take() {
            collect(pipe, Arc::clone(&said), |said| &mut said.stderr);
        }
        if let Some(mut pipe) = child.stdin.take() {
            let input = input.to_vec();
            // A child that does not read its input ends without it: nothing to mend here.
            thread::spawn(move || pipe.write_all(&input).ok());
        }
        Self { child, said }
    }

    /// What it has said so far.
    pub fn said(&self) -> &Watched<Said> {
        &self.said
    }

    /// Whether both its pipes are closed: it has ended, or is about to.
    pub fn is_silent(said: &Said) -> bool {
        said.open_pipes == 0
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal. A process that has ended by itself needs none.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(id) = id {
            kill_process(id, signal).ok();
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not end within [`crate::wait::PATIENCE`].
    #[track_caller]
    pub fn finish(mut self) -> Finished {
        self.said.find("the process ends", |said| Self::is_silent(said).then_some(()));
        let status: ExitStatus = self.child.wait().expect("a child can be waited for");
        let text = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect();
        self.said.read(|said| Finished {
            code: status.code(),
            has_dumped_core: status.core_dumped(),
            stdout: text(&said.stdout),
            stderr: text(&said.stderr),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail when it has ended already, which is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Runs a command to its end.
///
/// # Panics
/// When it cannot be started or does not end in time.
#[track_caller]
pub fn run(command: &mut Command) -> Finished {
    Process::start(command).finish()
}

fn collect<R: Read + Send + 'static>(
    pipe: R,
    said: Arc<Watched<Said>>,
    into: fn(&mut Said) -> &mut Vec<String>,
) {
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        while pipe.read_until(b'\n', &mut line).is_ok_and(|octets| octets > 0) {
            let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned();
            said.update(|said| into(said).push(text));
            line.clear();
        }
        said.update(|said| said.open_pipes -= 1);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_was_said_and_how_it_ended() {
        let finished = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]));
        assert_eq!(
            (finished.code, finished.stdout.as_str(), finished.stderr.as_str()),
            (Some(3), "out\n", "err\n")
        );
    }

    #[test]
    fn feeds_input_and_signals() {
        let cat = Process::with_input(&mut Command::new("cat"), b"one\ntwo");
        assert_eq!(cat.finish().stdout, "one\ntwo\n");
        let waiting = Process::start(Command::new("tail").args(["-f", "/dev/null"]));
        waiting.signal(Signal::KILL);
        assert_eq!(waiting.finish().code, None, "a signal ended it");
    }
}
