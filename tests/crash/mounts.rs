//! Small file systems of a test's own, and disks under them that fail on demand. All of it goes away with the test.
//!
//! Every command is bounded: a disk that does not answer must not hang the suite.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ringpost_tests::process::{Finished, Process, Said, run};
use ringpost_tests::skip::found;
use ringpost_tests::wait::PATIENCE;
use tempfile::TempDir;

/// A mount that goes away with its directory.
pub(crate) struct Mounted {
    dir: TempDir,
}

/// The same file system mounted over itself.
pub(crate) struct Cover<'m>(&'m Mounted);

impl Mounted {
    /// Mounts; `None` where this process may not.
    pub(crate) fn new(arguments: &[&str]) -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("ringpost-disk-").tempdir().expect("a directory");
        let done = run(bounded("mount")?.args(arguments).arg(dir.path()));
        (done.code == Some(0)).then_some(Self { dir })
    }

    /// A tmpfs with these options.
    pub(crate) fn tmpfs(options: &str) -> Option<Self> {
        Self::new(&["-t", "tmpfs", "-o", options, "tmpfs"])
    }

    /// The file system in a file, with these options.
    pub(crate) fn image(path: &Path, options: &str) -> Option<Self> {
        Self::new(&["-o", &format!("loop{options}"), &path.display().to_string()])
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Changes its options; false where the kernel does not.
    pub(crate) fn remount(&self, options: &str) -> bool {
        let option = format!("remount,{options}");
        self.mount(&["-o", &option]).code == Some(0)
    }

    /// Takes it from its place, whoever uses it.
    pub(crate) fn pull_away(&self) {
        unmount("umount", self.dir.path());
    }

    /// Mounts it over itself.
    pub(crate) fn cover(&self) -> Cover<'_> {
        let path = self.dir.path().display().to_string();
        let done = self.mount(&["--bind", &path]);
        assert_eq!(done.code, Some(0), "{done:#?}");
        Cover(self)
    }

    fn mount(&self, arguments: &[&str]) -> Finished {
        run(bounded("mount").expect("it was there before").args(arguments).arg(self.dir.path()))
    }

    /// Fills it to its last octet with something else.
    pub(crate) fn fill(&self) -> PathBuf {
        let ballast = self.dir.path().join("ballast");
        let target = format!("of={}", ballast.display());
        // The second time takes what the first one's last write did not get.
        for size in ["bs=64k", "bs=1k"] {
            let words = ["if=/dev/zero", size, "oflag=append", "conv=notrunc", &target];
            let done = run(bounded("dd").expect("dd").args(words));
            assert_ne!(done.code, Some(0), "the disk is full now");
        }
        ballast
    }
}

impl Cover<'_> {
    /// [`Mounted::remount`], of what lies on top.
    pub(crate) fn remount(&self, options: &str) -> bool {
        self.0.remount(options)
    }
}

impl Drop for Cover<'_> {
    fn drop(&mut self) {
        unmount("umount", self.0.path());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount("umount", self.dir.path());
    }
}

/// At once if nobody uses it, else when nobody does any more. The directory under it stays empty.
fn unmount(program: &str, path: &Path) {
    let lazily = if program == "umount" { vec!["-l"] } else { vec!["-u", "-z"] };
    if let Some(mut command) = bounded(program) {
        command.args(lazily).arg(path).output().ok();
    }
}

/// A program that is ended where it takes too long.
fn bounded(program: &str) -> Option<Command> {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "25"]).arg(found(program)?);
    Some(command)
}

/// Makes a file system in a file of this many MiB.
pub(crate) fn make_image(path: &Path, mebibytes: u64) {
    std::fs::File::create(path).and_then(|file| file.set_len(mebibytes << 20)).expect("an image");
    make_ext4(path, &[]);
}

fn make_ext4(path: &Path, options: &[&str]) {
    let mut command = bounded("mkfs.ext4").expect("looked for before");
    let made = run(command.args(["-q", "-F", "-E", "lazy_itable_init=0"]).args(options).arg(path));
    assert_eq!(made.code, Some(0), "{made:#?}");
}

/// A small ext4 in a file of this directory; `None` where this process may not mount it.
pub(crate) fn ext4(dir: &Path) -> Option<Mounted> {
    let image = dir.join("disk.img");
    make_image(&image, 96);
    Mounted::image(&image, "")
}

/// A disk that fails on demand: a network block device in memory, behind FUSE, so that it is a file for the loop driver.
pub(crate) struct Faulty {
    dir: TempDir,
    server: Process,
}

/// What a disk can be made to refuse.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Refuses {
    Reads,
    Writes,
}

impl Faulty {
    /// A disk with ext4 on it, made with these options.
    ///
    /// # Errors
    /// Why there is none on this machine.
    pub(crate) fn ext4(options: &[&str]) -> Result<Self, String> {
        if let Some(missing) =
            ["nbdkit", "nbdfuse", "fusermount3", "mkfs.ext4"].into_iter().find(|it| found(it).is_none())
        {
            return Err(format!("{missing} is not installed"));
        }
        let dir = tempfile::Builder::new().prefix("ringpost-faulty-").tempdir().expect("a directory");
        let mount = dir.path().join("nbd");
        std::fs::create_dir(&mount).expect("a directory");
        let mut command = Command::new("nbdfuse");
        command.arg(mount.join("disk"));
        command.args(["--command", "nbdkit", "-s", "--exit-with-parent", "--filter=error", "memory", "96M"]);
        for (operation, refuses) in [
            ("pread", Refuses::Reads),
            ("pwrite", Refuses::Writes),
            ("zero", Refuses::Writes),
            ("trim", Refuses::Writes),
        ] {
            let switch = switch(dir.path(), refuses);
            command.arg(format!("error-{operation}=EIO")).arg(format!("error-{operation}-rate=100%"));
            command.arg(format!("error-{operation}-file={}", switch.display()));
        }
        let disk = Self { server: Process::start(&mut command), dir };
        if !disk.is_served() {
            let said = disk.server.said().read(Said::all);
            return Err(format!("nbdfuse serves no disk: {}", said.trim()));
        }
        make_ext4(&disk.image(), options);
        Ok(disk)
    }

    /// The file is there when it serves; nobody tells when that is.
    fn is_served(&self) -> bool {
        let look = Duration::from_millis(10);
        let looks = PATIENCE.as_millis() / look.as_millis();
        (0..looks).any(|_| {
            let is_over = self.server.said().find_within(look, |said| Process::is_silent(said).then_some(()));
            is_over.is_none() && self.image().is_file()
        })
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("nbd/disk")
    }

    /// Mounts what is on it; `None` where this process may not.
    pub(crate) fn mount(&self, options: &str) -> Option<Mounted> {
        Mounted::image(&self.image(), options)
    }

    /// From now on it answers EIO to these.
    pub(crate) fn refuse(&self, what: Refuses) {
        std::fs::write(switch(self.dir.path(), what), "").expect("a switch");
    }

    /// It answers these again.
    pub(crate) fn mend(&self, what: Refuses) {
        std::fs::remove_file(switch(self.dir.path(), what)).expect("it was refused before");
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        // The server ends when nobody has it mounted any more; in any case with this.
        unmount("fusermount3", &self.dir.path().join("nbd"));
    }
}

/// The file that switches a refusal on.
fn switch(dir: &Path, what: Refuses) -> PathBuf {
    dir.join(match what {
        Refuses::Reads => "reads-fail",
        Refuses::Writes => "writes-fail",
    })
}
