//! What the names and options of old promise.

use super::options::{Dsn, Mode, parse};
use super::*;

fn options(line: &str) -> Result<Options, String> {
    parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
}

#[test]
fn options_are_read_as_other_mail_systems_read_them() {
    let submit = Options { from_header: true, dots_are_content: true, ..Options::default() };
    for line in ["-t -i", "-ti", "-t -oi", "-oi -t -oem -m", "-t -o i -v -G", "-i -t -B 8BITMIME -Am"] {
        assert_eq!(options(line).unwrap(), submit, "{line}");
    }
    let found = options("-f a@b -FName -N success,delay -R hdrs -V id -- -x y@z").unwrap();
    assert_eq!(found.sender.as_deref(), Some("a@b"));
    assert_eq!(found.name.as_deref(), Some("Name"));
    assert_eq!(
        found.dsn,
        Dsn { notify: Some("SUCCESS,DELAY".to_owned()), ret: Some("HDRS"), envid: Some("id".to_owned()) }
    );
    assert_eq!(found.recipients, ["-x", "y@z"]);
    for (line, mode) in [
        ("-bp", Mode::List),
        ("-bs", Mode::Session),
        ("-b i", Mode::Aliases),
        ("-I", Mode::Aliases),
        ("-q", Mode::Flush),
        ("-q30m", Mode::Flush),
        ("-qRexample.org", Mode::Flush),
        ("a@b", Mode::Submit),
    ] {
        assert_eq!(options(line).unwrap().mode, mode, "{line}");
    }
    for line in ["-f", "-bd", "-N never,delay", "-N x", "-R all", "-Z"] {
        assert!(options(line).is_err(), "{line}");
    }
}

#[test]
fn addresses_are_found_whatever_stands_around_them() {
    for (value, expected) in [
        ("a@b", vec!["a@b"]),
        (" A <a@b>, \"B, C\" <c@d> (x, (y) z),\te@f ", vec!["a@b", "c@d", "e@f"]),
        ("Friends: a@b, c@d;, root", vec!["a@b", "c@d", "root"]),
        ("undisclosed-recipients:;", vec![]),
        (
            "\"a b\"@c, <\"x@y\"@z>, u@[IPv6:2001:db8::1]",
            vec!["\"a b\"@c", "\"x@y\"@z", "u@[IPv6:2001:db8::1]"],
        ),
        ("<@one,@two:user@three>", vec!["user@three"]),
        ("a @ b . c", vec!["a@b.c"]),
        ("", vec![]),
        (", ,", vec![]),
    ] {
        assert_eq!(addresses::of_field(value).unwrap(), expected, "{value}");
    }
    for value in ["\"open", "(open", "<open", "a <b"] {
        assert_eq!(addresses::of_field(value), None, "{value}");
    }
    for (argument, expected) in [
        ("root", "root@h"),
        ("<>", ""),
        ("", ""),
        ("<a@b>", "a@b"),
        ("\"a@b\"", "\"a@b\"@h"),
        ("Name <a@b>", "a@b"),
    ] {
        assert_eq!(addresses::qualified(argument, "h"), expected);
    }
}

fn read(input: &str, dot_ends: bool) -> Message {
    let author = Author { address: "me@host".to_owned(), name: "J\u{f6}rg".to_owned() };
    Message::read(input.as_bytes(), dot_ends, &author)
}

fn text(message: &Message) -> &str {
    std::str::from_utf8(&message.octets).unwrap()
}

#[test]
fn a_message_is_made_fit_and_blind_copies_stay_blind() {
    let input = "From x Mon\nTo: A <a@b>,\n c@d\nBcc: e@f\nCC : g@h\nFrom: i@j\n\nText\n.\nmore";
    let message = read(input, true);
    assert_eq!(text(&message), "To: A <a@b>,\r\n c@d\r\nCC : g@h\r\nFrom: i@j\r\n\r\nText\r\n");
    assert_eq!(message.recipients().unwrap(), ["a@b", "c@d", "e@f", "g@h"]);
    let message = read(input, false);
    assert!(text(&message).ends_with("Text\r\n.\r\nmore\r\n"));
}

#[test]
fn the_author_is_named_where_the_message_names_none() {
    assert_eq!(
        text(&read("Subject: x\n\ny\n", true)),
        "Subject: x\r\nFrom: =?utf-8?Q?=4A=C3=B6=72=67?= <me@host>\r\n\r\ny\r\n"
    );
    assert_eq!(
        text(&read("no header\r\n\r\n", true)),
        "From: =?utf-8?Q?=4A=C3=B6=72=67?= <me@host>\r\n\r\nno header\r\n\r\n"
    );
    assert_eq!(text(&read("", true)), "From: =?utf-8?Q?=4A=C3=B6=72=67?= <me@host>\r\n\r\n");
}

#[test]
fn a_resent_message_goes_to_its_new_recipients_alone() {
    let message = read("Resent-To: a@b\nResent-Bcc: c@d\nTo: e@f\n\n", true);
    assert_eq!(message.recipients().unwrap(), ["a@b", "c@d"]);
    assert!(!text(&message).contains("c@d"));
}
