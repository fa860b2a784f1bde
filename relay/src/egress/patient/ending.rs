//! The end of a message with a patient client: the upstream's verdict, or the spool's receipt.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use super::{Later, Patient};
use crate::custody::Custody;
use crate::egress::delivery::{Fate, Hop, refusal_of};
use crate::egress::stream::UpstreamStream;
use crate::envelope::Envelope;
use crate::ingress::sink::{Content, Sink};
use crate::io::files::Files;
use crate::io::{Flight, Io};
use crate::smtp::params::{Notify, Rcpt};
use crate::smtp::path::ReversePath;
use crate::smtp::reply::{self, Reply};
use crate::smtp::server::Proof;
use crate::spool;

/// A stream that has heard its verdict.
struct Ended<I: Io> {
    stream: Box<UpstreamStream<I>>,
    flight: Flight,
    verdict: Result<Custody, Reply>,
}

/// A stream that waits for its verdict.
type Ending<I> = Pin<Box<dyn Future<Output = Ended<I>>>>;

impl<I: Io, F: Files> Patient<I, F> {
    /// Ends the message on its stream.
    pub(super) async fn finish_stream(
        &mut self,
        envelope: &Envelope,
        rest: &mut Flight,
        content: &Content<'_>,
    ) -> Result<Custody, Reply> {
        let (Some(hybrid), Some(mut stream)) = (&mut self.hybrid, self.stream.take()) else {
            return Err(reply::LOCAL_ERROR);
        };
        let Some((form, connection)) = stream.at_hand() else {
            self.stream = Some(stream);
            return self.give_in(envelope, content, Later::Unasked).await;
        };
        let delivery = Rc::clone(&hybrid.delivery);
        let start = self.egress.io.now();
        let is_slow = stream.pace().is_some_and(|pace| pace.has_slow_verdicts(hybrid.patience, start));
        let by = if is_slow { start } else { start.after(hybrid.patience) };
        let (mut flight, has_8bit, io) = (std::mem::take(rest), content.has_8bit, self.egress.io.clone());
        let ending: Ending<I> = Box::pin(async move {
            let verdict = stream.end(form, connection, &mut flight, has_8bit).await;
            let now = io.now();
            stream.pace().inspect(|pace| pace.note_verdict(now.since(start), now));
            Ended { stream, flight, verdict }
        });
        let ended = if hybrid.can_queue {
            match delivery.waits.within(ending, by).await {
                Ok(ended) => ended,
                Err(ending) => return self.outlast(envelope, content, ending).await,
            }
        } else {
            ending.await
        };
        *rest = ended.flight;
        self.stream = Some(ended.stream);
        self.hear(envelope, content, ended.verdict).await
    }

    /// The upstream's verdict on the message has come in time.
    async fn hear(
        &mut self,
        envelope: &Envelope,
        content: &Content<'_>,
        verdict: Result<Custody, Reply>,
    ) -> Result<Custody, Reply> {
        if let Ok(custody) = &verdict {
            self.tell_relayed(envelope, content, custody).await;
        }
        match verdict {
            Ok(custody)
                if self.hybrid.as_ref().is_none_or(|hybrid| hybrid.later.iter().all(Option::is_none)) =>
            {
                Ok(custody)
            }
            Ok(_) => self.commit_later(envelope, content).await,
            Err(refusal) if refusal.is_permanent() => Err(refusal),
            Err(refusal) => self.give_in(envelope, content, Later::PutOff(refusal)).await,
        }
    }

    /// The upstream has the message: who asked to hear of that hears from us where the upstream cannot tell (RFC 3461
    /// §5.2.2). Durable before the client is answered.
    pub(super) async fn tell_relayed(
        &mut self,
        envelope: &Envelope,
        content: &Content<'_>,
        custody: &Custody,
    ) {
        let Some(stream) = &self.stream else { return };
        let later = self.hybrid.as_ref().map_or(&[][..], |hybrid| &hybrid.later);
        let is_late = |place: usize| later.get(place).is_some_and(Option::is_some);
        let places: Vec<usize> = owed(envelope, stream).filter(|&place| !is_late(place)).collect();
        if places.is_empty() {
            return;
        }
        let Some(hybrid) = &self.hybrid else {
            tracing::warn!(event = "notice_lost", queue_id = %envelope.id, reason = "there is no spool");
            return;
        };
        let delivery = Rc::clone(&hybrid.delivery);
        let entry = delivery.entry(envelope, places.into_iter(), &content.client);
        let (reply, beginning) = (custody.reply(), hybrid.kept.beginning());
        let telling = delivery.tell_of_stream(envelope.id, entry, stream.hop(), &reply, beginning);
        Box::pin(telling).await;
    }

    /// The stream was for nothing: the whole message is taken for later, if the spool takes it.
    async fn give_in(
        &mut self,
        envelope: &Envelope,
        content: &Content<'_>,
        why: Later,
    ) -> Result<Custody, Reply> {
        self.fall_back(&why);
        if self.can_queue() {
            return self.commit_later(envelope, content).await;
        }
        match why {
            Later::Unasked => Err(reply::UPSTREAM_LOST),
            Later::PutOff(refusal) => Err(refusal),
        }
    }

    pub(super) fn can_queue(&self) -> bool {
        self.hybrid.as_ref().is_some_and(|hybrid| hybrid.can_queue)
    }

    /// Commits the message for those recipients that are taken for later.
    pub(super) async fn commit_later(
        &mut self,
        envelope: &Envelope,
        content: &Content<'_>,
    ) -> Result<Custody, Reply> {
        let upstream = self.upstream().unwrap_or_default().to_owned();
        let Some(hybrid) = &mut self.hybrid else { return Err(reply::LOCAL_ERROR) };
        let places = hybrid.places_for_later();
        let fates = put_off(places.iter().map(|&place| hybrid.later[place].as_ref()));
        let next = if fates.is_empty() { spool::Next::Schedule } else { spool::Next::Streaming };
        let delivery = Rc::clone(&hybrid.delivery);
        let parcel = hybrid.parcel(envelope, &places, content);
        let (receipt, entry) =
            Box::pin(delivery.commit(envelope.id, parcel, next)).await.map_err(refusal_of)?;
        hybrid.note_queued(&places);
        if !fates.is_empty() {
            delivery.adopt(envelope.id);
            // Nobody of them was delivered to.
            let hop = Hop { upstream: &upstream, sends_notices: true };
            Box::pin(delivery.conclude(envelope.id, entry, hop, fates)).await;
        }
        Ok(Custody::of_spool(receipt))
    }

    /// The patience is over: commits the message while its stream goes on. Whichever is first answers the client.
    async fn outlast(
        &mut self,
        envelope: &Envelope,
        content: &Content<'_>,
        mut ending: Ending<I>,
    ) -> Result<Custody, Reply> {
        let Some(hybrid) = &mut self.hybrid else { return Err(reply::LOCAL_ERROR) };
        let delivery = Rc::clone(&hybrid.delivery);
        let all: Vec<usize> = (0..envelope.recipients.len()).collect();
        let streamed: Vec<usize> =
            all.iter().copied().filter(|&place| hybrid.later[place].is_none()).collect();
        let asked = put_off(hybrid.later.iter().map(Option::as_ref));
        let parcel = hybrid.parcel(envelope, &all, content);
        let (spooling, id) = (Rc::clone(&delivery), envelope.id);
        let mut committing =
            Box::pin(async move { spooling.commit(id, parcel, spool::Next::Streaming).await });
        match first(&mut committing, &mut ending).await {
            First::Committed(Ok((receipt, entry))) => {
                hybrid.note_queued(&all);
                delivery.adopt(id);
                let queue = Rc::clone(&delivery);
                delivery.beside(async move {
                    let doubt = queue.doubt();
                    let mut ended = ending.await;
                    drop(doubt);
                    let fates = ended.fates(&streamed, asked);
                    queue.conclude(id, entry, ended.stream.hop(), fates).await;
                    ended.stream.reset();
                });
                Ok(Custody::of_spool(receipt))
            }
            First::Committed(Err(_refusal)) => {
                // No disk to fall back on: the client has to wait for the upstream after all.
                let ended = ending.await;
                self.stream = Some(ended.stream);
                if let Ok(custody) = &ended.verdict {
                    self.tell_relayed(envelope, content, custody).await;
                }
                ended.verdict
            }
            First::Verdict(ended)
                if ended.is_final(
                    streamed.len() == all.len() && owed(envelope, &ended.stream).next().is_none(),
                ) =>
            {
                // The commit may be on its way to the disk: there the message is settled before anybody schedules it.
                drop(committing);
                if ended.verdict.is_ok() {
                    delivery.spool.settle_soon(id);
                } else if let Some(settled) = delivery.spool.settle(id) {
                    // What its client is told to be refused must not come back after a crash and be delivered.
                    let _ = settled.await;
                }
                self.stream = Some(ended.stream);
                ended.verdict
            }
            First::Verdict(ended) => {
                let (receipt, entry) = committing.await.map_err(refusal_of)?;
                hybrid.note_queued(&all);
                delivery.adopt(id);
                let fates = ended.fates(&streamed, asked);
                Box::pin(delivery.conclude(id, entry, ended.stream.hop(), fates)).await;
                self.stream = Some(ended.stream);
                Ok(Custody::of_spool(receipt))
            }
        }
    }
}

impl<I: Io> Ended<I> {
    /// Whether the verdict leaves nothing for the spool to do; `takes_all`: it is about every recipient.
    fn is_final(&self, takes_all: bool) -> bool {
        match &self.verdict {
            Ok(_) => takes_all,
            Err(refusal) => refusal.is_permanent(),
        }
    }

    /// What came of the message for the recipients that it was streamed to, behind those known before.
    fn fates(&self, streamed: &[usize], mut known: Vec<(usize, Fate)>) -> Vec<(usize, Fate)> {
        let said = match &self.verdict {
            Ok(custody) => custody.reply(),
            Err(refusal) => refusal.clone(),
        };
        known.extend(streamed.iter().map(|&place| (place, Fate::of(said.clone()))));
        known
    }
}

/// The places of the recipients that asked to hear of success, where the upstream of this stream cannot tell them.
fn owed<I: Io>(envelope: &Envelope, stream: &UpstreamStream<I>) -> impl Iterator<Item = usize> {
    let wants = |rcpt: &Rcpt| rcpt.params.notify.is_some_and(|notify| notify.wants(Notify::SUCCESS));
    let may = !stream.hop().sends_notices && envelope.mail.reverse_path != ReversePath::Null;
    (0..envelope.recipients.len()).filter(move |&place| may && wants(&envelope.recipients[place]))
}

/// The fates of recipients that an upstream has put off.
fn put_off<'a>(later: impl Iterator<Item = Option<&'a Later>>) -> Vec<(usize, Fate)> {
    later
        .enumerate()
        .filter_map(|(place, later)| match later {
            Some(Later::PutOff(reply)) => Some((place, Fate::of(reply.clone()))),
            _ => None,
        })
        .collect()
}

/// Which of two came first.
enum First<A, B> {
    Committed(A),
    Verdict(B),
}

/// Drives both until one is ready; the other is as it was.
async fn first<A: Future + Unpin, B: Future + Unpin>(
    one: &mut A,
    other: &mut B,
) -> First<A::Output, B::Output> {
    poll_fn(|cx| {
        if let Poll::Ready(output) = Pin::new(&mut *one).poll(cx) {
            return Poll::Ready(First::Committed(output));
        }
        Pin::new(&mut *other).poll(cx).map(First::Verdict)
    })
    .await
}
