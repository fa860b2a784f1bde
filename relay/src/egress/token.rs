//! Access tokens for XOAUTH2 and OAUTHBEARER: where they come from, the one that is good now, and its renewal.
//!
//! Theory of operation. A configuration with tokens holds a [`Shelf`]; the [`Keeper`] on the control plane puts tokens
//! onto it as long as anybody has it, and workers take what lies there for each login. A token by refresh (RFC 6749 §6)
//! is renewed before it ends, or at once where the upstream refuses it; a token in a file is read when the file changes.
//!
//! It must not log a token, a secret, or an answer of the token endpoint.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::sync::Notify;

use crate::https::{self, Fault, Location, encoded};
use crate::limits::{
    CERTIFICATE_LOOK, TOKEN_LIFE_DEFAULT, TOKEN_MARGIN_MIN, TOKEN_OCTETS_MAX, TOKEN_RETRY_MAX,
    TOKEN_RETRY_MIN, TOKEN_SHELVES_MAX,
};
use crate::resolve::{self, Kind};
use crate::tls::rule::Authorities;

/// Where tokens come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// `OUTGOING_OAUTH_TOKEN_PATH`: a file that somebody else keeps fresh.
    File(PathBuf),
    /// A refresh token, exchanged at an endpoint.
    Refresh(Refresh),
}

/// What a refresh token is exchanged by (RFC 6749 §6).
#[derive(Debug, Clone)]
pub struct Refresh {
    /// `OUTGOING_OAUTH_ENDPOINT`.
    pub endpoint: Location,
    /// `OUTGOING_OAUTH_CLIENT_ID`.
    pub client_id: Arc<str>,
    /// `OUTGOING_OAUTH_CLIENT_SECRET`; none: a public client.
    pub client_secret: Option<SecretString>,
    /// `OUTGOING_OAUTH_REFRESH_TOKEN`.
    pub refresh_token: SecretString,
    /// `OUTGOING_OAUTH_SCOPE`.
    pub scope: Option<Arc<str>>,
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        let bare =
            |secret: &Option<SecretString>| secret.as_ref().map(|text| text.expose_secret().to_owned());
        match (self, other) {
            (Self::File(one), Self::File(other)) => one == other,
            (Self::Refresh(one), Self::Refresh(other)) => {
                (&one.endpoint, &one.client_id, &one.scope)
                    == (&other.endpoint, &other.client_id, &other.scope)
                    && bare(&one.client_secret) == bare(&other.client_secret)
                    && one.refresh_token.expose_secret() == other.refresh_token.expose_secret()
            }
            _ => false,
        }
    }
}

/// The place where the token lies that is good now. Equal to another of the same source.
#[derive(Debug)]
pub struct Shelf {
    source: Source,
    token: ArcSwapOption<SecretString>,
    /// The refresh token that the endpoint has given in place of the configured one.
    refresh_token: ArcSwapOption<SecretString>,
    refused: Arc<Notify>,
}

impl PartialEq for Shelf {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Shelf {
    /// An empty one.
    #[must_use]
    pub fn new(source: Source) -> Arc<Self> {
        Arc::new(Self {
            source,
            token: ArcSwapOption::empty(),
            refresh_token: ArcSwapOption::empty(),
            refused: Arc::default(),
        })
    }

    /// The token that is good now; `None`: there was none yet.
    #[must_use]
    pub fn token(&self) -> Option<SecretString> {
        self.token.load().as_deref().cloned()
    }

    /// The upstream has refused the token: another is asked for.
    pub fn refuse(&self) {
        self.refused.notify_one();
    }
}

/// The way to the [`Keeper`], for whoever has a configuration with tokens.
#[derive(Debug, Clone)]
pub struct Keeping {
    asked: flume::Sender<(Weak<Shelf>, Arc<Authorities>)>,
    /// Shelves that are in force or may be again, after a reload that is refused.
    known: Arc<Mutex<Vec<Weak<Shelf>>>>,
}

impl Keeping {
    /// Has tokens put onto a shelf from now on. What lies on one of the same source is taken over.
    pub fn keep(&self, shelf: &Arc<Shelf>, authorities: &Arc<Authorities>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|before| before.strong_count() > 0);
        if let Some(before) = known.iter().filter_map(Weak::upgrade).rfind(|before| before == shelf) {
            shelf.token.store(before.token.load_full());
            shelf.refresh_token.store(before.refresh_token.load_full());
        }
        known.push(Arc::downgrade(shelf));
        // Without a keeper the process is ending; one that is behind by so many reloads has other troubles.
        let _ = self.asked.try_send((Arc::downgrade(shelf), Arc::clone(authorities)));
    }
}

/// Keeps the tokens of all shelves fresh. Runs on tokio.
pub struct Keeper {
    asked: flume::Receiver<(Weak<Shelf>, Arc<Authorities>)>,
    look_ups: flume::Sender<resolve::Request>,
}

/// A keeper that resolves names by this service, and the way to it.
#[must_use]
pub fn keeper(look_ups: flume::Sender<resolve::Request>) -> (Keeping, Keeper) {
    let (sender, asked) = flume::bounded(TOKEN_SHELVES_MAX);
    (Keeping { asked: sender, known: Arc::default() }, Keeper { asked, look_ups })
}

impl Keeper {
    /// Keeps tokens until nobody can ask any more.
    pub async fn run(self) {
        while let Ok((shelf, authorities)) = self.asked.recv_async().await {
            tokio::spawn(keep(shelf, authorities, self.look_ups.clone()));
        }
    }
}

/// Keeps one shelf until nobody has it any more.
async fn keep(shelf: Weak<Shelf>, authorities: Arc<Authorities>, look_ups: flume::Sender<resolve::Request>) {
    let mut failures = 0u32;
    let mut known_fault = String::new();
    while let Some(shelf) = shelf.upgrade() {
        let wait = match obtain(&shelf, &authorities, &look_ups).await {
            Ok(token) => {
                let is_new =
                    shelf.token().is_none_or(|old| old.expose_secret() != token.secret.expose_secret());
                if is_new {
                    tracing::info!(
                        event = "token_renewed",
                        valid_seconds = token.valid_for.map(|life| life.as_secs())
                    );
                    shelf.token.store(Some(Arc::new(token.secret)));
                }
                failures = 0;
                known_fault.clear();
                token.valid_for.map_or(CERTIFICATE_LOOK, renewal_after)
            }
            Err(Fault(reason)) => {
                if known_fault != reason {
                    tracing::error!(event = "token_not_renewed", %reason);
                    known_fault = reason;
                }
                failures = failures.saturating_add(1);
                retry_after(failures)
            }
        };
        // The shelf is not held meanwhile: one that a reload has replaced goes at once, with what lies on it.
        let refused = Arc::clone(&shelf.refused);
        drop(shelf);
        let _either = tokio::time::timeout(wait, refused.notified()).await;
    }
}

/// A token fresh from its source.
struct Token {
    secret: SecretString,
    /// `None`: nobody says.
    valid_for: Option<Duration>,
}

async fn obtain(
    shelf: &Shelf,
    authorities: &Arc<Authorities>,
    look_ups: &flume::Sender<resolve::Request>,
) -> Result<Token, Fault> {
    match &shelf.source {
        Source::File(path) => {
            let path = path.clone();
            let read = tokio::task::spawn_blocking(move || read(&path)).await;
            read.unwrap_or_else(|_| Err(Fault("reading the token failed".to_owned())))
        }
        Source::Refresh(refresh) => {
            let latest = shelf.refresh_token.load_full();
            let form = form(refresh, latest.as_deref().unwrap_or(&refresh.refresh_token));
            let addresses = addresses(&refresh.endpoint, look_ups).await?;
            let answer = https::ask(&refresh.endpoint, &addresses, authorities, Some(&form)).await?;
            let granted = granted(answer.status, &answer.body)?;
            // RFC 6749 §6: a new refresh token takes the place of the old one.
            if let Some(new) = granted.refresh_token {
                shelf.refresh_token.store(Some(Arc::new(new)));
            }
            Ok(Token { secret: granted.access_token, valid_for: Some(granted.valid_for) })
        }
    }
}

fn read(path: &Path) -> Result<Token, Fault> {
    let fault = |why: String| Fault(format!("OUTGOING_OAUTH_TOKEN_PATH={}: {why}", path.display()));
    let octets = fs::metadata(path).map_err(|error| fault(error.to_string()))?.len();
    if octets > TOKEN_OCTETS_MAX as u64 {
        return Err(fault("too large for a token".to_owned()));
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(|error| fault(error.to_string()))?);
    let token = checked(text.trim()).ok_or_else(|| fault("holds no token".to_owned()))?;
    Ok(Token { secret: token, valid_for: None })
}

async fn addresses(
    endpoint: &Location,
    look_ups: &flume::Sender<resolve::Request>,
) -> Result<Vec<std::net::SocketAddr>, Fault> {
    if let Ok(address) = endpoint.host.parse() {
        return Ok(vec![std::net::SocketAddr::new(address, endpoint.port)]);
    }
    let (answer, answered) = flume::bounded(1);
    let query = resolve::Query { name: Arc::clone(&endpoint.host), kind: Kind::AddressOnly, answer };
    let unanswered = || Fault(format!("{}: name look-ups are busy", endpoint.host));
    look_ups.try_send(resolve::Request::Look(query)).map_err(|_| unanswered())?;
    let resolution = answered.recv_async().await.map_err(|_| unanswered())?;
    let resolution = resolution.map_err(|failure| Fault(format!("{}: {failure:?}", endpoint.host)))?;
    let hosts = resolution.hosts.into_iter().flat_map(|host| host.addresses);
    Ok(hosts.map(|address| std::net::SocketAddr::new(address, endpoint.port)).collect())
}

/// RFC 6749 §6, with the client's secret in the form (§2.3.1).
fn form(refresh: &Refresh, refresh_token: &SecretString) -> Zeroizing<String> {
    let mut form = Zeroizing::new(String::from("grant_type=refresh_token"));
    let mut add = |name: &str, value: &str| {
        form.push('&');
        form.push_str(name);
        form.push('=');
        form.push_str(&encoded(value));
    };
    add("refresh_token", refresh_token.expose_secret());
    add("client_id", &refresh.client_id);
    if let Some(secret) = &refresh.client_secret {
        add("client_secret", secret.expose_secret());
    }
    if let Some(scope) = &refresh.scope {
        add("scope", scope);
    }
    form
}

/// What an endpoint has granted.
#[derive(Debug)]
struct Granted {
    access_token: SecretString,
    refresh_token: Option<SecretString>,
    valid_for: Duration,
}

/// RFC 6749 §5.1, and §5.2 for errors: of these the code alone is told, because the rest is anybody's text.
fn granted(status: u16, body: &[u8]) -> Result<Granted, Fault> {
    #[derive(Deserialize)]
    struct Said {
        access_token: Option<String>,
        refresh_token: Option<String>,
        expires_in: Option<serde_json::Value>,
        error: Option<String>,
    }
    let said: Said = serde_json::from_slice(body)
        .map_err(|_| Fault(format!("the token endpoint answered {status}, and not as RFC 6749 says")))?;
    if let Some(error) = said.error {
        let code: String = error.chars().filter(|c| c.is_ascii_lowercase() || *c == '_').take(64).collect();
        return Err(Fault(format!("the token endpoint refused: {status} {code}")));
    }
    let access = Zeroizing::new(said.access_token.unwrap_or_default());
    let access_token = checked(&access)
        .filter(|_| status == 200)
        .ok_or_else(|| Fault(format!("the token endpoint answered {status} without a usable token")))?;
    let refresh = said.refresh_token.map(Zeroizing::new);
    let seconds = said.expires_in.and_then(|life| match life {
        serde_json::Value::Number(seconds) => seconds.as_u64(),
        // Some endpoints quote it.
        serde_json::Value::String(text) => text.parse().ok(),
        _ => None,
    });
    Ok(Granted {
        access_token,
        refresh_token: refresh.and_then(|text| checked(&text)),
        valid_for: seconds.map_or(TOKEN_LIFE_DEFAULT, Duration::from_secs),
    })
}

/// RFC 6750 §2.1 knows visible ASCII only; anything else could end the login's own syntax.
fn checked(token: &str) -> Option<SecretString> {
    let is_token =
        (1..=TOKEN_OCTETS_MAX).contains(&token.len()) && token.bytes().all(|octet| octet.is_ascii_graphic());
    is_token.then(|| SecretString::from(token))
}

/// Before its end by a tenth of its life or a minute, but never in its first half.
fn renewal_after(life: Duration) -> Duration {
    let margin = (life / 10).max(TOKEN_MARGIN_MIN).min(life / 2);
    (life - margin).max(TOKEN_RETRY_MIN)
}

fn retry_after(failures: u32) -> Duration {
    TOKEN_RETRY_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(TOKEN_RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refresh() -> Refresh {
        Refresh {
            endpoint: Location::parse("https://a.example/token").unwrap(),
            client_id: "id&1".into(),
            client_secret: Some(SecretString::from("s=1")),
            refresh_token: SecretString::from("1//r"),
            scope: Some("mail send".into()),
        }
    }

    #[test]
    fn the_form_is_that_of_rfc_6749() {
        let form = form(&refresh(), &SecretString::from("1//r"));
        assert_eq!(
            *form,
            "grant_type=refresh_token&refresh_token=1%2F%2Fr&client_id=id%261&client_secret=s%3D1&scope=mail+send"
        );
    }

    #[test]
    fn a_grant_is_read_and_an_error_told_by_its_code() {
        let good = granted(
            200,
            br#"{"access_token":"ya29.x","token_type":"Bearer","expires_in":"3599","refresh_token":"n"}"#,
        )
        .unwrap();
        assert_eq!(good.access_token.expose_secret(), "ya29.x");
        assert_eq!(good.valid_for, Duration::from_secs(3599));
        assert_eq!(good.refresh_token.unwrap().expose_secret(), "n");
        let error =
            granted(400, br#"{"error":"invalid_grant\r\n","error_description":"tell this"}"#).unwrap_err();
        assert_eq!(error.0, "the token endpoint refused: 400 invalid_grant");
        for (status, body) in [
            (200, "{}"),
            (200, "<html>"),
            (500, r#"{"access_token":"a"}"#),
            (200, r#"{"access_token":"a\u0001b"}"#),
        ] {
            assert!(granted(status, body.as_bytes()).is_err(), "{status} {body}");
        }
    }

    #[test]
    fn a_token_is_renewed_before_its_end_and_not_all_the_time() {
        assert_eq!(renewal_after(Duration::from_secs(3600)), Duration::from_secs(3240));
        assert_eq!(renewal_after(Duration::from_secs(300)), Duration::from_secs(240));
        assert_eq!(renewal_after(Duration::from_secs(60)), Duration::from_secs(30));
        assert_eq!(renewal_after(Duration::ZERO), TOKEN_RETRY_MIN);
        assert_eq!(retry_after(1), TOKEN_RETRY_MIN);
        assert_eq!(retry_after(u32::MAX), TOKEN_RETRY_MAX);
    }

    #[test]
    fn a_reload_with_the_same_source_keeps_the_token() {
        let (keeping, _keeper) = keeper(resolve::channel().0);
        let authorities = Arc::new(Authorities::default());
        let first = Shelf::new(Source::Refresh(refresh()));
        keeping.keep(&first, &authorities);
        first.token.store(Some(Arc::new(SecretString::from("t"))));
        first.refresh_token.store(Some(Arc::new(SecretString::from("r2"))));
        // A reload that is refused.
        keeping.keep(&Shelf::new(Source::File("/tmp/y".into())), &authorities);
        let second = Shelf::new(Source::Refresh(refresh()));
        keeping.keep(&second, &authorities);
        assert_eq!(second.token().unwrap().expose_secret(), "t");
        assert_eq!(second.refresh_token.load().as_ref().unwrap().expose_secret(), "r2");
        let other = Shelf::new(Source::File("/tmp/x".into()));
        keeping.keep(&other, &authorities);
        assert!(other.token().is_none());
    }
}
