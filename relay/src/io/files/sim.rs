//! A disk in memory, seeded and faulty, for the simulation.
//!
//! An operation that changes the disk waits until [`SimDisk::step`] completes one of those that are under way, in no
//! particular order. What has completed is on the platter; of what is under way a crash leaves any subset of its
//! 512-octet sectors, some of them as neither what was there nor what was to be, and of a change of names all or nothing.
//! Faults are drawn from the seed: errors after which any part of the octets may be written, short writes, and reads
//! that fail for once. Reads are answered at once, from the platter.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::{Access, Aligned, File, Files, Found, Space};

/// A disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    world: Rc<RefCell<World>>,
}

/// How often what goes wrong, of a thousand operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Writes that fail with EIO.
    pub write_eio: u32,
    /// Writes that fail with ENOSPC.
    pub write_enospc: u32,
    /// Writes that end early.
    pub write_short: u32,
    /// Changes of names, and new files, that fail.
    pub names: u32,
    /// Reads that fail with EIO; the next one may not.
    pub read_eio: u32,
    /// Octets of the disk; new files beyond them fail with ENOSPC. 0: no bound.
    pub capacity_octets: u64,
    /// Files that the disk has room for; new ones beyond them fail with ENOSPC. 0: no bound.
    pub files_max: usize,
    /// Nothing can be changed (EROFS).
    pub read_only: bool,
}

impl Faults {
    /// A disk that does what it is told.
    pub const NONE: Self = Self {
        write_eio: 0,
        write_enospc: 0,
        write_short: 0,
        names: 0,
        read_eio: 0,
        capacity_octets: 0,
        files_max: 0,
        read_only: false,
    };
}

type Octets = Rc<RefCell<Vec<u8>>>;

struct World {
    entropy: Entropy,
    faults: Faults,
    directories: BTreeSet<PathBuf>,
    files: BTreeMap<PathBuf, Octets>,
    under_way: BTreeMap<u64, Operation>,
    done: BTreeMap<u64, io::Result<usize>>,
    last: u64,
    /// Wants to know when something is under way.
    driver: Option<Waker>,
}

struct Operation {
    change: Change,
    waker: Option<Waker>,
}

#[derive(Clone)]
enum Change {
    Write { file: Octets, at: usize, octets: Vec<u8> },
    Make { path: PathBuf, head: Vec<u8>, octets: usize },
    Rename { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
    MakeDir { path: PathBuf },
}

/// What a disk reads and writes whole.
const SECTOR_OCTETS: usize = 512;

/// Numbers drawn from a seed (splitmix64).
#[derive(Debug, Clone)]
pub struct Entropy(pub u64);

impl Entropy {
    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below a bound; 0 for the bound 0.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.draw() % (bound.max(1) as u64)).unwrap_or(0)
    }

    /// True so many times of a thousand.
    pub fn chance(&mut self, of_thousand: u32) -> bool {
        self.draw() % 1000 < u64::from(of_thousand)
    }
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(World {
            entropy: Entropy(seed),
            faults: Faults::default(),
            directories: BTreeSet::new(),
            files: BTreeMap::new(),
            under_way: BTreeMap::new(),
            done: BTreeMap::new(),
            last: 0,
            driver: None,
        })
    }

    fn with(world: World) -> Self {
        Self { world: Rc::new(RefCell::new(world)) }
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.world.borrow_mut().faults = faults;
    }

    /// Completes one of the operations that are under way; false if there is none.
    pub fn step(&self) -> bool {
        let mut world = self.world.borrow_mut();
        let Some((number, operation)) = world.take_any() else { return false };
        let result = world.complete(operation.change);
        world.done.insert(number, result);
        drop(world);
        if let Some(waker) = operation.waker {
            waker.wake();
        }
        true
    }

    /// Waits until an operation is under way, for whoever calls [`Self::step`]; one at a time.
    pub async fn busy(&self) {
        poll_fn(|cx| {
            let mut world = self.world.borrow_mut();
            if !world.under_way.is_empty() {
                return Poll::Ready(());
            }
            world.driver = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// What a crash leaves: another disk, without faults. This one is not changed.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let world = self.world.borrow();
        let mut entropy = Entropy(seed);
        let copy = |octets: &Octets| Rc::new(RefCell::new(octets.borrow().clone()));
        let copies: BTreeMap<*const RefCell<Vec<u8>>, Octets> =
            world.files.values().map(|octets| (Rc::as_ptr(octets), copy(octets))).collect();
        let mut after = World {
            entropy: Entropy(entropy.draw()),
            faults: Faults::default(),
            directories: world.directories.clone(),
            files: world
                .files
                .iter()
                .map(|(path, file)| (path.clone(), copies[&Rc::as_ptr(file)].clone()))
                .collect(),
            under_way: BTreeMap::new(),
            done: BTreeMap::new(),
            last: 0,
            driver: None,
        };
        for operation in world.under_way.values() {
            match operation.change.clone() {
                Change::Write { file, at, octets } => {
                    // A file that was removed meanwhile takes its writes with it.
                    if let Some(file) = copies.get(&Rc::as_ptr(&file)) {
                        tear(&mut entropy, &mut file.borrow_mut(), at, &octets);
                    }
                }
                Change::Make { path, octets, .. } if entropy.chance(500) => {
                    let cut = entropy.below(octets + 1);
                    after.files.entry(path).or_insert_with(|| Rc::new(RefCell::new(vec![0; cut])));
                }
                names if entropy.chance(500) => drop(after.apply(names)),
                _ => {}
            }
        }
        Self::with(after)
    }

    /// Damages a file: flips a bit of the octet at this offset.
    pub fn rot(&self, path: &Path, at: usize) {
        if let Some(file) = self.world.borrow().files.get(path)
            && let Some(octet) = file.borrow_mut().get_mut(at)
        {
            *octet ^= 1;
        }
    }

    /// The paths of all files.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.world.borrow().files.keys().cloned().collect()
    }

    /// What stands in a file.
    #[must_use]
    pub fn octets(&self, path: &Path) -> Vec<u8> {
        self.world.borrow().files.get(path).map_or_else(Vec::new, |file| file.borrow().clone())
    }

    fn run(&self, change: Change) -> impl Future<Output = io::Result<usize>> + use<> {
        let world = Rc::clone(&self.world);
        let mut number = None;
        poll_fn(move |cx| {
            let mut world = world.borrow_mut();
            let Some(number) = number else {
                number = Some(world.begin(change.clone(), cx.waker()));
                return Poll::Pending;
            };
            if let Some(result) = world.done.remove(&number) {
                return Poll::Ready(result);
            }
            if let Some(operation) = world.under_way.get_mut(&number) {
                operation.waker = Some(cx.waker().clone());
            }
            Poll::Pending
        })
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDisk({:?})", self.paths())
    }
}

impl World {
    fn begin(&mut self, change: Change, waker: &Waker) -> u64 {
        self.last += 1;
        self.under_way.insert(self.last, Operation { change, waker: Some(waker.clone()) });
        if let Some(driver) = self.driver.take() {
            driver.wake();
        }
        self.last
    }

    fn take_any(&mut self) -> Option<(u64, Operation)> {
        let which = self.entropy.below(self.under_way.len());
        let number = *self.under_way.keys().nth(which)?;
        self.under_way.remove(&number).map(|operation| (number, operation))
    }

    fn complete(&mut self, change: Change) -> io::Result<usize> {
        let faults = self.faults;
        if faults.read_only {
            return Err(error(libc::EROFS));
        }
        let Change::Write { file, at, octets } = change else {
            if self.entropy.chance(faults.names) {
                return Err(error(libc::EIO));
            }
            return self.apply(change).map(|()| 0);
        };
        let bad = if self.entropy.chance(faults.write_eio) {
            Some(libc::EIO)
        } else {
            self.entropy.chance(faults.write_enospc).then_some(libc::ENOSPC)
        };
        let mut file = file.borrow_mut();
        if let Some(bad) = bad {
            tear(&mut self.entropy, &mut file, at, &octets);
            return Err(error(bad));
        }
        let short = self.entropy.chance(faults.write_short);
        let count = if short { 1 + self.entropy.below(octets.len()) } else { octets.len() };
        put(&mut file, at, &octets[..count]);
        Ok(count)
    }

    fn apply(&mut self, change: Change) -> io::Result<()> {
        match change {
            Change::Write { file, at, octets } => put(&mut file.borrow_mut(), at, &octets),
            Change::Make { path, mut head, octets } => {
                if self.files.contains_key(&path) {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                if self.is_full(octets as u64) {
                    return Err(error(libc::ENOSPC));
                }
                head.resize(octets.max(head.len()), 0);
                self.files.insert(path, Rc::new(RefCell::new(head)));
            }
            Change::Rename { from, to } => {
                let file = self.files.remove(&from).ok_or(io::ErrorKind::NotFound)?;
                self.files.insert(to, file);
            }
            Change::Remove { path } => drop(self.files.remove(&path)),
            Change::MakeDir { path } => drop(self.directories.insert(path)),
        }
        Ok(())
    }

    /// Whether there is no room for one more file of this length.
    fn is_full(&self, octets: u64) -> bool {
        let Faults { capacity_octets, files_max, .. } = self.faults;
        (capacity_octets != 0 && self.octets() + octets > capacity_octets)
            || (files_max != 0 && self.files.len() >= files_max)
    }

    fn octets(&self) -> u64 {
        self.files.values().map(|file| file.borrow().len() as u64).sum()
    }
}

impl Files for SimDisk {
    type File = SimFile;

    async fn open(&self, path: &Path, _access: Access) -> io::Result<SimFile> {
        let octets = self.world.borrow().files.get(path).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(SimFile { disk: self.clone(), octets })
    }

    async fn make(&self, path: &Path, head: Aligned, octets: u64) -> io::Result<()> {
        let octets = usize::try_from(octets).unwrap_or(usize::MAX);
        self.run(Change::Make { path: path.to_owned(), head: head.to_vec(), octets }).await.map(drop)
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.run(Change::Rename { from: from.to_owned(), to: to.to_owned() }).await.map(drop)
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.run(Change::Remove { path: path.to_owned() }).await.map(drop)
    }

    async fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.run(Change::MakeDir { path: path.to_owned() }).await.map(drop)
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<Found>> {
        let world = self.world.borrow();
        let within = world.files.iter().filter(|(path, _)| path.parent() == Some(directory));
        let found = within.filter_map(|(path, file)| {
            Some(Found { name: path.file_name()?.into(), octets: file.borrow().len() as u64 })
        });
        Ok(found.collect())
    }

    async fn space(&self, _path: &Path) -> io::Result<Space> {
        let world = self.world.borrow();
        let total = match world.faults.capacity_octets {
            0 => u64::MAX,
            octets => octets,
        };
        let files = match world.faults.files_max {
            0 => u64::MAX,
            most => most.saturating_sub(world.files.len()) as u64,
        };
        Ok(Space { total, available: total - world.octets().min(total), files })
    }
}

/// An open file of a [`SimDisk`].
pub struct SimFile {
    disk: SimDisk,
    octets: Octets,
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({})", self.octets.borrow().len())
    }
}

impl File for SimFile {
    async fn write_some(&self, octets: Aligned, start: usize, at: u64) -> (io::Result<usize>, Aligned) {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let change = Change::Write { file: Rc::clone(&self.octets), at, octets: octets[start..].to_vec() };
        (self.disk.run(change).await, octets)
    }

    async fn read_at(&self, mut into: Aligned, at: u64) -> (io::Result<usize>, Aligned) {
        let mut world = self.disk.world.borrow_mut();
        let often = world.faults.read_eio;
        if often > 0 && world.entropy.chance(often) {
            return (Err(error(libc::EIO)), into);
        }
        let octets = self.octets.borrow();
        let start = usize::try_from(at).unwrap_or(usize::MAX).min(octets.len());
        let count = into.len().min(octets.len() - start);
        into[..count].copy_from_slice(&octets[start..start + count]);
        (Ok(count), into)
    }
}

/// Writes any subset of the sectors; some may end up as neither the old nor the new.
fn tear(entropy: &mut Entropy, file: &mut Vec<u8>, at: usize, octets: &[u8]) {
    let how = entropy.below(5);
    for (number, sector) in octets.chunks(SECTOR_OCTETS).enumerate() {
        let written = match how {
            0 => false,
            1 => true,
            _ => entropy.chance(500),
        };
        let at = at + number * SECTOR_OCTETS;
        if how == 4 && entropy.chance(200) {
            let garbage: Vec<u8> = sector.iter().map(|_| entropy.draw().to_le_bytes()[0]).collect();
            put(file, at, &garbage);
        } else if written {
            put(file, at, sector);
        }
    }
}

fn put(file: &mut Vec<u8>, at: usize, octets: &[u8]) {
    if file.len() < at + octets.len() {
        file.resize(at + octets.len(), 0);
    }
    file[at..at + octets.len()].copy_from_slice(octets);
}

fn error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

#[cfg(test)]
mod tests {
    use futures_lite::future::{block_on, poll_once};

    use super::*;
    use crate::io::files::BLOCK_OCTETS;

    fn finish<T>(disk: &SimDisk, future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        loop {
            if let Some(result) = block_on(poll_once(future.as_mut())) {
                return result;
            }
            assert!(disk.step(), "nothing is under way");
        }
    }

    #[test]
    fn only_what_has_completed_is_sure_to_survive() {
        let path = Path::new("spool/one");
        let (mut lost, mut torn, mut kept) = (0, 0, 0);
        for seed in 0..200 {
            let disk = SimDisk::new(seed);
            finish(&disk, disk.make(path, Aligned::with_capacity(0), 8192)).unwrap();
            let file = block_on(disk.open(path, Access::Write)).unwrap();
            let ones = Aligned::from(&[1u8; BLOCK_OCTETS][..]);
            let (result, ones) = finish(&disk, file.write_all(ones, 0));
            result.unwrap();
            let mut second = Box::pin(file.write_all(ones, 4096));
            assert!(block_on(poll_once(&mut second)).is_none());
            let after = disk.crash(seed).octets(path);
            assert!(after[..4096].iter().all(|&octet| octet == 1));
            match after[4096..].iter().filter(|&&octet| octet == 1).count() {
                0 => lost += 1,
                BLOCK_OCTETS => kept += 1,
                _ => torn += 1,
            }
        }
        assert!(lost > 10 && torn > 10 && kept > 10);
    }

    #[test]
    fn short_writes_are_gone_on_with_and_errors_are_told() {
        let disk = SimDisk::new(7);
        let path = Path::new("spool/one");
        finish(&disk, disk.make(path, Aligned::with_capacity(0), 0)).unwrap();
        let file = block_on(disk.open(path, Access::Write)).unwrap();
        disk.set_faults(Faults { write_short: 700, ..Faults::default() });
        let octets: Vec<u8> = (0..40_960).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let (result, _) = finish(&disk, file.write_all(Aligned::from(&octets[..]), 0));
        result.unwrap();
        assert_eq!(disk.octets(path), octets);
        disk.set_faults(Faults { write_eio: 1000, ..Faults::default() });
        let (result, _) = finish(&disk, file.write_all(Aligned::from(&octets[..]), 0));
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EIO));
    }
}
