//! From what was written to what is meant: each module's own `Config`, or every mistake at once.
//!
//! A function here takes all its variables before it judges any, so that no mistake hides another.

mod inbound;
mod outbound;
mod process;

use super::checker::{Checker, is_off};
use super::features::{Feature, Features};
use super::raw::Raw;
use super::report::Origin;
use super::values::{Wrong, whole};
use super::variable::Variable;
use super::variables::{
    EXT_RELAY_PORT, OUTGOING_SMTP_AUTH, OUTGOING_SMTP_LOGIN, OUTGOING_SMTP_PASSWORD, ROUTES,
};
use super::variables::{RELAY_HOST_NAME, WORKERS};
use super::{Config, Host, Loaded, Refused};
use super::{addresses, kind::Kind};

/// Checks everything that was written.
pub(super) fn check(raw: &Raw, host: &Host, build: Features) -> Result<Loaded, Refused> {
    let mut checker = Checker::new(raw, build);
    let config = checker.config(host);
    let Checker { mistakes, warnings, effective, .. } = checker;
    match config {
        Some(config) if mistakes.is_empty() => Ok(Loaded { config, warnings, effective }),
        _ => Err(Refused { mistakes, warnings }),
    }
}

impl Checker<'_> {
    fn config(&mut self, host: &Host) -> Option<Config> {
        let auth = self.text(&OUTGOING_SMTP_AUTH);
        let has_no_login = auth.is_some_and(|(text, _)| is_off(text.trim()));
        let name = self.relay_host_name(host);
        let name = name.as_ref();
        let ingress = self.ingress(name);
        let egress = self.egress(name);
        let state_dir = self.state_dir();
        let tls = self.tls(name, state_dir.as_ref());
        let spool = self.spool(state_dir.as_ref());
        let gate = self.gate();
        let control = self.control();
        let log = self.log();
        let workers = self.workers(host);
        self.routes();
        self.refuse_shared_addresses(ingress.as_ref(), control.as_ref());
        self.warn_of_loop(ingress.as_ref(), egress.as_ref());
        self.judge_together(ingress.as_ref(), egress.as_ref(), tls.as_ref(), gate.as_ref());
        self.refuse_unbuilt(|variable| {
            has_no_login && [&OUTGOING_SMTP_LOGIN, &OUTGOING_SMTP_PASSWORD].contains(&variable)
        });
        Some(Config {
            ingress: ingress?,
            egress: egress?,
            tls: tls?,
            spool: spool?,
            gate: gate?,
            control: control?,
            log: log?,
            workers: workers?,
        })
    }

    fn relay_host_name(&mut self, host: &Host) -> Option<std::sync::Arc<str>> {
        if self.is_written(&RELAY_HOST_NAME) {
            return self.one(&RELAY_HOST_NAME, addresses::host_name);
        }
        let origin = Origin::Default(RELAY_HOST_NAME.default_in_words);
        self.effective.set(&RELAY_HOST_NAME, &host.name, origin.clone());
        let name = addresses::host_name(&host.name).ok();
        if name.is_none() {
            let problem = format!("expected {}", RELAY_HOST_NAME.kind.expected());
            self.mistake(&RELAY_HOST_NAME, &host.name, &origin, problem);
        }
        name
    }

    fn workers(&mut self, host: &Host) -> Option<u16> {
        if self.is_written(&WORKERS) {
            return self.integer(&WORKERS);
        }
        let workers = u16::try_from(host.cpus).unwrap_or(u16::MAX).clamp(1, 1024);
        self.effective.set(&WORKERS, &workers.to_string(), Origin::Default(WORKERS.default_in_words));
        Some(workers)
    }

    fn routes(&mut self) {
        let Some((text, origin)) = self.text(&ROUTES) else { return };
        if !text.is_empty() && !matches!(origin, Origin::File { .. }) {
            self.mistake(&ROUTES, &text, &origin, format!("expected {}", ROUTES.kind.expected()));
        }
    }

    /// A whole number within the bounds of the variable's kind.
    fn integer<T: TryFrom<u64>>(&mut self, variable: &'static Variable) -> Option<T> {
        let (min, max) = match variable.kind {
            Kind::Integer(min, max) => (min, max),
            _ => (0, u64::MAX),
        };
        self.one(variable, |text| {
            let number = whole::<u64>(text).ok().filter(|number| (min..=max).contains(number));
            number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| match text.contains("://") {
                true => Wrong::because(KUBERNETES),
                false => Wrong::default(),
            })
        })
    }

    fn port(&mut self) -> Option<u16> {
        let port = self.integer(&EXT_RELAY_PORT)?;
        if port == SUBMISSIONS_PORT && !self.has(Feature::Tls) {
            self.mistake_about(&EXT_RELAY_PORT, TLS_PORT_UNBUILT);
            return None;
        }
        Some(port)
    }
}

/// The port that means TLS from the first octet (RFC 8314 §7.3).
const SUBMISSIONS_PORT: u16 = 465;
const TLS_PORT_UNBUILT: &str = "465 means TLS from the first octet, and TLS is not in this build";
/// Kubernetes writes `EXT_RELAY_PORT=tcp://10.0.0.1:25` for a service that is called `ext-relay`.
const KUBERNETES: &str =
    "this looks like a service link of Kubernetes: enableServiceLinks: false keeps them out";
