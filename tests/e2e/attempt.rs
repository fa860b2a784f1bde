//! One mail tried up to the first refusal. It must not judge: tests say what they expect where.

use ringpost_tests::client::{Client, Reply};

/// Where a mail was refused, or that it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    Mail,
    Rcpt,
    Data,
    Message,
}

/// Tries one mail to one recipient; the reply that ended it, and where.
#[track_caller]
pub(crate) fn attempt(client: &mut Client, content: &[u8]) -> (At, Reply) {
    let mail = client.command("MAIL FROM:<a@client.test>");
    if mail.code / 100 != 2 {
        return (At::Mail, mail);
    }
    let rcpt = client.command("RCPT TO:<b@example.com>");
    if rcpt.code / 100 != 2 {
        return (At::Rcpt, rcpt);
    }
    let data = client.command("DATA");
    if data.code != 354 {
        return (At::Data, data);
    }
    let wire = [&ringpost_tests::wire::stuffed(content)[..], b".\r\n"].concat();
    (At::Message, client.send(&wire).reply())
}

/// The same, where only the reply counts.
#[track_caller]
pub(crate) fn verdict(client: &mut Client, content: &[u8]) -> Reply {
    attempt(client, content).1
}
