//! Sinks that do what a relay must never do, to see that the ledger tells.

use ringpost::custody::Custody;
use ringpost::egress::stream::UpstreamStream;
use ringpost::envelope::Envelope;
use ringpost::ingress::sink::{Answer, Content, Next, Sink};
use ringpost::io::Flight;
use ringpost::io::sim::World;
use ringpost::smtp::body::Form;
use ringpost::smtp::client::{Expect, UpstreamReply};
use ringpost::smtp::params::Rcpt;
use ringpost::smtp::reply::{self, Reply};

/// What is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// Says 250 where the upstream has not.
    AcksAlone,
    /// Forgets every third slice that it is given.
    LosesSlices,
    /// Gives recipients each other's verdicts.
    SwapsVerdicts,
    /// Takes a recipient without asking.
    TakesUnasked,
    /// Turns "later" into "never".
    Hardens,
    /// Tells the client "later" of a message that was taken.
    Disowns,
}

pub(crate) const ALL: &[Mutation] = &[
    Mutation::AcksAlone,
    Mutation::LosesSlices,
    Mutation::SwapsVerdicts,
    Mutation::TakesUnasked,
    Mutation::Hardens,
    Mutation::Disowns,
];

/// The real sink with one fault.
pub(crate) struct Mutant {
    inner: UpstreamStream<World>,
    mutation: Mutation,
    slices: usize,
}

impl Mutant {
    pub(crate) fn new(inner: UpstreamStream<World>, mutation: Mutation) -> Self {
        Self { inner, mutation, slices: 0 }
    }
}

impl Sink for Mutant {
    async fn recipients(&mut self, envelope: &Envelope, rcpts: &[Rcpt], next: Next) -> Vec<Answer> {
        if self.mutation == Mutation::TakesUnasked && rcpts.len() > 1 {
            let mut answers = self.inner.recipients(envelope, &rcpts[1..], next).await;
            answers.insert(0, Ok(()));
            return answers;
        }
        let mut answers = self.inner.recipients(envelope, rcpts, next).await;
        if self.mutation == Mutation::SwapsVerdicts {
            answers.reverse();
        }
        answers
    }

    async fn open(&mut self, envelope: &Envelope) -> Result<Form, Reply> {
        self.inner.open(envelope).await
    }

    async fn body(&mut self, envelope: &Envelope, slices: &mut Flight) -> Result<(), Reply> {
        self.slices += 1;
        if self.mutation == Mutation::LosesSlices && self.slices.is_multiple_of(3) {
            slices.clear();
            return Ok(());
        }
        self.inner.body(envelope, slices).await
    }

    async fn finish(
        &mut self,
        envelope: &Envelope,
        rest: &mut Flight,
        content: Content<'_>,
    ) -> Result<Custody, Reply> {
        let verdict = self.inner.finish(envelope, rest, content).await;
        match (self.mutation, verdict) {
            (Mutation::AcksAlone, Err(refusal)) => invented().ok_or(refusal),
            (Mutation::Disowns, Ok(_)) => Err(reply::UPSTREAM_LOST),
            (Mutation::Hardens, Err(refusal)) if refusal.is_transient() => Err(reply::RECIPIENT_DENIED),
            (_, verdict) => verdict,
        }
    }

    fn reset(&mut self) {
        self.inner.reset();
    }

    fn upstream(&self) -> Option<&str> {
        self.inner.upstream()
    }
}

/// A custody that nobody has.
fn invented() -> Option<Custody> {
    let reply = UpstreamReply { code: 250, enhanced: None, text: "taken".into() };
    Custody::of_upstream(Expect::Message, &reply)
}
