//! One event as one line: text, JSON, or the journal's fields, made in memory that each thread keeps for it.
//!
//! Must not: allocate for an ordinary line once a thread's memory has grown; fail. An event whose fields log
//! themselves while they are shown is counted as dropped.

use std::cell::RefCell;
use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Level};

use super::config::{self, Config, Format, Target};
use super::lanes::{Lane, Lanes};
use super::value::{Bounded, push, push_bare, push_json, push_number, push_text};
use crate::io::clock;
use crate::limits;

/// How lines are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Encoding {
    format: Format,
    wrap: Wrap,
}

/// What stands around the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrap {
    /// A line feed after it.
    Line,
    /// One RFC 3164 datagram.
    Syslog,
    /// One datagram of the journal's native protocol, with every field beside the line.
    Journal,
}

impl Encoding {
    pub(super) fn of(config: &Config) -> Self {
        let wrap = match config.target {
            Target::Stdout | Target::File(_) => Wrap::Line,
            Target::Syslog => Wrap::Syslog,
            Target::Journald => Wrap::Journal,
        };
        Self { format: config.format, wrap }
    }
}

/// Whether an event comes from this program and not from a library.
pub(super) fn is_ours(target: &str) -> bool {
    target.strip_prefix("ringpost").is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Formats an event and queues it for the writer.
pub(super) fn record(event: &Event<'_>, encoding: Encoding, lanes: &Lanes) {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    let done = SCRATCH.try_with(|scratch| {
        let mut scratch = scratch.try_borrow_mut().ok()?;
        scratch.format(event, encoding, clock::unix_ms());
        scratch.hand_over(encoding, *event.metadata().level(), lanes);
        Some(())
    });
    if !matches!(done, Ok(Some(()))) {
        lanes.drop_line();
    }
}

/// The memory of one thread.
#[derive(Default)]
struct Scratch {
    /// The line as it is read by people and machines.
    line: Vec<u8>,
    /// The journal's fields.
    fields: Vec<u8>,
    value: Bounded,
    stamp: Stamp,
    lane: Option<Lane>,
}

impl Scratch {
    fn format(&mut self, event: &Event<'_>, encoding: Encoding, unix_ms: u64) {
        let (format, is_stamped) =
            (encoding.format, encoding.wrap == Wrap::Line || encoding.format == Format::Json);
        self.line.clear();
        self.fields.clear();
        let metadata = event.metadata();
        let mut fields = Fields {
            line: &mut self.line,
            journal: (encoding.wrap == Wrap::Journal).then_some(&mut self.fields),
            value: &mut self.value,
            format,
            is_cut: false,
        };
        if format == Format::Json {
            fields.line.push(b'{');
        }
        if is_stamped {
            fields.safe_str("ts", self.stamp.at(unix_ms));
        }
        fields.safe_str("level", level_name(*metadata.level()));
        if !is_ours(metadata.target()) {
            fields.safe_str("event", "library");
            fields.text("target", metadata.target());
        }
        event.record(&mut fields);
        if fields.is_cut {
            fields.raw("truncated", format_args!("true"));
        }
        if format == Format::Json {
            fields.line.push(b'}');
        }
    }

    fn hand_over(&mut self, encoding: Encoding, level: Level, lanes: &Lanes) {
        let lane = self.lane.take().filter(|lane| lane.belongs_to(lanes)).unwrap_or_else(|| lanes.open());
        let is_urgent = level == Level::ERROR;
        let severity = severity(level);
        match encoding.wrap {
            Wrap::Line => {
                self.line.push(b'\n');
                lane.push(&[&self.line], is_urgent, lanes);
            }
            Wrap::Syslog => {
                let mut head = Vec::with_capacity(SYSLOG_HEAD_OCTETS_USUAL);
                self.stamp.push_syslog(&mut head, severity);
                lane.push_record(&[&head, &self.line], is_urgent, lanes);
            }
            Wrap::Journal => {
                push(&mut self.fields, format_args!("PRIORITY={severity}\nSYSLOG_IDENTIFIER=ringpost\n"));
                lane.push_record(&[&self.fields, b"MESSAGE=", &self.line, b"\n"], is_urgent, lanes);
            }
        }
        self.lane = Some(lane);
    }
}

/// Appends the fields of one event.
struct Fields<'a> {
    line: &'a mut Vec<u8>,
    journal: Option<&'a mut Vec<u8>>,
    value: &'a mut Bounded,
    format: Format,
    is_cut: bool,
}

impl Fields<'_> {
    /// A value that needs no escape and no bound: ours.
    fn safe_str(&mut self, name: &str, value: &str) {
        self.name(name);
        if self.format == Format::Json {
            push(self.line, format_args!("\"{value}\""));
        } else {
            self.line.extend_from_slice(value.as_bytes());
        }
    }

    /// A whole number.
    fn number(&mut self, name: &str, value: u64) {
        if self.journal.is_some() {
            return self.raw(name, format_args!("{value}"));
        }
        if self.has_room(name, RAW_OCTETS_MAX) {
            self.name(name);
            push_number(self.line, value);
        }
    }

    /// A number or a truth value.
    fn raw(&mut self, name: &str, value: fmt::Arguments<'_>) {
        if !self.has_room(name, RAW_OCTETS_MAX) {
            return;
        }
        self.name(name);
        push(self.line, value);
        if let Some(journal) = &mut self.journal {
            push_journal_name(journal, name);
            push(journal, value);
            journal.push(b'\n');
        }
    }

    /// A text that anybody may have written, within its bound already.
    fn text(&mut self, name: &str, value: &str) {
        if !self.has_room(name, value.len() * ESCAPE_GROWTH_MAX) {
            return;
        }
        self.name(name);
        match self.format {
            Format::Text => push_text(self.line, value),
            Format::Json => push_json(self.line, value),
        }
        if let Some(journal) = &mut self.journal {
            push_journal_name(journal, name);
            push_bare(journal, value);
            journal.push(b'\n');
        }
    }

    fn has_room(&mut self, name: &str, octets: usize) -> bool {
        let has_room = self.line.len() + name.len() + octets + LINE_RESERVE <= limits::LOG_LINE_OCTETS_MAX;
        self.is_cut |= !has_room;
        has_room
    }

    fn name(&mut self, name: &str) {
        match self.format {
            Format::Text => {
                if !self.line.is_empty() {
                    self.line.push(b' ');
                }
                self.line.extend_from_slice(name.as_bytes());
                self.line.push(b'=');
            }
            Format::Json => {
                if self.line.len() > 1 {
                    self.line.push(b',');
                }
                self.line.push(b'"');
                self.line.extend_from_slice(name.as_bytes());
                self.line.extend_from_slice(b"\":");
            }
        }
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        match self.format {
            // JSON has no word for these.
            Format::Json if !value.is_finite() => self.raw(field.name(), format_args!("null")),
            _ => self.raw(field.name(), format_args!("{value}")),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        match u64::try_from(value) {
            Ok(value) => self.number(field.name(), value),
            Err(_) => self.raw(field.name(), format_args!("{value}")),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.number(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.raw(field.name(), format_args!("{value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if value.len() <= limits::LOG_VALUE_OCTETS_MAX {
            return self.text(field.name(), value);
        }
        let mut bounded = std::mem::take(self.value);
        self.text(field.name(), bounded.take(value));
        *self.value = bounded;
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut bounded = std::mem::take(self.value);
        self.text(field.name(), bounded.show(value));
        *self.value = bounded;
    }
}

/// The time as text; the second is worked out once and kept.
struct Stamp {
    second: u64,
    millis: u64,
    /// `2026-01-02T03:04:05.678Z`.
    text: String,
}

impl Default for Stamp {
    fn default() -> Self {
        Self { second: u64::MAX, millis: u64::MAX, text: String::new() }
    }
}

impl Stamp {
    fn at(&mut self, unix_ms: u64) -> &str {
        let (second, millis) = (unix_ms / 1000, unix_ms % 1000);
        if second != self.second {
            let (year, month, day) = civil(second / 86_400);
            let (hour, minute) = (second / 3600 % 24, second / 60 % 60);
            (self.second, self.millis) = (second, u64::MAX);
            self.text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}.", second % 60);
        }
        if millis != self.millis {
            self.millis = millis;
            self.text.truncate(STAMP_SECOND_OCTETS);
            let _ = fmt::Write::write_fmt(&mut self.text, format_args!("{millis:03}Z"));
        }
        &self.text
    }

    /// `<22>Jan  2 03:04:05 ringpost[7]: `, in UTC: the daemon that takes it has a clock of its own.
    fn push_syslog(&self, head: &mut Vec<u8>, severity: u8) {
        let seconds = clock::unix_ms() / 1000;
        let (_, month, day) = civil(seconds / 86_400);
        let month = MONTHS[usize::try_from(month - 1).unwrap_or(0) % MONTHS.len()];
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        push(head, format_args!("<{}>{month} {day:2} ", SYSLOG_FACILITY_MAIL * 8 + severity));
        push(head, format_args!("{hour:02}:{minute:02}:{second:02} ringpost[{}]: ", std::process::id()));
    }
}

/// Year, month and day of a day since 1970-01-01 in the Gregorian calendar.
///
/// Years are counted from March, so that the leap day is the last of its year, in eras of 400 years, which are
/// all of the same length.
fn civil(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468; // since 0000-03-01
    let (era, of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153; // months since March
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

/// The severity of syslog and of the journal.
fn severity(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

/// `queue_id` as `RINGPOST_QUEUE_ID=`: the prefix keeps clear of the journal's own names.
fn push_journal_name(journal: &mut Vec<u8>, name: &str) {
    journal.extend_from_slice(b"RINGPOST_");
    journal.extend(name.bytes().map(|octet| match octet.to_ascii_uppercase() {
        octet @ (b'A'..=b'Z' | b'0'..=b'9') => octet,
        _ => b'_',
    }));
    journal.push(b'=');
}

/// Octets of a number at most.
const RAW_OCTETS_MAX: usize = 340;
/// How much longer escaping can make a text: one octet becomes `\u001b` or `\u{1b}`.
const ESCAPE_GROWTH_MAX: usize = 6;
/// Octets that the end of a line needs.
const LINE_RESERVE: usize = 64;
/// Octets of a stamp up to its milliseconds.
const STAMP_SECOND_OCTETS: usize = "2026-01-02T03:04:05.".len();
const SYSLOG_HEAD_OCTETS_USUAL: usize = 48;
const SYSLOG_FACILITY_MAIL: u8 = 2;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

// The names of levels here and in the configuration are the same words.
const _: () = assert!(config::Level::Error as u8 == 0 && config::Level::Trace as u8 == 4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_civil_time() {
        let mut stamp = Stamp::default();
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_735_689_599_042, "2024-12-31T23:59:59.042Z"),
            (1_735_689_599_043, "2024-12-31T23:59:59.043Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(stamp.at(unix_ms), text);
        }
    }

    #[test]
    fn only_our_own_modules_are_ours() {
        assert!(is_ours("ringpost") && is_ours("ringpost::egress"));
        assert!(!is_ours("ringposter") && !is_ours("hickory_resolver"));
    }
}
