//! The disk on a worker's ring: reads and durable writes are ring operations, everything rare is done by a helper thread.
//!
//! On the epoll rung a file operation would block the worker, so there a second thread does the reading and writing.
//! What it must not do: drop an operation that is under way (its caller awaits each to the end), or make a thread per
//! operation.

#![allow(unsafe_code, reason = "statvfs has no safe form in std")]

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::thread;

use super::aligned::{Incoming, Outgoing};
use super::blocking::{self, BlockingFile, Durability};
use super::{Access, Aligned, File, Files, Found, Space};

/// The file system of one worker.
#[derive(Debug, Clone)]
pub struct RingFiles {
    names: Helper,
    octets: Option<Helper>,
}

/// An open file of one worker.
#[derive(Debug)]
pub enum RingFile {
    /// On the ring.
    Ring(monoio::fs::File, FileDurability),
    /// By the helper thread.
    Thread(BlockingFile, Helper),
}

/// What makes a write to a ring's file durable; see the two kinds of open files in [`blocking`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileDurability(Durability);

impl RingFiles {
    /// Hands for a worker whose driver is a ring. To be used on that worker's thread only.
    ///
    /// # Errors
    /// Where the helper thread cannot be made.
    pub fn on_ring() -> io::Result<Self> {
        Ok(Self { names: Helper::start("spool-names")?, octets: None })
    }

    /// Hands for a worker on the epoll rung.
    ///
    /// # Errors
    /// Where the helper threads cannot be made.
    pub fn on_threads() -> io::Result<Self> {
        Ok(Self { names: Helper::start("spool-names")?, octets: Some(Helper::start("spool-octets")?) })
    }
}

impl Files for RingFiles {
    type File = RingFile;

    async fn open(&self, path: &Path, access: Access) -> io::Result<RingFile> {
        let path = path.to_owned();
        let (file, durability) = self.names.run(move || blocking::open(&path, access)).await?;
        match &self.octets {
            None => Ok(RingFile::Ring(monoio::fs::File::from_std(file)?, FileDurability(durability))),
            Some(helper) => Ok(RingFile::Thread(BlockingFile::new(file, durability), helper.clone())),
        }
    }

    async fn make(&self, path: &Path, head: Aligned, octets: u64) -> io::Result<()> {
        let path = path.to_owned();
        self.names.run(move || blocking::make(&path, &head, octets)).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.names.run(move || blocking::rename(&from, &to)).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.names.run(move || blocking::remove(&path)).await
    }

    async fn make_dir(&self, path: &Path) -> io::Result<()> {
        let path = path.to_owned();
        self.names.run(move || blocking::make_dir(&path)).await
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<Found>> {
        let directory = directory.to_owned();
        self.names.run(move || blocking::list(&directory)).await
    }

    async fn space(&self, path: &Path) -> io::Result<Space> {
        let path = path.to_owned();
        self.names.run(move || space(&path)).await
    }
}

impl File for RingFile {
    async fn write_some(&self, octets: Aligned, start: usize, at: u64) -> (io::Result<usize>, Aligned) {
        match self {
            Self::Ring(file, durability) => {
                let (result, Outgoing { octets, .. }) = file.write_at(Outgoing { octets, start }, at).await;
                match (result, durability.0) {
                    (Ok(written), Durability::Sync) => (file.sync_data().await.map(|()| written), octets),
                    (result, _) => (result, octets),
                }
            }
            Self::Thread(file, helper) => {
                let file = file.clone();
                let written = move || Ok((file.write(&octets[start..], at), octets));
                helper.run(written).await.unwrap_or_else(lost)
            }
        }
    }

    async fn read_at(&self, into: Aligned, at: u64) -> (io::Result<usize>, Aligned) {
        match self {
            Self::Ring(file, _) => {
                let (result, Incoming(octets)) = file.read_at(Incoming(into), at).await;
                (result, octets)
            }
            Self::Thread(file, helper) => {
                let (file, mut into) = (file.clone(), into);
                let read = move || Ok((file.read(&mut into, at), into));
                helper.run(read).await.unwrap_or_else(lost)
            }
        }
    }
}

/// The helper is gone, and the octets with it: only while the process ends.
fn lost(error: io::Error) -> (io::Result<usize>, Aligned) {
    (Err(error), Aligned::with_capacity(0))
}

/// A thread that does one blocking thing after the other. It ends when the last handle to it is dropped.
#[derive(Debug, Clone)]
pub struct Helper {
    jobs: flume::Sender<Job>,
}

type Job = Box<dyn FnOnce() + Send>;

/// Things that may wait for a helper; more make the caller wait.
const JOBS_MAX: usize = 64;

impl Helper {
    fn start(name: &str) -> io::Result<Self> {
        let (jobs, queue) = flume::bounded::<Job>(JOBS_MAX);
        thread::Builder::new().name(name.to_owned()).spawn(move || queue.iter().for_each(|job| job()))?;
        Ok(Self { jobs })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (answer, result) = flume::bounded(1);
        // Nobody listens any more only when the worker is gone: then the result is of no use.
        let job: Job = Box::new(move || drop(answer.send(work())));
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.jobs.send_async(job).await.map_err(|_closed| gone())?;
        result.recv_async().await.map_err(|_closed| gone())?
    }
}

/// [`Files::space`], blocking.
pub(super) fn space(path: &Path) -> io::Result<Space> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut found = MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path is a terminated string and the result a live local; it is read only when the call has filled it.
    let found = unsafe {
        if libc::statvfs(path.as_ptr(), found.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        found.assume_init()
    };
    let unit = found.f_frsize;
    Ok(Space {
        total: unit.saturating_mul(found.f_blocks),
        available: unit.saturating_mul(found.f_bavail),
        // btrfs and others make inodes as they need them, and count none.
        files: if found.f_files == 0 { u64::MAX } else { found.f_favail },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::files::BLOCK_OCTETS;
    use crate::io::ladder::{Rung, build};

    async fn round_trip(files: RingFiles, directory: &Path) {
        let path = directory.join("segment");
        files.make(&path, Aligned::from(&[1u8; BLOCK_OCTETS][..]), 3 * BLOCK_OCTETS as u64).await.unwrap();
        let file = files.open(&path, Access::Write).await.unwrap();
        let (result, octets) = file.write_all(Aligned::from(&[9u8; BLOCK_OCTETS][..]), 4096).await;
        result.unwrap();
        let (count, octets) = file.read_at(octets, 4096).await;
        assert_eq!((count.unwrap(), octets[0]), (BLOCK_OCTETS, 9));
        let renamed = directory.join("renamed");
        files.rename(&path, &renamed).await.unwrap();
        let found = files.list(directory).await.unwrap();
        assert_eq!(found, [Found { name: "renamed".into(), octets: 3 * BLOCK_OCTETS as u64 }]);
        files.remove(&renamed).await.unwrap();
        assert!(files.space(directory).await.unwrap().total > 0);
    }

    #[test]
    fn a_segment_goes_to_the_disk_and_back_on_every_rung() {
        for rung in Rung::ALL {
            for place in [std::env::temp_dir(), "/dev/shm".into()] {
                let Ok(directory) = tempfile::tempdir_in(place) else { continue };
                let (mut driver, rung) = build(rung).unwrap();
                driver.block_on(async {
                    let epoll = rung == Rung::Epoll;
                    let files = if epoll { RingFiles::on_threads() } else { RingFiles::on_ring() };
                    round_trip(files.unwrap(), directory.path()).await;
                });
            }
        }
    }
}
