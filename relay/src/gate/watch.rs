//! The gate's thread: takes in samples and ends bans at each tick, and looks around when interfaces or addresses change.
//!
//! It must not wait for anything but its tick and the kernel's news; it holds the lock for one round of work only.
#![allow(unsafe_code, reason = "poll(2) and eventfd(2) are not in std")]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::netlink::Changes;
use super::state::State;
use crate::limits::GATE_TICK;

/// What the thread waits for, before it runs.
pub(super) struct Prepared {
    changes: Changes,
    stop: File,
}

/// The running thread. Dropping it ends it and waits for that.
pub(super) struct Watch {
    stop: File,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Hears of changes from now on.
    pub(super) fn prepare() -> io::Result<Prepared> {
        // SAFETY: numbers in, a descriptor or -1 out.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, for us alone.
        let stop = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(Prepared { changes: Changes::listen()?, stop })
    }
}

impl Prepared {
    /// Starts the thread.
    pub(super) fn start(self, state: Arc<Mutex<State>>) -> io::Result<Watch> {
        let Self { changes, stop } = self;
        let stopped = stop.try_clone()?;
        let thread = std::thread::Builder::new().name("gate".to_owned()).spawn(move || {
            while !waited_for_stop(&changes, &stopped) {
                round(&changes, &state);
            }
        })?;
        Ok(Watch { stop, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Writing 1 to an eventfd fails only when it is full, and then the thread is awake already.
        let _ = self.stop.write(&1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn round(changes: &Changes, state: &Mutex<State>) {
    let changed = changes.drain();
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    // An error of the kernel's leaves everything as it was; the next change tries again.
    if changed && let Err(error) = state.look_around() {
        tracing::warn!(event = "gate_note", note = %error);
    }
    let _ = state.tick();
}

/// Waits for news, a tick at most. Whether it was told to stop.
fn waited_for_stop(changes: &Changes, stop: &File) -> bool {
    let wanted = |fd: i32| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut fds = [wanted(stop.as_raw_fd()), wanted(changes.as_fd().as_raw_fd())];
    let tick = libc::c_int::try_from(GATE_TICK.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: the array is live and has two elements.
    unsafe { libc::poll(fds.as_mut_ptr(), 2, tick) };
    fds[0].revents != 0
}
