//! Waiting for something to become true, bounded. Whoever changes a value wakes the waiters;
//! only other programs' ports are polled. It must not measure time.

use std::fmt::Debug;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long anything in a test may take. A bound against hanging, never a promise about speed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A value that threads change and others wait on.
#[derive(Debug, Default)]
pub struct Watched<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Watched<T> {
    /// A value, unchanged so far.
    pub fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Condvar::new() }
    }

    /// Changes the value and wakes those who wait.
    pub fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut self.lock());
        self.changed.notify_all();
        result
    }

    /// Looks at the value as it is.
    pub fn read<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.lock())
    }

    /// Waits until `look` finds something, at most for `bound`.
    pub fn find_within<R>(&self, bound: Duration, mut look: impl FnMut(&T) -> Option<R>) -> Option<R> {
        let mut found = None;
        let waited = self.changed.wait_timeout_while(self.lock(), bound, |value| {
            found = look(value);
            found.is_none()
        });
        drop(waited);
        found
    }

    // A thread that panicked while it held the lock has failed its test already; the others go on.
    fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Debug> Watched<T> {
    /// Waits until `look` finds something.
    ///
    /// # Panics
    /// When it does not within [`PATIENCE`]: with what was waited for and the value as it then is.
    #[track_caller]
    pub fn find<R>(&self, what: &str, look: impl FnMut(&T) -> Option<R>) -> R {
        match self.find_within(PATIENCE, look) {
            Some(found) => found,
            None => self.read(|value| panic!("waited in vain until {what}; there is {value:#?}")),
        }
    }
}

/// Waits until somebody listens there: another program's port, of which it tells nothing.
///
/// # Panics
/// When nobody does within [`PATIENCE`].
#[track_caller]
pub fn until_listening(address: SocketAddr) {
    let tries = PATIENCE.as_millis() / BETWEEN_TRIES.as_millis();
    let listens = (0..tries).any(|_| {
        let connected = TcpStream::connect(address).is_ok();
        if !connected {
            std::thread::park_timeout(BETWEEN_TRIES);
        }
        connected
    });
    assert!(listens, "nobody listens on {address}");
}

/// A refused connection is no event to wait for: it is tried again after this.
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// A door that is shut until somebody opens it; scripts wait at it, tests open it.
#[derive(Debug, Clone)]
pub struct Latch {
    open: Arc<Watched<bool>>,
    patience: Duration,
}

impl Default for Latch {
    fn default() -> Self {
        Self { open: Arc::default(), patience: PATIENCE }
    }
}

impl Latch {
    /// A shut door.
    pub fn new() -> Self {
        Self::default()
    }

    /// A shut door before which as many things happen, each of which may take [`PATIENCE`].
    pub fn behind(things: u64) -> Self {
        let things = u32::try_from(things).unwrap_or(u32::MAX);
        Self { patience: PATIENCE.saturating_mul(things), ..Self::default() }
    }

    /// Opens it for good.
    pub fn open(&self) {
        self.open.update(|open| *open = true);
    }

    /// Waits until it is open, at most for its patience; tells whether it is.
    pub fn pass(&self) -> bool {
        self.open.find_within(self.patience, |open| open.then_some(())).is_some()
    }
}
