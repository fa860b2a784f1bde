//! The capabilities that the gate needs, and giving up those that it needs only once.
//!
//! Loading asks for CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON (the program does arithmetic on packet pointers, which
//! the verifier allows to nobody else). Swapping tables and attaching to an interface that came anew ask for
//! CAP_BPF alone. It must not touch any other capability.
#![allow(unsafe_code, reason = "capget(2), capset(2) and prctl(2) are not in std")]

use std::fmt;
use std::io;

/// A capability that the gate may need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Packet filters on interfaces: to load an XDP program.
    NetAdmin,
    /// Pointer arithmetic in programs: to load this one.
    Perfmon,
    /// Programs and maps: as long as the gate stands.
    Bpf,
}

impl Capability {
    /// All that loading needs.
    pub const LOADING: [Self; 3] = [Self::Bpf, Self::NetAdmin, Self::Perfmon];
    /// Those that are not needed any more once the program is in the kernel.
    pub const ONCE: [Self; 2] = [Self::NetAdmin, Self::Perfmon];

    const fn number(self) -> u32 {
        match self {
            Self::NetAdmin => 12,
            Self::Perfmon => 38,
            Self::Bpf => 39,
        }
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::Perfmon => "CAP_PERFMON",
            Self::Bpf => "CAP_BPF",
        })
    }
}

/// CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON.
const SYS_ADMIN: u32 = 21;

/// Which of the capabilities that loading needs this thread has not.
///
/// # Errors
/// Where the kernel does not say.
pub fn missing() -> io::Result<Vec<Capability>> {
    let effective = Sets::of_thread()?.effective;
    Ok(missing_of(effective))
}

fn missing_of(effective: u64) -> Vec<Capability> {
    let has = |number: u32| effective >> number & 1 != 0;
    let lacks = |capability: &Capability| {
        !has(capability.number()) && (*capability == Capability::NetAdmin || !has(SYS_ADMIN))
    };
    Capability::LOADING.into_iter().filter(lacks).collect()
}

/// Takes CAP_NET_ADMIN and CAP_PERFMON from this thread for good, and so from all threads that it starts. Call it
/// after the gate was loaded and before any other thread is started.
///
/// # Errors
/// Where the kernel refuses.
pub fn give_up() -> io::Result<()> {
    for capability in Capability::ONCE {
        // SAFETY: numbers in, a number out. Without CAP_SETPCAP the bounding set stays: nothing this process
        // runs gains from it.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, libc::c_ulong::from(capability.number()), 0, 0, 0) };
        // SAFETY: as above; a kernel without ambient capabilities refuses, and has none to take.
        unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_LOWER,
                libc::c_ulong::from(capability.number()),
                0,
                0,
            )
        };
    }
    let once = Capability::ONCE.iter().fold(0, |bits, capability| bits | 1u64 << capability.number());
    let sets = Sets::of_thread()?;
    let without = Sets {
        effective: sets.effective & !once,
        permitted: sets.permitted & !once,
        inheritable: sets.inheritable & !once,
    };
    without.set()
}

/// The sets of a thread, one bit a capability.
struct Sets {
    effective: u64,
    permitted: u64,
    inheritable: u64,
}

/// `struct __user_cap_header_struct` of version 3, for the calling thread.
const HEADER: [u32; 2] = [0x2008_0522, 0];

impl Sets {
    fn of_thread() -> io::Result<Self> {
        let mut header = HEADER;
        let mut data = [[0u32; 3]; 2];
        // SAFETY: both point to memory of the sizes that version 3 asks for.
        let done = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), data.as_mut_ptr()) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        let both = |at: usize| u64::from(data[0][at]) | u64::from(data[1][at]) << 32;
        Ok(Self { effective: both(0), permitted: both(1), inheritable: both(2) })
    }

    #[allow(clippy::cast_possible_truncation, reason = "the halves of a set are cut out")]
    fn set(&self) -> io::Result<()> {
        let mut header = HEADER;
        let sets = [self.effective, self.permitted, self.inheritable];
        let data = [sets.map(|set| set as u32), sets.map(|set| (set >> 32) as u32)];
        // SAFETY: as for capget; the kernel only reads.
        let done = unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), data.as_ptr()) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_is_missing() {
        let bit = |capability: Capability| 1u64 << capability.number();
        assert_eq!(missing_of(0), Capability::LOADING);
        assert_eq!(missing_of(bit(Capability::Bpf)), [Capability::NetAdmin, Capability::Perfmon]);
        assert_eq!(missing_of(u64::MAX), []);
    }

    #[test]
    fn sys_admin_stands_for_all_but_net_admin() {
        assert_eq!(missing_of(1 << SYS_ADMIN), [Capability::NetAdmin]);
    }

    #[test]
    fn a_thread_that_gave_up_stays_without() {
        // A thread of its own: capabilities are the thread's.
        let after = std::thread::spawn(|| give_up().and_then(|()| Sets::of_thread())).join().unwrap();
        if let Ok(after) = after {
            let once = Capability::ONCE.iter().fold(0, |bits, capability| bits | 1u64 << capability.number());
            assert_eq!((after.effective & once, after.permitted & once, after.inheritable & once), (0, 0, 0));
        }
    }
}
