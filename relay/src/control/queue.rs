//! `queue …` on the daemon's side: asks all workers, passes their lines on as they come.
//!
//! An answer may have a million lines: they stream, so that memory stays bounded and a slow reader slows only itself down.
//! Must not look at a message: that is the workers' business.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::plane::Plane;
use super::protocol::{self, Answer};
use crate::egress::operator::{Action, Line, QueueOrder, Tally};
use crate::limits::{CONTROL_LINE_TIMEOUT, CONTROL_LINES_WAITING_MAX};
use crate::spool::schedule::Selector;
use crate::units::QueueId;

/// Which messages: all those that every condition given is true of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Which {
    /// This one.
    pub id: Option<String>,
    /// Of this sender; `<>`: the null sender.
    pub sender: Option<String>,
    /// To this recipient.
    pub recipient: Option<String>,
    /// To this domain.
    pub domain: Option<String>,
    /// Here for so many milliseconds.
    pub older_ms: Option<u64>,
}

/// As the log calls it; `None`: it changes nothing.
pub(super) fn logged(action: Action) -> Option<&'static str> {
    match action {
        Action::List | Action::Show => None,
        Action::Hold => Some("queue hold"),
        Action::Release => Some("queue release"),
        Action::Delete => Some("queue delete"),
        Action::Requeue => Some("queue requeue"),
        Action::Bounce => Some("queue bounce"),
    }
}

impl Which {
    /// `None`: an id that no message can have.
    fn selector(self) -> Option<Selector> {
        let id = match self.id {
            Some(id) => Some(Selector::Ids(vec![QueueId::parse(&id)?])),
            None => None,
        };
        let conditions = [
            id,
            self.sender.map(Selector::Sender),
            self.recipient.map(Selector::Recipient),
            self.domain.map(Selector::Domain),
            self.older_ms.map(|age| Selector::OlderThan(Duration::from_millis(age))),
        ];
        Some(Selector::Every(conditions.into_iter().flatten().collect()))
    }
}

/// Answers on the connection: a line for each message that is told of, then the end.
pub(super) async fn answer(
    stream: &mut UnixStream,
    plane: &Plane,
    action: Action,
    which: Which,
) -> io::Result<()> {
    let Some(selector) = which.selector() else {
        return protocol::write(stream, &end(Tally::default(), 0)).await;
    };
    let (lines, answer) = flume::bounded(CONTROL_LINES_WAITING_MAX);
    let asked = plane.facts.workers.queue(&QueueOrder { selector, action, lines });
    let mut tally = Tally::default();
    let mut ended = 0;
    while ended < asked {
        let Ok(Ok(line)) = timeout(CONTROL_LINE_TIMEOUT, answer.recv_async()).await else { break };
        let line = match line {
            Line::Row(row) => Answer::QueueRow(row),
            Line::Unreadable(id, reason) => Answer::QueueUnreadable { id: id.to_string(), reason },
            Line::End(of_worker) => {
                ended += 1;
                tally.matched += of_worker.matched;
                tally.done += of_worker.done;
                tally.under_way += of_worker.under_way;
                tally.failed += of_worker.failed;
                continue;
            }
        };
        protocol::write_within(stream, &line, CONTROL_LINE_TIMEOUT).await?;
    }
    let silent = plane.facts.workers.count() - ended;
    protocol::write(stream, &end(tally, silent)).await
}

fn end(tally: Tally, workers_silent: usize) -> Answer {
    let Tally { matched, done, under_way, failed } = tally;
    Answer::QueueEnd { matched, done, under_way, failed, workers_silent }
}
