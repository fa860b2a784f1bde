//! The ledger: what every client sent and heard beside what every upstream took and said, and whether the two agree.
//!
//! A message is sent once under its key, so at most one delivery is due for it, duplicates included: a second one would
//! be the relay's own. What may differ is named: an outcome that nobody could know (the upstream broke after the
//! dot), and a network that breaks connections.

mod custody;

use std::collections::BTreeMap;
use std::rc::Rc;

use ringpost::units::Moment;

pub(crate) use self::custody::{Harvest, History};
use crate::mail::Mail;

/// Everything that happened in one world.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    accounts: BTreeMap<u64, Account>,
    /// What is wrong whatever comes later.
    pub(crate) wrongs: Vec<String>,
    /// Crashes of the relay so far.
    pub(crate) crashes: u64,
    /// What has happened so far, counted: replies, verdicts, deliveries.
    pub(crate) events: u64,
    terms: Terms,
}

/// What a transaction with an upstream is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// A client's message.
    Message(u64),
    /// What the sender of this message is told.
    Notice(u64),
}

/// Where a stray reply was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Behind {
    /// Behind an answer that the relay waits for before it goes on.
    TheLast,
    /// Behind the answer to a chunk with the next one on its way, or in a group whose answers come one by one: it is taken
    /// for the next answer, and all are one off from there on. No client of SMTP can tell.
    MoreToAnswer,
}

/// What the scene excuses.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Terms {
    /// The network resets connections: a verdict may be lost on the way.
    pub(crate) loses_replies: bool,
    /// The network takes its time, so that a stray reply may arrive behind the one it was sent with.
    pub(crate) delays: bool,
    /// 8-bit content is returned.
    pub(crate) returns_8bit: bool,
}

/// One message.
#[derive(Debug)]
struct Account {
    mail: Rc<Mail>,
    /// Recipients, in order, and what the client heard about each.
    heard: Vec<(String, u16)>,
    heard_mail: Option<u16>,
    /// The end of the message was handed to the network.
    has_ended: bool,
    /// What the client heard last about it.
    last: Option<u16>,
    deliveries: Vec<Delivery>,
    /// What upstreams said about recipients.
    said: Vec<(String, u16)>,
    /// What they said when they refused it at MAIL, DATA or its end.
    refusals: Vec<u16>,
    has_stray: bool,
    /// A stray reply that cannot be told from the true one.
    is_ambiguous: bool,
    begun: Moment,
    notices: Vec<Delivery>,
    /// An upstream does not want its sender to be told: nobody is told of that (RFC 5321 §6.1).
    is_notice_refused: bool,
}

/// A message that an upstream took.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) sender: String,
    pub(crate) recipients: Vec<String>,
    pub(crate) content: Vec<u8>,
    pub(crate) at: Moment,
    /// When the 250 was said, on a connection that was whole.
    pub(crate) told_at: Option<Moment>,
}

/// What a world came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) sent: usize,
    pub(crate) acked: usize,
    pub(crate) refused: usize,
    pub(crate) delivered: usize,
    /// Delivered, and the client was not told so.
    pub(crate) unknown: usize,
}

impl Ledger {
    pub(crate) fn new(terms: Terms) -> Self {
        Self { terms, ..Self::default() }
    }

    pub(crate) fn wrong(&mut self, what: impl Into<String>) {
        self.wrongs.push(what.into());
    }

    pub(crate) fn begins(&mut self, mail: &Rc<Mail>, at: Moment) {
        let account = Account {
            mail: Rc::clone(mail),
            heard: Vec::new(),
            heard_mail: None,
            has_ended: false,
            last: None,
            deliveries: Vec::new(),
            said: Vec::new(),
            refusals: Vec::new(),
            has_stray: false,
            is_ambiguous: false,
            begun: at,
            notices: Vec::new(),
            is_notice_refused: false,
        };
        self.accounts.insert(mail.key, account);
    }

    pub(crate) fn hears_mail(&mut self, key: u64, code: u16) {
        self.of(key, |account| account.heard_mail = Some(code));
    }

    pub(crate) fn hears_recipient(&mut self, key: u64, recipient: &str, code: u16) {
        self.of(key, |account| account.heard.push((recipient.to_owned(), code)));
    }

    pub(crate) fn ends(&mut self, key: u64) {
        self.of(key, |account| account.has_ended = true);
    }

    pub(crate) fn hears_last(&mut self, key: u64, code: u16) {
        self.of(key, |account| account.last = Some(code));
    }

    pub(crate) fn says_recipient(&mut self, subject: Subject, recipient: &str, code: u16) {
        match subject {
            Subject::Message(key) => self.of(key, |account| account.said.push((recipient.to_owned(), code))),
            Subject::Notice(_) if code >= 500 => self.refuses(subject, code),
            Subject::Notice(_) => {}
        }
    }

    pub(crate) fn refuses(&mut self, subject: Subject, code: u16) {
        match subject {
            Subject::Message(key) => self.of(key, |account| account.refusals.push(code)),
            Subject::Notice(about) => self.of(about, |account| account.is_notice_refused |= code >= 500),
        }
    }

    /// A reply too many was said in its transaction, or in one before it on the same connection.
    pub(crate) fn strays(&mut self, subject: Subject, behind: Behind) {
        let Subject::Message(key) = subject else { return };
        let may_be_late = self.terms.delays || behind == Behind::MoreToAnswer;
        self.of(key, |account| {
            account.has_stray = true;
            account.is_ambiguous |= may_be_late;
        });
    }

    pub(crate) fn takes(&mut self, subject: Subject, delivery: Delivery) {
        self.of_subject(subject, |deliveries| deliveries.push(delivery));
    }

    /// The upstream's 250 for its latest delivery went out.
    pub(crate) fn tells(&mut self, subject: Subject, at: Moment) {
        self.of_subject(subject, |deliveries| {
            if let Some(delivery) = deliveries.last_mut() {
                delivery.told_at = Some(at);
            }
        });
    }

    fn of_subject(&mut self, subject: Subject, note: impl FnOnce(&mut Vec<Delivery>)) {
        match subject {
            Subject::Message(key) => self.of(key, |account| note(&mut account.deliveries)),
            Subject::Notice(about) => self.of(about, |account| note(&mut account.notices)),
        }
    }

    fn of(&mut self, key: u64, note: impl FnOnce(&mut Account)) {
        self.events += 1;
        match self.accounts.get_mut(&key) {
            Some(account) => note(account),
            None => self.wrongs.push(format!("nobody sent message {key}")),
        }
    }

    /// Everything that is wrong, for a person to read, and what it came to.
    pub(crate) fn judge(&self) -> (Vec<String>, Tally) {
        let mut wrongs = self.wrongs.clone();
        let mut tally = Tally::default();
        for (key, account) in &self.accounts {
            tally.add(account);
            wrongs.extend(account.judge(self.terms).into_iter().map(|what| {
                format!(
                    "message {key}: {what}; heard {:?} {:?} {:?}, upstream said {:?} {:?}, {} deliveries",
                    account.heard_mail,
                    account.heard,
                    account.last,
                    account.said,
                    account.refusals,
                    account.deliveries.len(),
                )
            }));
        }
        (wrongs, tally)
    }
}

impl Tally {
    fn add(&mut self, account: &Account) {
        let is_acked = account.is_acked();
        self.sent += usize::from(account.has_ended);
        self.acked += usize::from(is_acked);
        self.refused += usize::from(account.last.is_some_and(|code| code >= 400));
        self.delivered += account.deliveries.len();
        self.unknown += usize::from(!is_acked && !account.deliveries.is_empty());
    }

    pub(crate) fn and(self, other: &Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            acked: self.acked + other.acked,
            refused: self.refused + other.refused,
            delivered: self.delivered + other.delivered,
            unknown: self.unknown + other.unknown,
        }
    }
}

impl Account {
    fn is_acked(&self) -> bool {
        self.last.is_some_and(|code| code / 100 == 2)
    }

    fn judge(&self, terms: Terms) -> Vec<String> {
        let mut wrongs = Vec::new();
        if !self.is_ambiguous {
            self.judge_custody(&mut wrongs);
        }
        // In a pipelined group a stray reply shifts the recipients' verdicts; the message then goes nowhere.
        if !self.has_stray {
            self.judge_recipients(&mut wrongs);
        }
        self.judge_deliveries(&mut wrongs);
        self.judge_refusal(terms, &mut wrongs);
        wrongs
    }

    /// Acknowledged means delivered, and known to be.
    fn judge_custody(&self, wrongs: &mut Vec<String>) {
        if !self.is_acked() {
            return;
        }
        if self.mail.flaw.is_some() {
            wrongs.push(format!("acknowledged in spite of {:?}", self.mail.flaw));
        }
        match self.deliveries.first() {
            None => wrongs.push("acknowledged and lost".to_owned()),
            Some(delivery) if delivery.told_at.is_none() => {
                wrongs.push("acknowledged before the upstream did".to_owned());
            }
            Some(_) => {}
        }
    }

    /// What was delivered was sent: whole, once, to those who were asked for and taken.
    fn judge_deliveries(&self, wrongs: &mut Vec<String>) {
        if self.deliveries.len() > 1 {
            wrongs.push("delivered twice".to_owned());
        }
        self.judge_contents(wrongs);
        let taken: Vec<_> = self.heard.iter().filter(|(_, code)| *code == 250).map(|(who, _)| who).collect();
        for delivery in &self.deliveries {
            let is_asked = |who: &String| self.mail.recipients.contains(who);
            let has_heard_all = self.heard.len() == self.mail.recipients.len();
            let is_right = if has_heard_all {
                taken.iter().copied().eq(&delivery.recipients)
            } else {
                delivery.recipients.iter().all(is_asked)
            };
            if !is_right && !self.is_ambiguous {
                wrongs.push(format!("delivered to {:?}", delivery.recipients));
            }
        }
    }

    /// What was delivered is what was sent, as far as it is not about recipients.
    fn judge_contents(&self, wrongs: &mut Vec<String>) {
        for delivery in &self.deliveries {
            if !self.has_ended {
                wrongs.push("delivered before its client had ended it".to_owned());
            }
            if self.mail.flaw.is_some() {
                wrongs.push(format!("delivered in spite of {:?}", self.mail.flaw));
            } else if !self.mail.is_what_arrived(&delivery.content) {
                wrongs.push(format!("changed on the way: {:?}", String::from_utf8_lossy(&delivery.content)));
            }
            if delivery.sender != self.mail.sender {
                wrongs.push(format!("delivered from {:?}", delivery.sender));
            }
        }
    }

    /// Each recipient has the upstream's own verdict; the relay adds only "later" (I1, F7).
    fn judge_recipients(&self, wrongs: &mut Vec<String>) {
        for (who, heard) in &self.heard {
            let mut said = self.said.iter().filter(|(other, _)| other == who).map(|(_, code)| *code);
            let is_right = match heard / 100 {
                2 => said.any(|code| code == 250),
                4 => true,
                5 => said.any(|code| code == *heard) || self.refusals.contains(heard) || self.is_foreseen(),
                _ => false,
            };
            if !is_right {
                wrongs.push(format!("{who} heard {heard}"));
            }
        }
    }

    /// A message is refused for good only for a reason; one that an upstream took and said so is not refused.
    fn judge_refusal(&self, terms: Terms, wrongs: &mut Vec<String>) {
        let Some(last) = self.last.filter(|code| *code >= 400) else { return };
        let is_unheard = terms.loses_replies || self.has_stray;
        if !is_unheard && self.deliveries.iter().any(|delivery| delivery.told_at.is_some()) {
            wrongs.push("taken, and its client told otherwise".to_owned());
        }
        let nobody_taken = self.heard.iter().all(|(_, code)| *code != 250);
        let has_reason = self.mail.flaw.is_some()
            || nobody_taken
            || self.refusals.contains(&last)
            || self.has_stray
            || terms.returns_8bit && (self.mail.has_8bit() || self.is_foreseen());
        if last >= 500 && !has_reason {
            wrongs.push("refused for good without a reason".to_owned());
        }
    }

    /// Refused for what the upstream has not offered.
    fn is_foreseen(&self) -> bool {
        !self.mail.parameters.is_empty()
    }
}
