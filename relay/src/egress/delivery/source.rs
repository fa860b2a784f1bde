//! The body of a queued message on its way out: from memory where it is fresh, else from the disk, chunk by chunk; and in
//! the form that the upstream takes.

use bytes::Bytes;

use crate::io::Flight;
use crate::io::files::Files;
use crate::smtp::body::{Form, Piece};
use crate::smtp::encode::Stuffer;
use crate::spool::{Body, ReadFault};

/// Where a body comes from.
pub(super) enum Source<F: Files> {
    Memory(Vec<Bytes>),
    Disk(Body<F>),
}

/// A body in the form that the upstream takes.
pub(super) struct Outgoing<F: Files> {
    source: Source<F>,
    stuffer: Option<Stuffer>,
    pieces: Vec<Piece>,
    /// What of the last chunk is not stuffed yet.
    rest: Bytes,
    pub(super) has_8bit: bool,
}

impl<F: Files> Source<F> {
    /// All of it, for what is known to be small.
    pub(super) async fn whole(mut self) -> Result<Vec<Bytes>, ReadFault> {
        let mut slices = Vec::new();
        while let Some(mut more) = self.next().await? {
            slices.append(&mut more);
        }
        Ok(slices)
    }

    /// The next octets; `None` at the end.
    async fn next(&mut self) -> Result<Option<Vec<Bytes>>, ReadFault> {
        match self {
            Self::Memory(slices) if slices.is_empty() => Ok(None),
            Self::Memory(slices) => Ok(Some(std::mem::take(slices))),
            Self::Disk(body) => Ok(body.next().await?.map(|chunk| vec![chunk])),
        }
    }
}

impl<F: Files> Outgoing<F> {
    pub(super) fn new(source: Source<F>, form: Form) -> Self {
        let stuffer = (form == Form::Stuffed).then(Stuffer::new);
        Self { source, stuffer, pieces: Vec::new(), rest: Bytes::new(), has_8bit: false }
    }

    /// The next flight; whether it is the last, which may be empty.
    pub(super) async fn next(&mut self, flight: &mut Flight) -> Result<Last, ReadFault> {
        while self.rest.is_empty() {
            let Some(slices) = self.source.next().await? else {
                self.end(flight);
                return Ok(Last::Yes);
            };
            self.has_8bit |= slices.iter().any(|slice| !slice.is_ascii());
            let mut slices = slices.into_iter();
            while let Some(slice) = slices.next() {
                self.put(slice, flight);
                if !self.rest.is_empty() {
                    // Many dots: the flight is full of pieces, and the slices wait for the next one.
                    self.wait(slices.collect());
                    return Ok(Last::No);
                }
            }
            if !flight.is_empty() && self.is_more_to_come() {
                return Ok(Last::No);
            }
        }
        let rest = std::mem::take(&mut self.rest);
        self.put(rest, flight);
        Ok(Last::No)
    }

    /// Whether the end is not known yet.
    fn is_more_to_come(&self) -> bool {
        matches!(&self.source, Source::Disk(body) if !body.is_at_end()) || !self.rest.is_empty()
    }

    /// Puts slices back in front of the source.
    fn wait(&mut self, slices: Vec<Bytes>) {
        if let Source::Memory(waiting) = &mut self.source {
            *waiting = slices;
        }
    }

    fn put(&mut self, mut slice: Bytes, flight: &mut Flight) {
        let Some(stuffer) = &mut self.stuffer else { return flight.push(slice) };
        self.pieces.clear();
        let taken = stuffer.stuff(&slice, &mut self.pieces);
        push_pieces(&self.pieces, &slice, flight);
        self.rest = slice.split_off(taken);
    }

    fn end(&mut self, flight: &mut Flight) {
        if let Some(stuffer) = &mut self.stuffer {
            self.pieces.clear();
            stuffer.finish(&mut self.pieces);
            push_pieces(&self.pieces, &Bytes::new(), flight);
        }
    }
}

/// Whether a flight is the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Yes,
    No,
}

fn push_pieces(pieces: &[Piece], slice: &Bytes, flight: &mut Flight) {
    for piece in pieces {
        match piece {
            Piece::Input(range) => flight.push(slice.slice(range.clone())),
            Piece::Literal(octets) => flight.push_static(octets),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;
    use proptest::prelude::*;

    use super::*;
    use crate::io::files::blocking::BlockingFiles;

    fn put_out(slices: &[Vec<u8>], form: Form) -> Vec<u8> {
        let slices = slices.iter().filter(|slice| !slice.is_empty()).cloned().map(Bytes::from).collect();
        let mut outgoing = Outgoing::<BlockingFiles>::new(Source::Memory(slices), form);
        let mut out = Vec::new();
        loop {
            let mut flight = Flight::default();
            let last = block_on(outgoing.next(&mut flight)).unwrap();
            flight.remaining().for_each(|octets| out.extend_from_slice(octets));
            if last == Last::Yes {
                return out;
            }
        }
    }

    proptest! {
        #[test]
        fn every_octet_goes_out_in_either_form(
            lines in prop::collection::vec("\\.{0,3}[a-z]{0,5}", 0..3000), cut in 1usize..5000,
        ) {
            let plain: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\r\n").into_bytes()).collect();
            let stuffed: Vec<u8> = lines.iter().flat_map(|line| {
                let dot = if line.starts_with('.') { "." } else { "" };
                format!("{dot}{line}\r\n").into_bytes()
            }).collect();
            let slices: Vec<Vec<u8>> = plain.chunks(cut).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(put_out(&slices, Form::Plain), plain);
            prop_assert_eq!(put_out(&slices, Form::Stuffed), stuffed);
        }
    }

    #[test]
    fn the_last_line_is_ended_for_the_dot_and_only_for_it() {
        assert_eq!(put_out(&[b"x".to_vec()], Form::Stuffed), b"x\r\n");
        assert_eq!(put_out(&[b"x".to_vec()], Form::Plain), b"x");
    }
}
