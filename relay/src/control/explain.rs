//! Says what would happen to a client, a sender and a recipient: the same tables as the sessions use, asked dry.
//!
//! Pure. Must not resolve a name or open a connection.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Bound;
use super::protocol::Question;
use crate::egress::config::{NextHop, UpstreamAddress, UpstreamHost};
use crate::limits::SUBMISSIONS_PORT;
use crate::meter::{Label as _, Listener};
use crate::orders::Settings;
use crate::policy::acl::{AddressList, Networks, canonical};
use crate::smtp::reply::{self, Reply};
use crate::tls::client::Demand;
use crate::tls::config::Level;

/// The answer to a [`Question`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The client, as it is judged.
    pub address: IpAddr,
    /// The port it connects to.
    pub port: u16,
    /// The listener there; null: ringpost does not listen there.
    pub listener: Option<String>,
    /// What the gate does with its packets.
    pub gate: String,
    /// The network that lets it in, the most specific one; null: none does.
    pub network: Option<String>,
    /// Whether it must open with a PROXY header, and is then judged by the address in it.
    pub proxy_protocol: bool,
    /// Whether it may relay.
    pub may_relay: bool,
    /// What it sees, in words.
    pub verdict: String,
    /// What becomes of the sender's address, where one was told.
    pub from: Option<AddressVerdict>,
    /// What becomes of the recipient's address, where one was told.
    pub to: Option<AddressVerdict>,
    /// Where the message goes, in order of preference.
    pub route: Vec<String>,
    /// How far the connection to the upstream is protected.
    pub tls: String,
}

/// What becomes of one address of a mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressVerdict {
    /// The address, without angle brackets; empty: the null sender.
    pub address: String,
    /// Whether it is accepted.
    pub accepted: bool,
    /// What the client sees, in words.
    pub verdict: String,
}

/// The port that a client connects to where none is told.
pub(super) fn default_port(listeners: &[Bound]) -> u16 {
    let smtp = listeners.iter().find(|bound| bound.listener == Listener::Smtp);
    smtp.map_or(SMTP_PORT, |bound| bound.address.port())
}

/// What the daemon does with this client.
#[must_use]
pub fn explain(question: &Question, settings: &Settings, listeners: &[Bound]) -> Explanation {
    let address = canonical(question.address);
    let port = question.port.unwrap_or_else(|| default_port(listeners));
    let listener = listeners.iter().find(|bound| bound.address.port() == port).map(|bound| bound.listener);
    let network = listener.and_then(|kind| networks(kind, settings).matching(address));
    let ingress = &settings.ingress;
    let (may_relay, verdict) = judge(listener, network.is_some(), port);
    Explanation {
        address,
        port,
        listener: listener.map(|kind| kind.text().to_owned()),
        gate: "no gate".to_owned(),
        network: network.map(|network| network.to_string()),
        proxy_protocol: ingress.proxy_protocol.contains(address),
        may_relay,
        verdict,
        from: question.from.as_deref().map(|from| {
            judge_address(from, &ingress.allowed_senders, &ingress.denied_senders, &reply::SENDER_DENIED)
        }),
        to: question.to.as_deref().map(|to| {
            judge_address(
                to,
                &ingress.allowed_recipients,
                &ingress.denied_recipients,
                &reply::RECIPIENT_DENIED,
            )
        }),
        route: route(&settings.egress.next_hop, question.to.as_deref()),
        tls: protection(&settings.tls.demand, &settings.egress.next_hop),
    }
}

impl Explanation {
    /// Adds what the gate does with its packets, and what the daemon does with a banned source.
    pub(super) fn add_gate(&mut self, gate: String, is_banned: bool) {
        self.gate = gate;
        if is_banned && self.listener.is_some() {
            self.may_relay = false;
            "closed without a banner: banned".clone_into(&mut self.verdict);
        }
    }

    /// The explanation for a person at a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let listener = self.listener.as_deref().unwrap_or("none");
        let network = self.network.as_deref().unwrap_or("none");
        let _ = writeln!(text, "client    {}", self.address);
        let _ = writeln!(text, "listener  {listener} (port {})", self.port);
        let _ = writeln!(text, "gate      {}", self.gate);
        let _ = writeln!(text, "network   {network}");
        if self.proxy_protocol {
            let _ =
                writeln!(text, "proxy     must open with a PROXY header; the address in it is judged too");
        }
        let _ = writeln!(text, "relay     {}: {}", if self.may_relay { "yes" } else { "no" }, self.verdict);
        for (word, judged) in [("sender", &self.from), ("recipient", &self.to)] {
            if let Some(AddressVerdict { address, verdict, .. }) = judged {
                let _ = writeln!(text, "{word:9} <{address}>: {verdict}");
            }
        }
        for route in &self.route {
            let _ = writeln!(text, "route     {route}");
        }
        let _ = writeln!(text, "tls       {}", self.tls);
        text
    }
}

fn networks(listener: Listener, settings: &Settings) -> &Networks {
    match listener {
        Listener::Smtp => &settings.ingress.accepted_networks,
        Listener::Submission | Listener::Submissions => &settings.ingress.submission_networks,
    }
}

fn judge(listener: Option<Listener>, is_inside: bool, port: u16) -> (bool, String) {
    match (listener, is_inside) {
        (None, _) => (false, format!("ringpost does not listen on port {port}")),
        (Some(Listener::Smtp), true) => (true, "accepted without a password".to_owned()),
        (Some(Listener::Smtp), false) => {
            (false, format!("refused at RCPT with {}", Wire(&reply::RELAY_DENIED)))
        }
        (Some(_), true) => (true, "accepted after STARTTLS and AUTH".to_owned()),
        (Some(_), false) => (false, "closed without a banner".to_owned()),
    }
}

fn judge_address(
    address: &str,
    allowed: &AddressList,
    denied: &AddressList,
    refusal: &Reply,
) -> AddressVerdict {
    let address = address.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(address);
    let accepted = (allowed.is_empty() || allowed.matches(address)) && !denied.matches(address);
    let verdict = if accepted { "accepted".to_owned() } else { format!("refused with {}", Wire(refusal)) };
    AddressVerdict { address: address.to_owned(), accepted, verdict }
}

/// A reply of one line as a client sees it.
struct Wire<'a>(&'a Reply);

impl fmt::Display for Wire<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.0.code())?;
        if let Some(enhanced) = self.0.enhanced() {
            write!(f, "{enhanced} ")?;
        }
        f.write_str(self.0.text())
    }
}

fn route(next_hop: &NextHop, recipient: Option<&str>) -> Vec<String> {
    match next_hop {
        NextHop::Upstreams(upstreams) => upstreams.iter().map(upstream).collect(),
        NextHop::RecipientMx { port } => {
            let domain = recipient.and_then(|address| address.rsplit_once('@')).map(|(_, domain)| domain);
            vec![match domain {
                Some(domain) => format!("the mail exchangers of {domain}, port {port}"),
                None => format!("each recipient's own mail exchangers, port {port}"),
            }]
        }
    }
}

fn upstream(upstream: &UpstreamAddress) -> String {
    let port = upstream.port;
    match &upstream.host {
        UpstreamHost::Mx(name) => format!("{name}:{port} (its mail exchangers, else its addresses)"),
        UpstreamHost::Host(name) => format!("[{name}]:{port} (its addresses)"),
        UpstreamHost::Address(IpAddr::V4(address)) => format!("{address}:{port}"),
        UpstreamHost::Address(IpAddr::V6(address)) => format!("[{address}]:{port}"),
    }
}

/// The level in words, and what that means on the way.
fn protection(demand: &Demand, next_hop: &NextHop) -> String {
    let words = match demand.level {
        Level::None => "none: no TLS",
        Level::May => "may: TLS where it is offered, by any certificate; else plaintext",
        Level::Encrypt => "encrypt: TLS always, by any certificate",
        Level::Dane => "dane: by TLSA records where the zone has any; else TLS where it is offered",
        Level::DaneOnly => "dane-only: by TLSA records, or no mail",
        Level::Fingerprint => "fingerprint: TLS always, by a certificate or key of UPSTREAM_FINGERPRINTS",
        Level::Verify => "verify: TLS always, by a trusted certificate for the host's name",
        Level::Secure => "secure: TLS always, by a trusted certificate for the configured name",
    };
    let is_at_once = |upstream: &UpstreamAddress| upstream.port == SUBMISSIONS_PORT;
    match next_hop {
        NextHop::Upstreams(upstreams) if upstreams.iter().any(is_at_once) => {
            format!("{words}; on port {SUBMISSIONS_PORT} from the first octet")
        }
        _ => words.to_owned(),
    }
}

const SMTP_PORT: u16 = 25;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::{listeners, settings};

    fn ask(address: &str, port: Option<u16>, to: Option<&str>) -> Explanation {
        let question =
            Question { address: address.parse().unwrap(), port, from: None, to: to.map(ToOwned::to_owned) };
        explain(&question, &settings(), &listeners())
    }

    #[test]
    fn names_the_most_specific_network_that_lets_a_client_in() {
        let explanation = ask("10.1.2.3", None, None);
        assert_eq!(explanation.network.as_deref(), Some("10.1.0.0/16"));
        assert_eq!(explanation.listener.as_deref(), Some("smtp"));
        assert!(explanation.may_relay);
        assert_eq!(ask("10.9.2.3", None, None).network.as_deref(), Some("10.0.0.0/8"));
    }

    #[test]
    fn an_outsider_sees_the_reply_of_the_session() {
        let explanation = ask("198.51.100.1", Some(2525), None);
        assert!(!explanation.may_relay);
        assert!(explanation.verdict.contains("454 4.7.1 Relay access denied"));
        assert_eq!(ask("198.51.100.1", Some(2587), None).verdict, "closed without a banner");
    }

    #[test]
    fn the_level_is_told_in_words() {
        assert_eq!(ask("10.1.2.3", None, None).tls, "none: no TLS");
        let at_once = UpstreamAddress { host: UpstreamHost::Host("a.example".into()), port: 465 };
        let told = protection(&Demand::none(), &NextHop::Upstreams(vec![at_once]));
        assert_eq!(told, "none: no TLS; on port 465 from the first octet");
    }

    #[test]
    fn a_mapped_address_is_judged_as_its_ipv4_address() {
        assert!(ask("::ffff:10.1.2.3", None, None).may_relay);
    }

    #[test]
    fn a_port_without_a_listener_is_said_so() {
        let explanation = ask("10.1.2.3", Some(22), None);
        assert_eq!((explanation.listener, explanation.may_relay), (None, false));
        assert_eq!(explanation.verdict, "ringpost does not listen on port 22");
    }

    #[test]
    fn denied_addresses_are_told_with_the_reply_of_the_session() {
        let question = Question {
            address: "10.1.2.3".parse().unwrap(),
            port: None,
            from: Some("<bad@spam.example>".into()),
            to: Some("good@example.org".into()),
        };
        let explanation = explain(&question, &settings(), &listeners());
        let from = explanation.from.clone().unwrap();
        assert_eq!((from.address.as_str(), from.accepted), ("bad@spam.example", false));
        assert_eq!(from.verdict, "refused with 550 5.7.1 Sender address rejected");
        assert!(explanation.to.clone().unwrap().accepted);
        assert!(
            explanation.text().contains("sender    <bad@spam.example>: refused"),
            "{}",
            explanation.text()
        );
    }

    #[test]
    fn the_route_is_told_in_order_of_preference() {
        assert_eq!(
            ask("10.1.2.3", None, Some("a@example.org")).route,
            ["mail.example.net:587 (its mail exchangers, else its addresses)", "[2001:db8::1]:25"]
        );
        let domain = route(&NextHop::RecipientMx { port: 25 }, Some("a@example.org"));
        assert_eq!(domain, ["the mail exchangers of example.org, port 25"]);
    }
}
