//! What an upstream's reply means for the client. Pure.

use std::fmt::Write;
use std::net::SocketAddr;

use crate::smtp::client::{Disposition, Expect, UpstreamReply};
use crate::smtp::reply::{self, Enhanced, Reply};

/// Where in a transaction a reply came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// To MAIL.
    Mail,
    /// To RCPT.
    Rcpt,
    /// To DATA.
    Data,
    /// To the end of the message, or to a chunk of it.
    Message,
}

impl Stage {
    const fn expect(self) -> Expect {
        match self {
            Self::Mail => Expect::Mail,
            Self::Rcpt => Expect::Rcpt,
            Self::Data => Expect::Data,
            Self::Message => Expect::Message,
        }
    }
}

/// The reply for the client where the upstream's is not the one that was hoped for.
///
/// The upstream's verdict is passed through, but for three kinds: 530, 534, 535 and 538 complain about *our* login, which is
/// none of the client's business; 421 closes the upstream's connection, not the client's; and what is no refusal at all
/// (2xx or 3xx out of place) is a protocol error, after which nobody knows anything.
#[must_use]
pub fn refusal(stage: Stage, reply: &UpstreamReply) -> Reply {
    match reply.disposition(stage.expect()) {
        Disposition::Misconfigured => return reply::UPSTREAM_MISCONFIGURED,
        Disposition::Done => return reply::UPSTREAM_LOST,
        Disposition::Later if reply.is_permanent() => {
            let enhanced = reply.enhanced.map(|Enhanced(_, subject, detail)| Enhanced(4, subject, detail));
            return Reply::new(452, enhanced, String::from(&*reply.text));
        }
        _ => {}
    }
    match reply.code {
        421 => Reply::new(451, reply.enhanced, String::from(&*reply.text)),
        _ => reply.to_reply(),
    }
}

/// Whether a reply says that the upstream does not take our login: our misconfiguration.
#[must_use]
pub fn is_misconfiguration(reply: &UpstreamReply) -> bool {
    matches!(reply.disposition(Expect::Greeting), Disposition::Misconfigured)
}

/// An upstream in the log: `mx1.example.com[198.18.0.1]:25`.
pub fn name_upstream(out: &mut String, host: &str, address: SocketAddr) {
    // Writing to a String cannot fail.
    let _ = write!(out, "{host}[{}]:{}", address.ip(), address.port());
}
