//! The records of the spool as octets on disk: pure, no file and no clock.
//!
//! A record is a header of 64 octets and its payload, padded to a multiple of 64. Headers of 64 octets, not fewer: a copy
//! to an address that differs from its source by a few octets modulo 4096 runs at a twentieth of the speed on some
//! processors. Header and payload have a checksum each (CRC32C), so that a batch that must move to another segment gets
//! new headers without a second pass over what they head.
//!
//! | octets | field |
//! | --- | --- |
//! | 0..4 | magic `RPs1` |
//! | 4..6 | format version |
//! | 6 | kind |
//! | 7 | zero |
//! | 8..12 | CRC32C of all other octets of the header |
//! | 12..16 | CRC32C of the payload |
//! | 16..20 | octets of payload |
//! | 20..24 | number of the segment |
//! | 24..32 | epoch of the segment: its number of uses |
//! | 32..40 | sequence: grows with every record of a worker, and from one process to the next |
//! | 40..56 | queue id |
//! | 56..60 | position in the segment, in units of 64 octets |
//! | 60..62 | worker |
//! | 62..64 | part: which chunk; in a message, how many chunks precede it |
//!
//! All numbers are little-endian. Segment, epoch and position bind a record to the one place that it was written for: what
//! an earlier use of the segment left there, or what a disk put in the wrong place, does not pass for a record.
//!
//! Readers trust nothing but these checksums and the epoch. A record of a newer format is never guessed at.

use crate::units::{QueueId, WorkerId};

/// Octets of a header; positions and lengths of records are multiples of it.
pub const HEADER_OCTETS: usize = 64;
/// The format that is written; nothing newer is read.
pub const FORMAT: u16 = 1;
/// Octets of the longest payload that is believed.
pub const PAYLOAD_OCTETS_MAX: usize = 48 * 1024 * 1024;

const MAGIC: [u8; 4] = *b"RPs1";

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The first block of a segment: which epoch is in force. No payload.
    Segment = 1,
    /// A message: envelope, state and the end of the body, after `part` chunks. This record commits it.
    Message = 2,
    /// A part of a large body, for a message that a later record commits.
    Chunk = 3,
    /// The message is settled: delivered, returned or deleted; no record brings it back.
    Done = 4,
    /// The state of a message after an attempt, or after the operator held, released or requeued it. The last one counts.
    State = 5,
    /// Nothing: a write that only tries whether the disk works.
    Probe = 6,
}

impl Kind {
    fn of(octet: u8) -> Option<Self> {
        [Self::Segment, Self::Message, Self::Chunk, Self::Done, Self::State, Self::Probe]
            .into_iter()
            .find(|&kind| kind as u8 == octet)
    }
}

/// Where a record stands: the use of a segment that it belongs to, and its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Site {
    /// The segment's number.
    pub segment: u32,
    /// The segment's epoch.
    pub epoch: u64,
    /// Octets from the segment's start; a multiple of [`HEADER_OCTETS`].
    pub offset: u64,
}

/// What stands in a record's header besides its [`Site`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the record says.
    pub kind: Kind,
    /// Which chunk, or how many chunks precede a message.
    pub part: u16,
    /// Octets of payload.
    pub payload_octets: u32,
    /// CRC32C of the payload.
    pub payload_crc: u32,
    /// Its place in time among the records of its message.
    pub sequence: u64,
    /// The message that it is about; `None` for segment headers and probes.
    pub id: Option<QueueId>,
    /// The worker that wrote it.
    pub worker: WorkerId,
}

/// Why octets are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// No record was ever written here: no magic.
    Blank,
    /// A record of a format that this program does not know.
    Newer(u16),
    /// A checksum is wrong, or a field is not what it can be.
    Damaged,
}

impl Header {
    /// The header for a site, as octets.
    #[must_use]
    pub fn encode(&self, site: Site) -> [u8; HEADER_OCTETS] {
        let mut octets = [0u8; HEADER_OCTETS];
        let position = u32::try_from(site.offset / HEADER_OCTETS as u64).unwrap_or(u32::MAX);
        octets[0..4].copy_from_slice(&MAGIC);
        octets[4..6].copy_from_slice(&FORMAT.to_le_bytes());
        octets[6] = self.kind as u8;
        octets[12..16].copy_from_slice(&self.payload_crc.to_le_bytes());
        octets[16..20].copy_from_slice(&self.payload_octets.to_le_bytes());
        octets[20..24].copy_from_slice(&site.segment.to_le_bytes());
        octets[24..32].copy_from_slice(&site.epoch.to_le_bytes());
        octets[32..40].copy_from_slice(&self.sequence.to_le_bytes());
        octets[40..56].copy_from_slice(&self.id.map_or(u128::MAX, QueueId::to_bits).to_le_bytes());
        octets[56..60].copy_from_slice(&position.to_le_bytes());
        octets[60..62].copy_from_slice(&self.worker.0.to_le_bytes());
        octets[62..64].copy_from_slice(&self.part.to_le_bytes());
        let crc = header_crc(&octets);
        octets[8..12].copy_from_slice(&crc.to_le_bytes());
        octets
    }

    /// Reads a header: what it says and the site that it was written for. Its payload is not looked at.
    ///
    /// # Errors
    /// A [`Flaw`] for anything that [`Self::encode`] does not write.
    pub fn decode(octets: &[u8; HEADER_OCTETS]) -> Result<(Self, Site), Flaw> {
        if octets[0..4] != MAGIC {
            return Err(Flaw::Blank);
        }
        if !switches::skips_checksums() && header_crc(octets) != u32_at(octets, 8) {
            return Err(Flaw::Damaged);
        }
        let format = u16_at(octets, 4);
        if format != FORMAT {
            return Err(Flaw::Newer(format));
        }
        let id = u128_at(octets, 40);
        let header = Self {
            kind: Kind::of(octets[6]).ok_or(Flaw::Damaged)?,
            part: u16_at(octets, 62),
            payload_octets: u32_at(octets, 16),
            payload_crc: u32_at(octets, 12),
            sequence: u64_at(octets, 32),
            id: if id == u128::MAX { None } else { Some(QueueId::from_bits(id).ok_or(Flaw::Damaged)?) },
            worker: WorkerId(u16_at(octets, 60)),
        };
        if header.payload_octets as usize > PAYLOAD_OCTETS_MAX {
            return Err(Flaw::Damaged);
        }
        let offset = u64::from(u32_at(octets, 56)) * HEADER_OCTETS as u64;
        Ok((header, Site { segment: u32_at(octets, 20), epoch: u64_at(octets, 24), offset }))
    }

    /// Whether this is the payload that belongs to the header.
    #[must_use]
    pub fn matches(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_octets as usize
            && (switches::skips_checksums() || crc32c::crc32c(payload) == self.payload_crc)
    }

    /// Octets of the whole record, header and padding included.
    #[must_use]
    pub fn record_octets(&self) -> usize {
        record_octets(self.payload_octets as usize)
    }
}

/// Octets of a record with so much payload.
#[must_use]
pub const fn record_octets(payload_octets: usize) -> usize {
    HEADER_OCTETS + payload_octets.next_multiple_of(HEADER_OCTETS)
}

fn header_crc(octets: &[u8; HEADER_OCTETS]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&octets[..8]), &octets[12..])
}

fn u16_at(octets: &[u8; HEADER_OCTETS], at: usize) -> u16 {
    u16::from_le_bytes([octets[at], octets[at + 1]])
}

fn u32_at(octets: &[u8; HEADER_OCTETS], at: usize) -> u32 {
    u32::from(u16_at(octets, at)) | u32::from(u16_at(octets, at + 2)) << 16
}

fn u64_at(octets: &[u8; HEADER_OCTETS], at: usize) -> u64 {
    u64::from(u32_at(octets, at)) | u64::from(u32_at(octets, at + 4)) << 32
}

fn u128_at(octets: &[u8; HEADER_OCTETS], at: usize) -> u128 {
    u128::from(u64_at(octets, at)) | u128::from(u64_at(octets, at + 8)) << 64
}

/// What the tests break on purpose, to see that they notice. In a real build there is nothing to switch.
pub(super) mod switches {
    #[cfg(test)]
    thread_local! {
        pub(in crate::spool) static BROKEN: std::cell::Cell<Option<Broken>> = const { std::cell::Cell::new(None) };
    }

    /// A deliberate mistake.
    #[cfg(test)]
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(in crate::spool) enum Broken {
        /// Committers are answered before their batch is on the disk.
        AckBeforeSync,
        /// Checksums are not looked at.
        NoChecksums,
        /// Segments are used again without a new epoch.
        SameEpoch,
        /// A segment with tombstones does not wait for the segments that they speak about.
        ForgottenTombstones,
    }

    #[cfg(test)]
    pub(in crate::spool) fn is_broken(how: Broken) -> bool {
        BROKEN.get() == Some(how)
    }

    pub(super) fn skips_checksums() -> bool {
        #[cfg(test)]
        return is_broken(Broken::NoChecksums);
        #[cfg(not(test))]
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds() -> impl Strategy<Value = Kind> {
        prop::sample::select(vec![Kind::Message, Kind::Chunk, Kind::Done, Kind::State, Kind::Probe])
    }

    prop_compose! {
        fn headers()(
            kind in kinds(), part: u16, sequence: u64, bits in prop::option::of(0u128..1 << 75), worker: u16,
            payload in prop::collection::vec(any::<u8>(), 0..300),
        ) -> (Header, Vec<u8>) {
            let header = Header {
                kind,
                part,
                payload_octets: u32::try_from(payload.len()).unwrap(),
                payload_crc: crc32c::crc32c(&payload),
                sequence,
                id: bits.and_then(QueueId::from_bits),
                worker: WorkerId(worker),
            };
            (header, payload)
        }
    }

    prop_compose! {
        fn sites()(segment: u32, epoch: u64, position: u32) -> Site {
            Site { segment, epoch, offset: u64::from(position) * HEADER_OCTETS as u64 }
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded((header, payload) in headers(), site in sites()) {
            let octets = header.encode(site);
            prop_assert_eq!(Header::decode(&octets), Ok((header, site)));
            prop_assert!(header.matches(&payload));
            prop_assert_eq!(header.record_octets() % HEADER_OCTETS, 0);
        }

        #[test]
        fn a_flipped_bit_is_never_a_record((header, payload) in headers(), site in sites(), bit in 0usize..512) {
            let mut octets = header.encode(site);
            octets[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Header::decode(&octets).is_err());
            if !payload.is_empty() {
                let mut payload = payload;
                let at = bit % payload.len();
                payload[at] ^= 1;
                prop_assert!(!header.matches(&payload));
            }
        }

        #[test]
        fn any_octets_are_judged_without_a_panic(octets in prop::array::uniform32(any::<u8>())) {
            let mut header = [0u8; HEADER_OCTETS];
            header[..4].copy_from_slice(&MAGIC);
            header[4..36].copy_from_slice(&octets);
            prop_assert!(Header::decode(&header).is_err());
        }
    }

    #[test]
    fn a_newer_format_is_named_not_guessed() {
        let header = Header {
            kind: Kind::Probe,
            part: 0,
            payload_octets: 0,
            payload_crc: 0,
            sequence: 1,
            id: None,
            worker: WorkerId(0),
        };
        let mut octets = header.encode(Site { segment: 1, epoch: 1, offset: 64 });
        octets[4..6].copy_from_slice(&2u16.to_le_bytes());
        let crc = header_crc(&octets);
        octets[8..12].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(Header::decode(&octets), Err(Flaw::Newer(2)));
        assert_eq!(Header::decode(&[0; HEADER_OCTETS]), Err(Flaw::Blank));
    }
}
