//! The first message: sent by a client of forty lines, shown as it arrived. It must not need a mail library.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::Event;
use crate::catch_all::Arrived;

const ARRIVES_WITHIN: Duration = Duration::from_secs(30);

/// How it went on the client's side.
pub(crate) struct Sent {
    /// The reply to the end of data.
    verdict: String,
    /// From the dot to the verdict.
    verdict_after: Duration,
    /// From connecting to the verdict.
    took: Duration,
}

/// Sends one message to the plain port.
///
/// # Errors
/// When the relay cannot be reached or says anything but yes.
#[expect(clippy::disallowed_methods, reason = "this measures what a client sees; nothing is decided by it")]
pub(crate) fn send(port: u16, to: &str) -> Result<Sent, Box<dyn Error>> {
    let began = Instant::now();
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(ARRIVES_WITHIN))?;
    stream.set_nodelay(true)?;
    let mut replies = BufReader::new(&stream);
    expect(&mut replies, '2')?;
    let mut say = |line: &str, class: char| -> Result<String, Box<dyn Error>> {
        (&stream).write_all(format!("{line}\r\n").as_bytes())?;
        expect(&mut replies, class).map_err(|error| format!("{}: {error}", line.escape_debug()).into())
    };
    say("EHLO xtask.localhost", '2')?;
    say("MAIL FROM:<first@xtask.localhost>", '2')?;
    say(&format!("RCPT TO:<{to}>"), '2')?;
    say("DATA", '3')?;
    let dot = Instant::now();
    let verdict = say(
        &format!(
            "From: First <first@xtask.localhost>\r\nTo: <{to}>\r\nSubject: The first message\r\n\r\n\
             If you can read this, ringpost relays.\r\n."
        ),
        '2',
    )?;
    let (verdict_after, took) = (dot.elapsed(), began.elapsed());
    say("QUIT", '2')?;
    Ok(Sent { verdict, verdict_after, took })
}

/// The mail that the catch-all took, or none when a signal came first.
///
/// # Errors
/// When nothing arrives in time or the relay ends.
pub(crate) fn wait(events: &Receiver<Event>) -> Result<Option<Arrived>, Box<dyn Error>> {
    loop {
        match events.recv_timeout(ARRIVES_WITHIN) {
            Ok(Event::Arrived(mail)) => return Ok(Some(mail)),
            Ok(Event::Line(line)) => super::show(&line),
            Ok(Event::Signal) => return Ok(None),
            Ok(Event::Ended) => return Err("ringpost ended before the first message arrived".into()),
            Err(_) => return Err("the first message did not arrive".into()),
        }
    }
}

/// What arrived, how long it took, and under whose custody it was.
pub(crate) fn show(sent: &Sent, arrived: Option<&Arrived>, custody: Option<&str>) {
    println!("\nThe first message went through:");
    if let Some(mail) = arrived {
        println!("  envelope  {} -> {}", mail.from, mail.to.join(" "));
        for line in String::from_utf8_lossy(&mail.content).lines() {
            println!("  | {line}");
        }
    }
    println!("  verdict   {}", sent.verdict);
    println!(
        "  took      {:.1} ms from connecting, {:.1} ms of them from the dot to the verdict",
        1e3 * sent.took.as_secs_f64(),
        1e3 * sent.verdict_after.as_secs_f64()
    );
    let custody = match custody {
        Some("upstream") => "upstream: it said 250 before the client heard it, nothing was written here",
        Some("spool") => "spool: it was synced to disk before the client heard 250",
        Some(other) => other,
        None => "not told: /metrics did not answer",
    };
    println!("  custody   {custody}");
}

/// The last line of the next reply, if it is of this class.
fn expect(replies: &mut impl BufRead, class: char) -> Result<String, Box<dyn Error>> {
    loop {
        let mut line = String::new();
        if replies.read_line(&mut line)? == 0 {
            return Err("the relay closed the connection".into());
        }
        if line.as_bytes().get(3) == Some(&b'-') {
            continue;
        }
        let line = line.trim_end().to_owned();
        return if line.starts_with(class) { Ok(line) } else { Err(line.into()) };
    }
}
