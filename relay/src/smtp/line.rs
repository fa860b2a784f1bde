//! Command lines out of a stream of octets: strict about their ends, bounded in memory.
//!
//! A line ends with CRLF and nothing else (RFC 5321 §2.3.8); a bare LF ends a *malformed* line, so that what stands
//! behind it is never taken for a command. A line that lies whole in the input is not copied. One that was cut is
//! held here, up to the bound its reader names; a longer one is thrown away up to its LF.
//!
//! [`Lines::read`] only looks. What it returned is done with after [`Lines::done`]; after [`Lines::undo`] the same
//! line comes again, which is how a machine puts a command off.

use memchr::memchr;
use secrecy::zeroize::Zeroize as _;

/// The held part of a line that was cut, and whether a too long one is being thrown away.
#[derive(Debug, Default)]
pub struct Lines {
    held: Vec<u8>,
    /// Length of `held` before the last [`Self::read`].
    mark: usize,
    discarding: bool,
}

/// What the next line is.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// Not there yet; the octets seen so far are held.
    Partial,
    /// A whole line without its CRLF, free of control characters.
    Whole(&'a [u8]),
    /// Longer than allowed.
    TooLong,
    /// It ends with a bare LF, or holds a control character or a bare CR.
    Malformed,
    /// A TLS record begins where a command was due.
    TlsRecord,
}

impl Lines {
    /// The next line of `input`, and how many octets of `input` it takes. `octets_max` counts the CRLF.
    pub fn read<'a>(&'a mut self, input: &'a [u8], octets_max: usize) -> (usize, Line<'a>) {
        self.mark = self.held.len();
        if self.starts_tls_record(input) {
            return (input.len(), Line::TlsRecord);
        }
        match memchr(b'\n', input) {
            None => {
                self.hold(input, octets_max);
                (input.len(), Line::Partial)
            }
            Some(_) if self.discarding => (memchr(b'\n', input).map_or(0, |at| at + 1), Line::TooLong),
            Some(at) if self.held.len() + at + 1 > octets_max => (at + 1, Line::TooLong),
            Some(at) if self.held.is_empty() => (at + 1, checked(&input[..=at])),
            Some(at) => {
                self.held.extend_from_slice(&input[..=at]);
                (at + 1, checked(&self.held))
            }
        }
    }

    /// The line just read was handled.
    pub fn done(&mut self) {
        self.discarding = false;
        self.mark = 0;
        self.held.clear();
    }

    /// The line just read was put off: it is given again by the next [`Self::read`], whose input must begin with
    /// the same octets.
    pub fn undo(&mut self) {
        self.held.truncate(self.mark);
    }

    /// The line just read held a secret: handled and wiped, its memory given up.
    pub fn wipe(&mut self) {
        self.held.zeroize();
        self.held = Vec::new();
        self.done();
    }

    /// Whether no part of a line is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && !self.discarding
    }

    fn hold(&mut self, input: &[u8], octets_max: usize) {
        if self.discarding {
            return;
        }
        if self.held.len() + input.len() >= octets_max {
            self.discarding = true;
            self.held.zeroize();
        } else {
            self.held.extend_from_slice(input);
        }
    }

    /// A handshake record of TLS: type 22, major version 3 (RFC 8446 §5.1). No command begins like that.
    fn starts_tls_record(&self, input: &[u8]) -> bool {
        let mut octets = self.held.iter().chain(input);
        !self.discarding && octets.next() == Some(&0x16) && octets.next() == Some(&0x03)
    }
}

/// A line with its LF: free of its CRLF, or malformed.
fn checked(line: &[u8]) -> Line<'_> {
    match line.strip_suffix(b"\r\n") {
        Some(text) if !text.iter().any(u8::is_ascii_control) => Line::Whole(text),
        _ => Line::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All lines of `input`, given in stretches of `cut` octets.
    fn lines(input: &[u8], cut: usize, octets_max: usize) -> Vec<String> {
        let mut reader = Lines::default();
        let mut seen = Vec::new();
        for mut stretch in input.chunks(cut) {
            while !stretch.is_empty() {
                let (consumed, line) = reader.read(stretch, octets_max);
                let is_partial = line == Line::Partial;
                seen.extend((!is_partial).then(|| match line {
                    Line::Whole(text) => String::from_utf8_lossy(text).into_owned(),
                    other => format!("{other:?}"),
                }));
                if !is_partial {
                    reader.done();
                }
                stretch = &stretch[consumed..];
            }
        }
        seen
    }

    #[test]
    fn lines_do_not_depend_on_the_cuts() {
        let input =
            b"NOOP\r\nNOOP\nA\rB\r\n\r\n12345678\r\n123456789\r\n1234567890123456789\r\nX\0\r\nQUIT\r\n";
        let whole = lines(input, input.len(), 10);
        let expected =
            ["NOOP", "Malformed", "Malformed", "", "12345678", "TooLong", "TooLong", "Malformed", "QUIT"];
        assert_eq!(whole, expected);
        for cut in 1..input.len() {
            assert_eq!(lines(input, cut, 10), whole, "cut {cut}");
        }
    }

    #[test]
    fn an_endless_line_is_not_held() {
        let mut reader = Lines::default();
        for _ in 0..1000 {
            assert_eq!(reader.read(&[b'x'; 1000], 2048), (1000, Line::Partial));
            assert!(reader.held.capacity() <= 4096);
        }
        assert_eq!(reader.read(b"x\nNOOP\r\n", 2048), (2, Line::TooLong));
    }

    #[test]
    fn a_line_put_off_comes_again() {
        let mut reader = Lines::default();
        assert_eq!(reader.read(b"NO", 2048), (2, Line::Partial));
        for _ in 0..3 {
            assert_eq!(reader.read(b"OP\r\n", 2048), (4, Line::Whole(b"NOOP")));
            reader.undo();
        }
    }

    #[test]
    fn a_tls_hello_is_told_from_a_command() {
        let mut reader = Lines::default();
        assert_eq!(reader.read(&[0x16], 2048), (1, Line::Partial));
        assert_eq!(reader.read(&[0x03, 0x01], 2048).1, Line::TlsRecord);
        assert_eq!(Lines::default().read(&[0x16, 0x03, 0x01, b'\n'], 2048).1, Line::TlsRecord);
    }
}
