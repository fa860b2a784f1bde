//! Sizes as people write them on a command line: `512`, `1K`, `25M`. Binary multiples, as in the daemon's configuration.

use std::fmt;
use std::str::FromStr;

/// A number of octets, written with K, M or G.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub usize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (digits, unit) = match text.char_indices().last() {
            Some((at, 'K' | 'k')) => (&text[..at], 1 << 10),
            Some((at, 'M' | 'm')) => (&text[..at], 1 << 20),
            Some((at, 'G' | 'g')) => (&text[..at], 1 << 30),
            _ => (text, 1_usize),
        };
        let wrong = || format!("`{text}` is no size; expected a number with K, M or G, such as 100K");
        let number: usize = digits.parse().map_err(|_| wrong())?;
        number.checked_mul(unit).map(Size).ok_or_else(wrong)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            octets if octets > 0 && octets.is_multiple_of(1 << 20) => write!(out, "{}M", octets >> 20),
            octets if octets > 0 && octets.is_multiple_of(1 << 10) => write!(out, "{}K", octets >> 10),
            octets => write!(out, "{octets}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_units_and_writes_them_back() {
        for (text, octets) in [("0", 0), ("512", 512), ("1K", 1024), ("100k", 102_400), ("3M", 3 << 20)] {
            assert_eq!(text.parse::<Size>().unwrap(), Size(octets));
        }
        assert_eq!(Size(102_400).to_string(), "100K");
        assert_eq!(Size(1 << 20).to_string(), "1M");
        assert_eq!(Size(1000).to_string(), "1000");
    }

    #[test]
    fn refuses_what_is_no_size() {
        for text in ["", "K", "-1K", "1T", "1.5M", "99999999999999999999G"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }
}
