//! Attaching a program to an interface by a bpf_link that nothing pins: it lasts as long as its file descriptor.
//!
//! The call is made here and not by aya, whose attach falls back to netlink, and a netlink attachment outlives the
//! process. It must never do that, and never replace a program that is there.
#![allow(unsafe_code, reason = "bpf(2) is not in std")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::advice::AttachMode;

const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_XDP: u32 = 37;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const XDP_FLAGS_HW_MODE: u32 = 1 << 3;

/// The `link_create` part of the kernel's `union bpf_attr`.
#[repr(C)]
struct LinkCreate {
    program: RawFd,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// A program on an interface. Dropping it takes the program off.
#[derive(Debug)]
pub struct Link {
    _fd: OwnedFd,
}

impl Link {
    /// Attaches. Kernel 5.9 is the first that can.
    ///
    /// # Errors
    /// The kernel's; [`super::advice::of`] says what it means.
    pub fn attach(program: BorrowedFd<'_>, interface: u32, mode: AttachMode) -> io::Result<Self> {
        let mut attributes = LinkCreate {
            program: program.as_raw_fd(),
            interface,
            attach_type: BPF_XDP,
            flags: match mode {
                AttachMode::Generic => XDP_FLAGS_SKB_MODE,
                AttachMode::Native => XDP_FLAGS_DRV_MODE,
                AttachMode::Offload => XDP_FLAGS_HW_MODE,
            },
        };
        // SAFETY: the attributes are live and of the size given; the kernel takes missing ones as zero.
        let fd = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, &raw mut attributes, size_of::<LinkCreate>())
        };
        let fd = RawFd::try_from(fd).unwrap_or(-1);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it, for us alone.
        Ok(Self { _fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }
}
