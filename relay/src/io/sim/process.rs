//! Processes of the simulated world: what runs, listens and holds connections together, and ends together.
//!
//! A killed process gets no last word of its own: its tasks are dropped where they stand. Its connections are closed, as
//! a kernel does it for a process that is gone. Also here: tasks that are lost on purpose, for mutants, and the course of
//! the world as one number.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use super::{SimStream, World};
use crate::io::Io;

/// Processes that have ended, and the names of tasks that are lost.
#[derive(Debug, Default)]
pub(super) struct Processes {
    last: u64,
    ended: BTreeSet<u64>,
    losses: Vec<(u64, &'static str)>,
}

/// Something that runs, and the process that it ends with.
pub(super) struct Task {
    pub(super) process: u64,
    pub(super) future: Pin<Box<dyn Future<Output = ()>>>,
}

/// An address that is served, and the process that serves it.
pub(super) struct Listener {
    pub(super) process: u64,
    pub(super) serve: Rc<dyn Fn(SimStream)>,
}

impl World {
    /// A hand in the same world for a new process.
    #[must_use]
    pub fn process(&self) -> Self {
        let mut processes = self.inner.processes.borrow_mut();
        processes.last += 1;
        Self { inner: self.inner.clone(), process: processes.last }
    }

    /// Ends this process: its tasks stop where they are, its addresses refuse, its connections close.
    pub fn kill(&self) {
        self.inner.processes.borrow_mut().ended.insert(self.process);
        let is_ours = |process: u64| process == self.process;
        // Nothing is borrowed while things are dropped: that may wake others.
        let (ours, others) =
            self.inner.listeners.take().into_iter().partition(|(_, one)| is_ours(one.process));
        self.inner.listeners.replace(others);
        drop::<BTreeMap<_, _>>(ours);
        let (ours, others) = self.inner.tasks.take().into_iter().partition(|(_, one)| is_ours(one.process));
        self.inner.tasks.replace(others);
        drop::<BTreeMap<_, _>>(ours);
    }

    /// Tasks of this process whose type's name holds this never run: a mutant that forgets them.
    pub fn lose_tasks(&self, name: &'static str) {
        self.inner.processes.borrow_mut().losses.push((self.process, name));
    }

    /// A number that follows from everything that has happened so far: two runs of one seed have the same.
    #[must_use]
    pub fn course(&self) -> u64 {
        self.inner.course.get()
    }

    pub(super) fn refuses(&self, name: &str) -> bool {
        let processes = self.inner.processes.borrow();
        let is_lost = |loss: &(u64, &str)| loss.0 == self.process && name.contains(loss.1);
        processes.ended.contains(&self.process) || processes.losses.iter().any(is_lost)
    }

    /// Takes down that a task goes on now.
    pub(super) fn note(&self, task: u64) {
        // FNV-1a over what tells courses apart: who, when, and by which randomness.
        let facts = [task, self.now().0, self.inner.random.get()];
        let mixed = facts.iter().fold(self.inner.course.get(), |course, fact| {
            (course ^ fact).wrapping_mul(0x0100_0000_01B3).rotate_left(23)
        });
        self.inner.course.set(mixed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::io::Stream;
    use crate::io::buffer::{Buffer, Size};
    use crate::io::sim::Faults;
    use crate::units::Moment;

    #[test]
    fn a_killed_process_says_and_serves_nothing_more() {
        let world = World::new(1, Faults::NONE);
        let address = "198.18.0.1:25".parse().unwrap();
        let server = world.process();
        let host = server.clone();
        server.listen(address, move |mut stream| {
            let host = host.clone();
            host.clone().spawn(async move {
                host.sleep(Duration::from_secs(2)).await;
                let _ = stream.send_octets(b"late".to_vec(), Moment::NEVER).await;
            });
        });
        let io = world.clone();
        let heard = world.run(Moment(60_000_000), async move {
            let mut stream = io.connect(address, Moment::NEVER).await.unwrap();
            io.sleep(Duration::from_secs(1)).await;
            server.kill();
            server.spawn(async { unreachable!("the dead do nothing") });
            let end = stream.receive(Buffer::take(Size::Command), Moment::NEVER).await.0;
            let again = io.connect(address, Moment::NEVER).await;
            (end.ok(), again.is_err())
        });
        assert_eq!(heard, Some((Some(0), true)));
    }

    #[test]
    fn a_lost_task_never_runs_and_the_others_do() {
        let world = World::new(1, Faults::NONE);
        let process = world.process();
        process.lose_tasks("forgotten");
        async fn forgotten() {
            unreachable!("it is lost");
        }
        let io = process.clone();
        let ran = world.run(Moment(1_000_000), async move {
            process.spawn(forgotten());
            let (told, hears) = flume::bounded(1);
            process.spawn(async move { assert!(told.send(7).is_ok()) });
            hears.recv_async().await.ok()
        });
        drop(io);
        assert_eq!(ran.flatten(), Some(7));
    }
}
