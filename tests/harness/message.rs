//! Messages to send, and telling what the relay added to them. It must not parse bodies.

use std::sync::atomic::{AtomicU64, Ordering};

static NEXT: AtomicU64 = AtomicU64::new(1);

/// An ordinary message that lacks nothing, so that a relay adds its trace and no more. No two are equal.
pub fn ordinary(body: &str) -> Vec<u8> {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!(
        "Date: Fri, 21 Nov 2025 10:00:00 +0000\r\nFrom: <a@client.test>\r\nTo: <b@example.com>\r\n\
         Message-ID: <{number}.{}@client.test>\r\nSubject: {number}\r\n\r\n{body}",
        std::process::id()
    )
    .into_bytes()
}

/// An ordinary message whose body has this many octets, in lines of 78.
pub fn of_size(octets: usize) -> Vec<u8> {
    let line = format!("{}\r\n", "0123456789".repeat(8).split_at(76).0);
    let mut body = line.repeat(octets / line.len());
    let rest = octets - body.len();
    if rest >= 2 {
        body.push_str(&"x".repeat(rest - 2));
        body.push_str("\r\n");
    }
    ordinary(&body)
}

/// The header fields that a relay put before what was sent, or none when the content does not end with it.
pub fn added<'a>(content: &'a [u8], sent: &[u8]) -> Option<Vec<&'a str>> {
    let added = content.strip_suffix(sent)?;
    fields(added)
}

/// The unfolded field lines of a header section that is nothing else; none when something in it is no field.
pub fn fields(section: &[u8]) -> Option<Vec<&str>> {
    let section = std::str::from_utf8(section).ok()?;
    let mut fields = Vec::new();
    let mut start = 0;
    for (at, _) in section.match_indices("\r\n") {
        let folded = section[at + 2..].starts_with([' ', '\t']);
        if !folded {
            fields.push(&section[start..at]);
            start = at + 2;
        }
    }
    let is_field = |field: &&str| field.split_once(':').is_some_and(|(name, _)| !name.contains([' ', '\t']));
    (start == section.len() && fields.iter().all(is_field)).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_was_added() {
        let content = b"Received: from a\r\n\tby b\r\nDate: now\r\nTo: c\r\n\r\nx\r\n";
        let sent = b"To: c\r\n\r\nx\r\n";
        assert_eq!(added(content, sent), Some(vec!["Received: from a\r\n\tby b", "Date: now"]));
        assert_eq!(added(content, b"else"), None);
        assert_eq!(added(b"not a field\r\nx", b"x"), None);
    }

    #[test]
    fn makes_bodies_of_the_size_asked_for() {
        for octets in [0, 78, 100, 1 << 16] {
            let message = of_size(octets);
            let body = message.windows(4).position(|window| window == b"\r\n\r\n").expect("a body") + 4;
            assert_eq!(message.len() - body, octets);
        }
    }
}
