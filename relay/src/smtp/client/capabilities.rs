//! What an upstream offered in its reply to EHLO.
//!
//! Capabilities belong to the connection they were offered on, and to its state: after STARTTLS they are void
//! (RFC 3207 §4.2). They are never kept for another connection. Reading is tolerant: case does not matter, an
//! unknown or broken line offers nothing, and the old `AUTH=PLAIN` counts as `AUTH PLAIN`.

/// The extensions offered. The default offers none, as after HELO.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// The name the upstream gave itself, to notice that it is ourselves (RFC 5321 §6.3).
    pub name: Box<str>,
    /// PIPELINING (RFC 2920).
    pub pipelining: bool,
    /// SIZE (RFC 1870): octets; `Some(0)` where it is offered without a bound.
    pub size: Option<u64>,
    /// 8BITMIME (RFC 6152).
    pub eight_bit_mime: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// CHUNKING (RFC 3030).
    pub chunking: bool,
    /// DSN (RFC 3461).
    pub dsn: bool,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub enhanced_status_codes: bool,
    /// REQUIRETLS (RFC 8689).
    pub require_tls: bool,
    /// RCPTMAX of LIMITS (RFC 9422): recipients in one transaction.
    pub recipients_max: Option<u32>,
    /// MAILMAX of LIMITS (RFC 9422): transactions on one connection.
    pub messages_max: Option<u32>,
    mechanisms: Vec<Box<str>>,
}

impl Capabilities {
    /// Largest message taken, in octets; `None`: no bound was told.
    #[must_use]
    pub fn size_max(&self) -> Option<u64> {
        self.size.filter(|&octets| octets > 0)
    }

    /// Whether AUTH (RFC 4954) was offered.
    #[must_use]
    pub fn offers_auth(&self) -> bool {
        !self.mechanisms.is_empty()
    }

    /// Whether this SASL mechanism was offered; compared without case.
    #[must_use]
    pub fn offers_mechanism(&self, name: &str) -> bool {
        self.mechanisms.iter().any(|mechanism| mechanism.eq_ignore_ascii_case(name))
    }

    /// The SASL mechanisms offered, in upper case, in the upstream's order.
    pub fn mechanisms(&self) -> impl Iterator<Item = &str> {
        self.mechanisms.iter().map(AsRef::as_ref)
    }

    /// Takes line `number` (from 0) of a positive reply to EHLO, without code and line end.
    pub(super) fn read_line(&mut self, number: usize, line: &[u8]) {
        let Ok(line) = std::str::from_utf8(line) else { return };
        let mut words = line.split_ascii_whitespace();
        let Some(word) = words.next() else { return };
        if number == 0 {
            // RFC 5321 §4.1.1.1: the first line names the server; the rest of it is a greeting.
            self.name = word.chars().take(NAME_CHARS_MAX).collect();
            return;
        }
        let keyword = word.to_ascii_uppercase();
        match keyword.as_str() {
            "PIPELINING" => self.pipelining = true,
            "SIZE" => self.size = Some(words.next().and_then(|word| word.parse().ok()).unwrap_or(0)),
            "8BITMIME" => self.eight_bit_mime = true,
            "SMTPUTF8" => self.smtputf8 = true,
            "CHUNKING" => self.chunking = true,
            "DSN" => self.dsn = true,
            "STARTTLS" => self.starttls = true,
            "ENHANCEDSTATUSCODES" => self.enhanced_status_codes = true,
            "REQUIRETLS" => self.require_tls = true,
            "LIMITS" => words.for_each(|word| self.read_limit(word)),
            "AUTH" => words.for_each(|word| self.read_mechanism(word)),
            _ => {
                // Before RFC 2554 was published, servers wrote AUTH= with the first mechanism behind it.
                if let Some(first) = keyword.strip_prefix("AUTH=") {
                    self.read_mechanism(first);
                    words.for_each(|word| self.read_mechanism(word));
                }
            }
        }
    }

    fn read_limit(&mut self, word: &str) {
        let Some((name, value)) = word.split_once('=') else { return };
        // RFC 9422 §4: a limit of 0 or one that cannot be read says nothing.
        let value = value.parse().ok().filter(|&value: &u32| value > 0);
        match name.to_ascii_uppercase().as_str() {
            "RCPTMAX" => self.recipients_max = value,
            "MAILMAX" => self.messages_max = value,
            _ => {}
        }
    }

    fn read_mechanism(&mut self, word: &str) {
        let fine = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_';
        let known = self.offers_mechanism(word) || self.mechanisms.len() == MECHANISMS_MAX;
        if !word.is_empty() && word.len() <= MECHANISM_OCTETS_MAX && word.bytes().all(fine) && !known {
            self.mechanisms.push(word.to_ascii_uppercase().into());
        }
    }
}

/// Characters of the upstream's name that are kept.
const NAME_CHARS_MAX: usize = crate::limits::DOMAIN_OCTETS_MAX;
/// Mechanisms that are kept.
const MECHANISMS_MAX: usize = 32;
/// Longest name of a SASL mechanism (RFC 4422 §3.1).
const MECHANISM_OCTETS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Capabilities {
        let mut capabilities = Capabilities::default();
        lines.iter().enumerate().for_each(|(number, line)| capabilities.read_line(number, line.as_bytes()));
        capabilities
    }

    #[test]
    fn reads_what_big_upstreams_offer() {
        let ses = read(&["email-smtp.amazonaws.com", "8BITMIME", "STARTTLS", "AUTH PLAIN LOGIN", "Ok"]);
        assert_eq!(&*ses.name, "email-smtp.amazonaws.com");
        assert!(ses.eight_bit_mime && ses.starttls && !ses.pipelining && !ses.chunking);
        assert_eq!(ses.mechanisms().collect::<Vec<_>>(), ["PLAIN", "LOGIN"]);
        let google = read(&[
            "smtp.gmail.com at your service, [198.51.100.1]",
            "SIZE 35882577",
            "8BITMIME",
            "AUTH LOGIN PLAIN XOAUTH2 PLAIN-CLIENTTOKEN OAUTHBEARER XOAUTH",
            "ENHANCEDSTATUSCODES",
            "PIPELINING",
            "CHUNKING",
            "SMTPUTF8",
        ]);
        assert_eq!(google.size_max(), Some(35_882_577));
        assert!(google.pipelining && google.chunking && google.smtputf8 && google.enhanced_status_codes);
        assert!(google.offers_mechanism("xoauth2") && !google.offers_mechanism("CRAM-MD5"));
    }

    #[test]
    fn reads_lower_case_old_auth_and_limits() {
        let offered = read(&[
            "x",
            "auth=login plain",
            "AUTH PLAIN",
            "size",
            "limits rcptmax=20 MAILMAX=0 x",
            "dsn",
            "RequireTLS",
        ]);
        assert_eq!(offered.mechanisms().collect::<Vec<_>>(), ["LOGIN", "PLAIN"]);
        assert_eq!((offered.size, offered.size_max()), (Some(0), None));
        assert_eq!((offered.recipients_max, offered.messages_max), (Some(20), None));
        assert!(offered.dsn && offered.require_tls);
    }

    #[test]
    fn broken_lines_offer_nothing() {
        let mut capabilities =
            read(&["x", "", " ", "SIZEX 5", "AUTH \u{7f} AAAAAAAAAAAAAAAAAAAAAAAAA a=b", "LIMITS RCPTMAX"]);
        capabilities.read_line(9, b"DSN \xff");
        assert_eq!(capabilities, Capabilities { name: "x".into(), ..Capabilities::default() });
    }
}
