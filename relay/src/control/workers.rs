//! Asks the workers: the control plane's side of [`crate::orders`], with a time limit on every answer.
//!
//! An order goes to all workers first, then the answers are awaited until one common deadline, so that a stuck
//! worker costs its limit once. Runs on tokio; must not be used by a worker.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::egress::operator::QueueOrder;
use crate::limits;
use crate::meter::Meter;
use crate::orders::{self, Drained, Order, Reply, Settings};

/// The workers, as the control plane knows them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Workers {
    senders: Arc<[flume::Sender<Order>]>,
}

/// How the drain of all workers ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DrainEnd {
    /// Sessions cut in the middle of a transaction.
    pub sessions_cut: u64,
    /// Workers that did not answer in time.
    pub workers_stuck: usize,
}

impl Workers {
    /// The workers behind these channels, in the order of their numbers.
    #[must_use]
    pub fn new(senders: Vec<flume::Sender<Order>>) -> Self {
        Self { senders: senders.into() }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.senders.len()
    }

    /// A copy of each worker's meter; `None` for one that did not answer in time.
    pub async fn snapshots(&self) -> Vec<Option<Box<Meter>>> {
        self.ask(Order::Snapshot, limits::WORKER_ANSWER_TIMEOUT).await
    }

    /// Puts settings in force on all workers.
    ///
    /// # Errors
    /// What the workers that keep their old settings say. The caller restores the others.
    pub async fn reload(&self, settings: &Settings) -> Result<(), Vec<String>> {
        let order = |reply| Order::Reload(settings.clone(), reply);
        let answers = self.ask(order, limits::WORKER_ANSWER_TIMEOUT).await;
        let mistakes: Vec<String> = answers
            .into_iter()
            .enumerate()
            .filter_map(|(worker, answer)| match answer {
                Some(Ok(())) => None,
                Some(Err(reason)) => Some(reason),
                None => Some(format!("worker {worker} did not answer")),
            })
            .collect();
        if mistakes.is_empty() { Ok(()) } else { Err(mistakes) }
    }

    /// Drains all workers; ends when the last has answered, or a little after the time is over.
    pub async fn drain(&self, within: Duration) -> DrainEnd {
        let order = |done| Order::Drain { within, done };
        let answers: Vec<Option<Drained>> = self.ask(order, within + limits::WORKER_ANSWER_TIMEOUT).await;
        DrainEnd {
            sessions_cut: answers.iter().flatten().map(|drained| drained.sessions_cut).sum(),
            workers_stuck: answers.iter().filter(|answer| answer.is_none()).count(),
        }
    }

    /// Makes all workers attempt now what waits; says how many messages that are.
    pub async fn flush(&self) -> u64 {
        self.ask(Order::Flush, limits::WORKER_ANSWER_TIMEOUT).await.into_iter().flatten().sum()
    }

    /// Hands an order about messages to all workers; says how many took it. Each answers with its own
    /// [`Line::End`](crate::egress::operator::Line::End).
    #[must_use]
    pub fn queue(&self, order: &QueueOrder) -> usize {
        let takes = |sender: &&flume::Sender<Order>| sender.try_send(Order::Queue(order.clone())).is_ok();
        self.senders.iter().filter(takes).count()
    }

    async fn ask<T>(&self, order: impl Fn(Reply<T>) -> Order, within: Duration) -> Vec<Option<T>> {
        let deadline = Instant::now() + within;
        let pending: Vec<Option<flume::Receiver<T>>> = self
            .senders
            .iter()
            .map(|sender| {
                let (reply, answer) = orders::reply();
                // A full channel means that the worker has not looked at it for many orders: stuck.
                sender.try_send(order(reply)).ok().map(|()| answer)
            })
            .collect();
        let mut answers = Vec::with_capacity(pending.len());
        for answer in pending {
            answers.push(match answer {
                Some(answer) => timeout_at(deadline, answer.recv_async()).await.ok().and_then(Result::ok),
                None => None,
            });
        }
        answers
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::control::tests::settings;
    use crate::egress::operator::{Line, Tally};
    use crate::meter::Listener;

    /// A worker that answers at once, on a thread of its own, until it is drained or nobody asks any more.
    pub(in crate::control) fn obedient(meter: Meter, accepts_reload: bool) -> flume::Sender<Order> {
        let (sender, orders) = orders::channel();
        std::thread::spawn(move || {
            for order in orders {
                match order {
                    Order::Snapshot(reply) => drop(reply.send(Box::new(meter.clone()))),
                    Order::Reload(_, reply) => {
                        let answer = if accepts_reload { Ok(()) } else { Err("no".to_owned()) };
                        drop(reply.send(answer));
                    }
                    Order::Flush(reply) => drop(reply.send(2)),
                    Order::Queue(order) => drop(order.lines.send(Line::End(Tally::default()))),
                    Order::Drain { done, .. } => {
                        let _ = done.send(Drained { sessions_cut: 1 });
                        return;
                    }
                }
            }
        });
        sender
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_does_not_answer_is_told_from_one_that_does() {
        let mut meter = Meter::default();
        meter.sessions_open[Listener::Smtp] = 3;
        let (silent, _orders) = orders::channel();
        let workers = Workers::new(vec![obedient(meter, true), silent]);
        let snapshots = workers.snapshots().await;
        assert!(snapshots[1].is_none());
        // The paused clock may run ahead of a real thread: ask until it has answered.
        let mut first = snapshots[0].clone();
        while first.is_none() {
            first = workers.snapshots().await.swap_remove(0);
        }
        assert_eq!(first.unwrap().sessions_open[Listener::Smtp], 3);
    }

    #[tokio::test]
    async fn a_worker_that_is_gone_counts_as_stuck_at_once() {
        let (gone, orders) = orders::channel();
        drop(orders);
        let end =
            Workers::new(vec![obedient(Meter::default(), true), gone]).drain(Duration::from_secs(600)).await;
        assert_eq!(end, DrainEnd { sessions_cut: 1, workers_stuck: 1 });
    }

    #[tokio::test]
    async fn a_full_channel_counts_as_stuck_without_waiting() {
        let (full, _orders) = orders::channel();
        while full.try_send(Order::Snapshot(orders::reply().0)).is_ok() {}
        assert!(Workers::new(vec![full]).snapshots().await[0].is_none());
    }

    #[tokio::test]
    async fn a_reload_tells_what_each_refusing_worker_says() {
        let workers = vec![obedient(Meter::default(), true), obedient(Meter::default(), false)];
        assert_eq!(Workers::new(workers).reload(&settings()).await, Err(vec!["no".to_owned()]));
    }
}
