//! What is asked of the TLS with one host: the level, what DNS and the domain's policy say, what the message asks for.
//!
//! Each but the last can only make it stricter. DANE goes before MTA-STS (RFC 8461 §2), and a message with REQUIRETLS
//! (RFC 8689) goes by a certificate that is verified, at whatever level, or not at all. A message whose header says
//! `TLS-Required: No` goes as if the recipients' domain had neither records nor a policy; what is configured here stays.
//!
//! It must not connect to anything: it asks the resolver and decides.

use std::sync::Arc;

use super::Egress;
use super::config::{Config, NextHop, UpstreamAddress, UpstreamHost};
use super::connect::Unusable;
use super::route::Destination;
use crate::envelope::Envelope;
use crate::io::Io;
use crate::resolve::Resolver;
use crate::resolve::sts::{Mode, Policy};
use crate::tls::client::{Dane, Demand, Wanted};
use crate::tls::config::Level;

/// How a message is to be protected on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protection {
    /// As it is configured.
    Configured,
    /// Its sender asks for TLS to the end (RFC 8689 §2).
    RequireTls,
    /// Its sender would rather have it delivered than protected as the recipients' domain asks (RFC 8689 §3).
    Waived,
}

impl Protection {
    /// Of a message. RFC 8689 §3: beside REQUIRETLS the header field counts for nothing.
    #[must_use]
    pub fn of(envelope: &Envelope) -> Self {
        match (envelope.mail.params.requiretls, envelope.waives_tls) {
            (true, _) => Self::RequireTls,
            (false, true) => Self::Waived,
            (false, false) => Self::Configured,
        }
    }

    /// Whether a failure means that this host cannot carry such a message, rather than that it cannot be reached.
    pub(super) fn is_lacking(self, why: &Unusable) -> bool {
        let lacks = matches!(
            why,
            Unusable::NoTls(_) | Unusable::Tls(_) | Unusable::Impossible(_) | Unusable::NoRequireTls
        );
        self == Self::RequireTls && lacks
    }
}

impl<I: Io> Egress<I> {
    /// What of a message's protection makes a difference here. Only what a recipient's domain asks for can be waived
    /// (RFC 8689 §4.2.2): an upstream that is configured, and a level that asks on its own, stay as they are.
    pub(super) fn effective(&self, protection: Protection) -> Protection {
        let config = self.config();
        let has_policies = match self.armour.borrow().demand.level {
            Level::Dane => true,
            Level::May | Level::Encrypt => config.mta_sts,
            Level::None | Level::DaneOnly | Level::Fingerprint | Level::Verify | Level::Secure => false,
        };
        match protection {
            Protection::Waived if !has_policies || self.is_fixed() => Protection::Configured,
            other => other,
        }
    }

    /// What is asked of one host of a destination.
    pub(super) async fn wanted(
        &self,
        demand: &Demand,
        destination: &Destination<I::Stream>,
        host: &Arc<str>,
    ) -> Wanted {
        let Destination { address, pool, protection } = destination;
        if *protection == Protection::Waived {
            let name = &pool.name;
            tracing::info!(event = "tls_policy_waived", upstream = %name, %host, reason = "TLS-Required: No");
            return demand.of(host, &address.host.name(), None);
        }
        let config = self.config();
        let inquiry = Inquiry { config: &config, demand, resolver: &self.resolver, address };
        let Findings { wanted, policy, .. } = inquiry.about(host).await;
        if *protection == Protection::Configured {
            return wanted;
        }
        // RFC 8689 §4.2.1: the way from the domain to the host must be proved; else the certificate is to name the domain.
        let is_looked_up = matches!(address.host, UpstreamHost::Mx(_));
        let is_proved = !is_looked_up || policy.is_some_and(|policy| policy.names(host));
        let next_hop = address.host.name();
        wanted.verified(host, if is_proved { None } else { Some(&next_hop) })
    }
}

/// What is to be found out about the hosts of an upstream.
pub struct Inquiry<'a> {
    /// The configuration in force.
    pub config: &'a Config,
    /// The level, and what it needs.
    pub demand: &'a Demand,
    /// Whom to ask.
    pub resolver: &'a Resolver,
    /// The upstream.
    pub address: &'a UpstreamAddress,
}

/// What was found out about one host.
#[derive(Debug)]
pub struct Findings {
    /// What DNS says of it, at the two DANE levels.
    pub tlsa: Option<Dane>,
    /// The MTA-STS policy of its domain, where it can make a difference.
    pub policy: Option<Arc<Policy>>,
    /// What follows from all that for a message that asks for nothing of its own.
    pub wanted: Wanted,
}

impl Inquiry<'_> {
    /// Asks about one host.
    pub async fn about(&self, host: &Arc<str>) -> Findings {
        let next_hop = self.address.host.name();
        let tlsa = self.tlsa(host).await;
        let wanted = self.demand.of(host, &next_hop, tlsa.as_ref());
        let policy = match self.domain_with_policy() {
            Some(domain) => self.resolver.policy(domain, self.demand.authorities()).await,
            None => None,
        };
        let wanted = match &policy {
            Some(policy) => under(wanted, policy, host, &next_hop),
            None => wanted,
        };
        Findings { tlsa, policy, wanted }
    }

    /// A host without a name has no records.
    async fn tlsa(&self, host: &Arc<str>) -> Option<Dane> {
        if !self.demand.asks_for_tlsa() || matches!(self.address.host, UpstreamHost::Address(_)) {
            return None;
        }
        let route = match &self.address.host {
            UpstreamHost::Mx(domain) if self.demand.asks_for_signed_route() => Some(domain),
            _ => None,
        };
        Some(self.resolver.dane(host, self.address.port, route).await)
    }

    /// The recipients' domain, where it is asked for its MTA-STS policy.
    #[must_use]
    pub fn domain_with_policy(&self) -> Option<&Arc<str>> {
        let is_open = matches!(self.demand.level, Level::May | Level::Encrypt | Level::Dane);
        match (&self.config.next_hop, &self.address.host) {
            (NextHop::RecipientMx { .. }, UpstreamHost::Mx(domain)) if self.config.mta_sts && is_open => {
                Some(domain)
            }
            _ => None,
        }
    }
}

/// RFC 8461 §5: what a policy makes of what is asked for otherwise.
fn under(wanted: Wanted, policy: &Policy, host: &str, domain: &str) -> Wanted {
    match policy.mode {
        Mode::Enforce if policy.names(host) => wanted.verified(host, None),
        Mode::Enforce => Wanted::Impossible(format!("the MTA-STS policy of {domain} does not name {host}")),
        Mode::Testing => {
            if !policy.names(host) {
                tracing::warn!(event = "mta_sts_testing", %domain, %host, reason = "not named by the policy");
            }
            wanted
        }
        Mode::None => wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::rule::{Name, Rule};

    fn policy(mode: &str) -> Policy {
        Policy::parse(&format!("version: STSv1\nmode: {mode}\nmx: *.a.example\nmax_age: 100")).unwrap()
    }

    #[test]
    fn a_policy_only_makes_it_stricter() {
        let verified = |host: &str| Wanted::Must(Rule::Trusted([Name::Host(host.into())].into()));
        let asked = |wanted, mode, host| under(wanted, &policy(mode), host, "a.example");
        assert_eq!(asked(Wanted::Maybe(Rule::Any), "enforce", "mx.a.example"), verified("mx.a.example"));
        assert_eq!(asked(Wanted::Must(Rule::Any), "enforce", "mx.a.example"), verified("mx.a.example"));
        assert!(matches!(asked(Wanted::Maybe(Rule::Any), "enforce", "mx.b.example"), Wanted::Impossible(_)));
        let dane = Wanted::Must(Rule::Dane([].into(), [].into()));
        assert_eq!(asked(dane.clone(), "enforce", "mx.a.example"), dane);
        for mode in ["testing", "none"] {
            assert_eq!(asked(Wanted::Maybe(Rule::Any), mode, "mx.b.example"), Wanted::Maybe(Rule::Any));
        }
    }

    #[test]
    fn requiretls_is_verified_at_any_level_that_has_tls() {
        for wanted in [Wanted::Maybe(Rule::Any), Wanted::Must(Rule::Any)] {
            let by_host = Rule::Trusted([Name::Host("mx.b.example".into())].into());
            assert_eq!(wanted.clone().verified("mx.b.example", None), Wanted::Must(by_host));
            let by_domain =
                Rule::Trusted([Name::Host("b.example".into()), Name::Below("b.example".into())].into());
            assert_eq!(wanted.verified("mx.b.example", Some("b.example")), Wanted::Must(by_domain));
        }
        assert!(matches!(Wanted::Never.verified("a.example", None), Wanted::Impossible(_)));
        let fingerprint = Wanted::Must(Rule::Fingerprint([].into()));
        assert_eq!(fingerprint.clone().verified("a.example", None), fingerprint);
    }
}
