//! What the process shows of itself to others: its environment block, and its memory in a core dump.
//!
//! Secrets come by files, credentials or the environment. The last one stays readable in `/proc` for as long as the
//! process lives, unless its block is written over. It must be called before the process has a second thread.

#![allow(unsafe_code, reason = "limits, prctl and the environment block are the kernel's")]

use std::ffi::{CStr, c_char};
use std::io;

/// Forbids core dumps and looking into this process from outside, by a limit and by the kernel's own mark. Children
/// that run another program get the mark back; the limit they keep.
///
/// # Errors
/// The kernel refuses; nothing else depends on it.
pub fn hide_memory() -> io::Result<()> {
    let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a whole value that lives longer than the call.
    let limited = unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
    // SAFETY: takes numbers only.
    let hidden = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) };
    if limited == 0 && hidden == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Writes zeros over the values of these variables in the block that the kernel gave, so that neither `/proc` nor a
/// child of this process shows them. The names stay, with empty values.
///
/// Call it while the process has one thread, after its environment was read.
pub fn scrub_environment(is_secret: impl Fn(&str) -> bool) {
    unsafe extern "C" {
        static mut environ: *const *mut c_char;
    }
    // SAFETY: `environ` is null or an array of pointers that ends with null, each to a string that ends with zero, in
    // writable memory (POSIX, environ(7)). One thread runs: nobody reads or replaces them meanwhile, and the standard
    // library gives copies only, so that no reference to these octets is alive.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            let text = CStr::from_ptr(*entry);
            let name_octets = text.to_bytes().iter().position(|&octet| octet == b'=');
            let octets = text.count_bytes();
            if let Some(name_octets) = name_octets
                && std::str::from_utf8(&text.to_bytes()[..name_octets]).is_ok_and(&is_secret)
            {
                (*entry).add(name_octets + 1).write_bytes(0, octets - name_octets - 1);
            }
            entry = entry.add(1);
        }
    }
}
