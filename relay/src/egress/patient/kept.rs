//! What is kept of a message that is on its way, to fall back on: slices of the buffers that it arrived in, up to a bound of
//! the worker; beyond it, a draft in the spool.
//!
//! The slices stay in the form they came in; the dots are taken out only where they are needed in plain form. What it must
//! not do: keep more than the bound, or hold a large buffer for the sake of a few octets.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;

use crate::egress::delivery::Beginning;
use crate::io::files::Files;
use crate::limits::{COMMAND_BUFFER_OCTETS, KEPT_OCTETS_MAX, NOTICE_ORIGINAL_OCTETS_MAX};
use crate::smtp::body::{Form, Piece};
use crate::smtp::encode::Unstuffer;
use crate::spool::{Draft, Refusal, Spool};
use crate::units::QueueId;

/// What is kept of one message. Invariant: `cost` is its part of the worker's sum.
pub(super) struct Kept<F: Files> {
    sum: Rc<Cell<usize>>,
    cost: usize,
    slices: Vec<Bytes>,
    unstuffer: Option<Unstuffer>,
    draft: Option<Draft<F>>,
}

impl<F: Files> Kept<F> {
    /// Nothing; counted in the worker's sum.
    pub(super) fn new(sum: Rc<Cell<usize>>) -> Self {
        Self { sum, cost: 0, slices: Vec::new(), unstuffer: None, draft: None }
    }

    /// A message begins that comes in this form.
    pub(super) fn begin(&mut self, form: Form) {
        self.clear();
        self.unstuffer = (form == Form::Stuffed).then(Unstuffer::new);
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.sum.set(self.sum.get() - self.cost);
        self.cost = 0;
        self.slices.clear();
        self.draft = None;
    }

    /// Keeps slices of what has just come. The spool is asked for room where memory has none.
    pub(super) async fn keep(
        &mut self,
        slices: &[Bytes],
        spool: &Spool<F>,
        id: QueueId,
    ) -> Result<(), Refusal> {
        let octets: usize = slices.iter().map(Bytes::len).sum();
        if octets < SMALL_OCTETS && slices.len() < SMALL_OCTETS / size_of::<Bytes>() {
            // A client that sends a little at a time would pin a whole buffer for each bit of it.
            self.gather(slices);
        } else {
            self.slices.extend_from_slice(slices);
            self.charge(octets.max(COMMAND_BUFFER_OCTETS) + size_of_val(slices));
        }
        if self.sum.get() <= KEPT_OCTETS_MAX && self.draft.is_none() {
            return Ok(());
        }
        self.write_out(spool, id).await
    }

    /// Keeps the last slices: no more can come, so that they need not be counted.
    pub(super) fn keep_last(&mut self, slices: &[Bytes]) {
        self.slices.extend_from_slice(slices);
    }

    /// What was kept, in plain form: the end of it, and the draft that holds the beginning, where there is one.
    pub(super) fn take(&mut self) -> (Vec<Bytes>, Option<Draft<F>>) {
        (self.take_slices(), self.draft.take())
    }

    /// The beginning of it in plain form, for a notice; nothing where it was written out.
    pub(super) fn beginning(&self) -> Beginning {
        let mut beginning = Beginning { octets: Vec::new(), is_whole: !self.slices.is_empty() };
        if self.draft.is_some() {
            return Beginning::default();
        }
        let mut unstuffer = self.unstuffer.as_ref().map(|_| Unstuffer::new());
        let mut pieces = Vec::new();
        for slice in &self.slices {
            if beginning.octets.len() > NOTICE_ORIGINAL_OCTETS_MAX {
                beginning.is_whole = false;
                break;
            }
            let Some(unstuffer) = &mut unstuffer else {
                beginning.octets.extend_from_slice(slice);
                continue;
            };
            let mut rest = slice.clone();
            while !rest.is_empty() {
                pieces.clear();
                let taken = unstuffer.unstuff(&rest, &mut pieces);
                for piece in &pieces {
                    beginning.octets.extend_from_slice(match piece {
                        Piece::Input(range) => &rest[range.clone()],
                        Piece::Literal(octets) => octets,
                    });
                }
                rest = rest.split_off(taken);
            }
        }
        beginning
    }

    /// Copies octets behind those copied before.
    fn gather(&mut self, slices: &[Bytes]) {
        let octets: usize = slices.iter().map(Bytes::len).sum();
        let last = self.slices.pop().unwrap_or_default();
        let mut gathered = match last.try_into_mut() {
            Ok(last) if last.capacity() - last.len() >= octets && !last.is_empty() => last,
            last => {
                let last = last.map_or_else(|last| last, bytes::BytesMut::freeze);
                self.slices.extend(Some(last).filter(|last| !last.is_empty()));
                self.charge(COMMAND_BUFFER_OCTETS);
                bytes::BytesMut::with_capacity(COMMAND_BUFFER_OCTETS.max(octets))
            }
        };
        slices.iter().for_each(|slice| gathered.extend_from_slice(slice));
        self.slices.push(gathered.freeze());
    }

    fn charge(&mut self, cost: usize) {
        self.cost += cost;
        self.sum.set(self.sum.get() + cost);
    }

    async fn write_out(&mut self, spool: &Spool<F>, id: QueueId) -> Result<(), Refusal> {
        let slices = self.take_slices();
        let draft = self.draft.get_or_insert_with(|| spool.draft(id));
        draft.write(&slices).await?;
        self.sum.set(self.sum.get() - self.cost);
        self.cost = 0;
        Ok(())
    }

    /// The slices in plain form; the unstuffer stands behind them then.
    fn take_slices(&mut self) -> Vec<Bytes> {
        let slices = std::mem::take(&mut self.slices);
        let Some(unstuffer) = &mut self.unstuffer else { return slices };
        let mut plain = Vec::with_capacity(slices.len());
        let mut pieces = Vec::new();
        for mut slice in slices {
            while !slice.is_empty() {
                pieces.clear();
                let taken = unstuffer.unstuff(&slice, &mut pieces);
                plain.extend(pieces.iter().filter_map(|piece| match piece {
                    Piece::Input(range) => Some(slice.slice(range.clone())),
                    Piece::Literal(octets) => {
                        Some(Bytes::from_static(octets)).filter(|octets| !octets.is_empty())
                    }
                }));
                slice = slice.split_off(taken);
            }
        }
        plain
    }
}

impl<F: Files> Drop for Kept<F> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Fewer octets than this are copied rather than kept in the buffer that they came in.
const SMALL_OCTETS: usize = COMMAND_BUFFER_OCTETS / 2;
