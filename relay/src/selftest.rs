//! `ringpost selftest`: connects to the upstream as a worker would, shows what it finds, sends one message if asked.
//!
//! It uses the very code of the data plane, on one ring of its own, with its own look-ups: what it shows is what the
//! daemon does. A certificate that is refused is shown all the same, on a second connection that carries nothing.
//!
//! It must not change anything here, nor show a secret.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, digest};

use crate::config::Config;
use crate::egress::config::{NextHop, UpstreamAddress, UpstreamHost};
use crate::egress::connect::{self, Manner, Unusable};
use crate::egress::connection::Connection;
use crate::egress::permit::{Permit, PermitBook};
use crate::egress::pool::{Claim, Pool};
use crate::egress::protection::{Findings, Inquiry, Protection};
use crate::egress::route;
use crate::egress::token;
use crate::io::Io;
use crate::io::clock;
use crate::io::ladder::{self, Rung};
use crate::io::ring::{RingIo, RingStream};
use crate::limits::{
    HTTPS_TIMEOUT, TICK, UPSTREAM_ENVELOPE_TIMEOUT, UPSTREAM_QUIT_TIMEOUT, UPSTREAM_VERDICT_TIMEOUT,
};
use crate::resolve::sts::{Mode, Policy};
use crate::resolve::{self, Resolver, Service};
use crate::smtp::client::{Client, MailOptions, RcptOptions};
use crate::tls::client::{Connector, Dane, Demand, Wanted};
use crate::tls::rule::Rule;
use crate::tls::x509;
use crate::trace::LocalTime;

/// Runs the test and hands its report to `tell`, line by line. `true`: an upstream can be used, and took the message
/// if there was one.
///
/// # Errors
/// Nothing could be tried at all: why.
pub fn run(config: &Config, recipient: Option<&str>, tell: &mut dyn FnMut(&str)) -> Result<bool, String> {
    let demand = Demand::load(&config.tls)?;
    let look_ups = serve_look_ups(config, &demand)?;
    let (mut driver, _) = ladder::build(Rung::DeferTaskrun).map_err(|error| error.to_string())?;
    let mut is_usable = false;
    driver.block_on(async {
        let io = RingIo::new(clock::unix_ms());
        let ticking = io.clone();
        io.spawn(async move {
            loop {
                ticking.sleep(TICK).await;
                ticking.expire();
            }
        });
        let connector = Connector::new(&demand);
        let resolver = Resolver::new(look_ups);
        let mut test = Test { config, io, demand: &demand, connector, resolver, tell };
        is_usable = test.all(recipient).await;
    });
    Ok(is_usable)
}

/// Look-ups and tokens on a thread of their own; it ends with the process.
fn serve_look_ups(config: &Config, demand: &Demand) -> Result<flume::Sender<resolve::Request>, String> {
    let (look_ups, requests) = resolve::channel();
    let mut service = Service::new(requests, &config.egress.dns_servers);
    if let Some(path) = &config.egress.dns_trust_anchors {
        service = service
            .trusting(&config.egress.dns_servers, path)
            .map_err(|why| format!("DNS_TRUST_ANCHORS: {why}"))?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error: io::Error| error.to_string())?;
    let thread = std::thread::Builder::new().name("look-ups".to_owned());
    let (keeping, keeper) = token::keeper(look_ups.clone());
    if let Some(shelf) = config.egress.login.as_ref().and_then(|login| login.token.as_ref()) {
        keeping.keep(shelf, demand.authorities());
    }
    let work = async { tokio::join!(service.run(), keeper.run()) };
    thread.spawn(move || runtime.block_on(work)).map_err(|error| error.to_string())?;
    Ok(look_ups)
}

/// A test under way.
struct Test<'a> {
    config: &'a Config,
    io: RingIo,
    demand: &'a Demand,
    connector: Connector,
    resolver: Resolver,
    tell: &'a mut dyn FnMut(&str),
}

impl Test<'_> {
    fn say(&mut self, line: &str) {
        (self.tell)(line);
    }

    async fn all(&mut self, recipient: Option<&str>) -> bool {
        self.wait_for_token().await;
        let Some(upstreams) = self.upstreams(recipient) else {
            self.say("mail goes to the recipients' own exchangers: --to names one");
            return false;
        };
        for upstream in upstreams {
            self.say(&format!("upstream {upstream}, level {}", level(self.demand)));
            if self.upstream(&upstream, recipient).await {
                return true;
            }
        }
        false
    }

    /// The first token takes a question to the web.
    async fn wait_for_token(&mut self) {
        let login = self.config.egress.login.as_ref();
        let Some(shelf) = login.and_then(|login| login.token.as_ref()) else { return };
        let by = self.io.now().after(HTTPS_TIMEOUT);
        while shelf.token().is_none() && self.io.now() < by {
            self.io.sleep(TICK).await;
        }
        let is_there = shelf.token().is_some();
        self.say(if is_there { "access token: there is one" } else { "access token: none could be had" });
    }

    fn upstreams(&self, recipient: Option<&str>) -> Option<Vec<UpstreamAddress>> {
        match &self.config.egress.next_hop {
            NextHop::Upstreams(upstreams) => Some(upstreams.clone()),
            NextHop::RecipientMx { port } => {
                let domain = recipient?.rsplit_once('@')?.1;
                Some(vec![UpstreamAddress { host: UpstreamHost::Mx(domain.into()), port: *port }])
            }
        }
    }

    async fn upstream(&mut self, upstream: &UpstreamAddress, recipient: Option<&str>) -> bool {
        let addresses = match route::addresses(upstream, &self.resolver).await {
            Ok(addresses) => addresses,
            Err(unresolved) => {
                self.say(&format!("  no address: {}", unresolved.reason));
                return false;
            }
        };
        for (host, address) in addresses {
            self.say(&format!("  {host} at {address}"));
            if let Some(connection) = self.address(upstream, &host, address).await {
                return self.use_it(connection, recipient).await;
            }
        }
        false
    }

    async fn address(
        &mut self,
        upstream: &UpstreamAddress,
        host: &Arc<str>,
        address: SocketAddr,
    ) -> Option<Connection<RingStream>> {
        let found = self.inquire(upstream, host).await;
        match self.connect(found.wanted, host, address, true).await {
            Ok(connection) => {
                self.show(&connection);
                Some(connection)
            }
            Err(why) => {
                self.say(&format!("    cannot be used: {why}"));
                if matches!(why, Unusable::Tls(_)) {
                    // Only to show what it is that was refused.
                    let any = Wanted::Must(Rule::Any);
                    if let Ok(connection) = self.connect(any, host, address, false).await {
                        self.show_certificates(&connection);
                        connection.quit(self.io.now().after(UPSTREAM_QUIT_TIMEOUT)).await;
                    }
                }
                None
            }
        }
    }

    /// Asks DNS and the domain's policy, as a worker does, and shows what they say.
    async fn inquire(&mut self, address: &UpstreamAddress, host: &Arc<str>) -> Findings {
        let config = &self.config.egress;
        let inquiry = Inquiry { config, demand: self.demand, resolver: &self.resolver, address };
        let found = inquiry.about(host).await;
        let has_policy = inquiry.domain_with_policy().is_some();
        found.tlsa.iter().for_each(|tlsa| self.show_tlsa(tlsa));
        if has_policy {
            let said = found.policy.as_ref().map_or("no policy".to_owned(), |policy| describe(policy, host));
            self.say(&format!("    MTA-STS: {said}"));
        }
        found
    }

    fn show_tlsa(&mut self, tlsa: &Dane) {
        let said = match tlsa {
            Dane::Records(records) => {
                let records: Vec<String> = records.iter().map(ToString::to_string).collect();
                format!("{} usable: {}", records.len(), records.join(", "))
            }
            Dane::Unusable => "signed, but none is usable".to_owned(),
            Dane::None => "none that is signed".to_owned(),
            Dane::Unknown(why) => format!("unknown: {why}"),
        };
        self.say(&format!("    TLSA records: {said}"));
    }

    async fn connect(
        &self,
        wanted: Wanted,
        host: &Arc<str>,
        address: SocketAddr,
        with_login: bool,
    ) -> Result<Connection<RingStream>, Unusable> {
        let handshakes = RefCell::default();
        let egress = &self.config.egress;
        let manner = Manner {
            host_name: &egress.relay_host_name,
            wanted,
            connector: &self.connector,
            protection: Protection::Configured,
            login: egress.login.as_ref().filter(|_| with_login),
            mechanism: egress.mechanism,
            handshakes: &handshakes,
        };
        let target = (Arc::clone(host), address);
        connect::connect(&self.io, &manner, target, self.permit().await).await.map_err(|(why, _)| why)
    }

    /// The right to a connection, outside every pool.
    async fn permit(&self) -> Permit {
        loop {
            let pool = Pool::<RingStream>::new("selftest".into(), PermitBook::default().of("selftest", 1));
            if let Claim::Permit(permit) = pool.claim(|| self.io.now()).await {
                return permit;
            }
        }
    }

    fn show(&mut self, connection: &Connection<RingStream>) {
        self.say(&format!("    TLS: {}", connection.tls));
        self.show_certificates(connection);
        let offered = connection.machine.capabilities();
        let name = |is_offered: bool, name| if is_offered { name } else { "" };
        let words = [
            name(offered.pipelining, " PIPELINING"),
            name(offered.chunking, " CHUNKING"),
            name(offered.eight_bit_mime, " 8BITMIME"),
            name(offered.smtputf8, " SMTPUTF8"),
            name(offered.dsn, " DSN"),
            name(offered.require_tls, " REQUIRETLS"),
        ];
        let size = offered.size_max().map_or(String::new(), |octets| format!(" SIZE {octets}"));
        self.say(&format!("    it calls itself {} and offers{}{size}", offered.name, words.concat()));
        let mechanisms: Vec<&str> = offered.mechanisms().collect();
        let login = match &self.config.egress.login {
            Some(login) => format!("logged in as {}", login.name),
            None => "no login is configured".to_owned(),
        };
        self.say(&format!("    AUTH: offers {}; {login}", or_none(&mechanisms.join(" "))));
    }

    fn show_certificates(&mut self, connection: &Connection<RingStream>) {
        for (number, certificate) in connection.peer_certificates().iter().enumerate() {
            let mut line = format!("    certificate {number}: ");
            if let Ok(parsed) = webpki::EndEntityCert::try_from(certificate) {
                let names: Vec<&str> = parsed.valid_dns_names().collect();
                // Writing to a String cannot fail.
                let _ = write!(line, "for {}, ", or_none(&names.join(" ")));
            }
            if let Some(parts) = x509::Parts::of(certificate) {
                let _ = write!(line, "from {} to {}, ", date(parts.not_before), date(parts.not_after));
                let _ = write!(line, "key SHA-256 {}, ", hex(parts.public_key));
            }
            let _ = write!(line, "SHA-256 {}", hex(certificate));
            self.say(&line);
        }
    }

    async fn use_it(&mut self, mut connection: Connection<RingStream>, recipient: Option<&str>) -> bool {
        let is_done = match recipient {
            Some(recipient) => match self.send(&mut connection, recipient).await {
                Ok(reply) => {
                    self.say(&format!("    sent to {recipient}: {reply}"));
                    true
                }
                Err(why) => {
                    self.say(&format!("    not sent to {recipient}: {why}"));
                    false
                }
            },
            None => true,
        };
        connection.quit(self.io.now().after(UPSTREAM_QUIT_TIMEOUT)).await;
        is_done
    }

    /// One message from our postmaster; every reply is waited for.
    async fn send(&self, connection: &mut Connection<RingStream>, recipient: &str) -> Result<String, String> {
        let host_name = &self.config.egress.relay_host_name;
        let sender = format!("postmaster@{host_name}");
        let mut step = async |write: &mut dyn FnMut(&mut Client, &mut Vec<u8>) -> bool, wait: Duration| {
            if !connection.command(|machine, out| write(machine, out)) {
                return Err("the address cannot be said in a command".to_owned());
            }
            let exchanged = connection.exchange(self.io.now().after(wait)).await;
            exchanged.map_err(|broken| format!("the connection was lost: {broken:?}"))?;
            match connection.replies.pop() {
                Some((_, reply)) if reply.is_positive() || reply.is_intermediate() => {
                    Ok(reply.to_reply().to_string())
                }
                Some((_, reply)) => Err(reply.to_reply().to_string()),
                None => Err("no reply".to_owned()),
            }
        };
        let options = MailOptions::default();
        step(&mut |machine, out| machine.mail(&sender, &options, out).is_ok(), UPSTREAM_ENVELOPE_TIMEOUT)
            .await?;
        let options = RcptOptions::default();
        step(&mut |machine, out| machine.rcpt(recipient, &options, out).is_ok(), UPSTREAM_ENVELOPE_TIMEOUT)
            .await?;
        let data = &mut |machine: &mut Client, out: &mut Vec<u8>| {
            machine.data(out);
            true
        };
        step(data, UPSTREAM_ENVELOPE_TIMEOUT).await?;
        let at = LocalTime { unix_ms: self.io.unix_ms(), offset_minutes: 0 };
        let message = format!(
            "From: <{sender}>\r\nTo: <{recipient}>\r\nSubject: ringpost selftest\r\nDate: {at}\r\n\
             Message-ID: <{}.{:x}@{host_name}>\r\n\r\nringpost on {host_name} can send mail.\r\n",
            at.unix_ms,
            self.io.random(),
        );
        let body = &mut |machine: &mut Client, out: &mut Vec<u8>| {
            out.extend_from_slice(message.as_bytes());
            machine.end_of_data(out);
            true
        };
        step(body, UPSTREAM_VERDICT_TIMEOUT).await
    }
}

fn level(demand: &Demand) -> &'static str {
    use crate::tls::config::Level;
    match demand.level {
        Level::None => "none",
        Level::May => "may",
        Level::Encrypt => "encrypt",
        Level::Dane => "dane",
        Level::DaneOnly => "dane-only",
        Level::Fingerprint => "fingerprint",
        Level::Verify => "verify",
        Level::Secure => "secure",
    }
}

/// What a policy says about a host (RFC 8461 §4.1, §5).
fn describe(policy: &Policy, host: &str) -> String {
    let mode = policy.mode.word();
    match policy.pattern_of(host) {
        _ if policy.mode == Mode::None => "mode none".to_owned(),
        Some(pattern) => format!("mode {mode}, {host} is named by {pattern}"),
        None => format!("mode {mode}, {host} is not named"),
    }
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "nothing" } else { text }
}

fn date(seconds: Option<i64>) -> String {
    match seconds.map(u64::try_from) {
        Some(Ok(seconds)) => {
            LocalTime { unix_ms: seconds.saturating_mul(1000), offset_minutes: 0 }.to_string()
        }
        _ => "an unknown time".to_owned(),
    }
}

fn hex(octets: &[u8]) -> String {
    digest(&SHA256, octets).as_ref().iter().map(|octet| format!("{octet:02x}")).collect()
}
