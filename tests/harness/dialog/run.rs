//! Holds a dialog with the server machine: a driver without sockets that goes by the dialog's rules.

use ringpost::smtp::auth::Credentials;
use ringpost::smtp::body::Form;
use ringpost::smtp::reply::{self, Reply, ReplyBuf};
use ringpost::smtp::server::{Answer, Ending, Event, Fault, Proof, Question, Server};
use secrecy::ExposeSecret as _;

use super::{Dialog, Message, Stage, Turn};

/// How a dialog is held. Nothing of it may change what is said.
#[derive(Debug, Clone)]
pub struct Manner {
    /// Lengths of the stretches that the client's octets come in, over and over.
    pub cuts: Vec<usize>,
    /// Whether the driver answers recipients at once or in groups.
    pub recipients: Recipients,
    /// The form that it wants bodies in.
    pub form: Form,
}

/// When a driver answers recipients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipients {
    /// Each as it is asked.
    AtOnce,
    /// All that came together.
    Postponed,
}

/// What came of a dialog.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The replies, as they went out.
    pub said: Vec<u8>,
    /// The messages that were taken.
    pub taken: Vec<Message>,
    /// What else the driver was told.
    pub events: Vec<String>,
}

/// Holds the dialog and judges it.
///
/// # Errors
/// What is wrong, for a person to read.
pub fn check(dialog: &Dialog, manner: &Manner) -> Result<(), String> {
    let judged = converse(dialog, manner).and_then(|outcome| {
        dialog.judge_replies(&outcome.said)?;
        dialog.judge_messages(&outcome.taken)?;
        let is_told = outcome.events == dialog.events;
        if is_told { Ok(()) } else { Err(format!("events {:?}, not {:?}", outcome.events, dialog.events)) }
    });
    judged.map_err(|what| format!("{}: {what}", dialog.name))
}

/// Holds the dialog: says the client's part and notes the server's.
///
/// # Errors
/// The machine turns in a circle.
pub fn converse(dialog: &Dialog, manner: &Manner) -> Result<Outcome, String> {
    let mut driver = Driver::new(dialog, manner);
    driver.server.greet(&mut driver.out);
    for segment in dialog.turns.split(|turn| *turn == Turn::Tls) {
        let said: Vec<u8> = segment.iter().flat_map(Turn::client).copied().collect();
        driver.hear(&said)?;
    }
    driver.send();
    Ok(driver.outcome)
}

struct Driver<'a> {
    dialog: &'a Dialog,
    manner: &'a Manner,
    server: Server,
    out: ReplyBuf,
    message: Message,
    /// Octets of the body in the form that was asked for.
    body: Vec<u8>,
    /// Postponed recipients.
    owed: Vec<String>,
    outcome: Outcome,
}

/// Whether the client may go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    /// Everything that was given is used up.
    Read,
    /// What is left counts no more.
    Drop,
}

impl<'a> Driver<'a> {
    fn new(dialog: &'a Dialog, manner: &'a Manner) -> Self {
        Self {
            dialog,
            manner,
            server: Server::new(dialog.profile.clone()),
            out: ReplyBuf::new(),
            message: Message::default(),
            body: Vec::new(),
            owed: Vec::new(),
            outcome: Outcome::default(),
        }
    }

    /// Hears everything up to the next handshake.
    fn hear(&mut self, octets: &[u8]) -> Result<(), String> {
        let mut rest = octets;
        for cut in self.manner.cuts.iter().cycle() {
            let (stretch, later) = rest.split_at((*cut).clamp(1, rest.len().max(1)).min(rest.len()));
            if self.step_through(stretch)? == Next::Drop || later.is_empty() {
                return Ok(());
            }
            rest = later;
        }
        Err("no cuts".into())
    }

    fn step_through(&mut self, stretch: &[u8]) -> Result<Next, String> {
        let mut rest = stretch;
        // Each step uses an octet, or answers something that an octet asked.
        for _ in 0..4 * stretch.len() + 16 {
            let step = self.server.step(rest, &mut self.out);
            self.gather(rest);
            rest = &rest[step.consumed..];
            match self.follow(step.event) {
                Next::Read if rest.is_empty() => return Ok(Next::Read),
                Next::Drop => return Ok(Next::Drop),
                Next::Read | Next::GoOn => {}
            }
            if self.out.is_full() {
                self.send();
            }
        }
        Err("the machine turns in a circle".into())
    }

    fn send(&mut self) {
        self.outcome.said.extend_from_slice(self.out.as_bytes());
        self.out.clear();
    }

    fn gather(&mut self, input: &[u8]) {
        for piece in self.server.pieces() {
            self.body.extend_from_slice(piece.octets(input));
        }
    }

    fn follow(&mut self, event: Event) -> Next {
        match event {
            Event::NeedInput => return Next::Read,
            Event::Question(question) => self.decide(question),
            Event::Settle => self.settle(),
            Event::Body => {
                if let Some(reply) = self.dialog.refusal(Stage::Body, "") {
                    self.server.refuse_body(reply);
                }
            }
            Event::BodyFault(fault) => self.outcome.events.push(format!("fault {}", name(fault))),
            Event::Reset => self.outcome.events.push("reset".into()),
            Event::StartTls => {
                self.server.tls_started();
                return Next::Drop;
            }
            Event::Close => {
                let ending = match self.server.ending() {
                    Some(Ending::Quit) => "quit",
                    Some(Ending::Abuse) => "close",
                    Some(Ending::Fault) | None => "fault of the machine",
                };
                if self.outcome.events.last().is_none_or(|last| last != ending) {
                    self.outcome.events.push(ending.into());
                }
                return Next::Drop;
            }
        }
        Next::GoOn
    }

    fn decide(&mut self, question: Question) {
        match question {
            Question::Mail(mail) => {
                let from = mail.reverse_path;
                self.message = Message { from: Some(from.to_string()), ..Message::default() };
                self.answer(self.dialog.refusal(Stage::Mail, from.as_str()));
            }
            Question::Rcpt(rcpt) => {
                self.owed.push(rcpt.forward_path.as_str().to_owned());
                match self.manner.recipients {
                    Recipients::AtOnce => self.settle(),
                    Recipients::Postponed => self.server.postpone(),
                }
            }
            Question::OpenBody { .. } => {
                self.settle();
                self.body.clear();
                let refusal = self.dialog.refusal(Stage::Open, "");
                let answer = refusal.map_or(Answer::Open(self.manner.form), Answer::Refuse);
                self.server.answer(answer, &mut self.out);
            }
            Question::Message => self.conclude(),
            Question::Auth(credentials) => {
                let is_right = self.is_right(&credentials);
                self.answer((!is_right).then_some(reply::AUTH_FAILED));
            }
        }
    }

    fn settle(&mut self) {
        for recipient in std::mem::take(&mut self.owed) {
            let refusal = self.dialog.refusal(Stage::Rcpt, &recipient);
            if refusal.is_none() {
                self.message.to.get_or_insert_default().push(format!("<{recipient}>"));
            }
            self.answer(refusal);
        }
    }

    fn answer(&mut self, refusal: Option<Reply>) {
        self.server.answer(refusal.map_or(Answer::Accept, Answer::Refuse), &mut self.out);
    }

    fn conclude(&mut self) {
        let refusal =
            [Stage::Body, Stage::Message].into_iter().find_map(|stage| self.dialog.refusal(stage, ""));
        if let Some(reply) = refusal {
            return self.server.refused(&reply, &mut self.out);
        }
        let octets = std::mem::take(&mut self.body);
        let content = if self.manner.form == Form::Stuffed { unstuffed(&octets) } else { octets };
        self.message.size = Some(self.server.body_octets());
        self.message.content = Some(content);
        self.outcome.taken.push(std::mem::take(&mut self.message));
        self.server.taken(&Taken, &mut self.out);
    }

    fn is_right(&self, credentials: &Credentials) -> bool {
        self.dialog.login.as_ref().is_some_and(|(login, password)| {
            *login == credentials.login && *password == credentials.password.expose_secret()
        })
    }
}

impl Turn {
    fn client(&self) -> &[u8] {
        match self {
            Self::Client(octets) => octets,
            Self::Server(_) | Self::Tls => &[],
        }
    }
}

struct Taken;

impl Proof for Taken {
    fn reply(&self) -> Reply {
        reply::queued_as("TAKEN")
    }
}

fn name(fault: Fault) -> &'static str {
    match fault {
        Fault::Size => "size",
        Fault::BareNewline => "bare-newline",
        Fault::Nul => "nul",
    }
}

/// The content of a stuffed body (RFC 5321 §4.5.2). A lone dot in it, which would end the message at the next hop,
/// stays and so is seen.
fn unstuffed(octets: &[u8]) -> Vec<u8> {
    let lines = octets.split_inclusive(|&octet| octet == b'\n');
    lines
        .flat_map(|line| line.strip_prefix(b".").filter(|rest| *rest != b"\r\n").unwrap_or(line))
        .copied()
        .collect()
}
