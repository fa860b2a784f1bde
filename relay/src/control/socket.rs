//! The control socket: a Unix socket that the verbs talk to, mode 0660.
//!
//! Who may connect may command: the mode of the file is the only permission. A socket that another process left
//! behind is replaced only where nobody answers on it; taking over is serialized by a lock on the directory, so
//! that of two daemons that start together one finds the other running.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream as StdUnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::Fault;
use super::explain::explain;
use super::plane::Plane;
use super::protocol::{self, Answer, GateQuestion, Request};
use super::queue;
use crate::limits;

/// The control socket, bound but not yet served.
#[derive(Debug)]
pub(super) struct Listening {
    listener: StdUnixListener,
    file: SocketFile,
}

/// The name of the socket in the file system, removed when dropped unless somebody else took the name.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Listening {
    /// Binds the socket, makes its directory if that is missing.
    pub(super) fn bind(path: &Path) -> Result<Self, Fault> {
        let fault = |error| Fault::Socket(path.to_owned(), error);
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(directory).map_err(fault)?;
        let lock = File::open(directory).map_err(fault)?;
        lock.lock().map_err(fault)?;
        if is_alive(path).map_err(fault)? {
            return Err(Fault::AlreadyRunning(path.to_owned()));
        }
        Self::bind_free(path).map_err(fault)
    }

    fn bind_free(path: &Path) -> io::Result<Self> {
        let listener = StdUnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
        let inode = fs::symlink_metadata(path)?.ino();
        Ok(Self { listener, file: SocketFile { path: path.to_owned(), inode } })
    }

    /// The name to be kept while the socket serves, and the task that serves it.
    pub(super) fn serve(
        self,
        plane: Arc<Plane>,
    ) -> io::Result<(SocketFile, impl Future<Output = ()> + Send)> {
        Ok((self.file, accept_all(UnixListener::from_std(self.listener)?, plane)))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            // Nothing can be done about a name that stays: the next start replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Whether somebody answers on the socket of that name; removes the name where nobody does.
fn is_alive(path: &Path) -> io::Result<bool> {
    match StdUnixStream::connect(path) {
        Ok(_) => Ok(true),
        // The queue of connections is full: somebody listens, and is slow.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            if !fs::symlink_metadata(path)?.file_type().is_socket() {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "there is a file that is no socket",
                ));
            }
            fs::remove_file(path)?;
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

async fn accept_all(listener: UnixListener, plane: Arc<Plane>) {
    let room = Arc::new(Semaphore::new(limits::CONTROL_CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let plane = Arc::clone(&plane);
                tokio::spawn(async move {
                    // A peer that went away or said nothing is its own affair.
                    let _ = converse(stream, &plane).await;
                    drop(permit);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn converse(mut stream: UnixStream, plane: &Arc<Plane>) -> io::Result<()> {
    let request = match protocol::read(&mut stream).await {
        Ok(request) => request,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return protocol::write(&mut stream, &Answer::Malformed { reason: error.to_string() }).await;
        }
        Err(error) => return Err(error),
    };
    note(&stream, &request);
    let answer = match request {
        Request::Stop => {
            plane.wait_for_stop(stream).await;
            plane.stop();
            return Ok(());
        }
        Request::Status => Answer::Status(Box::new(plane.status().await)),
        Request::Reload { confirm_ms } => plane.reload(confirm_ms.map(Duration::from_millis)).await,
        Request::Confirm => plane.confirm().await,
        Request::Flush => Answer::Flushed { messages: plane.facts.workers.flush().await },
        Request::Queue { action, which } => return queue::answer(&mut stream, plane, action, which).await,
        Request::Explain(question) => {
            let settings = plane.settings().await;
            let (gate, is_banned) = plane.explain_gate(question.address, question.port).await;
            let mut found = explain(&question, &settings, &plane.facts.listeners);
            found.add_gate(gate, is_banned);
            Answer::Explained(Box::new(found))
        }
        Request::Gate { question } => plane.answer_gate(question).await,
    };
    protocol::write(&mut stream, &answer).await
}

/// Logs who commanded what; questions are not logged.
fn note(stream: &UnixStream, request: &Request) {
    let verb = match request {
        Request::Status | Request::Explain(_) => return,
        Request::Stop => "stop",
        Request::Reload { .. } => "reload",
        Request::Confirm => "confirm",
        Request::Flush => "flush",
        Request::Queue { action, .. } => match queue::logged(*action) {
            Some(verb) => verb,
            None => return,
        },
        Request::Gate { question: GateQuestion::Ban { .. } } => "gate ban",
        Request::Gate { question: GateQuestion::Unban { .. } } => "gate unban",
        Request::Gate { .. } => return,
    };
    let peer = stream.peer_cred().ok();
    let (uid, pid) = (peer.map(|peer| peer.uid()), peer.and_then(|peer| peer.pid()));
    tracing::info!(event = "control", verb, uid, pid);
}

/// Read and write for owner and group.
const SOCKET_MODE: u32 = 0o660;
/// How long accepting pauses when the system has no descriptor or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(path: &Path) -> Result<Listening, Fault> {
        Listening::bind(path)
    }

    #[test]
    fn makes_its_directory_and_lets_owner_and_group_in_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("run/ringpost/control.sock");
        let listening = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        drop(listening);
        assert!(!path.exists());
    }

    #[test]
    fn replaces_a_socket_that_nobody_answers_on() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("control.sock");
        drop(StdUnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a plain drop leaves the name behind");
        let listening = bind(&path).unwrap();
        StdUnixStream::connect(&path).unwrap();
        drop(listening);
    }

    #[test]
    fn never_takes_a_live_socket() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("control.sock");
        let alive = bind(&path).unwrap();
        let fault = bind(&path).unwrap_err();
        assert!(matches!(fault, Fault::AlreadyRunning(_)));
        assert_eq!(fault.exit_code(), 73);
        assert!(fault.to_string().contains("already running"));
        StdUnixStream::connect(&path).unwrap();
        drop(alive);
    }

    #[test]
    fn never_removes_a_file_that_is_no_socket() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("control.sock");
        fs::write(&path, "precious").unwrap();
        assert!(matches!(bind(&path), Err(Fault::Socket(..))));
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn leaves_a_name_that_a_successor_took() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("control.sock");
        let old = bind(&path).unwrap();
        fs::rename(&path, home.path().join("moved.sock")).unwrap();
        let new = bind(&path).unwrap();
        drop(old);
        StdUnixStream::connect(&path).unwrap();
        drop(new);
    }
}
