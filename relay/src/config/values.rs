//! From text to durations, sizes, rates and words. Pure; each parser takes what the interface promises, nothing more.

use std::time::Duration;

use super::variables::{NOES, YESES};
use crate::gate::config::Autoban;
use crate::policy::rate::Rate;
use crate::spool::config::SpaceMax;
use crate::units::Octets;

/// Why a text is not a value. What is expected is told by the variable's kind; this adds to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Wrong {
    /// A further hint; may be empty.
    pub(super) hint: String,
}

impl Wrong {
    /// Wrong, with a hint beyond what the kind expects.
    pub(super) fn because(hint: impl Into<String>) -> Self {
        Self { hint: hint.into() }
    }
}

/// `500ms 30s 5m 2h 5d`; `0` needs no unit. At most ten years.
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        "d" => 86_400 * 1000,
        "" if digits > 0 => return Err(Wrong::because("the unit is missing")),
        _ => return Err(Wrong::default()),
    };
    let number: u64 = number.parse().map_err(|_| Wrong::default())?;
    let span = number.checked_mul(millis).map(Duration::from_millis).filter(|span| *span <= DURATION_MAX);
    span.ok_or_else(|| Wrong::because("at most 3650d"))
}

/// A duration above zero.
pub(super) fn positive_duration(text: &str) -> Result<Duration, Wrong> {
    match duration(text)? {
        Duration::ZERO => Err(Wrong::because("above 0")),
        span => Ok(span),
    }
}

/// `512K 25M 2G 1T`, or octets.
pub(super) fn size(text: &str) -> Result<Octets, Wrong> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let shift = match unit {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        _ => return Err(Wrong::default()),
    };
    let number: u64 = number.parse().map_err(|_| Wrong::default())?;
    match number.checked_mul(1 << shift) {
        Some(0) => Err(Wrong::because("above 0")),
        Some(octets) if octets <= i64::MAX.unsigned_abs() => Ok(Octets(octets)),
        _ => Err(Wrong::because("too large")),
    }
}

/// `80%` or a size.
pub(super) fn percent_or_size(text: &str) -> Result<SpaceMax, Wrong> {
    let Some(number) = text.strip_suffix('%') else {
        return size(text).map(SpaceMax::Size);
    };
    match whole::<u8>(number)? {
        percent @ 1..=100 => Ok(SpaceMax::Percent(percent)),
        _ => Err(Wrong::default()),
    }
}

/// Any of the eight spellings.
pub(super) fn boolean(text: &str) -> Result<bool, Wrong> {
    let is = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
    match (is(YESES), is(NOES)) {
        (true, _) => Ok(true),
        (_, true) => Ok(false),
        _ => Err(Wrong::default()),
    }
}

/// A whole number in digits alone: no sign, no blanks.
pub(super) fn whole<T: std::str::FromStr>(text: &str) -> Result<T, Wrong> {
    if text.is_empty() || !text.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(Wrong::default());
    }
    text.parse().map_err(|_| Wrong::default())
}

/// `100/s`, `14/s burst 50`, `5/10m`. Without `burst` as many may come at once as one period holds.
pub(super) fn rate(text: &str) -> Result<Rate, Wrong> {
    let mut words = text.split_ascii_whitespace();
    let (events, period) = words.next().and_then(|word| word.split_once('/')).ok_or_else(Wrong::default)?;
    let events = count(events)?;
    let period = match period {
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        "d" => Duration::from_secs(86_400),
        other => positive_duration(other).map_err(|_| Wrong::default())?,
    };
    let burst = match (words.next(), words.next()) {
        (None, _) => events,
        (Some("burst"), Some(number)) => count(number)?,
        _ => return Err(Wrong::default()),
    };
    match words.next() {
        None => Ok(Rate { events, period, burst }),
        Some(_) => Err(Wrong::default()),
    }
}

/// `10 in 1m for 1h`.
pub(super) fn autoban(text: &str) -> Result<Autoban, Wrong> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [offences, "in", within, "for", ban_for] = words[..] else {
        return Err(Wrong::default());
    };
    Ok(Autoban {
        offences: count(offences)?,
        within: positive_duration(within).map_err(|_| Wrong::default())?,
        ban_for: positive_duration(ban_for).map_err(|_| Wrong::default())?,
    })
}

/// The value that stands beside the word; case does not matter.
pub(super) fn word<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Wrong> {
    let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
    found.map(|(_, value)| *value).ok_or_else(Wrong::default)
}

/// The items between blanks and commas.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || c == ',').filter(|item| !item.is_empty())
}

/// SHA-256 in hexadecimal, colons allowed.
pub(super) fn fingerprint(text: &str) -> Result<[u8; 32], Wrong> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| *c != ':')
        .map(hex_digit)
        .collect::<Option<_>>()
        .ok_or_else(Wrong::default)?;
    let octets: Vec<u8> =
        digits.chunks(2).map(|pair| pair.iter().fold(0, |octet, d| octet << 4 | d)).collect();
    if !digits.len().is_multiple_of(2) {
        return Err(Wrong::default());
    }
    octets.try_into().map_err(|octets: Vec<u8>| Wrong::because(format!("these are {} octets", octets.len())))
}

fn hex_digit(c: char) -> Option<u8> {
    c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

fn count(text: &str) -> Result<u32, Wrong> {
    match whole(text)? {
        0 => Err(Wrong::default()),
        count => Ok(count),
    }
}

const DURATION_MAX: Duration = Duration::from_secs(3650 * 86_400);
