//! `sendmail`, `mailq`, `newaliases`: the names by which every program on Unix knows its mail system.
//!
//! A message goes to the local relay by SMTP, so that it is judged, logged and kept as any other; the relay's 250 is what
//! makes exit code 0. Options are read as Postfix reads them: what has no meaning here is taken and ignored, so that no
//! program breaks. Exit codes (sysexits): 64 wrong usage, 65 refused content or no recipient in the header, 67 refused
//! recipient, 69 refused sender or service, 75 try again later: a 4xx, or the relay is not there; 78 wrong configuration.
//!
//! All or nothing: a message that one recipient is refused of is sent to none, so that who repeats it sends no duplicates.
//! What it must not do: write to the spool itself, run with privileges.

mod addresses;
mod message;
mod options;
mod submission;

use std::ffi::OsString;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::process::ExitCode;

use self::message::{Author, Message};
use self::options::{Mode, Options};
use self::submission::Envelope;
use super::{Common, EX_CONFIG, EX_UNAVAILABLE, EX_USAGE, queue, tell};
use crate::config::{self, Host, Sources};
use crate::control::client::{self, Verb};
use crate::limits::SENDMAIL_OCTETS_MAX;

/// Does what the name and the arguments ask for.
pub(super) fn main(name: &str, arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut texts = Vec::new();
    for argument in arguments {
        match argument.into_string() {
            Ok(text) => texts.push(text),
            Err(_) => return fail(EX_USAGE, "an argument is no UTF-8"),
        }
    }
    let options = match options::parse(&texts) {
        Ok(options) => options,
        Err(why) => return fail(EX_USAGE, &why),
    };
    let common = Common { config: options.config.clone(), set: Vec::new() };
    match (name, options.mode) {
        // Aliases are the upstream's business; whoever installs packages calls this.
        ("newaliases", _) | (_, Mode::Aliases) => ExitCode::SUCCESS,
        ("mailq", _) | (_, Mode::List) => queue::mailq(common),
        (_, Mode::Flush) => flush(common),
        (_, Mode::Session) => session(&common.sources()),
        (_, Mode::Submit) => submit(&common.sources(), &options),
    }
}

fn fail(code: u8, why: &str) -> ExitCode {
    tell(why);
    ExitCode::from(code)
}

/// `sendmail -q`: attempts what waits.
fn flush(common: Common) -> ExitCode {
    let socket = config::control_socket(&common.sources());
    match client::run(&socket, &Verb::Flush, &mut io::sink(), &mut io::stderr().lock()) {
        EX_NOT_RUNNING => ExitCode::from(EX_UNAVAILABLE),
        code => ExitCode::from(code),
    }
}

/// `sendmail -bs`: a session with the relay on standard input and output.
fn session(sources: &Sources) -> ExitCode {
    match relay_address(sources) {
        Ok(address) => match submission::pump(address) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(EX_TEMPFAIL, &format!("{address}: {error}")),
        },
        Err(why) => fail(EX_CONFIG, &why),
    }
}

fn submit(sources: &Sources, options: &Options) -> ExitCode {
    if options.recipients.is_empty() && !options.from_header {
        return fail(EX_USAGE, "recipients are missing: name them, or give -t to read them from the header");
    }
    let mut input = Vec::new();
    let limit = SENDMAIL_OCTETS_MAX as u64 + 1;
    if let Err(error) = io::stdin().lock().take(limit).read_to_end(&mut input) {
        return fail(EX_IOERR, &format!("standard input: {error}"));
    }
    if input.len() > SENDMAIL_OCTETS_MAX {
        return fail(EX_DATAERR, &format!("the message is longer than {SENDMAIL_OCTETS_MAX} octets"));
    }
    let host = host_name(sources);
    let (user, full_name) = user();
    let author = Author {
        address: options.sender.clone().unwrap_or(user),
        name: options.name.clone().unwrap_or(full_name),
    };
    let sender = addresses::qualified(&author.address, &host);
    let dot_ends = !options.dots_are_content;
    let message = Message::read(&input, dot_ends, &Author { address: sender.clone(), ..author });
    let mut recipients = options.recipients.clone();
    if options.from_header {
        match message.recipients() {
            Ok(found) => recipients.extend(found),
            Err(field) => return fail(EX_DATAERR, &format!("the addresses in {field} cannot be read")),
        }
    }
    let mut recipients: Vec<String> =
        recipients.iter().map(|recipient| addresses::qualified(recipient, &host)).collect();
    let mut seen = std::collections::HashSet::new();
    recipients.retain(|recipient| seen.insert(recipient.clone()));
    if recipients.is_empty() {
        return fail(EX_DATAERR, "there is no recipient in the header of the message");
    }
    let envelope = Envelope { host: &host, sender: &sender, recipients: &recipients, dsn: &options.dsn };
    match relay_address(sources) {
        Ok(address) => match submission::send(address, &envelope, &message.octets) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => fail(failure.exit_code(), &failure.to_string()),
        },
        Err(why) => fail(EX_CONFIG, &why),
    }
}

/// Where the local relay takes mail: `LISTEN_SMTP`, or where that is any free port, what the relay says.
fn relay_address(sources: &Sources) -> Result<SocketAddr, String> {
    let configured = config::local_smtp(sources)
        .ok_or("LISTEN_SMTP names no address that a message could be handed to".to_owned())?;
    if configured.port() != 0 {
        return Ok(configured);
    }
    let socket = config::control_socket(sources);
    let mut answer = Vec::new();
    let verb = Verb::Status { output: client::Output::Json };
    client::run(&socket, &verb, &mut answer, &mut io::sink());
    let status: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
    let listeners = status["listeners"].as_array().cloned().unwrap_or_default();
    let mut addresses = listeners.iter().filter(|one| one["listener"] == "smtp");
    let address = addresses.find_map(|one| one["address"].as_str()?.parse().ok());
    // Nobody tells: it is not running, which the connection will find out.
    Ok(address.map_or(configured, config::reachable))
}

fn host_name(sources: &Sources) -> String {
    config::host_name(sources).unwrap_or_else(|| Host::current().name)
}

/// The login of who runs this and the full name, as far as the system tells without a library.
fn user() -> (String, String) {
    let uid = std::fs::metadata("/proc/self").map(|process| process.uid());
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of_uid = accounts
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.len() > 4 && uid.as_ref().is_ok_and(|uid| fields[2].parse() == Ok(*uid)));
    let name = std::env::var("NAME").unwrap_or_default();
    match of_uid {
        Some(fields) => {
            let full = fields[4].split(',').next().unwrap_or_default();
            (fields[0].to_owned(), if name.is_empty() { full.to_owned() } else { name })
        }
        None => (std::env::var("LOGNAME").unwrap_or_else(|_| "nobody".to_owned()), name),
    }
}

const EX_NOT_RUNNING: u8 = 3;
const EX_DATAERR: u8 = 65;
const EX_IOERR: u8 = 74;
const EX_TEMPFAIL: u8 = 75;

#[cfg(test)]
mod tests;
