//! The verbs' side of the control socket: ask, print, and say the exit code.
//!
//! Blocking, without a runtime: a verb is a short-lived process. Exit codes are the interface's: 0 done, 1 nothing
//! to act on, 3 not running, 69 a daemon that does not answer as it should, 77 no permission, 78 refused.

pub mod queue;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::protocol::{self, Answer, GateQuestion, Question, Request};
use crate::limits;

/// What a verb wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// `status`.
    Status {
        /// How the answer is printed.
        output: Output,
    },
    /// `stop`: returns when the process has ended.
    Stop,
    /// `reload`.
    Reload {
        /// `--confirm`: rolled back after this time unless confirmed.
        confirm: Option<Duration>,
    },
    /// `confirm`.
    Confirm,
    /// `flush`.
    Flush,
    /// `gate …`, but for `trace`.
    Gate(GateQuestion),
    /// `gate trace`: until it is interrupted.
    Trace,
    /// `explain`.
    Explain {
        /// About whom.
        question: Question,
        /// How the answer is printed.
        output: Output,
    },
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// For a person.
    Text,
    /// `--json`: one object on one line.
    Json,
}

/// Asks the daemon behind the control socket and prints its answer; mistakes go to `errors`.
///
/// Returns the exit code of the verb.
pub fn run(socket: &Path, verb: &Verb, out: &mut impl Write, errors: &mut impl Write) -> u8 {
    let outcome = match verb {
        Verb::Trace => trace(socket, out),
        _ => ask(socket, verb).map(|answer| print(verb, &answer, out, errors)),
    };
    finish(socket, outcome, errors)
}

/// The exit code that an outcome means; errors are told.
fn finish(socket: &Path, outcome: io::Result<io::Result<u8>>, errors: &mut impl Write) -> u8 {
    match outcome {
        Ok(Ok(code)) => code,
        // The reader of our output went away.
        Ok(Err(_)) => EXIT_OK,
        Err(error) => {
            let code = exit_code(&error);
            let _ = match code {
                EXIT_NOT_RUNNING => {
                    writeln!(errors, "ringpost is not running ({}: {error})", socket.display())
                }
                _ => writeln!(errors, "ringpost: {}: {error}", socket.display()),
            };
            code
        }
    }
}

/// Asks again and again for what was refused since, until the daemon or the reader of our output is gone.
fn trace(socket: &Path, out: &mut impl Write) -> io::Result<io::Result<u8>> {
    let mut after = None;
    loop {
        let question = Verb::Gate(GateQuestion::Trace { after });
        let Answer::Traced { lines, last } = ask(socket, &question)? else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the daemon answered something else"));
        };
        after = Some(last);
        for line in lines {
            if let Err(gone) = writeln!(out, "{line}").and_then(|()| out.flush()) {
                return Ok(Err(gone));
            }
        }
    }
}

/// One question, one answer.
fn ask(socket: &Path, verb: &Verb) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(limits::CONTROL_REQUEST_TIMEOUT))?;
    stream.set_read_timeout(Some(patience(verb)))?;
    let mut line = serde_json::to_vec(&request(verb))?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut reader = BufReader::new(stream);
    let mut answer = String::new();
    reader.read_line(&mut answer)?;
    if answer.is_empty() && *verb == Verb::Stop {
        // Ended at once by a second signal: it is stopped, which is what was asked.
        return Ok(Answer::Stopped { sessions_cut: 0, workers_stuck: 0 });
    }
    let answer =
        serde_json::from_str(&answer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    if let Answer::Stopped { .. } = answer {
        // The connection ends with the process.
        let _ = reader.read_to_end(&mut Vec::new());
    }
    Ok(answer)
}

fn request(verb: &Verb) -> Request {
    match verb {
        Verb::Status { .. } => Request::Status,
        Verb::Stop => Request::Stop,
        Verb::Reload { confirm } => Request::Reload { confirm_ms: confirm.map(protocol::millis) },
        Verb::Confirm => Request::Confirm,
        Verb::Flush => Request::Flush,
        Verb::Explain { question, .. } => Request::Explain(question.clone()),
        Verb::Gate(question) => Request::Gate { question: question.clone() },
        Verb::Trace => Request::Gate { question: GateQuestion::Trace { after: None } },
    }
}

/// How long the answer may take.
fn patience(verb: &Verb) -> Duration {
    match verb {
        Verb::Stop => limits::DRAIN_TIMEOUT + limits::WORKER_ANSWER_TIMEOUT + ANSWER_TIMEOUT,
        _ => ANSWER_TIMEOUT,
    }
}

fn exit_code(error: &io::Error) -> u8 {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => EXIT_NOT_RUNNING,
        io::ErrorKind::PermissionDenied => EXIT_NO_PERMISSION,
        _ => EXIT_UNAVAILABLE,
    }
}

fn print(verb: &Verb, answer: &Answer, out: &mut impl Write, errors: &mut impl Write) -> io::Result<u8> {
    match (verb, answer) {
        (Verb::Status { output: Output::Text }, Answer::Status(status)) => write!(out, "{}", status.text())?,
        (Verb::Status { output: Output::Json }, Answer::Status(status)) => json(out, status)?,
        (Verb::Explain { output: Output::Text, .. }, Answer::Explained(found)) => {
            write!(out, "{}", found.text())?;
        }
        (Verb::Explain { output: Output::Json, .. }, Answer::Explained(found)) => json(out, found)?,
        (Verb::Gate(_), Answer::Told { text }) => out.write_all(text.as_bytes())?,
        (Verb::Stop, Answer::Stopped { sessions_cut, workers_stuck }) => {
            print_stop(*sessions_cut, *workers_stuck, out)?;
        }
        (Verb::Reload { .. }, Answer::Reloaded { warnings, confirm_ms }) => {
            warnings.iter().try_for_each(|warning| writeln!(errors, "warning: {warning}"))?;
            match confirm_ms {
                Some(wait) => {
                    let seconds = wait / 1000;
                    writeln!(out, "in force; rolled back in {seconds} s unless you say: ringpost confirm")?;
                }
                None => writeln!(out, "the new configuration is in force")?,
            }
        }
        (Verb::Confirm, Answer::Confirmed) => writeln!(out, "the new configuration stays")?,
        (Verb::Flush, Answer::Flushed { messages }) => {
            writeln!(out, "{messages} messages are attempted now")?;
        }
        (_, Answer::Refused { mistakes }) => {
            mistakes.iter().try_for_each(|mistake| writeln!(errors, "{mistake}"))?;
            return Ok(match verb {
                Verb::Confirm => EXIT_NOTHING,
                Verb::Gate(_) => EXIT_UNAVAILABLE,
                _ => EXIT_CONFIG,
            });
        }
        _ => {
            writeln!(errors, "the daemon answered something else; is it of another release?")?;
            return Ok(EXIT_UNAVAILABLE);
        }
    }
    Ok(EXIT_OK)
}

fn print_stop(sessions_cut: u64, workers_stuck: usize, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "stopped")?;
    if sessions_cut > 0 {
        writeln!(out, "{sessions_cut} sessions were cut in the middle of a transaction")?;
    }
    if workers_stuck > 0 {
        writeln!(out, "{workers_stuck} workers did not end in time")?;
    }
    Ok(())
}

fn json(out: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    writeln!(out)
}

/// Longest wait for an answer that needs no drain: a reload reads files and asks all workers twice.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

const EXIT_OK: u8 = 0;
const EXIT_NOTHING: u8 = 1;
const EXIT_NOT_RUNNING: u8 = 3;
const EXIT_UNAVAILABLE: u8 = 69;
const EXIT_NO_PERMISSION: u8 = 77;
const EXIT_CONFIG: u8 = 78;
