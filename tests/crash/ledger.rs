//! What was sent, what was acknowledged, what arrived: nothing else is believed.
//!
//! A message counts as sent from the moment that its final dot may have left, as acknowledged when its 250 has come.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use ringpost_tests::upstream::{Mail, Record, Upstream};
use ringpost_tests::wait::{PATIENCE, Watched};

/// Both ends of all messages.
#[derive(Default)]
pub(crate) struct Ledger {
    /// Contents by number, of all whose dot may have left.
    sent: BTreeMap<u64, Vec<u8>>,
    pub(crate) acknowledged: BTreeSet<u64>,
    /// Replies other than 250 to the end of data, or to MAIL.
    pub(crate) refusals: Vec<String>,
    is_over: bool,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (sent, acknowledged) = (self.sent.len(), self.acknowledged.len());
        write!(f, "{sent} sent, {acknowledged} acknowledged, {} refused: ", self.refusals.len())?;
        self.refusals.iter().collect::<BTreeSet<_>>().fmt(f)
    }
}

/// A ledger that clients write into.
pub(crate) type Shared = Arc<Watched<Ledger>>;

/// Clients that send as fast as they may, until their daemon is gone or they are told to stop.
pub(crate) struct Load {
    ledger: Shared,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// So many clients of a daemon. `sizes`: the octets of the bodies are drawn below this.
    pub(crate) fn start(relay: SocketAddr, clients: u64, sizes: u64, ledger: &Shared) -> Self {
        ledger.update(|ledger| ledger.is_over = false);
        let threads = (0..clients).map(|client| {
            let ledger = Arc::clone(ledger);
            thread::spawn(move || {
                // A connection that breaks is what this is about.
                let _ = send_all(relay, client, sizes, &ledger);
            })
        });
        Self { threads: threads.collect(), ledger: Arc::clone(ledger) }
    }

    /// Lets the clients end, and waits until they have.
    pub(crate) fn end(self) {
        self.ledger.update(|ledger| ledger.is_over = true);
        for thread in self.threads {
            thread.join().expect("a client ends");
        }
    }
}

fn send_all(relay: SocketAddr, client: u64, sizes: u64, ledger: &Shared) -> std::io::Result<()> {
    let stream = TcpStream::connect(relay)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    let mut say = |octets: &[u8]| -> std::io::Result<String> {
        reader.get_mut().write_all(octets)?;
        let mut line = String::new();
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line);
            }
        }
    };
    say(b"")?;
    say(b"EHLO load.test\r\n")?;
    while !ledger.read(|ledger| ledger.is_over) {
        let number = ledger.update(|ledger| u64::try_from(ledger.sent.len()).unwrap_or(0) * 64 + client);
        let content = content(number, sizes);
        let reply = say(format!("MAIL FROM:<s{client}@load.test>\r\n").as_bytes())?;
        if !reply.starts_with("250") {
            note_refusal(ledger, reply);
            continue;
        }
        let reply = say(b"RCPT TO:<to@example.com>\r\n")?;
        if !reply.starts_with("250") {
            note_refusal(ledger, reply);
            say(b"RSET\r\n")?;
            continue;
        }
        let reply = say(b"DATA\r\n")?;
        if !reply.starts_with("354") {
            note_refusal(ledger, reply);
            say(b"RSET\r\n")?;
            continue;
        }
        let number = number_of(&content).unwrap_or(number);
        ledger.update(|ledger| ledger.sent.insert(number, content.clone()));
        let reply = say(&[&content[..], b".\r\n"].concat())?;
        if reply.starts_with("250") {
            ledger.update(|ledger| ledger.acknowledged.insert(number));
        } else {
            note_refusal(ledger, reply);
        }
    }
    say(b"QUIT\r\n")?;
    Ok(())
}

fn note_refusal(ledger: &Shared, reply: String) {
    ledger.update(|ledger| ledger.refusals.push(reply));
}

/// A message that tells its number and whose octets follow from it; no line of it begins with a dot.
fn content(number: u64, sizes: u64) -> Vec<u8> {
    let octets = mixed(number) % sizes.max(1);
    let line = format!("{number:016x} the quick brown relay jumps over the lazy disk\r\n");
    let mut content = format!("X-Ledger: {number}\r\nSubject: ledger\r\n\r\n").into_bytes();
    while (content.len() as u64) < octets {
        content.extend_from_slice(line.as_bytes());
    }
    content.extend_from_slice(b"end\r\n");
    content
}

fn number_of(content: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(content);
    text.lines().find_map(|line| line.strip_prefix("X-Ledger: ")?.parse().ok())
}

/// One round of splitmix64: draws that follow from a number.
pub(crate) fn mixed(number: u64) -> u64 {
    let mut value = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// What a play came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Balance {
    pub(crate) acknowledged: usize,
    pub(crate) delivered: usize,
    /// Deliveries beyond the first of a message by another life of the daemon: W1 and W4, a kill between the upstream's
    /// 250 and what was to follow from it.
    pub(crate) twice_across_lives: usize,
    /// Such deliveries by the same life: W2, the upstream was lost after the dot.
    pub(crate) twice_in_one_life: usize,
}

/// Closes the books: every acknowledged message arrived with equal content, nothing arrived that was not sent.
///
/// # Panics
/// When they do not balance.
#[track_caller]
pub(crate) fn balance(ledger: &Shared, upstream: &Upstream) -> Balance {
    upstream.record().read(|record| ledger.read(|ledger| settle(ledger, record)))
}

#[track_caller]
fn settle(ledger: &Ledger, record: &Record) -> Balance {
    let mut lives: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    for mail in record.mails.iter().filter(|mail| mail.complete && is_for_ledger(mail)) {
        let content = mail.content();
        let number = number_of(&content).expect("a message that nobody sent arrived");
        let sent =
            ledger.sent.get(&number).unwrap_or_else(|| panic!("message {number} was never sent whole"));
        assert!(content.ends_with(sent), "message {number} is not what was sent");
        let greeting = record.connections[mail.connection].commands.first().cloned().unwrap_or_default();
        lives.entry(number).or_default().push(greeting);
    }
    let lost: Vec<&u64> = ledger.acknowledged.iter().filter(|number| !lives.contains_key(number)).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let mut balance = Balance {
        acknowledged: ledger.acknowledged.len(),
        delivered: lives.len(),
        twice_across_lives: 0,
        twice_in_one_life: 0,
    };
    for greetings in lives.values() {
        let distinct: BTreeSet<&String> = greetings.iter().collect();
        balance.twice_across_lives += distinct.len() - 1;
        balance.twice_in_one_life += greetings.len() - distinct.len();
    }
    balance
}

/// Notices are the relay's own.
fn is_for_ledger(mail: &Mail) -> bool {
    mail.reverse_path() != "<>"
}
