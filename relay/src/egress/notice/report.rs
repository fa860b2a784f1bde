//! The part of a notice for programs: `message/delivery-status` (RFC 3464 §2), or its internationalized form (RFC 6533 §4).
//!
//! Each field is one line, folded; what a peer said is made printable first, so that no field can begin another. Must
//! not decide who hears what.

use std::fmt::Write as _;

use super::{Diagnostic, Event, Original, Outcome, Script, Teller};
use crate::trace::LocalTime;

/// All fields: those of the message, then those of each recipient, groups parted by an empty line.
pub(super) fn fields(
    event: Event,
    told: &[&Outcome],
    original: &Original<'_>,
    teller: &Teller<'_>,
    script: Script,
) -> String {
    let mut out = String::new();
    let entry = original.entry;
    let local = |unix_ms| LocalTime { unix_ms, ..teller.now };
    // RFC 3464 §2.2.1, RFC 3461 §6.3 (c): the client's own words, decoded.
    if let Some(envid) = &entry.envid {
        field(&mut out, "Original-Envelope-Id", &shown(&xtext_decoded(envid), script));
    }
    field(&mut out, "Reporting-MTA", &format!("dns; {}", teller.host_name));
    field(&mut out, "Arrival-Date", &local(entry.arrival_ms).to_string());
    field(&mut out, "X-Ringpost-Queue-ID", &original.id.to_string());
    for outcome in told {
        out.push_str("\r\n");
        let Some(recipient) = entry.recipients.get(outcome.recipient) else { continue };
        if let Some((kind, address)) = recipient.orcpt.as_deref().and_then(|orcpt| orcpt.split_once(';')) {
            let address = shown(&orcpt_decoded(kind, address), script);
            field(&mut out, "Original-Recipient", &format!("{kind};{address}"));
        }
        let kind = if recipient.address.is_ascii() { "rfc822" } else { "utf-8" };
        field(&mut out, "Final-Recipient", &format!("{kind};{}", shown(&recipient.address, script)));
        field(&mut out, "Action", action(event));
        field(&mut out, "Status", &outcome.status.to_string());
        if let Some(remote) = &outcome.remote {
            field(&mut out, "Remote-MTA", &format!("dns; {}", shown(remote, script)));
        }
        let diagnostic = match &outcome.diagnostic {
            Diagnostic::Smtp(said) => format!("smtp; {}", shown(said, script)),
            Diagnostic::Local(said) => format!("x-ringpost; {}", shown(said, script)),
        };
        field(&mut out, "Diagnostic-Code", &diagnostic);
        if let Some(tried_ms) = outcome.tried_ms {
            field(&mut out, "Last-Attempt-Date", &local(tried_ms).to_string());
        }
        // RFC 3464 §2.3.9: for what is delayed, and for nothing else.
        if let Event::Delayed { until_ms } = event {
            field(&mut out, "Will-Retry-Until", &local(until_ms).to_string());
        }
    }
    out
}

/// RFC 3464 §2.3.3.
fn action(event: Event) -> &'static str {
    match event {
        Event::Failed => "failed",
        Event::Delayed { .. } => "delayed",
        Event::Relayed => "relayed",
    }
}

/// One field, folded at its spaces.
fn field(out: &mut String, name: &str, value: &str) {
    let start = out.len();
    out.push_str(name);
    out.push(':');
    let mut line = start;
    for word in value.split(' ').filter(|word| !word.is_empty()) {
        if out.len() - line + 1 + word.len() > FOLD_AT && out.len() - line > name.len() + 1 {
            out.push_str("\r\n");
            line = out.len();
        }
        out.push(' ');
        out.push_str(word);
    }
    out.push_str("\r\n");
}

/// Where lines are folded (RFC 5322 §2.1.1).
const FOLD_AT: usize = 78;

/// Text fit for a field: line ends become spaces, other control characters go, and for readers of ASCII every other
/// character is written as RFC 6533 §3 escapes it in addresses: `\x{E9}`.
pub(super) fn shown(text: &str, script: Script) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\r' | '\n' | '\t' => out.push(' '),
            control if control.is_control() => {}
            ascii if ascii.is_ascii() => out.push(ascii),
            other if script == Script::Utf8 => out.push(other),
            other => {
                let _ = write!(out, "\\x{{{:X}}}", u32::from(other));
            }
        }
    }
    out
}

/// What xtext means (RFC 3461 §4). It was checked when it came in; what is not xtext stays as it is.
fn xtext_decoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, escaped)) = rest.split_once('+') {
        out.push_str(before);
        match escaped.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(octet) => {
                out.push(char::from(octet));
                rest = &escaped[2..];
            }
            None => {
                out.push('+');
                rest = escaped;
            }
        }
    }
    out + rest
}

/// The address of ORCPT. That of the type `utf-8` has escapes of its own (RFC 6533 §3).
fn orcpt_decoded(kind: &str, address: &str) -> String {
    if !kind.eq_ignore_ascii_case("utf-8") {
        return xtext_decoded(address);
    }
    let mut out = String::with_capacity(address.len());
    let mut rest = address;
    while let Some((before, escaped)) = rest.split_once("\\x{") {
        out.push_str(before);
        let point = escaped.split_once('}').and_then(|(digits, behind)| {
            Some((char::from_u32(u32::from_str_radix(digits, 16).ok()?)?, behind))
        });
        match point {
            Some((character, behind)) => {
                out.push(character);
                rest = behind;
            }
            None => {
                out.push_str("\\x{");
                rest = escaped;
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtext_is_decoded() {
        assert_eq!(xtext_decoded("a+2Bb+3Dc"), "a+b=c");
        assert_eq!(xtext_decoded("no+escape+"), "no+escape+");
        assert_eq!(orcpt_decoded("rfc822", "Bob+20B@example.org"), "Bob B@example.org");
        assert_eq!(orcpt_decoded("utf-8", "j\\x{F6}rg+20@example.org"), "jörg+20@example.org");
        assert_eq!(orcpt_decoded("UTF-8", "\\x{}\\x{110000}\\x{"), "\\x{}\\x{110000}\\x{");
    }

    #[test]
    fn a_field_is_folded_and_holds_no_line_of_its_own() {
        let mut out = String::new();
        field(
            &mut out,
            "Diagnostic-Code",
            &shown(&format!("smtp; 550 {}\r\nAction: x\0y", "word ".repeat(20)), Script::Ascii),
        );
        assert!(out.lines().all(|line| line.len() <= FOLD_AT), "{out}");
        assert!(out.lines().skip(1).all(|line| line.starts_with(' ')), "{out}");
        assert_eq!(out.matches("word").count(), 20);
        assert!(out.ends_with("Action: xy\r\n"));
    }

    #[test]
    fn a_long_word_is_not_parted_from_its_name() {
        let mut out = String::new();
        field(&mut out, "Final-Recipient", &"x".repeat(300));
        assert_eq!(out, format!("Final-Recipient: {}\r\n", "x".repeat(300)));
    }
}
