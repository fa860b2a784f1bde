//! What a session counts and logs of its messages.

use std::time::Duration;

use super::Session;
use crate::custody::Custody;
use crate::envelope::Envelope;
use crate::ingress::log;
use crate::ingress::sink::Sink;
use crate::io::Io;
use crate::meter::{Direction, RecipientOutcome};
use crate::smtp::reply::Reply;

impl<I: Io, S: Sink> Session<I, S> {
    pub(super) fn note_taken(&self, envelope: &Envelope, custody: &Custody, delay: Duration) {
        // What waits for its delivery is counted when that comes.
        let delivered = (0..envelope.recipients.len()).filter(|&place| !self.sink.is_queued(place)).count();
        let octets = self.machine.body_octets();
        self.ingress.meter(|meter| {
            meter.messages_relayed[custody.holder()] += 1;
            meter.message_octets[Direction::In] += octets;
            if delivered > 0 {
                meter.recipients[RecipientOutcome::Delivered] += delivered as u64;
                meter.delivery.record_duration(delay);
                meter.message_octets[Direction::Out] += octets + self.body.octets_added();
            }
        });
        log::relayed(self, envelope, custody, delay);
    }

    pub(super) fn count_refused(&self, reply: &Reply, recipients: usize) {
        let outcome =
            if reply.is_permanent() { RecipientOutcome::Rejected } else { RecipientOutcome::Deferred };
        self.ingress.meter(|meter| meter.recipients[outcome] += recipients as u64);
    }

    pub(super) fn log_refusal(&self, reply: &Reply) {
        if let Some(envelope) = &self.envelope {
            self.count_refused(reply, envelope.recipients.len());
            log::message_refused(self, envelope, reply, Duration::ZERO);
        }
    }
}
