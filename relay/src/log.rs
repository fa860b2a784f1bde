//! The log: one line an event. No secret and no message content, ever.
//!
//! A thread that logs formats its line into memory of its own ([`line`]), escapes what peers wrote ([`value`]), and
//! appends it to its own queue ([`lanes`]); one writer thread collects the queues and writes ([`writer`]). Nobody waits
//! for the target: a queue that is full drops the line and counts it. The writer is woken for the first line and then
//! waits a moment for more, so that a busy worker pays no system call for a line.
//!
//! `tracing`'s macros are the front; this is its subscriber. Spans are not used: every line carries its fields itself.
//! The registry of `tracing-subscriber` would keep them, and take a lock and a thread-local walk an event for it.
//! `tracing-journald` is not used because it sends from the thread that logs, which a stuck journal would stop.
//!
//! Must not: block a caller, call back into the modules that log, or let a peer's text end a line, move a terminal's
//! cursor or grow a line without a bound.

pub mod config;
mod lanes;
mod line;
mod value;
mod writer;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tracing::span;
use tracing::subscriber::{Interest, SetGlobalDefaultError, set_global_default};
use tracing::{Event, Metadata, Subscriber};
use tracing_core::LevelFilter;

pub use config::Config;
use config::Level;
use lanes::Lanes;
use line::Encoding;

/// The handle of the running log. Cheap to clone; the log runs until the process ends.
#[derive(Debug, Clone)]
pub struct Log {
    lanes: Arc<Lanes>,
    level: Arc<AtomicU8>,
}

impl Log {
    /// Starts the writer, and makes this the log of the whole process.
    ///
    /// # Errors
    /// The target cannot be opened, the thread cannot be made, or the process has a log already.
    pub fn start(config: &Config) -> io::Result<Self> {
        let (log, recorder) = Self::prepare(config)?;
        set_global_default(recorder).map_err(|error: SetGlobalDefaultError| io::Error::other(error))?;
        Ok(log)
    }

    fn prepare(config: &Config) -> io::Result<(Self, Recorder)> {
        let lanes = writer::start(&config.target)?;
        let level = Arc::new(AtomicU8::new(config.level as u8));
        let encoding = Encoding::of(config);
        let recorder = Recorder { lanes: Arc::clone(&lanes), level: Arc::clone(&level), encoding };
        Ok((Self { lanes, level }, recorder))
    }

    /// Changes the least severe level that is written.
    pub fn set_level(&self, level: Level) {
        self.level.store(level as u8, Ordering::Relaxed);
        tracing_core::callsite::rebuild_interest_cache();
    }

    /// Lines that were dropped so far, because the target did not keep up or failed.
    #[must_use]
    pub fn lines_dropped(&self) -> u64 {
        self.lanes.dropped()
    }

    /// Opens a file target again at its next line, after it was moved away.
    pub fn reopen(&self) {
        self.lanes.ask_reopen();
    }

    /// Waits until what was logged before is written, at most this long. `false`: the target did not take it in time.
    #[must_use]
    pub fn flush(&self, within: Duration) -> bool {
        self.lanes.flush(within)
    }
}

/// The subscriber: decides what is written, and formats it.
struct Recorder {
    lanes: Arc<Lanes>,
    level: Arc<AtomicU8>,
    encoding: Encoding,
}

impl Recorder {
    fn level(&self) -> LevelFilter {
        const FILTERS: [LevelFilter; 5] = [
            LevelFilter::ERROR,
            LevelFilter::WARN,
            LevelFilter::INFO,
            LevelFilter::DEBUG,
            LevelFilter::TRACE,
        ];
        FILTERS[usize::from(self.level.load(Ordering::Relaxed)) % FILTERS.len()]
    }
}

impl Subscriber for Recorder {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // The level changes only by `set_level`, which asks all callsites again.
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    /// Our own events by the level; those of libraries only as warnings, or all at the level `trace`.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let level = self.level();
        let bound = match line::is_ours(metadata.target()) || level == LevelFilter::TRACE {
            true => level,
            false => level.min(LevelFilter::WARN),
        };
        metadata.is_event() && *metadata.level() <= bound
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level())
    }

    fn event(&self, event: &Event<'_>) {
        line::record(event, self.encoding, &self.lanes);
    }

    // Spans are never enabled; these are here because the trait asks.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[cfg(test)]
mod tests;
