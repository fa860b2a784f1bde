//! Values of log lines, escaped: whatever a peer wrote, the line stays one line and the terminal its user's.
//!
//! Escaped are control characters (C0, DEL, C1), and the invisible characters that reorder or hide text: bidirectional
//! controls, zero-width characters, line and paragraph separators. Other Unicode stays readable. Octets that are
//! no UTF-8 never get here: callers hold `str`, or show octets in hexadecimal.
//!
//! Pure. The escapes of text are Rust's (`\n`, `\u{1b}`), those of JSON are JSON's (`\n`, `\u001b`).

use std::{fmt, io};

use crate::limits;

/// Appends a value as text: bare where it is plain, else in double quotes.
pub(super) fn push_text(line: &mut Vec<u8>, value: &str) {
    if is_plain(value) {
        line.extend_from_slice(value.as_bytes());
        return;
    }
    line.push(b'"');
    push_bare(line, value);
    line.push(b'"');
}

/// Appends a value as text, escaped as in quotes but without them.
pub(super) fn push_bare(line: &mut Vec<u8>, value: &str) {
    push_escaped(line, value, |line, character| match character {
        '"' => line.extend_from_slice(b"\\\""),
        '\\' => line.extend_from_slice(b"\\\\"),
        '\n' => line.extend_from_slice(b"\\n"),
        '\r' => line.extend_from_slice(b"\\r"),
        '\t' => line.extend_from_slice(b"\\t"),
        other => push(line, format_args!("\\u{{{:x}}}", u32::from(other))),
    });
}

/// Appends a value as a JSON string, quotes included.
pub(super) fn push_json(line: &mut Vec<u8>, value: &str) {
    line.push(b'"');
    push_escaped(line, value, |line, character| match character {
        '"' => line.extend_from_slice(b"\\\""),
        '\\' => line.extend_from_slice(b"\\\\"),
        '\n' => line.extend_from_slice(b"\\n"),
        '\r' => line.extend_from_slice(b"\\r"),
        '\t' => line.extend_from_slice(b"\\t"),
        other => {
            for unit in other.encode_utf16(&mut [0; 2]) {
                push(line, format_args!("\\u{unit:04x}"));
            }
        }
    });
    line.push(b'"');
}

/// Appends a whole number in decimal, which is what most fields that are no text hold.
pub(super) fn push_number(line: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b"0123456789"[usize::try_from(number % 10).unwrap_or(0)];
        number /= 10;
        if number == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[first..]);
}

/// Appends what a format string makes. A `Vec` never fails to grow but by aborting.
pub(super) fn push(line: &mut Vec<u8>, arguments: fmt::Arguments<'_>) {
    let _ = io::Write::write_fmt(line, arguments);
}

/// A text that takes at most `limits::LOG_VALUE_OCTETS_MAX` octets and then fails, which ends the formatting of a value
/// that is too long.
#[derive(Debug, Default)]
pub(super) struct Bounded {
    text: String,
    is_cut: bool,
}

impl Bounded {
    /// What a value shows of itself, cut at the bound.
    pub(super) fn show(&mut self, value: &dyn fmt::Debug) -> &str {
        self.text.clear();
        self.is_cut = false;
        // An error is our own way to end a long value, or the value's own: what came before it is shown.
        let _ = fmt::Write::write_fmt(self, format_args!("{value:?}"));
        self.cut()
    }

    /// A text, cut at the bound.
    pub(super) fn take<'a>(&'a mut self, text: &'a str) -> &'a str {
        if text.len() <= limits::LOG_VALUE_OCTETS_MAX {
            return text;
        }
        self.text.clear();
        self.is_cut = false;
        let _ = fmt::Write::write_str(self, text);
        self.cut()
    }

    fn cut(&mut self) -> &str {
        if self.is_cut {
            self.text.push('…');
        }
        &self.text
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = limits::LOG_VALUE_OCTETS_MAX - self.text.len();
        if text.len() <= room {
            self.text.push_str(text);
            return Ok(());
        }
        self.text.push_str(&text[..text.floor_char_boundary(room)]);
        self.is_cut = true;
        Err(fmt::Error)
    }
}

/// Copies runs that need no escape as they are; gives the characters between them to `escape`.
fn push_escaped(line: &mut Vec<u8>, value: &str, escape: impl Fn(&mut Vec<u8>, char)) {
    // Almost every value is printable ASCII: one look at each octet instead of decoding characters.
    if value.bytes().all(is_harmless) {
        return line.extend_from_slice(value.as_bytes());
    }
    let mut copied = 0;
    for (place, character) in value.char_indices() {
        if needs_escape(character) {
            line.extend_from_slice(&value.as_bytes()[copied..place]);
            escape(line, character);
            copied = place + character.len_utf8();
        }
    }
    line.extend_from_slice(&value.as_bytes()[copied..]);
}

/// Whether a value can stand without quotes: not empty, visible ASCII alone, nothing that ends a key or a quote.
fn is_plain(value: &str) -> bool {
    !value.is_empty() && value.bytes().all(|octet| is_harmless(octet) && !matches!(octet, b' ' | b'='))
}

/// Printable ASCII but for what is escaped there.
fn is_harmless(octet: u8) -> bool {
    matches!(octet, b' '..=b'~') && !matches!(octet, b'"' | b'\\')
}

fn needs_escape(character: char) -> bool {
    matches!(character,
        '"' | '\\'
        | '\0'..='\x1f' | '\x7f'..='\u{9f}'                     // C0, DEL, C1
        | '\u{ad}' | '\u{61c}' | '\u{180e}'                     // soft hyphen, Arabic letter mark, vowel separator
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'     // zero width, marks, separators, bidi embeddings
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' // invisible operators, isolates, BOM, annotations
        | '\u{e0000}'..='\u{e007f}'                             // tags
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(value: &str) -> String {
        let mut line = Vec::new();
        push_text(&mut line, value);
        String::from_utf8(line).unwrap()
    }

    fn json(value: &str) -> String {
        let mut line = Vec::new();
        push_json(&mut line, value);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn plain_values_stand_bare_and_others_in_quotes() {
        for (value, shown) in [
            ("a@example.com", "a@example.com"),
            ("<>", "<>"),
            ("", "\"\""),
            ("two words", "\"two words\""),
            ("a=b", "\"a=b\""),
            ("say \"hi\" \\", r#""say \"hi\" \\""#),
            ("Grüße", "\"Grüße\""),
        ] {
            assert_eq!(text(value), shown);
        }
    }

    #[test]
    fn nothing_ends_a_line_or_moves_a_cursor() {
        assert_eq!(text("x\r\nlevel=error"), r#""x\r\nlevel=error""#);
        assert_eq!(text("\x1b[2J"), r#""\u{1b}[2J""#);
        assert_eq!(text("\u{9b}31m\u{7f}"), r#""\u{9b}31m\u{7f}""#);
        assert_eq!(text("abc\u{202e}cba\u{2066}"), r#""abc\u{202e}cba\u{2066}""#);
        assert_eq!(text("a\u{2028}b\u{200b}c"), r#""a\u{2028}b\u{200b}c""#);
        assert_eq!(json("\x1b[2J\u{202e}\u{e0041}\n"), r#""\u001b[2J\u202e\udb40\udc41\n""#);
    }

    #[test]
    fn a_long_value_is_cut_at_a_character_and_marked() {
        let long = "é".repeat(limits::LOG_VALUE_OCTETS_MAX);
        for shown in [
            Bounded::default().take(&long).to_owned(),
            Bounded::default().show(&format_args!("{long}")).to_owned(),
        ] {
            assert!(shown.ends_with("é…"));
            assert!(shown.len() <= limits::LOG_VALUE_OCTETS_MAX + '…'.len_utf8());
        }
    }

    proptest! {
        #[test]
        fn text_is_one_visible_line_that_reads_back(value in any::<String>()) {
            let shown = text(&value);
            prop_assert!(!shown.chars().any(|character| character.is_control()));
            let inner = shown.strip_prefix('"').map_or(shown.as_str(), |rest| &rest[..rest.len() - 1]);
            prop_assert_eq!(unescape(inner), value);
        }

        #[test]
        fn json_reads_back_with_any_reader(value in any::<String>()) {
            let shown = json(&value);
            prop_assert!(!shown.chars().any(char::is_control));
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), value);
        }
    }

    /// The naive reader of [`push_text`]'s escapes.
    fn unescape(text: &str) -> String {
        let mut characters = text.chars();
        let mut value = String::new();
        while let Some(character) = characters.next() {
            if character != '\\' {
                value.push(character);
                continue;
            }
            value.push(match characters.next().unwrap() {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let digits: String =
                        characters.by_ref().skip(1).take_while(|&digit| digit != '}').collect();
                    char::from_u32(u32::from_str_radix(&digits, 16).unwrap()).unwrap()
                }
                quoted => quoted,
            });
        }
        value
    }
}
