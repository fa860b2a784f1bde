//! The relay under test: always at the same addresses, so that another process of it takes the queue over, and its upstream
//! can come and go. It ends only what it has started.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use ringpost_benches::clock;
use ringpost_benches::peer::greets;
use ringpost_benches::process::{Usage, tree_usage};

use super::{GLANCE, mebibytes};

/// How long a relay may take until it greets.
const READY_MAX: Duration = Duration::from_secs(120);

/// A relay with a folder of its own; dropping it ends it and removes the folder.
pub(crate) struct Relay {
    /// Where it takes mail.
    pub(crate) address: SocketAddr,
    /// Where its upstream is, or is not.
    pub(crate) upstream: SocketAddr,
    admin: SocketAddr,
    binary: PathBuf,
    workers: usize,
    child: Option<Child>,
    dir: tempfile::TempDir,
}

impl Relay {
    /// A relay that does not run yet.
    pub(crate) fn new(scratch: Option<&Path>, workers: usize) -> io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("backlog-");
        let dir = scratch.map_or_else(|| builder.tempdir(), |parent| builder.tempdir_in(parent))?;
        let binary = std::env::current_exe()?.with_file_name("ringpost");
        let [address, upstream, admin] = free_addresses()?;
        Ok(Self { address, upstream, admin, binary, workers, child: None, dir })
    }

    /// Starts it; how long it took until it greeted.
    pub(crate) fn start(&mut self) -> io::Result<Duration> {
        let start = clock::now();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM"])
            .arg(&self.binary)
            .arg("run")
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs(self.settings())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        let child = self.child.insert(child);
        while !greets(self.address) {
            if clock::now() - start > READY_MAX || child.try_wait()?.is_some() {
                return Err(io::Error::other("the relay does not greet"));
            }
            thread::sleep(GLANCE);
        }
        Ok(clock::now() - start)
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let dir = self.dir.path().display();
        vec![
            ("RELAY_HOST_NAME", "ringpost.bench.example".to_owned()),
            ("LISTEN_SMTP", self.address.to_string()),
            ("LISTEN_SUBMISSION", "off".to_owned()),
            ("LISTEN_SUBMISSIONS", "off".to_owned()),
            ("LISTEN_ADMIN", self.admin.to_string()),
            ("CONTROL_SOCKET", format!("{dir}/control.sock")),
            ("STATE_DIR", format!("{dir}/state")),
            ("EXT_RELAY_HOST", format!("[{}]:{}", self.upstream.ip(), self.upstream.port())),
            ("OUTGOING_SMTP_AUTH", "off".to_owned()),
            ("TLS_VERIFY", "none".to_owned()),
            ("DELIVERY_PATIENCE", "0".to_owned()),
            ("XDP", "off".to_owned()),
            ("WORKERS", self.workers.to_string()),
            ("LOG_TARGET", "/dev/null".to_owned()),
        ]
    }

    /// Kills it, as a power failure would but for the disk.
    pub(crate) fn kill(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    pub(crate) fn usage(&self) -> Usage {
        self.child.as_ref().map_or_else(Usage::default, |child| tree_usage(child.id()))
    }

    pub(crate) fn resident(&self) -> u64 {
        self.usage().resident_octets
    }

    pub(crate) fn mebibytes(&self) -> u64 {
        mebibytes(self.resident())
    }

    /// What its folder takes on the disk.
    pub(crate) fn disk_octets(&self) -> u64 {
        octets_of(self.dir.path())
    }

    /// The histogram of delays: bounds in milliseconds, and how many messages had no longer one.
    pub(crate) fn delays(&self) -> io::Result<Vec<(f64, u64)>> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let rows = text.lines().filter_map(|line| {
            let (bound, count) =
                line.strip_prefix("ringpost_delivery_seconds_bucket{le=\"")?.split_once("\"} ")?;
            Some((bound.parse::<f64>().ok()? * 1000.0, count.parse().ok()?))
        });
        Ok(rows.collect())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.kill());
    }
}

fn octets_of(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => octets_of(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

/// Addresses that were free a moment ago.
fn free_addresses() -> io::Result<[SocketAddr; 3]> {
    let listen = || TcpListener::bind(("127.0.0.1", 0));
    let listeners = [listen()?, listen()?, listen()?];
    let address = |at: usize| listeners[at].local_addr();
    Ok([address(0)?, address(1)?, address(2)?])
}
