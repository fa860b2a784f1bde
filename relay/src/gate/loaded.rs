//! The gate's program and maps in the kernel: all calls to aya and bpf(2) are here and in [`super::link`].
//!
//! It must not decide anything: what to attach where is `plan`, what a table holds is `lists`. Everything here may
//! block for tens of milliseconds (a swap waits for RCU): never on a data-plane thread.
#![allow(unsafe_code, reason = "mapping a BPF map and telling aya which values are plain memory")]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use aya::maps::{
    Array, ArrayOfMaps, HashMap, IterableMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, RingBuf,
};
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader, Pod};
use ringpost_ebpf::abi;
use ringpost_ebpf::compile::Table;

/// One value of a table map: as large as the kernel program declares it.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct TableValue([abi::Unit; abi::UNITS]);
/// A value of the counters' map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct CountersValue(abi::Counters);
/// The value of the switches' map.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct SwitchesValue(abi::Switches);

// SAFETY: all three are arrays or `repr(C)` structs of u64 without padding: any bits are a value.
unsafe impl Pod for TableValue {}
// SAFETY: as above.
unsafe impl Pod for CountersValue {}
// SAFETY: as above.
unsafe impl Pod for SwitchesValue {}

type TableMap = Array<MapData, TableValue>;

const BPF_F_MMAPABLE: u32 = 1 << 10;
const TABLE_OCTETS: usize = abi::UNITS * abi::UNIT_OCTETS;

/// Why the kernel did not take the program or a map.
#[derive(Debug)]
pub enum LoadError {
    /// The object is not one of this build's: a map or program is missing in it.
    Object(String),
    /// The kernel refused: the call, the error, and the verifier's words if it has any.
    Refused {
        /// What was asked for.
        call: &'static str,
        /// What the kernel answered.
        error: io::Error,
        /// The end of the verifier's log; empty where the verifier was not reached.
        log: String,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(what) => write!(f, "the gate's object is not usable: {what}"),
            Self::Refused { call, error, log } if log.is_empty() => write!(f, "{call}: {error}"),
            Self::Refused { call, error, log } => write!(f, "{call}: {error}; the verifier: {log}"),
        }
    }
}

impl std::error::Error for LoadError {}

/// Which of the two entry points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Entry {
    /// For frames in one buffer.
    Linear,
    /// For frames in several buffers: kernel 5.18.
    Frags,
}

impl Entry {
    const fn name(self) -> &'static str {
        match self {
            Self::Linear => abi::PROGRAM,
            Self::Frags => abi::PROGRAM_FRAGS,
        }
    }
}

/// The object in the kernel. Dropping it frees everything that no link holds.
pub struct Loaded {
    ebpf: Ebpf,
    frags_error: Option<LoadError>,
    tables: ArrayOfMaps<MapData, TableMap>,
    switches: Array<MapData, SwitchesValue>,
    counters: PerCpuArray<MapData, CountersValue>,
    networks: PerCpuArray<MapData, u64>,
    bans: HashMap<MapData, abi::Address, u64>,
    drops: RingBuf<MapData>,
}

impl Loaded {
    /// Loads both entry points and their maps. That the kernel is too old for `frags` is no error: see
    /// [`Self::frags_error`].
    ///
    /// # Errors
    /// Where the kernel refuses the linear program or a map.
    pub fn new(object: &[u8]) -> Result<Self, LoadError> {
        let mut ebpf = EbpfLoader::new().load(object).map_err(|error| refused("loading the maps", &error))?;
        load(&mut ebpf, Entry::Linear)?;
        let frags_error = load(&mut ebpf, Entry::Frags).err();
        Ok(Self {
            tables: take(&mut ebpf, abi::TABLES, ArrayOfMaps::try_from)?,
            switches: take(&mut ebpf, abi::SWITCHES, Array::try_from)?,
            counters: take(&mut ebpf, abi::COUNTERS, PerCpuArray::try_from)?,
            networks: take(&mut ebpf, abi::NETWORKS, PerCpuArray::try_from)?,
            bans: take(&mut ebpf, abi::BANS, HashMap::try_from)?,
            drops: take(&mut ebpf, abi::DROPS, RingBuf::try_from)?,
            ebpf,
            frags_error,
        })
    }

    /// Why [`Entry::Frags`] is not there, if it is not.
    #[must_use]
    pub fn frags_error(&self) -> Option<&LoadError> {
        self.frags_error.as_ref()
    }

    /// The program of an entry point, to attach it or to run it on a test frame.
    ///
    /// # Errors
    /// Where it was not loaded.
    pub fn program(&self, entry: Entry) -> Result<&Xdp, LoadError> {
        let program = self.ebpf.program(entry.name()).and_then(|program| <&Xdp>::try_from(program).ok());
        program.ok_or_else(|| LoadError::Object(format!("no program {}", entry.name())))
    }

    /// Publishes a table: from the next packet on it is in force, and when this returns no packet sees the old
    /// one any more. On an error the old one stays.
    ///
    /// # Errors
    /// Where the kernel has no memory for it, or CAP_BPF is gone.
    pub fn publish(&mut self, table: &Table) -> Result<(), LoadError> {
        let map = TableMap::create(1, BPF_F_MMAPABLE).map_err(|error| refused("creating a table", &error))?;
        fill(map.map().fd().as_fd(), table).map_err(|error| LoadError::Refused {
            call: "filling a table",
            error,
            log: String::new(),
        })?;
        self.tables.set(0, &map, 0).map_err(|error| refused("publishing a table", &error))
    }

    /// Sets the switches.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn set_switches(&mut self, switches: abi::Switches) -> Result<(), LoadError> {
        self.switches
            .set(0, SwitchesValue(switches), 0)
            .map_err(|error| refused("setting the switches", &error))
    }

    /// The counters of an interface, all CPUs together.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn counters(&self, interface: u32) -> Result<[u64; abi::VERDICTS], LoadError> {
        let slot = interface % abi::INTERFACES_MAX;
        let cpus: PerCpuValues<CountersValue> =
            self.counters.get(&slot, 0).map_err(|error| refused("reading the counters", &error))?;
        let mut sum = [0u64; abi::VERDICTS];
        for cpu in cpus.iter() {
            for (sum, packets) in sum.iter_mut().zip(cpu.0.packets) {
                *sum += packets;
            }
        }
        Ok(sum)
    }

    /// Packets accepted for the network of this number, all CPUs together.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn network_packets(&self, number: u32) -> Result<u64, LoadError> {
        let cpus = self.networks.get(&number, 0).map_err(|error| refused("reading a counter", &error))?;
        Ok(cpus.iter().sum())
    }

    /// Sets the counter of a network to 0: its number is about to be given to another one.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn clear_network(&mut self, number: u32) -> Result<(), LoadError> {
        let cpus = self.networks.get(&number, 0).map_err(|error| refused("reading a counter", &error))?;
        let zeros = PerCpuValues::try_from(vec![0; cpus.len()]).map_err(|error| LoadError::Refused {
            call: "counting the CPUs",
            error,
            log: String::new(),
        })?;
        self.networks.set(number, zeros, 0).map_err(|error| refused("clearing a counter", &error))
    }

    /// Bans an address until this time of the monotonic clock, in nanoseconds.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn ban(&mut self, address: abi::Address, ends_ns: u64) -> Result<(), LoadError> {
        self.bans.insert(address, ends_ns, 0).map_err(|error| refused("banning", &error))
    }

    /// Lifts a ban. The only error of the kernel's is that there is none.
    pub fn unban(&mut self, address: abi::Address) {
        let _ = self.bans.remove(&address);
    }

    /// The next sampled refusal, if there is one.
    pub fn take_drop(&mut self) -> Option<abi::DropEvent> {
        let item = self.drops.next()?;
        let octets: &[u8; abi::DROP_EVENT_OCTETS] = item.first_chunk()?;
        // SAFETY: the kernel program wrote this very struct; it is all integers, and read as unaligned.
        Some(unsafe { octets.as_ptr().cast::<abi::DropEvent>().read_unaligned() })
    }

    /// The descriptor of a program, to attach it.
    ///
    /// # Errors
    /// Where the program was not loaded.
    pub fn fd_of(program: &Xdp) -> Result<BorrowedFd<'_>, LoadError> {
        program.fd().map(AsFd::as_fd).map_err(|error| refused("finding the program", &error))
    }

    /// The kernel's id of a program; 0 where it has none.
    #[must_use]
    pub fn id_of(program: &Xdp) -> u32 {
        program.info().map_or(0, |info| info.id())
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("frags_error", &self.frags_error).finish_non_exhaustive()
    }
}

fn load(ebpf: &mut Ebpf, entry: Entry) -> Result<(), LoadError> {
    let program = ebpf.program_mut(entry.name()).and_then(|program| <&mut Xdp>::try_from(program).ok());
    let program = program.ok_or_else(|| LoadError::Object(format!("no program {}", entry.name())))?;
    program.load().map_err(|error| match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            LoadError::Refused { call: "loading the program", error: io_error, log: verifier_log.to_string() }
        }
        other => refused("loading the program", &other),
    })
}

fn take<T>(
    ebpf: &mut Ebpf,
    name: &str,
    convert: impl FnOnce(Map) -> Result<T, MapError>,
) -> Result<T, LoadError> {
    let map = ebpf.take_map(name).ok_or_else(|| LoadError::Object(format!("no map {name}")))?;
    convert(map).map_err(|error| refused("opening a map", &error))
}

/// The kernel's error at the bottom of one of aya's.
fn refused(call: &'static str, error: &(dyn std::error::Error + 'static)) -> LoadError {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        if let Some(code) = inner.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return LoadError::Refused {
                call,
                error: io::Error::from_raw_os_error(code),
                log: String::new(),
            };
        }
        cause = inner.source();
    }
    LoadError::Refused { call, error: io::Error::other(error.to_string()), log: String::new() }
}

/// Copies the units of a table into a fresh map through its mapping: one system call instead of one for each
/// element, and no 4 MiB buffer in the kernel.
fn fill(map: BorrowedFd<'_>, table: &Table) -> io::Result<()> {
    let units = table.used();
    if units.len() > abi::UNITS {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    // SAFETY: a fresh shared mapping of a map of exactly this size; checked below.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            TABLE_OCTETS,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            map.as_raw_fd(),
            0,
        )
    };
    if memory == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is page-aligned, holds `UNITS` units, and `units` are no more than that.
    unsafe { std::ptr::copy_nonoverlapping(units.as_ptr(), memory.cast(), units.len()) };
    // SAFETY: this is the mapping made above, and nothing refers to it any more.
    unsafe { libc::munmap(memory, TABLE_OCTETS) };
    Ok(())
}
