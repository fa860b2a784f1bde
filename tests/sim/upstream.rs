//! A simulated upstream: strict about what it hears, seldom at its best in what it says.
//!
//! It is the judge of the wire: a command out of place, a parameter that was not offered, a bare CR or LF, a group where
//! none is allowed go into the ledger as wrong. What it says follows from its plan and the dice.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use ringpost::io::sim::{SimStream, World};
use ringpost::io::{Io, Stream};
use ringpost_tests::wire;

use crate::dice::Dice;
use crate::ledger::{Behind, Delivery, Ledger, Subject};
use crate::plan::{Plan, Trouble, Weather};
use crate::talk::{Gone, Talk};

/// Where an answer is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Greeting,
    Hello,
    Envelope,
    Data,
    Message,
    Other,
}

/// What a transaction has come to.
#[derive(Debug, Default)]
struct Transaction {
    sender: String,
    /// Of the first recipient: which message it is.
    key: Option<Subject>,
    named: usize,
    accepted: Vec<String>,
    content: Vec<u8>,
}

/// The answer to a chunk that is not the last.
const CHUNK_TAKEN: &str = "250 2.0.0 chunk";

/// Longest time of an answer in fair weather, in microseconds.
const FAIR_LAG_MICROS_MAX: u64 = 100_000;

/// Sees each message that is complete before anything is said about it.
pub(crate) type Watch = Rc<dyn Fn(&[u8])>;

/// One connection.
pub(crate) struct Upstream {
    talk: Talk,
    plan: Rc<Plan>,
    dice: Dice,
    ledger: Rc<RefCell<Ledger>>,
    watch: Watch,
    /// Crashes of the relay before it came here: what is said after another one nobody hears.
    crashes: u64,
    /// The reply that refused the last MAIL.
    mail_refused: Option<u16>,
    transaction: Option<Transaction>,
    messages: usize,
    /// Where it has said a reply too many.
    stray: Option<Behind>,
    /// EHLO was answered well: what the plan offers is on offer.
    is_extended: bool,
}

impl Upstream {
    pub(crate) fn new(
        world: World,
        stream: SimStream,
        plan: Rc<Plan>,
        dice: Dice,
        ledger: Rc<RefCell<Ledger>>,
        watch: Watch,
    ) -> Self {
        let crashes = ledger.borrow().crashes;
        Self {
            talk: Talk::new(world, stream, "upstream"),
            plan,
            dice,
            ledger,
            watch,
            crashes,
            mail_refused: None,
            transaction: None,
            messages: 0,
            stray: None,
            is_extended: false,
        }
    }

    pub(crate) async fn serve(mut self) {
        // Whoever goes first, the connection is over.
        let _gone = self.converse().await;
    }

    async fn converse(&mut self) -> Result<(), Gone> {
        if self.answer(Stage::Greeting, "220 up.test ESMTP").await? != 220 {
            return Err(Gone::Left);
        }
        loop {
            let line = self.talk.line().await?;
            let Some(text) = self.judge_line(&line) else { return Err(Gone::Left) };
            self.obey(&text).await?;
        }
    }

    fn wrong(&self, what: impl Into<String>) {
        self.ledger.borrow_mut().wrong(what);
    }

    /// A command is one line with one CR and one LF (RFC 5321 §2.3.8), in a group only where that was offered.
    fn judge_line(&self, line: &[u8]) -> Option<String> {
        if !wire::bare_newlines(line).is_empty() || !line.is_ascii() {
            self.wrong(format!("no command line: {:?}", String::from_utf8_lossy(line)));
            return None;
        }
        let text = String::from_utf8_lossy(line).trim_end().to_owned();
        let may_go_on = text.starts_with("BDAT") || self.plan.pipelining && self.is_extended;
        if !self.talk.input.is_empty() && (!may_go_on || text == "DATA" || text.starts_with("EHLO")) {
            self.wrong(format!("octets behind {text:?}, which ends its group"));
        }
        Some(text)
    }

    async fn obey(&mut self, text: &str) -> Result<(), Gone> {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        match verb {
            "EHLO" if self.plan.is_esmtp => {
                let hello = self.plan.hello();
                self.is_extended = self.answer(Stage::Hello, hello.trim_end()).await? == 250;
                Ok(())
            }
            "EHLO" => self.say("500 5.5.1 what?\r\n").await,
            "HELO" => self.answer(Stage::Hello, "250 up.test").await.map(drop),
            "MAIL" => self.mail(rest).await,
            "RCPT" => self.rcpt(rest).await,
            "DATA" => self.data().await,
            "BDAT" => self.chunk(rest).await,
            "RSET" => {
                self.transaction = None;
                self.mail_refused = None;
                self.answer(Stage::Other, "250 2.0.0 ok").await.map(drop)
            }
            "QUIT" => {
                self.say("221 2.0.0 bye\r\n").await?;
                Err(Gone::Left)
            }
            _ => {
                self.wrong(format!("unknown command {text:?}"));
                Err(Gone::Left)
            }
        }
    }

    async fn mail(&mut self, rest: &str) -> Result<(), Gone> {
        if self.transaction.is_some() {
            self.wrong("MAIL within a transaction");
        }
        let Some((sender, parameters)) = rest.strip_prefix("FROM:<").and_then(|rest| rest.split_once('>'))
        else {
            self.wrong(format!("MAIL {rest:?}"));
            return Err(Gone::Left);
        };
        self.judge_parameters(parameters);
        self.messages += 1;
        if self.plan.messages_max.is_some_and(|max| self.is_extended && self.messages > max) {
            self.wrong("more messages than MAILMAX");
        }
        let sender = sender.to_owned();
        let code = self.answer(Stage::Envelope, "250 2.1.0 ok").await?;
        self.mail_refused = (code != 250).then_some(code);
        self.transaction = (code == 250).then(|| Transaction { sender, ..Transaction::default() });
        Ok(())
    }

    fn judge_parameters(&self, parameters: &str) {
        for word in parameters.split_whitespace() {
            let is_offered = match word.split_once('=').map_or(word, |(name, _)| name) {
                "SIZE" => self.plan.size.is_some(),
                "BODY" => self.plan.eight_bit,
                _ => false,
            };
            if !is_offered || !self.is_extended {
                self.wrong(format!("parameter {word:?}, which was not offered"));
            }
        }
    }

    /// The verdict stands in the recipient's name.
    async fn rcpt(&mut self, rest: &str) -> Result<(), Gone> {
        let Some(who) = rest.strip_prefix("TO:<").and_then(|rest| rest.strip_suffix('>')) else {
            self.wrong(format!("RCPT {rest:?}"));
            return Err(Gone::Left);
        };
        let Some((word, key)) = subject_of(who) else {
            self.wrong(format!("a recipient nobody named: {who:?}"));
            return Err(Gone::Left);
        };
        let (word, who) = (word.to_owned(), who.to_owned());
        if let Some(code) = self.mail_refused {
            self.ledger.borrow_mut().refuses(key, code);
        }
        let Some(transaction) = &mut self.transaction else {
            return self.say("503 5.5.1 no MAIL\r\n").await;
        };
        if let Some(behind) = self.stray {
            self.ledger.borrow_mut().strays(key, behind);
        }
        if *transaction.key.get_or_insert(key) != key {
            self.wrong("recipients of two messages in one transaction");
        }
        let named = self.transaction.as_mut().map_or(0, |transaction| {
            transaction.named += 1;
            transaction.named
        });
        if self.plan.recipients_max.is_some_and(|max| self.is_extended && named > max) {
            self.wrong("more recipients than RCPTMAX");
        }
        let is_fair = self.plan.weather.get() == Weather::Fair;
        let reply = match word.strip_prefix('r') {
            // It was put off before, and is taken now.
            Some(code) if is_fair && code != "550" => "250 2.1.5 ok".to_owned(),
            Some("552") => "552 too many recipients".to_owned(),
            Some(code) => format!("{code} {}.1.1 no", &code[..1]),
            None => "250 2.1.5 ok".to_owned(),
        };
        let said = self.answer(Stage::Envelope, &reply).await;
        let code = said.unwrap_or(0);
        self.ledger.borrow_mut().says_recipient(key, &who, code);
        if code == 250
            && let Some(transaction) = &mut self.transaction
        {
            transaction.accepted.push(who);
        }
        if code == 421 { Err(Gone::Left) } else { said.map(drop) }
    }

    async fn data(&mut self) -> Result<(), Gone> {
        let Some(transaction) = &self.transaction else { return self.say("503 5.5.1 no MAIL\r\n").await };
        let (key, has_recipients) = (transaction.key, !transaction.accepted.is_empty());
        if !has_recipients && self.dice.happens(500) {
            return self.say("554 5.5.1 no recipients\r\n").await;
        }
        let code = self.answer(Stage::Data, "354 go on").await?;
        if code != 354 {
            self.refuse(key, code);
            return Ok(());
        }
        let (content_end, end) = self.read_to_dot(key).await?;
        let octets: Vec<u8> = self.talk.input.drain(..end).collect();
        let content = wire::unstuffed(&octets[..content_end]);
        if !wire::bare_newlines(&octets).is_empty() || content.contains(&0) {
            self.wrong(format!("no clean content: {:?}", String::from_utf8_lossy(&octets)));
        }
        if !has_recipients {
            if !content.is_empty() {
                self.wrong("a message to nobody");
            }
            self.transaction = None;
            return self.say("554 5.5.1 nothing to do\r\n").await;
        }
        self.conclude(content).await
    }

    /// Where the content and where its end ends; sometimes it has heard enough before.
    async fn read_to_dot(&mut self, key: Option<Subject>) -> Result<(usize, usize), Gone> {
        let mut searched = 0;
        loop {
            if let Some(ends) = wire::terminator(&self.talk.input, searched) {
                return Ok(ends);
            }
            searched = self.talk.input.len();
            let is_foul = self.plan.weather.get() == Weather::Foul;
            if searched > 0 && self.dice.happens(self.plan.trouble_permille) && is_foul {
                return Err(self.break_in(key).await);
            }
            self.talk.read().await?;
        }
    }

    /// Refuses in the middle of the message, or just goes. Nothing of it is delivered.
    async fn break_in(&mut self, key: Option<Subject>) -> Gone {
        let manner = self.dice.below(3);
        if manner == 0 && self.say("552 5.3.4 enough\r\n").await.is_ok() {
            self.refuse(key, 552);
            while self.talk.read().await.is_ok() {}
        }
        if manner == 1 {
            self.talk.stream.reset_on_close();
        }
        Gone::Left
    }

    async fn chunk(&mut self, rest: &str) -> Result<(), Gone> {
        let (count, is_last) = match rest.strip_suffix(" LAST") {
            Some(count) => (count.parse().ok(), true),
            None => (rest.parse::<usize>().ok(), false),
        };
        let Some(count) = count.filter(|_| self.plan.chunking && self.is_extended) else {
            self.wrong(format!("BDAT {rest:?}"));
            return Err(Gone::Left);
        };
        while self.talk.input.len() < count {
            self.talk.read().await?;
        }
        let octets: Vec<u8> = self.talk.input.drain(..count).collect();
        if !self.plan.pipelining && !self.talk.input.is_empty() {
            self.wrong("octets behind a chunk that is not answered");
        }
        let Some(transaction) = &mut self.transaction else { return self.say("503 5.5.1 no MAIL\r\n").await };
        if transaction.accepted.is_empty() {
            // A stray reply in a slow group passes for the recipient's, and nobody can tell.
            if !is_last && self.stray != Some(Behind::MoreToAnswer) {
                self.wrong("BDAT to nobody");
                return Err(Gone::Left);
            }
            // RFC 3030 §4.2: it came in one flight with its recipients, before it was known that none is taken. What
            // was begun must be reset.
            return self.say("554 5.5.1 no recipients\r\n").await;
        }
        transaction.content.extend_from_slice(&octets);
        if is_last {
            let content = std::mem::take(&mut transaction.content);
            return self.conclude(content).await;
        }
        let key = transaction.key;
        let code = self.answer(Stage::Data, CHUNK_TAKEN).await?;
        if code != 250 {
            self.refuse(key, code);
            self.transaction = None;
        }
        Ok(())
    }

    /// The message is complete: takes it or not, and says so or not.
    async fn conclude(&mut self, content: Vec<u8>) -> Result<(), Gone> {
        let Some(transaction) = self.transaction.take() else { return Ok(()) };
        let Some(key) = transaction.key else { return Ok(()) };
        if self.plan.size.is_some_and(|size| content.len() > size) {
            self.refuse(Some(key), 552);
            return self.say("552 5.3.4 too large\r\n").await;
        }
        (self.watch)(&content);
        let trouble = self.trouble(Stage::Message);
        let takes = match trouble {
            None | Some(Trouble::Stray | Trouble::Slow) => true,
            Some(Trouble::Refusal(_) | Trouble::Goodbye) => false,
            // Nobody can know.
            Some(_) => self.dice.happens(500),
        };
        if takes {
            let Transaction { sender, accepted: recipients, .. } = transaction;
            let at = self.talk.world.now();
            self.ledger.borrow_mut().takes(key, Delivery { sender, recipients, content, at, told_at: None });
        }
        let code = self.answer_in(trouble, "250 2.0.0 taken", Some(key)).await?;
        if code == 250 {
            let mut ledger = self.ledger.borrow_mut();
            if ledger.crashes == self.crashes {
                ledger.tells(key, self.talk.world.now());
            }
        } else {
            self.refuse(Some(key), code);
        }
        Ok(())
    }

    fn refuse(&self, key: Option<Subject>, code: u16) {
        if let Some(key) = key {
            self.ledger.borrow_mut().refuses(key, code);
        }
    }

    fn trouble(&self, stage: Stage) -> Option<Trouble> {
        // A lone trouble at the start is dull: most of it belongs where a message is at stake.
        let permille = self.plan.trouble_permille / if stage == Stage::Greeting { 4 } else { 1 };
        let is_foul = self.plan.weather.get() == Weather::Foul;
        (self.dice.happens(permille) && is_foul).then(|| self.dice.pick(self.plan.troubles))
    }

    async fn answer(&mut self, stage: Stage, reply: &str) -> Result<u16, Gone> {
        let key = self.transaction.as_ref().and_then(|transaction| transaction.key);
        self.answer_in(self.trouble(stage), reply, key).await
    }

    /// Answers, in trouble or not; gives the code that was said.
    async fn answer_in(
        &mut self,
        trouble: Option<Trouble>,
        reply: &str,
        key: Option<Subject>,
    ) -> Result<u16, Gone> {
        let is_slow = self.plan.lag_micros_max > 0;
        let behind = if reply == CHUNK_TAKEN || is_slow { Behind::MoreToAnswer } else { Behind::TheLast };
        let code = reply.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
        let is_fair = self.plan.weather.get() == Weather::Fair;
        let lag_max = self.plan.lag_micros_max.min(if is_fair { FAIR_LAG_MICROS_MAX } else { u64::MAX });
        let lag = self.dice.below(lag_max + 1);
        self.talk.world.sleep(Duration::from_micros(lag)).await;
        match trouble {
            None => self.say(&format!("{reply}\r\n")).await.map(|()| code),
            Some(Trouble::Refusal(code)) => {
                self.say(&format!("{code} {}.7.0 not now\r\n", code / 100)).await.map(|()| code)
            }
            Some(Trouble::Goodbye) => self.leave_with("421 4.3.2 going down\r\n").await,
            Some(Trouble::Close) => Err(Gone::Left),
            Some(Trouble::Reset) => {
                self.talk.stream.reset_on_close();
                Err(Gone::Left)
            }
            Some(Trouble::Silence) => {
                self.talk.world.sleep(Duration::from_secs(1200)).await;
                Err(Gone::Left)
            }
            Some(Trouble::Nonsense) => self.leave_with("hello there\r\n").await,
            Some(Trouble::Half) => self.leave_with("25").await,
            Some(Trouble::Stray) => {
                self.stray = self.stray.max(Some(behind));
                if let Some(key) = key {
                    self.ledger.borrow_mut().strays(key, behind);
                }
                self.say(&format!("{reply}\r\n250 2.0.0 stray\r\n")).await.map(|()| code)
            }
            Some(Trouble::Slow) => {
                let wait = self.dice.pick(&[1, 7, 40]);
                self.talk.world.sleep(Duration::from_secs(wait)).await;
                self.say(&format!("{reply}\r\n")).await.map(|()| code)
            }
        }
    }

    async fn leave_with(&mut self, last: &str) -> Result<u16, Gone> {
        self.say(last).await?;
        Err(Gone::Left)
    }

    async fn say(&mut self, reply: &str) -> Result<(), Gone> {
        self.talk.send(reply.as_bytes()).await
    }
}

/// The first word of a recipient's name, and which message it tells: `ok.7.0@…` is a recipient of the seventh, `from.7@…`
/// is its sender, who gets a notice about it.
fn subject_of(who: &str) -> Option<(&str, Subject)> {
    let (word, rest) = who.split_once('.')?;
    let number = rest.split(['.', '@']).next()?.parse().ok()?;
    Some((word, if word == "from" { Subject::Notice(number) } else { Subject::Message(number) }))
}
