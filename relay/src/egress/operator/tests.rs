//! An operator's words on a real spool, with deliveries that go on beside them.

use std::cell::RefCell;
use std::future::Future;
use std::path::Path;

use bytes::Bytes;
use futures_lite::future::{block_on, yield_now};

use super::*;
use crate::io::files::blocking::BlockingFiles;
use crate::spool::entry::Entry;
use crate::spool::entry::tests::entry;
use crate::spool::schedule::Retry;
use crate::spool::{Geometry, Keys, Next, Setup, Terms, Touch, recover};
use crate::units::{Moment, QueueIds, WorkerId};
use std::time::Duration;

struct Bench {
    spool: Spool<BlockingFiles>,
    schedule: RefCell<Schedule>,
}

const NOW: Now = Now { moment: Moment(1_000_000), unix_ms: 1_790_000_000_000 };

fn open(directory: &Path) -> Bench {
    let setup = Setup {
        directory: directory.to_owned(),
        geometry: Geometry::for_budget(32 << 20, 1),
        octets_max: 32 << 20,
        workers: 1,
        touch: Touch::Tidy,
    };
    let recovered = block_on(recover(&BlockingFiles, &setup, |_| Keys::default())).unwrap();
    let shard = recovered.shards.into_iter().next().unwrap();
    let mut schedule = Schedule::new(Retry::new(Vec::new(), Duration::from_secs(3600)), 10);
    shard.summaries().for_each(|summary| schedule.insert(&summary, NOW));
    let spool = Spool::open(BlockingFiles, WorkerId(0), shard, || Moment(0));
    Bench { spool, schedule: RefCell::new(schedule) }
}

impl Bench {
    /// Runs a future beside the spool's own tasks.
    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let tasks = futures_lite::future::zip(self.spool.clone().write(yield_now), self.spool.clone().keep());
        let never = async {
            tasks.await;
            std::future::pending().await
        };
        block_on(futures_lite::future::or(future, never))
    }

    fn queue(&self) -> Queue<'_, BlockingFiles> {
        let Self { spool, schedule } = self;
        Queue { spool, schedule, now: &|| NOW, changes: &|_| {}, returned: &|_| {} }
    }

    async fn commit(&self, id: QueueId, entry: &Entry) {
        let terms = Terms { keys: Keys::default(), next: Next::Schedule };
        let body = [Bytes::from_static(b"Subject: x\r\n\r\nText\r\n")];
        self.spool.commit(id, entry, &body, terms).await.unwrap();
        let summary = self.spool.summary(id).unwrap();
        self.schedule.borrow_mut().insert(&summary, NOW);
    }

    async fn say(&self, selector: Selector, action: Action) -> (Vec<Line>, Tally) {
        let (lines, answer) = flume::unbounded();
        let order = QueueOrder { selector, action, lines };
        let queue = self.queue();
        obey(queue, &order).await;
        let mut lines: Vec<Line> = answer.try_iter().collect();
        match lines.pop() {
            Some(Line::End(tally)) => (lines, tally),
            other => panic!("no end: {other:?}"),
        }
    }

    async fn row(&self, id: QueueId) -> Row {
        match self.say(Selector::Ids(vec![id]), Action::Show).await.0.pop() {
            Some(Line::Row(row)) => *row,
            other => panic!("no row: {other:?}"),
        }
    }
}

fn ids<const COUNT: usize>() -> [QueueId; COUNT] {
    let mut ids = QueueIds::new(77, WorkerId(0));
    std::array::from_fn(|_| ids.issue())
}

fn one(id: QueueId) -> Selector {
    Selector::Ids(vec![id])
}

fn tally(matched: u64, done: u64, under_way: u64) -> Tally {
    Tally { matched, done, under_way, failed: 0 }
}

#[test]
fn each_word_is_durable_and_means_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let [a, b, c, d, unknown] = ids();
    let bench = open(directory.path());
    bench.run(async {
        for (id, sender) in [(a, "a@example.org"), (b, "b@example.org"), (c, "c@example.org"), (d, "")] {
            bench.commit(id, &entry(sender, &["to@example.net"], NOW.unix_ms)).await;
        }
        assert_eq!(bench.say(one(a), Action::Hold).await.1, tally(1, 1, 0));
        assert_eq!(bench.say(one(b), Action::Delete).await.1, tally(1, 1, 0));
        let c_sender = Selector::Sender("C@example.org".to_owned());
        assert_eq!(bench.say(c_sender, Action::Bounce).await.1, tally(1, 1, 0));
        for action in [Action::Show, Action::Hold, Action::Delete, Action::Bounce, Action::Requeue] {
            assert_eq!(bench.say(one(unknown), action).await.1, tally(0, 0, 0));
        }
        assert_eq!(bench.say(Selector::All, Action::List).await.1, tally(3, 3, 0));
    });
    drop(bench);
    let bench = open(directory.path());
    bench.run(async {
        assert_eq!(bench.schedule.borrow().doing(a), Some(Doing::Held));
        assert_eq!(bench.row(a).await.queue, "hold");
        assert_eq!(bench.say(one(b), Action::List).await.1, tally(0, 0, 0));
        let returned = bench.row(c).await;
        assert_eq!(returned.recipients[0].standing, "failed");
        assert_eq!(returned.recipients[0].reason.as_deref(), Some(RETURNED));
        assert_eq!(returned.header.as_deref(), Some("Subject: x\r\n"));
        assert_eq!(bench.say(one(a), Action::Release).await.1, tally(1, 1, 0));
        assert_eq!(bench.schedule.borrow().doing(a), Some(Doing::Ready));
        assert_eq!(bench.say(Selector::Sender("<>".to_owned()), Action::Delete).await.1, tally(1, 1, 0));
        assert_eq!(bench.say(Selector::All, Action::List).await.1, tally(2, 2, 0));
    });
}

#[test]
fn what_is_being_attempted_is_not_returned_but_can_be_held_and_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let [a] = ids();
    let bench = open(directory.path());
    bench.run(async {
        bench.commit(a, &entry("a@example.org", &["to@example.net"], NOW.unix_ms)).await;
        assert_eq!(bench.schedule.borrow_mut().next(NOW, None).unwrap().id, a);
        assert_eq!(bench.row(a).await.queue, "active");
        assert_eq!(bench.say(Selector::All, Action::Bounce).await.1, tally(1, 0, 1));
        assert_eq!(bench.row(a).await.recipients[0].standing, "pending");
        assert_eq!(bench.say(Selector::All, Action::Hold).await.1, tally(1, 1, 0));
        assert_eq!(bench.say(Selector::All, Action::Delete).await.1, tally(1, 1, 0));
        // The attempt ends, and finds nothing.
        assert!(bench.spool.settle(a).is_none());
        assert_eq!(bench.schedule.borrow().doing(a), None);
    });
}

#[test]
fn an_operators_word_never_undoes_an_outcome_that_is_being_written() {
    let directory = tempfile::tempdir().unwrap();
    let [a] = ids();
    let bench = open(directory.path());
    bench.run(async {
        bench.commit(a, &entry("a@example.org", &["to@example.net"], NOW.unix_ms)).await;
        // A delivery has its outcome on the way to the disk when the operator speaks.
        let mut state = State { attempts: 1, ..State::default() };
        state.set_standing(0, Standing::Delivered);
        let ticket = bench.spool.update(a, &state).unwrap();
        let ((_, held), written) =
            futures_lite::future::zip(bench.say(Selector::All, Action::Hold), ticket).await;
        written.unwrap();
        assert_eq!(held, tally(1, 1, 0));
        let row = bench.row(a).await;
        assert_eq!((row.attempts, &row.recipients[0].standing[..], &row.queue[..]), (1, "delivered", "hold"));
    });
}

#[test]
fn a_reader_that_goes_away_ends_the_answer() {
    let directory = tempfile::tempdir().unwrap();
    let bench = open(directory.path());
    bench.run(async {
        for id in ids::<3>() {
            bench.commit(id, &entry("a@example.org", &["to@example.net"], NOW.unix_ms)).await;
        }
        let (lines, answer) = flume::bounded(1);
        drop(answer);
        obey(bench.queue(), &QueueOrder { selector: Selector::All, action: Action::List, lines }).await;
    });
}
