//! From one form of a body to the other, for a connection that wants it otherwise than it is kept.
//!
//! The input is what [`super::body::BodyScanner`] put out: canonical, every newline a CRLF. That is why looking
//! for LF and dot is enough here, and why this must never be given octets of a client. Like the scanner these
//! copy nothing and make [`Piece`]s over one slice at a time, any cut of the body will do, and one call makes at
//! most [`BODY_PIECES_MAX`] of them (RFC 5321 §4.5.2).

use memchr::memmem;

use super::body::Piece;
use crate::limits::BODY_PIECES_MAX;

/// From `Form::Plain` to `Form::Stuffed`: a dot before each leading dot.
#[derive(Debug, Clone)]
pub struct Stuffer {
    at_line_start: bool,
}

impl Default for Stuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Stuffer {
    /// At the first octet of a body.
    #[must_use]
    pub fn new() -> Self {
        Self { at_line_start: true }
    }

    /// Appends the pieces of the next octets. Returns how many octets it took: all, or fewer where they made
    /// [`BODY_PIECES_MAX`] pieces; then give the rest once these are gone.
    pub fn stuff(&mut self, octets: &[u8], pieces: &mut Vec<Piece>) -> usize {
        let mut run = Run::new(pieces);
        for dot in leading_dots(octets, self.at_line_start) {
            run.flush(dot);
            if run.is_full() {
                self.at_line_start = true;
                return dot;
            }
            run.pieces.push(Piece::Literal(b"."));
        }
        run.flush(octets.len());
        self.at_line_start = ends_line(octets, self.at_line_start);
        octets.len()
    }

    /// The body is complete: ends its last line, where that has no CRLF, so that the final dot can follow.
    pub fn finish(&mut self, pieces: &mut Vec<Piece>) {
        if !self.at_line_start {
            pieces.push(Piece::Literal(b"\r\n"));
        }
        self.at_line_start = true;
    }
}

/// From `Form::Stuffed` to `Form::Plain`: each leading dot goes.
#[derive(Debug, Clone)]
pub struct Unstuffer {
    at_line_start: bool,
}

impl Default for Unstuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl Unstuffer {
    /// At the first octet of a body.
    #[must_use]
    pub fn new() -> Self {
        Self { at_line_start: true }
    }

    /// Appends the pieces of the next octets, the final dot not among them. Returns how many octets it took, as
    /// [`Stuffer::stuff`] does.
    pub fn unstuff(&mut self, octets: &[u8], pieces: &mut Vec<Piece>) -> usize {
        let mut run = Run::new(pieces);
        for dot in leading_dots(octets, self.at_line_start) {
            run.flush(dot);
            run.start = dot + 1;
            if run.is_full() {
                self.at_line_start = false;
                return dot + 1;
            }
        }
        run.flush(octets.len());
        self.at_line_start = ends_line(octets, self.at_line_start);
        octets.len()
    }
}

/// Where a line begins with a dot, in order.
fn leading_dots(octets: &[u8], at_line_start: bool) -> impl Iterator<Item = usize> {
    let first = (at_line_start && octets.first() == Some(&b'.')).then_some(0);
    first.into_iter().chain(memmem::find_iter(octets, b"\n.").map(|newline| newline + 1))
}

fn ends_line(octets: &[u8], before: bool) -> bool {
    octets.last().map_or(before, |&last| last == b'\n')
}

/// The pieces of one call, and where the octets begin that are not among them yet.
struct Run<'a> {
    pieces: &'a mut Vec<Piece>,
    pieces_max: usize,
    start: usize,
}

impl<'a> Run<'a> {
    fn new(pieces: &'a mut Vec<Piece>) -> Self {
        let pieces_max = pieces.len() + BODY_PIECES_MAX;
        Self { pieces, pieces_max, start: 0 }
    }

    fn flush(&mut self, end: usize) {
        if self.start < end {
            self.pieces.push(Piece::Input(self.start..end));
        }
        self.start = end;
    }

    /// Whether a literal and the rest of the octets would be too many.
    fn is_full(&self) -> bool {
        self.pieces.len() + 2 > self.pieces_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::body::{BareNewline, BodyScanner, Form, Framing};
    use proptest::prelude::*;

    /// Applies a coder to the slices between the cuts.
    fn apply(body: &[u8], cuts: &[usize], mut coder: impl FnMut(&[u8], &mut Vec<Piece>) -> usize) -> Vec<u8> {
        let (mut out, mut start) = (vec![], 0);
        for end in cuts.iter().copied().chain([body.len()]) {
            while start < end {
                let mut pieces = vec![];
                let taken = coder(&body[start..end], &mut pieces);
                assert!(pieces.len() <= BODY_PIECES_MAX && taken > 0);
                pieces.iter().for_each(|piece| out.extend_from_slice(piece.octets(&body[start..end])));
                start += taken;
            }
        }
        out
    }

    fn stuffed(body: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut stuffer = Stuffer::new();
        let mut out = apply(body, cuts, |octets, pieces| stuffer.stuff(octets, pieces));
        let mut pieces = vec![];
        stuffer.finish(&mut pieces);
        pieces.iter().for_each(|piece| out.extend_from_slice(piece.octets(b"")));
        out
    }

    fn unstuffed(body: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut unstuffer = Unstuffer::new();
        apply(body, cuts, |octets, pieces| unstuffer.unstuff(octets, pieces))
    }

    fn scanned(input: &[u8], form: Form) -> Vec<u8> {
        let mut scanner = BodyScanner::new(Framing::Chunks, form, BareNewline::Normalize);
        let mut out = apply(input, &[], |octets, pieces| scanner.scan(octets, pieces).consumed);
        let mut pieces = vec![];
        scanner.finish_chunks(&mut pieces);
        pieces.iter().for_each(|piece| out.extend_from_slice(piece.octets(b"")));
        out
    }

    #[test]
    fn dots_at_line_starts_and_nowhere_else() {
        let plain = b".\r\n..\r\na.b\r\n\r\n.c";
        let wire = b"..\r\n...\r\na.b\r\n\r\n..c\r\n";
        for cut in 0..=plain.len() {
            assert_eq!(stuffed(plain, &[cut]), wire);
        }
        for cut in 0..=wire.len() {
            assert_eq!(unstuffed(wire, &[cut]), [&plain[..], b"\r\n"].concat());
        }
        assert_eq!(stuffed(b"", &[]), b"");
    }

    #[test]
    fn many_dots_come_in_bounded_portions() {
        let plain = b".\r\n".repeat(3 * BODY_PIECES_MAX);
        let wire = b"..\r\n".repeat(3 * BODY_PIECES_MAX);
        assert_eq!(stuffed(&plain, &[]), wire);
        assert_eq!(unstuffed(&wire, &[]), plain);
    }

    proptest! {
        #[test]
        fn agrees_with_the_scanner_and_returns(
            parts in prop::collection::vec(prop::sample::select(vec!["\r\n", ".", "..", "a", "\n", "\r"]), 0..40),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let input = parts.concat().into_bytes();
            let (plain, wire) = (scanned(&input, Form::Plain), scanned(&input, Form::Stuffed));
            let cuts_of = |body: &[u8]| {
                let mut at: Vec<_> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
                at.sort_unstable();
                at
            };
            prop_assert_eq!(&stuffed(&plain, &cuts_of(&plain)), &wire);
            let back = unstuffed(&wire, &cuts_of(&wire));
            prop_assert!(back == plain || back == [&plain[..], b"\r\n"].concat());
        }
    }
}
