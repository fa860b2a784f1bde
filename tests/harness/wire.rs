//! Judging octets that were on the wire: line ends, dots, terminators. Pure; written to be obviously right.

/// What is wrong with the line ends of a stretch of SMTP: a CR without its LF, an LF without its CR
/// (RFC 5321 §2.3.8).
pub fn bare_newlines(octets: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for (at, octet) in octets.iter().enumerate() {
        let before = at.checked_sub(1).map(|before| octets[before]);
        let after = octets.get(at + 1);
        match octet {
            b'\n' if before != Some(b'\r') => found.push(format!("bare LF at octet {at}")),
            b'\r' if after != Some(&b'\n') => found.push(format!("bare CR at octet {at}")),
            _ => {}
        }
    }
    found
}

/// Where the content ends and where what follows it begins, by CRLF.CRLF and nothing else (RFC 5321 §4.1.1.4).
/// `from` is an offset before which no end was found; the content keeps the CRLF of its last line.
pub fn terminator(octets: &[u8], from: usize) -> Option<(usize, usize)> {
    if octets.starts_with(b".\r\n") {
        return Some((0, 3));
    }
    let from = from.saturating_sub(4);
    let at = octets[from..].windows(5).position(|window| window == b"\r\n.\r\n")? + from;
    Some((at + 2, at + 5))
}

/// Content with a dot before each line that begins with one (RFC 5321 §4.5.2).
pub fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(content.len());
    let mut before = b'\n';
    for octet in content {
        if *octet == b'.' && before == b'\n' {
            stuffed.push(b'.');
        }
        stuffed.push(*octet);
        before = *octet;
    }
    stuffed
}

/// Content without the dot that stuffing put before lines (RFC 5321 §4.5.2). Only CRLF ends a line.
pub fn unstuffed(wire: &[u8]) -> Vec<u8> {
    let mut content = Vec::with_capacity(wire.len());
    for (at, octet) in wire.iter().enumerate() {
        let at_line_start = at == 0 || (at >= 2 && &wire[at - 2..at] == b"\r\n");
        if *octet != b'.' || !at_line_start {
            content.push(*octet);
        }
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finds_every_bare_newline() {
        assert!(bare_newlines(b"a\r\nb\r\n").is_empty());
        assert_eq!(
            bare_newlines(b"\na\rb\r\r\n"),
            ["bare LF at octet 0", "bare CR at octet 2", "bare CR at octet 4"]
        );
    }

    #[test]
    fn ends_content_at_crlf_dot_crlf_only() {
        assert_eq!(terminator(b".\r\nQUIT", 0), Some((0, 3)));
        assert_eq!(terminator(b"a\r\n.\r\n", 0), Some((3, 6)));
        assert_eq!(terminator(b"a\r\n.\r\n", 5), Some((3, 6)));
        for other in [&b"a\n.\n"[..], b"a\n.\r\n", b"a\r\n.\n", b"a\r.\r", b"a\r\n..\r\n"] {
            assert_eq!(terminator(other, 0), None);
        }
    }

    proptest! {
        #[test]
        fn unstuffing_takes_back_stuffing(lines in proptest::collection::vec("[.a]{0,3}", 0..6)) {
            let content = lines.iter().map(|line| format!("{line}\r\n")).collect::<String>().into_bytes();
            prop_assert_eq!(unstuffed(&stuffed(&content)), content);
        }
    }
}
