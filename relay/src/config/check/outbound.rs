//! The outbound side: where mail goes, the login there, connections, signatures.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use super::super::addresses::{host_name, name_server, upstream};
use super::super::checker::Checker;
use super::super::features::Feature;
use super::super::report::Origin;
use super::super::values::{Wrong, boolean, duration, rate, word};
use super::super::variable::Variable;
use super::super::variables::{
    DELIVERY_PATIENCE, DKIM_DOMAIN, DKIM_KEY, DKIM_SELECTOR, DNS_SERVERS, DNS_TRUST_ANCHORS, EIGHTBIT,
    EXT_RELAY_HOST, MAIL_FROM_FQDN, MTA_STS, OUTGOING_OAUTH_CLIENT_ID, OUTGOING_OAUTH_CLIENT_SECRET,
    OUTGOING_OAUTH_ENDPOINT, OUTGOING_OAUTH_REFRESH_TOKEN, OUTGOING_OAUTH_SCOPE, OUTGOING_OAUTH_TOKEN_PATH,
    OUTGOING_SMTP_AUTH, OUTGOING_SMTP_LOGIN, OUTGOING_SMTP_MECHANISM, OUTGOING_SMTP_PASSWORD,
    UPSTREAM_CONNECTIONS, UPSTREAM_IDLE, UPSTREAM_MESSAGES_PER_CONNECTION, UPSTREAM_RATE,
};
use super::inbound::plain_text;
use super::process::{path, pem_text, readable_path};
use super::{SUBMISSIONS_PORT, TLS_PORT_UNBUILT};
use crate::egress::Config;
use crate::egress::config::{
    Dkim, EightBit, Login, Mechanism, NextHop, Patience, Plaintext, UpstreamAddress,
};
use crate::egress::token::{Refresh, Shelf, Source};
use crate::https::Location;

impl Checker<'_> {
    pub(super) fn egress(&mut self, name: Option<&Arc<str>>) -> Option<Config> {
        let next_hop = self.next_hop();
        let login = self.login();
        let mechanism = self.maybe(&OUTGOING_SMTP_MECHANISM, |text| word(text, MECHANISMS));
        let delivery_patience = self.patience();
        let upstream_connections = self.integer(&UPSTREAM_CONNECTIONS);
        let upstream_idle = self.one(&UPSTREAM_IDLE, duration);
        let upstream_messages_per_connection = self.integer(&UPSTREAM_MESSAGES_PER_CONNECTION);
        let upstream_rate = self.maybe(&UPSTREAM_RATE, rate);
        let eightbit =
            self.one(&EIGHTBIT, |text| word(text, &[("bounce", EightBit::Bounce), ("pass", EightBit::Pass)]));
        let mta_sts = self.one(&MTA_STS, boolean);
        let dns_servers = self.list(&DNS_SERVERS, |text| match text {
            SYSTEM_RESOLVER => Ok(None),
            address => name_server(address).map(Some),
        });
        let dns_trust_anchors = self.maybe(&DNS_TRUST_ANCHORS, readable_path);
        let dkim = self.dkim();
        Some(Config {
            relay_host_name: name?.clone(),
            next_hop: next_hop?,
            login: login?,
            mechanism: mechanism?,
            delivery_patience: delivery_patience?,
            upstream_connections: upstream_connections?,
            upstream_idle: upstream_idle?,
            upstream_messages_per_connection: upstream_messages_per_connection?,
            upstream_rate: upstream_rate?,
            eightbit: eightbit?,
            mta_sts: mta_sts?,
            dns_servers: dns_servers?.into_iter().flatten().collect(),
            dns_trust_anchors: dns_trust_anchors?,
            dkim: dkim?,
        })
    }

    fn next_hop(&mut self) -> Option<NextHop> {
        let port = self.port();
        if !self.is_written(&EXT_RELAY_HOST) {
            return self.next_hop_unset(port);
        }
        let entries = self.list(&EXT_RELAY_HOST, |text| match text {
            MX => Ok(None),
            host => upstream(host, port.unwrap_or(SMTP_PORT)).map(Some),
        })?;
        let count = entries.len();
        let upstreams: Vec<UpstreamAddress> = entries.into_iter().flatten().collect();
        if upstreams.len() == count && count > 0 {
            if upstreams.iter().any(|one| one.port == SUBMISSIONS_PORT) && !self.has(Feature::Tls) {
                self.mistake_about(&EXT_RELAY_HOST, TLS_PORT_UNBUILT);
                return None;
            }
            port?;
            return Some(NextHop::Upstreams(upstreams));
        }
        match count {
            1 => self.recipient_mx(port),
            0 => {
                self.mistake_about(&EXT_RELAY_HOST, format!("expected {}", EXT_RELAY_HOST.kind.expected()));
                None
            }
            _ => {
                self.mistake_about(&EXT_RELAY_HOST, "expected mx alone, or hosts without mx");
                None
            }
        }
    }

    /// What `EXT_RELAY_HOST` means where nobody wrote it: the first seed's upstream for who has a login, the
    /// recipients' own MX for who comes from the second seed.
    fn next_hop_unset(&mut self, port: Option<u16>) -> Option<NextHop> {
        if self.is_written(&OUTGOING_SMTP_LOGIN) {
            self.effective.set(&EXT_RELAY_HOST, SEED_UPSTREAM, Origin::Default("with OUTGOING_SMTP_LOGIN"));
            return Some(NextHop::Upstreams(vec![upstream(SEED_UPSTREAM, port?).ok()?]));
        }
        if self.is_written(&MAIL_FROM_FQDN) {
            self.effective.set(&EXT_RELAY_HOST, MX, Origin::Default("with MAIL_FROM_FQDN"));
            return self.recipient_mx(port);
        }
        self.mistake_about(
            &EXT_RELAY_HOST,
            "missing: expected the upstream's host, or mx; only with OUTGOING_SMTP_LOGIN or MAIL_FROM_FQDN is there a default",
        );
        None
    }

    fn recipient_mx(&mut self, port: Option<u16>) -> Option<NextHop> {
        if !self.has(Feature::RecipientMx) {
            let problem = format!("{} is not in this build", Feature::RecipientMx.subject());
            self.mistake_about(&EXT_RELAY_HOST, problem);
            return None;
        }
        Some(NextHop::RecipientMx { port: port? })
    }

    /// The login at the upstream: required for an upstream host, unless there is none on purpose.
    fn login(&mut self) -> Option<Option<Login>> {
        let plaintext = self.one(&OUTGOING_SMTP_AUTH, |text| word(text, AUTHS));
        let name = self.maybe(&OUTGOING_SMTP_LOGIN, plain_text);
        let password = self.maybe(&OUTGOING_SMTP_PASSWORD, |text| Ok(Arc::new(SecretString::from(text))));
        let token = self.token_source();
        let is_mx = self.effective.text(&EXT_RELAY_HOST).is_some_and(|text| text.trim() == MX);
        let Some(plaintext) = plaintext? else {
            self.warn_of_unused_login("OUTGOING_SMTP_AUTH=off says that there is none");
            return Some(None);
        };
        if is_mx {
            self.warn_of_unused_login("a login is never sent to the recipients' own mail exchangers");
            return Some(None);
        }
        let mut is_complete = true;
        let token = token?;
        if token.is_some() && self.is_written(&OUTGOING_SMTP_PASSWORD) {
            self.warn(&OUTGOING_SMTP_PASSWORD, "not used: access tokens take its place");
        }
        let is_needed =
            |variable: &&'static Variable| token.is_none() || *variable != &OUTGOING_SMTP_PASSWORD;
        for variable in [&OUTGOING_SMTP_LOGIN, &OUTGOING_SMTP_PASSWORD].into_iter().filter(is_needed) {
            if !self.is_written(variable) {
                self.mistake_about(variable, LOGIN_MISSING);
                is_complete = false;
            }
        }
        if !is_complete {
            return None;
        }
        let password = if token.is_some() { Some(Arc::default()) } else { password? };
        let token = token.map(Shelf::new);
        Some(name?.zip(password).map(|(name, password)| Login { name, password, token, plaintext }))
    }

    /// Where access tokens come from: a file, or an endpoint; not both.
    fn token_source(&mut self) -> Option<Option<Source>> {
        let path = self.maybe(&OUTGOING_OAUTH_TOKEN_PATH, path);
        let endpoint =
            self.maybe(&OUTGOING_OAUTH_ENDPOINT, |text| Location::parse(text).ok_or_else(Wrong::default));
        let client_id = self.maybe(&OUTGOING_OAUTH_CLIENT_ID, plain_text);
        let secret = |text: &str| Ok(SecretString::from(text));
        let client_secret = self.maybe(&OUTGOING_OAUTH_CLIENT_SECRET, secret);
        let refresh_token = self.maybe(&OUTGOING_OAUTH_REFRESH_TOKEN, secret);
        let scope = self.maybe(&OUTGOING_OAUTH_SCOPE, plain_text);
        let needed = [&OUTGOING_OAUTH_ENDPOINT, &OUTGOING_OAUTH_CLIENT_ID, &OUTGOING_OAUTH_REFRESH_TOKEN];
        if !self.all_or_none(&needed) {
            return None;
        }
        let (path, endpoint, client_id) = (path?, endpoint?, client_id?);
        let (client_secret, refresh_token, scope) = (client_secret?, refresh_token?, scope?);
        let refresh =
            endpoint.zip(client_id).zip(refresh_token).map(|((endpoint, client_id), refresh_token)| {
                Source::Refresh(Refresh { endpoint, client_id, client_secret, refresh_token, scope })
            });
        match (refresh, path) {
            (Some(_), Some(_)) => {
                self.mistake_about(
                    &OUTGOING_OAUTH_TOKEN_PATH,
                    "expected this or OUTGOING_OAUTH_ENDPOINT, not both",
                );
                None
            }
            (None, path) => {
                for variable in [&OUTGOING_OAUTH_CLIENT_SECRET, &OUTGOING_OAUTH_SCOPE] {
                    if self.is_written(variable) {
                        self.warn(variable, "not used: OUTGOING_OAUTH_ENDPOINT is not set");
                    }
                }
                Some(path.map(Source::File))
            }
            (refresh, None) => Some(refresh),
        }
    }

    fn warn_of_unused_login(&mut self, why: &str) {
        for variable in [&OUTGOING_SMTP_LOGIN, &OUTGOING_SMTP_PASSWORD] {
            if self.is_written(variable) {
                self.warn(variable, format!("not used: {why}"));
            }
        }
    }

    fn patience(&mut self) -> Option<Patience> {
        if !self.has(Feature::Spool) && !self.is_written(&DELIVERY_PATIENCE) {
            self.warn(&DELIVERY_PATIENCE, "taken as forever: the spool is not in this build");
            let origin = Origin::Default("the spool is not in this build");
            self.effective.set(&DELIVERY_PATIENCE, FOREVER, origin);
            return Some(Patience::Forever);
        }
        self.one(&DELIVERY_PATIENCE, |text| match text {
            FOREVER => Ok(Patience::Forever),
            span => duration(span).and_then(|span| {
                let too_long = || Wrong::because("less than 10m, which clients wait for a reply at most");
                (span < PATIENCE_MAX).then_some(Patience::Within(span)).ok_or_else(too_long)
            }),
        })
    }

    fn dkim(&mut self) -> Option<Option<Dkim>> {
        let domain = self.maybe(&DKIM_DOMAIN, host_name);
        let selector = self.maybe(&DKIM_SELECTOR, host_name);
        let key = self.maybe(&DKIM_KEY, pem_text);
        if !self.all_or_none(&[&DKIM_DOMAIN, &DKIM_SELECTOR, &DKIM_KEY]) {
            return None;
        }
        let dkim = domain?.zip(selector?).zip(key?);
        Some(dkim.map(|((domain, selector), key)| Dkim { domain, selector, key }))
    }
}

const MX: &str = "mx";
const FOREVER: &str = "forever";
const SMTP_PORT: u16 = 25;
const SEED_UPSTREAM: &str = "email-smtp.us-east-1.amazonaws.com";
const SYSTEM_RESOLVER: &str = "/etc/resolv.conf";
/// What a client waits for the reply to its data at most (RFC 5321 §4.5.3.2.6).
const PATIENCE_MAX: Duration = Duration::from_secs(600);
const LOGIN_MISSING: &str =
    "missing: an upstream host needs a login; OUTGOING_SMTP_AUTH=off says on purpose that there is none";
const AUTHS: &[(&str, Option<Plaintext>)] =
    &[("required", Some(Plaintext::Refused)), ("plaintext", Some(Plaintext::Allowed)), ("off", None)];
const MECHANISMS: &[(&str, Mechanism)] = &[
    ("PLAIN", Mechanism::Plain),
    ("LOGIN", Mechanism::Login),
    ("CRAM-MD5", Mechanism::CramMd5),
    ("SCRAM-SHA-256", Mechanism::ScramSha256),
    ("XOAUTH2", Mechanism::Xoauth2),
    ("OAUTHBEARER", Mechanism::Oauthbearer),
];
