//! The payload of a message's record: lengths, envelope, state, and the end of the body.

use bytes::Bytes;

use super::entry::{Entry, State};
use super::wire::{Sink, Source};
use crate::io::files::Aligned;

/// What a message's record holds.
#[derive(Debug)]
pub(super) struct Payload {
    pub(super) entry: Entry,
    /// The state as it was when the record was written.
    pub(super) state: State,
    /// Octets of the whole body, chunks included.
    pub(super) body_octets: u64,
    /// The body, or what of it follows the chunks.
    pub(super) tail: Bytes,
}

/// Lengths of the entry, the state and the body.
const LENGTHS_OCTETS: usize = 4 + 4 + 8;

/// Appends a payload. `chunked` octets of the body stand in chunks.
pub(super) fn put(out: &mut Aligned, entry: &Entry, state: &State, chunked: u64, tail: &[Bytes]) {
    let start = out.len();
    out.put(&[0; LENGTHS_OCTETS]);
    entry.encode(out);
    let entry_end = out.len();
    state.encode(out);
    let state_end = out.len();
    tail.iter().for_each(|slice| out.put(slice));
    let body = chunked + (out.len() - state_end) as u64;
    let length = |octets: usize| u32::try_from(octets).unwrap_or(u32::MAX).to_le_bytes();
    out[start..start + 4].copy_from_slice(&length(entry_end - start - LENGTHS_OCTETS));
    out[start + 4..start + 8].copy_from_slice(&length(state_end - entry_end));
    out[start + 8..start + 16].copy_from_slice(&body.to_le_bytes());
}

/// Octets that [`put`] will append at most, the body aside.
pub(super) fn octets_max(entry: &Entry) -> usize {
    let optional = |text: &Option<String>| 5 + text.as_ref().map_or(0, String::len);
    let recipient = |octets: usize, recipient: &super::entry::Recipient| {
        octets + 5 + recipient.address.len() + optional(&recipient.orcpt)
    };
    let client = 32 + entry.client.helo.len() + entry.client.listener.len();
    let client = client + optional(&entry.client.login) + optional(&entry.client.tls);
    let envelope = 32 + entry.sender.len() + optional(&entry.envid) + optional(&entry.auth);
    LENGTHS_OCTETS + envelope + client + entry.recipients.iter().fold(STATE_OCTETS, recipient)
}

/// Octets of a state without history.
const STATE_OCTETS: usize = 64;

/// Reads a payload; `None` where it is not one.
pub(super) fn parse(payload: &Bytes) -> Option<Payload> {
    let (entry, state, body_octets, tail) = split(payload)?;
    Some(Payload { entry, state, body_octets, tail: payload.slice(payload.len() - tail.len()..) })
}

/// Reads a payload without keeping it: envelope, state, octets of the body, its end.
pub(super) fn split(payload: &[u8]) -> Option<(Entry, State, u64, &[u8])> {
    let mut source = Source(payload);
    let (entry_octets, state_octets) = (source.u32()? as usize, source.u32()? as usize);
    let body_octets = source.u64()?;
    let entry = Entry::decode(&mut Source(source.take(entry_octets)?))?;
    let state = State::decode(&mut Source(source.take(state_octets)?))?;
    Some((entry, state, body_octets, source.0))
}

#[cfg(test)]
mod tests {
    use super::super::entry::tests::entry;
    use super::*;

    #[test]
    fn a_payload_is_read_as_it_was_written() {
        let entry = entry("sender@example.org", &["one@example.net", "two@example.net"], 5);
        let state = State { attempts: 3, ..State::default() };
        let mut out = Aligned::with_capacity(1);
        out.extend(b"before");
        put(&mut out, &entry, &state, 100, &[Bytes::from_static(b"the "), Bytes::from_static(b"end")]);
        assert!(out.len() - 6 - 7 <= octets_max(&entry));
        let payload = parse(&Bytes::copy_from_slice(&out[6..])).unwrap();
        assert_eq!((payload.entry, payload.state), (entry, state));
        assert_eq!((payload.body_octets, &payload.tail[..]), (107, &b"the end"[..]));
        for end in 6..out.len() - 7 {
            assert!(parse(&Bytes::copy_from_slice(&out[6..end])).is_none());
        }
    }
}
