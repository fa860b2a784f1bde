//! Numbers and texts of the spool's payloads as octets: written to a growing buffer, read with bounds.

use crate::io::files::Aligned;

/// Where payloads are written to.
pub(super) trait Sink {
    /// Appends octets.
    fn put(&mut self, octets: &[u8]);
}

impl Sink for Aligned {
    fn put(&mut self, octets: &[u8]) {
        self.extend(octets);
    }
}

impl Sink for Vec<u8> {
    fn put(&mut self, octets: &[u8]) {
        self.extend_from_slice(octets);
    }
}

/// A text: its length in four octets, then the octets.
pub(super) fn put_text(out: &mut impl Sink, text: &str) {
    let octets = u32::try_from(text.len()).unwrap_or(u32::MAX);
    out.put(&octets.to_le_bytes());
    out.put(&text.as_bytes()[..octets as usize]);
}

/// A text that may be missing.
pub(super) fn put_optional(out: &mut impl Sink, text: Option<&str>) {
    out.put(&[u8::from(text.is_some())]);
    if let Some(text) = text {
        put_text(out, text);
    }
}

/// What is left to read. Each method is `None` where the octets end too early or say what cannot be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a>(pub(super) &'a [u8]);

impl<'a> Source<'a> {
    pub(super) fn take(&mut self, octets: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(octets)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|octets| octets[0])
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub(super) fn text(&mut self) -> Option<String> {
        let octets = self.u32()? as usize;
        String::from_utf8(self.take(octets)?.to_vec()).ok()
    }

    pub(super) fn optional(&mut self) -> Option<Option<String>> {
        if self.flag()? { self.text().map(Some) } else { Some(None) }
    }
}
