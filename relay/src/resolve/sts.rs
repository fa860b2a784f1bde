//! MTA-STS (RFC 8461): what a domain promises of its exchangers' TLS, found by a TXT record and a file on the web.
//!
//! The record tells whether there is a policy, and by its id whether it is the one that is known; the policy itself is
//! fetched over HTTPS only when the id is new or the time of the known one is over. A known policy holds for its whole
//! time, whatever becomes of record and web server meanwhile, over restarts too (`kept`): an attacker who can suppress
//! both wins nothing (§10.2).
//!
//! It must not follow a redirection (§3.3), nor ask a web server that fails again before five minutes are over.

mod kept;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use self::kept::{Kept, Line};
use crate::https::{self, Answer, Fault, Location};
use crate::io::clock;
use crate::limits::{
    DNS_TRANSIENT_TTL, DNS_TTL_MAX, DNS_TTL_MIN, STS_LIFE_MAX, STS_PATTERNS_MAX, STS_POLICIES_MAX, STS_RETRY,
};
use crate::tls::rule::Authorities;

/// What a domain promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// What follows where the promise is not kept.
    pub mode: Mode,
    /// Names of exchangers, in lower case; `*.` in front stands for one label.
    exchangers: Vec<String>,
    life: Duration,
}

/// RFC 8461 §5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No mail without a trusted certificate, nor to an exchanger that is not named.
    Enforce,
    /// Mail goes as if there were no policy.
    Testing,
    /// There is no policy any more.
    None,
}

impl Mode {
    /// The mode of this name (§3.2).
    fn of(word: &str) -> Option<Self> {
        [Self::Enforce, Self::Testing, Self::None].into_iter().find(|mode| mode.word() == word)
    }

    /// Its name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Testing => "testing",
            Self::None => "none",
        }
    }
}

impl Policy {
    /// Reads a policy (RFC 8461 §3.2); `None` for what is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fields = || {
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .map(|(key, value)| (key.trim(), value.trim()))
        };
        // Of a field that stands twice the first counts; fields that nobody knows are left out.
        let first = |wanted: &str| fields().find(|(key, _)| *key == wanted).map(|(_, value)| value);
        if first("version") != Some("STSv1") {
            return None;
        }
        let mode = Mode::of(first("mode")?)?;
        let life = Duration::from_secs(first("max_age")?.parse().ok()?).min(STS_LIFE_MAX);
        let named = fields().filter(|(key, _)| *key == "mx").map(|(_, pattern)| pattern);
        let exchangers: Vec<_> = named.take(STS_PATTERNS_MAX).map(str::to_ascii_lowercase).collect();
        (mode == Mode::None || !exchangers.is_empty()).then_some(Self { mode, exchangers, life })
    }

    /// Whether it names an exchanger (§4.1).
    #[must_use]
    pub fn names(&self, host: &str) -> bool {
        self.pattern_of(host).is_some()
    }

    /// The name or pattern by which it names an exchanger.
    #[must_use]
    pub fn pattern_of(&self, host: &str) -> Option<&str> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let behind_first = host.split_once('.').map(|(_, rest)| rest);
        let names = |pattern: &&String| match pattern.strip_prefix("*.") {
            Some(domain) => behind_first == Some(domain),
            None => **pattern == host,
        };
        self.exchangers.iter().find(names).map(String::as_str)
    }
}

/// The id of the one MTA-STS record among the TXT records of a name (§3.1); `None`: there is none, or more than one.
#[must_use]
pub fn id_of<'a>(records: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut ours = records
        .filter(|text| text.strip_prefix("v=STSv1").is_some_and(|rest| rest.trim_start().starts_with(';')));
    let (record, None) = (ours.next()?, ours.next()) else { return None };
    let id = record
        .split(';')
        .filter_map(|field| field.split_once('='))
        .find(|(key, _)| key.trim() == "id")?
        .1
        .trim();
    ((1..=32).contains(&id.len()) && id.bytes().all(|octet| octet.is_ascii_alphanumeric()))
        .then(|| id.to_owned())
}

/// The policies of the process.
#[derive(Debug, Default)]
pub(super) struct Policies {
    known: Mutex<HashMap<Arc<str>, Known>>,
    kept: Option<Arc<Kept>>,
}

/// What is known of one domain.
#[derive(Debug, Clone, Default)]
struct Known {
    /// The id of the policy, and of the last one that could not be had.
    id: String,
    policy: Option<(Arc<Policy>, Instant)>,
    retry_at: Option<Instant>,
}

impl Known {
    fn policy(&self, now: Instant) -> Option<Arc<Policy>> {
        self.policy.as_ref().filter(|(_, until)| now < *until).map(|(policy, _)| Arc::clone(policy))
    }
}

/// What DNS says of the record: its id and for how long, that there is none, or nothing now.
pub(super) enum Record {
    Some(String, Duration),
    None,
    Failed,
}

impl Policies {
    /// The policies that are kept in a file, where further ones are kept too. May block.
    pub(super) fn kept_in(path: &Path) -> Self {
        let now_unix_secs = clock::unix_ms() / 1000;
        let (kept, lines) = Kept::open(path, now_unix_secs);
        let known = lines.into_iter().map(|line| {
            let life =
                Duration::from_secs(line.until_unix_secs.saturating_sub(now_unix_secs)).min(STS_LIFE_MAX);
            let policy = Policy { mode: line.mode, exchangers: line.exchangers, life };
            let policy = Some((Arc::new(policy), Instant::now() + life));
            (line.domain.into(), Known { id: line.id, policy, retry_at: None })
        });
        Self { known: Mutex::new(known.collect()), kept: Some(Arc::new(kept)) }
    }

    /// The policy of a domain, and how long it need not be asked for again. `fetch` asks the web.
    pub(super) async fn of(
        &self,
        domain: &Arc<str>,
        record: Record,
        fetch: impl Future<Output = Result<Policy, Fault>>,
    ) -> (Option<Arc<Policy>>, Duration) {
        let now = Instant::now();
        let mut known = self.known(domain);
        let (id, valid_for) = match record {
            Record::Some(id, valid_for) => (id, valid_for.clamp(DNS_TTL_MIN, DNS_TTL_MAX)),
            // §5.1: without a live policy the known one holds.
            Record::None => return (known.policy(now), DNS_TTL_MIN),
            Record::Failed => return (known.policy(now), DNS_TRANSIENT_TTL),
        };
        let is_known = id == known.id;
        if is_known && (known.policy(now).is_some() || known.retry_at.is_some_and(|at| now < at)) {
            return (known.policy(now), valid_for);
        }
        known.id = id;
        match fetch.await {
            Ok(policy) => {
                let until = now + policy.life;
                self.write_down(domain, &known.id, &policy);
                known.policy = Some((Arc::new(policy), until));
                known.retry_at = None;
            }
            Err(fault) => {
                tracing::warn!(event = "mta_sts_unavailable", %domain, reason = %fault);
                known.retry_at = Some(now + STS_RETRY);
            }
        }
        let policy = known.policy(now);
        self.keep(domain, known, now);
        (policy, valid_for)
    }

    /// On a thread of the runtime's own pool: disks may be slow.
    fn write_down(&self, domain: &Arc<str>, id: &str, policy: &Policy) {
        let Some(kept) = self.kept.clone() else { return };
        let line = Line {
            domain: (**domain).to_owned(),
            id: id.to_owned(),
            until_unix_secs: clock::unix_ms() / 1000 + policy.life.as_secs(),
            mode: policy.mode,
            exchangers: policy.exchangers.clone(),
        };
        tokio::task::spawn_blocking(move || kept.append(&line));
    }

    fn known(&self, domain: &str) -> Known {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(domain).cloned().unwrap_or_default()
    }

    fn keep(&self, domain: &Arc<str>, known: Known, now: Instant) {
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= STS_POLICIES_MAX {
            all.retain(|_, known| known.policy(now).is_some());
        }
        // Full of policies that hold: a new one is asked for each time.
        if all.len() < STS_POLICIES_MAX || all.contains_key(domain) {
            all.insert(Arc::clone(domain), known);
        }
    }
}

/// Where a domain's policy stands (§3.3).
pub(super) fn location_of(domain: &str) -> Location {
    Location { host: format!("mta-sts.{domain}").into(), port: 443, path: "/.well-known/mta-sts.txt".into() }
}

/// Fetches a policy.
pub(super) async fn fetch(
    location: &Location,
    addresses: &[SocketAddr],
    authorities: &Arc<Authorities>,
) -> Result<Policy, Fault> {
    judge(&https::ask(location, addresses, authorities, None).await?)
}

/// §3.3: 200 and nothing else is a policy; its type is text.
fn judge(answer: &Answer) -> Result<Policy, Fault> {
    if answer.status != 200 || answer.media_type != "text/plain" {
        return Err(Fault(format!("status {}, media type {:?}", answer.status, answer.media_type)));
    }
    let text = std::str::from_utf8(&answer.body).ok();
    text.and_then(Policy::parse).ok_or_else(|| Fault("not a policy".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::zeroize::Zeroizing;

    const TEXT: &str = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.Example.NET\r\nother: x\r\nmax_age: 604800\r\n";

    #[test]
    fn reads_the_policy_of_the_rfc() {
        let policy = Policy::parse(TEXT).unwrap();
        assert_eq!((policy.mode, policy.life), (Mode::Enforce, Duration::from_secs(604_800)));
        for named in ["mail.example.com", "MAIL.example.com.", "a.example.net"] {
            assert!(policy.names(named), "{named}");
        }
        for other in ["example.net", "a.b.example.net", "mail.example.org", "xmail.example.com", ""] {
            assert!(!policy.names(other), "{other}");
        }
        assert_eq!(Policy::parse("version: STSv1\nmode: none\nmax_age: 1").unwrap().mode, Mode::None);
    }

    #[test]
    fn what_lacks_a_field_is_no_policy() {
        for (field, without) in [("version", ""), ("mode", "mode: x\r\n"), ("max_age", "max_age: -1\r\n")] {
            let text: String = TEXT
                .lines()
                .filter(|line| !line.starts_with(field))
                .map(|line| format!("{line}\n"))
                .collect();
            assert_eq!(Policy::parse(&text), None, "{field}");
            assert_eq!(Policy::parse(&format!("{without}{text}")), None, "{field}");
        }
        assert_eq!(Policy::parse("version: STSv1\nmode: enforce\nmax_age: 1"), None, "no exchanger");
    }

    #[test]
    fn one_record_has_an_id_and_two_have_none() {
        let id = |records: &[&str]| id_of(records.iter().copied());
        assert_eq!(id(&["v=spf1 -all", "v=STSv1; id=20160831085700Z;"]).as_deref(), Some("20160831085700Z"));
        assert_eq!(id(&["v=STSv1;id=1"]).as_deref(), Some("1"));
        for wrong in [
            &["v=STSv1; id=1", "v=STSv1; id=2"][..],
            &["v=STSv10; id=1"],
            &["v=STSv1"],
            &["v=STSv1; id="],
            &["v=STSv1; id=a b"],
            &[],
        ] {
            assert_eq!(id(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn only_an_answer_of_200_in_plain_text_is_believed() {
        let answer = |status, media_type: &str| Answer {
            status,
            media_type: media_type.to_owned(),
            body: Zeroizing::new(TEXT.as_bytes().to_vec()),
        };
        assert!(judge(&answer(200, "text/plain")).is_ok());
        for (status, media_type) in [(301, "text/plain"), (404, "text/plain"), (200, "text/html"), (200, "")]
        {
            assert!(judge(&answer(status, media_type)).is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_known_policy_holds_for_its_time_and_a_failing_web_server_is_spared() {
        let policies = Policies::default();
        let domain: Arc<str> = "a.example".into();
        let text = TEXT.replace("604800", "1000");
        let good = || async { Ok(Policy::parse(&text).unwrap()) };
        let bad = || async { Err(Fault("down".to_owned())) };
        let unasked = || async { unreachable!("the web is not asked") };
        let record = |id: &str| Record::Some(id.to_owned(), Duration::from_secs(60));
        assert!(policies.of(&domain, record("1"), good()).await.0.is_some());
        assert!(policies.of(&domain, record("1"), unasked()).await.0.is_some());
        assert!(policies.of(&domain, Record::None, unasked()).await.0.is_some());
        assert!(policies.of(&domain, Record::Failed, unasked()).await.0.is_some());
        assert!(policies.of(&domain, record("2"), bad()).await.0.is_some(), "the known one holds");
        tokio::time::advance(Duration::from_secs(1001)).await;
        assert!(policies.of(&domain, record("2"), bad()).await.0.is_none());
        assert!(
            policies.of(&domain, record("2"), unasked()).await.0.is_none(),
            "not before five minutes are over"
        );
        tokio::time::advance(STS_RETRY).await;
        assert!(policies.of(&domain, record("2"), good()).await.0.is_some());
    }
}
