//! What an upstream answers at which stage. A script is a list of rules; the first that fits is followed.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;

use crate::wait::Latch;

/// Where in a conversation a rule applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A connection was accepted; the answer is the banner.
    Connect,
    /// EHLO
    Ehlo,
    /// HELO
    Helo,
    /// STARTTLS
    StartTls,
    /// AUTH
    Auth,
    /// A response within AUTH.
    AuthResponse,
    /// MAIL
    Mail,
    /// RCPT
    Rcpt,
    /// DATA
    Data,
    /// The first octets after 354 have come, the end has not. Without a rule nothing is said.
    Content,
    /// The final dot.
    Message,
    /// A chunk that is not the last.
    Chunk,
    /// The last chunk.
    LastChunk,
    /// RSET
    Rset,
    /// NOOP
    Noop,
    /// QUIT
    Quit,
    /// Anything else.
    Other,
}

/// One thing that an upstream does.
#[derive(Debug, Clone)]
pub enum Act {
    /// Says a reply; `\n` parts the lines of one of several.
    Say(String),
    /// Writes octets as they are.
    Raw(Vec<u8>),
    /// Writes octets one at a time.
    Dribble(Vec<u8>),
    /// Waits until the test opens the latch.
    Wait(Latch),
    /// Closes the connection.
    Close,
    /// Breaks the connection with a TCP reset.
    Reset,
}

/// What can be written where acts are wanted: a reply, one act, or several.
pub trait Acts {
    /// The acts in their order.
    fn acts(self) -> Vec<Act>;
}

impl Acts for &str {
    fn acts(self) -> Vec<Act> {
        vec![Act::Say(self.to_owned())]
    }
}

impl Acts for Act {
    fn acts(self) -> Vec<Act> {
        vec![self]
    }
}

impl<const N: usize> Acts for [Act; N] {
    fn acts(self) -> Vec<Act> {
        self.into()
    }
}

impl Acts for Vec<Act> {
    fn acts(self) -> Vec<Act> {
        self
    }
}

#[derive(Debug)]
struct Rule {
    stage: Stage,
    argument: Option<String>,
    left: Option<u32>,
    acts: Vec<Act>,
}

/// What an upstream offers and answers. Without rules it says yes to everything.
#[derive(Debug)]
pub struct Script {
    capabilities: Vec<String>,
    /// Offered inside TLS only.
    inside: Vec<String>,
    tls: Option<Arc<ServerConfig>>,
    implicit: bool,
    rules: Mutex<Vec<Rule>>,
}

impl Default for Script {
    fn default() -> Self {
        Self::new()
    }
}

impl Script {
    /// Offers what a Postfix offers, but no CHUNKING and no DSN.
    pub fn new() -> Self {
        let offered = ["PIPELINING", "SIZE 0", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES"];
        Self {
            capabilities: offered.map(str::to_owned).into(),
            rules: Mutex::default(),
            inside: Vec::new(),
            tls: None,
            implicit: false,
        }
    }

    /// Offers STARTTLS with this certificate.
    pub fn with_tls(mut self, config: Arc<ServerConfig>) -> Self {
        self.tls = Some(config);
        self.offering("STARTTLS")
    }

    /// Speaks TLS from the first octet, with this certificate.
    pub fn inside_tls(mut self, config: Arc<ServerConfig>) -> Self {
        self.tls = Some(config);
        self.implicit = true;
        self
    }

    /// Offers this too, inside TLS only.
    pub fn offering_inside(mut self, capability: &str) -> Self {
        self.inside.push(capability.to_owned());
        self
    }

    /// Whether TLS begins with the first octet.
    pub(super) fn is_implicit(&self) -> bool {
        self.implicit
    }

    /// The certificate for handshakes.
    pub(super) fn config(&self) -> Option<Arc<ServerConfig>> {
        self.tls.clone()
    }

    /// Offers this too; in place of an older offer of the same keyword.
    pub fn offering(mut self, capability: &str) -> Self {
        self = self.without(keyword(capability));
        self.capabilities.push(capability.to_owned());
        self
    }

    /// Does not offer this keyword.
    pub fn without(mut self, name: &str) -> Self {
        self.capabilities.retain(|known| !keyword(known).eq_ignore_ascii_case(name));
        self
    }

    /// Does this at every such stage.
    pub fn on(self, stage: Stage, acts: impl Acts) -> Self {
        self.rule(stage, None, None, acts)
    }

    /// Does this at the first such stage that no earlier rule took.
    pub fn once(self, stage: Stage, acts: impl Acts) -> Self {
        self.rule(stage, None, Some(1), acts)
    }

    /// Does this where the command's line holds these words.
    pub fn on_words(self, stage: Stage, words: &str, acts: impl Acts) -> Self {
        self.rule(stage, Some(words.to_owned()), None, acts)
    }

    fn rule(self, stage: Stage, argument: Option<String>, left: Option<u32>, acts: impl Acts) -> Self {
        let rule = Rule { stage, argument, left, acts: acts.acts() };
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).push(rule);
        self
    }

    /// Whether EHLO names this keyword.
    pub(super) fn offers(&self, name: &str) -> bool {
        let offered = self.capabilities.iter().chain(&self.inside);
        offered.map(String::as_str).any(|known| keyword(known).eq_ignore_ascii_case(name))
    }

    /// The reply to EHLO.
    pub(super) fn ehlo(&self, is_secure: bool) -> String {
        let always = self.capabilities.iter().filter(|known| !is_secure || keyword(known) != "STARTTLS");
        let inside = self.inside.iter().filter(|_| is_secure);
        let lines = std::iter::once("upstream.test").chain(always.chain(inside).map(String::as_str));
        let lines: Vec<&str> = lines.collect();
        let (last, before) = lines.split_last().unwrap_or((&"", &[]));
        before.iter().map(|line| format!("250-{line}\n")).chain([format!("250 {last}")]).collect()
    }

    /// The acts of the first rule that fits, which is then used up once.
    pub(super) fn next(&self, stage: Stage, line: &str) -> Option<Vec<Act>> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |rule: &&mut Rule| {
            let words = rule.argument.as_ref().is_none_or(|words| line.contains(words.as_str()));
            rule.stage == stage && rule.left != Some(0) && words
        };
        let rule = rules.iter_mut().find(fits)?;
        rule.left = rule.left.map(|left| left - 1);
        Some(rule.acts.clone())
    }
}

fn keyword(capability: &str) -> &str {
    capability.split_ascii_whitespace().next().unwrap_or("")
}
