//! Whose a directory is: one process at a time, ours, and closed to everybody else.

#![allow(unsafe_code, reason = "geteuid has no safe form in std")]

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A directory that is ours alone until this is dropped, or the process ends, however it does.
#[derive(Debug)]
pub struct Lock {
    /// The lock belongs to the open directory itself: no file is needed, and none is left behind.
    _directory: File,
}

/// Why a directory is not taken.
#[derive(Debug)]
pub enum LockFault {
    /// Another process has it.
    Taken(PathBuf),
    /// It belongs to this user, and we are another.
    Owner(PathBuf, u32),
    /// Others than its owner may enter it; the mode.
    Open(PathBuf, u32),
    /// It cannot be made or opened.
    Io(PathBuf, io::Error),
}

impl std::fmt::Display for LockFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Taken(path) => write!(f, "{} is used by another process", path.display()),
            Self::Owner(path, uid) => write!(f, "{} belongs to user {uid}, not to us", path.display()),
            Self::Open(path, mode) => {
                write!(f, "{} has mode {mode:04o}; it must be closed to group and others", path.display())
            }
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for LockFault {}

impl Lock {
    /// Takes a directory; makes it (mode 0700) if it is not there, but not its parents. A symbolic link is not followed.
    ///
    /// # Errors
    /// Why it is not taken. Nothing in it was looked at.
    pub fn take(path: &Path) -> Result<Self, LockFault> {
        let fault = |error| LockFault::Io(path.to_owned(), error);
        match DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fault(error)),
            _ => {}
        }
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let directory = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(fault)?;
        let metadata = directory.metadata().map_err(fault)?;
        // SAFETY: a call without arguments that cannot fail.
        let euid = unsafe { libc::geteuid() };
        if metadata.uid() != euid {
            return Err(LockFault::Owner(path.to_owned(), metadata.uid()));
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(LockFault::Open(path.to_owned(), metadata.mode() & 0o7777));
        }
        match directory.try_lock() {
            Ok(()) => Ok(Self { _directory: directory }),
            Err(TryLockError::WouldBlock) => Err(LockFault::Taken(path.to_owned())),
            Err(TryLockError::Error(error)) => Err(fault(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    #[test]
    fn only_one_has_it_at_a_time() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("spool");
        let first = Lock::take(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        assert!(matches!(Lock::take(&path), Err(LockFault::Taken(_))));
        drop(first);
        Lock::take(&path).unwrap();
    }

    #[test]
    fn a_directory_open_to_others_or_of_others_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("spool");
        fs::create_dir(&path).unwrap();
        for mode in [0o750, 0o701] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(Lock::take(&path), Err(LockFault::Open(_, found)) if found == mode));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        let link = parent.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(matches!(Lock::take(&link), Err(LockFault::Io(..))));
        // Giving it to somebody else takes root; elsewhere there is nothing to see.
        if chown(&path, Some(65534), None).is_ok() {
            assert!(matches!(Lock::take(&path), Err(LockFault::Owner(_, 65534))));
        }
    }
}
