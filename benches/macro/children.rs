//! Our own programs as processes: the sink, which is asked for its counters, and the load, which runs to its end.
//! Both stand beside the executable that calls this.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde::de::DeserializeOwned;

use crate::load::LoadReport;
use crate::peer::placed;
use crate::sink::SinkReport;

/// A sink that runs; dropping it ends it.
pub struct SinkProcess {
    /// Where it takes mail.
    pub address: SocketAddr,
    child: Child,
    asking: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl SinkProcess {
    /// Starts a sink with `arguments` on `cpus`.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(arguments: &[String], cpus: Option<&str>) -> io::Result<Self> {
        let mut child = placed(&beside("ringpost-sink")?, cpus)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let asking = child.stdin.take();
        let mut answers = BufReader::new(child.stdout.take().ok_or_else(|| wrong("no output"))?);
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let address = line.trim().strip_prefix("ready ").and_then(|text| text.parse().ok());
        let address = address.ok_or_else(|| wrong(&line))?;
        Ok(SinkProcess { address, child, asking, answers })
    }

    /// What has arrived so far.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn report(&mut self) -> io::Result<SinkReport> {
        let asking = self.asking.as_mut().ok_or_else(|| wrong("closed"))?;
        asking.write_all(b"\n")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        parse(&line)
    }
}

impl Drop for SinkProcess {
    fn drop(&mut self) {
        self.asking = None;
        // It ends when its input closes; what it says last does not matter any more.
        drop(self.child.wait());
    }
}

/// Runs a load to its end. A load whose messages failed is a report too, not an error.
///
/// # Errors
/// Where it does not start or says nothing.
pub fn run_load(arguments: &[String], cpus: Option<&str>) -> io::Result<LoadReport> {
    let output = placed(&beside("ringpost-load")?, cpus).args(arguments).stdin(Stdio::null()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse(&text).map_err(|_| wrong(String::from_utf8_lossy(&output.stderr).trim()))
}

/// Idle sessions that are held open until this is dropped.
pub struct IdleProcess(Child);

impl IdleProcess {
    /// Opens `sessions` to `target` and returns once all are past EHLO.
    ///
    /// # Errors
    /// Where a session fails.
    pub fn start(target: SocketAddr, sessions: usize, cpus: Option<&str>) -> io::Result<Self> {
        let mut child = placed(&beside("ringpost-load")?, cpus)
            .args([target.to_string(), "--idle".to_owned(), sessions.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let held = IdleProcess(child);
        if line.trim() == format!("idle {sessions}") {
            Ok(held)
        } else {
            Err(wrong("idle sessions were refused"))
        }
    }
}

impl Drop for IdleProcess {
    fn drop(&mut self) {
        self.0.stdin = None;
        drop(self.0.wait());
    }
}

fn beside(name: &str) -> io::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if path.is_file() { Ok(path) } else { Err(wrong(&format!("{name} is not built"))) }
}

fn parse<T: DeserializeOwned>(line: &str) -> io::Result<T> {
    T::deserialize(&mut serde_json::Deserializer::from_str(line)).map_err(|_| wrong(line))
}

fn wrong(text: &str) -> io::Error {
    io::Error::other(format!("unexpected: {}", text.trim()))
}
