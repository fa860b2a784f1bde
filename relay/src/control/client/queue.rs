//! `queue …` on the verbs' side: asks, prints line by line, says the exit code.
//!
//! Three shapes: a table for people, the fields of `postqueue -j`, and the listing of `mailq` for scripts that know
//! Postfix. What peers said is made fit for a terminal here.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde::Serialize;

use super::{EXIT_NOTHING, EXIT_OK, EXIT_UNAVAILABLE, finish};
use crate::control::protocol::{Answer, Request};
pub use crate::control::queue::Which;
pub use crate::egress::operator::Action;
use crate::egress::operator::{Row, RowRecipient};
use crate::limits;
use crate::trace::LocalTime;

/// How messages are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One line a message.
    Table,
    /// One JSON object a line, with the fields of `postqueue -j`.
    Json,
    /// As `mailq` of Postfix prints them.
    Mailq,
    /// All that is known of a message.
    Whole,
}

/// What is asked of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueVerb {
    /// What is to be done.
    pub action: Action,
    /// With these ids, each for itself; without any: with all that `which` means.
    pub ids: Vec<String>,
    /// With which messages.
    pub which: Which,
    /// How they are printed.
    pub shape: Shape,
}

/// Asks the daemon behind the control socket and prints its answer. Returns the exit code: 1 where a message that was
/// asked for by its id is not there, or something was left undone.
pub fn run(socket: &Path, verb: &QueueVerb, out: &mut impl Write, errors: &mut impl Write) -> u8 {
    let asked = (|| {
        if verb.ids.is_empty() {
            return ask(socket, verb, None, out, errors);
        }
        let mut code = EXIT_OK;
        for id in &verb.ids {
            match ask(socket, verb, Some(id), out, errors)? {
                Ok(one) => code = code.max(one),
                gone => return Ok(gone),
            }
        }
        Ok(Ok(code))
    })();
    finish(socket, asked, errors)
}

fn ask(
    socket: &Path,
    verb: &QueueVerb,
    id: Option<&String>,
    out: &mut impl Write,
    errors: &mut impl Write,
) -> io::Result<io::Result<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(limits::CONTROL_REQUEST_TIMEOUT))?;
    stream.set_read_timeout(Some(2 * limits::CONTROL_LINE_TIMEOUT))?;
    let which = Which { id: id.cloned(), ..verb.which.clone() };
    let mut line = serde_json::to_vec(&Request::Queue { action: verb.action, which })?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut printer = Printer { shape: verb.shape, rows: 0, octets: 0 };
    for line in BufReader::new(stream).lines() {
        let answer = serde_json::from_str(&line?)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        match answer {
            Answer::QueueRow(row) => {
                if let Err(gone) = printer.print(&row, out) {
                    return Ok(Err(gone));
                }
            }
            Answer::QueueUnreadable { id, reason } => {
                let _ = writeln!(errors, "{id}: {}", shown(&reason));
            }
            Answer::QueueEnd { matched, done, under_way, failed, workers_silent } => {
                let printed = match verb.action {
                    Action::List | Action::Show => printer.end(out),
                    _ if verb.ids.is_empty() => {
                        writeln!(out, "{done} of {matched} messages {}", past(verb.action))
                    }
                    _ => Ok(()),
                };
                if let Err(gone) = printed {
                    return Ok(Err(gone));
                }
                let mut complain = |text: String| drop(writeln!(errors, "{text}"));
                let name = id.map_or_else(|| format!("{under_way} messages"), Clone::clone);
                if under_way > 0 {
                    complain(format!("{name}: being delivered right now, left alone"));
                }
                if workers_silent > 0 {
                    complain(format!("{workers_silent} workers did not answer"));
                    return Ok(Ok(EXIT_UNAVAILABLE));
                }
                if let (Some(id), 0) = (id, matched) {
                    complain(format!("{}: no such message", shown(id)));
                    return Ok(Ok(EXIT_NOTHING));
                }
                return Ok(Ok(if under_way + failed > 0 { EXIT_NOTHING } else { EXIT_OK }));
            }
            Answer::Malformed { reason } => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            _ => break,
        }
    }
    Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer ends too early"))
}

fn past(action: Action) -> &'static str {
    match action {
        Action::Hold => "held",
        Action::Release => "released",
        Action::Delete => "deleted",
        Action::Requeue => "requeued",
        Action::Bounce => "returned",
        Action::List | Action::Show => "shown",
    }
}

struct Printer {
    shape: Shape,
    rows: u64,
    octets: u64,
}

impl Printer {
    fn print(&mut self, row: &Row, out: &mut impl Write) -> io::Result<()> {
        let is_first = self.rows == 0;
        self.rows += 1;
        self.octets += row.octets;
        match self.shape {
            Shape::Table => print_line(row, is_first, out),
            Shape::Json => {
                serde_json::to_writer(&mut *out, &PostqueueRow::of(row))?;
                writeln!(out)
            }
            Shape::Mailq => print_mailq(row, is_first, out),
            Shape::Whole => print_whole(row, out),
        }
    }

    fn end(&self, out: &mut impl Write) -> io::Result<()> {
        let plural = if self.rows == 1 { "" } else { "s" };
        match (self.shape, self.rows) {
            (Shape::Table, 0) => writeln!(out, "the queue is empty"),
            (Shape::Mailq, 0) => writeln!(out, "Mail queue is empty"),
            (Shape::Mailq, rows) => {
                writeln!(out, "-- {} Kbytes in {rows} Request{plural}.", self.octets.div_ceil(1024))
            }
            (Shape::Table | Shape::Json | Shape::Whole, _) => Ok(()),
        }?;
        out.flush()
    }
}

/// A message as `postqueue -j` tells of it.
#[derive(Debug, Serialize)]
struct PostqueueRow<'a> {
    queue_name: &'a str,
    queue_id: &'a str,
    arrival_time: u64,
    message_size: u64,
    forced_expire: bool,
    sender: &'a str,
    recipients: Vec<PostqueueRecipient<'a>>,
}

#[derive(Debug, Serialize)]
struct PostqueueRecipient<'a> {
    address: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_reason: Option<&'a str>,
}

impl<'a> PostqueueRow<'a> {
    fn of(row: &'a Row) -> Self {
        let recipient = |one: &'a RowRecipient| PostqueueRecipient {
            address: &one.address,
            delay_reason: one.reason.as_deref(),
        };
        Self {
            queue_name: &row.queue,
            queue_id: &row.id,
            arrival_time: row.arrival_ms / 1000,
            message_size: row.octets,
            forced_expire: false,
            sender: sender(row),
            recipients: open(row).map(recipient).collect(),
        }
    }
}

/// The null sender has the name that Postfix gives it.
fn sender(row: &Row) -> &str {
    if row.sender.is_empty() { "MAILER-DAEMON" } else { &row.sender }
}

/// The recipients that something is still to be done for.
fn open(row: &Row) -> impl Iterator<Item = &RowRecipient> {
    row.recipients.iter().filter(|one| matches!(one.standing.as_str(), "pending" | "failed"))
}

fn print_line(row: &Row, is_first: bool, out: &mut impl Write) -> io::Result<()> {
    if is_first {
        writeln!(
            out,
            "{:<15} {:<8} {:>9} {:<25} {:>3}  FROM -> TO (REASON)",
            "ID", "QUEUE", "OCTETS", "ARRIVAL", "TRY"
        )?;
    }
    let arrival = timestamp(row.arrival_ms);
    let first = open(row).next();
    write!(
        out,
        "{:<15} {:<8} {:>9} {arrival:<25} {:>3}  {} -> {}",
        row.id,
        row.queue,
        row.octets,
        row.attempts,
        shown(sender(row)),
        first.map_or_else(|| "nobody".to_owned(), |one| shown(&one.address)),
    )?;
    match open(row).count() {
        0 | 1 => {}
        count => write!(out, " and {} more", count - 1)?,
    }
    match first.and_then(|one| one.reason.as_deref()) {
        Some(reason) => writeln!(out, " ({})", shown(reason)),
        None => writeln!(out),
    }
}

fn print_mailq(row: &Row, is_first: bool, out: &mut impl Write) -> io::Result<()> {
    if is_first {
        writeln!(out, "-Queue ID-      --Size-- ----Arrival Time---- -Sender/Recipient-------")?;
    } else {
        writeln!(out)?;
    }
    let mark = match row.queue.as_str() {
        "active" => "*",
        "hold" => "!",
        _ => " ",
    };
    // `Thu, 1 Jan 1970 00:00:00 +0000` becomes `Thu Jan  1 00:00:00`.
    let date = timestamp(row.arrival_ms);
    let parts: Vec<&str> = date.split([',', ' ']).filter(|part| !part.is_empty()).collect();
    let date = match parts[..] {
        [weekday, day, month, _, time, _] => format!("{weekday} {month} {day:>2} {time}"),
        _ => date,
    };
    writeln!(out, "{}{mark} {:>8} {date}  {}", row.id, row.octets, shown(sender(row)))?;
    for recipient in open(row) {
        if let Some(reason) = &recipient.reason {
            writeln!(out, "{:>40}({})", "", shown(reason))?;
        }
        writeln!(out, "{:>40}{}", "", shown(&recipient.address))?;
    }
    Ok(())
}

fn print_whole(row: &Row, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "id: {}\nqueue: {}\noctets: {}", row.id, row.queue, row.octets)?;
    writeln!(out, "arrival: {}\nattempts: {}", timestamp(row.arrival_ms), row.attempts)?;
    writeln!(out, "due: {}", timestamp(row.due_ms))?;
    writeln!(out, "client: {} ({})", shown(&row.client), shown(&row.helo))?;
    let optional = [("login", &row.login), ("tls", &row.tls), ("ret", &row.ret), ("envid", &row.envid)];
    for (name, value) in optional {
        if let Some(value) = value {
            writeln!(out, "{name}: {}", shown(value))?;
        }
    }
    writeln!(out, "sender: <{}>", shown(&row.sender))?;
    for recipient in &row.recipients {
        writeln!(out, "recipient: <{}> {}", shown(&recipient.address), recipient.standing)?;
    }
    for attempt in &row.history {
        let whom =
            attempt.recipient.as_ref().map_or(String::new(), |address| format!(" <{}>", shown(address)));
        let upstream = if attempt.upstream.is_empty() {
            String::new()
        } else {
            format!(" {}", shown(&attempt.upstream))
        };
        writeln!(out, "attempt: {}{upstream}{whom}: {}", timestamp(attempt.at_ms), shown(&attempt.reply))?;
    }
    if let Some(header) = &row.header {
        writeln!(out)?;
        header.lines().try_for_each(|line| writeln!(out, "{}", shown(line)))?;
    }
    out.flush()
}

fn timestamp(unix_ms: u64) -> String {
    LocalTime { unix_ms, offset_minutes: 0 }.to_string()
}

/// What a peer said, without what would command a terminal.
fn shown(text: &str) -> String {
    let is_harmful = |character: char| {
        (character.is_control() && character != '\t')
            || matches!(character, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|character| if is_harmful(character) { '?' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let recipient = |address: &str, standing: &str, reason: Option<&str>| RowRecipient {
            address: address.to_owned(),
            standing: standing.to_owned(),
            reason: reason.map(str::to_owned),
        };
        Row {
            id: "U1K2JFJ00000000".to_owned(),
            queue: "deferred".to_owned(),
            arrival_ms: 1_000_000_000_999,
            due_ms: 1_000_000_060_000,
            attempts: 2,
            octets: 2000,
            sender: String::new(),
            recipients: vec![
                recipient("a@example.org", "pending", Some("450 4.2.0 \u{1b}[2Jlater")),
                recipient("b@example.org", "delivered", None),
                recipient("c@example.org", "pending", None),
            ],
            ret: None,
            envid: None,
            client: "198.18.0.1 port 4025 on smtp".to_owned(),
            helo: "client.example".to_owned(),
            login: None,
            tls: None,
            history: Vec::new(),
            header: Some("Subject: x\r\n".to_owned()),
        }
    }

    fn printed(shape: Shape, rows: &[Row]) -> String {
        let mut printer = Printer { shape, rows: 0, octets: 0 };
        let mut out = Vec::new();
        rows.iter().for_each(|row| printer.print(row, &mut out).unwrap());
        printer.end(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_has_the_fields_of_postqueue_and_nothing_for_an_empty_queue() {
        let expected = "{\"queue_name\":\"deferred\",\"queue_id\":\"U1K2JFJ00000000\",\"arrival_time\":1000000000,\"message_size\":2000,\"forced_expire\":false,\"sender\":\"MAILER-DAEMON\",\"recipients\":[{\"address\":\"a@example.org\",\"delay_reason\":\"450 4.2.0 \\u001b[2Jlater\"},{\"address\":\"c@example.org\"}]}\n";
        assert_eq!(printed(Shape::Json, &[row()]), expected);
        assert_eq!(printed(Shape::Json, &[]), "");
    }

    #[test]
    fn mailq_prints_what_scripts_know_from_postfix() {
        let expected = "-Queue ID-      --Size-- ----Arrival Time---- -Sender/Recipient-------\n\
                        U1K2JFJ00000000      2000 Sun Sep  9 01:46:40  MAILER-DAEMON\n\
                        \x20                                       (450 4.2.0 ?[2Jlater)\n\
                        \x20                                       a@example.org\n\
                        \x20                                       c@example.org\n\
                        -- 2 Kbytes in 1 Request.\n";
        assert_eq!(printed(Shape::Mailq, &[row()]), expected);
        assert_eq!(printed(Shape::Mailq, &[]), "Mail queue is empty\n");
    }

    #[test]
    fn a_table_has_one_line_a_message() {
        let text = printed(Shape::Table, &[row(), row()]);
        assert_eq!(text.lines().count(), 3);
        assert!(
            text.ends_with("MAILER-DAEMON -> a@example.org and 1 more (450 4.2.0 ?[2Jlater)\n"),
            "{text}"
        );
        assert_eq!(printed(Shape::Table, &[]), "the queue is empty\n");
    }

    #[test]
    fn show_tells_all_that_is_known() {
        let text = printed(Shape::Whole, &[row()]);
        for line in
            ["id: U1K2JFJ00000000", "sender: <>", "recipient: <b@example.org> delivered", "", "Subject: x"]
        {
            assert!(text.lines().any(|found| found == line), "{line:?} in {text}");
        }
    }
}
