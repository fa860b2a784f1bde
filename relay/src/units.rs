//! Newtypes for the numbers that must not be mistaken for one another.

use std::fmt;
use std::time::Duration;

/// A number of octets: sizes on the wire and in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Octets(pub u64);

impl fmt::Display for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A point of the monotonic clock: microseconds since the process started (virtual in the simulation).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// Later than every moment that will be seen.
    pub const NEVER: Self = Self(u64::MAX);

    /// This moment and a wait after it, at most [`Self::NEVER`].
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)))
    }

    /// The time from an earlier moment to this one; zero if that one is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Which data-plane thread, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u16);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One inbound connection: unique while the process lives, printed as `WORKER.NUMBER` in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// The worker that owns the connection.
    pub worker: WorkerId,
    /// Its number on that worker, from 1.
    pub number: u64,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}.{:x}", self.worker.0, self.number)
    }
}

/// One message on its way, unique across restarts; the id in `Received:`, in the logs and in `queued as`.
///
/// Fifteen characters of base 32 (no A, E, I, O): 75 bits, the start of the process, the
/// worker and a counter. Built by [`QueueIds`] only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(u128);

impl QueueId {
    const DIGITS: &[u8; 32] = b"0123456789BCDFGHJKLMNPQRSTUVWXYZ";
    /// Characters of an id as text.
    pub const CHARS: usize = 15;

    /// The id as its characters.
    #[must_use]
    pub fn chars(self) -> [u8; Self::CHARS] {
        let mut text = [0u8; Self::CHARS];
        let mut rest = self.0;
        for slot in text.iter_mut().rev() {
            *slot = Self::DIGITS[(rest & 31) as usize];
            rest >>= 5;
        }
        text
    }

    /// Reads an id from its characters; `None` for anything that [`Self::chars`] does not write.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != Self::CHARS {
            return None;
        }
        text.bytes()
            .try_fold(0u128, |id, octet| {
                let digit = Self::DIGITS.iter().position(|&d| d == octet)?;
                Some(id << 5 | digit as u128)
            })
            .map(Self)
    }

    /// The id as a number, for the spool's records.
    #[must_use]
    pub fn to_bits(self) -> u128 {
        self.0
    }

    /// The id from a number written by [`Self::to_bits`]; `None` where it is out of range.
    #[must_use]
    pub fn from_bits(bits: u128) -> Option<Self> {
        (bits >> 75 == 0).then_some(Self(bits))
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.chars()).unwrap_or_default())
    }
}

/// Makes the queue ids of one worker: milliseconds of the process's start (41 bits), worker (10), counter (24+).
#[derive(Debug)]
pub struct QueueIds {
    base: u128,
    next: u128,
}

impl QueueIds {
    /// Ids of one worker of a process that started `start_ms` milliseconds after the Unix epoch.
    #[must_use]
    pub fn new(start_ms: u64, worker: WorkerId) -> Self {
        let start = u128::from(start_ms) & ((1 << 41) - 1);
        let worker = u128::from(worker.0) & ((1 << 10) - 1);
        Self { base: start << 34 | worker << 24, next: 0 }
    }

    /// The next id. The counter carries into the worker and start bits only after 2^24 messages, where the
    /// start is moved on by one millisecond instead: ids stay unique as long as a process makes fewer than
    /// 2^24 messages a millisecond.
    pub fn issue(&mut self) -> QueueId {
        if self.next >> 24 != 0 {
            self.next = 0;
            self.base = (self.base + (1 << 34)) & ((1 << 75) - 1);
        }
        let id = QueueId(self.base | self.next);
        self.next += 1;
        id
    }
}

/// A duration for people: its two largest units, from days to seconds.
#[must_use]
pub fn lasting(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_ids_are_unique_and_read_back() {
        let mut ids = QueueIds::new(1_790_000_000_000, WorkerId(3));
        let first = ids.issue();
        let second = ids.issue();
        assert_ne!(first, second);
        assert_eq!(QueueId::parse(&first.to_string()), Some(first));
        assert_eq!(QueueId::from_bits(second.to_bits()), Some(second));
        assert_eq!(QueueId::parse("AAAAAAAAAAAAAAA"), None);
        assert_eq!(QueueId::parse("0"), None);
    }

    #[test]
    fn ids_stay_unique_past_the_counter() {
        let mut ids = QueueIds::new(1, WorkerId(0));
        let first = ids.issue();
        for _ in 0..1 << 24 {
            ids.issue();
        }
        assert_ne!(ids.issue(), first);
    }

    #[test]
    fn durations_are_told_in_their_two_largest_units() {
        for (seconds, told) in
            [(59, "59 s"), (61, "1 min 1 s"), (3 * 3600 + 120, "3 h 2 min"), (2 * 86_400 + 3600, "2 d 1 h")]
        {
            assert_eq!(lasting(Duration::from_secs(seconds)), told);
        }
    }
}
