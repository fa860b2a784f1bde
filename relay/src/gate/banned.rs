//! The book of bans that the gate and all workers share: the daemon refuses banned sources by itself where no program
//! drops their packets.
//!
//! Workers look into it once a connection, and while nobody is banned that is one load. It must not be held
//! while the kernel is asked.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use super::bans::Bans;
use super::clock;

/// See the module.
#[derive(Debug, Default)]
pub struct Banned {
    is_any: AtomicBool,
    bans: RwLock<Bans>,
}

impl Banned {
    /// Whether a source is banned now.
    #[must_use]
    pub fn holds(&self, source: IpAddr) -> bool {
        self.is_any.load(Ordering::Relaxed)
            && self.read().ends_ns(source).is_some_and(|ends_ns| ends_ns > clock::monotonic_ns())
    }

    /// How many bans stand now.
    #[must_use]
    pub fn count(&self) -> usize {
        self.read().count(clock::monotonic_ns())
    }

    /// The book, to be read.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Bans> {
        self.bans.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes in the book.
    pub(super) fn change<R>(&self, write: impl FnOnce(&mut Bans) -> R) -> R {
        let mut bans = self.bans.write().unwrap_or_else(PoisonError::into_inner);
        let result = write(&mut bans);
        self.is_any.store(!bans.is_empty(), Ordering::Relaxed);
        result
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_source_is_held_until_its_ban_ends() {
        let banned = Banned::default();
        let source: IpAddr = "198.18.9.9".parse().unwrap();
        assert!(!banned.holds(source));
        let now_ns = clock::monotonic_ns();
        banned.change(|bans| bans.ban(source, now_ns, Duration::MAX));
        assert!(banned.holds(source) && banned.holds("::ffff:198.18.9.9".parse().unwrap()));
        assert_eq!(banned.count(), 1);
        banned.change(|bans| bans.ban(source, now_ns, Duration::ZERO));
        assert!(!banned.holds(source));
        assert_eq!(banned.count(), 0, "one that is over does not count");
        banned.change(|bans| bans.unban(source));
        assert!(!banned.holds(source));
    }
}
