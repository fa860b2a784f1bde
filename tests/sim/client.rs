//! A simulated client: sends its mails one after another, well or badly mannered, and notes what it hears.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ringpost::io::sim::World;
use ringpost::io::{Io, Stream};
use ringpost::units::Moment;

use crate::dice::Dice;
use crate::ledger::Ledger;
use crate::mail::{Framing, Mail};
use crate::talk::{Gone, Talk};

/// One visit of a client.
pub(crate) struct Visit {
    talk: Talk,
    dice: Dice,
    ledger: Rc<RefCell<Ledger>>,
    /// Octets after which the client is gone; `None`: it stays to the end.
    leaves_after: Option<usize>,
    /// Chance in a thousand of a pause before it speaks.
    pause_permille: u64,
}

/// Visits the relay with these mails; those that it has not begun are left when it goes.
pub(crate) async fn visit(
    world: World,
    relay: SocketAddr,
    mails: &mut VecDeque<Rc<Mail>>,
    dice: Dice,
    ledger: Rc<RefCell<Ledger>>,
) {
    let Ok(stream) = world.connect(relay, Moment::NEVER).await else { return };
    let leaves_after = dice.happens(150).then(|| dice.index(4000));
    let pause_permille = dice.pick(&[0, 0, 20, 200]);
    let talk = Talk::new(world, stream, "client  ");
    let mut visit = Visit { talk, dice, ledger, leaves_after, pause_permille };
    if visit.go(mails).await == Err(Gone::Silent) {
        visit.ledger.borrow_mut().wrong("a client waits for ever");
    }
}

impl Visit {
    async fn go(&mut self, mails: &mut VecDeque<Rc<Mail>>) -> Result<(), Gone> {
        if self.talk.reply().await? != 220 {
            return Ok(());
        }
        self.send(b"EHLO client.test\r\n").await?;
        self.talk.reply().await?;
        while let Some(mail) = mails.pop_front() {
            self.ledger.borrow_mut().begins(&mail, self.talk.world.now());
            let is_open =
                if self.dice.happens(500) { self.group(&mail).await? } else { self.turns(&mail).await? };
            if is_open {
                self.send(b"RSET\r\n").await?;
                self.talk.reply().await?;
            }
        }
        self.send(b"QUIT\r\n").await?;
        self.talk.reply().await?;
        Ok(())
    }

    /// Sends, or as much of it as the client stays for.
    async fn send(&mut self, octets: &[u8]) -> Result<(), Gone> {
        if self.dice.happens(self.pause_permille) {
            let wait = self.dice.pick(&[100, 3_000, 6_000, 6_000, 40_000]);
            self.talk.world.sleep(Duration::from_millis(wait)).await;
        }
        if let Some(left) = self.leaves_after {
            if octets.len() > left {
                self.talk.send(&octets[..left]).await?;
                if self.dice.happens(300) {
                    self.talk.stream.reset_on_close();
                }
                return Err(Gone::Left);
            }
            self.leaves_after = Some(left - octets.len());
        }
        self.talk.send(octets).await
    }

    /// Sends the stretch that ends a message: from here on it may be delivered.
    async fn send_end(&mut self, mail: &Mail, octets: &[u8]) -> Result<(), Gone> {
        if self.leaves_after.is_none_or(|left| octets.len() <= left) {
            self.ledger.borrow_mut().ends(mail.key);
        }
        self.send(octets).await
    }

    async fn send_body(&mut self, mail: &Mail) -> Result<(), Gone> {
        let stretches = mail.stretches(&self.dice);
        if let Some((last, others)) = stretches.split_last() {
            for stretch in others {
                self.send(stretch).await?;
            }
            self.send_end(mail, last).await?;
        }
        Ok(())
    }

    /// One command at a time. Says whether the transaction is still open.
    async fn turns(&mut self, mail: &Mail) -> Result<bool, Gone> {
        self.send(mail_command(mail).as_bytes()).await?;
        let code = self.talk.reply().await?;
        self.ledger.borrow_mut().hears_mail(mail.key, code);
        if code != 250 {
            return Ok(false);
        }
        let mut is_anyone_taken = false;
        for who in &mail.recipients {
            self.send(rcpt_command(who).as_bytes()).await?;
            let code = self.talk.reply().await?;
            is_anyone_taken |= code == 250;
            self.ledger.borrow_mut().hears_recipient(mail.key, who, code);
        }
        if !is_anyone_taken || self.dice.happens(30) {
            return Ok(true);
        }
        match mail.framing {
            Framing::Data => {
                self.send(b"DATA\r\n").await?;
                self.content_after_354(mail).await
            }
            Framing::Chunks => self.chunks(mail).await,
        }
    }

    async fn content_after_354(&mut self, mail: &Mail) -> Result<bool, Gone> {
        let code = self.talk.reply().await?;
        if code != 354 {
            self.ledger.borrow_mut().hears_last(mail.key, code);
            return Ok(true);
        }
        self.send_body(mail).await?;
        self.hear_last(mail).await
    }

    async fn hear_last(&mut self, mail: &Mail) -> Result<bool, Gone> {
        let code = self.talk.reply().await?;
        self.ledger.borrow_mut().hears_last(mail.key, code);
        Ok(false)
    }

    async fn chunks(&mut self, mail: &Mail) -> Result<bool, Gone> {
        let stretches = mail.stretches(&self.dice);
        let last = stretches.len() - 1;
        for (at, stretch) in stretches.iter().enumerate() {
            if at == last {
                self.send_end(mail, stretch).await?;
                return self.hear_last(mail).await;
            }
            self.send(stretch).await?;
            let code = self.talk.reply().await?;
            if code != 250 {
                self.ledger.borrow_mut().hears_last(mail.key, code);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Everything that may be said at once (RFC 2920, RFC 3030 §4.2). Says whether the transaction is still open.
    async fn group(&mut self, mail: &Mail) -> Result<bool, Gone> {
        let mut group = mail_command(mail);
        mail.recipients.iter().for_each(|who| group.push_str(&rcpt_command(who)));
        if mail.framing == Framing::Data {
            group.push_str("DATA\r\n");
        }
        self.send(group.as_bytes()).await?;
        let chunks = if mail.framing == Framing::Chunks { mail.stretches(&self.dice) } else { Vec::new() };
        if let Some((last, others)) = chunks.split_last() {
            for chunk in others {
                self.send(chunk).await?;
            }
            self.send_end(mail, last).await?;
        }
        let code = self.talk.reply().await?;
        self.ledger.borrow_mut().hears_mail(mail.key, code);
        for who in &mail.recipients {
            let code = self.talk.reply().await?;
            self.ledger.borrow_mut().hears_recipient(mail.key, who, code);
        }
        if mail.framing == Framing::Data {
            return self.content_after_354(mail).await;
        }
        self.chunk_replies(mail, chunks.len()).await
    }

    /// The first refusal of a chunk is the message's; no 250 may come for a later one.
    async fn chunk_replies(&mut self, mail: &Mail, count: usize) -> Result<bool, Gone> {
        let mut refusal = None;
        for at in 0..count {
            let code = self.talk.reply().await?;
            match refusal {
                None if code != 250 => refusal = Some(code),
                Some(_) if code == 250 => {
                    self.ledger
                        .borrow_mut()
                        .wrong(format!("message {}: 250 behind a refused chunk", mail.key));
                }
                _ => {}
            }
            if at + 1 == count {
                self.ledger.borrow_mut().hears_last(mail.key, refusal.unwrap_or(code));
            }
        }
        Ok(refusal.is_some())
    }
}

fn mail_command(mail: &Mail) -> String {
    format!("MAIL FROM:<{}>{}\r\n", mail.sender, mail.parameters)
}

fn rcpt_command(who: &str) -> String {
    format!("RCPT TO:<{who}>\r\n")
}
