//! What is compared: `direct` (generator straight to sink), the relay itself, and other programs doing its job. Starting one
//! gives an address to load and a process tree to watch. Each runs from a folder of its own and leaves nothing behind.

mod haproxy;
mod postfix;
mod ringpost;

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::thread;
use std::time::Duration;

use crate::size::Size;
use crate::{clock, process};

/// How long a peer may take until it greets.
const READY_SECS_MAX: u64 = 30;
/// How long a peer may take to stop before it is killed.
const STOP_SECS_MAX: u64 = 15;
/// How long between two looks at something that tells no event.
pub(crate) const GLANCE: Duration = Duration::from_millis(10);

/// One of the compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// Nothing between generator and sink: the ceiling.
    Direct,
    /// HAProxy in TCP mode: octets, no SMTP. With its own buffer size, or with a larger one, which suits large messages.
    Haproxy(Option<Size>),
    /// Postfix with its durable queue.
    Postfix,
    /// The relay, with a `DELIVERY_PATIENCE`.
    Ringpost(String),
}

/// Who holds a message that the client was told is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// The sink has it already.
    Sink,
    /// A queue, which delivers it later.
    Queue,
}

/// Where and with what a peer starts.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    /// The sink.
    pub upstream: SocketAddr,
    /// An empty folder, open to other users.
    pub dir: &'a Path,
    /// Threads or workers, the same for all peers.
    pub threads: usize,
    /// Sessions that must fit.
    pub sessions: usize,
    /// The relay's binary.
    pub ringpost: &'a Path,
    /// The CPUs that the peer is kept on, as taskset(1) takes them.
    pub cpus: Option<&'a str>,
}

/// Why there is no such row.
#[derive(Debug)]
pub enum PeerError {
    /// It is not on this machine; what to do about it.
    Missing(String),
    /// It cannot be started by this user.
    NeedsRoot,
    /// It ended, or did not greet in time; what it wrote.
    NotReady(String),
    /// Starting it failed.
    Io(io::Error),
}

impl fmt::Display for PeerError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerError::Missing(advice) => out.write_str(advice),
            PeerError::NeedsRoot => out.write_str("starts as root only"),
            PeerError::NotReady(text) => write!(out, "did not become ready: {}", text.trim()),
            PeerError::Io(error) => write!(out, "{error}"),
        }
    }
}

impl From<io::Error> for PeerError {
    fn from(error: io::Error) -> Self {
        PeerError::Io(error)
    }
}

impl Peer {
    /// Who holds an acknowledged message.
    #[must_use]
    pub fn holder(&self) -> Holder {
        match self {
            Peer::Direct | Peer::Haproxy(_) => Holder::Sink,
            Peer::Ringpost(patience) if patience == "forever" => Holder::Sink,
            Peer::Postfix | Peer::Ringpost(_) => Holder::Queue,
        }
    }

    /// Starts it and waits until it greets.
    ///
    /// # Errors
    /// Why it does not run here.
    pub fn start(&self, place: &Place<'_>) -> Result<Started, PeerError> {
        let mut started = match self {
            Peer::Direct => return Ok(Started { address: place.upstream, process: None, output: None }),
            Peer::Haproxy(buffer) => haproxy::start(place, *buffer)?,
            Peer::Postfix => postfix::start(place, "")?,
            Peer::Ringpost(patience) => ringpost::start(place, patience)?,
        };
        started.await_banner()?;
        Ok(started)
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Direct => out.write_str("direct"),
            Peer::Haproxy(None) => out.write_str("haproxy"),
            Peer::Haproxy(Some(buffer)) => write!(out, "haproxy:{buffer}"),
            Peer::Postfix => out.write_str("postfix"),
            Peer::Ringpost(patience) if patience == "forever" => out.write_str("ringpost"),
            Peer::Ringpost(patience) => write!(out, "ringpost:{patience}"),
        }
    }
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, choice) = match text.split_once(':') {
            Some((name, choice)) => (name, Some(choice).filter(|choice| !choice.is_empty())),
            None => (text, None),
        };
        match (name, choice) {
            _ if text.ends_with(':') => Err(format!("`{text}` lacks what follows the colon")),
            ("direct", None) => Ok(Peer::Direct),
            ("haproxy", buffer) => Ok(Peer::Haproxy(buffer.map(str::parse).transpose()?)),
            ("postfix", None) => Ok(Peer::Postfix),
            ("ringpost", patience) => Ok(Peer::Ringpost(patience.unwrap_or("forever").to_owned())),
            _ => Err(format!(
                "`{text}` is no peer; there are direct, ringpost[:PATIENCE], haproxy[:BUFFER] and postfix"
            )),
        }
    }
}

/// Postfix with further lines of `main.cf`, which count where they contradict ours.
///
/// # Errors
/// As [`Peer::start`].
pub fn postfix_with(place: &Place<'_>, settings: &str) -> Result<Started, PeerError> {
    let mut started = postfix::start(place, settings)?;
    started.await_banner()?;
    Ok(started)
}

/// A peer that runs; dropping it stops it.
#[derive(Debug)]
pub struct Started {
    /// Where it takes mail.
    pub address: SocketAddr,
    process: Option<Child>,
    /// What it writes, for the case that it fails.
    output: Option<PathBuf>,
}

impl Started {
    /// The root of its process tree; none for `direct`.
    #[must_use]
    pub fn root(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Waits until it greets with 220, as long as its process lives.
    fn await_banner(&mut self) -> Result<(), PeerError> {
        let give_up = clock::now() + Duration::from_secs(READY_SECS_MAX);
        while !greets(self.address) {
            if clock::now() > give_up || self.has_ended()? {
                return Err(PeerError::NotReady(self.written()));
            }
            thread::sleep(GLANCE);
        }
        Ok(())
    }

    fn has_ended(&mut self) -> io::Result<bool> {
        match &mut self.process {
            Some(process) => Ok(process.try_wait()?.is_some()),
            None => Ok(false),
        }
    }

    /// The last line that it wrote.
    fn written(&self) -> String {
        let text =
            self.output.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        text.lines().last().unwrap_or("it wrote nothing").to_owned()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let Some(process) = &mut self.process else { return };
        let tree = process::tree(process.id());
        if terminate(process).is_err() {
            // It has ended already, or does not listen: this is the last word.
            drop(process.kill());
            drop(process.wait());
        }
        for left in tree.into_iter().filter(process::Identity::lives) {
            signal("-KILL", left.pid);
        }
    }
}

/// Asks a process to end and waits until it has.
fn terminate(process: &mut Child) -> io::Result<()> {
    signal("-TERM", process.id());
    let give_up = clock::now() + Duration::from_secs(STOP_SECS_MAX);
    while process.try_wait()?.is_none() {
        if clock::now() > give_up {
            return Err(io::Error::other("does not stop"));
        }
        thread::sleep(GLANCE);
    }
    Ok(())
}

/// Sends a signal to a process that we started; one that has just ended does not matter.
fn signal(name: &str, pid: u32) {
    drop(Command::new("kill").args([name, &pid.to_string()]).stderr(Stdio::null()).status());
}

/// Whether a server there greets with 220 within five seconds; it is left with QUIT.
#[must_use]
pub fn greets(address: SocketAddr) -> bool {
    let attempt = || -> io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut banner = [0; 3];
        stream.read_exact(&mut banner)?;
        stream.write_all(b"QUIT\r\n")?;
        stream.read_to_end(&mut Vec::new())?;
        Ok(&banner == b"220")
    };
    attempt().unwrap_or(false)
}

/// A command that runs on `cpus` only, where that is asked, and that ends when we are killed. Programs that change their user
/// lose that last; against all other ends the conductor stops what it started.
pub(crate) fn placed(program: &Path, cpus: Option<&str>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]);
    if let Some(cpus) = cpus {
        command.args(["taskset", "-c", cpus]);
    }
    command.arg(program);
    command
}

/// Where a program is: on `PATH`, or where Debian keeps daemons.
fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    places.map(|dir| dir.join(program)).find(|candidate| candidate.is_file())
}

/// Where a Debian package's program is.
fn debian(program: &'static str, package: &'static str) -> Result<PathBuf, PeerError> {
    let advice =
        || PeerError::Missing(format!("not installed: apt-get install --no-install-recommends {package}"));
    found(program).ok_or_else(advice)
}

/// A port that was free a moment ago, for programs that cannot be given a socket.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["direct", "haproxy", "haproxy:64K", "postfix", "ringpost", "ringpost:0", "ringpost:50ms"]
        {
            assert_eq!(name.parse::<Peer>().unwrap().to_string(), name);
        }
        for name in ["ringpost:", "exim", "haproxy:much", "direct:1", ""] {
            assert!(name.parse::<Peer>().is_err(), "{name}");
        }
    }

    #[test]
    fn knows_who_queues() {
        let queues = |name: &str| name.parse::<Peer>().unwrap().holder() == Holder::Queue;
        assert!(queues("postfix") && queues("ringpost:0") && queues("ringpost:50ms"));
        assert!(!queues("ringpost") && !queues("haproxy") && !queues("direct"));
    }
}
