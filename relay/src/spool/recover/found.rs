//! Which segments there are, and in which order they were written.
//!
//! What it must not do: take a segment that cannot be read for one that holds nothing.

use super::{Keys, Recovery, log_start, take};
use crate::io::files::{Aligned, BLOCK_OCTETS, File, Files};
use crate::spool::entry::Entry;
use crate::spool::record::{Flaw, HEADER_OCTETS, Header, Kind};
use crate::spool::scan::{Scanner, Step};
use crate::spool::segment::{SEGMENTS, Spare, number_of};
use crate::spool::shard::{RecoverFault, Touch};

/// A segment's file that has records, or may have some, and the sequence of the first.
#[derive(Debug)]
pub(super) struct Used<T> {
    pub(super) file: T,
    pub(super) spare: Spare,
    first_sequence: u64,
    /// Whether what was looked at so far could be read.
    pub(super) is_readable: bool,
}

/// What a look for a segment's epoch came to.
#[derive(Debug, Clone, Copy)]
enum Epoch {
    /// As its head says.
    Head(u64),
    /// The head is damaged; the highest of its records.
    Records(u64),
    /// There is neither.
    Nowhere,
    /// The disk did not give all that was asked for; the highest of what it gave, 0 if nothing.
    Unread(u64),
}

impl<F: Files, C: FnMut(&Entry) -> Keys> Recovery<'_, F, C> {
    /// The segments with records, in the order that they were written; the others become spare.
    pub(super) async fn find_segments(&mut self) -> Result<Vec<Used<F::File>>, RecoverFault> {
        let mut used = Vec::new();
        for found in self.list(SEGMENTS.as_ref()).await? {
            let path = self.setup.directory.join(SEGMENTS).join(&found.name);
            let Some(number) = number_of(&found.name) else {
                self.report.strange.push(path);
                continue;
            };
            let file = self.open(&path).await?;
            let looked = self.epoch(&file, number, found.octets).await?;
            let (epoch, is_head_whole) = match looked {
                Epoch::Head(epoch) => (epoch, true),
                Epoch::Records(epoch) | Epoch::Unread(epoch) => (epoch, false),
                Epoch::Nowhere => {
                    // A crash came while it was made: nothing was ever written to it.
                    if self.setup.touch == Touch::Tidy {
                        let _ = self.files.remove(&path).await;
                    }
                    continue;
                }
            };
            let spare = Spare { number, epoch, octets: found.octets };
            let (first, is_readable) = self.first_sequence(&file, spare).await?;
            match (first, is_readable && !matches!(looked, Epoch::Unread(_))) {
                (Some(first_sequence), is_readable) => {
                    used.push(Used { file, spare, first_sequence, is_readable });
                }
                (None, true) if is_head_whole => {
                    self.catalogue.adopt_spare(spare);
                    self.report.spares += 1;
                }
                (None, true) => self.report.strange.push(path),
                (None, false) => {
                    self.report.strange.push(path);
                    used.push(Used { file, spare, first_sequence: u64::MAX, is_readable: false });
                }
            }
        }
        used.sort_by_key(|used| used.first_sequence);
        Ok(used)
    }

    async fn epoch(&mut self, file: &F::File, number: u32, octets: u64) -> Result<Epoch, RecoverFault> {
        let (mut highest, mut is_readable) = (None, true);
        let mut block = Aligned::with_capacity(WINDOW_OCTETS);
        let mut at = 0;
        while at < octets {
            block.set_len(WINDOW_OCTETS);
            let (result, back) = file.read_at(block, at).await;
            block = back;
            let Ok(count) = result else {
                is_readable = false;
                at += WINDOW_OCTETS as u64;
                continue;
            };
            for start in (0..count.saturating_sub(HEADER_OCTETS - 1)).step_by(BLOCK_OCTETS) {
                let Some(head) = block[start..].first_chunk() else { break };
                match Header::decode(head) {
                    Ok((header, site)) if site.segment == number && site.offset == at + start as u64 => {
                        if header.kind == Kind::Segment {
                            return Ok(Epoch::Head(site.epoch));
                        }
                        highest = highest.max(Some(site.epoch));
                    }
                    Err(Flaw::Newer(format)) => return Err(RecoverFault::Newer(format)),
                    Ok(_) | Err(_) => {}
                }
            }
            at += count as u64;
            if count == 0 {
                break;
            }
        }
        Ok(match highest {
            found if !is_readable => Epoch::Unread(found.unwrap_or(0)),
            Some(epoch) => Epoch::Records(epoch),
            None => Epoch::Nowhere,
        })
    }

    /// The sequence of a segment's first record, if it has one, and whether all that was looked at could be read.
    async fn first_sequence(
        &mut self,
        file: &F::File,
        spare: Spare,
    ) -> Result<(Option<u64>, bool), RecoverFault> {
        let mut scanner = Scanner::new(file, log_start(spare), spare.octets, take(&mut self.window));
        let mut first = None;
        while let Some(step) = scanner.next().await? {
            if let Step::Record { header, .. } = step {
                first = Some(header.sequence);
                break;
            }
        }
        let is_readable = scanner.unreadable == 0;
        self.window = scanner.into_window();
        Ok((first, is_readable))
    }
}

/// Octets read at once when a segment's epoch is looked for.
const WINDOW_OCTETS: usize = BLOCK_OCTETS * 16;
