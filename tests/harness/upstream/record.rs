//! What an upstream saw: connections, mails, breaches. Values only.

use crate::wire;

/// Everything that one upstream saw.
#[derive(Debug, Default, Clone)]
pub struct Record {
    /// In the order in which they were accepted.
    pub connections: Vec<Connection>,
    /// In the order of their MAIL commands.
    pub mails: Vec<Mail>,
}

impl Record {
    /// Grows with everything that is seen.
    pub(super) fn events(&self) -> usize {
        let connections =
            self.connections.iter().map(|c| 1 + c.commands.len() + usize::from(c.end.is_some()));
        let mails = self.mails.iter().map(|mail| mail.wire.len() + usize::from(mail.complete));
        connections.chain(mails).sum()
    }

    /// What the relay did that a client must not do.
    pub(super) fn breaches(&self) -> Vec<String> {
        let connections = self.connections.iter().flat_map(|connection| connection.breaches.iter().cloned());
        let newlines = self.mails.iter().flat_map(|mail| {
            let found = wire::bare_newlines(&mail.wire);
            // A mail that was cut off may end between CR and LF.
            let cut = (!mail.complete && mail.wire.ends_with(b"\r")).then(|| mail.wire.len() - 1);
            let cut = cut.map(|at| format!("bare CR at octet {at}"));
            found.into_iter().filter(move |breach| Some(breach) != cut.as_ref())
        });
        connections.chain(newlines).collect()
    }
}

/// One connection from the relay.
#[derive(Debug, Default, Clone)]
pub struct Connection {
    /// Command lines without their CRLF.
    pub commands: Vec<String>,
    /// How the handshake ended, where one was begun.
    pub handshake: Option<Result<(), String>>,
    /// Whether a login came outside TLS.
    pub login_in_clear: bool,
    /// How it ended; none while it is open.
    pub end: Option<End>,
    /// Breaches of RFC 5321, RFC 2920 and the offers of this upstream.
    pub breaches: Vec<String>,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// QUIT was answered.
    Quit,
    /// The relay closed it, or it broke.
    Closed,
    /// The script closed it.
    Ours,
}

/// How content was framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// DATA, ended by a dot.
    Data,
    /// BDAT, counted.
    Chunks,
}

/// One recipient and what it was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The argument of RCPT, parameters included.
    pub argument: String,
    /// The code of the reply; 0 when there was none.
    pub code: u16,
}

/// One transaction, from MAIL on.
#[derive(Debug, Clone)]
pub struct Mail {
    /// Index of the connection.
    pub connection: usize,
    /// The argument of MAIL, parameters included.
    pub from: String,
    /// Recipients in order.
    pub recipients: Vec<Recipient>,
    /// How the content came.
    pub framing: Framing,
    /// The octets of the content as they came, without the final dot.
    pub wire: Vec<u8>,
    /// Whether the final dot or the last chunk came.
    pub complete: bool,
}

impl Mail {
    /// The content as the sender meant it.
    pub fn content(&self) -> Vec<u8> {
        match self.framing {
            Framing::Data => wire::unstuffed(&self.wire),
            Framing::Chunks => self.wire.clone(),
        }
    }

    /// The reverse-path without parameters, brackets included.
    pub fn reverse_path(&self) -> &str {
        path(&self.from)
    }

    /// The forward-paths that were accepted, without parameters.
    pub fn accepted(&self) -> Vec<&str> {
        let accepted = self.recipients.iter().filter(|recipient| recipient.code / 100 == 2);
        accepted.map(|recipient| path(&recipient.argument)).collect()
    }

    /// Checks that the content is what was sent, with header fields put before it and nothing else changed.
    /// Returns these fields.
    ///
    /// # Panics
    /// When it is not.
    #[track_caller]
    pub fn assert_carries(&self, sent: &[u8]) -> Vec<String> {
        let content = self.content();
        let shown = |octets: &[u8]| octets.escape_ascii().to_string();
        let added = crate::message::added(&content, sent);
        let added =
            added.unwrap_or_else(|| panic!("sent\n{}\nand arrived\n{}", shown(sent), shown(&content)));
        added.into_iter().map(str::to_owned).collect()
    }
}

fn path(argument: &str) -> &str {
    argument.find('>').map_or(argument, |end| &argument[..=end])
}
