//! A relay with a flaw, to see that the ledger tells: each is put in at a seam, none is in the relay's own code.
//!
//! [`Platter`] is the disk and [`Hand`] the sink that every machine of the simulation has; without a flaw they pass on
//! what they are given.

use std::future::{Future, poll_fn};
use std::io;
use std::path::Path;
use std::task::Poll;

use ringpost::custody::Custody;
use ringpost::egress::patient::Patient;
use ringpost::envelope::Envelope;
use ringpost::ingress::sink::{Answer, Content, Next, Sink};
use ringpost::io::Flight;
use ringpost::io::files::sim::{SimDisk, SimFile};
use ringpost::io::files::{Access, Aligned, File, Files, Found, Space};
use ringpost::io::sim::World;
use ringpost::smtp::body::Form;
use ringpost::smtp::params::{Mail, Rcpt};
use ringpost::smtp::reply::Reply;
use ringpost::spool::record::HEADER_OCTETS;

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// A write counts as done before it is.
    AckBeforeSync,
    /// Checksums are not looked at.
    NoChecksums,
    /// A message is settled before its upstream has said that it has it.
    DoneFirst,
    /// A write that failed is tried again at the same place, and the kernel says that all is well.
    RetriedSync,
    /// A stream that outlasts its client's patience is forgotten.
    VerdictDropped,
    /// Of a message that goes to the spool for several, the last is forgotten.
    RecipientLost,
}

pub(crate) const ALL: &[Flaw] = &[
    Flaw::AckBeforeSync,
    Flaw::NoChecksums,
    Flaw::DoneFirst,
    Flaw::RetriedSync,
    Flaw::VerdictDropped,
    Flaw::RecipientLost,
];

/// The disk of a machine.
#[derive(Debug, Clone)]
pub(crate) struct Platter {
    pub(crate) disk: SimDisk,
    pub(crate) flaw: Option<Flaw>,
}

/// A file on it.
#[derive(Debug)]
pub(crate) struct PlatterFile {
    file: SimFile,
    flaw: Option<Flaw>,
}

impl Files for Platter {
    type File = PlatterFile;

    async fn open(&self, path: &Path, access: Access) -> io::Result<PlatterFile> {
        let file = self.disk.open(path, access).await?;
        Ok(PlatterFile { file, flaw: self.flaw })
    }

    async fn make(&self, path: &Path, head: Aligned, octets: u64) -> io::Result<()> {
        self.disk.make(path, head, octets).await
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to).await
    }

    async fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path).await
    }

    async fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.make_dir(path).await
    }

    async fn list(&self, directory: &Path) -> io::Result<Vec<Found>> {
        self.disk.list(directory).await
    }

    async fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path).await
    }
}

impl File for PlatterFile {
    async fn write_some(&self, octets: Aligned, start: usize, at: u64) -> (io::Result<usize>, Aligned) {
        let count = octets.len() - start;
        if self.flaw == Some(Flaw::AckBeforeSync) {
            let copy = Aligned::from(&octets[..]);
            begin(self.file.write_some(copy, start, at)).await;
            return (Ok(count), octets);
        }
        match self.file.write_some(octets, start, at).await {
            (Err(_marked_clean), octets) if self.flaw == Some(Flaw::RetriedSync) => (Ok(count), octets),
            other => other,
        }
    }

    async fn read_at(&self, into: Aligned, at: u64) -> (io::Result<usize>, Aligned) {
        let (result, mut octets) = self.file.read_at(into, at).await;
        if self.flaw == Some(Flaw::NoChecksums) {
            forge(&mut octets);
        }
        (result, octets)
    }
}

/// Starts an operation and does not wait for it.
async fn begin<T>(operation: impl Future<Output = T>) {
    let mut operation = Box::pin(operation);
    poll_fn(|cx| {
        let _ = operation.as_mut().poll(cx);
        Poll::Ready(())
    })
    .await;
}

/// Makes the checksums of every record right, whatever it holds: nobody who looks at them finds anything.
fn forge(octets: &mut [u8]) {
    for at in (0..octets.len()).step_by(HEADER_OCTETS) {
        let Some(header) = octets[at..].first_chunk::<HEADER_OCTETS>() else { return };
        if header[..4] != *b"RPs1" {
            continue;
        }
        let length = u32::from_le_bytes([header[16], header[17], header[18], header[19]]) as usize;
        let start = at + HEADER_OCTETS;
        let Some(payload) = octets.get(start..start.saturating_add(length)) else { continue };
        let crc = crc32c::crc32c(payload);
        octets[at + 12..at + 16].copy_from_slice(&crc.to_le_bytes());
        let head = crc32c::crc32c(&octets[at..at + 8]);
        let crc = crc32c::crc32c_append(head, &octets[at + 12..start]);
        octets[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
    }
}

/// The sink of a session.
pub(crate) struct Hand {
    pub(crate) patient: Patient<World, Platter>,
    pub(crate) flaw: Option<Flaw>,
}

impl Sink for Hand {
    fn begin(&self, mail: &Mail) -> Result<(), Reply> {
        self.patient.begin(mail)
    }

    async fn recipients(&mut self, envelope: &Envelope, rcpts: &[Rcpt], next: Next) -> Vec<Answer> {
        self.patient.recipients(envelope, rcpts, next).await
    }

    async fn open(&mut self, envelope: &Envelope) -> Result<Form, Reply> {
        self.patient.open(envelope).await
    }

    async fn body(&mut self, envelope: &Envelope, slices: &mut Flight) -> Result<(), Reply> {
        self.patient.body(envelope, slices).await
    }

    async fn finish(
        &mut self,
        envelope: &Envelope,
        rest: &mut Flight,
        content: Content<'_>,
    ) -> Result<Custody, Reply> {
        let count = envelope.recipients.len();
        if self.flaw == Some(Flaw::RecipientLost) && count > 1 {
            let recipients = envelope.recipients[..count - 1].to_vec();
            let lacking = Envelope { mail: envelope.mail.clone(), recipients, ..*envelope };
            return self.patient.finish(&lacking, rest, content).await;
        }
        self.patient.finish(envelope, rest, content).await
    }

    fn reset(&mut self) {
        self.patient.reset();
    }

    fn upstream(&self) -> Option<&str> {
        self.patient.upstream()
    }

    fn is_queued(&self, recipient: usize) -> bool {
        self.patient.is_queued(recipient)
    }
}
