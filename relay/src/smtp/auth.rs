//! The exchange of AUTH PLAIN (RFC 4616) and AUTH LOGIN, from base64 to credentials.
//!
//! It reads what the client says and asks for more; whether a login is right is the driver's business. Secrets live
//! in wiped memory only and have no `Debug`.

use secrecy::SecretString;
use secrecy::zeroize::{Zeroize as _, Zeroizing};

use super::reply::{self, Reply};

/// A mechanism that the server side knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// The older one, with two prompts, that many appliances still speak.
    Login,
}

impl Mechanism {
    /// Its name in EHLO.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
        }
    }

    /// The one among `offered` with this name, in any case.
    #[must_use]
    pub fn find(offered: &[Self], name: &str) -> Option<Self> {
        offered.iter().copied().find(|mechanism| mechanism.name().eq_ignore_ascii_case(name))
    }
}

/// What a client claims to be.
#[derive(Debug)]
pub struct Credentials {
    /// By which mechanism.
    pub mechanism: Mechanism,
    /// The user name: UTF-8 without control characters.
    pub login: String,
    /// The password.
    pub password: SecretString,
}

/// An exchange that waits for the client's next response.
#[derive(Debug)]
pub struct Exchange(Awaited);

#[derive(Debug)]
enum Awaited {
    PlainResponse,
    LoginName,
    LoginPassword(String),
}

/// What came of one step of an exchange.
#[derive(Debug)]
pub enum Progress {
    /// Say this and wait for a response.
    Prompt(Exchange, Reply),
    /// Everything is there.
    Done(Credentials),
    /// It failed; say this.
    Failed(Reply),
}

impl Exchange {
    /// Begins with the AUTH command (RFC 4954 §4). An initial response of `=` is an empty one.
    #[must_use]
    pub fn begin(mechanism: Mechanism, initial: Option<&str>) -> Progress {
        let awaited = match mechanism {
            Mechanism::Plain => Awaited::PlainResponse,
            Mechanism::Login => Awaited::LoginName,
        };
        match (initial, mechanism) {
            (Some("="), _) => Self(awaited).decoded(&[]),
            (Some(response), _) => Self(awaited).response(response.as_bytes()),
            (None, Mechanism::Plain) => Progress::Prompt(Self(awaited), reply::AUTH_CONTINUE),
            (None, Mechanism::Login) => Progress::Prompt(Self(awaited), reply::AUTH_USERNAME),
        }
    }

    /// Goes on with a response line, without its CRLF. `*` cancels (RFC 4954 §4).
    #[must_use]
    pub fn response(self, line: &[u8]) -> Progress {
        if line == b"*" {
            return Progress::Failed(reply::AUTH_CANCELLED);
        }
        match decode_base64(line) {
            Some(octets) => self.decoded(&octets),
            None => Progress::Failed(reply::AUTH_MALFORMED),
        }
    }

    fn decoded(self, octets: &[u8]) -> Progress {
        match self.0 {
            Awaited::PlainResponse => plain(octets),
            Awaited::LoginName => match text(octets) {
                Some(name) if !name.is_empty() => {
                    Progress::Prompt(Self(Awaited::LoginPassword(name.into())), reply::AUTH_PASSWORD)
                }
                _ => Progress::Failed(reply::AUTH_MALFORMED),
            },
            Awaited::LoginPassword(login) => match text(octets) {
                Some(password) => done(Mechanism::Login, login, password),
                None => Progress::Failed(reply::AUTH_MALFORMED),
            },
        }
    }
}

/// RFC 4616 §2: `[authzid] NUL authcid NUL passwd`. Nobody may act for somebody else here, so an authzid other than
/// the authcid is a failed login.
fn plain(octets: &[u8]) -> Progress {
    let mut parts = octets.split(|&b| b == 0).map(text);
    match (parts.next().flatten(), parts.next().flatten(), parts.next().flatten(), parts.next()) {
        (Some(authzid), Some(login), Some(password), None) if !login.is_empty() => {
            if authzid.is_empty() || authzid == login {
                done(Mechanism::Plain, login.into(), password)
            } else {
                Progress::Failed(reply::AUTH_FAILED)
            }
        }
        _ => Progress::Failed(reply::AUTH_MALFORMED),
    }
}

fn done(mechanism: Mechanism, login: String, password: &str) -> Progress {
    // A name with a control character is nobody's, and must not get near a log.
    if login.chars().any(char::is_control) {
        return Progress::Failed(reply::AUTH_FAILED);
    }
    Progress::Done(Credentials { mechanism, login, password: SecretString::from(password) })
}

fn text(octets: &[u8]) -> Option<&str> {
    std::str::from_utf8(octets).ok()
}

/// RFC 4648 §4, strict: groups of four, padding at the end only, no loose bits. `None` for anything else.
#[must_use]
pub fn decode_base64(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    // The capacity is never outgrown, so that no copy of a secret is left behind.
    let mut octets = Zeroizing::new(Vec::with_capacity(text.len() / 4 * 3));
    let padding = text.iter().rev().take(2).take_while(|&&b| b == b'=').count();
    let mut group = 0u32;
    for (at, &symbol) in text[..text.len() - padding].iter().enumerate() {
        group = group << 6 | symbol_bits(symbol)?;
        if at % 4 == 3 {
            octets.extend_from_slice(&group.to_be_bytes()[1..]);
            group = 0;
        }
    }
    let last = group << (6 * padding);
    let kept = 3 - padding;
    let has_loose_bits = padding > 0 && last.to_be_bytes()[1 + kept..].iter().any(|&b| b != 0);
    if padding > 0 {
        octets.extend_from_slice(&last.to_be_bytes()[1..=kept]);
    }
    group.zeroize();
    (!has_loose_bits).then_some(octets)
}

/// RFC 4648 §4, with padding.
#[must_use]
pub fn encode_base64(octets: &[u8]) -> Zeroizing<String> {
    // The capacity is never outgrown, so that no copy of a secret is left behind.
    let mut text = Zeroizing::new(String::with_capacity(octets.len().div_ceil(3) * 4));
    for group in octets.chunks(3) {
        let bits =
            group.iter().fold(0u32, |bits, &octet| bits << 8 | u32::from(octet)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let symbol = SYMBOLS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { char::from(symbol) } else { '=' });
        }
    }
    text
}

const SYMBOLS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn symbol_bits(symbol: u8) -> Option<u32> {
    let bits = match symbol {
        b'A'..=b'Z' => symbol - b'A',
        b'a'..=b'z' => symbol - b'a' + 26,
        b'0'..=b'9' => symbol - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    fn outcome(progress: Progress) -> String {
        match progress {
            Progress::Prompt(_, reply) | Progress::Failed(reply) => reply.to_string(),
            Progress::Done(who) => {
                format!("{} {}/{}", who.mechanism.name(), who.login, who.password.expose_secret())
            }
        }
    }

    #[test]
    fn base64_follows_the_test_vectors_of_rfc_4648() {
        for (encoded, text) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
            ("+/+/", "\u{0}"),
        ] {
            let decoded = decode_base64(encoded.as_bytes()).unwrap();
            if encoded == "+/+/" {
                assert_eq!(*decoded, [0xfb, 0xff, 0xbf]);
            } else {
                assert_eq!(*decoded, text.as_bytes());
            }
        }
        for wrong in
            ["Z", "Zg", "Zg=", "Zh==", "Zm9=", "====", "=", "Zg==Zg==", "Z g=", "Zm9v\n", "Zm=v", "Zm9v===="]
        {
            assert!(decode_base64(wrong.as_bytes()).is_none(), "{wrong}");
        }
    }

    #[test]
    fn plain_takes_one_response() {
        // NUL user NUL secret
        assert_eq!(outcome(Exchange::begin(Mechanism::Plain, Some("AHVzZXIAc2VjcmV0"))), "PLAIN user/secret");
        // user NUL user NUL x
        assert_eq!(outcome(Exchange::begin(Mechanism::Plain, Some("dXNlcgB1c2VyAHg="))), "PLAIN user/x");
        // root NUL user NUL x
        assert!(
            outcome(Exchange::begin(Mechanism::Plain, Some("cm9vdAB1c2VyAHg="))).starts_with("535 5.7.8")
        );
        // NUL u LF NUL x
        assert!(outcome(Exchange::begin(Mechanism::Plain, Some("AHUKAHg="))).starts_with("535 5.7.8"));
        // one NUL; three; none; an empty response; nothing that is base64
        for initial in ["dXNlcgB4", "AHUAeAA=", "dXNlcg==", "=", "AHVzZXIAc2VjcmV", "!!!!", ""] {
            assert!(
                outcome(Exchange::begin(Mechanism::Plain, Some(initial))).starts_with("501 5.5.2"),
                "{initial}"
            );
        }
        let Progress::Prompt(exchange, prompt) = Exchange::begin(Mechanism::Plain, None) else { panic!() };
        assert_eq!(prompt.to_string(), "334 ");
        assert_eq!(outcome(exchange.response(b"AHVzZXIAc2VjcmV0")), "PLAIN user/secret");
    }

    #[test]
    fn login_asks_for_name_and_password() {
        let Progress::Prompt(exchange, prompt) = Exchange::begin(Mechanism::Login, None) else { panic!() };
        assert_eq!(prompt.to_string(), "334 VXNlcm5hbWU6");
        let Progress::Prompt(exchange, prompt) = exchange.response(b"dXNlcg==") else { panic!() };
        assert_eq!(prompt.to_string(), "334 UGFzc3dvcmQ6");
        assert_eq!(outcome(exchange.response(b"c2VjcmV0")), "LOGIN user/secret");
        let Progress::Prompt(exchange, _) = Exchange::begin(Mechanism::Login, Some("dXNlcg==")) else {
            panic!()
        };
        assert!(outcome(exchange.response(b"*")).starts_with("501 5.7.0"));
        assert!(outcome(Exchange::begin(Mechanism::Login, Some("="))).starts_with("501 5.5.2"));
    }
}
