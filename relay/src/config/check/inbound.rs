//! The inbound side: listeners, networks, logins, limits.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use secrecy::SecretString;

use super::super::addresses::{address_pattern, host_name, listen, loopback, mail_address, network};
use super::super::checker::Checker;
use super::super::report::{Origin, shown};
use super::super::values::{Wrong, items, positive_duration, rate, size, word};
use super::super::variable::Variable;
use super::super::variables::{
    ACCEPTED_NETWORKS, ALLOWED_RECIPIENTS, ALLOWED_SENDERS, ALWAYS_BCC, BARE_NEWLINE, CLIENT_RATE,
    COMMAND_TIMEOUT, DATA_TIMEOUT, DENIED_RECIPIENTS, DENIED_SENDERS, EXT_RELAY_HOST, HOPS_MAX,
    INCOMING_SMTP_AUTHDOM, INCOMING_SMTP_AUTHLOGIN, INCOMING_SMTP_AUTHPASSWORD, INCOMING_SMTP_SENDERS,
    INCOMING_SMTP_USERS, LISTEN_ADMIN, LISTEN_SMTP, LISTEN_SUBMISSION, LISTEN_SUBMISSIONS, MAIL_FROM_FQDN,
    MESSAGE_SIZE_MAX, PROXY_PROTOCOL, RECIPIENTS_MAX, SESSION_MIN_RATE, SESSIONS_MAX,
    SESSIONS_PER_CLIENT_MAX, SUBMISSION_NETWORKS,
};
use crate::config::control;
use crate::egress;
use crate::egress::config::{NextHop, UpstreamAddress, UpstreamHost};
use crate::ingress::Config;
use crate::ingress::config::{BareNewline, Login};
use crate::ingress::login::check_kept;
use crate::policy::acl::{AddressList, Networks};

impl Checker<'_> {
    pub(super) fn ingress(&mut self, name: Option<&Arc<str>>) -> Option<Config> {
        let logins = self.logins();
        let listeners = self.listeners(logins.as_deref());
        let networks = self.networks();
        let limits = self.limits();
        let lists = self.address_lists();
        let mail_from_fqdn = self.maybe(&MAIL_FROM_FQDN, host_name);
        let always_bcc = self.list(&ALWAYS_BCC, mail_address);
        let ([listen_smtp, listen_submission, listen_submissions], networks) = (listeners?, networks?);
        let (limits, lists) = (limits?, lists?);
        let [accepted_networks, submission_networks, proxy_protocol] = networks;
        let [allowed_senders, denied_senders, allowed_recipients, denied_recipients] = lists;
        Some(Config {
            relay_host_name: name?.clone(),
            listen_smtp,
            listen_submission,
            listen_submissions,
            accepted_networks,
            submission_networks,
            proxy_protocol,
            message_size_max: limits.message_size_max,
            recipients_max: limits.recipients_max,
            sessions_max: limits.sessions_max,
            sessions_per_client_max: limits.sessions_per_client_max,
            client_rate: limits.client_rate,
            command_timeout: limits.command_timeout,
            data_timeout: limits.data_timeout,
            session_min_rate: limits.session_min_rate,
            hops_max: limits.hops_max,
            bare_newline: limits.bare_newline,
            allowed_senders,
            denied_senders,
            allowed_recipients,
            denied_recipients,
            logins: logins?,
            mail_from_fqdn: mail_from_fqdn?,
            always_bcc: always_bcc?,
        })
    }

    fn listeners(&mut self, logins: Option<&[Login]>) -> Option<[Vec<SocketAddr>; 3]> {
        let smtp = self.list(&LISTEN_SMTP, listen);
        let mut submission = |variable| {
            let addresses = self.list(variable, listen)?;
            if logins.is_some_and(<[Login]>::is_empty) && !addresses.is_empty() {
                self.warn(variable, "closed: no incoming login is set");
                self.effective.set(variable, "", Origin::Default("closed: no incoming login is set"));
                return Some(Vec::new());
            }
            Some(addresses)
        };
        let submissions = [submission(&LISTEN_SUBMISSION), submission(&LISTEN_SUBMISSIONS)];
        let [submission, submissions] = submissions;
        Some([smtp?, submission?, submissions?])
    }

    /// Accepted, submission and PROXY networks.
    fn networks(&mut self) -> Option<[Networks; 3]> {
        let accepted = self.list(&ACCEPTED_NETWORKS, network);
        let submission = if self.is_written(&SUBMISSION_NETWORKS) {
            self.list(&SUBMISSION_NETWORKS, network)
        } else {
            let text = self.effective.text(&ACCEPTED_NETWORKS).unwrap_or_default().to_owned();
            let origin = Origin::Default(SUBMISSION_NETWORKS.default_in_words);
            self.effective.set(&SUBMISSION_NETWORKS, &text, origin);
            accepted.clone()
        };
        let proxy = self.list(&PROXY_PROTOCOL, network);
        let with_loopback = |nets: Vec<IpNet>| Networks::new(nets.into_iter().chain(loopback()));
        Some([with_loopback(accepted?), with_loopback(submission?), Networks::new(proxy?)])
    }

    fn limits(&mut self) -> Option<Limits> {
        let message_size_max = self.one(&MESSAGE_SIZE_MAX, size);
        let recipients_max = self.integer(&RECIPIENTS_MAX);
        let sessions_max = self.integer(&SESSIONS_MAX);
        let sessions_per_client_max = self.integer(&SESSIONS_PER_CLIENT_MAX);
        let client_rate = self.maybe(&CLIENT_RATE, rate);
        let command_timeout = self.one(&COMMAND_TIMEOUT, positive_duration);
        let data_timeout = self.one(&DATA_TIMEOUT, positive_duration);
        let session_min_rate = self.integer(&SESSION_MIN_RATE);
        let hops_max = self.integer(&HOPS_MAX);
        let bare_newline = self.one(&BARE_NEWLINE, |text| {
            word(text, &[("normalize", BareNewline::Normalize), ("reject", BareNewline::Reject)])
        });
        Some(Limits {
            message_size_max: message_size_max?,
            recipients_max: recipients_max?,
            sessions_max: sessions_max?,
            sessions_per_client_max: sessions_per_client_max?,
            client_rate: client_rate?,
            command_timeout: command_timeout?,
            data_timeout: data_timeout?,
            session_min_rate: session_min_rate?,
            hops_max: hops_max?,
            bare_newline: bare_newline?,
        })
    }

    fn address_lists(&mut self) -> Option<[AddressList; 4]> {
        let mut list = |variable| self.list(variable, address_pattern).map(AddressList::new);
        let lists =
            [&ALLOWED_SENDERS, &DENIED_SENDERS, &ALLOWED_RECIPIENTS, &DENIED_RECIPIENTS].map(&mut list);
        let [allowed_senders, denied_senders, allowed_recipients, denied_recipients] = lists;
        Some([allowed_senders?, denied_senders?, allowed_recipients?, denied_recipients?])
    }

    /// The one login of three variables, and the further ones.
    fn logins(&mut self) -> Option<Vec<Login>> {
        let login = self.maybe(&INCOMING_SMTP_AUTHLOGIN, plain_text);
        let domain = self.maybe(&INCOMING_SMTP_AUTHDOM, host_name);
        let password = self.maybe(&INCOMING_SMTP_AUTHPASSWORD, |text| Ok(Arc::new(SecretString::from(text))));
        let users = self.lines(&INCOMING_SMTP_USERS, user);
        let senders = self.lines(&INCOMING_SMTP_SENDERS, senders_of_user);
        let trio = [&INCOMING_SMTP_AUTHLOGIN, &INCOMING_SMTP_AUTHDOM, &INCOMING_SMTP_AUTHPASSWORD];
        if !self.all_or_none(&trio) {
            return None;
        }
        let one = login?.zip(domain?).zip(password?).map(|((login, domain), password)| Login {
            name: Arc::from(format!("{login}@{domain}")),
            password,
            senders: None,
        });
        let mut logins: Vec<Login> = one.into_iter().chain(users?).collect();
        logins.sort_by(|one, other| one.name.cmp(&other.name));
        if let Some(pair) = logins.windows(2).find(|pair| pair[0].name == pair[1].name) {
            let problem = format!("the user {} stands here twice", shown(&pair[0].name));
            self.mistake_about(&INCOMING_SMTP_USERS, problem);
        }
        for (name, patterns) in senders? {
            match logins.iter_mut().find(|login| login.name == name) {
                Some(login) if login.senders.is_none() => login.senders = Some(AddressList::new(patterns)),
                Some(_) => {
                    let problem = format!("the user {} stands here twice", shown(&name));
                    self.mistake_about(&INCOMING_SMTP_SENDERS, problem);
                }
                None => {
                    let problem =
                        format!("expected users of INCOMING_SMTP_USERS, and {} is none", shown(&name));
                    self.mistake_about(&INCOMING_SMTP_SENDERS, problem);
                }
            }
        }
        Some(logins)
    }

    /// Whether all of these variables are written, or none; notes a mistake for each missing one.
    pub(super) fn all_or_none(&mut self, variables: &[&'static Variable]) -> bool {
        let is_missing = |variable: &&&'static Variable| !self.is_written(variable);
        let missing: Vec<_> = variables.iter().filter(is_missing).copied().collect();
        if missing.is_empty() || missing.len() == variables.len() {
            return true;
        }
        let names: Vec<&str> = variables.iter().map(|variable| variable.name).collect();
        for variable in missing {
            self.mistake_about(variable, format!("missing: expected all of {} or none", names.join(", ")));
        }
        false
    }

    /// One socket cannot serve two listeners, and no address may stand twice.
    pub(super) fn refuse_shared_addresses(
        &mut self,
        ingress: Option<&Config>,
        control: Option<&control::Config>,
    ) {
        let (Some(ingress), Some(control)) = (ingress, control) else { return };
        let listeners = [
            (&LISTEN_SMTP, &ingress.listen_smtp),
            (&LISTEN_SUBMISSION, &ingress.listen_submission),
            (&LISTEN_SUBMISSIONS, &ingress.listen_submissions),
            (&LISTEN_ADMIN, &control.listen_admin),
        ];
        let all: Vec<(&'static Variable, SocketAddr)> = listeners
            .iter()
            .flat_map(|(variable, list)| list.iter().map(move |one| (*variable, *one)))
            .collect();
        for (at, (variable, address)) in all.iter().enumerate() {
            let clash = all[..at].iter().find(|(other, earlier)| {
                address == earlier && address.port() != 0
                    || (other != variable && overlap(*address, *earlier))
            });
            if let Some((other, earlier)) = clash {
                self.mistake_about(
                    variable,
                    format!("{address} is taken: {earlier} stands in {}", other.name),
                );
            }
        }
    }

    /// An upstream by address that is a listener of our own: mail goes round until it has too many hops. Where a name leads
    /// is not known here.
    pub(super) fn warn_of_loop(&mut self, ingress: Option<&Config>, egress: Option<&egress::Config>) {
        let (Some(ingress), Some(egress)) = (ingress, egress) else { return };
        let NextHop::Upstreams(upstreams) = &egress.next_hop else { return };
        let listeners = [&ingress.listen_smtp, &ingress.listen_submission, &ingress.listen_submissions];
        for UpstreamAddress { host, port } in upstreams {
            let UpstreamHost::Address(ip) = host else { continue };
            let reaches = |listener: &&SocketAddr| {
                let is_every = listener.ip().is_unspecified() && listener.is_ipv4() == ip.is_ipv4();
                listener.port() == *port && (listener.ip() == *ip || is_every && ip.is_loopback())
            };
            if let Some(listener) = listeners.iter().flat_map(|list| list.iter()).find(reaches) {
                let text =
                    format!("leads back to this relay, which listens at {listener}: mail would go round");
                self.warn(&EXT_RELAY_HOST, text);
            }
        }
    }
}

/// The limits of §3.5, on their way into the configuration.
struct Limits {
    message_size_max: crate::units::Octets,
    recipients_max: u32,
    sessions_max: u32,
    sessions_per_client_max: u32,
    client_rate: Option<crate::policy::rate::Rate>,
    command_timeout: std::time::Duration,
    data_timeout: std::time::Duration,
    session_min_rate: u32,
    hops_max: u32,
    bare_newline: BareNewline,
}

/// A text without control characters.
pub(super) fn plain_text(text: &str) -> Result<Arc<str>, Wrong> {
    if text.chars().any(char::is_control) {
        return Err(Wrong::because("without control characters"));
    }
    Ok(Arc::from(text))
}

fn user(line: &str) -> Result<Login, Wrong> {
    let (name, password) = line.trim_end_matches('\r').split_once(':').ok_or_else(Wrong::default)?;
    if name.trim().is_empty() || password.is_empty() {
        return Err(Wrong::default());
    }
    check_kept(password).map_err(|_| Wrong::because("with a whole bcrypt or argon2 hash, or plain"))?;
    Ok(Login {
        name: plain_text(name.trim())?,
        password: Arc::new(SecretString::from(password)),
        senders: None,
    })
}

/// The sender addresses of one user.
fn senders_of_user(line: &str) -> Result<(Arc<str>, Vec<String>), Wrong> {
    let (name, patterns) = line.split_once(':').ok_or_else(Wrong::default)?;
    if name.trim().is_empty() {
        return Err(Wrong::default());
    }
    let patterns = items(patterns).map(address_pattern).collect::<Result<_, _>>()?;
    Ok((plain_text(name.trim())?, patterns))
}

/// Whether two sockets of one family and port would take each other's connections.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let is_any = |ip: IpAddr| ip.is_unspecified();
    one.port() == other.port()
        && one.port() != 0
        && one.is_ipv4() == other.is_ipv4()
        && (one.ip() == other.ip() || is_any(one.ip()) || is_any(other.ip()))
}
