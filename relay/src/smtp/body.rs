//! The body of a message on its way in: finds its end, settles every newline, and says which octets go out.
//!
//! Only CRLF.CRLF ends a body sent after DATA (RFC 5321 §4.1.1.4, §2.3.8; invariant 3). A CR or LF that stands
//! alone is made a CRLF or is a fault; it never ends anything, and a dot next to it is content. What leaves is
//! canonical: every line ends with CRLF, and in [`Form::Stuffed`] no line is a lone dot. That is the whole
//! protection against smuggling, so it knows no exemption for anybody.
//!
//! Theory of operation. The scanner copies nothing. It appends [`Piece`]s: ranges of the input just given, and
//! literals for what is not in it. An octet whose meaning depends on the next one is handled thus:
//! a CR goes out at once, since CRLF follows in any case and only its LF is owed; a dot at the start of a line
//! (and a CR behind it) is held back, and comes out as a literal where the input ended in between. So the state
//! is one octet, and memory is constant whatever the cuts. Three layers:
//!
//! 1. [`BodyScanner::scan`] alternates between long runs and single octets;
//! 2. `clean::clean_until` finds the next octet that is not ordinary text, hundreds of octets at a time;
//! 3. `take` handles one octet: the table of all transitions.
//!
//! It must not parse headers, bound the size (the server machine does) or keep a reference to an input.

mod clean;

use std::ops::Range;

use self::clean::clean_until;
use crate::limits::BODY_PIECES_MAX;

/// How the client marks the end of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// After `DATA`: dot-stuffed, ends with CRLF.CRLF (RFC 5321 §4.5.2).
    Data,
    /// After `BDAT`: counted octets as they are (RFC 3030 §2); somebody else counts them.
    Chunks,
}

/// How the body is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// With a dot before each leading dot, for an upstream's `DATA`; the final `.` CRLF is not part of it.
    Stuffed,
    /// The content itself, for `BDAT`, the spool and rewriting.
    Plain,
}

/// What becomes of a CR or LF that stands alone in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareNewline {
    /// It becomes CRLF.
    Normalize,
    /// The message is refused with `550 5.6.11`.
    Reject,
}

/// A stretch of the outgoing body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// These octets of the input that was given to this very call.
    Input(Range<usize>),
    /// These octets.
    Literal(&'static [u8]),
}

impl Piece {
    /// The octets of the piece, given the input of the call that made it.
    #[must_use]
    pub fn octets<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Input(range) => &input[range.clone()],
            Self::Literal(octets) => octets,
        }
    }

    /// Number of octets.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Input(range) => range.len(),
            Self::Literal(octets) => octets.len(),
        }
    }

    /// Whether there are none. The scanners make no such piece.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Why a body cannot be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFault {
    /// A CR or LF alone, under [`BareNewline::Reject`].
    BareNewline,
    /// A NUL; only BINARYMIME may carry it, which is not offered.
    Nul,
}

/// How far a scan came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanState {
    /// The body goes on: after the input, or, where not all of it was consumed, in the rest of it.
    More,
    /// The body ended with the last consumed octet.
    End,
    /// The body is to be refused. Told once; from here on the scanner makes no pieces and looks for the end.
    Fault(BodyFault),
}

/// The result of one scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan {
    /// Octets of the input that are done with. Fewer than all at the end and at a fault, and where the input
    /// made [`BODY_PIECES_MAX`] pieces: then scan the rest after these pieces are gone.
    pub consumed: usize,
    /// How far it came.
    pub state: ScanState,
}

/// The scanner of one body. See the module for what it promises.
#[derive(Debug, Clone)]
pub struct BodyScanner {
    framing: Framing,
    form: Form,
    bare_newline: BareNewline,
    at: At,
    /// No more pieces are made: after a fault, or because the owner said so.
    discarding: bool,
    has_8bit: bool,
    /// Octets put out.
    octets: u64,
    /// Stuffing dots among them.
    dots: u64,
}

impl BodyScanner {
    /// A scanner at the first octet of a body.
    #[must_use]
    pub fn new(framing: Framing, form: Form, bare_newline: BareNewline) -> Self {
        Self {
            framing,
            form,
            bare_newline,
            at: At::LineStart,
            discarding: false,
            has_8bit: false,
            octets: 0,
            dots: 0,
        }
    }

    /// Looks at the next octets of the body (any cut will do) and appends what goes out to `pieces`: never more
    /// than [`BODY_PIECES_MAX`] of them in one call. The ranges are ranges of `input`.
    pub fn scan(&mut self, input: &[u8], pieces: &mut Vec<Piece>) -> Scan {
        let mut run = Run::new(pieces);
        let mut position = 0;
        let mut careful_until = 0;
        let mut state = ScanState::More;
        while position < input.len() && state == ScanState::More && !run.is_full() {
            if position >= careful_until && position > 0 && self.at.is_settled() {
                let clean = clean_until(input, position);
                self.pass(&input[position..clean.end], clean.has_8bit);
                if clean.end - position < CAREFUL_OCTETS {
                    careful_until = clean.end + CAREFUL_OCTETS;
                }
                position = clean.end;
                if position == input.len() {
                    break;
                }
            }
            state = self.take(input[position], position, &mut run);
            position += 1;
        }
        let held = if state == ScanState::End { END.len() } else { self.at.held() };
        self.flush(&mut run, position.saturating_sub(held));
        Scan { consumed: position, state }
    }

    /// The last chunk is complete ([`Framing::Chunks`]): settles a CR at the very end, and in [`Form::Stuffed`]
    /// ends the last line, which the dot of `DATA` needs (RFC 5321 §4.1.1.4). `End`, or the fault found.
    pub fn finish_chunks(&mut self, pieces: &mut Vec<Piece>) -> ScanState {
        let mut run = Run::new(pieces);
        let mut state = ScanState::End;
        match self.at {
            At::Cr => {
                self.insert(&mut run, 0, b"\n");
                state = self.bare_newline(ScanState::End);
            }
            At::Text if self.form == Form::Stuffed => self.insert(&mut run, 0, b"\r\n"),
            _ => {}
        }
        self.at = At::LineStart;
        state
    }

    /// Makes no more pieces and counts no more: the message is given up, only its end matters. Newlines are
    /// judged no more, the end as strictly as ever.
    pub fn discard(&mut self) {
        self.discarding = true;
    }

    /// Whether the scanner only looks for the end.
    #[must_use]
    pub fn is_discarding(&self) -> bool {
        self.discarding
    }

    /// Octets of content so far: newlines settled, stuffing and the final dot not counted (RFC 1870 §5). Octets
    /// held back are not in it yet; discarded ones never are.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.octets - self.dots
    }

    /// Whether an octet above 127 was seen.
    #[must_use]
    pub fn has_8bit(&self) -> bool {
        self.has_8bit
    }

    /// Passes clean octets as they are; the last one tells where the scanner stands.
    fn pass(&mut self, clean: &[u8], has_8bit: bool) {
        self.has_8bit |= has_8bit;
        self.at = match clean.last() {
            None => self.at,
            Some(b'\r') => At::Cr,
            Some(b'\n') => At::LineStart,
            Some(_) => At::Text,
        };
    }

    /// One octet, at `position` of the input. First what the octets before it left open, then the octet itself.
    fn take(&mut self, octet: u8, position: usize, run: &mut Run<'_>) -> ScanState {
        let mut state = ScanState::More;
        match (self.at, octet) {
            (At::Cr, b'\n') => {
                self.at = At::LineStart;
                return state;
            }
            (At::Dot, b'\r') => {
                self.at = At::DotCr;
                return state;
            }
            (At::DotCr, b'\n') => {
                self.at = At::LineStart;
                return ScanState::End;
            }
            (At::Dot, b'\n') => {
                self.lone_dot(run, position.saturating_sub(1), position + 1);
                self.at = At::MadeLineStart;
                return self.bare_newline(state);
            }
            (At::Cr, _) => {
                self.insert(run, position, b"\n");
                self.at = At::MadeLineStart;
                state = self.bare_newline(state);
            }
            (At::DotCr, _) => {
                self.lone_dot(run, position.saturating_sub(2), position);
                self.at = At::MadeLineStart;
                state = self.bare_newline(state);
            }
            (At::Dot, _) => {
                self.stuffing_dot(run, position);
                self.at = At::Text;
            }
            (At::Text | At::LineStart | At::MadeLineStart, _) => {}
        }
        self.take_settled(octet, position, run, state)
    }

    /// One octet where nothing is left open: in a line, or at the start of one.
    fn take_settled(&mut self, octet: u8, position: usize, run: &mut Run<'_>, state: ScanState) -> ScanState {
        self.has_8bit |= !octet.is_ascii();
        let before = self.at;
        self.at = match octet {
            b'\r' => At::Cr,
            b'\n' => At::MadeLineStart,
            b'.' if before == At::LineStart && self.framing == Framing::Data => At::Dot,
            _ => At::Text,
        };
        match octet {
            b'\n' => {
                self.insert(run, position, b"\r");
                self.bare_newline(state)
            }
            b'.' if before != At::Text && self.at == At::Text => {
                if self.form == Form::Stuffed {
                    self.insert(run, position, b".");
                    self.count_dot();
                }
                state
            }
            0 => {
                self.flush(run, position);
                self.fault(BodyFault::Nul, state)
            }
            _ => state,
        }
    }

    /// The dot held back, with more behind it on its line, is the client's stuffing (RFC 5321 §4.5.2).
    fn stuffing_dot(&mut self, run: &mut Run<'_>, position: usize) {
        match (self.form, position) {
            (Form::Stuffed, 0) => self.insert(run, 0, b"."),
            (Form::Stuffed, _) | (Form::Plain, 0) => {}
            (Form::Plain, _) => {
                self.flush(run, position - 1);
                run.resume(position);
            }
        }
        if self.form == Form::Stuffed {
            self.count_dot();
        }
    }

    /// The dot held back is alone on a line that CRLF began and a bare CR or LF ended: content, never the end.
    fn lone_dot(&mut self, run: &mut Run<'_>, dot: usize, resume: usize) {
        match self.form {
            Form::Stuffed => {
                self.insert(run, dot, b"..\r\n");
                self.count_dot();
            }
            Form::Plain => self.insert(run, dot, b".\r\n"),
        }
        run.resume(resume);
    }

    fn bare_newline(&mut self, otherwise: ScanState) -> ScanState {
        match self.bare_newline {
            BareNewline::Normalize => otherwise,
            BareNewline::Reject => self.fault(BodyFault::BareNewline, otherwise),
        }
    }

    /// The first fault counts, and is told once.
    fn fault(&mut self, fault: BodyFault, otherwise: ScanState) -> ScanState {
        if self.discarding {
            return otherwise;
        }
        self.discarding = true;
        ScanState::Fault(fault)
    }

    /// Puts `literal` between the octets before `position` and those from it on.
    fn insert(&mut self, run: &mut Run<'_>, position: usize, literal: &'static [u8]) {
        self.flush(run, position);
        if !self.discarding {
            self.octets += literal.len() as u64;
            run.pieces.push(Piece::Literal(literal));
        }
    }

    /// Puts out the input up to `position`.
    fn flush(&mut self, run: &mut Run<'_>, position: usize) {
        let range = run.start..position;
        if !range.is_empty() && !self.discarding {
            self.octets += range.len() as u64;
            run.pieces.push(Piece::Input(range));
        }
        run.resume(position);
    }

    fn count_dot(&mut self) {
        if !self.discarding {
            self.dots += 1;
        }
    }
}

/// What the octets so far left open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Nothing: in a line.
    Text,
    /// A CR went out; LF is owed.
    Cr,
    /// A line begins, after CRLF or at the beginning: a dot may be stuffing, or the end.
    LineStart,
    /// A line begins, made so from a bare CR or LF: a dot is content.
    MadeLineStart,
    /// A dot at a `LineStart` is held back.
    Dot,
    /// A CR behind that dot, too.
    DotCr,
}

impl At {
    /// Whether the octet before tells all there is to know, so that pairs of octets can be judged.
    fn is_settled(self) -> bool {
        self.held() == 0
    }

    /// Octets held back.
    fn held(self) -> usize {
        match self {
            Self::Dot => 1,
            Self::DotCr => 2,
            Self::Text | Self::Cr | Self::LineStart | Self::MadeLineStart => 0,
        }
    }
}

/// The pieces of one scan, and the input that is to go out as it is but is not among them yet.
struct Run<'a> {
    pieces: &'a mut Vec<Piece>,
    pieces_max: usize,
    start: usize,
}

impl<'a> Run<'a> {
    fn new(pieces: &'a mut Vec<Piece>) -> Self {
        let pieces_max = pieces.len() + BODY_PIECES_MAX - PIECES_PER_OCTET_MAX;
        Self { pieces, pieces_max, start: 0 }
    }

    fn resume(&mut self, position: usize) {
        self.start = self.start.max(position);
    }

    fn is_full(&self) -> bool {
        self.pieces.len() > self.pieces_max
    }
}

const END: &[u8] = b".\r\n";
/// Octets taken singly after a run shorter than this, so that odd octets in a row do not each cost a search.
const CAREFUL_OCTETS: usize = 16;
/// Pieces that one octet can make, the rest of the input included.
const PIECES_PER_OCTET_MAX: usize = 4;
const _: () = assert!(PIECES_PER_OCTET_MAX < BODY_PIECES_MAX);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DATA: Framing = Framing::Data;
    const CHUNKS: Framing = Framing::Chunks;

    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Outcome {
        body: Vec<u8>,
        /// Octets consumed where the end was found.
        end: Option<usize>,
        fault: Option<BodyFault>,
        size: u64,
        has_8bit: bool,
    }

    /// Drives the scanner over the input cut at `cuts`.
    fn scan(framing: Framing, form: Form, bare: BareNewline, input: &[u8], cuts: &[usize]) -> Outcome {
        let mut scanner = BodyScanner::new(framing, form, bare);
        let mut outcome = Outcome { body: vec![], end: None, fault: None, size: 0, has_8bit: false };
        let mut start = 0;
        let ends = cuts.iter().copied().chain([input.len()]);
        'cuts: for end in ends {
            loop {
                let mut pieces = vec![];
                let part = &input[start..end];
                let scan = scanner.scan(part, &mut pieces);
                assert!(pieces.len() <= BODY_PIECES_MAX);
                for piece in &pieces {
                    assert!(!piece.is_empty());
                    outcome.body.extend_from_slice(piece.octets(part));
                }
                start += scan.consumed;
                match scan.state {
                    ScanState::End => {
                        outcome.end = Some(start);
                        break 'cuts;
                    }
                    ScanState::Fault(fault) => {
                        assert_eq!(outcome.fault.replace(fault), None, "a fault is told once");
                    }
                    ScanState::More => {}
                }
                if start == end {
                    break;
                }
            }
        }
        if framing == CHUNKS {
            let mut pieces = vec![];
            if let ScanState::Fault(fault) = scanner.finish_chunks(&mut pieces) {
                assert_eq!(outcome.fault.replace(fault), None, "a fault is told once");
            }
            pieces.iter().for_each(|piece| outcome.body.extend_from_slice(piece.octets(b"")));
        }
        outcome.size = scanner.size();
        outcome.has_8bit = scanner.has_8bit();
        outcome
    }

    fn whole(framing: Framing, form: Form, input: &[u8]) -> Outcome {
        scan(framing, form, BareNewline::Normalize, input, &[])
    }

    /// What a body means, for the oracle.
    #[derive(Default)]
    struct Naive {
        /// Each line, and whether a dot of the client's stuffing stood before it.
        lines: Vec<(Vec<u8>, bool)>,
        /// The last line has no newline (chunks).
        open: bool,
        bare: bool,
        end: Option<usize>,
    }

    /// The oracle: the whole body in hand, line by line.
    fn naive(framing: Framing, input: &[u8]) -> Naive {
        let (mut naive, mut at, mut after_crlf) = (Naive::default(), 0, framing == DATA);
        while at < input.len() {
            if after_crlf && input[at..].starts_with(b".\r\n") {
                naive.end = Some(at + 3);
                break;
            }
            let length = input[at..].iter().position(|o| b"\r\n".contains(o)).unwrap_or(input.len() - at);
            let (line, rest) = input[at..].split_at(length);
            let newline = if rest.starts_with(b"\r\n") { 2 } else { rest.len().min(1) };
            let stuffed = after_crlf && line.starts_with(b".") && line.len() > 1;
            naive.lines.push((line[usize::from(stuffed)..].to_vec(), stuffed));
            naive.open = newline == 0;
            naive.bare |= newline == 1;
            after_crlf = framing == DATA && newline == 2;
            at += length + newline;
        }
        naive
    }

    impl Naive {
        fn stuffed(&self) -> Vec<u8> {
            let dot = |line: &[u8], stuffed| if stuffed || line.starts_with(b".") { &b"."[..] } else { b"" };
            self.lines
                .iter()
                .flat_map(|(line, stuffed)| [dot(line, *stuffed), line, b"\r\n"].concat())
                .collect()
        }

        fn plain(&self) -> Vec<u8> {
            self.lines.iter().flat_map(|(line, _)| [line, &b"\r\n"[..]].concat()).collect()
        }
    }

    /// I3 as seen by the upstream: no bare CR or LF, no line that is a lone dot.
    fn assert_canonical(stuffed: &[u8]) {
        for (at, &octet) in stuffed.iter().enumerate() {
            match octet {
                b'\n' => assert!(at > 0 && stuffed[at - 1] == b'\r', "bare LF at {at}"),
                b'\r' => assert_eq!(stuffed.get(at + 1), Some(&b'\n'), "bare CR at {at}"),
                _ => {}
            }
        }
        assert!(!stuffed.split(|&o| o == b'\n').any(|line| line == b".\r"), "a lone dot");
    }

    /// Rows A1, A3, A9 of the attack catalogue: input behind `x`, the lines that it must become.
    #[test]
    fn no_newline_but_crlf_ends_a_body() {
        let table: &[(&[u8], &[u8])] = &[
            (b"x\n.\n", b"x\r\n..\r\n"),
            (b"x\n.\r\n", b"x\r\n..\r\n"),
            (b"x\r\n.\n", b"x\r\n..\r\n"),
            (b"x\n.\rz\r\n", b"x\r\n..\r\nz\r\n"),
            (b"x\r.\rz\r\n", b"x\r\n..\r\nz\r\n"),
            (b"x\r.\n", b"x\r\n..\r\n"),
            (b"x\r.\r\n", b"x\r\n..\r\n"),
            (b"x\r\n.\rz\r\n", b"x\r\n..\r\nz\r\n"),
            (b"x\r\r\n", b"x\r\n\r\n"),
            (b"x\r\n.\r\r\n", b"x\r\n..\r\n\r\n"),
            (b"x\n..\r\n", b"x\r\n...\r\n"),
            (b"x\r..\r\n", b"x\r\n...\r\n"),
            (b"x\r\n..\r\n", b"x\r\n..\r\n"),
            (b"x\r\n...\r\n", b"x\r\n...\r\n"),
            (b"x\r\n.y\r\n", b"x\r\n.y\r\n"),
            (b"x\r\n..\n", b"x\r\n..\r\n"),
            (b"..\r\n", b"..\r\n"),
            (b".\n", b"..\r\n"),
            (b".\rx\r\n", b"..\r\nx\r\n"),
            (
                b"x\n.\nMAIL FROM:<evil@x>\r\nRCPT TO:<y@z>\r\nDATA\r\n",
                b"x\r\n..\r\nMAIL FROM:<evil@x>\r\nRCPT TO:<y@z>\r\nDATA\r\n",
            ),
            (b"From x y\r\n>From z\r\n", b"From x y\r\n>From z\r\n"),
            (b"", b""),
        ];
        for (body, expected) in table {
            let input = [body, &b"z\r\n.\r\nQUIT\r\n"[..]].concat();
            let expected = [expected, &b"z\r\n"[..]].concat();
            for cut in 0..=input.len() {
                let outcome = scan(DATA, Form::Stuffed, BareNewline::Normalize, &input, &[cut]);
                assert_eq!(outcome.body.escape_ascii().to_string(), expected.escape_ascii().to_string());
                assert_eq!(outcome.end, Some(body.len() + 6), "the pipelined QUIT is not consumed");
                let outcome = scan(DATA, Form::Stuffed, BareNewline::Reject, &input, &[cut]);
                assert_eq!(outcome.end, Some(body.len() + 6), "a refused body ends where any other does");
            }
            assert_canonical(&expected);
        }
    }

    #[test]
    fn double_cr_before_the_dot_is_an_end() {
        // CR CRLF . CR CRLF has no CRLF.CRLF; the CRLF.CRLF behind it has.
        let outcome = whole(DATA, Form::Stuffed, b"x\r\r\n.\r\r\n.\r\n");
        assert_eq!(outcome.body, b"x\r\n\r\n..\r\n\r\n");
        assert_eq!(outcome.end, Some(11));
    }

    #[test]
    fn refuses_bare_lf_inside_data() {
        let reject = |input: &[u8]| scan(DATA, Form::Stuffed, BareNewline::Reject, input, &[]).fault;
        assert_eq!(reject(b"a\nb\r\n.\r\n"), Some(BodyFault::BareNewline));
        assert_eq!(reject(b"a\rb\r\n.\r\n"), Some(BodyFault::BareNewline));
        assert_eq!(reject(b"a\r\n.\nb\r\n.\r\n"), Some(BodyFault::BareNewline));
        assert_eq!(reject(b"a\r\nb\r\n.\r\n"), None);
        let chunk = scan(CHUNKS, Form::Plain, BareNewline::Reject, b"a\r", &[]);
        assert_eq!(chunk.fault, Some(BodyFault::BareNewline));
    }

    #[test]
    fn refuses_nul_and_never_ends_there() {
        for body in [&b"x\r\n\0.\r\n"[..], b"x\r\n.\0\r\n", b"\0", b"x\0y\r\n"] {
            let input = [body, &b"\r\n.\r\n"[..]].concat();
            let outcome = whole(DATA, Form::Stuffed, &input);
            assert_eq!(outcome.fault, Some(BodyFault::Nul));
            assert_eq!(outcome.end, Some(input.len()));
        }
    }

    #[test]
    fn chunks_are_stuffed_for_data_whatever_the_cut() {
        let input = b".a\r\n.\r\nMAIL FROM:<evil@x>\r\n..b";
        for cut in 0..=input.len() {
            let stuffed = scan(CHUNKS, Form::Stuffed, BareNewline::Normalize, input, &[cut]);
            assert_eq!(stuffed.body, b"..a\r\n..\r\nMAIL FROM:<evil@x>\r\n...b\r\n");
            assert_eq!(stuffed.size, input.len() as u64 + 2);
            let plain = scan(CHUNKS, Form::Plain, BareNewline::Normalize, input, &[cut]);
            assert_eq!(plain.body, input);
        }
    }

    #[test]
    fn a_discarded_body_makes_no_pieces_and_still_ends_strictly() {
        let mut scanner = BodyScanner::new(DATA, Form::Stuffed, BareNewline::Reject);
        scanner.discard();
        let mut pieces = vec![];
        let scan = scanner.scan(b"a\n.\n\0\r\n.\r\nQUIT", &mut pieces);
        assert_eq!(scan, Scan { consumed: 10, state: ScanState::End });
        assert_eq!((pieces.len(), scanner.size()), (0, 0));
    }

    #[test]
    fn ordinary_text_is_one_piece() {
        let body = b"An ordinary line of text, as it stands in most of the messages we see.\r\n".repeat(100);
        let input = [&body[..], b".\r\n"].concat();
        let mut pieces = vec![];
        BodyScanner::new(DATA, Form::Stuffed, BareNewline::Reject).scan(&input, &mut pieces);
        assert_eq!(pieces, [Piece::Input(0..body.len())]);
    }

    #[test]
    fn pieces_of_one_scan_are_bounded() {
        let input = b"\n".repeat(10 * BODY_PIECES_MAX);
        let outcome = whole(DATA, Form::Stuffed, &input);
        assert_eq!(outcome.body, b"\r\n".repeat(10 * BODY_PIECES_MAX));
    }

    #[test]
    fn sees_8bit_octets_of_the_body_only() {
        let text = b"x".repeat(300);
        for (before, after, seen) in [("é", "", true), ("", "é", false)] {
            let input = [before.as_bytes(), &text, b"\r\n.\r\n", &text, after.as_bytes()].concat();
            assert_eq!(whole(DATA, Form::Plain, &input).has_8bit, seen);
        }
    }

    /// Octets where everything happens at newlines and dots, with long clean stretches between.
    fn body() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            8 => prop::sample::select(vec!["\r\n", "\r", "\n", ".", "..", ".\r\n", "\r\n.", "a"]).prop_map(|s| s.as_bytes().to_vec()),
            2 => (1..400usize).prop_map(|length| vec![b'x'; length]),
            2 => (1..200usize).prop_map(|length| [&vec![b'y'; length][..], b"\r\n"].concat()),
            1 => Just("ü".as_bytes().to_vec()),
        ];
        prop::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
    }

    fn cuts(length: usize) -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(0..=length, 0..12).prop_map(|mut cuts| {
            cuts.sort_unstable();
            cuts
        })
    }

    fn body_and_cuts() -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
        body().prop_flat_map(|body| {
            let length = body.len();
            (Just(body), cuts(length))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn data_agrees_with_the_naive_reading((body, cuts) in body_and_cuts()) {
            let input = [&body[..], b"\r\n.\r\n"].concat();
            let naive = naive(DATA, &input);
            let has_8bit = !input[..naive.end.unwrap_or(0)].is_ascii();
            for (form, expected) in [(Form::Stuffed, naive.stuffed()), (Form::Plain, naive.plain())] {
                let outcome = scan(DATA, form, BareNewline::Normalize, &input, &cuts);
                let size = naive.plain().len() as u64;
                prop_assert_eq!(&outcome.body, &expected);
                prop_assert_eq!((outcome.end, outcome.fault, outcome.size), (naive.end, None, size));
                prop_assert_eq!(outcome.has_8bit, has_8bit);
            }
            assert_canonical(&naive.stuffed());
            let rejected = scan(DATA, Form::Stuffed, BareNewline::Reject, &input, &cuts);
            prop_assert_eq!((rejected.end, rejected.fault.is_some()), (naive.end, naive.bare));
        }

        #[test]
        fn chunks_agree_with_the_naive_reading((input, cuts) in body_and_cuts()) {
            let naive = naive(CHUNKS, &input);
            let stuffed = scan(CHUNKS, Form::Stuffed, BareNewline::Normalize, &input, &cuts);
            prop_assert_eq!(&stuffed.body, &naive.stuffed());
            assert_canonical(&stuffed.body);
            let mut plain = naive.plain();
            prop_assert_eq!(stuffed.size, plain.len() as u64);
            plain.truncate(plain.len() - if naive.open { 2 } else { 0 });
            let outcome = scan(CHUNKS, Form::Plain, BareNewline::Normalize, &input, &cuts);
            prop_assert_eq!((&outcome.body, outcome.size), (&plain, plain.len() as u64));
            let rejected = scan(CHUNKS, Form::Plain, BareNewline::Reject, &input, &cuts);
            prop_assert_eq!(rejected.fault.is_some(), naive.bare);
        }

        #[test]
        fn any_octets_are_handled_the_same_whatever_the_cuts(input in prop::collection::vec(prop::sample::select(vec![b'\r', b'\n', b'.', 0, b'a', 0xe9]), 0..40), seed in any::<[prop::sample::Index; 6]>()) {
            let mut cuts: Vec<_> = seed.iter().map(|index| index.index(input.len() + 1)).collect();
            cuts.sort_unstable();
            for framing in [DATA, CHUNKS] {
                for form in [Form::Stuffed, Form::Plain] {
                    for bare in [BareNewline::Normalize, BareNewline::Reject] {
                        let whole = scan(framing, form, bare, &input, &[]);
                        let cut = scan(framing, form, bare, &input, &cuts);
                        if whole.fault.is_none() {
                            prop_assert_eq!(whole, cut);
                        } else {
                            prop_assert_eq!((whole.end, whole.fault), (cut.end, cut.fault));
                        }
                    }
                }
            }
        }
    }
}
