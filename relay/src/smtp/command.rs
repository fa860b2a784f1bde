//! Command lines as values: the verb and the raw shape of its arguments.
//!
//! Addresses and parameters are read in [`super::params`], once the machine knows that the command may come at all.
//! A verb is told by its first word in any case (RFC 5321 §2.4); nothing of a line is ever echoed.

/// One command. Text borrows from the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// HELO with its name.
    Helo(&'a str),
    /// EHLO with its name.
    Ehlo(&'a str),
    /// MAIL with everything behind the verb.
    Mail(&'a str),
    /// RCPT with everything behind the verb.
    Rcpt(&'a str),
    /// DATA.
    Data,
    /// BDAT (RFC 3030 §2).
    Bdat(Chunk),
    /// RSET.
    Rset,
    /// NOOP; its argument is ignored (RFC 5321 §4.1.1.9).
    Noop,
    /// VRFY with an argument.
    Vrfy,
    /// HELP.
    Help,
    /// QUIT.
    Quit,
    /// STARTTLS.
    StartTls,
    /// AUTH with its mechanism and, perhaps, an initial response (RFC 4954 §4).
    Auth {
        /// The mechanism, in the case it was written in.
        mechanism: &'a str,
        /// The initial response; `=` is an empty one.
        initial: Option<&'a str>,
    },
}

/// One BDAT command: the octets that follow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// How many; at most `i64::MAX`.
    pub octets: u64,
    /// Whether the message ends with them.
    pub is_last: bool,
}

/// Why a line is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandError {
    /// Not UTF-8, or empty.
    Malformed,
    /// A verb that nobody knows.
    Unknown,
    /// A verb known and not implemented.
    NotImplemented,
    /// A verb of HTTP.
    Http,
    /// An argument is missing, or one too many.
    Arguments,
    /// BDAT whose size cannot be read: nobody knows what follows.
    ChunkSize,
}

/// Reads one line, without its CRLF.
///
/// # Errors
/// [`CommandError`].
pub fn parse(line: &[u8]) -> Result<Command<'_>, CommandError> {
    let line = std::str::from_utf8(line).map_err(|_| CommandError::Malformed)?;
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    // Spaces at the end of a line are ignored (RFC 5321 §4.1.1).
    let arguments = rest.trim_matches(' ');
    match Verb::of(verb).ok_or(CommandError::Unknown)? {
        Verb::Mail => Ok(Command::Mail(arguments)),
        Verb::Rcpt => Ok(Command::Rcpt(arguments)),
        Verb::Data => alone(Command::Data, arguments),
        Verb::Bdat => chunk(rest.trim_end_matches(' ')).map(Command::Bdat).ok_or(CommandError::ChunkSize),
        Verb::Ehlo => Ok(Command::Ehlo(some(arguments)?)),
        Verb::Helo => Ok(Command::Helo(some(arguments)?)),
        Verb::Rset => alone(Command::Rset, arguments),
        Verb::Noop => Ok(Command::Noop),
        Verb::Quit => alone(Command::Quit, arguments),
        Verb::Vrfy => some(arguments).map(|_| Command::Vrfy),
        Verb::Help => Ok(Command::Help),
        Verb::StartTls => alone(Command::StartTls, arguments),
        Verb::Auth => auth(arguments),
        Verb::NotImplemented => Err(CommandError::NotImplemented),
        Verb::Http => Err(CommandError::Http),
        Verb::Nothing => Err(CommandError::Malformed),
    }
}

/// Whether a line that is not all there yet may be an AUTH command, whose bound is larger.
#[must_use]
pub fn is_auth(line: &[u8]) -> bool {
    line.get(..5).is_some_and(|verb| verb.eq_ignore_ascii_case(b"AUTH "))
}

#[derive(Clone, Copy)]
enum Verb {
    Helo,
    Ehlo,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Vrfy,
    Help,
    Quit,
    StartTls,
    Auth,
    NotImplemented,
    Http,
    Nothing,
}

impl Verb {
    /// The verbs in the order of how often they come.
    const ALL: [(&str, Self); 34] = [
        ("RCPT", Self::Rcpt),
        ("MAIL", Self::Mail),
        ("DATA", Self::Data),
        ("BDAT", Self::Bdat),
        ("RSET", Self::Rset),
        ("EHLO", Self::Ehlo),
        ("QUIT", Self::Quit),
        ("NOOP", Self::Noop),
        ("STARTTLS", Self::StartTls),
        ("AUTH", Self::Auth),
        ("HELO", Self::Helo),
        ("VRFY", Self::Vrfy),
        ("HELP", Self::Help),
        ("EXPN", Self::NotImplemented),
        ("ETRN", Self::NotImplemented),
        ("TURN", Self::NotImplemented),
        ("ATRN", Self::NotImplemented),
        ("SEND", Self::NotImplemented),
        ("SOML", Self::NotImplemented),
        ("SAML", Self::NotImplemented),
        ("BURL", Self::NotImplemented),
        ("XCLIENT", Self::NotImplemented),
        ("XFORWARD", Self::NotImplemented),
        ("GET", Self::Http),
        ("POST", Self::Http),
        ("PUT", Self::Http),
        ("HEAD", Self::Http),
        ("CONNECT", Self::Http),
        ("OPTIONS", Self::Http),
        ("DELETE", Self::Http),
        ("TRACE", Self::Http),
        ("PATCH", Self::Http),
        ("PRI", Self::Http),
        ("", Self::Nothing),
    ];

    fn of(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, verb)| *verb)
    }
}

fn alone<'a>(command: Command<'a>, arguments: &str) -> Result<Command<'a>, CommandError> {
    if arguments.is_empty() { Ok(command) } else { Err(CommandError::Arguments) }
}

fn some(arguments: &str) -> Result<&str, CommandError> {
    if arguments.is_empty() { Err(CommandError::Arguments) } else { Ok(arguments) }
}

/// RFC 3030 §2: `chunk-size [SP LAST]`. Strict, since a wrong guess would run octets of a message as commands.
fn chunk(arguments: &str) -> Option<Chunk> {
    let (digits, end) = match arguments.split_once(' ') {
        None => (arguments, false),
        Some((digits, end)) => (digits, end.eq_ignore_ascii_case("LAST").then_some(true)?),
    };
    // The parser of integers takes a sign, which is none of ours.
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let octets = is_number.then(|| digits.parse::<u64>().ok()).flatten()?;
    (octets <= i64::MAX.unsigned_abs()).then_some(Chunk { octets, is_last: end })
}

fn auth(arguments: &str) -> Result<Command<'_>, CommandError> {
    let (mechanism, initial) = match arguments.split_once(' ') {
        None => (some(arguments)?, None),
        Some((mechanism, initial)) => (mechanism, Some(initial.trim_start_matches(' '))),
    };
    Ok(Command::Auth { mechanism, initial })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_read_in_any_case_with_spaces_behind() {
        assert_eq!(parse(b"mAiL fRoM:<a@b> "), Ok(Command::Mail("fRoM:<a@b>")));
        assert_eq!(parse(b"EHLO  one.example  "), Ok(Command::Ehlo("one.example")));
        assert_eq!(parse(b"data "), Ok(Command::Data));
        assert_eq!(parse(b"NOOP anything at all"), Ok(Command::Noop));
        assert_eq!(parse(b"auth plain  ="), Ok(Command::Auth { mechanism: "plain", initial: Some("=") }));
    }

    #[test]
    fn chunk_sizes_are_strict() {
        let chunk = |octets, is_last| Ok(Command::Bdat(Chunk { octets, is_last }));
        assert_eq!(parse(b"BDAT 0 LAST"), chunk(0, true));
        assert_eq!(parse(b"BDAT 5 last"), chunk(5, true));
        assert_eq!(parse(b"BDAT 05"), chunk(5, false));
        assert_eq!(parse(b"BDAT 5 "), chunk(5, false));
        assert_eq!(parse(b"BDAT 9223372036854775807"), chunk(i64::MAX.unsigned_abs(), false));
        for line in [
            "BDAT",
            "BDAT ",
            "BDAT 5  LAST",
            "BDAT  5",
            "BDAT -1",
            "BDAT +5",
            "BDAT 0x10",
            "BDAT LAST",
            "BDAT 5 LAST x",
            "BDAT 5 FIRST",
            "BDAT 99999999999999999999",
            "BDAT 18446744073709551615",
            "BDAT 9223372036854775808",
            "BDAT \u{665}",
        ] {
            assert_eq!(parse(line.as_bytes()), Err(CommandError::ChunkSize), "{line}");
        }
    }

    #[test]
    fn wrong_lines_are_told_apart() {
        for (line, error) in [
            (&b""[..], CommandError::Malformed),
            (b" NOOP", CommandError::Malformed),
            (b"NOOP \xff", CommandError::Malformed),
            (b"FOO", CommandError::Unknown),
            (b"MAILFROM:<a@b>", CommandError::Unknown),
            (b"EHLO", CommandError::Arguments),
            (b"HELO ", CommandError::Arguments),
            (b"QUIT now", CommandError::Arguments),
            (b"DATA x", CommandError::Arguments),
            (b"VRFY", CommandError::Arguments),
            (b"AUTH", CommandError::Arguments),
            (b"EXPN list", CommandError::NotImplemented),
            (b"XCLIENT NAME=x", CommandError::NotImplemented),
            (b"GET / HTTP/1.1", CommandError::Http),
        ] {
            assert_eq!(parse(line), Err(error), "{}", line.escape_ascii());
        }
    }
}
