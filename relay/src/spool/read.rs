//! Reading messages back: envelope, state, body. Every record is checked again, site and checksums, each time.

use std::io;
use std::rc::Rc;

use bytes::Bytes;

use super::entry::{Entry, State};
use super::index::{ARCHIVED, Place};
use super::log::Spool;
use super::payload;
use super::record::{HEADER_OCTETS, Header, Kind, Site};
use super::wire::Source;
use crate::io::files::{Access, Aligned, BLOCK_OCTETS, File, Files};
use crate::units::QueueId;

/// A message as it stands on the disk.
#[derive(Debug)]
pub struct Message<F: Files> {
    /// Its envelope.
    pub entry: Entry,
    /// How far delivery has come.
    pub state: State,
    /// Octets of the body.
    pub body_octets: u64,
    /// The body, to be read from the start.
    pub body: Body<F>,
}

/// A body that is read chunk by chunk: at most one chunk is in memory.
#[derive(Debug)]
pub struct Body<F: Files> {
    spool: Spool<F>,
    id: QueueId,
    parts: Vec<Place>,
    read: usize,
    tail: Option<Bytes>,
}

/// Why a message cannot be read.
#[derive(Debug)]
pub enum ReadFault {
    /// It is settled, or never was.
    Gone,
    /// What stands on the disk is not what was written.
    Damaged,
    /// The disk says no.
    Io(io::Error),
}

impl std::fmt::Display for ReadFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gone => f.write_str("no such message"),
            Self::Damaged => f.write_str("its record on the disk is damaged"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReadFault {}

/// Open files that are kept for reading.
const OPEN_FILES_MAX: usize = 64;

impl<F: Files> Spool<F> {
    /// Reads a message; its body is read as it is asked for. Its state is the latest, whether the disk has it or not.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub async fn read(&self, id: QueueId) -> Result<Message<F>, ReadFault> {
        let (place, state, parts, latest) = {
            let desk = self.inner.desk.borrow();
            let slot = desk.ledger.index.get(id).ok_or(ReadFault::Gone)?;
            let latest = desk.ledger.states.latest(id).cloned();
            (slot.place, slot.state, desk.ledger.index.parts(id).to_vec(), latest)
        };
        let record = self.record(id, place, Kind::Message).await?;
        let found = payload::parse(&record).ok_or(ReadFault::Damaged)?;
        let state = match latest {
            Some(latest) => State::clone(&latest),
            None if state.segment == 0 => found.state,
            None => self.state(id, state).await?,
        };
        let body = Body { spool: self.clone(), id, parts, read: 0, tail: Some(found.tail) };
        Ok(Message { entry: found.entry, state, body_octets: found.body_octets, body })
    }

    async fn state(&self, id: QueueId, place: Place) -> Result<State, ReadFault> {
        let record = self.record(id, place, Kind::State).await?;
        State::decode(&mut Source(&record)).ok_or(ReadFault::Damaged)
    }

    /// The payload of a record, checked.
    pub(super) async fn record(&self, id: QueueId, place: Place, kind: Kind) -> Result<Bytes, ReadFault> {
        let (file, site) = self.file_of(id, place).await?;
        let start = place.offset() - place.offset() % BLOCK_OCTETS as u64;
        let lead = usize::try_from(place.offset() - start).unwrap_or(usize::MAX);
        let end = lead + HEADER_OCTETS + place.payload_octets as usize;
        let mut into = Aligned::with_capacity(end);
        into.set_len(end.next_multiple_of(BLOCK_OCTETS));
        let (result, octets) = file.read_at(into, start).await;
        if result.map_err(ReadFault::Io)? < end {
            return Err(ReadFault::Damaged);
        }
        let head = octets[lead..].first_chunk().ok_or(ReadFault::Damaged)?;
        let (header, found) = Header::decode(head).map_err(|_flaw| ReadFault::Damaged)?;
        let fits = found == site && header.id == Some(id) && header.kind == kind;
        if !fits || !header.matches(&octets[lead + HEADER_OCTETS..end]) {
            return Err(ReadFault::Damaged);
        }
        Ok(Bytes::from_owner(octets).slice(lead + HEADER_OCTETS..end))
    }

    async fn file_of(&self, id: QueueId, place: Place) -> Result<(Rc<F::File>, Site), ReadFault> {
        let catalogue = &self.inner.catalogue;
        if place.segment == ARCHIVED {
            let file = self.inner.files.open(&catalogue.archive_path(id), Access::Read).await;
            return Ok((Rc::new(file.map_err(ReadFault::Io)?), archive_site(place.offset())));
        }
        let (segment, open) = {
            let desk = self.inner.desk.borrow();
            let segment = desk.ledger.segment(place.segment).cloned().ok_or(ReadFault::Gone)?;
            (segment, desk.open.get(&place.segment).cloned())
        };
        let site = segment.site(place.offset());
        if let Some(file) = open {
            return Ok((file, site));
        }
        let file = self.inner.files.open(&catalogue.path(segment.number), Access::Read).await;
        let file = Rc::new(file.map_err(ReadFault::Io)?);
        let mut desk = self.inner.desk.borrow_mut();
        if desk.open.len() >= OPEN_FILES_MAX {
            desk.open.clear();
        }
        desk.open.insert(segment.id, Rc::clone(&file));
        Ok((file, site))
    }
}

/// Where records of an archive file say that they stand.
pub(super) fn archive_site(offset: u64) -> Site {
    Site { segment: u32::MAX, epoch: 0, offset }
}

impl<F: Files> Body<F> {
    /// The next octets; `None` at the end.
    ///
    /// # Errors
    /// Why they cannot be read. The body is then good for nothing more.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ReadFault> {
        let Some(&part) = self.parts.get(self.read) else { return Ok(self.tail.take()) };
        self.read += 1;
        self.spool.record(self.id, part, Kind::Chunk).await.map(Some)
    }

    /// Whether every octet was handed out.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.is_at_tail() && self.tail.is_none()
    }

    /// Whether only the end of the body is left, the part in the message's own record.
    pub(super) fn is_at_tail(&self) -> bool {
        self.read == self.parts.len()
    }
}
