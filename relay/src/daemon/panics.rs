//! What a panic says and what follows from it: one line on stderr, and the end of the process.
//!
//! A panic is a mistake of ours in one worker or in the control plane. What its thread held is in no known state, so nothing
//! goes on (not even in builds that would unwind): the process aborts, the service manager starts it anew, and what was
//! acknowledged is with the upstream or on the disk, as after a `kill -9`.
//!
//! The message of a panic may quote whatever was at hand, a password or a mail among it. Only one that stands in the
//! program as it is gets told; else the place has to do. It must not take a lock of ours: the panicking thread may hold it.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write as _};
use std::panic::{self, Location};
use std::process;
use std::thread;

/// From now on a panic of any thread ends the process.
pub fn install() {
    panic::set_hook(Box::new(|panicked| {
        let thread = thread::current();
        let said = line(thread.name().unwrap_or("unnamed"), panicked.location(), panicked.payload());
        let backtrace = Backtrace::capture();
        let mut stderr = io::stderr().lock();
        // Whether it is heard or not, the end is the same.
        let _ = writeln!(stderr, "{said}");
        if backtrace.status() == BacktraceStatus::Captured {
            let _ = writeln!(stderr, "{backtrace}");
        }
        process::abort();
    }));
}

fn line(thread: &str, place: Option<&Location<'_>>, payload: &(dyn Any + Send)) -> String {
    let place = place.map_or_else(|| "unknown".to_owned(), ToString::to_string);
    let reason = payload.downcast_ref::<&'static str>().copied().unwrap_or(WITHHELD);
    format!("event=panic thread={thread} at={place} reason={reason:?}")
}

/// In place of a message that was put together when it was needed.
const WITHHELD: &str = "not told: it may quote mail or secrets";

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Command;
    use std::sync::mpsc;

    use super::*;
    use crate::io::process::hide_memory;

    /// Set in the process that is to panic.
    const INSIDE: &str = "RINGPOST_TESTS_PANIC";

    /// A process with two workers, one of which panics; the other, and the main thread, would wait for ever.
    fn panic_in_a_worker(kind: &str) -> ! {
        hide_memory().unwrap();
        install();
        let (held, wait) = mpsc::channel::<()>();
        let other = thread::Builder::new().name("worker-0".to_owned()).spawn(move || wait.recv()).unwrap();
        let secret = "canary".to_owned();
        let literal = kind == "literal";
        let worker = thread::Builder::new().name("worker-1".to_owned()).spawn(move || {
            // As a runtime does that keeps the panics of its tasks to itself.
            let caught =
                panic::catch_unwind(|| if literal { panic!("out of step") } else { panic!("{secret}") });
            drop(caught);
        });
        let _ = worker.unwrap().join();
        let _ = other.join();
        drop(held);
        process::exit(0)
    }

    #[test]
    fn a_panic_of_one_worker_ends_the_process_and_quotes_nothing() {
        if let Ok(kind) = std::env::var(INSIDE) {
            panic_in_a_worker(&kind);
        }
        let name = thread::current().name().unwrap().to_owned();
        for (kind, reason) in [("literal", "\"out of step\""), ("quoting", "\"not told: ")] {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", &name, "--nocapture"]).env(INSIDE, kind).env("RUST_BACKTRACE", "1");
            let output = command.output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{said}");
            let line = said.lines().find(|line| line.starts_with("event=panic ")).expect("a line");
            assert!(line.contains(&format!("thread=worker-1 at={}:", file!())), "{line}");
            assert!(line.contains(reason), "{line}");
            assert!(!said.contains("canary"), "{said}");
        }
    }
}
