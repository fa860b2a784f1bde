//! What a listener offers, and the reply to EHLO that says so.
//!
//! EHLO tells the truth: an extension is named exactly when the machine takes its commands and parameters, because
//! both ask the same [`Profile`].

use std::sync::Arc;

use super::auth::Mechanism;
use super::body::BareNewline;
use super::params::Offer;
use super::reply::Reply;

/// What one session offers and bounds; the machine of [`super::server`] takes it as given.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The name in the banner and in the replies to EHLO and HELO.
    pub host_name: Arc<str>,
    /// What kind of listener it is.
    pub role: Role,
    /// Whether STARTTLS is offered, outside TLS.
    pub starttls: bool,
    /// Whether the session is inside TLS already.
    pub tls: bool,
    /// The mechanisms of AUTH, offered inside TLS only (invariant 6); empty: no AUTH.
    pub auth: &'static [Mechanism],
    /// Octets of the largest message, as RFC 1870 counts them; 0: no bound.
    pub size_max: u64,
    /// Recipients of one transaction.
    pub recipients_max: u32,
    /// Whether SMTPUTF8 is offered (RFC 6531).
    pub smtputf8: bool,
    /// Whether CHUNKING is offered (RFC 3030).
    pub chunking: bool,
    /// Whether DSN is offered (RFC 3461).
    pub dsn: bool,
    /// Whether REQUIRETLS is offered, inside TLS only (RFC 8689 §2).
    pub requiretls: bool,
    /// What becomes of a bare CR or LF in a message.
    pub bare_newline: BareNewline,
}

/// What kind of listener a session came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Port 25: who may relay is judged by address, at RCPT, by the driver.
    Relay,
    /// Ports 587 and 465: nothing without TLS, no mail without a login (RFC 6409 §4.3).
    Submission,
}

impl Profile {
    /// A relay profile with everything that is offered without TLS, and bounds for a message of 25 MiB.
    #[must_use]
    pub fn relay(host_name: Arc<str>) -> Self {
        Self {
            host_name,
            role: Role::Relay,
            starttls: false,
            tls: false,
            auth: &[],
            size_max: 25 << 20,
            recipients_max: 1000,
            smtputf8: true,
            chunking: true,
            dsn: true,
            requiretls: false,
            bare_newline: BareNewline::Normalize,
        }
    }

    /// Whether STARTTLS may come: not twice (RFC 3207 §4.2).
    #[must_use]
    pub fn offers_starttls(&self) -> bool {
        self.starttls && !self.tls
    }

    /// Whether AUTH may come.
    #[must_use]
    pub fn offers_auth(&self) -> bool {
        self.tls && !self.auth.is_empty()
    }

    /// The parameters of MAIL and RCPT that go with it. A client that said HELO was offered nothing.
    #[must_use]
    pub fn offer(&self, is_esmtp: bool) -> Offer {
        Offer {
            esmtp: is_esmtp,
            smtputf8: is_esmtp && self.smtputf8,
            dsn: is_esmtp && self.dsn,
            auth: is_esmtp && self.offers_auth(),
            requiretls: is_esmtp && self.requiretls && self.tls,
        }
    }

    /// Whether a message of so many octets is too big.
    #[must_use]
    pub fn is_too_big(&self, octets: u64) -> bool {
        self.size_max != 0 && octets > self.size_max
    }

    /// The reply to HELO: no extensions, and no enhanced code (RFC 2034 §4).
    #[must_use]
    pub fn helo_reply(&self) -> Reply {
        Reply::new(250, None, self.host_name.to_string())
    }

    /// The reply to EHLO (RFC 5321 §4.1.1.1), one extension a line.
    #[must_use]
    pub fn ehlo_reply(&self) -> Reply {
        let mut text = String::with_capacity(256);
        text.push_str(&self.host_name);
        text.push_str("\nPIPELINING\nSIZE ");
        text.push_str(&self.size_max.to_string());
        text.push_str("\n8BITMIME\nENHANCEDSTATUSCODES\nLIMITS RCPTMAX=");
        text.push_str(&self.recipients_max.to_string());
        let optional = [
            (self.smtputf8, "\nSMTPUTF8"),
            (self.chunking, "\nCHUNKING"),
            (self.dsn, "\nDSN"),
            (self.offers_starttls(), "\nSTARTTLS"),
            (self.requiretls && self.tls, "\nREQUIRETLS"),
            (self.offers_auth(), "\nAUTH"),
        ];
        for (_, line) in optional.iter().filter(|(is_offered, _)| *is_offered) {
            text.push_str(line);
        }
        for mechanism in self.auth.iter().filter(|_| self.offers_auth()) {
            text.push(' ');
            text.push_str(mechanism.name());
        }
        Reply::new(250, None, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ehlo_names_what_may_come_and_nothing_else() {
        let mut profile = Profile::relay("mx.example".into());
        profile.starttls = true;
        profile.requiretls = true;
        profile.auth = &[Mechanism::Plain, Mechanism::Login];
        let plain = "mx.example\nPIPELINING\nSIZE 26214400\n8BITMIME\nENHANCEDSTATUSCODES\nLIMITS RCPTMAX=1000\n\
                     SMTPUTF8\nCHUNKING\nDSN";
        assert_eq!(profile.ehlo_reply().text(), format!("{plain}\nSTARTTLS"));
        assert!(!profile.offer(true).auth && !profile.offer(true).requiretls);
        profile.tls = true;
        assert_eq!(profile.ehlo_reply().text(), format!("{plain}\nREQUIRETLS\nAUTH PLAIN LOGIN"));
        assert!(profile.offer(true).auth && profile.offer(true).requiretls);
        assert_eq!(profile.offer(false), Offer::default());
    }
}
