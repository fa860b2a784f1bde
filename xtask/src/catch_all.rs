//! The upstream of `cargo xtask run`: takes every mail and shows it. Plain threads, no faults, no options.
//!
//! The scriptable upstream of the tests is another one, in tests/harness: this one must build in seconds and
//! must not need the relay's library.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::Sender;
use std::thread;

/// One mail as it arrived.
pub(crate) struct Arrived {
    /// The reverse-path as given, brackets included.
    pub(crate) from: String,
    /// The forward-paths as given.
    pub(crate) to: Vec<String>,
    /// The content, unstuffed.
    pub(crate) content: Vec<u8>,
}

/// Listens on a free loopback port and sends each mail to the channel.
///
/// # Errors
/// When no port can be had.
pub(crate) fn start<T: From<Arrived> + Send + 'static>(mails: Sender<T>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mails = mails.clone();
            // A connection that breaks is the relay's affair; it says so itself.
            thread::spawn(move || serve(&stream, |mail| mails.send(mail.into()).is_ok()).ok());
        }
    });
    Ok(address)
}

#[derive(Default)]
struct Transaction {
    from: Option<String>,
    to: Vec<String>,
    content: Vec<u8>,
}

impl Transaction {
    fn finish(&mut self) -> Arrived {
        let done = std::mem::take(self);
        Arrived { from: done.from.unwrap_or_default(), to: done.to, content: done.content }
    }
}

fn serve(stream: &TcpStream, mut arrived: impl FnMut(Arrived) -> bool) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream;
    let mut reader = BufReader::new(stream);
    let mut open = Transaction::default();
    writer.write_all(b"220 catch-all.localhost ESMTP\r\n")?;
    while let Some(line) = read_line(&mut reader)? {
        let verb: String = line.chars().take(4).collect::<String>().to_ascii_uppercase();
        let reply = match (verb.as_str(), &open) {
            ("EHLO", _) => {
                open = Transaction::default();
                "250-catch-all.localhost\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE\r\n250-SMTPUTF8\r\n\
                 250-ENHANCEDSTATUSCODES\r\n250 CHUNKING"
            }
            ("HELO" | "RSET", _) => {
                open = Transaction::default();
                "250 2.0.0 Ok"
            }
            ("MAIL", _) => {
                open = Transaction { from: Some(path(&line)), ..Transaction::default() };
                "250 2.1.0 Ok"
            }
            ("RCPT", Transaction { from: Some(_), .. }) => {
                open.to.push(path(&line));
                "250 2.1.5 Ok"
            }
            ("DATA", Transaction { to, .. }) if !to.is_empty() => {
                writer.write_all(b"354 End data with <CR><LF>.<CR><LF>\r\n")?;
                read_data(&mut reader, &mut open.content)?;
                if arrived(open.finish()) { "250 2.0.0 Ok" } else { "451 4.3.0 Stopping" }
            }
            ("BDAT", Transaction { to, .. }) if !to.is_empty() => {
                let last = read_chunk(&mut reader, &line, &mut open.content)?;
                if !last || arrived(open.finish()) { "250 2.0.0 Ok" } else { "451 4.3.0 Stopping" }
            }
            ("NOOP", _) => "250 2.0.0 Ok",
            ("QUIT", _) => return writer.write_all(b"221 2.0.0 Bye\r\n"),
            _ => "503 5.5.1 Not now",
        };
        writer.write_all(format!("{reply}\r\n").as_bytes())?;
    }
    Ok(())
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let octets = reader.read_until(b'\n', &mut line)?;
    Ok((octets > 0).then(|| String::from_utf8_lossy(&line).trim_end().to_owned()))
}

/// RFC 5321 §4.5.2: a line that is one dot ends the content, a dot before more is taken away.
fn read_data(reader: &mut impl BufRead, content: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(());
        }
        content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

/// RFC 3030 §2: tells whether this chunk was the last.
fn read_chunk(reader: &mut impl Read, line: &str, content: &mut Vec<u8>) -> io::Result<bool> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let octets: u64 = words.next().and_then(|word| word.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    if reader.take(octets).read_to_end(content)? as u64 != octets {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(words.next().is_some_and(|word| word.eq_ignore_ascii_case("LAST")))
}

/// The path of a MAIL or RCPT line, without its parameters.
fn path(line: &str) -> String {
    let after = line.split_once(':').map_or("", |(_, after)| after.trim());
    let end = after.find('>').map_or_else(|| after.find(' ').unwrap_or(after.len()), |at| at + 1);
    after[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn converse(lines: &str) -> (String, Vec<Arrived>) {
        let (mails, arrived) = channel();
        let mut stream = TcpStream::connect(start(mails).expect("a port")).expect("it listens");
        stream.write_all(lines.as_bytes()).expect("it reads");
        let mut replies = String::new();
        stream.read_to_string(&mut replies).expect("it closes after QUIT");
        (replies, arrived.try_iter().collect())
    }

    #[test]
    fn takes_data_and_chunks() {
        let (replies, mails) = converse(
            "EHLO a\r\nMAIL FROM:<a@x> SIZE=3\r\nRCPT TO:<b@y>\r\nRCPT TO:<c@y>\r\nDATA\r\n..x\r\n.\r\n\
             MAIL FROM:<>\r\nRCPT TO:<b@y>\r\nBDAT 3\r\nabcBDAT 2 LAST\r\nd\nQUIT\r\n",
        );
        assert!(replies.ends_with("250 2.0.0 Ok\r\n221 2.0.0 Bye\r\n"), "{replies}");
        let seen: Vec<_> =
            mails.iter().map(|m| (m.from.as_str(), m.to.len(), m.content.as_slice())).collect();
        assert_eq!(seen, [("<a@x>", 2, &b".x\r\n"[..]), ("<>", 1, b"abcd\n")]);
    }

    #[test]
    fn refuses_data_without_a_recipient() {
        let (replies, mails) = converse("EHLO a\r\nMAIL FROM:<a@x>\r\nDATA\r\nQUIT\r\n");
        assert!(replies.contains("503 5.5.1"), "{replies}");
        assert!(mails.is_empty());
    }
}
