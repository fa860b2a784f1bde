//! Paths and mailboxes of MAIL and RCPT (RFC 5321 §4.1.2, with the UTF-8 of RFC 6531 §3.3).
//!
//! A mailbox is kept as it was written: the local part belongs to its destination (RFC 5321 §2.4), so nothing in it
//! is folded, unquoted or interpreted, `%` and `!` included. Source routes are read and dropped (§4.1.1.3,
//! appendix C). Two liberties every MTA takes: no angle brackets around a plain address, and a local part alone,
//! which the *driver* has to qualify or refuse ([`Mailbox::is_qualified`]).
//!
//! Nothing here decides who may send what to whom.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use crate::limits::{DOMAIN_OCTETS_MAX, LOCAL_PART_OCTETS_MAX, PATH_OCTETS_MAX};

/// `local@domain`, or a local part alone; well-formed, as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Mailbox {
    text: Box<str>,
    /// Octets of the local part, at most [`LOCAL_PART_OCTETS_MAX`].
    local_octets: u8,
}

impl Mailbox {
    /// Reads a mailbox that is the whole of `text`, for instance an address of the configuration.
    ///
    /// # Errors
    /// [`NotAPath`] where it is none, or is longer than RFC 5321 §4.5.3.1 allows.
    pub fn parse(text: &str) -> Result<Self, NotAPath> {
        let local_octets = local_part_octets(text)?;
        if let Some(domain) = text[local_octets..].strip_prefix('@') {
            check_domain(domain)?;
        } else if local_octets != text.len() {
            return Err(NotAPath);
        }
        let local_octets = u8::try_from(local_octets).map_err(|_| NotAPath)?;
        Ok(Self { text: text.into(), local_octets })
    }

    /// The mailbox as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The local part as it was written, quotes included.
    #[must_use]
    pub fn local_part(&self) -> &str {
        &self.text[..usize::from(self.local_octets)]
    }

    /// The domain or address literal, where there is one.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        self.text.get(usize::from(self.local_octets) + 1..)
    }

    /// Whether there is a domain. A local part alone must not travel on (RFC 5321 §2.3.5).
    #[must_use]
    pub fn is_qualified(&self) -> bool {
        self.domain().is_some()
    }

    /// The same local part at `domain`, whatever domain it had.
    ///
    /// # Errors
    /// [`NotAPath`] where `domain` is none, or the path would be too long.
    pub fn at_domain(&self, domain: &str) -> Result<Self, NotAPath> {
        let text = format!("{}@{domain}", self.local_part());
        if text.len() + 2 > PATH_OCTETS_MAX { Err(NotAPath) } else { Self::parse(&text) }
    }

    /// Whether it needs SMTPUTF8 (RFC 6531 §3.2).
    #[must_use]
    pub fn needs_utf8(&self) -> bool {
        !self.text.is_ascii()
    }
}

impl fmt::Display for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Whom a message is from, and where notices about it go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: notices; no notice is ever sent about such a message (RFC 5321 §4.5.5).
    Null,
    /// A mailbox.
    Mailbox(Mailbox),
}

impl ReversePath {
    /// The mailbox, unless it is `<>`.
    #[must_use]
    pub fn mailbox(&self) -> Option<&Mailbox> {
        match self {
            Self::Null => None,
            Self::Mailbox(mailbox) => Some(mailbox),
        }
    }

    /// What stands between the angle brackets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.mailbox().map_or("", Mailbox::as_str)
    }
}

impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.as_str())
    }
}

/// Whom a message is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ForwardPath(Mailbox);

impl ForwardPath {
    /// The path to a mailbox.
    #[must_use]
    pub fn new(mailbox: Mailbox) -> Self {
        Self(mailbox)
    }

    /// The mailbox.
    #[must_use]
    pub fn mailbox(&self) -> &Mailbox {
        &self.0
    }

    /// What stands between the angle brackets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether it is `<Postmaster>` without a domain, which every server takes (RFC 5321 §4.5.1).
    #[must_use]
    pub fn is_postmaster(&self) -> bool {
        self.as_str().eq_ignore_ascii_case("postmaster")
    }
}

impl fmt::Display for ForwardPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.as_str())
    }
}

/// Not a path: bad syntax, or a part of it too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAPath;

impl fmt::Display for NotAPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not an address")
    }
}

impl std::error::Error for NotAPath {}

/// Reads the reverse path at the start of `text`; also returns what follows it.
///
/// # Errors
/// [`NotAPath`].
pub fn reverse_path(text: &str) -> Result<(ReversePath, &str), NotAPath> {
    if let Some(rest) = text.strip_prefix("<>") {
        return Ok((ReversePath::Null, rest));
    }
    mailbox_path(text).map(|(mailbox, rest)| (ReversePath::Mailbox(mailbox), rest))
}

/// Reads the forward path at the start of `text`; also returns what follows it.
///
/// # Errors
/// [`NotAPath`]; `<>` is none.
pub fn forward_path(text: &str) -> Result<(ForwardPath, &str), NotAPath> {
    mailbox_path(text).map(|(mailbox, rest)| (ForwardPath(mailbox), rest))
}

fn mailbox_path(text: &str) -> Result<(Mailbox, &str), NotAPath> {
    let Some(inner) = text.strip_prefix('<') else {
        return bare_path(text);
    };
    let end = closing_bracket(inner)?;
    // RFC 5321 §4.5.3.1.3: the path's bound counts its brackets and its source route.
    if end + 2 > PATH_OCTETS_MAX {
        return Err(NotAPath);
    }
    let mailbox = Mailbox::parse(without_route(&inner[..end])?)?;
    Ok((mailbox, &inner[end + 1..]))
}

/// An address without brackets ends at the first space; only a plain one is unambiguous.
fn bare_path(text: &str) -> Result<(Mailbox, &str), NotAPath> {
    let end = text.find(' ').unwrap_or(text.len());
    let (path, rest) = text.split_at(end);
    if path.len() + 2 > PATH_OCTETS_MAX || path.contains(['"', '<', '>', ',', ':']) && !path.ends_with(']') {
        return Err(NotAPath);
    }
    Ok((Mailbox::parse(path)?, rest))
}

/// Where the `>` of the path stands: the first one outside a quoted string.
fn closing_bracket(inner: &str) -> Result<usize, NotAPath> {
    let mut is_quoted = false;
    let mut octets = inner.bytes().enumerate();
    while let Some((at, octet)) = octets.next() {
        match octet {
            b'>' if !is_quoted => return Ok(at),
            b'"' => is_quoted = !is_quoted,
            b'\\' if is_quoted => {
                octets.next();
            }
            _ => {}
        }
    }
    Err(NotAPath)
}

/// `@one,@two:mailbox` without its route (RFC 5321 §4.1.2 A-d-l; to be ignored, appendix C).
fn without_route(path: &str) -> Result<&str, NotAPath> {
    if !path.starts_with('@') {
        return Ok(path);
    }
    let mut rest = path;
    loop {
        let at_domain = rest.strip_prefix('@').ok_or(NotAPath)?;
        let end = at_domain.find([',', ':']).ok_or(NotAPath)?;
        check_domain(&at_domain[..end])?;
        rest = &at_domain[end + 1..];
        if at_domain.as_bytes()[end] == b':' {
            return Ok(rest);
        }
    }
}

/// Octets of the local part at the start of `text`: a quoted string or a dot-string.
fn local_part_octets(text: &str) -> Result<usize, NotAPath> {
    let octets = if text.starts_with('"') { quoted_string_octets(text)? } else { dot_string_octets(text)? };
    // RFC 5321 §4.5.3.1.1.
    if octets > LOCAL_PART_OCTETS_MAX { Err(NotAPath) } else { Ok(octets) }
}

fn dot_string_octets(text: &str) -> Result<usize, NotAPath> {
    let octets = text.bytes().take_while(|&b| is_atext(b) || b == b'.').count();
    let local = &text.as_bytes()[..octets];
    let has_empty_atom = local.split(|&b| b == b'.').any(<[u8]>::is_empty);
    if has_empty_atom || has_control(&text[..octets]) { Err(NotAPath) } else { Ok(octets) }
}

fn quoted_string_octets(text: &str) -> Result<usize, NotAPath> {
    let mut octets = text.bytes().enumerate().skip(1);
    while let Some((at, octet)) = octets.next() {
        match octet {
            b'"' if at > 1 && !has_control(&text[..at]) => return Ok(at + 1),
            // RFC 5321 §4.1.2: a backslash makes any printable ASCII octet ordinary.
            b'\\' if octets.next().is_some_and(|(_, b)| matches!(b, b' '..=b'~')) => {}
            b' ' | b'!' | b'#'..=b'[' | b']'..=b'~' | 0x80.. => {}
            _ => return Err(NotAPath),
        }
    }
    Err(NotAPath)
}

/// RFC 5322 §3.2.3 atext, and every octet of UTF-8 beyond ASCII (RFC 6531 §3.3).
fn is_atext(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&octet) || octet >= 0x80
}

/// Control characters, those beyond ASCII too: they are in no address, and would lie in a log.
fn has_control(text: &str) -> bool {
    !text.is_ascii() && text.chars().any(char::is_control)
}

fn check_domain(domain: &str) -> Result<(), NotAPath> {
    // RFC 5321 §4.5.3.1.2.
    if domain.len() > DOMAIN_OCTETS_MAX || has_control(domain) {
        return Err(NotAPath);
    }
    if let Some(literal) = domain.strip_prefix('[') {
        return check_literal(literal.strip_suffix(']').ok_or(NotAPath)?);
    }
    if domain.split('.').all(is_label) { Ok(()) } else { Err(NotAPath) }
}

/// A label of RFC 5321 §4.1.2, with the underscore that internal names have. The bound of 63 octets (RFC 1035
/// §2.3.4) holds for ASCII labels; that of a U-label holds for its A-label, which only a resolver makes.
fn is_label(label: &str) -> bool {
    let is_inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_') || b >= 0x80;
    !label.is_empty()
        && (label.len() <= 63 || !label.is_ascii())
        && label.bytes().all(is_inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// The inside of an address literal (RFC 5321 §4.1.3). No general literal is registered, so none is taken.
fn check_literal(literal: &str) -> Result<(), NotAPath> {
    let is_v6 = literal.get(..5).is_some_and(|tag| tag.eq_ignore_ascii_case("IPv6:"));
    let is_address =
        if is_v6 { literal[5..].parse::<Ipv6Addr>().is_ok() } else { literal.parse::<Ipv4Addr>().is_ok() };
    if is_address { Ok(()) } else { Err(NotAPath) }
}

// The length of a local part is kept in one octet.
const _: () = assert!(LOCAL_PART_OCTETS_MAX <= u8::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn forward(text: &str) -> Option<String> {
        forward_path(text).ok().map(|(path, rest)| format!("{}|{rest}", path.as_str()))
    }

    #[test]
    fn takes_what_rfc_5321_allows() {
        for (text, expected) in [
            ("<a@b>", "a@b|"),
            ("<A.b+c@Sub.Example> NOTIFY=NEVER", "A.b+c@Sub.Example| NOTIFY=NEVER"),
            ("<\"a b\"@c>", "\"a b\"@c|"),
            ("<\"a>b\"@c>", "\"a>b\"@c|"),
            ("<\"\\\"\"@c>", "\"\\\"\"@c|"),
            ("<\"a@b\"@us>", "\"a@b\"@us|"),
            ("<a@[127.0.0.1]>", "a@[127.0.0.1]|"),
            ("<a@[IPv6:2001:db8::1]>", "a@[IPv6:2001:db8::1]|"),
            ("<a@[IPv6:::ffff:1.2.3.4]>", "a@[IPv6:::ffff:1.2.3.4]|"),
            ("<@us:a@b>", "a@b|"),
            ("<@us,@x.example:a@b>", "a@b|"),
            ("<a%b@us>", "a%b@us|"),
            ("<b!a@us>", "b!a@us|"),
            ("<Postmaster>", "Postmaster|"),
            ("<root>", "root|"),
            ("a@b SIZE=1", "a@b| SIZE=1"),
            ("a@[IPv6:2001:db8::1]", "a@[IPv6:2001:db8::1]|"),
            ("<root@my_app_1>", "root@my_app_1|"),
            ("<henry\u{2163}@\u{4f8b}.example>", "henry\u{2163}@\u{4f8b}.example|"),
        ] {
            assert_eq!(forward(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_path() {
        for text in [
            "",
            "<",
            "<>",
            ">",
            "<a@b",
            "a@b>",
            "< a@b>",
            "<a@b >",
            "<a@b@us>",
            "<\"a@b\"x@us>",
            "<a@>",
            "<@b>",
            "<a@.b>",
            "<a@b.>",
            "<a@b..c>",
            "<a..b@c>",
            "<.a@c>",
            "<a.@c>",
            "<a b@c>",
            "<\"a@c>",
            "<\"a\\\"@c>",
            "<\"\"@c>",
            "<a@-b>",
            "<a@b->",
            "<a@xn--->",
            "<a@b c>",
            "<a@[1.2.3]>",
            "<a@[1.2.3.4>",
            "<a@[IPv6:1]>",
            "<a@[tag:x]>",
            "<@us a@b>",
            "<@us:>",
            "<@us,a@b>",
            "<a@b,c@d>",
            "<<a@b>>",
            "\"a b\"@c",
            "a:b@c",
            "a,b",
            "<a\u{85}b@c>",
            "<a@b\u{9f}>",
            "<\"a\u{80}\"@b>",
        ] {
            assert_eq!(forward(text), None, "{text}");
        }
        assert!(reverse_path("<>").is_ok_and(|(path, _)| path == ReversePath::Null));
    }

    #[test]
    fn bounds_are_inclusive() {
        let domain = |octets: usize| {
            let mut text = "d".repeat(octets);
            (63..octets).step_by(64).for_each(|at| text.replace_range(at..=at, "."));
            text
        };
        let path = |local: usize, host: usize| format!("<{}@{}>", "l".repeat(local), domain(host));
        assert!(forward(&path(64, 10)).is_some());
        assert!(forward(&path(65, 10)).is_none());
        assert!(forward(&path(1, 252)).is_some(), "a path of 256");
        assert!(forward(&path(2, 252)).is_none(), "a path of 257");
        assert!(check_domain(&domain(255)).is_ok());
        assert!(check_domain(&domain(256).replace("..", ".d")).is_err());
        assert!(forward(&format!("<a@{}>", "d".repeat(63))).is_some());
        assert!(forward(&format!("<a@{}>", "d".repeat(64))).is_none());
    }

    #[test]
    fn parts_are_told_apart() {
        let mailbox = Mailbox::parse("\"a@b\"@us").unwrap();
        assert_eq!((mailbox.local_part(), mailbox.domain()), ("\"a@b\"", Some("us")));
        let alone = Mailbox::parse("root").unwrap();
        assert_eq!((alone.local_part(), alone.domain()), ("root", None));
        assert_eq!(alone.at_domain("host.example").unwrap().as_str(), "root@host.example");
        assert_eq!(alone.at_domain("a b"), Err(NotAPath));
    }

    proptest! {
        #[test]
        fn what_was_read_prints_and_reads_back(text in "<?(@[a-c.]{0,4}[:,])?[a-c.\"\\\\@ \u{e4}]{0,8}@?[a-c.\\[\\]:1-3]{0,9}>?") {
            if let Ok((path, rest)) = forward_path(&text) {
                let printed = path.to_string();
                prop_assert_eq!(forward_path(&printed), Ok((path, "")));
                prop_assert!(text.ends_with(rest));
            }
        }

        #[test]
        fn nothing_makes_it_panic(text in "\\PC{0,40}") {
            let _ = reverse_path(&text);
            let _ = forward_path(&format!("<{text}>"));
        }
    }
}
