//! What the ledger asks of a relay that takes custody, through crashes, failing disks and upstreams in trouble.
//!
//! Each recipient that a client heard 250 for, and for the message, was delivered to or its sender was told, when all is
//! over. Nobody else got anything. What came twice has a reason that nothing can be done about: an upstream that took it
//! and could not say so, a crash just behind its word, a disk that took no tombstone.

use std::time::Duration;

use ringpost::units::Moment;

use super::{Account, Delivery, Ledger};

/// What has happened to the relay meanwhile, and by which rules it played.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// When it crashed.
    pub(crate) crashes: Vec<Moment>,
    /// From when to when its disk failed at times.
    pub(crate) disk_troubles: Vec<(Moment, Moment)>,
    /// When the queue was empty at last.
    pub(crate) ended: Moment,
    /// `QUEUE_LIFETIME`.
    pub(crate) lifetime: Duration,
    /// `EIGHTBIT=bounce`, and an upstream without 8BITMIME.
    pub(crate) returns_8bit: bool,
    /// The smallest SIZE that an upstream offers.
    pub(crate) size_min: Option<usize>,
}

/// What it came to, in recipients.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Harvest {
    pub(crate) acked: usize,
    pub(crate) refused: usize,
    pub(crate) delivered: usize,
    pub(crate) returned: usize,
    /// Neither, for a reason: nobody was to be told.
    pub(crate) dropped: usize,
    pub(crate) duplicates: usize,
    /// Delivered, and the client was not told so.
    pub(crate) unknown: usize,
    pub(crate) crashes: usize,
    /// Messages that a recovery found.
    pub(crate) recovered: usize,
}

/// Wrongs of one message that are told.
const SHOWN_MAX: usize = 3;
/// Arrivals are kept in whole seconds.
const SECOND: Duration = Duration::from_secs(1);
/// How long after an upstream's word the tombstone may take to be on a sound disk, with all that the disk's hiccups and the
/// network add.
const SETTLED_AFTER: Duration = Duration::from_secs(10);

impl Harvest {
    pub(crate) fn and(self, other: &Self) -> Self {
        Self {
            acked: self.acked + other.acked,
            refused: self.refused + other.refused,
            delivered: self.delivered + other.delivered,
            returned: self.returned + other.returned,
            dropped: self.dropped + other.dropped,
            duplicates: self.duplicates + other.duplicates,
            unknown: self.unknown + other.unknown,
            crashes: self.crashes + other.crashes,
            recovered: self.recovered + other.recovered,
        }
    }
}

impl History {
    /// Whether what an upstream said at this moment may have been forgotten.
    fn excuses(&self, said_at: Moment) -> bool {
        let until = said_at.after(SETTLED_AFTER);
        self.crashes.iter().any(|&crash| crash >= said_at && crash <= until)
            || self.disk_troubles.iter().any(|&(from, to)| from <= until && to >= said_at)
    }
}

impl Ledger {
    /// Everything that is wrong when all is over, and what it came to.
    pub(crate) fn judge_custody(&self, history: &History) -> (Vec<String>, Harvest) {
        let mut wrongs = self.wrongs.clone();
        let mut harvest = Harvest { crashes: history.crashes.len(), ..Harvest::default() };
        for (key, account) in &self.accounts {
            let mut found = Vec::new();
            account.judge_contents(&mut found);
            for place in 0..account.mail.recipients.len() {
                account.judge_recipient(place, self, history, &mut harvest, &mut found);
            }
            let said = || {
                format!(
                    "heard {:?} {:?} {:?}, upstream said {:?} {:?}, delivered {:?}, told {:?}, crashes {:?}",
                    account.heard_mail,
                    account.heard,
                    account.last,
                    account.said,
                    account.refusals,
                    shown(&account.deliveries),
                    shown(&account.notices),
                    history.crashes,
                )
            };
            wrongs.extend(
                found.into_iter().take(SHOWN_MAX).map(|what| format!("message {key}: {what}; {}", said())),
            );
        }
        (wrongs, harvest)
    }
}

/// When, to whom, and whether it was said.
fn shown(deliveries: &[Delivery]) -> Vec<(u64, &[String], Option<u64>)> {
    deliveries.iter().map(|one| (one.at.0, &one.recipients[..], one.told_at.map(|at| at.0))).collect()
}

impl Account {
    fn judge_recipient(
        &self,
        place: usize,
        ledger: &Ledger,
        history: &History,
        harvest: &mut Harvest,
        wrongs: &mut Vec<String>,
    ) {
        let who = &self.mail.recipients[place];
        let deliveries: Vec<&Delivery> =
            self.deliveries.iter().filter(|delivery| delivery.recipients.contains(who)).collect();
        let notices: Vec<&Delivery> =
            self.notices.iter().filter(|notice| returned_in(notice).any(|named| named == *who)).collect();
        let heard = self.heard.iter().find(|(other, _)| other == who).map(|(_, code)| *code);
        let is_acked = self.is_acked() && heard == Some(250);
        let is_refused = heard.is_some_and(|code| code >= 500) || self.last.is_some_and(|code| code >= 500);
        harvest.acked += usize::from(is_acked);
        harvest.refused += usize::from(is_refused);
        harvest.delivered += usize::from(!deliveries.is_empty());
        harvest.returned += usize::from(!notices.is_empty());
        harvest.unknown += usize::from(!is_acked && !deliveries.is_empty());
        harvest.duplicates += deliveries.len().saturating_sub(1);
        if is_acked && deliveries.is_empty() && notices.is_empty() {
            if self.may_be_dropped(who, history) {
                harvest.dropped += 1;
            } else {
                wrongs.push(format!("{who} was promised and is lost"));
            }
        }
        if is_acked && self.mail.flaw.is_some() {
            wrongs.push(format!("acknowledged in spite of {:?}", self.mail.flaw));
        }
        let has_not_been_taken = heard.is_some_and(|code| code != 250);
        if (is_refused || has_not_been_taken) && !deliveries.is_empty() {
            wrongs.push(format!("{who} was refused and got it"));
        }
        if (is_refused || has_not_been_taken) && !notices.is_empty() {
            wrongs.push(format!("{who} was refused and is returned besides"));
        }
        let is_doubtful =
            |one: &&Delivery| ledger.terms.loses_replies || one.told_at.is_none_or(|at| history.excuses(at));
        if deliveries.iter().rev().skip(1).any(|earlier| !is_doubtful(earlier)) {
            wrongs.push(format!("{who} got it twice without a reason"));
        }
        if !notices.is_empty() && !self.may_be_returned(who, notices[0].at, history) {
            wrongs.push(format!("{who} was returned without a reason"));
        }
        let is_excused = !history.crashes.is_empty() || !history.disk_troubles.is_empty();
        if !notices.is_empty() && !is_excused && !deliveries.iter().all(is_doubtful) {
            wrongs.push(format!("{who} got it and was returned"));
        }
        if !is_excused && notices.iter().rev().skip(1).any(|earlier| !is_doubtful(earlier)) {
            wrongs.push(format!("{who} was returned twice"));
        }
    }

    /// Whether nobody need hear of this recipient.
    fn may_be_dropped(&self, who: &str, history: &History) -> bool {
        let nobody_to_tell = self.mail.sender.is_empty();
        // A notice that cannot be delivered, ever or in time, is not returned in turn.
        let is_late = history.ended.since(self.begun) >= history.lifetime;
        let lost_notice = self.is_notice_refused || self.is_too_much(history) || is_late;
        (nobody_to_tell || lost_notice) && self.may_be_returned(who, history.ended, history)
    }

    /// Whether there was a reason to give this recipient up by then.
    fn may_be_returned(&self, who: &str, by: Moment, history: &History) -> bool {
        let is_refused = self.said.iter().any(|(other, code)| other == who && *code >= 500)
            || self.refusals.iter().any(|code| *code >= 500);
        is_refused || self.is_too_much(history) || by.since(self.begun) + SECOND >= history.lifetime
    }

    /// Whether an upstream offers too little for this message, or for a notice with it.
    fn is_too_much(&self, history: &History) -> bool {
        let asks_8bit = self.mail.has_8bit() || self.is_foreseen();
        history.returns_8bit && asks_8bit
            || history.size_min.is_some_and(|size| self.mail.content.len() + self.notice_octets() > size)
    }

    /// What a notice, or our header fields, may add to the message, with room.
    fn notice_octets(&self) -> usize {
        4000 + 500 * self.mail.recipients.len()
    }
}

/// The recipients that a notice gives up (RFC 3464 §2.3).
fn returned_in(notice: &Delivery) -> impl Iterator<Item = String> {
    let text = String::from_utf8_lossy(&notice.content).into_owned();
    let mut about = String::new();
    let mut returned = Vec::new();
    for line in text.lines() {
        if let Some(who) = line.strip_prefix("Final-Recipient: rfc822;") {
            who.trim().clone_into(&mut about);
        } else if line == "Action: failed" {
            returned.push(std::mem::take(&mut about));
        }
    }
    returned.into_iter()
}
