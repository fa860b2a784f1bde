//! Walks over the records of one file. Trusts checksums, epoch and position, and nothing else.
//!
//! Batches begin at whole blocks. Where something is not a record the walk goes on at the next block, so that a damaged
//! record costs itself and what shares its batch behind it, never the rest of the segment. A write that a crash has torn
//! looks the same; what is whole in it was sent whole, only nobody was told.

use std::ops::Range;

use super::record::{Flaw, HEADER_OCTETS, Header, Site};
use crate::io::files::{Aligned, BLOCK_OCTETS, File};
use crate::units::QueueId;

/// What the walk comes across.
#[derive(Debug)]
pub(super) enum Step {
    /// A record, and where its payload stands in [`Scanner::octets`].
    Record { header: Header, offset: u64, payload: Range<usize> },
    /// Octets between records, or before the end, that are none.
    Damage(Damage),
}

/// Octets that should be records and are not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The segment's number; `u32::MAX` for an archive file.
    pub segment: u32,
    /// From here.
    pub from: u64,
    /// To here, whole blocks.
    pub to: u64,
    /// The message that the record was about, where its header can still be read.
    pub id: Option<QueueId>,
}

/// A record of a format that this program does not know: the walk ends here.
#[derive(Debug)]
pub(super) struct Newer(pub(super) u16);

/// Octets that are read at once.
const WINDOW_OCTETS: usize = 1024 * 1024;
/// A file without a record in so many octets from the start was never written to.
const VACANT_OCTETS: u64 = 8 * 1024 * 1024;

/// A walk over one file.
#[derive(Debug)]
pub(super) struct Scanner<'f, T: File> {
    file: &'f T,
    base: Site,
    end: u64,
    at: u64,
    window: Aligned,
    /// Where the window stands in the file.
    window_at: u64,
    /// Where what is not a record began.
    flawed: Option<Damage>,
    /// Whether there was a record at all.
    found_any: bool,
    /// Blocks that the disk could not read.
    pub(super) unreadable: u64,
}

impl<'f, T: File> Scanner<'f, T> {
    /// A walk over the records of this segment and epoch, from an offset to the end of the file. The window is lent, to be
    /// had back by [`Self::into_window`].
    pub(super) fn new(file: &'f T, base: Site, end: u64, mut window: Aligned) -> Self {
        window.clear();
        Self {
            file,
            at: base.offset,
            base,
            end,
            window,
            window_at: 0,
            flawed: None,
            found_any: false,
            unreadable: 0,
        }
    }

    pub(super) fn into_window(self) -> Aligned {
        self.window
    }

    /// The octets that a step's ranges are about.
    pub(super) fn octets(&self) -> &[u8] {
        &self.window
    }

    /// The next record, or damage before it; `None` at the end. Octets behind the last record are not reported unless
    /// they hold a record's header: a blank tail is no damage.
    pub(super) async fn next(&mut self) -> Result<Option<Step>, Newer> {
        while self.at + HEADER_OCTETS as u64 <= self.end {
            if !self.found_any && self.at >= self.base.offset + VACANT_OCTETS {
                break;
            }
            match self.judge().await? {
                Ok((header, payload)) => {
                    if let Some(damage) = self.flawed.take() {
                        return Ok(Some(Step::Damage(Damage { to: self.at, ..damage })));
                    }
                    let offset = self.at;
                    self.at += header.record_octets() as u64;
                    self.found_any = true;
                    return Ok(Some(Step::Record { header, offset, payload }));
                }
                Err(flaw) => self.pass(flaw),
            }
        }
        let tail = self.flawed.take().filter(|damage| damage.id.is_some());
        Ok(tail.map(|damage| Step::Damage(Damage { to: self.end, ..damage })))
    }

    /// Goes on at the next block after something that is not a record.
    fn pass(&mut self, id: Option<QueueId>) {
        let block = BLOCK_OCTETS as u64;
        let is_padding = !self.at.is_multiple_of(block) && id.is_none() && self.is_blank();
        if !is_padding {
            let from = self.at;
            let damage = self.flawed.get_or_insert(Damage { segment: self.base.segment, from, to: from, id });
            damage.id = damage.id.or(id);
        }
        self.at = (self.at + 1).next_multiple_of(block);
    }

    fn is_blank(&self) -> bool {
        let start = usize::try_from(self.at - self.window_at).unwrap_or(usize::MAX);
        self.window.get(start..start + 4).is_some_and(|octets| octets == [0; 4])
    }

    /// What stands here: a record of this epoch with its payload's range, or else whose it might have been.
    async fn judge(&mut self) -> Result<Result<(Header, Range<usize>), Option<QueueId>>, Newer> {
        let start = self.have(HEADER_OCTETS).await?;
        let Some(head) = self.window[start..].first_chunk() else { return Ok(Err(None)) };
        let (header, site) = match Header::decode(head) {
            Ok(found) => found,
            Err(Flaw::Newer(format)) => return Err(Newer(format)),
            Err(Flaw::Blank | Flaw::Damaged) => return Ok(Err(None)),
        };
        if site != (Site { offset: self.at, ..self.base }) {
            return Ok(Err(None));
        }
        if self.at + header.record_octets() as u64 > self.end {
            return Ok(Err(header.id));
        }
        let start = self.have(header.record_octets()).await?;
        let payload = start + HEADER_OCTETS..start + HEADER_OCTETS + header.payload_octets as usize;
        let whole = self.window.get(payload.clone()).is_some_and(|octets| header.matches(octets));
        Ok(if whole { Ok((header, payload)) } else { Err(header.id) })
    }

    /// Sees to it that so many octets from here are in the window; says where they begin in it.
    async fn have(&mut self, octets: usize) -> Result<usize, Newer> {
        let here = self.at.checked_sub(self.window_at).and_then(|here| usize::try_from(here).ok());
        if let Some(here) = here.filter(|here| here + octets <= self.window.len()) {
            return Ok(here);
        }
        let block = BLOCK_OCTETS as u64;
        self.window_at = self.at - self.at % block;
        let lead = usize::try_from(self.at % block).unwrap_or(0);
        let left = usize::try_from(self.end - self.window_at).unwrap_or(usize::MAX);
        let wanted = (lead + octets).max(WINDOW_OCTETS).min(left).next_multiple_of(BLOCK_OCTETS);
        let mut window = std::mem::replace(&mut self.window, Aligned::with_capacity(0));
        window.clear();
        window.reserve(wanted);
        window.set_len(wanted);
        let (result, window) = self.file.read_at(window, self.window_at).await;
        self.window = window;
        match result {
            Ok(count) => self.window.set_len(count),
            Err(_bad_somewhere) => self.have_blocks(wanted).await,
        }
        Ok(lead)
    }

    /// Reads block by block around what the disk cannot read; that counts as blank.
    async fn have_blocks(&mut self, wanted: usize) {
        self.window.set_len(wanted);
        for start in (0..wanted).step_by(BLOCK_OCTETS) {
            let mut block = Aligned::with_capacity(BLOCK_OCTETS);
            block.set_len(BLOCK_OCTETS);
            let (result, block) = self.file.read_at(block, self.window_at + start as u64).await;
            match result {
                Ok(count) => self.window[start..start + count].copy_from_slice(&block[..count]),
                Err(_unreadable) => {
                    self.window[start..start + BLOCK_OCTETS].fill(0);
                    self.unreadable += 1;
                }
            }
        }
    }
}
