//! The body of a message on its way through the machine: after DATA up to its dot, after BDAT by counted chunks, and
//! what is read only to be thrown away. What the octets mean is the scanner's business; here it is decided what
//! they lead to.

use super::{Answer, Asked, Body, Cost, Ending, Event, Fault, Question, Server, State};
use crate::smtp::body::{BodyScanner, Form, Framing, ScanState};
use crate::smtp::command::Chunk;
use crate::smtp::reply::{self, Reply, ReplyBuf};

impl Server {
    pub(super) fn answer_open(&mut self, answer: Answer, body: Body, out: &mut ReplyBuf) {
        let has_recipients = self.recipients_accepted() > 0;
        match (answer, body) {
            // Whatever the driver says: without a recipient there is no 354 (RFC 5321 §3.3).
            (_, Body::Data) if !has_recipients => out.push(&reply::NO_RECIPIENTS),
            (_, Body::Chunks(chunk)) if !has_recipients => {
                self.begin_swallowing(chunk, reply::NO_RECIPIENTS, Cost::Nothing);
            }
            (Answer::Open(form), Body::Data) => {
                self.open(Framing::Data, form, State::Data);
                out.push(&reply::START_MAIL_INPUT);
            }
            (Answer::Open(form), Body::Chunks(chunk)) => {
                self.open(Framing::Chunks, form, State::Chunk(chunk));
            }
            (other, Body::Data) => {
                self.end_transaction();
                out.push(&other.into_refusal().unwrap_or(reply::LOCAL_ERROR));
            }
            (other, Body::Chunks(chunk)) => {
                self.give_up_chunk(chunk, other.into_refusal().unwrap_or(reply::LOCAL_ERROR));
            }
        }
    }

    fn open(&mut self, framing: Framing, form: Form, state: State) {
        if let Some(transaction) = self.transaction.as_mut() {
            transaction.scanner = Some(BodyScanner::new(framing, form, self.profile.bare_newline));
            self.state = state;
        }
    }

    pub(super) fn read_data(&mut self, input: &[u8], out: &mut ReplyBuf) -> (usize, Option<Event>) {
        let open = self.transaction.as_mut().and_then(|t| Some((t.scanner.as_mut()?, &mut t.verdict)));
        let Some((scanner, verdict)) = open else {
            return (0, Some(self.close(Some(&reply::LOCAL_ERROR), Ending::Fault, out)));
        };
        let scan = scanner.scan(input, &mut self.pieces);
        let fault =
            fault_in(scan.state, self.profile.is_too_big(scanner.size())).filter(|_| verdict.is_none());
        if let Some(fault) = fault {
            self.pieces.clear();
            scanner.discard();
            *verdict = Some(fault.reply());
        }
        let event = if scan.state == ScanState::End {
            self.end_of_data(fault, out)
        } else if let Some(fault) = fault {
            Some(Event::BodyFault(fault))
        } else {
            Some(if self.pieces.is_empty() { Event::NeedInput } else { Event::Body })
        };
        (scan.consumed, event)
    }

    /// The dot came: asks, or says what was decided on the way.
    fn end_of_data(&mut self, fault: Option<Fault>, out: &mut ReplyBuf) -> Option<Event> {
        match self.transaction.as_mut().and_then(|t| t.verdict.take()) {
            Some(verdict) => {
                self.end_message(&verdict, out);
                fault.map(Event::BodyFault)
            }
            None => Some(self.ask(Asked::Message, Question::Message)),
        }
    }

    pub(super) fn read_chunk(
        &mut self,
        chunk: Chunk,
        input: &[u8],
        out: &mut ReplyBuf,
    ) -> (usize, Option<Event>) {
        let Some(scanner) = self.transaction.as_mut().and_then(|t| t.scanner.as_mut()) else {
            return (0, Some(self.close(Some(&reply::LOCAL_ERROR), Ending::Fault, out)));
        };
        let here = usize::try_from(chunk.octets).map_or(input.len(), |left| left.min(input.len()));
        let scan = scanner.scan(&input[..here], &mut self.pieces);
        let rest = Chunk { octets: chunk.octets - scan.consumed as u64, ..chunk };
        let mut state = scan.state;
        if rest.octets == 0 && rest.is_last && state == ScanState::More {
            state = scanner.finish_chunks(&mut self.pieces);
        }
        let fault = fault_in(state, self.profile.is_too_big(scanner.size()));
        if let Some(fault) = fault {
            self.pieces.clear();
            self.give_up_chunk(rest, fault.reply());
            return (scan.consumed, Some(Event::BodyFault(fault)));
        }
        (scan.consumed, self.after_chunk_octets(rest, out))
    }

    /// Octets of a chunk were taken, `rest` is still to come.
    fn after_chunk_octets(&mut self, rest: Chunk, out: &mut ReplyBuf) -> Option<Event> {
        if rest.octets > 0 {
            self.state = State::Chunk(rest);
            return Some(if self.pieces.is_empty() { Event::NeedInput } else { Event::Body });
        }
        if rest.is_last {
            return Some(self.ask(Asked::Message, Question::Message));
        }
        // RFC 3030 §2: each chunk is answered once all of it was read.
        self.state = State::Commands;
        out.push(&reply::OK);
        (!self.pieces.is_empty()).then_some(Event::Body)
    }

    /// The message fails in this chunk: what is left of it is read, then the reply given.
    pub(super) fn give_up_chunk(&mut self, rest: Chunk, reply: Reply) {
        self.end_transaction();
        self.begin_swallowing(rest, reply, Cost::Nothing);
    }

    /// RFC 3030 §2: the octets of a refused chunk are read all the same, and what they say is not looked at.
    pub(super) fn begin_swallowing(&mut self, chunk: Chunk, reply: Reply, cost: Cost) {
        self.has_failed_chunk = !chunk.is_last;
        self.state = State::Swallow { octets: chunk.octets, reply, cost };
    }

    pub(super) fn swallow(
        &mut self,
        octets: u64,
        input: &[u8],
        out: &mut ReplyBuf,
    ) -> (usize, Option<Event>) {
        let here = usize::try_from(octets).map_or(input.len(), |left| left.min(input.len()));
        let left = octets - here as u64;
        match std::mem::replace(&mut self.state, State::Commands) {
            State::Swallow { reply, cost, .. } if left > 0 => {
                self.state = State::Swallow { octets: left, reply, cost };
                (here, Some(Event::NeedInput))
            }
            State::Swallow { reply, cost, .. } => (here, self.say(&reply, cost, out)),
            other => {
                self.state = other;
                (0, Some(Event::NeedInput))
            }
        }
    }
}

/// The first fault of a body. What the scanner found it found behind all octets that it has counted, so a body that is
/// too big by then was too big before: the size goes first, or the verdict would depend on how the input was cut.
fn fault_in(state: ScanState, is_too_big: bool) -> Option<Fault> {
    match state {
        _ if is_too_big => Some(Fault::Size),
        ScanState::Fault(fault) => Some(Fault::from(fault)),
        ScanState::More | ScanState::End => None,
    }
}
