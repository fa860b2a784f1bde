//! Drives a spool on the simulated disk, for its tests: tasks in an order that a seed decides, and a disk that answers when
//! it is told to.

use std::cell::RefCell;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Wake, Waker};

use super::{Geometry, Keys, Setup, Spool, Touch, recover};
use crate::io::files::sim::{Entropy, SimDisk};
use crate::units::{Moment, WorkerId};

type Task = Pin<Box<dyn Future<Output = ()>>>;

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Relaxed);
    }
}

/// Tasks that are polled when they are woken, in an order that the seed decides.
#[derive(Default)]
pub(super) struct Tasks {
    tasks: Vec<(Arc<Flag>, Option<Task>)>,
}

impl Tasks {
    pub(super) fn spawn(&mut self, task: impl Future<Output = ()> + 'static) {
        self.tasks.push((Arc::new(Flag(AtomicBool::new(true))), Some(Box::pin(task))));
    }

    /// Polls until nobody is awake.
    pub(super) fn settle(&mut self, entropy: &mut Entropy) {
        loop {
            let awake: Vec<usize> =
                (0..self.tasks.len()).filter(|&at| self.tasks[at].0.0.load(Relaxed)).collect();
            if awake.is_empty() {
                self.tasks.retain(|(_, task)| task.is_some());
                return;
            }
            let (flag, task) = &mut self.tasks[awake[entropy.below(awake.len())]];
            flag.0.store(false, Relaxed);
            let waker = Waker::from(Arc::clone(flag));
            if let Some(polled) = task
                && polled.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
            {
                *task = None;
            }
        }
    }
}

/// Runs one future to its end, completing what is under way.
pub(super) fn finish<T: 'static>(disk: &SimDisk, future: impl Future<Output = T> + 'static) -> T {
    let result = Rc::new(RefCell::new(None));
    let (mut tasks, slot) = (Tasks::default(), Rc::clone(&result));
    tasks.spawn(async move {
        let value = future.await;
        *slot.borrow_mut() = Some(value);
    });
    let mut entropy = Entropy(1);
    loop {
        tasks.settle(&mut entropy);
        if let Some(value) = result.borrow_mut().take() {
            return value;
        }
        assert!(disk.step(), "it waits for nothing");
    }
}

/// The only worker's spool, as a start finds it on this disk.
pub(super) fn open(disk: &SimDisk) -> Spool<SimDisk> {
    let directory = Path::new("spool").to_owned();
    let setup =
        Setup { directory, geometry: geometry(), octets_max: 1 << 22, workers: 1, touch: Touch::Tidy };
    let files = disk.clone();
    let recovered = finish(disk, async move { recover(&files, &setup, |_| Keys::default()).await });
    Spool::open(disk.clone(), WorkerId(0), recovered.unwrap().shards.remove(0), clock)
}

pub(super) fn geometry() -> Geometry {
    Geometry { segment_octets: 64 * 1024, batch_octets: 8192, chunk_octets: 2048, spares: 1 }
}

pub(super) fn clock() -> Moment {
    Moment(0)
}

pub(super) fn seeds(count: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok().and_then(|seed| seed.parse().ok());
    match number("RINGPOST_SPOOL_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("RINGPOST_SPOOL_SEEDS").unwrap_or(count)).collect(),
    }
}
