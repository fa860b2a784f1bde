//! One connection of an upstream: reads commands, follows the script, writes the record.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;

use super::record::{Connection, End, Framing, Mail, Recipient, Record};
use super::script::{Act, Script, Stage};
use crate::pipe::Pipe;
use crate::wait::Watched;
use crate::wire;

/// After this a connection on which nothing happens is given up, so that no thread stays for ever.
const IDLE: Duration = Duration::from_secs(120);

/// Where a transaction stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Greeted,
    /// MAIL came; the index of the mail, and whether it was accepted.
    Mail(usize, bool),
}

pub(super) struct Session {
    pipe: Pipe,
    script: Arc<Script>,
    record: Arc<Watched<Record>>,
    id: usize,
    state: State,
    /// Octets that came and were not looked at yet.
    unread: Vec<u8>,
}

/// Whether the conversation goes on, and with which reply code.
type Flow = Result<u16, End>;

impl Session {
    pub(super) fn new(stream: TcpStream, script: Arc<Script>, record: Arc<Watched<Record>>) -> Self {
        let id = record.update(|record| {
            record.connections.push(Connection::default());
            record.connections.len() - 1
        });
        Self { pipe: Pipe::Plain(stream), script, record, id, state: State::Fresh, unread: Vec::new() }
    }

    pub(super) fn serve(mut self) {
        // Where these cannot be set the test still works, only more slowly.
        self.pipe.socket().set_nodelay(true).ok();
        self.pipe.socket().set_read_timeout(Some(IDLE)).ok();
        let end = self.converse().err().unwrap_or(End::Closed);
        self.pipe.socket().shutdown(std::net::Shutdown::Both).ok();
        self.record.update(|record| record.connections[self.id].end = Some(end));
    }

    fn converse(&mut self) -> Result<(), End> {
        if self.script.is_implicit() {
            self.shake_hands()?;
        }
        self.act(Stage::Connect, "", "220 upstream.test ESMTP")?;
        loop {
            let line = self.read_line()?;
            self.note(&line);
            let verb = line.split([' ', ':']).next().unwrap_or("").to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" => {
                    let reply = self.script.ehlo(self.pipe.is_secure());
                    self.greet(Stage::Ehlo, &line, &reply)?;
                }
                "HELO" => self.greet(Stage::Helo, &line, "250 upstream.test")?,
                "MAIL" => self.mail(&line)?,
                "RCPT" => self.rcpt(&line)?,
                "DATA" => self.data(&line)?,
                "BDAT" => self.bdat(&line)?,
                "RSET" => {
                    self.end_transaction();
                    self.act(Stage::Rset, &line, "250 2.0.0 Ok")?;
                }
                "NOOP" => {
                    self.act(Stage::Noop, &line, "250 2.0.0 Ok")?;
                }
                "STARTTLS" => {
                    if self.act(Stage::StartTls, &line, "220 2.0.0 Go on")? == 220 {
                        self.shake_hands()?;
                    }
                }
                "AUTH" => self.auth(&line)?,
                "QUIT" => {
                    self.act(Stage::Quit, &line, "221 2.0.0 Bye")?;
                    return Err(End::Quit);
                }
                _ => {
                    self.breach(format!("an unknown command: {line:?}"));
                    self.act(Stage::Other, &line, "500 5.5.2 What?")?;
                }
            }
        }
    }

    fn greet(&mut self, stage: Stage, line: &str, reply: &str) -> Result<(), End> {
        self.end_transaction();
        if self.act(stage, line, reply)? / 100 == 2 {
            self.state = State::Greeted;
        }
        Ok(())
    }

    /// The handshake, after which everything begins anew (RFC 3207 §4.2).
    fn shake_hands(&mut self) -> Result<(), End> {
        if !self.unread.is_empty() {
            self.breach("octets after STARTTLS before its reply".to_owned());
        }
        self.unread.clear();
        let result = match self.script.config() {
            Some(config) => self.pipe.accept(&config).map_err(|error| error.to_string()),
            None => Err("no certificate".to_owned()),
        };
        self.state = State::Fresh;
        self.record.update(|record| record.connections[self.id].handshake = Some(result.clone()));
        result.map_err(|_| End::Closed)
    }

    /// AUTH with its responses; a 334 asks for another one.
    fn auth(&mut self, line: &str) -> Result<(), End> {
        let secure = self.pipe.is_secure();
        self.record.update(|record| {
            let place = &mut record.connections[self.id];
            place.login_in_clear |= !secure;
        });
        let mut stage = Stage::Auth;
        let mut line = line.to_owned();
        while self.act(stage, &line, "235 2.7.0 Welcome")? == 334 {
            line = self.read_line()?;
            self.note(&line);
            stage = Stage::AuthResponse;
        }
        Ok(())
    }

    fn mail(&mut self, line: &str) -> Result<(), End> {
        let reply = match self.state {
            State::Greeted => "250 2.1.0 Ok",
            State::Fresh => {
                self.breach("MAIL before EHLO".to_owned());
                "503 5.5.1 EHLO first"
            }
            State::Mail(..) => {
                self.breach("MAIL inside a transaction".to_owned());
                "503 5.5.1 Nested MAIL"
            }
        };
        self.check_parameters(line);
        let mail = Mail {
            connection: self.id,
            from: argument(line),
            recipients: Vec::new(),
            framing: Framing::Data,
            wire: Vec::new(),
            complete: false,
        };
        let index = self.record.update(|record| {
            record.mails.push(mail);
            record.mails.len() - 1
        });
        let code = self.act(Stage::Mail, line, reply)?;
        self.state = State::Mail(index, code / 100 == 2);
        Ok(())
    }

    fn rcpt(&mut self, line: &str) -> Result<(), End> {
        let State::Mail(index, accepted) = self.state else {
            self.breach("RCPT without MAIL".to_owned());
            return self.act(Stage::Rcpt, line, "503 5.5.1 MAIL first").map(|_| ());
        };
        self.check_parameters(line);
        let reply = if accepted { "250 2.1.5 Ok" } else { "503 5.5.1 MAIL first" };
        // Recorded before it is answered: who hears the answer may look at the record.
        let place = self.record.update(|record| {
            let recipients = &mut record.mails[index].recipients;
            recipients.push(Recipient { argument: argument(line), code: 0 });
            recipients.len() - 1
        });
        let code = self.act(Stage::Rcpt, line, reply)?;
        self.record.update(|record| record.mails[index].recipients[place].code = code);
        Ok(())
    }

    /// The mail that content may now come for: one with a recipient that was accepted.
    fn ready(&self) -> Option<usize> {
        let State::Mail(index, true) = self.state else { return None };
        self.record.read(|record| (!record.mails[index].accepted().is_empty()).then_some(index))
    }

    fn data(&mut self, line: &str) -> Result<(), End> {
        if !self.unread.is_empty() {
            self.breach("octets after DATA before its reply".to_owned());
        }
        let ready = self.ready();
        let reply = if ready.is_some() { "354 Go on" } else { "554 5.5.1 No valid recipients" };
        if self.act(Stage::Data, line, reply)? != 354 {
            return Ok(());
        }
        let (content_end, next) = self.read_content(ready)?;
        self.unread.drain(..next);
        if let Some(index) = ready {
            self.record.update(|record| {
                record.mails[index].wire.truncate(content_end);
                record.mails[index].complete = true;
            });
        }
        self.state = State::Greeted;
        self.act(Stage::Message, line, "250 2.0.0 Ok: taken")?;
        Ok(())
    }

    /// Reads up to the final dot; the record grows with every octet.
    fn read_content(&mut self, mail: Option<usize>) -> Result<(usize, usize), End> {
        let mut judged = 0;
        let mut told = false;
        loop {
            if let Some(index) = mail {
                let fresh = &self.unread[judged..];
                self.record.update(|record| record.mails[index].wire.extend_from_slice(fresh));
            }
            if let Some(found) = wire::terminator(&self.unread, judged) {
                return Ok(found);
            }
            judged = self.unread.len();
            if judged > 0 && !told {
                told = true;
                if let Some(acts) = self.script.next(Stage::Content, "") {
                    self.perform(&acts)?;
                }
            }
            self.fill()?;
        }
    }

    fn bdat(&mut self, line: &str) -> Result<(), End> {
        if !self.script.offers("CHUNKING") {
            self.breach("BDAT, which is not offered".to_owned());
        }
        let mut words = line.split_ascii_whitespace().skip(1);
        let Some(octets) = words.next().and_then(|word| word.parse::<usize>().ok()) else {
            self.breach(format!("BDAT without a size: {line:?}"));
            return Err(End::Ours);
        };
        let last = words.next().is_some_and(|word| word.eq_ignore_ascii_case("LAST"));
        while self.unread.len() < octets {
            self.fill()?;
        }
        let chunk: Vec<u8> = self.unread.drain(..octets).collect();
        let ready = self.ready();
        let reply = if ready.is_some() { "250 2.0.0 Ok" } else { "503 5.5.1 No valid recipients" };
        if let Some(index) = ready {
            self.record.update(|record| {
                let mail = &mut record.mails[index];
                mail.framing = Framing::Chunks;
                mail.wire.extend_from_slice(&chunk);
                mail.complete = last;
            });
        }
        if last {
            self.state = State::Greeted;
        }
        let stage = if last { Stage::LastChunk } else { Stage::Chunk };
        self.act(stage, line, reply)?;
        Ok(())
    }

    fn end_transaction(&mut self) {
        if let State::Mail(..) = self.state {
            self.state = State::Greeted;
        }
    }

    /// Follows the rule for this stage, or says the reply.
    fn act(&mut self, stage: Stage, line: &str, reply: &str) -> Flow {
        match self.script.next(stage, line) {
            Some(acts) => self.perform(&acts),
            None => self.perform(&[Act::Say(reply.to_owned())]),
        }
    }

    /// Performs acts; the code is that of the last reply among them.
    fn perform(&mut self, acts: &[Act]) -> Flow {
        let mut code = 0;
        for act in acts {
            let written = match act {
                Act::Say(text) => {
                    code = text.get(..3).and_then(|digits| digits.parse().ok()).unwrap_or(0);
                    self.pipe.write_all(format!("{}\r\n", text.replace('\n', "\r\n")).as_bytes())
                }
                Act::Raw(octets) => self.pipe.write_all(octets),
                Act::Dribble(octets) => octets.iter().try_for_each(|octet| self.pipe.write_all(&[*octet])),
                Act::Wait(latch) => {
                    if !latch.pass() {
                        self.breach("a latch was never opened".to_owned());
                    }
                    Ok(())
                }
                Act::Close => return Err(End::Ours),
                Act::Reset => {
                    SockRef::from(self.pipe.socket()).set_linger(Some(Duration::ZERO)).ok();
                    return Err(End::Ours);
                }
            };
            written.map_err(|_| End::Closed)?;
        }
        Ok(code)
    }

    fn read_line(&mut self) -> Result<String, End> {
        loop {
            if let Some(at) = self.unread.iter().position(|octet| *octet == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=at).collect();
                let Some(text) = line.strip_suffix(b"\r\n") else {
                    self.breach(format!("a command ends in a bare LF: {}", line.escape_ascii()));
                    return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
                };
                if text.contains(&b'\r') {
                    self.breach(format!("a bare CR in a command: {}", line.escape_ascii()));
                }
                return Ok(String::from_utf8_lossy(text).into_owned());
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> Result<(), End> {
        let mut octets = [0; 64 * 1024];
        loop {
            match self.pipe.read(&mut octets) {
                Ok(0) => return Err(End::Closed),
                Ok(count) => {
                    self.unread.extend_from_slice(&octets[..count]);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(End::Closed),
            }
        }
    }

    fn note(&mut self, line: &str) {
        // Without PIPELINING a command waits for the reply to the one before it (RFC 2920 §3.1).
        if !self.unread.is_empty() && !self.script.offers("PIPELINING") && !line.starts_with("BDAT") {
            self.breach(format!("more octets after {line:?}, and PIPELINING is not offered"));
        }
        self.record.update(|record| record.connections[self.id].commands.push(line.to_owned()));
    }

    /// A parameter may be used only where its extension is offered (RFC 5321 §4.1.1.11).
    fn check_parameters(&self, line: &str) {
        for parameter in line.split_once('>').map_or("", |(_, after)| after).split_ascii_whitespace() {
            let name = parameter.split('=').next().unwrap_or("").to_ascii_uppercase();
            let extension = match name.as_str() {
                "SIZE" => "SIZE",
                "BODY" => "8BITMIME",
                "SMTPUTF8" => "SMTPUTF8",
                "REQUIRETLS" => "REQUIRETLS",
                "RET" | "ENVID" | "NOTIFY" | "ORCPT" => "DSN",
                "AUTH" => "AUTH",
                _ => {
                    self.breach(format!("an unknown parameter: {line:?}"));
                    continue;
                }
            };
            if !self.script.offers(extension) {
                self.breach(format!("{parameter} without an offer of {extension}"));
            }
        }
    }

    fn breach(&self, what: String) {
        self.record.update(|record| record.connections[self.id].breaches.push(what));
    }
}

fn argument(line: &str) -> String {
    line.split_once(':').map_or("", |(_, argument)| argument.trim()).to_owned()
}
