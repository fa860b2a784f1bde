//! One attempt: reads a message, hands it on as far as its recipients share a route, and writes down what came of it.

use std::rc::Rc;
use std::time::Duration;

use super::fate::{self, Fate};
use super::letter::Letter;
use super::source::{Last, Outgoing, Source};
use super::{Delivery, Hop};
use crate::custody::Custody;
use crate::egress::pipelined;
use crate::egress::stream::UpstreamStream;
use crate::envelope::Envelope;
use crate::ingress::sink::{Answer, Next, Sink};
use crate::io::files::Files;
use crate::io::{Flight, Io};
use crate::limits::PIPELINED_OCTETS_MAX;
use crate::meter::{Direction, RecipientOutcome};
use crate::smtp::params::Rcpt;
use crate::smtp::reply::{self, Reply};
use crate::smtp::server::Proof;
use crate::spool::entry::State;
use crate::spool::schedule::{After, Outcome};
use crate::spool::{self, ReadFault};
use crate::units::QueueId;

impl<I: Io, F: Files> Delivery<I, F> {
    /// Attempts a message that is under way by the schedule.
    pub(super) async fn attempt(self: &Rc<Self>, id: QueueId) {
        let (mut letter, source) = match self.open(id).await {
            Ok(opened) => opened,
            Err(fault) => return self.unreadable(id, &fault),
        };
        let mut source = Some(source);
        let idle = self.streams.borrow_mut().pop();
        let mut stream = idle.unwrap_or_else(|| UpstreamStream::paid(Rc::clone(&self.egress)));
        let mut fates = Vec::new();
        let mut left = letter.pending();
        while let Some(group) = self.next_group(&letter, &mut left) {
            let body = match source.take() {
                Some(source) => Ok(source),
                // The body was read for the group before.
                None => self.spool.read(id).await.map(|message| Source::Disk(message.body)),
            };
            let heard = match body {
                Ok(body) => self.transact(&mut stream, &letter, body, group).await,
                Err(fault) => {
                    tracing::error!(event = "queue_unreadable", queue_id = %id, reason = %fault);
                    group.into_iter().map(|(place, _)| (place, Fate::Later(reply::LOCAL_ERROR))).collect()
                }
            };
            // The upstream takes no more in one transaction, but it may in another (RFC 5321 §4.5.3.1.10).
            let is_progress = heard.iter().any(|(_, fate)| !matches!(fate, Fate::Later(_)));
            let (again, heard): (Vec<_>, Vec<_>) =
                heard.into_iter().partition(|(_, fate)| is_progress && fate.reply().code() == 452);
            left.extend(again.into_iter().map(|(place, _)| place));
            self.apply(&mut letter, stream.hop(), &heard);
            if is_progress && !left.is_empty() {
                // A crash during the transactions that are left must not have these delivered to again.
                drop(self.spool.update(id, &letter.state));
            }
            fates.extend(heard);
        }
        stream.reset();
        self.streams.borrow_mut().push(stream);
        self.finish(letter, fate::outcome(&fates)).await;
    }

    /// The message, from memory or from the disk.
    pub(super) async fn open(&self, id: QueueId) -> Result<(Letter, Source<F>), ReadFault> {
        let fresh = self.fresh.borrow_mut().take(id);
        if let Some((entry, body)) = fresh {
            let octets = body.iter().map(|slice| slice.len() as u64).sum();
            let state = State::default();
            return Ok((Letter { id, entry, state, octets }, Source::Memory(body)));
        }
        let message = self.spool.read(id).await?;
        let spool::Message { entry, state, body_octets: octets, body } = message;
        Ok((Letter { id, entry: Rc::new(entry), state, octets }, Source::Disk(body)))
    }

    /// A message that cannot be read is tried again: a disk may come to its senses, and nothing of it is given up.
    pub(super) fn unreadable(&self, id: QueueId, fault: &ReadFault) {
        let is_gone = matches!(fault, ReadFault::Gone);
        if !is_gone {
            tracing::error!(event = "queue_unreadable", queue_id = %id, reason = %fault);
        }
        let mut schedule = self.schedule.borrow_mut();
        if is_gone {
            schedule.finished(id, Outcome::Dropped, self.now(), 0);
        } else {
            schedule.postpone(id, self.now(), self.io.random());
        }
    }

    /// The next recipients that can share a transaction.
    fn next_group(&self, letter: &Letter, left: &mut Vec<usize>) -> Option<Vec<(usize, Rcpt)>> {
        let known: Vec<(usize, Rcpt)> =
            std::mem::take(left).into_iter().filter_map(|place| Some((place, letter.rcpt(place)?))).collect();
        let first = known.first()?.1.clone();
        let (group, others): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|(_, rcpt)| self.egress.share_a_route(&first, rcpt));
        left.extend(others.into_iter().map(|(place, _)| place));
        Some(group)
    }

    /// One transaction.
    async fn transact(
        &self,
        stream: &mut UpstreamStream<I>,
        letter: &Letter,
        source: Source<F>,
        group: Vec<(usize, Rcpt)>,
    ) -> Vec<(usize, Fate)> {
        let (places, rcpts): (Vec<usize>, Vec<Rcpt>) = group.into_iter().unzip();
        let Some(envelope) = letter.envelope() else {
            return places.into_iter().map(|place| (place, Fate::Later(reply::LOCAL_ERROR))).collect();
        };
        stream.reset();
        let source = match self.pipelined(stream, (letter, &envelope), &rcpts, source).await {
            Ok((answers, verdict)) => return fates(places, answers, verdict),
            Err(Some(source)) => source,
            Err(None) => {
                return places.into_iter().map(|place| (place, Fate::Later(reply::LOCAL_ERROR))).collect();
            }
        };
        let answers = stream.recipients(&envelope, &rcpts, Next::Data).await;
        let any = answers.iter().any(Result::is_ok);
        let verdict =
            if any { self.hand_over(stream, &envelope, source).await } else { Err(reply::LOCAL_ERROR) };
        fates(places, answers, verdict)
    }

    /// A small message in one flight, where the upstream takes it so; else its body is given back, unless it cannot be read.
    async fn pipelined(
        &self,
        stream: &mut UpstreamStream<I>,
        (letter, envelope): (&Letter, &Envelope),
        rcpts: &[Rcpt],
        source: Source<F>,
    ) -> Result<pipelined::Outcome, Option<Source<F>>> {
        if letter.octets > PIPELINED_OCTETS_MAX || !stream.may_take_whole() {
            return Err(Some(source));
        }
        let slices = source.whole().await.map_err(|fault| {
            tracing::error!(event = "queue_unreadable", queue_id = %letter.id, reason = %fault);
            None
        })?;
        let start = self.io.now();
        let doubt = self.doubt();
        let outcome = stream.pipelined(envelope, rcpts, &slices).await;
        drop(doubt);
        let now = self.io.now();
        stream.pace().filter(|_| outcome.is_some()).inspect(|pace| pace.note_verdict(now.since(start), now));
        outcome.ok_or(Some(Source::Memory(slices)))
    }

    /// The message itself, to the recipients that were taken.
    async fn hand_over(
        &self,
        stream: &mut UpstreamStream<I>,
        envelope: &Envelope,
        source: Source<F>,
    ) -> Result<Custody, Reply> {
        let form = stream.open(envelope).await?;
        let mut outgoing = Outgoing::new(source, form);
        let mut flight = Flight::default();
        loop {
            let last = match outgoing.next(&mut flight).await {
                Ok(last) => last,
                Err(fault) => {
                    tracing::error!(event = "queue_unreadable", queue_id = %envelope.id, reason = %fault);
                    // Nothing of it may be delivered.
                    stream.reset();
                    return Err(reply::LOCAL_ERROR);
                }
            };
            if last == Last::Yes {
                let start = self.io.now();
                let (form, connection) = stream.at_hand().ok_or(reply::UPSTREAM_LOST)?;
                let doubt = self.doubt();
                let verdict = stream.end(form, connection, &mut flight, outgoing.has_8bit).await;
                drop(doubt);
                let now = self.io.now();
                stream.pace().inspect(|pace| pace.note_verdict(now.since(start), now));
                return verdict;
            }
            stream.body(envelope, &mut flight).await?;
        }
    }

    /// Takes down what was said: in the state, in the log, in the metrics.
    pub(super) fn apply(&self, letter: &mut Letter, hop: Hop<'_>, fates: &[(usize, Fate)]) {
        let now_ms = self.io.unix_ms();
        fate::record(letter, hop, now_ms, fates);
        let delay = Duration::from_millis(now_ms.saturating_sub(letter.entry.arrival_ms));
        let mut meter = self.meter.borrow_mut();
        for (place, fate) in fates {
            log_fate(letter, *place, hop.upstream, fate, delay);
            meter.recipients[label_of(fate)] += 1;
        }
        if fates.iter().any(|(_, fate)| matches!(fate, Fate::Delivered(_))) {
            meter.delivery.record_duration(delay);
            meter.message_octets[Direction::Out] += letter.octets;
        }
    }

    /// What follows from the state that a message has now. `outcome`: what an attempt says about its destination.
    pub(super) async fn finish(self: &Rc<Self>, mut letter: Letter, outcome: Outcome) {
        let id = letter.id;
        let is_open = !letter.pending().is_empty();
        let told = self.return_failed(&mut letter).await && self.tell_relayed(&mut letter).await;
        if !is_open {
            // Where nobody was asked the destination has shown nothing.
            let outcome = if outcome == Outcome::Unreachable { Outcome::Dropped } else { Outcome::Settled };
            return if told { self.settle(id, outcome) } else { self.postpone(letter) };
        }
        let after = self.schedule.borrow_mut().finished(id, outcome, self.now(), self.io.random());
        match after {
            After::Gone => {}
            After::Again { attempts, due_ms } => {
                letter.state.attempts = attempts;
                letter.state.due_ms = due_ms;
                self.warn_of_delay(&mut letter).await;
                self.note_what_is_known(&mut letter);
                if self.is_worth_writing(&letter) {
                    // It counts at once; until it is on the disk a restart would only try again sooner.
                    drop(self.spool.update(id, &letter.state));
                }
            }
            After::Expired => self.give_up(letter).await,
        }
    }

    /// The last room of a spool is for tombstones: that one more attempt was in vain is not worth it.
    fn is_worth_writing(&self, letter: &Letter) -> bool {
        let is_news = letter.pending().len() < letter.entry.recipients.len();
        is_news || letter.state.held || letter.state.delay_told || self.spool.room(0).is_ok()
    }

    /// A notice could not be made durable: it is tried again, however old the message is.
    pub(super) fn postpone(&self, mut letter: Letter) {
        let due = self.schedule.borrow_mut().postpone(letter.id, self.now(), self.io.random());
        if let Some(due_ms) = due {
            letter.state.due_ms = due_ms;
            self.note_what_is_known(&mut letter);
            drop(self.spool.update(letter.id, &letter.state));
        }
    }

    /// What others may have changed during the attempt.
    fn note_what_is_known(&self, letter: &mut Letter) {
        let schedule = self.schedule.borrow();
        letter.state.held = schedule.is_held(letter.id);
        letter.state.delay_told = schedule.is_told(letter.id);
    }

    pub(super) fn settle(&self, id: QueueId, outcome: Outcome) {
        // A crash before the tombstone is on the disk delivers twice; a loss it cannot be.
        self.spool.settle_soon(id);
        self.schedule.borrow_mut().finished(id, outcome, self.now(), self.io.random());
    }
}

/// An answer to each recipient, and the verdict for those that were taken.
fn fates(places: Vec<usize>, answers: Vec<Answer>, verdict: Result<Custody, Reply>) -> Vec<(usize, Fate)> {
    let said = verdict.map_or_else(|refusal| refusal, |custody| custody.reply());
    let fate = |answer: Answer| Fate::of(answer.err().unwrap_or_else(|| said.clone()));
    places.into_iter().zip(answers).map(|(place, answer)| (place, fate(answer))).collect()
}

fn label_of(fate: &Fate) -> RecipientOutcome {
    match fate {
        Fate::Delivered(_) => RecipientOutcome::Delivered,
        Fate::Refused(_) => RecipientOutcome::Bounced,
        Fate::Later(_) => RecipientOutcome::Deferred,
    }
}

/// One line for each recipient's outcome (INTERFACE §4).
fn log_fate(letter: &Letter, place: usize, upstream: &str, fate: &Fate, delay: Duration) {
    let reply = fate.reply();
    let entry = &letter.entry;
    tracing::info!(
        event = fate.event(),
        queue_id = %letter.id,
        client = %entry.client.address,
        listener = entry.client.listener.as_str(),
        from = entry.sender.as_str(),
        to = entry.recipients.get(place).map_or("", |recipient| recipient.address.as_str()),
        nrcpt = entry.recipients.len(),
        size = letter.octets,
        upstream,
        reply = reply.text(),
        code = reply.code(),
        enhanced = reply.enhanced().map(tracing::field::display),
        delay = delay.as_secs_f64(),
    );
}
