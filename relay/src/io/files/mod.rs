//! The seam to the disk, for the spool: few operations, each with its durability in its contract.
//!
//! An operation that returns `Ok` has put its effect on stable storage: a write its octets, a change of names its
//! directories. There is no separate sync that could be forgotten, and none that could be repeated after it failed: the
//! kernel marks pages clean even when their write-back failed, so a second fsync may report a success that never was.
//!
//! Three implementations: [`ring::RingFiles`] on the worker's ring (on the epoll rung a thread of its own does the
//! writing), [`blocking::BlockingFiles`] for start-up and tools, and [`sim::SimDisk`], seeded and faulty.

pub mod aligned;
pub mod blocking;
pub mod lock;
pub mod ring;
pub mod sim;

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};

pub use aligned::{Aligned, BLOCK_OCTETS};

/// A directory tree that a spool lives in. Cloned freely; one per thread.
pub trait Files: Clone + fmt::Debug + 'static {
    /// An open file.
    type File: File;

    /// Opens a file that is there, without following a symbolic link.
    ///
    /// # Errors
    /// As `open(2)`.
    fn open(&self, path: &Path, access: Access) -> impl Future<Output = io::Result<Self::File>>;

    /// Makes a new file of this many octets: `head`, then zeros that are really written, so that later writes allocate
    /// nothing and need no journal commit.
    ///
    /// # Errors
    /// As `open(2)`, `write(2)`, `fsync(2)`; then nothing is left behind where the disk still lets us clean up.
    fn make(&self, path: &Path, head: Aligned, octets: u64) -> impl Future<Output = io::Result<()>>;

    /// Renames a file, over another if there is one.
    ///
    /// # Errors
    /// As `rename(2)` and `fsync(2)` of the directories.
    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>>;

    /// Removes a file; one that is not there counts as removed.
    ///
    /// # Errors
    /// As `unlink(2)` and `fsync(2)` of the directory.
    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// Makes a directory for us alone (mode 0700); one that is there already is left as it is.
    ///
    /// # Errors
    /// As `mkdir(2)` and `fsync(2)` of its parent.
    fn make_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>>;

    /// The regular files of a directory, in no order.
    ///
    /// # Errors
    /// As `readdir(3)`.
    fn list(&self, directory: &Path) -> impl Future<Output = io::Result<Vec<Found>>>;

    /// The room of the file system that holds this path.
    ///
    /// # Errors
    /// As `statvfs(3)`.
    fn space(&self, path: &Path) -> impl Future<Output = io::Result<Space>>;
}

/// An open file. Closed when dropped.
pub trait File: fmt::Debug + 'static {
    /// Writes `octets[start..]` at `at`; says how many of them are on stable storage now. That may be fewer than were
    /// given; zero stands for a file that takes no more.
    ///
    /// `at`, `start` and the length must be multiples of [`BLOCK_OCTETS`]. After an error the file's content between
    /// `at` and the end of what was given is unknown, now and after a crash.
    fn write_some(
        &self,
        octets: Aligned,
        start: usize,
        at: u64,
    ) -> impl Future<Output = (io::Result<usize>, Aligned)>;

    /// Reads from `at` into the whole length of `into`; says how many octets there were, fewer only at the file's end.
    ///
    /// `at` and the length must be multiples of [`BLOCK_OCTETS`].
    fn read_at(&self, into: Aligned, at: u64) -> impl Future<Output = (io::Result<usize>, Aligned)>;

    /// Writes all octets at `at`, in as many rounds as it takes.
    fn write_all(&self, octets: Aligned, at: u64) -> impl Future<Output = (io::Result<()>, Aligned)> {
        async move {
            let mut octets = octets;
            let mut written = 0;
            while written < octets.len() {
                let (result, back) = self.write_some(octets, written, at + written as u64).await;
                octets = back;
                match result {
                    Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), octets),
                    // A round that ends within a block is written again from the block's start.
                    Ok(count) => written = whole_blocks(written + count, octets.len()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return (Err(error), octets),
                }
            }
            (Ok(()), octets)
        }
    }
}

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading past the page cache.
    Read,
    /// Reading and durable writing past the page cache.
    Write,
}

/// A regular file of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name within the directory.
    pub name: PathBuf,
    /// Its length.
    pub octets: u64,
}

/// The room of a file system, in octets and in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// All of it.
    pub total: u64,
    /// What this process may still use.
    pub available: u64,
    /// Files that it may still make; as many as there are numbers where the file system does not bound them.
    pub files: u64,
}

/// The end of the last whole block that is written, or the end of everything.
fn whole_blocks(written: usize, len: usize) -> usize {
    if written >= len { len } else { written - written % BLOCK_OCTETS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_block_is_written_again() {
        assert_eq!(whole_blocks(4096 + 512, 3 * 4096), 4096);
        assert_eq!(whole_blocks(8192, 3 * 4096), 8192);
        assert_eq!(whole_blocks(4100, 4100), 4100);
    }
}
