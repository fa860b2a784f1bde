//! Entry points for fuzzing the server's side of SMTP: octets in, a panic where a promise is broken.
//!
//! Each holds a promise that is stronger than not to panic: what was read prints and reads back, and no cut of the
//! input changes what is said.

use ringpost::smtp::body::{BareNewline, Form};
use ringpost::smtp::server::Profile;
use ringpost::smtp::{command, params, path};

use crate::dialog::Dialog;
use crate::dialog::run::{Manner, Recipients, converse};

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
        }

        #[test]
        fn anything_holds(octets in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz_session(&octets);
            fuzz_command(&octets);
            fuzz_path(&octets);
        }
    }
}
