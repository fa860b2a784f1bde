//! The disk by plain system calls: for start-up, tools and helper threads. Each future is ready at its first poll.
//!
//! What it must not do: run on a worker's thread while the worker serves.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Access, Aligned, BLOCK_OCTETS, File, Files, Found, Space};

/// The file system, blocking.
#[derive(Debug, Clone, Copy, Default)]
pub struct BlockingFiles;

/// A file, blocking. Clones are the same open file.
#[derive(Debug, Clone)]
pub struct BlockingFile {
    file: Arc<fs::File>,
    durability: Durability,
}

/// What makes a write to an open file durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// The write itself (`O_DIRECT | O_DSYNC`).
    Write,
    /// An `fdatasync` after it: tmpfs, some overlays and old kernels know no O_DIRECT.
    Sync,
}

impl Files for BlockingFiles {
    type File = BlockingFile;

    async fn open(&self, path: &Path, access: Access) -> io::Result<BlockingFile> {
        let (file, durability) = open(path, access)?;
        Ok(BlockingFile::new(file, durability))
    }

    async fn make(&self, path: &Path, head: Aligned, octets: u64) -> io::Result<()> {
        make(path, &head, octets)
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        rename(from, to)
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        remove(path)
    }

    async fn make_dir(&self, path: &Path) -> io::Result<()> {
        make_dir(path)
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<Found>> {
        list(directory)
    }

    async fn space(&self, path: &Path) -> io::Result<Space> {
        super::ring::space(path)
    }
}

impl BlockingFile {
    pub(super) fn new(file: fs::File, durability: Durability) -> Self {
        Self { file: Arc::new(file), durability }
    }

    /// [`File::write_some`], blocking.
    pub(super) fn write(&self, octets: &[u8], at: u64) -> io::Result<usize> {
        let written = self.file.write_at(octets, at)?;
        if self.durability == Durability::Sync {
            self.file.sync_data()?;
        }
        Ok(written)
    }

    /// [`File::read_at`], blocking.
    pub(super) fn read(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match self.file.read_at(&mut into[filled..], at + filled as u64) {
                Ok(0) => break,
                // A direct read ends within a block only at the file's end.
                Ok(count) if count % BLOCK_OCTETS != 0 => return Ok(filled + count),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

impl File for BlockingFile {
    async fn write_some(&self, octets: Aligned, start: usize, at: u64) -> (io::Result<usize>, Aligned) {
        (self.write(&octets[start..], at), octets)
    }

    async fn read_at(&self, mut into: Aligned, at: u64) -> (io::Result<usize>, Aligned) {
        (self.read(&mut into, at), into)
    }
}

/// Opens past the page cache; through it, with a sync after each write, where the file system cannot.
pub(super) fn open(path: &Path, access: Access) -> io::Result<(fs::File, Durability)> {
    let direct = options(access).custom_flags(FLAGS | libc::O_DIRECT | durable(access)).open(path);
    match direct {
        Ok(file) => Ok((file, Durability::Write)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let file = options(access).custom_flags(FLAGS).open(path)?;
            if access == Access::Read {
                // What a failed write-back left in the page cache must not pass for what is on the disk.
                file.sync_data()?;
            }
            Ok((file, Durability::Sync))
        }
        Err(error) => Err(error),
    }
}

const FLAGS: i32 = libc::O_NOFOLLOW | libc::O_CLOEXEC;

fn options(access: Access) -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(access == Access::Write);
    options
}

fn durable(access: Access) -> i32 {
    if access == Access::Write { libc::O_DSYNC } else { 0 }
}

/// Octets of zeros that are written at once.
const ZEROS_OCTETS: usize = 1024 * 1024;

pub(super) fn make(path: &Path, head: &[u8], octets: u64) -> io::Result<()> {
    let made = make_file(path, head, octets);
    if made.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::AlreadyExists) {
        // Best effort: what is left of it is recognised as incomplete by its length.
        let _ = fs::remove_file(path);
    }
    made
}

fn make_file(path: &Path, head: &[u8], octets: u64) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).custom_flags(FLAGS).open(path)?;
    let zeros = vec![0u8; ZEROS_OCTETS];
    let mut at = head.len() as u64;
    while at < octets {
        let count = usize::try_from(octets - at).unwrap_or(usize::MAX).min(ZEROS_OCTETS);
        file.write_all_at(&zeros[..count], at)?;
        at += count as u64;
    }
    // The head comes last: a file that is cut short by a crash has none.
    file.sync_all()?;
    file.write_all_at(head, 0)?;
    file.sync_all()?;
    sync_parent(path)
}

pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_parent(to)?;
    if from.parent() != to.parent() {
        sync_parent(from)?;
    }
    Ok(())
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync_parent(path),
    }
}

pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_parent(path),
    }
}

/// Makes `STATE_DIR`, its parents included, if it is not there.
///
/// # Errors
/// As `mkdir(2)`.
pub fn make_state_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o750).recursive(true).create(path)
}

pub(super) fn list(directory: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_file() {
            found.push(Found { name: PathBuf::from(entry.file_name()), octets: metadata.len() });
        }
    }
    Ok(found)
}

/// A name is durable only when its directory is.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use super::*;

    fn round_trip(directory: &Path) {
        let path = directory.join("one");
        let head = Aligned::from(&[1u8; BLOCK_OCTETS][..]);
        block_on(BlockingFiles.make(&path, head, 4 * BLOCK_OCTETS as u64)).unwrap();
        let file = block_on(BlockingFiles.open(&path, Access::Write)).unwrap();
        let (result, _) = block_on(file.write_all(Aligned::from(&[2u8; BLOCK_OCTETS][..]), 8192));
        result.unwrap();
        let mut into = Aligned::with_capacity(8 * BLOCK_OCTETS);
        into.set_len(8 * BLOCK_OCTETS);
        let (count, octets) = block_on(file.read_at(into, 0));
        assert_eq!(count.unwrap(), 4 * BLOCK_OCTETS);
        let firsts: Vec<u8> = octets.chunks(BLOCK_OCTETS).take(4).map(|block| block[0]).collect();
        assert_eq!(firsts, [1, 0, 2, 0]);
        block_on(BlockingFiles.remove(&path)).unwrap();
        block_on(BlockingFiles.remove(&path)).unwrap();
    }

    #[test]
    fn what_is_written_is_read_on_a_disk_and_on_tmpfs() {
        round_trip(tempfile::tempdir().unwrap().path());
        if let Ok(directory) = tempfile::tempdir_in("/dev/shm") {
            round_trip(directory.path());
        }
    }

    #[test]
    fn a_file_is_never_made_over_another_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("one");
        fs::write(&path, b"here before").unwrap();
        let error = block_on(BlockingFiles.make(&path, Aligned::with_capacity(1), 4096)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"here before");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(block_on(BlockingFiles.open(&link, Access::Read)).is_err());
    }
}
