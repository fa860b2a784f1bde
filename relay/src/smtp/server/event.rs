//! What the machine and its driver say to each other.

use crate::smtp::auth::Credentials;
use crate::smtp::body::{BodyFault, Form, Framing};
use crate::smtp::params::{Mail, Rcpt};
use crate::smtp::reply::{self, Reply};

/// Who holds the message: the only thing that may end one with 250 (invariant 1). Implemented by `custody` alone.
pub trait Proof {
    /// The reply to the client, a 2xx.
    fn reply(&self) -> Reply;
}

/// What one step did.
#[derive(Debug)]
pub struct Step {
    /// Octets of the input that are done with; the rest is to be given again.
    pub consumed: usize,
    /// What is to be done now.
    pub event: Event,
}

/// What the driver is to do.
#[derive(Debug)]
pub enum Event {
    /// Go on: step again with what is left of the input; if nothing is left, send the replies and read more. Where
    /// [`ReplyBuf::is_full`], send first.
    NeedInput,
    /// Decide. The machine stands still until the answer.
    Question(Question),
    /// Answer the postponed recipients. Nothing was consumed that would have to wait for it.
    Settle,
    /// [`Server::pieces`] holds octets of the message.
    Body,
    /// The message is refused: give it up, and whatever was done with it upstream. The rest of it is discarded, the
    /// reply given at its end. Told once; nothing else is told about this transaction.
    BodyFault(Fault),
    /// The client gave the open transaction up (RSET, EHLO or HELO): give it up upstream.
    Reset,
    /// Send the replies, throw away everything read so far (RFC 3207 §4.2, invariant 5), do the handshake, then call
    /// [`Server::tls_started`].
    StartTls,
    /// Send the replies and close.
    Close,
}

/// A decision that is not the machine's.
#[derive(Debug)]
pub enum Question {
    /// May this sender begin a transaction? [`Answer::Accept`] or [`Answer::Refuse`].
    Mail(Mail),
    /// Is this recipient taken? [`Answer::Accept`], [`Answer::Refuse`], or [`Server::postpone`].
    Rcpt(Rcpt),
    /// The envelope is complete. May the body come, and in which form? [`Answer::Open`] or [`Answer::Refuse`], after
    /// the answers to all postponed recipients. A refusal ends the transaction; only where no recipient was taken
    /// the machine says 554 whatever the answer, and the transaction stays open for more recipients (RFC 5321 §3.3):
    /// ask [`super::Server::is_in_transaction`] and [`super::Server::is_in_body`] afterwards.
    OpenBody {
        /// DATA or BDAT.
        framing: Framing,
        /// Octets of the first chunk, after BDAT.
        chunk: Option<u64>,
    },
    /// The message is complete; [`Server::pieces`] may hold its last octets. [`Server::taken`] or
    /// [`Server::refused`].
    Message,
    /// Is this login right? [`Answer::Accept`] or [`Answer::Refuse`].
    Auth(Credentials),
}

/// The driver's decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Yes.
    Accept,
    /// Yes to [`Question::OpenBody`]; the body is wanted in this form.
    Open(Form),
    /// No, with this 4xx or 5xx.
    Refuse(Reply),
}

impl Answer {
    /// The reply of a refusal; `None` for the other answers.
    pub(super) fn into_refusal(self) -> Option<Reply> {
        match self {
            Self::Accept | Self::Open(_) => None,
            Self::Refuse(reply) => Some(refusal(reply)),
        }
    }
}

/// Why the machine closes a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The client said QUIT.
    Quit,
    /// The client is none, or wore the machine out: HTTP, TLS where none is due, a chunk nobody can measure, too many
    /// errors.
    Abuse,
    /// The machine and its driver disagree; never the client's doing.
    Fault,
}

/// Why the machine gives a message up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is over the size offered.
    Size,
    /// It holds a bare CR or LF, and those are not taken.
    BareNewline,
    /// It holds a NUL.
    Nul,
}

impl Fault {
    /// The reply that the client gets at the end of the data.
    #[must_use]
    pub fn reply(self) -> Reply {
        match self {
            Self::Size => reply::MESSAGE_TOO_BIG,
            Self::BareNewline => reply::BARE_NEWLINE,
            Self::Nul => reply::NUL_IN_MESSAGE,
        }
    }
}

impl From<BodyFault> for Fault {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::BareNewline => Self::BareNewline,
            BodyFault::Nul => Self::Nul,
        }
    }
}

/// A refusal is 4xx or 5xx. Anything else is a mistake of the driver, and must not sound like a yes.
pub(super) fn refusal(reply: Reply) -> Reply {
    let is_refusal = reply.is_transient() || reply.is_permanent();
    debug_assert!(is_refusal, "{reply} is no refusal");
    if is_refusal { reply } else { reply::LOCAL_ERROR }
}
