//! Replies of a server, cut out of what was read. Only as much as a load generator needs: codes, and the text of EHLO.

/// The longest reply taken; a longer one is an error of the peer.
pub const REPLY_OCTETS_MAX: usize = 8192;

/// One whole reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The code of its last line.
    pub code: u16,
    /// Every line, as it came.
    pub text: &'a str,
}

impl Reply<'_> {
    /// Whether an EHLO reply has the keyword (RFC 5321 §4.1.1.1), in any case.
    #[must_use]
    pub fn offers(&self, keyword: &str) -> bool {
        self.text
            .lines()
            .skip(1)
            .filter_map(|line| line.get(4..)?.split(' ').next())
            .any(|word| word.eq_ignore_ascii_case(keyword))
    }
}

/// What the octets read so far hold.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// No whole reply yet.
    More,
    /// A reply and the octets it took.
    Reply(Reply<'a>, usize),
    /// Something that is no reply.
    Garbage,
}

/// Cuts the first whole reply off `input` (RFC 5321 §4.2: the last line has a space, or nothing, after the code).
#[must_use]
pub fn parse(input: &[u8]) -> Parsed<'_> {
    let mut start = 0;
    while let Some(length) = memchr::memchr(b'\n', &input[start..]) {
        let line = &input[start..=start + length];
        start += length + 1;
        let Some(code) =
            line.get(..3).and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u16>().ok())
        else {
            return Parsed::Garbage;
        };
        if line.get(3) == Some(&b'-') {
            continue;
        }
        return match std::str::from_utf8(&input[..start]) {
            Ok(text) => Parsed::Reply(Reply { code, text }, start),
            Err(_) => Parsed::Garbage,
        };
    }
    if input.len() > REPLY_OCTETS_MAX { Parsed::Garbage } else { Parsed::More }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_one_reply_and_leaves_the_next() {
        let input = b"250-a\r\n250-PIPELINING\r\n250 SIZE 10\r\n354 go\r\n";
        let Parsed::Reply(reply, taken) = parse(input) else { panic!("no reply") };
        assert_eq!((reply.code, taken), (250, 36));
        assert!(
            reply.offers("pipelining")
                && reply.offers("SIZE")
                && !reply.offers("CHUNKING")
                && !reply.offers("a")
        );
        assert_eq!(parse(&input[taken..]), Parsed::Reply(Reply { code: 354, text: "354 go\r\n" }, 8));
    }

    #[test]
    fn waits_at_every_cut() {
        let input = b"250-a\r\n250 b\r\n";
        for cut in 0..input.len() {
            assert_eq!(parse(&input[..cut]), Parsed::More, "{cut}");
        }
    }

    #[test]
    fn refuses_what_is_no_reply() {
        assert_eq!(parse(b"hello\r\n"), Parsed::Garbage);
        assert_eq!(parse(&[b'2'; REPLY_OCTETS_MAX + 1]), Parsed::Garbage);
    }
}
