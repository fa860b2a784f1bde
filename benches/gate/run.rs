//! BPF_PROG_TEST_RUN for any program in the kernel, aya's or not.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use aya::programs::Xdp;

/// XDP_DROP.
pub(crate) const DROP: u32 = 1;
/// XDP_PASS.
pub(crate) const PASS: u32 = 2;

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_PROG_TYPE_XDP: u32 = 6;

/// A program in the kernel.
pub(crate) struct Program(OwnedFd);

impl Program {
    /// `r0 = XDP_PASS; exit`: what a packet costs before anything is done with it.
    pub(crate) fn empty() -> io::Result<Self> {
        Self::answering(PASS)
    }

    /// A program that gives this answer to every packet.
    pub(crate) fn answering(answer: u32) -> io::Result<Self> {
        Ok(Self(load(&[0xb7 | u64::from(answer) << 32, 0x95], 0, BPF_XDP)?))
    }

    /// One that aya loaded.
    pub(crate) fn of(program: &Xdp) -> Result<Self, Box<dyn std::error::Error>> {
        Ok(Self(program.fd()?.as_fd().try_clone_to_owned()?))
    }

    /// The one with this id.
    pub(crate) fn by_id(id: u32) -> io::Result<Self> {
        let mut attr = [0u64; 16];
        attr[0] = u64::from(id);
        Ok(Self(bpf_fd(BPF_PROG_GET_FD_BY_ID, &mut attr)?))
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Runs one frame so often and gives the mean nanoseconds of a run. An answer other than `expected` is an
/// error: a fast wrong verdict is no verdict.
pub(crate) fn time(program: &Program, frame: &[u8], repeat: u32, expected: u32) -> io::Result<f64> {
    let mut out = [0u8; 256];
    let mut attr = [0u64; 16];
    attr[0] = program.0.as_raw_fd() as u64;
    attr[1] = frame.len() as u64 | (out.len() as u64) << 32;
    attr[2] = frame.as_ptr() as u64;
    attr[3] = out.as_mut_ptr() as u64;
    attr[4] = u64::from(repeat);
    bpf(BPF_PROG_TEST_RUN, &mut attr)?;
    let answer = (attr[0] >> 32) as u32;
    if expected != answer {
        return Err(io::Error::other(format!("verdict {answer}, expected {expected}")));
    }
    Ok((attr[4] >> 32) as f64)
}

/// Lets so many copies of a frame come in by an interface and be judged by the program; what it passes goes up the
/// stack. Mean nanoseconds of a frame, all of its way. Kernel 5.18.
pub(crate) fn live(program: &Program, frame: &[u8], frames: u32, interface: u32) -> io::Result<f64> {
    const BPF_F_TEST_XDP_LIVE_FRAMES: u64 = 1 << 1;
    // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context = [0u32, frame.len() as u32, 0, interface, 0, 0];
    let mut attr = [0u64; 16];
    attr[0] = program.0.as_raw_fd() as u64;
    attr[1] = frame.len() as u64;
    attr[2] = frame.as_ptr() as u64;
    attr[4] = u64::from(frames);
    attr[5] = size_of_val(&context) as u64;
    attr[6] = context.as_ptr() as u64;
    attr[8] = BPF_F_TEST_XDP_LIVE_FRAMES;
    attr[9] = LIVE_BATCH;
    bpf(BPF_PROG_TEST_RUN, &mut attr)?;
    Ok((attr[4] >> 32) as f64)
}

/// Frames that come in together, as a driver would hand them on.
const LIVE_BATCH: u64 = 64;

/// How many sources a [`Shuffle`] draws from: a power of two.
pub(crate) const SHUFFLED: usize = 4096;

/// A program that gives each run another source address, drawn at random, and then goes on with the measured
/// program by a tail call. Its own cost is in the floor: the empty program is measured behind it too.
pub(crate) struct Shuffle {
    program: Program,
    _maps: [OwnedFd; 2],
}

impl Shuffle {
    /// In front of this program, over the source addresses of these frames, all of one family.
    pub(crate) fn before(program: &Program, frames: &[Vec<u8>]) -> io::Result<Self> {
        let is_v4 = frames[0][12] == 0x08;
        let (at, octets) = if is_v4 { (26, 4) } else { (22, 16) };
        let sources = map(2, 16, SHUFFLED as u64)?;
        for (number, frame) in (0..SHUFFLED as u32).zip(frames.iter().cycle()) {
            let mut value = [0u8; 16];
            value[..octets].copy_from_slice(&frame[at..at + octets]);
            update(&sources, number, value.as_ptr())?;
        }
        // A program and what it calls must agree on `frags` and on the attach type: whichever the callee has.
        let mut refused = io::Error::other("nothing tried");
        for (flags, attach) in
            [(0, BPF_XDP), (BPF_F_XDP_HAS_FRAGS, BPF_XDP), (0, 0), (BPF_F_XDP_HAS_FRAGS, 0)]
        {
            let next = map(3, 4, 1)?;
            let shuffle = load(&code(&sources, &next, at as u64, is_v4), flags, attach)?;
            match update(&next, 0, program.0.as_raw_fd().to_ne_bytes().as_ptr()) {
                Ok(()) => return Ok(Self { program: Program(shuffle), _maps: [sources, next] }),
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// The program to run.
    pub(crate) fn program(&self) -> &Program {
        &self.program
    }
}

const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;
const BPF_XDP: u32 = 37;

/// The instructions of a [`Shuffle`].
fn code(sources: &OwnedFd, next: &OwnedFd, at: u64, is_v4: bool) -> Vec<u64> {
    // Opcode, destination, source, offset, immediate: as the kernel's struct bpf_insn lies in memory.
    let op = |code: u64, dst: u64, src: u64, off: i16, imm: i32| {
        code | dst << 8 | src << 12 | u64::from(off as u16) << 16 | u64::from(imm as u32) << 32
    };
    let mut code = vec![
        op(0xbf, 6, 1, 0, 0),                   // r6 = ctx
        op(0x85, 0, 0, 0, 7),                   // r0 = get_prandom_u32()
        op(0x57, 0, 0, 0, SHUFFLED as i32 - 1), // r0 &= mask
        op(0x63, 10, 0, -4, 0),                 // *(u32 *)(fp - 4) = r0
        op(0xbf, 2, 10, 0, 0),                  // r2 = fp
        op(0x07, 2, 0, 0, -4),                  // r2 -= 4
        op(0x18, 1, 1, 0, sources.as_raw_fd()), // r1 = sources
        0,
        op(0x85, 0, 0, 0, 1), // r0 = map_lookup_elem()
    ];
    let copy: &[(u64, i16)] = if is_v4 { &[(0x61, 0)] } else { &[(0x79, 0), (0x79, 8)] };
    let tail = 2 * copy.len() as i16 + 5;
    code.extend([
        op(0x15, 0, 0, 5 + tail, 0), // if r0 == 0 goto out
        op(0x61, 2, 6, 0, 0),        // r2 = data
        op(0x61, 3, 6, 4, 0),        // r3 = data_end
        op(0xbf, 4, 2, 0, 0),        // r4 = r2
        op(0x07, 4, 0, 0, 54),       // r4 += 54
        op(0x2d, 4, 3, tail, 0),     // if r4 > r3 goto out
    ]);
    for (load, offset) in copy {
        code.push(op(*load, 5, 0, *offset, 0)); // r5 = *(r0 + offset)
        code.push(op(*load + 2, 2, 5, at as i16 + offset, 0)); // *(r2 + at + offset) = r5
    }
    code.extend([
        op(0xbf, 1, 6, 0, 0),                // r1 = ctx
        op(0x18, 2, 1, 0, next.as_raw_fd()), // r2 = next
        0,
        op(0xb7, 3, 0, 0, 0),  // r3 = 0
        op(0x85, 0, 0, 0, 12), // tail_call()
        op(0xb7, 0, 0, 0, 0),  // out: r0 = XDP_ABORTED
        op(0x95, 0, 0, 0, 0),  // exit
    ]);
    code
}

fn load(instructions: &[u64], flags: u32, attach: u32) -> io::Result<OwnedFd> {
    let license = c"GPL";
    let mut attr = [0u64; 16];
    attr[0] = u64::from(BPF_PROG_TYPE_XDP) | (instructions.len() as u64) << 32;
    attr[1] = instructions.as_ptr() as u64;
    attr[2] = license.as_ptr() as u64;
    attr[5] = u64::from(flags) << 32;
    attr[8] = u64::from(attach) << 32;
    bpf_fd(BPF_PROG_LOAD, &mut attr)
}

fn map(kind: u64, value_octets: u64, entries: u64) -> io::Result<OwnedFd> {
    let mut attr = [0u64; 16];
    attr[0] = kind | 4 << 32;
    attr[1] = value_octets | entries << 32;
    bpf_fd(BPF_MAP_CREATE, &mut attr)
}

fn update(map: &OwnedFd, key: u32, value: *const u8) -> io::Result<()> {
    let mut attr = [0u64; 16];
    attr[0] = map.as_raw_fd() as u64;
    attr[1] = (&raw const key) as u64;
    attr[2] = value as u64;
    bpf(BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}

/// Leaves the machine's network and mounts for namespaces of this process.
pub(crate) fn enter_namespaces() -> io::Result<()> {
    // SAFETY: this process has one thread, and nothing of it depends on the namespaces it leaves.
    let done = unsafe { libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWNS) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Keeps this thread on one CPU.
pub(crate) fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    // SAFETY: a zeroed set is an empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours, and the macro checks the number.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the kernel reads the set, whose size is given.
    let done = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn bpf_fd(command: libc::c_long, attr: &mut [u64; 16]) -> io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the kernel just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn bpf(command: libc::c_long, attr: &mut [u64; 16]) -> io::Result<libc::c_long> {
    // SAFETY: the attributes point to memory that outlives the call; the kernel checks their size.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(done) }
}
