//! The message on its way through a session: held back while its header section is judged, then handed on.
//!
//! Our own header fields stand in front of the first octet, so that the client's lines keep their places and their
//! stuffing. The header section is held back whole, up to its bound, because a verdict on it (hops, size) must come
//! before the upstream has seen anything of the message. What is held are slices of the buffers it arrived in.

use std::sync::Arc;

use bytes::Bytes;

use crate::io::Flight;
use crate::smtp::body::{Form, Piece};
use crate::smtp::reply::{self, Reply};
use crate::trace::{self, HeaderScan, HeaderState, LocalTime};
use crate::units::QueueId;

/// One message; between messages it holds nothing.
#[derive(Debug, Default)]
pub struct Body {
    header: Option<Header>,
    slices: Flight,
    octets_added: u64,
    waives_tls: bool,
}

/// A header section that is not yet judged.
#[derive(Debug)]
struct Header {
    scan: HeaderScan,
    state: HeaderState,
    fields: Fields,
}

/// What is known of our own header fields when a message begins.
#[derive(Debug)]
pub struct Fields {
    /// `Received:`, written out.
    pub received: Vec<u8>,
    /// For `Message-ID:`, where the message has none.
    pub id: QueueId,
    /// Likewise: `RELAY_HOST_NAME`.
    pub host_name: Arc<str>,
    /// For `Date:`, where the message has none.
    pub at: LocalTime,
}

impl Body {
    /// A message begins; it will be put out in this form, with these fields in front.
    pub fn begin(&mut self, form: Form, fields: Fields) {
        self.clear();
        self.header = Some(Header { scan: HeaderScan::new(form), state: HeaderState::More, fields });
    }

    /// Takes the pieces of the message that stand in some input.
    pub fn take(&mut self, pieces: &[Piece], input: &Bytes) {
        for piece in pieces {
            let slice = match piece {
                Piece::Input(range) => input.slice(range.clone()),
                Piece::Literal(octets) => Bytes::from_static(octets),
            };
            if let Some(header) = &mut self.header {
                header.state = header.scan.scan(&slice);
            }
            self.slices.push(slice);
        }
    }

    /// Judges the header section as soon as it is complete, and puts the trace in front of the message.
    ///
    /// # Errors
    /// The reply for a message that goes no further.
    pub fn judge(&mut self, hops_max: u32) -> Result<(), Reply> {
        let Some(header) = &self.header else { return Ok(()) };
        match header.state {
            HeaderState::More => return Ok(()),
            HeaderState::TooLarge => return Err(reply::HEADER_TOO_BIG),
            HeaderState::End if header.scan.hops() > hops_max => return Err(reply::TOO_MANY_HOPS),
            HeaderState::End => {}
        }
        let Some(header) = self.header.take() else { return Ok(()) };
        self.waives_tls = header.scan.waives_tls();
        let Fields { received: mut fields, id, host_name, at } = header.fields;
        trace::added_headers(&header.scan, id, &host_name, at, &mut fields);
        if header.scan.needs_separator() {
            fields.extend_from_slice(b"\r\n");
        }
        self.octets_added = fields.len() as u64;
        self.slices.prepend(Bytes::from(fields));
        Ok(())
    }

    /// No more octets come.
    pub fn finish(&mut self) {
        if let Some(header) = &mut self.header {
            header.state = header.scan.finish();
        }
    }

    /// What can go on its way before the message is complete; `None` while the header section is not judged, or where
    /// nothing has come since.
    pub fn ready(&mut self) -> Option<&mut Flight> {
        (self.header.is_none() && !self.slices.is_empty()).then_some(&mut self.slices)
    }

    /// What is left of a complete message.
    pub fn rest(&mut self) -> &mut Flight {
        &mut self.slices
    }

    /// Octets that we have put in front.
    #[must_use]
    pub fn octets_added(&self) -> u64 {
        self.octets_added
    }

    /// Whether the header section waives the TLS policies of the recipients' domains; not before it is judged.
    #[must_use]
    pub fn waives_tls(&self) -> bool {
        self.waives_tls
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.header = None;
        self.slices.clear();
        self.octets_added = 0;
        self.waives_tls = false;
    }
}
