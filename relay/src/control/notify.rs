//! Tells the service manager how we are (sd_notify): one datagram of `KEY=value` lines to `$NOTIFY_SOCKET`.
//!
//! Without the variable every call does nothing. A datagram that cannot be sent is dropped: the manager's own
//! time limits are the fallback. For units of `Type=notify`; the reload verb, not the manager, awaits a reload's end.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::time::Duration;

/// The service manager, if there is one. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct ServiceManager {
    socket: Option<Arc<UnixDatagram>>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that `$NOTIFY_SOCKET` names.
    pub(super) fn from_environment() -> Self {
        let watchdog = env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        let is_for_us = env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        Self::new(env::var_os("NOTIFY_SOCKET"), watchdog.filter(|_| is_for_us))
    }

    fn new(path: Option<OsString>, watchdog_micros: Option<u64>) -> Self {
        let socket = path.and_then(|path| connect(path.as_bytes()).ok()).map(Arc::new);
        let watchdog = watchdog_micros.filter(|&micros| micros > 0).map(Duration::from_micros);
        Self { watchdog: watchdog.filter(|_| socket.is_some()), socket }
    }

    /// How long it waits for a sign of life before it starts us anew.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// All is up.
    pub(super) fn ready(&self) {
        self.send("READY=1\n");
    }

    /// The configuration is being read again; [`Self::ready`] follows.
    pub(super) fn reloading(&self) {
        self.send("RELOADING=1\n");
    }

    /// The drain has begun.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1\n");
    }

    /// A sign of life.
    pub(super) fn alive(&self) {
        if self.watchdog.is_some() {
            self.send("WATCHDOG=1\n");
        }
    }

    fn send(&self, state: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(state.as_bytes());
        }
    }
}

fn connect(path: &[u8]) -> io::Result<UnixDatagram> {
    let address = match path {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(socket: &UnixDatagram) -> String {
        let mut octets = [0; 64];
        let count = socket.recv(&mut octets).unwrap();
        String::from_utf8(octets[..count].to_vec()).unwrap()
    }

    #[test]
    fn speaks_to_a_socket_in_the_file_system() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("notify");
        let manager_end = UnixDatagram::bind(&path).unwrap();
        let manager = ServiceManager::new(Some(path.into_os_string()), Some(30_000_000));
        manager.ready();
        manager.alive();
        manager.stopping();
        assert_eq!(received(&manager_end), "READY=1\n");
        assert_eq!(received(&manager_end), "WATCHDOG=1\n");
        assert_eq!(received(&manager_end), "STOPPING=1\n");
        assert_eq!(manager.watchdog(), Some(Duration::from_secs(30)));
    }

    #[test]
    fn speaks_to_an_abstract_socket() {
        let name = format!("ringpost-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager_end = UnixDatagram::bind_addr(&address).unwrap();
        ServiceManager::new(Some(format!("@{name}").into()), None).reloading();
        assert_eq!(received(&manager_end), "RELOADING=1\n");
    }

    #[test]
    fn is_silent_without_a_manager() {
        for path in [None, Some("/nonexistent/notify".into())] {
            let manager = ServiceManager::new(path, Some(1));
            manager.ready();
            assert_eq!(manager.watchdog(), None);
        }
    }
}
