//! Entry points for fuzzing whatever reads what others wrote: octets in, a panic where a promise is broken.
//!
//! Each holds a promise that is stronger than not to panic: what was read prints and reads back, and no cut of the
//! input changes what is said.

use ringpost::config::{self, Host, Sources};
use ringpost::ingress::proxy::{self, Header};
use ringpost::smtp::body::{BareNewline, BodyScanner, Form, Framing, ScanState};
use ringpost::smtp::client::{Client, ClientEvent, Expect, MailOptions, RcptOptions, UpstreamReply};
use ringpost::smtp::line::{Line, Lines};
use ringpost::smtp::server::Profile;
use ringpost::smtp::{command, params, path};
use ringpost::trace::HeaderScan;

use crate::dialog::Dialog;
use crate::dialog::run::{Manner, Recipients, converse};
use crate::wire;

/// A command line without its CRLF, and the arguments of MAIL and RCPT in it.
pub fn fuzz_command(octets: &[u8]) {
    let offer = params::Offer { esmtp: true, smtputf8: true, dsn: true, auth: true, requiretls: true };
    match command::parse(octets) {
        Ok(command::Command::Mail(arguments)) => drop(params::mail(arguments, offer)),
        Ok(command::Command::Rcpt(arguments)) => drop(params::rcpt(arguments, offer, true)),
        _ => {}
    }
}

/// A path: what is read prints and reads back.
pub fn fuzz_path(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    if let Ok((path, _)) = path::reverse_path(text) {
        let printed = path.to_string();
        assert_eq!(path::reverse_path(&printed), Ok((path, "")), "{text:?}");
    }
}

/// A whole session: the same replies, messages and events octet by octet with recipients answered in groups.
pub fn fuzz_session(octets: &[u8]) {
    for bare_newline in [BareNewline::Normalize, BareNewline::Reject] {
        let profile = Profile {
            size_max: 1000,
            recipients_max: 5,
            bare_newline,
            ..Profile::relay("mx.example".into())
        };
        let dialog = Dialog::monologue(profile, octets);
        let whole = Manner { cuts: vec![usize::MAX], recipients: Recipients::AtOnce, form: Form::Plain };
        let cut = Manner { cuts: vec![1], recipients: Recipients::Postponed, form: Form::Plain };
        assert_eq!(converse(&dialog, &whole), converse(&dialog, &cut), "{}", octets.escape_ascii());
    }
}

/// Lines of commands: the same lines however they come.
pub fn fuzz_line(octets: &[u8]) {
    assert_eq!(lines(octets, octets.len()), lines(octets, 1), "{}", octets.escape_ascii());
}

fn lines(octets: &[u8], cut: usize) -> Vec<String> {
    let mut lines = Lines::default();
    let mut read = Vec::new();
    for stretch in octets.chunks(cut.max(1)) {
        let mut rest = stretch;
        while !rest.is_empty() {
            let (taken, line) = lines.read(rest, 40);
            rest = &rest[taken..];
            if line == Line::TlsRecord {
                read.push("a TLS record".to_owned());
                return read;
            }
            if line != Line::Partial {
                read.push(format!("{line:?}"));
                lines.done();
            }
        }
    }
    read
}

/// A body: no cut changes what goes out, which has no bare CR or LF and, stuffed, no end within.
pub fn fuzz_body(octets: &[u8]) {
    for framing in [Framing::Data, Framing::Chunks] {
        for form in [Form::Plain, Form::Stuffed] {
            for bare_newline in [BareNewline::Normalize, BareNewline::Reject] {
                let scanner = BodyScanner::new(framing, form, bare_newline);
                let whole = body(scanner.clone(), octets, octets.len());
                assert_eq!(whole, body(scanner, octets, 1), "{}", octets.escape_ascii());
                let (out, end, _) = whole;
                let is_whole = end == "End";
                assert!(!is_whole || wire::bare_newlines(&out).is_empty(), "{}", out.escape_ascii());
                let has_end = wire::terminator(&out, 0).is_some();
                assert!(!(is_whole && form == Form::Stuffed && has_end), "{}", out.escape_ascii());
            }
        }
    }
}

/// What goes out, how it ends, and the size that is told.
fn body(mut scanner: BodyScanner, octets: &[u8], cut: usize) -> (Vec<u8>, String, u64) {
    let mut out = Vec::new();
    let mut pieces = Vec::new();
    for stretch in octets.chunks(cut.max(1)) {
        let mut rest = stretch;
        while !rest.is_empty() {
            pieces.clear();
            let scan = scanner.scan(rest, &mut pieces);
            pieces.iter().for_each(|piece| out.extend_from_slice(piece.octets(rest)));
            if scan.state != ScanState::More {
                return (out, format!("{:?}", scan.state), scanner.size());
            }
            rest = &rest[scan.consumed..];
        }
    }
    pieces.clear();
    let end = scanner.finish_chunks(&mut pieces);
    pieces.iter().for_each(|piece| out.extend_from_slice(piece.octets(&[])));
    let end = if scanner.is_discarding() { "given up".to_owned() } else { format!("{end:?}") };
    (out, end, scanner.size())
}

/// A header section: the same facts however it comes.
pub fn fuzz_header(octets: &[u8]) {
    for form in [Form::Plain, Form::Stuffed] {
        assert_eq!(header(form, octets, octets.len()), header(form, octets, 1), "{}", octets.escape_ascii());
    }
}

fn header(form: Form, octets: &[u8], cut: usize) -> String {
    let mut scan = HeaderScan::new(form);
    octets.chunks(cut.max(1)).for_each(|stretch| {
        scan.scan(stretch);
    });
    let state = scan.finish();
    format!(
        "{state:?} {} {} {} {} {}",
        scan.octets(),
        scan.hops(),
        scan.has_date(),
        scan.has_message_id(),
        scan.needs_separator()
    )
}

/// Replies of an upstream: the same events however they come, and never one that no command asked for.
pub fn fuzz_reply(octets: &[u8]) {
    let whole = replies(octets, octets.len());
    assert_eq!(whole, replies(octets, 1), "{}", octets.escape_ascii());
}

fn replies(octets: &[u8], cut: usize) -> Vec<String> {
    let mut client = Client::new();
    let mut events = Vec::new();
    for stretch in octets.chunks(cut.max(1)) {
        let mut rest = stretch;
        loop {
            let step = client.step(rest);
            rest = &rest[step.consumed..];
            match step.event {
                ClientEvent::NeedInput => break,
                ClientEvent::Reply { to, reply } => {
                    events.push(format!("{to:?} {reply:?}"));
                    go_on(&mut client, to, &reply);
                }
                ClientEvent::EarlyVerdict(reply) => events.push(format!("early {reply:?}")),
                ClientEvent::Violation(violation) => {
                    events.push(format!("{violation:?}"));
                    return events;
                }
            }
        }
    }
    events
}

/// What a client says next, where everything before was answered.
fn go_on(client: &mut Client, to: Expect, reply: &UpstreamReply) {
    if client.owed() > 0 {
        return;
    }
    let mut out = Vec::new();
    match to {
        Expect::Greeting => drop(client.ehlo("relay.test", &mut out)),
        Expect::Ehlo => {
            let _ = client.mail("a@b", &MailOptions::default(), &mut out);
            if client.may_add() {
                let _ = client.rcpt("c@d", &RcptOptions::default(), &mut out);
                client.data(&mut out);
            }
        }
        Expect::Mail => drop(client.rcpt("c@d", &RcptOptions::default(), &mut out)),
        Expect::Rcpt => client.data(&mut out),
        Expect::Data if reply.is_intermediate() => client.end_of_data(&mut out),
        Expect::Data | Expect::Message => client.rset(&mut out),
        Expect::Rset => drop(client.mail("", &MailOptions::default(), &mut out)),
        _ => {}
    }
}

/// A PROXY header: what is decided on a part of the octets stands whatever follows.
pub fn fuzz_proxy(octets: &[u8]) {
    let mut decided = None;
    for end in 0..=octets.len() {
        match (&decided, proxy::read(&octets[..end])) {
            (None, Header::Partial) => {}
            (None, header) => decided = Some(header),
            (Some(decided), header) => assert_eq!(header, *decided, "{}", octets.escape_ascii()),
        }
    }
    if let Some(Header::Whole { octets: count, .. }) = decided {
        assert!(count <= octets.len(), "longer than what came");
    }
}

/// Configuration, one assignment a line: a refusal says why, and what is taken once is taken again. No value names a file.
pub fn fuzz_config(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    let set: Vec<String> = text.lines().filter(|line| !line.contains('/')).map(str::to_owned).collect();
    let sources = Sources { set, ..Sources::default() };
    let host = Host { name: "mx.example".to_owned(), cpus: 2 };
    match config::load(&sources, &host) {
        Ok(_) => assert!(config::load(&sources, &host).is_ok(), "{text:?}"),
        Err(refused) => assert!(!refused.mistakes.is_empty(), "refused without a word: {text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WORDS: &[&[u8]] = &[
        b"EHLO a\r\n",
        b"MAIL FROM:<a@b>\r\n",
        b"RCPT TO:<c@d>\r\n",
        b"RCPT TO:<no@d>\r\n",
        b"DATA\r\n",
        b".\r\n",
        b"\r\n",
        b"BDAT 5\r\n",
        b"BDAT 4 LAST\r\n",
        b"BDAT 0\r\n",
        b"BDAT 1001\r\n",
        b"RSET\r\n",
        b"STARTTLS\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"x",
        b".",
        b"QUIT\r\n",
        b"NOOP\r\n",
        b"HELO a\r\n",
        b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    ];

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn sessions_hold(picks in prop::collection::vec(0..WORDS.len(), 0..40)) {
            let opening = [0, 1, 2];
            let octets: Vec<u8> = opening.iter().chain(&picks).flat_map(|&at| WORDS[at]).copied().collect();
            fuzz_session(&octets);
            fuzz_line(&octets);
            fuzz_body(&octets);
            fuzz_header(&octets);
        }

        #[test]
        fn anything_holds(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            for target in [fuzz_session, fuzz_command, fuzz_path, fuzz_line, fuzz_body, fuzz_header, fuzz_reply, fuzz_proxy] {
                target(&octets);
            }
        }
    }
}
