//! The few parts of a certificate that fingerprints, TLSA records and dates need, read from its DER (RFC 5280 §4.1).
//!
//! Why not webpki alone: it refuses certificates that a fingerprint may well name (X.509v1, for instance), and tells no
//! dates. It must not be used to judge a chain, nor names.

/// Parts of one certificate, borrowed from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts<'a> {
    /// `subjectPublicKeyInfo`, tag and length included.
    pub public_key: &'a [u8],
    /// Seconds since the Unix epoch; `None` where the time is not written as RFC 5280 §4.1.2.5 asks.
    pub not_before: Option<i64>,
    /// Likewise.
    pub not_after: Option<i64>,
}

impl<'a> Parts<'a> {
    /// The parts of a certificate; `None` for what is none.
    #[must_use]
    pub fn of(certificate: &'a [u8]) -> Option<Self> {
        let (outer, _) = element(certificate, SEQUENCE)?;
        let (mut fields, _) = element(outer, SEQUENCE)?;
        if fields.first() == Some(&VERSION) {
            (_, fields) = element(fields, VERSION)?;
        }
        (_, fields) = element(fields, INTEGER)?; // serialNumber
        (_, fields) = element(fields, SEQUENCE)?; // signature
        (_, fields) = element(fields, SEQUENCE)?; // issuer
        let (validity, fields) = element(fields, SEQUENCE)?;
        let (_, fields) = element(fields, SEQUENCE)?; // subject
        let (_, behind) = element(fields, SEQUENCE)?;
        let public_key = &fields[..fields.len() - behind.len()];
        let (not_before, rest) = time(validity)?;
        let (not_after, _) = time(rest)?;
        Some(Self { public_key, not_before, not_after })
    }

    /// Whether it is valid at this time, in seconds since the Unix epoch.
    #[must_use]
    pub fn is_valid_at(&self, now: i64) -> bool {
        self.not_before.is_some_and(|from| from <= now) && self.not_after.is_some_and(|to| now <= to)
    }
}

/// The content of the element that these octets begin with, if it has this tag, and what stands behind it.
fn element(octets: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = octets.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        // DER: the length in as few octets as it takes; no certificate needs more than three.
        let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
        let length = digits.iter().fold(0usize, |length, &digit| length << 8 | usize::from(digit));
        (!digits.is_empty() && digits.len() <= 3).then_some((length, rest))?
    };
    (found == tag).then_some(())?;
    rest.split_at_checked(length)
}

/// A UTCTime or GeneralizedTime, and what stands behind it.
fn time(octets: &[u8]) -> Option<(Option<i64>, &[u8])> {
    if let Some((text, rest)) = element(octets, UTC_TIME) {
        // RFC 5280 §4.1.2.5.1: two digits of the year, from 1950 to 2049.
        let year = digits(text.get(..2)?)?;
        let year = if year < 50 { 2000 + year } else { 1900 + year };
        return Some((seconds(year, text.get(2..)?), rest));
    }
    let (text, rest) = element(octets, GENERALIZED_TIME)?;
    Some((seconds(digits(text.get(..4)?)?, text.get(4..)?), rest))
}

/// `MMDDHHMMSSZ` of a year, in seconds since the Unix epoch.
fn seconds(year: i64, text: &[u8]) -> Option<i64> {
    if text.len() != 11 || text[10] != b'Z' {
        return None;
    }
    let part = |at: usize| digits(&text[at..at + 2]);
    let (month, day) = (part(0)?, part(2)?);
    let (hour, minute, second) = (part(4)?, part(6)?, part(8)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days from 1970-01-01 to a day of the Gregorian calendar: years begin in March, so that leap days stand last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let century_group = year.div_euclid(400);
    let year_of_group = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_group = year_of_group * 365 + year_of_group / 4 - year_of_group / 100 + day_of_year;
    century_group * 146_097 + day_of_group - 719_468
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0i64, |number, &digit| {
        digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0'))
    })
}

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT`, which only certificates of version 2 and 3 have.
const VERSION: u8 = 0xa0;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_key_and_dates() {
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2024, 2, 29);
        params.not_after = rcgen::date_time_ymd(2050, 1, 1);
        let pair = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&pair).unwrap();
        let parts = Parts::of(certificate.der()).unwrap();
        assert_eq!(parts.not_before, Some(1_709_164_800));
        assert_eq!(parts.not_after, Some(2_524_608_000));
        assert_eq!(parts.public_key, rcgen::PublicKeyData::subject_public_key_info(&pair));
        assert!(parts.is_valid_at(1_709_164_800) && !parts.is_valid_at(1_709_164_799));
        assert!(!parts.is_valid_at(2_524_608_001));
    }

    proptest! {
        #[test]
        fn a_cut_certificate_is_none_and_a_changed_one_no_panic(cut in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), with in any::<u8>()) {
            let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
            let mut der = made.cert.der().to_vec();
            prop_assert_eq!(Parts::of(&der[..cut.index(der.len())]), None);
            let at = at.index(der.len());
            der[at] = with;
            let _ = Parts::of(&der);
        }
    }
}
