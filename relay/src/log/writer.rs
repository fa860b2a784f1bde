//! The one thread that writes the log, and what it writes to.
//!
//! A target that fails costs lines, which are counted, and nothing else: the next batch is tried again. A target
//! that blocks blocks this thread alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::config::Target;
use super::lanes::{Lanes, records};

/// Opens the target and starts the thread.
pub(super) fn start(target: &Target) -> io::Result<Arc<Lanes>> {
    let mut sink = Sink::open(target)?;
    let lanes = Arc::new(Lanes::new());
    let served = Arc::clone(&lanes);
    let (ready, is_ready) = flume::bounded::<()>(1);
    let write = move || {
        served.write_here();
        drop(ready);
        served.serve(|octets| {
            if served.take_reopen() {
                sink.reopen();
            }
            served.drop_lines(sink.write(octets));
        })
    };
    std::thread::Builder::new().name("log".to_owned()).spawn(write)?;
    // The channel closes once the thread may be woken.
    let _ = is_ready.recv();
    Ok(lanes)
}

/// What lines are written to.
#[derive(Debug)]
enum Sink {
    Stream { file: File, path: Option<PathBuf> },
    Datagrams { socket: Option<UnixDatagram>, path: PathBuf },
}

impl Sink {
    fn open(target: &Target) -> io::Result<Self> {
        match target {
            Target::Stdout => {
                Ok(Self::Stream { file: io::stdout().as_fd().try_clone_to_owned()?.into(), path: None })
            }
            Target::File(path) => Ok(Self::Stream { file: append(path)?, path: Some(path.clone()) }),
            Target::Syslog => Self::datagrams(Path::new(SYSLOG_SOCKET)),
            Target::Journald => Self::datagrams(Path::new(JOURNAL_SOCKET)),
        }
    }

    fn datagrams(path: &Path) -> io::Result<Self> {
        Ok(Self::Datagrams { socket: Some(connect(path)?), path: path.to_owned() })
    }

    /// Opens a file anew; keeps the old one where that fails.
    fn reopen(&mut self) {
        if let Self::Stream { file, path: Some(path) } = self
            && let Ok(opened) = append(path)
        {
            *file = opened;
        }
    }

    /// Writes a batch; gives the lines that were lost.
    fn write(&mut self, octets: &[u8]) -> u64 {
        match self {
            Self::Stream { file, .. } => write_stream(file, octets),
            Self::Datagrams { socket, path } => {
                let lost = records(octets).filter(|record| send(socket, path, record).is_err());
                lost.count() as u64
            }
        }
    }
}

/// Writes all octets, or as many as the stream takes before it fails; a full non-blocking pipe is waited for.
fn write_stream(file: &mut File, mut octets: &[u8]) -> u64 {
    while !octets.is_empty() {
        match file.write(octets) {
            Ok(0) => break,
            Ok(written) => octets = &octets[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                std::thread::park_timeout(FULL_PIPE_WAIT);
            }
            // A reader that went away (the runtime ignores SIGPIPE), a full disk.
            Err(_) => break,
        }
    }
    memchr::memchr_iter(b'\n', octets).count() as u64
}

/// Sends one record; connects again where the daemon behind the socket was started anew.
fn send(socket: &mut Option<UnixDatagram>, path: &Path, record: &[u8]) -> io::Result<()> {
    if let Some(connected) = socket
        && connected.send(record).is_ok()
    {
        return Ok(());
    }
    *socket = None;
    socket.insert(connect(path)?).send(record).map(drop)
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(path)
}

fn connect(path: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok(socket)
}

const SYSLOG_SOCKET: &str = "/dev/log";
const JOURNAL_SOCKET: &str = "/run/systemd/journal/socket";
/// Addresses of mail are nobody else's business.
const FILE_MODE: u32 = 0o640;
const FULL_PIPE_WAIT: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::lanes::Lanes;

    fn batch(lines: &[&[u8]]) -> Vec<u8> {
        let lanes = Lanes::new();
        let lane = lanes.open();
        lines.iter().for_each(|line| lane.push_record(&[line], false, &lanes));
        lanes.pending_of(&lane)
    }

    #[test]
    fn datagrams_survive_a_restart_of_their_daemon() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("log");
        let mut octets = [0; 64];
        let daemon = UnixDatagram::bind(&path).unwrap();
        let mut sink = Sink::datagrams(&path).unwrap();
        assert_eq!(sink.write(&batch(&[b"one", b"two"])), 0);
        assert_eq!(daemon.recv(&mut octets).unwrap(), 3);
        drop(daemon);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(sink.write(&batch(&[b"lost", b"lost too"])), 2);
        let daemon = UnixDatagram::bind(&path).unwrap();
        assert_eq!(sink.write(&batch(&[b"three"])), 0);
        assert_eq!(daemon.recv(&mut octets).unwrap(), 5);
    }

    #[test]
    fn a_reader_that_went_away_costs_lines_and_nothing_else() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut file = File::from(std::os::fd::OwnedFd::from(writer));
        assert_eq!(write_stream(&mut file, b"one\ntwo\n"), 2);
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_again_on_request() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("ringpost.log");
        let mut sink = Sink::open(&Target::File(path.clone())).unwrap();
        sink.write(b"one\n");
        std::fs::rename(&path, home.path().join("ringpost.log.1")).unwrap();
        sink.write(b"two\n");
        sink.reopen();
        sink.write(b"three\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"three\n");
        assert_eq!(std::fs::read(home.path().join("ringpost.log.1")).unwrap(), b"one\ntwo\n");
    }
}
