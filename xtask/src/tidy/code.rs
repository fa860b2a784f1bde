//! Rust source with its comments and literals blanked out, octet for octet, so that rules can search it
//! without a parser and still give line numbers. It must not change any offset.

use std::ops::Range;

/// The source with every comment, string and character literal turned into spaces; line ends stay.
pub(crate) fn masked(text: &str) -> String {
    let octets = text.as_bytes();
    let mut masked = octets.to_vec();
    let mut at = 0;
    while at < octets.len() {
        let end = literal_end(octets, at).unwrap_or(at);
        for octet in &mut masked[at..end] {
            if *octet != b'\n' {
                *octet = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8_lossy(&masked).into_owned()
}

/// What stands before the unit tests of a file, in masked source.
pub(crate) fn before_tests(masked: &str) -> &str {
    let mut from = 0;
    while let Some(found) = masked[from..].find("#[cfg(test)]") {
        let at = from + found;
        let after = masked[at + "#[cfg(test)]".len()..].trim_start();
        if after.starts_with("mod ") {
            return &masked[..at];
        }
        from = at + 1;
    }
    masked
}

/// The line on which an offset stands, counted from 1.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes()[..offset].iter().filter(|octet| **octet == b'\n').count()
}

/// Where each occurrence of a word begins that is not part of a longer word.
pub(crate) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = text[..*at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !(before.is_some_and(is_word) || word.ends_with(is_word) && after.is_some_and(is_word))
    })
}

/// The identifier that begins at the start of the text; empty when there is none.
pub(crate) fn identifier(text: &str) -> &str {
    &text[..text.find(|c| !is_word(c)).unwrap_or(text.len())]
}

/// Functions with a body: the name and the range from `fn` to the closing brace.
pub(crate) fn functions(masked: &str) -> Vec<(&str, Range<usize>)> {
    let with_body = |at: usize| {
        let name = identifier(masked[at + 2..].trim_start());
        let open = body_open(masked, at)?;
        (!name.is_empty()).then(|| (name, at..closing_brace(masked, open)))
    };
    words(masked, "fn").filter_map(with_body).collect()
}

fn body_open(masked: &str, from: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, octet) in masked.bytes().enumerate().skip(from) {
        match octet {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(at),
            b';' if depth == 0 => return None,
            _ => {}
        }
        if depth < 0 {
            return None;
        }
    }
    None
}

fn closing_brace(masked: &str, open: usize) -> usize {
    let mut depth = 0_u32;
    for (at, octet) in masked.bytes().enumerate().skip(open) {
        match octet {
            b'{' => depth += 1,
            b'}' if depth == 1 => return at,
            b'}' => depth -= 1,
            _ => {}
        }
    }
    masked.len()
}

/// Where the comment or literal that begins here ends; none when none begins here.
fn literal_end(octets: &[u8], at: usize) -> Option<usize> {
    let rest = &octets[at..];
    let inside_word = at > 0 && is_word(char::from(octets[at - 1]));
    match rest {
        [b'/', b'/', ..] => Some(at + rest.iter().position(|octet| *octet == b'\n').unwrap_or(rest.len())),
        [b'/', b'*', ..] => Some(at + block_comment(rest)),
        [b'"', ..] => Some(at + 1 + quoted(&rest[1..], b'"')),
        [b'\'', b'\\', ..] => Some(at + 1 + quoted(&rest[1..], b'\'')),
        [b'\'', ..] => character(rest).map(|length| at + length),
        [b'r', b'"' | b'#', ..] if !inside_word => raw_string(&rest[1..]).map(|length| at + 1 + length),
        [b'b', b'r', b'"' | b'#', ..] if !inside_word => raw_string(&rest[2..]).map(|length| at + 2 + length),
        _ => None,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0_u32;
    let mut at = 0;
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Octets up to and with the closing quote, the opening one not counted.
fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 0;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            octet if octet == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// A character literal without an escape; a lifetime is none.
fn character(rest: &[u8]) -> Option<usize> {
    let close = rest.iter().take(6).skip(2).position(|octet| *octet == b'\'')? + 2;
    (close == 2 || rest[1] >= 0x80).then_some(close + 1)
}

/// `#"…"#`, the letter before it not counted; none when it is a raw identifier.
fn raw_string(rest: &[u8]) -> Option<usize> {
    let hashes = rest.iter().take_while(|octet| **octet == b'#').count();
    if rest.get(hashes) != Some(&b'"') {
        return None;
    }
    let mut end = vec![b'"'];
    end.extend(std::iter::repeat_n(b'#', hashes));
    let body = &rest[hashes + 1..];
    let close = body.windows(end.len()).position(|window| window == end).unwrap_or(body.len());
    Some((hashes + 1 + close + end.len()).min(rest.len()))
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}
