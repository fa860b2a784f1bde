//! The queues between the threads that log and the one that writes.
//!
//! Each thread has a lane of its own: a bounded buffer behind a lock that nobody else wants but the writer, for the
//! time of a pointer swap. Appending a line is that uncontended lock, a copy and one look at a flag; the writer is
//! woken only by the first line after it went to sleep, by a lane that has a batch together, or by an error.
//!
//! Invariant: a line appended after the writer took a lane finds the flag down (the writer lowers it before it takes
//! any lane, and the lane's lock orders the two), so it raises the flag and wakes the writer: no line waits for ever.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use crate::io::clock;
use crate::limits;

/// All lanes of one log.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    all: Mutex<Vec<Arc<Queue>>>,
    writer: OnceLock<Thread>,
    /// Something waits for the writer.
    is_raised: AtomicBool,
    /// The writer should not wait for more.
    is_urgent: AtomicBool,
    dropped: AtomicU64,
    reopen: AtomicBool,
    flushes_asked: AtomicU64,
    flushes_done: Mutex<u64>,
    flush_done: Condvar,
    number: u64,
}

/// What one thread has waiting.
#[derive(Debug, Default)]
struct Queue {
    pending: Mutex<Vec<u8>>,
}

/// A thread's own end of its queue.
#[derive(Debug)]
pub(super) struct Lane {
    queue: Arc<Queue>,
    lanes: u64,
}

impl Lane {
    /// Whether this lane is one of those lanes: a test may have several logs.
    pub(super) fn belongs_to(&self, lanes: &Lanes) -> bool {
        self.lanes == lanes.number
    }

    /// Appends the parts of one line.
    pub(super) fn push(&self, parts: &[&[u8]], is_urgent: bool, lanes: &Lanes) {
        self.append(None, parts, is_urgent, lanes);
    }

    /// Appends the parts of one record, with their length before them.
    pub(super) fn push_record(&self, parts: &[&[u8]], is_urgent: bool, lanes: &Lanes) {
        let octets: usize = parts.iter().map(|part| part.len()).sum();
        let length = u32::try_from(octets).unwrap_or(u32::MAX).to_le_bytes();
        self.append(Some(length), parts, is_urgent, lanes);
    }

    fn append(&self, length: Option<[u8; 4]>, parts: &[&[u8]], is_urgent: bool, lanes: &Lanes) {
        let octets: usize = parts.iter().map(|part| part.len()).sum::<usize>() + RECORD_HEAD_OCTETS;
        let mut pending = locked(&self.queue.pending);
        let before = pending.len();
        if before + octets > limits::LOG_PENDING_OCTETS_MAX {
            drop(pending);
            return lanes.drop_line();
        }
        pending.extend(length.iter().flatten());
        parts.iter().for_each(|part| pending.extend_from_slice(part));
        let has_batch = before < limits::LOG_BATCH_OCTETS && pending.len() >= limits::LOG_BATCH_OCTETS;
        drop(pending);
        lanes.raise(is_urgent || has_batch);
    }
}

impl Lanes {
    /// No lanes yet.
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { number: NEXT.fetch_add(1, Ordering::Relaxed), ..Self::default() }
    }

    /// A lane for the calling thread.
    pub(super) fn open(&self) -> Lane {
        let queue = Arc::new(Queue::default());
        locked(&self.all).push(Arc::clone(&queue));
        Lane { queue, lanes: self.number }
    }

    /// Counts a line that is not written.
    pub(super) fn drop_line(&self) {
        self.drop_lines(1);
    }

    pub(super) fn drop_lines(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub(super) fn ask_reopen(&self) {
        self.reopen.store(true, Ordering::Release);
    }

    pub(super) fn take_reopen(&self) -> bool {
        self.reopen.swap(false, Ordering::Acquire)
    }

    /// Wakes the writer and waits until it has written all that was appended before.
    pub(super) fn flush(&self, within: Duration) -> bool {
        let wanted = self.flushes_asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.raise(true);
        let done = locked(&self.flushes_done);
        let waited = self.flush_done.wait_timeout_while(done, within, |done| *done < wanted);
        let (done, _) = waited.unwrap_or_else(PoisonError::into_inner);
        *done >= wanted
    }

    fn raise(&self, is_urgent: bool) {
        if is_urgent {
            self.is_urgent.store(true, Ordering::Release);
        }
        // A load first: while lines pour in, the flag is up and its cache line shared.
        let was_raised =
            self.is_raised.load(Ordering::Acquire) || self.is_raised.swap(true, Ordering::AcqRel);
        if (!was_raised || is_urgent)
            && let Some(writer) = self.writer.get()
        {
            writer.unpark();
        }
    }

    /// What a lane has waiting.
    #[cfg(test)]
    pub(super) fn pending_of(&self, lane: &Lane) -> Vec<u8> {
        assert!(lane.belongs_to(self));
        locked(&lane.queue.pending).clone()
    }

    /// Makes the calling thread the writer.
    pub(super) fn write_here(&self) {
        let _ = self.writer.set(std::thread::current());
    }

    /// Writes all that comes, for ever: waits for a line, then a moment for more, then gives each lane's octets to
    /// `write`.
    pub(super) fn serve(&self, mut write: impl FnMut(&[u8])) -> ! {
        let mut taken = Vec::new();
        loop {
            while !self.is_raised.load(Ordering::Acquire) {
                std::thread::park();
            }
            self.wait_for_more();
            self.is_urgent.store(false, Ordering::Release);
            let flushes = self.flushes_asked.load(Ordering::Acquire);
            self.is_raised.store(false, Ordering::Release);
            self.write_all(&mut taken, &mut write);
            let mut done = locked(&self.flushes_done);
            if *done < flushes {
                *done = flushes;
                self.flush_done.notify_all();
            }
        }
    }

    /// The whole wait, unless it is urgent: a wake-up that came while the writer wrote must not cut it short, or a
    /// busy worker would pay for a write of each few lines.
    fn wait_for_more(&self) {
        let end = clock::now().after(limits::LOG_BATCH_WAIT);
        while !self.is_urgent.load(Ordering::Acquire) {
            match end.since(clock::now()) {
                Duration::ZERO => return,
                left => std::thread::park_timeout(left),
            }
        }
    }

    fn write_all(&self, taken: &mut Vec<u8>, write: &mut impl FnMut(&[u8])) {
        let queues: Vec<Arc<Queue>> = locked(&self.all).clone();
        for queue in &queues {
            std::mem::swap(&mut *locked(&queue.pending), taken);
            if !taken.is_empty() {
                write(taken);
                taken.clear();
                taken.shrink_to(2 * limits::LOG_BATCH_OCTETS);
            }
        }
        drop(queues);
        // A lane whose thread has ended and that was written to its end is not needed any more.
        locked(&self.all).retain(|queue| Arc::strong_count(queue) > 1 || !locked(&queue.pending).is_empty());
    }
}

/// The records in octets made by [`Lane::push_record`].
pub(super) fn records(mut octets: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = octets.split_first_chunk::<RECORD_HEAD_OCTETS>()?;
        let (record, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        octets = rest;
        Some(record)
    })
}

/// A lock whose holder cannot leave it half-changed: a panic in between does not matter.
fn locked<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

const RECORD_HEAD_OCTETS: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_as_they_were_pushed() {
        let lanes = Lanes::new();
        let lane = lanes.open();
        lane.push_record(&[b"one", b"\n", b"two"], false, &lanes);
        lane.push_record(&[], false, &lanes);
        lane.push_record(&[b"three"], false, &lanes);
        let octets = locked(&lane.queue.pending).clone();
        assert_eq!(records(&octets).collect::<Vec<_>>(), [&b"one\ntwo"[..], b"", b"three"]);
    }

    #[test]
    fn a_full_lane_drops_and_counts() {
        let lanes = Lanes::new();
        let lane = lanes.open();
        let line = [b'x'; 1000];
        for _ in 0..2000 {
            lane.push(&[&line], false, &lanes);
        }
        let pending = locked(&lane.queue.pending).len();
        assert!(pending <= limits::LOG_PENDING_OCTETS_MAX);
        assert_eq!(lanes.dropped(), 2000 - pending as u64 / 1000);
    }

    #[test]
    fn lanes_of_ended_threads_are_written_and_forgotten() {
        let lanes = Lanes::new();
        let lane = lanes.open();
        lane.push(&[b"last words\n"], false, &lanes);
        drop(lane);
        let mut written = Vec::new();
        lanes.write_all(&mut Vec::new(), &mut |octets| written.extend_from_slice(octets));
        assert_eq!(written, b"last words\n");
        assert!(locked(&lanes.all).is_empty());
    }
}
