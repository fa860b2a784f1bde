//! Dialogs: what a client says and what it must hear, as data files that every implementation of the server side is
//! judged by. This module reads the format; [`run`] drives the machine with it. A live daemon can be driven with the
//! same [`Dialog`]: send [`Turn::Client`], expect [`Turn::Server`].
//!
//! The format, one item a line (empty lines and lines that begin with `#` are comments):
//!
//! ```text
//! live                            the dialog may also be held with the daemon
//! set size_max 1000               a setting of the profile (see `Settings::set`)
//! mail bad@x 550 5.7.1 no         the driver refuses this sender; `*` is any run of characters
//! rcpt no@* 550 5.1.1 no          … this recipient
//! open * 451 4.4.1 no             … the body
//! body * 451 4.4.2 lost           … the body, once its first octets have come
//! message * 554 5.7.1 no          … the complete message
//! login user secret               the one login that is right
//! C: EHLO me                      the client says this line, CRLF behind it
//! C| a\r\nb\x00\*3{c}             the client says these octets: \r \n \t \0 \\ \xNN, and \*N{text} repeats
//! C*100: NOOP                     a hundred times
//! S: 250-*                        the server says this line; S*100: a hundred times
//! T: start                        TLS starts here
//! B: from <a@b> to <c@d> size 12  a message was taken, from and to whom, how large
//! B| content\r\n                  … with this content
//! E: quit                         what the driver is told: the client quit; also `close` (the machine sends it
//!                                 away), `reset`, and `fault size|bare-newline|nul`
//! ```

mod octets;
pub mod run;

use std::path::Path;

use octets::{matches, unescaped};
use ringpost::smtp::auth::Mechanism;
use ringpost::smtp::body::BareNewline;
use ringpost::smtp::reply::{Enhanced, Reply};
use ringpost::smtp::server::{Profile, Role};

/// One dialog.
#[derive(Debug, Clone)]
pub struct Dialog {
    /// The file's name without its ending.
    pub name: String,
    /// Whether it may be held with the daemon: it needs no policy or setting that only the machine has.
    pub is_live: bool,
    /// What the listener offers.
    pub profile: Profile,
    /// What the driver refuses.
    pub rules: Vec<Rule>,
    /// The one login that is right.
    pub login: Option<(String, String)>,
    /// What is said, in order.
    pub turns: Vec<Turn>,
    /// The messages that are taken, in order.
    pub messages: Vec<Message>,
    /// What else the driver is told, in order: `quit`, `close`, `reset`, `fault …`.
    pub events: Vec<String>,
}

/// Something said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// By the client: octets.
    Client(Vec<u8>),
    /// By the server: one line without its CRLF, `*` for any run of characters.
    Server(String),
    /// The handshake of TLS.
    Tls,
}

/// A refusal by the driver.
#[derive(Debug, Clone)]
pub struct Rule {
    /// At which question.
    pub stage: Stage,
    /// For which address (`*` for any run of characters); matters for senders and recipients only.
    pub subject: String,
    /// What is said.
    pub reply: Reply,
}

/// Where a driver may refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA or the first BDAT.
    Open,
    /// While the body comes.
    Body,
    /// After its end.
    Message,
}

/// A message that was taken; what is `None` is not judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The reverse-path, with its brackets.
    pub from: Option<String>,
    /// The forward-paths, with their brackets.
    pub to: Option<Vec<String>>,
    /// Octets of content.
    pub size: Option<u64>,
    /// The content, unstuffed.
    pub content: Option<Vec<u8>>,
}

impl Dialog {
    /// Every dialog of `tests/dialogs`, by name.
    ///
    /// # Errors
    /// The file and line of the first mistake.
    pub fn all() -> Result<Vec<Self>, String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("dialogs");
        let entries = std::fs::read_dir(&folder).map_err(|e| e.to_string())?;
        let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|path| path.extension().is_some_and(|ending| ending == "dlg"));
        files.sort();
        files
            .iter()
            .map(|path| {
                let name = path.file_stem().unwrap_or_default().to_string_lossy();
                let text = std::fs::read_to_string(path).map_err(|e| format!("{name}: {e}"))?;
                Self::parse(&name, &text)
            })
            .collect()
    }

    /// Reads a dialog.
    ///
    /// # Errors
    /// The line of the first mistake.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let mut dialog = Self::monologue(Profile::relay("mx.example".into()), b"");
        dialog.name = name.into();
        dialog.turns.clear();
        let mut was_attributes = false;
        for (at, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            dialog.read(line, was_attributes).ok_or_else(|| format!("{name}.dlg:{}: {line}", at + 1))?;
            was_attributes = line.starts_with("B:");
        }
        Ok(dialog)
    }

    /// A client that talks, and expects nothing in particular.
    #[must_use]
    pub fn monologue(profile: Profile, octets: &[u8]) -> Self {
        Self {
            name: "monologue".into(),
            is_live: false,
            profile,
            rules: Vec::new(),
            login: None,
            turns: vec![Turn::Client(octets.to_vec())],
            messages: Vec::new(),
            events: Vec::new(),
        }
    }

    fn read(&mut self, line: &str, was_attributes: bool) -> Option<()> {
        if line == "live" {
            self.is_live = true;
            return Some(());
        }
        let (head, rest) = line.split_once(' ').unwrap_or((line, ""));
        let Some(mark) = head.strip_suffix([':', '|']) else {
            return self.read_setting(head, rest);
        };
        let (mark, count) =
            mark.split_once('*').map_or(Some((mark, 1)), |(m, n)| Some((m, n.parse().ok()?)))?;
        let octets = if head.ends_with('|') { unescaped(rest)? } else { rest.as_bytes().to_vec() };
        let ends_line: &[u8] = if head.ends_with('|') { b"" } else { b"\r\n" };
        match mark {
            "C" => self.turns.push(Turn::Client([&octets, ends_line].concat().repeat(count))),
            "S" => self.turns.extend(std::iter::repeat_n(Turn::Server(rest.into()), count)),
            "T" => self.turns.push(Turn::Tls),
            "E" => self.events.push(rest.into()),
            "B" if head == "B:" => self.messages.push(Message::parse(rest)?),
            "B" if was_attributes => self.messages.last_mut()?.content = Some(octets),
            "B" => self.messages.push(Message { content: Some(octets), ..Message::default() }),
            _ => return None,
        }
        Some(())
    }

    fn read_setting(&mut self, word: &str, rest: &str) -> Option<()> {
        let (first, second) = rest.split_once(' ')?;
        let stage = match word {
            "set" => return set(&mut self.profile, first, second),
            "login" => {
                self.login = Some((first.into(), second.into()));
                return Some(());
            }
            "mail" => Stage::Mail,
            "rcpt" => Stage::Rcpt,
            "open" => Stage::Open,
            "body" => Stage::Body,
            "message" => Stage::Message,
            _ => return None,
        };
        self.rules.push(Rule { stage, subject: first.into(), reply: reply(second)? });
        Some(())
    }

    /// The refusal of a driver that goes by the dialog's rules.
    #[must_use]
    pub fn refusal(&self, stage: Stage, subject: &str) -> Option<Reply> {
        let rule = self.rules.iter().find(|rule| rule.stage == stage && matches(&rule.subject, subject));
        rule.map(|rule| rule.reply.clone())
    }

    /// Judges what a server said: each line must be as the dialog has it, and each reply must have the enhanced code
    /// of its class (RFC 2034 §4).
    ///
    /// # Errors
    /// What is wrong, for a person to read.
    pub fn judge_replies(&self, said: &[u8]) -> Result<(), String> {
        let said = String::from_utf8(said.to_vec()).map_err(|e| e.to_string())?;
        let lines: Vec<_> = said.split_inclusive('\n').collect();
        let expected: Vec<_> = self.turns.iter().filter_map(Turn::server).collect();
        for at in 0..lines.len().max(expected.len()) {
            let line = lines.get(at).copied().unwrap_or("nothing\r\n");
            let wanted = expected.get(at).copied().unwrap_or("nothing");
            let text = line.strip_suffix("\r\n").ok_or_else(|| format!("no CRLF: {line:?}"))?;
            if !matches(wanted, text) {
                return Err(format!("line {}: {text:?}, not {wanted:?}, in\n{said}", at + 1));
            }
        }
        let mut replies = lines.iter().filter(|line| !line.starts_with("220 mx") && !is_hello(line, &said));
        replies.try_for_each(|line| judge_enhanced(line))
    }

    /// Judges the messages that were taken.
    ///
    /// # Errors
    /// What is wrong, for a person to read.
    pub fn judge_messages(&self, taken: &[Message]) -> Result<(), String> {
        if taken.len() != self.messages.len() {
            return Err(format!("{} messages, not {}: {taken:?}", taken.len(), self.messages.len()));
        }
        let mut pairs = taken.iter().zip(&self.messages);
        let wrong = pairs.find(|(taken, wanted)| !taken.fulfils(wanted));
        wrong.map_or(Ok(()), |(taken, wanted)| Err(format!("{taken:?}, not {wanted:?}")))
    }
}

impl Turn {
    fn server(&self) -> Option<&str> {
        match self {
            Self::Server(line) => Some(line),
            Self::Client(_) | Self::Tls => None,
        }
    }
}

impl Message {
    fn parse(text: &str) -> Option<Self> {
        let mut message = Self::default();
        let mut words = text.split_whitespace();
        while let Some(word) = words.next() {
            match word {
                "from" => message.from = Some(words.next()?.into()),
                "to" => message.to.get_or_insert_default().push(words.next()?.into()),
                "size" => message.size = Some(words.next()?.parse().ok()?),
                "*" => {}
                _ => return None,
            }
        }
        Some(message)
    }

    /// Whether everything that `wanted` names is so.
    #[must_use]
    pub fn fulfils(&self, wanted: &Self) -> bool {
        fn is<T: PartialEq>(have: &Option<T>, wanted: &Option<T>) -> bool {
            wanted.is_none() || have == wanted
        }
        is(&self.from, &wanted.from)
            && is(&self.to, &wanted.to)
            && is(&self.size, &wanted.size)
            && is(&self.content, &wanted.content)
    }
}

fn set(profile: &mut Profile, name: &str, value: &str) -> Option<()> {
    let flag = || match value {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    };
    match name {
        "size_max" => profile.size_max = value.parse().ok()?,
        "recipients_max" => profile.recipients_max = value.parse().ok()?,
        "starttls" => profile.starttls = flag()?,
        "tls" => profile.tls = flag()?,
        "auth" => profile.auth = if flag()? { &[Mechanism::Plain, Mechanism::Login] } else { &[] },
        "smtputf8" => profile.smtputf8 = flag()?,
        "chunking" => profile.chunking = flag()?,
        "dsn" => profile.dsn = flag()?,
        "requiretls" => profile.requiretls = flag()?,
        "role" => profile.role = if value == "submission" { Role::Submission } else { Role::Relay },
        "bare_newline" => {
            profile.bare_newline =
                if value == "reject" { BareNewline::Reject } else { BareNewline::Normalize };
        }
        _ => return None,
    }
    Some(())
}

/// `550 5.1.1 text` as a reply.
fn reply(text: &str) -> Option<Reply> {
    let mut words = text.splitn(3, ' ');
    let code = words.next()?.parse().ok()?;
    let mut numbers = words.next()?.split('.');
    let enhanced =
        Enhanced(numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    Some(Reply::new(code, Some(enhanced), words.next()?.to_owned()))
}

/// The lines of the replies to EHLO and HELO, and of the challenges of AUTH, have no enhanced code.
fn is_hello(line: &str, said: &str) -> bool {
    let hello = said.contains("250-mx.example") && line.starts_with("250-");
    hello || line.starts_with("250 mx.example") || line.starts_with('3') || is_last_of_hello(line)
}

/// The last line of EHLO names an extension, whose keyword has no dots.
fn is_last_of_hello(line: &str) -> bool {
    line.strip_prefix("250 ").is_some_and(|text| text.starts_with(|c: char| c.is_ascii_uppercase()))
}

fn judge_enhanced(line: &str) -> Result<(), String> {
    let wanted = format!("{}.*.* *", &line[..1]);
    let is_fine = line.get(4..).is_some_and(|text| matches(&wanted, text));
    if is_fine { Ok(()) } else { Err(format!("no enhanced code of its class: {line:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialog_reads_as_it_is_documented() {
        let text = "# x\nlive\nset size_max 9\nrcpt no@* 550 5.1.1 no one\nC*2: NOOP\nS*2: 250 *\nC| a\\r\\n\\*3{b}\nB: from <> to <a@b> to <c@d> size 3\nB| a\\x00\nB| b\nE: close\n";
        let dialog = Dialog::parse("x", text).unwrap();
        assert!(dialog.is_live && dialog.profile.size_max == 9);
        assert_eq!(dialog.turns[0], Turn::Client(b"NOOP\r\nNOOP\r\n".to_vec()));
        assert_eq!(dialog.turns[3], Turn::Client(b"a\r\nbbb".to_vec()));
        assert_eq!(dialog.messages.len(), 2);
        assert_eq!(dialog.messages[0].content.as_deref(), Some(&b"a\0"[..]));
        assert_eq!(dialog.messages[0].to.as_ref().map(Vec::len), Some(2));
        assert_eq!(dialog.refusal(Stage::Rcpt, "no@x").unwrap().to_string(), "550 5.1.1 no one");
        assert!(dialog.refusal(Stage::Rcpt, "yes@x").is_none());
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        for text in ["C no", "set foo bar", "S*x: y", "C| \\q", "rcpt a@b nonsense", "B: wrong"] {
            assert_eq!(Dialog::parse("x", text).unwrap_err(), format!("x.dlg:1: {text}"));
        }
    }

    #[test]
    fn replies_are_judged_line_by_line() {
        let dialog = Dialog::parse("x", "S: 250 2.0.0 *\nS: 5*").unwrap();
        assert!(dialog.judge_replies(b"250 2.0.0 Ok\r\n550 5.1.1 no\r\n").is_ok());
        for wrong in [
            "250 2.0.0 Ok\r\n",
            "250 2.0.0 Ok\r\n550 no\r\n",
            "250 2.0.0 Ok\r\n550 5.1.1 no\r\nx\r\n",
            "250 2.0.0 Ok\n",
        ] {
            assert!(dialog.judge_replies(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
