//! The program in the kernel and the same code on the host, side by side on one frame.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;

use aya::programs::{TestRun, TestRunOptions};
use ringpost::gate::clock::monotonic_ns;
use ringpost::gate::loaded::{Entry, Loaded};
use ringpost_ebpf::abi::{Address, Switches, Units, VERDICTS, Verdict};
use ringpost_ebpf::compile::{Plan, Table};
use ringpost_ebpf::verdict::{Kernel, Outcome, judge_frame};

/// XDP_DROP.
pub(crate) const DROP: u32 = 1;
/// XDP_PASS.
pub(crate) const PASS: u32 = 2;
/// XDP_TX.
pub(crate) const TX: u32 = 3;

/// BPF_PROG_TEST_RUN lets frames come in by loopback, whose index is 1 in every network namespace.
const LOOPBACK: u32 = 1;

/// The object that `cargo xtask ebpf` built.
pub(crate) fn object() -> Result<Vec<u8>, String> {
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/bpf/ringpost-gate.o");
    let path = std::env::var_os("RINGPOST_GATE_OBJECT").map_or(built, PathBuf::from);
    std::fs::read(path).map_err(|error| format!("no gate built (`cargo xtask ebpf`): {error}"))
}

/// The object, or a return from the test with a visible reason; also where the kernel would not load it for us.
#[macro_export]
macro_rules! object {
    () => {
        match $crate::kernel::usable() {
            Ok(object) => object,
            Err(reason) => ringpost_tests::skip!("{reason}"),
        }
    };
}

/// The object, if this process may load it.
pub(crate) fn usable() -> Result<Vec<u8>, String> {
    let missing = ringpost::gate::caps::missing().map_err(|error| error.to_string())?;
    if !missing.is_empty() {
        let names: Vec<String> = missing.iter().map(ToString::to_string).collect();
        return Err(format!("no {}", names.join(", ")));
    }
    object()
}

/// What the kernel did with a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ran {
    /// XDP_DROP, XDP_PASS or XDP_TX.
    pub(crate) action: u32,
    /// The counter that went up; exactly one does.
    pub(crate) verdict: Verdict,
    /// The frame afterwards.
    pub(crate) octets: Vec<u8>,
}

/// The loaded program with a table, and the same table on the host.
pub(crate) struct Bench {
    pub(crate) loaded: Loaded,
    pub(crate) units: Box<Units>,
    pub(crate) bans: HashMap<Address, u64>,
    buckets: RefCell<HashMap<Address, u64>>,
}

impl Bench {
    pub(crate) fn new(object: &[u8], plan: &Plan) -> Self {
        let mut loaded = Loaded::new(object).unwrap_or_else(|error| panic!("{error}"));
        let table = Table::compile(plan).unwrap();
        loaded.publish(&table).unwrap();
        let units = table.whole().unwrap();
        Self { loaded, units, bans: HashMap::new(), buckets: RefCell::default() }
    }

    /// Bans an address in both.
    pub(crate) fn ban(&mut self, address: Address, ends_ns: u64) {
        self.loaded.ban(address, ends_ns).unwrap();
        self.bans.insert(address, ends_ns);
        self.set_switches(0);
    }

    /// Grants each CPU so many samples in all.
    pub(crate) fn set_switches(&mut self, samples: u64) {
        let bans = self.bans.len() as u64;
        self.loaded.set_switches(Switches { bans, samples }).unwrap();
    }

    /// Runs a frame once through an entry point.
    pub(crate) fn run_by(&self, entry: Entry, frame: &[u8]) -> Ran {
        let before = self.loaded.counters(LOOPBACK).unwrap();
        let mut octets = vec![0; frame.len() + 256];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut octets), ..TestRunOptions::default() };
        let result = self.loaded.program(entry).unwrap().test_run(options).unwrap();
        octets.truncate(result.data_size_out as usize);
        Ran {
            action: result.return_value,
            verdict: counted(&before, &self.loaded.counters(LOOPBACK).unwrap()),
            octets,
        }
    }

    pub(crate) fn run(&self, frame: &[u8]) -> Ran {
        self.run_by(Entry::Linear, frame)
    }

    /// What the same code says on the host.
    pub(crate) fn judge(&self, frame: &[u8]) -> Outcome {
        judge_frame(&self.units, frame, self)
    }
}

/// The one counter that went up by one.
fn counted(before: &[u64; VERDICTS], after: &[u64; VERDICTS]) -> Verdict {
    let mut up =
        Verdict::ALL.iter().zip(before.iter().zip(after)).filter(|(_, (before, after))| before != after);
    let (verdict, (before, after)) = up.next().expect("a packet is counted");
    assert!(up.next().is_none() && before + 1 == *after, "counted once: {before:?} {after:?}");
    *verdict
}

impl Kernel for Bench {
    fn now_ns(&self) -> u64 {
        monotonic_ns()
    }

    fn ban_ends_ns(&self, source: &Address) -> Option<u64> {
        self.bans.get(source).copied()
    }

    fn bucket_ns(&self, source: &Address) -> Option<u64> {
        self.buckets.borrow().get(source).copied()
    }

    fn set_bucket_ns(&self, source: &Address, paid_ns: u64) {
        self.buckets.borrow_mut().insert(*source, paid_ns);
    }
}

/// A program by a descriptor of its own: to run frames while its maps are written by another thread.
pub(crate) struct ById<'a>(&'a aya::programs::ProgramFd);

impl<'a> ById<'a> {
    pub(crate) fn of(program: &'a aya::programs::ProgramFd) -> Self {
        Self(program)
    }

    /// Runs a frame once and gives the action.
    #[allow(unsafe_code, reason = "bpf(2) is not in std")]
    pub(crate) fn run(&self, frame: &[u8]) -> u32 {
        use std::os::fd::{AsFd, AsRawFd};
        const BPF_PROG_TEST_RUN: libc::c_long = 10;
        // union bpf_attr's `test`: program and result, sizes in and out, data in and out, repeat and duration.
        let program = u64::try_from(self.0.as_fd().as_raw_fd()).unwrap();
        let mut attributes = [program, frame.len() as u64, frame.as_ptr() as u64, 0, 1, 0, 0, 0, 0, 0];
        // SAFETY: the frame and the attributes outlive the call; the kernel checks the size.
        let done = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, attributes.as_mut_ptr(), size_of_val(&attributes))
        };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        u32::try_from(attributes[0] >> 32).unwrap()
    }
}
