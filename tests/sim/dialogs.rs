//! The dialogs through the real session in the simulated world: the rules of the dialog are its sink.
//!
//! A dialog whose profile the inbound configuration cannot express (TLS, logins, extensions switched off), or that
//! refuses senders in words of its own, is the machine's alone; so is one that refuses a body while it comes, which a
//! session learns later than the machine's own driver.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use ringpost::custody::Custody;
use ringpost::envelope::{Envelope, Peer};
use ringpost::ingress::session::Session;
use ringpost::ingress::sink::{Answer, Content, Next, Sink};
use ringpost::ingress::{self, Ingress};
use ringpost::io::sim::{Faults, World};
use ringpost::io::{Flight, Io, Stream};
use ringpost::limits::TICK;
use ringpost::meter::{Listener, SessionOutcome};
use ringpost::smtp::body::Form;
use ringpost::smtp::client::{Expect, UpstreamReply};
use ringpost::smtp::params::Rcpt;
use ringpost::smtp::reply::Reply;
use ringpost::smtp::server::Profile;
use ringpost::units::{Moment, Octets, QueueIds, SessionId, WorkerId};
use ringpost_tests::dialog::{Dialog, Message, Stage, Turn};

use crate::play::{CLIENT, ingress_config};
use crate::talk::{Gone, Talk};

/// Holds a dialog; says how many were held at least.
pub(crate) fn hold_all(seed: u64, faults: Faults) -> Result<usize, String> {
    let dialogs: Vec<_> = Dialog::all()?.into_iter().filter(is_expressible).collect();
    let wrong: Vec<_> = dialogs
        .iter()
        .filter_map(|dialog| Some(format!("{}: {}", dialog.name, hold(dialog, seed, faults).err()?)))
        .collect();
    if wrong.is_empty() { Ok(dialogs.len()) } else { Err(wrong.join("\n\n")) }
}

fn is_expressible(dialog: &Dialog) -> bool {
    let profile = &dialog.profile;
    let plain = Profile::relay(Arc::clone(&profile.host_name));
    profile.role == plain.role
        && (profile.tls, profile.starttls, profile.requiretls)
            == (plain.tls, plain.starttls, plain.requiretls)
        && (profile.chunking, profile.dsn, profile.smtputf8) == (plain.chunking, plain.dsn, plain.smtputf8)
        && profile.auth.is_empty()
        && dialog.rules.iter().all(|rule| !matches!(rule.stage, Stage::Mail | Stage::Body))
        && !dialog.turns.contains(&Turn::Tls)
}

/// What the session and the client of one dialog leave behind.
#[derive(Default)]
struct Traces {
    said: Vec<u8>,
    taken: Vec<Message>,
    /// The client has heard everything.
    has_left: bool,
}

fn hold(dialog: &Dialog, seed: u64, faults: Faults) -> Result<(), String> {
    let world = World::new(seed, faults);
    let traces = Rc::new(RefCell::new(Traces::default()));
    let dialog = Rc::new(dialog.clone());
    let outcome = world.run(Moment(HOUR), converse(world.clone(), Rc::clone(&dialog), Rc::clone(&traces)));
    world.end();
    let outcome = outcome.ok_or("the dialog never ended")?;
    let traces = traces.borrow();
    dialog.judge_replies(&traces.said)?;
    dialog.judge_messages(&traces.taken)?;
    let ends_with = |event: &str| dialog.events.last().is_some_and(|last| last == event);
    let wanted = match outcome {
        SessionOutcome::Quit => ends_with("quit"),
        SessionOutcome::Abuse => ends_with("close"),
        _ => !ends_with("quit") && !ends_with("close"),
    };
    if wanted { Ok(()) } else { Err(format!("{outcome:?}, not {:?}", dialog.events)) }
}

/// An hour in microseconds.
const HOUR: u64 = 3_600_000_000;

async fn converse(world: World, dialog: Rc<Dialog>, traces: Rc<RefCell<Traces>>) -> SessionOutcome {
    let (ours, theirs) = world.pair();
    let mut config = ingress_config();
    config.message_size_max = Octets(dialog.profile.size_max);
    config.recipients_max = dialog.profile.recipients_max;
    config.bare_newline = dialog.profile.bare_newline;
    let mut session = session(&world, config, theirs, Rules::new(&dialog, &traces));
    let talking = Rc::clone(&traces);
    let talk = Talk::new(world.clone(), ours, "client");
    world.spawn(async move {
        // Whoever ends it, what was said until then is judged.
        let _gone = speak(talk, &dialog, &talking).await;
        talking.borrow_mut().has_left = true;
    });
    let outcome = session.serve().await;
    drop(session);
    while !traces.borrow().has_left {
        world.sleep(TICK).await;
    }
    outcome
}

fn session(
    world: &World,
    config: ingress::Config,
    stream: <World as Io>::Stream,
    sink: Rules,
) -> Session<World, Rules> {
    let ids = Rc::new(RefCell::new(QueueIds::new(world.unix_ms(), WorkerId(0))));
    let ingress = Ingress::new(world.clone(), Arc::new(config), Rc::default(), ids, Arc::default());
    let peer = Peer { listener: Listener::Smtp, socket: CLIENT, client: CLIENT };
    let id = SessionId { worker: WorkerId(0), number: 1 };
    Session::new(Rc::new(ingress), stream, sink, peer, id, Bytes::new())
}

/// The client's part: it speaks in turn, and at the end hears what else there is.
async fn speak(mut talk: Talk, dialog: &Dialog, traces: &RefCell<Traces>) -> Result<(), Gone> {
    for turn in &dialog.turns {
        match turn {
            Turn::Client(octets) => drop(talk.send(octets).await),
            Turn::Server(_) => {
                let line = talk.line().await?;
                traces.borrow_mut().said.extend_from_slice(&line);
            }
            Turn::Tls => {}
        }
    }
    talk.stream.finish_sending();
    loop {
        let line = talk.line().await?;
        traces.borrow_mut().said.extend_from_slice(&line);
    }
}

/// A sink that goes by the dialog's rules.
struct Rules {
    dialog: Rc<Dialog>,
    traces: Rc<RefCell<Traces>>,
    content: Vec<u8>,
}

impl Rules {
    fn new(dialog: &Rc<Dialog>, traces: &Rc<RefCell<Traces>>) -> Self {
        Self { dialog: Rc::clone(dialog), traces: Rc::clone(traces), content: Vec::new() }
    }

    fn take(&mut self, slices: &mut Flight) {
        slices.remaining().for_each(|slice| self.content.extend_from_slice(slice));
        slices.clear();
    }

    /// The message as the machine would have told of it, without the trace in front.
    fn message(&self, envelope: &Envelope) -> Message {
        let traces = self.traces.borrow();
        let wanted = self.dialog.messages.get(traces.taken.len());
        let content = wanted.and_then(|wanted| wanted.content.clone());
        let is_so = content.as_ref().is_some_and(|content| self.content.ends_with(content));
        Message {
            from: Some(envelope.mail.reverse_path.to_string()),
            to: Some(envelope.recipients.iter().map(|rcpt| rcpt.forward_path.to_string()).collect()),
            size: wanted.and_then(|wanted| wanted.size),
            content: if is_so { content } else { Some(self.content.clone()) },
        }
    }
}

impl Sink for Rules {
    async fn recipients(&mut self, _envelope: &Envelope, rcpts: &[Rcpt], _next: Next) -> Vec<Answer> {
        let answer =
            |rcpt: &Rcpt| self.dialog.refusal(Stage::Rcpt, rcpt.forward_path.as_str()).map_or(Ok(()), Err);
        rcpts.iter().map(answer).collect()
    }

    async fn open(&mut self, _envelope: &Envelope) -> Result<Form, Reply> {
        self.dialog.refusal(Stage::Open, "").map_or(Ok(Form::Plain), Err)
    }

    async fn body(&mut self, _envelope: &Envelope, slices: &mut Flight) -> Result<(), Reply> {
        self.take(slices);
        Ok(())
    }

    async fn finish(
        &mut self,
        envelope: &Envelope,
        rest: &mut Flight,
        _content: Content<'_>,
    ) -> Result<Custody, Reply> {
        self.take(rest);
        if let Some(refusal) = self.dialog.refusal(Stage::Message, "") {
            return Err(refusal);
        }
        let message = self.message(envelope);
        self.traces.borrow_mut().taken.push(message);
        let reply = UpstreamReply { code: 250, enhanced: None, text: "Ok: queued as TAKEN".into() };
        Custody::of_upstream(Expect::Message, &reply).ok_or(ringpost::smtp::reply::LOCAL_ERROR)
    }

    fn reset(&mut self) {
        self.content.clear();
    }

    fn upstream(&self) -> Option<&str> {
        None
    }
}
