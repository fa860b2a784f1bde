//! `cargo xtask run`: the relay on loopback, with an upstream that takes everything, for a first look.
//!
//! It must not send anything to a real upstream unless `--to` says whom to.

mod first_mail;
mod relay;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::build::{self, Profile, Provider};
use crate::catch_all::{self, Arrived};
use crate::shell::{Done, target};
use relay::Relay;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A real upstream, HOST:PORT, instead of the catch-all
    #[arg(long, value_name = "HOST:PORT")]
    upstream: Option<String>,
    /// Recipient of the first message; with --upstream none is sent without it
    #[arg(long, value_name = "ADDRESS")]
    to: Option<String>,
    /// The plain port; submission listens 62 above it, submissions 60 below that
    #[arg(long, default_value_t = 2525)]
    port: u16,
    /// The unoptimised binary: builds faster, runs slower
    #[arg(long)]
    debug: bool,
    /// Stop after the first message
    #[arg(long)]
    once: bool,
}

/// What the main loop waits for.
pub(crate) enum Event {
    /// The catch-all took a mail.
    Arrived(Arrived),
    /// The relay logged a line.
    Line(String),
    /// The relay closed its output: it is ending.
    Ended,
    /// Ctrl-C, or the like.
    Signal,
}

impl From<Arrived> for Event {
    fn from(mail: Arrived) -> Self {
        Event::Arrived(mail)
    }
}

/// How long the relay may take to say that it is ready, and to end once asked.
const READY_WITHIN: Duration = Duration::from_secs(20);
const ENDED_WITHIN: Duration = Duration::from_secs(45);

pub(crate) fn run(arguments: &Arguments) -> Done {
    let profile = if arguments.debug { Profile::Debug } else { Profile::Release };
    let binary = build::relay(profile, Provider::Ring)?;
    let (sender, events) = channel();
    watch_signals(sender.clone())?;
    let upstream = match &arguments.upstream {
        Some(upstream) => upstream.clone(),
        None => format!("[127.0.0.1]:{}", catch_all::start(sender.clone())?.port()),
    };
    let mut relay = Relay::start(&binary, &upstream, arguments.port, &state_dir()?, sender)?;
    let done = serve(arguments, &mut relay, &upstream, &events);
    let stopped = stop(&mut relay, &events);
    done.and(stopped)
}

fn serve(arguments: &Arguments, relay: &mut Relay, upstream: &str, events: &Receiver<Event>) -> Done {
    if !wait_ready(events)? {
        return Ok(());
    }
    println!("\nringpost listens on 127.0.0.1:{} and relays to {upstream}", arguments.port);
    let to = arguments.to.as_deref().or(arguments.upstream.is_none().then_some("you@example.com"));
    if let Some(to) = to {
        let sent = first_mail::send(arguments.port, to)?;
        let arrived = if arguments.upstream.is_none() { first_mail::wait(events)? } else { None };
        first_mail::show(&sent, arrived.as_ref(), relay.custody().as_deref());
    }
    if arguments.once {
        return Ok(());
    }
    println!("\nNow send your own (Ctrl-C drains and stops):");
    println!("  swaks --server 127.0.0.1:{} --to you@example.com", arguments.port);
    relay.submission_hint();
    println!("  curl http://127.0.0.1:{}/metrics\n", relay::ADMIN_PORT);
    io::stdout().flush()?;
    for event in events {
        match event {
            Event::Line(line) => show(&line),
            Event::Arrived(_) => {}
            Event::Ended => return Err(format!("ringpost ended: {}", relay.wait()?).into()),
            Event::Signal => break,
        }
    }
    Ok(())
}

/// True when the relay is ready, false when a signal came first.
fn wait_ready(events: &Receiver<Event>) -> Result<bool, Box<dyn std::error::Error>> {
    let mut said = Vec::new();
    loop {
        match events.recv_timeout(READY_WITHIN) {
            Ok(Event::Line(line)) if relay::field(&line, "event") == Some("ready") => {
                show(&line);
                return Ok(true);
            }
            Ok(Event::Line(line)) => said.push(line),
            Ok(Event::Signal) => return Ok(false),
            Ok(Event::Arrived(_)) => {}
            Ok(Event::Ended) => return Err(format!("ringpost did not start:\n{}", said.join("\n")).into()),
            Err(_) => {
                return Err(format!("ringpost was not ready in time; it said:\n{}", said.join("\n")).into());
            }
        }
    }
}

/// One line a message, as `relayed …`; warnings and errors as they are.
fn show(line: &str) {
    let field = |name| relay::field(line, name).unwrap_or("-");
    match field("event") {
        "relayed" | "delivered" => println!(
            "relayed {} -> {} size={} upstream={} delay={} reply={}",
            field("from"),
            field("to"),
            field("size"),
            field("upstream"),
            field("delay"),
            field("reply")
        ),
        outcome @ ("queued" | "deferred" | "bounced" | "rejected") => println!(
            "{outcome} {} -> {} size={} delay={} reply={}",
            field("from"),
            field("to"),
            field("size"),
            field("delay"),
            field("reply")
        ),
        "ready" => println!("{line}"),
        _ if ["WARN", "ERROR"].contains(&field("level").to_ascii_uppercase().as_str()) => println!("{line}"),
        _ => {}
    }
}

fn stop(relay: &mut Relay, events: &Receiver<Event>) -> Done {
    println!("\nstopping: open transactions are finished first (Ctrl-C again stops at once)");
    relay.stop();
    loop {
        match events.recv_timeout(ENDED_WITHIN) {
            Ok(Event::Line(line)) => show(&line),
            Ok(Event::Arrived(_)) => {}
            Ok(Event::Signal) => relay.kill(),
            Ok(Event::Ended) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                relay.kill();
                return Err("ringpost did not drain in time and was killed".into());
            }
        }
    }
    println!("stopped: {}", relay.wait()?);
    Ok(())
}

fn watch_signals(events: Sender<Event>) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || signals.forever().all(|_| events.send(Event::Signal).is_ok()));
    Ok(())
}

fn state_dir() -> io::Result<PathBuf> {
    let dir = target().join("run");
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}
