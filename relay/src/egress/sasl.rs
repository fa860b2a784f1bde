//! How a login is proved to an upstream: the client's side of SASL (RFC 4422), as values without I/O.
//!
//! The caller sends [`Exchange::initial`] and then what [`Exchange::respond`] makes of each challenge; a positive reply
//! counts only after [`Exchange::accepts`] has seen it, because SCRAM proves the upstream's knowledge too.
//!
//! It must not choose plaintext: which mechanisms may be used on a connection is the caller's to say. Secrets live in
//! wiped memory; the base64 texts made here are secrets too.

use ring::rand::{SecureRandom as _, SystemRandom};
use ring::{hmac, pbkdf2};
use secrecy::ExposeSecret as _;
use secrecy::zeroize::Zeroizing;
use std::num::NonZeroU32;
use std::sync::Arc;

use md5::{Digest as _, Md5};

use super::config::{Login, Mechanism};
use crate::limits::SCRAM_ITERATIONS_MAX;
use crate::smtp::auth::{decode_base64, encode_base64};
use crate::smtp::client::Capabilities;

impl Mechanism {
    /// Its name in AUTH.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::CramMd5 => "CRAM-MD5",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::Xoauth2 => "XOAUTH2",
            Self::Oauthbearer => "OAUTHBEARER",
        }
    }

    /// The mechanism to use: the one that is asked for, else the best that is offered for what the login is proved by.
    /// A password is never guessed to be a token: for one as `OUTGOING_SMTP_PASSWORD` the mechanism must be asked for.
    ///
    /// # Errors
    /// None is offered that may be used.
    pub fn choose(wanted: Option<Self>, login: &Login, offered: &Capabilities) -> Result<Self, NotOffered> {
        let is_offered = |mechanism: &Self| offered.offers_mechanism(mechanism.name());
        match wanted {
            Some(wanted) => Some(wanted).filter(is_offered),
            None if login.token.is_some() => FOR_TOKENS.into_iter().find(is_offered),
            None => BY_PREFERENCE.into_iter().find(is_offered),
        }
        .ok_or(NotOffered)
    }
}

/// The upstream offers no mechanism that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotOffered;

/// The exchange went wrong on the upstream's side: it does not speak the mechanism, or does not know the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Untrue;

/// A text that holds a secret, base64.
pub type SecretText = Zeroizing<String>;

/// One exchange.
pub struct Exchange {
    login: Login,
    host: Arc<str>,
    port: u16,
    state: State,
}

enum State {
    /// Everything was said in the initial response; an upstream that has ignored it asks once more.
    Plain,
    /// Everything was said: no challenge is answered any more.
    Said,
    /// An OAuth upstream that refuses tells why in a challenge, which wants an empty answer.
    Token,
    LoginName,
    LoginPassword,
    CramMd5,
    ScramFirst {
        nonce: String,
    },
    ScramFinal {
        server_signature: Vec<u8>,
    },
    Proved,
}

impl Exchange {
    /// Begins an exchange with the host at this port (RFC 7628 §3.1 names both).
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn begin(mechanism: Mechanism, login: &Login, host: &Arc<str>, port: u16) -> Result<Self, Untrue> {
        let state = match mechanism {
            Mechanism::Plain => State::Plain,
            Mechanism::Xoauth2 | Mechanism::Oauthbearer => State::Token,
            Mechanism::Login => State::LoginName,
            Mechanism::CramMd5 => State::CramMd5,
            Mechanism::ScramSha256 => State::ScramFirst { nonce: nonce()? },
        };
        Ok(Self { login: login.clone(), host: Arc::clone(host), port, state })
    }

    /// The initial response, where the mechanism has one (RFC 4954 §4).
    #[must_use]
    pub fn initial(&self, mechanism: Mechanism) -> Option<SecretText> {
        let (name, secret) = (&*self.login.name, self.login.password.expose_secret());
        // Joined at once: a text that grows leaves parts of the secret behind.
        let text = match (mechanism, &self.state) {
            // RFC 4616 §2.
            (Mechanism::Plain, _) => ["\0", name, "\0", secret].concat(),
            (Mechanism::Xoauth2, _) => ["user=", name, "\x01auth=Bearer ", secret, "\x01\x01"].concat(),
            // RFC 7628 §3.1.
            (Mechanism::Oauthbearer, _) => {
                let (host, port, name) = (&self.host, self.port, escaped(name));
                let start = format!("n,a={name},\x01host={host}\x01port={port}\x01auth=Bearer ");
                [&*start, secret, "\x01\x01"].concat()
            }
            (_, State::ScramFirst { nonce }) => format!("n,,{}", client_first_bare(name, nonce)),
            _ => return None,
        };
        Some(encode_base64(Zeroizing::new(text).as_bytes()))
    }

    /// The response to a challenge, both base64.
    ///
    /// # Errors
    /// The challenge is none of this mechanism: the exchange is to be given up with `*`.
    pub fn respond(&mut self, challenge: &str) -> Result<SecretText, Untrue> {
        let challenge = decode_base64(challenge.trim().as_bytes());
        let password = Arc::clone(&self.login.password);
        let password = password.expose_secret();
        match std::mem::replace(&mut self.state, State::Said) {
            State::LoginName => {
                self.state = State::LoginPassword;
                Ok(encode_base64(self.login.name.as_bytes()))
            }
            State::LoginPassword => Ok(encode_base64(password.as_bytes())),
            State::CramMd5 => {
                let challenge = challenge.ok_or(Untrue)?;
                let digest = hex(&hmac_md5(password.as_bytes(), &challenge));
                Ok(encode_base64(format!("{} {digest}", self.login.name).as_bytes()))
            }
            State::ScramFirst { nonce } => {
                let first = challenge.ok_or(Untrue)?;
                let first = std::str::from_utf8(&first).map_err(|_| Untrue)?;
                let (text, server_signature) = scram_final(&self.login.name, password, &nonce, first)?;
                self.state = State::ScramFinal { server_signature };
                Ok(encode_base64(text.as_bytes()))
            }
            State::ScramFinal { server_signature } => {
                is_signed(&challenge.ok_or(Untrue)?, &server_signature)?;
                self.state = State::Proved;
                Ok(Zeroizing::default())
            }
            State::Token => Ok(Zeroizing::default()),
            // RFC 4616: an upstream that ignores the initial response asks for it again, with an empty challenge. After
            // any other mechanism that would be the way to a password which that one was to keep.
            State::Plain if challenge.is_some_and(|challenge| challenge.is_empty()) => {
                self.initial(Mechanism::Plain).ok_or(Untrue)
            }
            State::Plain | State::Said | State::Proved => Err(Untrue),
        }
    }

    /// Whether a positive reply may be believed. SCRAM's last proof may come with it (RFC 4954 §4, RFC 5802 §3).
    ///
    /// # Errors
    /// The upstream says yes without knowing the password.
    pub fn accepts(&self, reply: &str) -> Result<(), Untrue> {
        match &self.state {
            State::ScramFinal { server_signature } => {
                let last = reply.split_ascii_whitespace().next_back().unwrap_or_default();
                is_signed(&decode_base64(last.as_bytes()).ok_or(Untrue)?, server_signature)
            }
            State::ScramFirst { .. } | State::CramMd5 | State::LoginName => Err(Untrue),
            State::Plain | State::Said | State::Token | State::LoginPassword | State::Proved => Ok(()),
        }
    }
}

/// RFC 5802 §3 with SHA-256 (RFC 7677): the client's final message, and the signature that the server owes.
fn scram_final(name: &str, password: &str, nonce: &str, first: &str) -> Result<(String, Vec<u8>), Untrue> {
    let field = |key: &str| first.split(',').find_map(|field| field.strip_prefix(key)).ok_or(Untrue);
    let (server_nonce, salt, iterations) = (field("r=")?, field("s=")?, field("i=")?);
    // RFC 5802 §5.1: the server's nonce begins with ours, and adds to it.
    if first.starts_with("m=") || !server_nonce.starts_with(nonce) || server_nonce.len() == nonce.len() {
        return Err(Untrue);
    }
    let salt = decode_base64(salt.as_bytes()).ok_or(Untrue)?;
    let iterations: NonZeroU32 = iterations.parse().map_err(|_| Untrue)?;
    if iterations.get() > SCRAM_ITERATIONS_MAX {
        return Err(Untrue);
    }
    let mut salted = Zeroizing::new([0u8; 32]);
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, &salt, password.as_bytes(), &mut *salted);
    let client_key = Zeroizing::new(sign(&*salted, b"Client Key"));
    let stored_key = ring::digest::digest(&ring::digest::SHA256, &client_key);
    let without_proof = format!("c=biws,r={server_nonce}");
    let message = format!("{},{first},{without_proof}", client_first_bare(name, nonce));
    let signature = sign(stored_key.as_ref(), message.as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(key, signed)| key ^ signed).collect();
    let server_key = Zeroizing::new(sign(&*salted, b"Server Key"));
    let server_signature = sign(&server_key, message.as_bytes());
    Ok((format!("{without_proof},p={}", *encode_base64(&proof)), server_signature))
}

fn is_signed(last: &[u8], server_signature: &[u8]) -> Result<(), Untrue> {
    let text = std::str::from_utf8(last).map_err(|_| Untrue)?;
    let signature = text.split(',').find_map(|field| field.strip_prefix("v=")).ok_or(Untrue)?;
    let signature = decode_base64(signature.as_bytes()).ok_or(Untrue)?;
    if *signature == server_signature { Ok(()) } else { Err(Untrue) }
}

fn client_first_bare(name: &str, nonce: &str) -> String {
    format!("n={},r={nonce}", escaped(name))
}

/// RFC 5802 §5.1: `saslname`.
fn escaped(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

fn nonce() -> Result<String, Untrue> {
    let mut octets = [0u8; 18];
    SystemRandom::new().fill(&mut octets).map_err(|_| Untrue)?;
    Ok(encode_base64(&octets).to_string())
}

fn sign(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}

/// RFC 2104 with MD5, as RFC 2195 §2 asks for it.
fn hmac_md5(key: &[u8], message: &[u8]) -> [u8; 16] {
    let mut block = Zeroizing::new([0u8; 64]);
    if key.len() > block.len() {
        block[..16].copy_from_slice(&Md5::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |pad: u8| Zeroizing::new(block.map(|octet| octet ^ pad));
    let inner = Md5::new().chain_update(*padded(0x36)).chain_update(message).finalize();
    Md5::new().chain_update(*padded(0x5c)).chain_update(inner).finalize().into()
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

/// The standard one first.
const FOR_TOKENS: [Mechanism; 2] = [Mechanism::Oauthbearer, Mechanism::Xoauth2];
/// Best first: one that never shows the password, the plain ones, and the broken digest last.
const BY_PREFERENCE: [Mechanism; 4] =
    [Mechanism::ScramSha256, Mechanism::Plain, Mechanism::Login, Mechanism::CramMd5];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::egress::config::Plaintext;
    use secrecy::SecretString;

    fn login(name: &str, password: &str) -> Login {
        Login {
            name: name.into(),
            password: Arc::new(SecretString::from(password)),
            token: None,
            plaintext: Plaintext::Refused,
        }
    }

    fn text(encoded: &str) -> String {
        String::from_utf8(decode_base64(encoded.as_bytes()).unwrap().to_vec()).unwrap()
    }

    fn begin(mechanism: Mechanism, name: &str, password: &str) -> Exchange {
        Exchange::begin(mechanism, &login(name, password), &"mx.example".into(), 587).unwrap()
    }

    #[test]
    fn initial_responses_stand_as_their_rfcs_say() {
        for (mechanism, expected) in [
            (Mechanism::Plain, "\0tim\0tanstaaftanstaaf"),
            (Mechanism::Xoauth2, "user=tim\x01auth=Bearer tanstaaftanstaaf\x01\x01"),
            (
                Mechanism::Oauthbearer,
                "n,a=tim,\x01host=mx.example\x01port=587\x01auth=Bearer tanstaaftanstaaf\x01\x01",
            ),
        ] {
            let exchange = begin(mechanism, "tim", "tanstaaftanstaaf");
            assert_eq!(text(&exchange.initial(mechanism).unwrap()), expected);
        }
        assert!(begin(Mechanism::Login, "tim", "x").initial(Mechanism::Login).is_none());
    }

    #[test]
    fn cram_md5_agrees_with_rfc_2195() {
        let mut exchange = begin(Mechanism::CramMd5, "tim", "tanstaaftanstaaf");
        let challenge = encode_base64(b"<1896.697170952@postoffice.reston.mci.net>");
        assert_eq!(text(&exchange.respond(&challenge).unwrap()), "tim b913a602c7eda7a495b4e6e7334d3890");
        assert!(exchange.accepts("ok").is_ok());
    }

    #[test]
    fn scram_sha_256_agrees_with_rfc_7677() {
        let nonce = "rOprNGfwEbeRWgbNEkqO";
        let first = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let (last, signature) = scram_final("user", "pencil", nonce, first).unwrap();
        assert_eq!(
            last,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(*encode_base64(&signature), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert!(is_signed(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", &signature).is_ok());
        assert!(is_signed(b"v=AAAA", &signature).is_err());
    }

    #[test]
    fn scram_refuses_a_server_that_does_not_add_to_the_nonce_or_costs_too_much() {
        for first in [
            "r=abc,s=AAAA,i=4096",
            "r=xyz123,s=AAAA,i=4096",
            "r=abcd,s=AAAA,i=4294967295",
            "m=x,r=abcd,s=AAAA,i=1",
        ] {
            assert_eq!(scram_final("u", "p", "abc", first), Err(Untrue), "{first}");
        }
    }

    #[test]
    fn a_yes_without_proof_is_not_believed() {
        let mut exchange = begin(Mechanism::ScramSha256, "user", "pencil");
        assert!(exchange.accepts("ok").is_err());
        let initial = text(&exchange.initial(Mechanism::ScramSha256).unwrap());
        let nonce = initial.split("r=").nth(1).unwrap();
        let first = encode_base64(format!("r={nonce}x,s=AAAA,i=4096").as_bytes());
        exchange.respond(&first).unwrap();
        assert!(exchange.accepts("2.7.0 ok").is_err());
        assert!(exchange.respond(&encode_base64(b"v=AAAA")).is_err());
    }

    #[test]
    fn an_empty_challenge_draws_the_password_out_of_plain_alone_and_once() {
        let mut plain = begin(Mechanism::Plain, "tim", "secret");
        assert_eq!(text(&plain.respond("").unwrap()), "\0tim\0secret");
        assert!(plain.respond("").is_err());
        let mut cram = begin(Mechanism::CramMd5, "tim", "secret");
        cram.respond(&encode_base64(b"<1@a>")).unwrap();
        assert!(cram.respond("").is_err());
        let mut login = begin(Mechanism::Login, "tim", "secret");
        login.respond("").unwrap();
        login.respond("").unwrap();
        assert!(login.respond("").is_err());
        let mut scram = begin(Mechanism::ScramSha256, "tim", "secret");
        assert!(scram.respond("").is_err() && scram.respond("").is_err());
        for mechanism in [Mechanism::Xoauth2, Mechanism::Oauthbearer] {
            assert_eq!(*begin(mechanism, "tim", "secret").respond("").unwrap(), "");
        }
    }

    #[test]
    fn login_says_name_and_password_whatever_the_prompts_are() {
        let mut exchange = begin(Mechanism::Login, "user", "secret");
        assert_eq!(text(&exchange.respond("VXNlcm5hbWU6").unwrap()), "user");
        assert_eq!(text(&exchange.respond("").unwrap()), "secret");
        assert!(exchange.respond("UGFzc3dvcmQ6").is_err());
    }
}
