//! The patient hybrid: a [`Sink`] that streams to the upstream as long as the client's patience lasts, and falls back on
//! the spool.
//!
//! Theory of operation. A transaction goes one of two ways. *Streaming*: recipients and body go to the upstream as with
//! `DELIVERY_PATIENCE=forever`, and the slices stay referenced. What the upstream refuses for good is passed through. What it
//! puts off, or does not say in time, is taken for later: one recipient, or the message. *Spool*: nobody is asked, the message
//! is committed at its end; also the way of a transaction whose stream has come to nothing.
//!
//! At the end of data the stream's verdict is driven within the session's own task. When the patience ends, or is expected
//! to ([`Pace`](super::pace::Pace)), the message is committed while the stream goes on; the receipt answers the client, and
//! the stream moves to a task of its own, whose verdict settles the message.
//!
//! What it must not do: say 250 by itself; drop a stream that is under way; hold a client beyond its patience where the spool
//! takes mail; take mail for later where it does not.

mod ending;
mod kept;

use std::cell::OnceCell;
use std::rc::Rc;
use std::time::Duration;

use self::kept::Kept;
use super::Egress;
use super::config::Patience;
use super::delivery::{Delivery, Parcel, refusal_of};
use super::stream::UpstreamStream;
use crate::custody::Custody;
use crate::envelope::Envelope;
use crate::ingress::sink::{Answer, Content, Next, Sink};
use crate::io::files::Files;
use crate::io::{Flight, Io};
use crate::limits::UPSTREAM_STALL_MIN;
use crate::smtp::body::Form;
use crate::smtp::params::{Mail, Rcpt};
use crate::smtp::reply::{self, Reply};
use crate::spool::entry::Entry;

/// One session's sink.
pub struct Patient<I: Io, F: Files> {
    egress: Rc<Egress<I>>,
    stream: Option<Box<UpstreamStream<I>>>,
    /// Where the queue is, once there is a spool.
    berth: Berth<I, F>,
    hybrid: Option<Hybrid<I, F>>,
    way: Way,
    /// Whether the stream was made for a transaction without patience.
    is_plain: bool,
}

/// The place of a worker's queue: it is filled once, when there is a spool.
pub type Berth<I, F> = Rc<OnceCell<Rc<Delivery<I, F>>>>;

/// What a sink with a spool has besides.
struct Hybrid<I: Io, F: Files> {
    delivery: Rc<Delivery<I, F>>,
    /// The patience of this transaction.
    patience: Duration,
    /// Whether the spool would take the message.
    can_queue: bool,
    /// For each accepted recipient: whether it is taken for later.
    later: Vec<Option<Later>>,
    kept: Kept<F>,
    /// The last message went to the spool: recipients of these places await delivery.
    queued: Vec<bool>,
}

/// Why a recipient is taken for later.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Later {
    /// No upstream was asked, or it did not answer: its turn is now.
    Unasked,
    /// An upstream was asked, and this came of it: its turn is after the first of `QUEUE_RETRY`.
    PutOff(Reply),
}

/// How a transaction goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Nothing was said yet.
    Open,
    /// `forever`: as the plain stream does it.
    Plain,
    /// To the upstream, with the spool behind it.
    Streaming,
    /// To the spool.
    Spool,
}

impl<I: Io, F: Files> Patient<I, F> {
    /// The sink of one session; as long as there is no queue its patience is without end.
    #[must_use]
    pub fn new(egress: Rc<Egress<I>>, berth: Berth<I, F>) -> Self {
        Self { egress, stream: None, berth, hybrid: None, way: Way::Open, is_plain: true }
    }

    /// The stream as it is without patience.
    fn plain(&mut self) -> &mut UpstreamStream<I> {
        self.stream.get_or_insert_with(|| Box::new(UpstreamStream::new(Rc::clone(&self.egress))))
    }

    /// A stream that was made for the other way has other manners.
    fn fit_stream(&mut self) {
        let is_plain = self.way == Way::Plain;
        if is_plain != self.is_plain {
            self.stream = None;
            self.is_plain = is_plain;
        }
    }

    /// How this transaction is to go, as far as that is known before anybody is asked.
    fn choose(&mut self, envelope: &Envelope, first: &Rcpt) -> Way {
        if self.hybrid.is_none() {
            self.hybrid = self.berth.get().map(Hybrid::new);
        }
        let (Some(hybrid), Patience::Within(patience)) =
            (&mut self.hybrid, self.egress.config().delivery_patience)
        else {
            return Way::Plain;
        };
        hybrid.patience = patience;
        let room = hybrid.delivery.room(envelope.mail.params.size.unwrap_or(0));
        hybrid.can_queue = room.is_ok();
        if patience.is_zero() {
            return Way::Spool;
        }
        if !hybrid.can_queue {
            return Way::Plain;
        }
        let now = self.egress.io.now();
        let Ok(pool) = self.egress.prospect(first) else { return Way::Spool };
        if pool.is_some_and(|pool| pool.pace.has_slow_envelopes(patience, now)) {
            return Way::Spool;
        }
        if self.egress.bucket().is_some_and(|bucket| bucket.take(now).is_err()) {
            return Way::Spool;
        }
        Way::Streaming
    }

    /// Asks the upstream about recipients, for as long as the patience lasts.
    async fn ask(&mut self, envelope: &Envelope, rcpts: &[Rcpt], next: Next) -> Vec<Answer> {
        let (delivery, patience) = match &self.hybrid {
            Some(hybrid) => (Rc::clone(&hybrid.delivery), hybrid.patience),
            None => return vec![Err(reply::LOCAL_ERROR); rcpts.len()],
        };
        let mut stream = self.stream.take().unwrap_or_else(|| {
            let stall = patience.max(UPSTREAM_STALL_MIN);
            Box::new(UpstreamStream::paid(Rc::clone(&self.egress)).impatient(stall))
        });
        let (envelope, asked) = (nameless(envelope), rcpts.to_vec());
        let start = self.egress.io.now();
        let asking = Box::pin(async move {
            let answers = stream.recipients(&envelope, &asked, next).await;
            (stream, answers)
        });
        match delivery.waits.within(asking, start.after(patience)).await {
            Ok((stream, answers)) => {
                let now = self.egress.io.now();
                stream.pace().inspect(|pace| pace.note_envelope(now.since(start), now));
                self.stream = Some(stream);
                answers
            }
            Err(late) => {
                let io = self.egress.io.clone();
                self.egress.io.spawn(async move {
                    let (mut stream, _nobody_hears) = late.await;
                    let now = io.now();
                    stream.pace().inspect(|pace| pace.note_envelope(now.since(start), now));
                    stream.reset();
                });
                self.fall_back(&Later::Unasked);
                vec![Err(reply::UPSTREAM_UNREACHABLE); rcpts.len()]
            }
        }
    }

    /// The stream has come to nothing: what was promised to the client is kept by the spool.
    fn fall_back(&mut self, why: &Later) {
        self.way = Way::Spool;
        if let Some(stream) = &mut self.stream {
            stream.reset();
        }
        if let Some(hybrid) = &mut self.hybrid {
            for later in &mut hybrid.later {
                later.get_or_insert_with(|| why.clone());
            }
        }
    }

    /// Opens the message at the upstream, for as long as the patience lasts.
    async fn open_stream(&mut self, envelope: &Envelope) -> Result<Form, Reply> {
        let Some(mut stream) = self.stream.take() else { return Err(reply::UPSTREAM_LOST) };
        if stream.opens_at_once() {
            let opened = stream.open(envelope).await;
            self.stream = Some(stream);
            return opened;
        }
        let Some(hybrid) = &self.hybrid else { return Err(reply::LOCAL_ERROR) };
        let envelope = nameless(envelope);
        let by = self.egress.io.now().after(hybrid.patience);
        let opening = Box::pin(async move {
            let opened = stream.open(&envelope).await;
            (stream, opened)
        });
        match hybrid.delivery.waits.within(opening, by).await {
            Ok((stream, opened)) => {
                self.stream = Some(stream);
                opened
            }
            Err(late) => {
                self.egress.io.spawn(async move { late.await.0.reset() });
                Err(reply::UPSTREAM_LOST)
            }
        }
    }

    /// Keeps the slices and sends them on.
    async fn stream_body(&mut self, envelope: &Envelope, slices: &mut Flight) -> Result<(), Reply> {
        let (Some(hybrid), Some(stream)) = (&mut self.hybrid, &mut self.stream) else {
            return Err(reply::LOCAL_ERROR);
        };
        if hybrid.can_queue {
            let kept = hybrid.kept.keep(slices.slices(), &hybrid.delivery.spool, envelope.id).await;
            if kept.is_err() {
                // From here on it is the stream or nothing.
                hybrid.can_queue = false;
                hybrid.kept.clear();
            }
        }
        let Some((form, connection)) = stream.at_hand() else { return Err(reply::UPSTREAM_LOST) };
        stream.send(form, connection, slices).await
    }
}

impl<I: Io, F: Files> Hybrid<I, F> {
    fn new(delivery: &Rc<Delivery<I, F>>) -> Self {
        Self {
            kept: Kept::new(Rc::clone(&delivery.kept)),
            delivery: Rc::clone(delivery),
            patience: Duration::ZERO,
            can_queue: false,
            later: Vec::new(),
            queued: Vec::new(),
        }
    }

    /// A transaction begins, or is over.
    fn clear(&mut self) {
        self.later.clear();
        self.kept.clear();
        self.queued.clear();
    }

    /// The places of the recipients that are taken for later.
    fn places_for_later(&self) -> Vec<usize> {
        (0..self.later.len()).filter(|&place| self.later[place].is_some()).collect()
    }

    /// The message for these recipients.
    fn parcel(&mut self, envelope: &Envelope, places: &[usize], content: &Content<'_>) -> Parcel<F> {
        let entry: Entry = self.delivery.entry(envelope, places.iter().copied(), &content.client);
        let (body, draft) = self.kept.take();
        Parcel { entry, body, draft }
    }

    fn note_queued(&mut self, places: &[usize]) {
        self.queued = vec![false; self.later.len()];
        places.iter().for_each(|&place| self.queued[place] = true);
    }
}

/// An envelope without recipients, for a stream that may outlive its session's transaction.
fn nameless(envelope: &Envelope) -> Envelope {
    Envelope { mail: envelope.mail.clone(), recipients: Vec::new(), ..*envelope }
}

impl<I: Io, F: Files> Sink for Patient<I, F> {
    fn begin(&self, mail: &Mail) -> Result<(), Reply> {
        match (self.berth.get(), self.egress.config().delivery_patience) {
            // RFC 5321 §6.1: what can be foreseen is said before the client sends anything.
            (Some(delivery), Patience::Within(Duration::ZERO)) => {
                delivery.room(mail.params.size.unwrap_or(0))
            }
            // The spool is not there for want of room.
            (None, Patience::Within(Duration::ZERO)) => Err(reply::STORAGE_FULL),
            _ => Ok(()),
        }
    }

    async fn recipients(&mut self, envelope: &Envelope, rcpts: &[Rcpt], next: Next) -> Vec<Answer> {
        let Some(rcpt) = rcpts.first() else { return Vec::new() };
        if self.way == Way::Open {
            self.way = self.choose(envelope, rcpt);
            self.fit_stream();
        }
        if self.way == Way::Plain {
            return self.plain().recipients(envelope, rcpts, next).await;
        }
        let mut answers = match self.way {
            Way::Streaming => self.ask(envelope, rcpts, next).await,
            _ => Vec::new(),
        };
        let is_asked = self.way == Way::Streaming;
        let room = self.hybrid.as_ref().map_or(Err(reply::LOCAL_ERROR), |hybrid| {
            hybrid.delivery.room(envelope.mail.params.size.unwrap_or(0))
        });
        answers.resize(rcpts.len(), Err(reply::UPSTREAM_UNREACHABLE));
        let Some(hybrid) = &mut self.hybrid else { return answers };
        for answer in &mut answers {
            let later = match answer {
                Ok(()) => None,
                Err(refusal) if refusal.is_permanent() => continue,
                Err(refusal) if is_heard(refusal) && is_asked => Some(Later::PutOff(refusal.clone())),
                Err(_) => Some(Later::Unasked),
            };
            if later.is_some() {
                if let Err(full) = &room {
                    *answer = Err(full.clone());
                    continue;
                }
                *answer = Ok(());
            }
            hybrid.later.push(later);
        }
        answers
    }

    async fn open(&mut self, envelope: &Envelope) -> Result<Form, Reply> {
        if self.way == Way::Plain {
            return self.plain().open(envelope).await;
        }
        let is_wanted = self.stream.as_ref().is_some_and(|stream| stream.has_recipients());
        let opened = match self.way {
            Way::Streaming if is_wanted => self.open_stream(envelope).await,
            _ => Err(reply::UPSTREAM_LOST),
        };
        let form = match opened {
            Ok(form) => form,
            Err(refusal) if refusal.is_permanent() || !self.can_queue() => return Err(refusal),
            Err(refusal) => {
                let why = if is_heard(&refusal) { Later::PutOff(refusal) } else { Later::Unasked };
                self.fall_back(&why);
                Form::Plain
            }
        };
        if let Some(hybrid) = &mut self.hybrid {
            hybrid.kept.begin(form);
        }
        Ok(form)
    }

    async fn body(&mut self, envelope: &Envelope, slices: &mut Flight) -> Result<(), Reply> {
        match self.way {
            Way::Plain => return self.plain().body(envelope, slices).await,
            Way::Streaming => match self.stream_body(envelope, slices).await {
                Err(refusal) if !refusal.is_permanent() && self.can_queue() => {
                    tracing::info!(event = "stream_given_up", queue_id = %envelope.id, reply = %refusal);
                    self.fall_back(&Later::Unasked);
                }
                sent => return sent,
            },
            _ => {
                let Some(hybrid) = &mut self.hybrid else { return Err(reply::LOCAL_ERROR) };
                let kept = hybrid.kept.keep(slices.slices(), &hybrid.delivery.spool, envelope.id);
                kept.await.map_err(refusal_of)?;
            }
        }
        slices.clear();
        Ok(())
    }

    async fn finish(
        &mut self,
        envelope: &Envelope,
        rest: &mut Flight,
        content: Content<'_>,
    ) -> Result<Custody, Reply> {
        if self.way == Way::Plain {
            let verdict = self.plain().finish(envelope, rest, content).await;
            if let Ok(custody) = &verdict {
                self.tell_relayed(envelope, &content, custody).await;
            }
            return verdict;
        }
        if let Some(hybrid) = &mut self.hybrid
            && hybrid.can_queue
        {
            hybrid.kept.keep_last(rest.slices());
        }
        if self.way == Way::Streaming {
            return self.finish_stream(envelope, rest, &content).await;
        }
        rest.clear();
        self.commit_later(envelope, &content).await
    }

    fn reset(&mut self) {
        self.way = Way::Open;
        if let Some(stream) = &mut self.stream {
            stream.reset();
        }
        if let Some(hybrid) = &mut self.hybrid {
            hybrid.clear();
        }
    }

    fn upstream(&self) -> Option<&str> {
        let stream = self.stream.as_ref().filter(|_| self.way != Way::Spool)?;
        stream.upstream()
    }

    fn upstream_tls(&self) -> &str {
        self.stream.as_ref().map_or("none", |stream| stream.upstream_tls())
    }

    fn is_queued(&self, recipient: usize) -> bool {
        self.hybrid.as_ref().is_some_and(|hybrid| hybrid.queued.get(recipient).copied().unwrap_or(false))
    }
}

/// Whether an upstream has said this, and not we in its place.
fn is_heard(refusal: &Reply) -> bool {
    let ours =
        [reply::UPSTREAM_UNREACHABLE, reply::UPSTREAM_BUSY, reply::UPSTREAM_LOST, reply::TOO_MANY_RECIPIENTS];
    !ours.contains(refusal)
}
