//! Whether a client's login is right: checked on a thread of its own, so that hashing stalls no session.
//!
//! Theory of operation. Each configuration makes one [`Book`]. A worker hands the credentials with the book in force to
//! the [`Checker`] and waits; the queue is bounded, and a client that finds it full is told to come again. An unknown
//! name costs the same work as a known one with a wrong password: it is held against an entry that nobody can match.
//! Passwords kept in plain text are compared as keyed digests, so that neither length nor common start shows in time.
//!
//! Who is wrong too often is told to come again later, whatever it says then: guessing is slow, and costs nothing here.
//!
//! It must not log or keep a password, or tell which of name and password was wrong.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::{PasswordHash, PasswordVerifier as _};
use ring::hmac;
use ring::rand::SystemRandom;
use secrecy::{ExposeSecret as _, SecretString};

use super::config::Login;
use crate::limits::{
    LOGIN_CHECKS_MAX, LOGIN_FAILURES_MAX, LOGIN_FAILURES_OF_USER_MAX, LOGIN_FAILURES_WITHIN,
};
use crate::policy::rate::{ClientRates, Rate, TokenBucket};
use crate::smtp::auth::Credentials;

/// The logins of one configuration.
pub struct Book {
    entries: HashMap<Arc<str>, Secret>,
    key: hmac::Key,
    /// What an unknown name is held against.
    nobody: Secret,
}

/// How a password is kept.
enum Secret {
    /// Its digest under the book's key.
    Digest(hmac::Tag),
    /// A bcrypt hash, as htpasswd makes it.
    Bcrypt(String),
    /// An argon2 hash in PHC form.
    Argon2(String),
}

impl fmt::Debug for Book {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Book").field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

impl Book {
    /// The book of these logins; `None` where there is none, or no randomness to guard it with.
    #[must_use]
    pub fn new(logins: &[Login]) -> Option<Arc<Self>> {
        if logins.is_empty() {
            return None;
        }
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?;
        let secret = |password: &SecretString| match password.expose_secret() {
            hash if is_bcrypt(hash) => Secret::Bcrypt(hash.to_owned()),
            hash if is_argon2(hash) => Secret::Argon2(hash.to_owned()),
            plain => Secret::Digest(hmac::sign(&key, plain.as_bytes())),
        };
        let entries: HashMap<_, _> =
            logins.iter().map(|login| (Arc::clone(&login.name), secret(&login.password))).collect();
        // The dearest kind in the book, with the very parameters of one of its entries.
        let is_argon2 = |secret: &&Secret| matches!(secret, Secret::Argon2(_));
        let is_bcrypt = |secret: &&Secret| matches!(secret, Secret::Bcrypt(_));
        let dearest = entries.values().find(is_argon2).or_else(|| entries.values().find(is_bcrypt));
        let nobody = match dearest {
            Some(Secret::Argon2(hash)) => Secret::Argon2(hash.clone()),
            Some(Secret::Bcrypt(hash)) => Secret::Bcrypt(hash.clone()),
            _ => Secret::Digest(hmac::sign(&key, b"")),
        };
        Some(Arc::new(Self { entries, key, nobody }))
    }

    /// Whether the book knows this name.
    #[must_use]
    pub fn knows(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Whether the login is right. Takes as long as the hash does.
    #[must_use]
    pub fn is_right(&self, credentials: &Credentials) -> bool {
        let entry = self.entries.get(credentials.login.as_str());
        let is_match = self.matches(entry.unwrap_or(&self.nobody), credentials.password.expose_secret());
        is_match && entry.is_some()
    }

    fn matches(&self, secret: &Secret, password: &str) -> bool {
        match secret {
            Secret::Digest(tag) => hmac::verify(&self.key, password.as_bytes(), tag.as_ref()).is_ok(),
            Secret::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Secret::Argon2(hash) => PasswordHash::new(hash)
                .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()),
        }
    }
}

/// Whether a password as configured is a hash; and if it is one, whether it can be used.
///
/// # Errors
/// What looks like a hash and is none: nobody could ever log in by it.
pub fn check_kept(password: &str) -> Result<(), Unusable> {
    let is_usable = match password {
        hash if is_bcrypt(hash) => hash.parse::<bcrypt::HashParts>().is_ok(),
        hash if is_argon2(hash) => PasswordHash::new(hash).is_ok_and(|hash| hash.hash.is_some()),
        _ => true,
    };
    if is_usable { Ok(()) } else { Err(Unusable) }
}

/// A password that looks like a hash and is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unusable;

fn is_bcrypt(password: &str) -> bool {
    ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|prefix| password.starts_with(prefix))
}

fn is_argon2(password: &str) -> bool {
    password.starts_with("$argon2")
}

/// One login to be checked.
#[derive(Debug)]
struct Request {
    book: Arc<Book>,
    credentials: Credentials,
    answer: flume::Sender<bool>,
}

/// The way to the thread that checks logins. The default one leads nowhere.
#[derive(Debug, Clone, Default)]
pub struct Checker {
    requests: Option<flume::Sender<Request>>,
    failures: Arc<Mutex<Failures>>,
}

/// Who was wrong lately.
#[derive(Debug, Default)]
struct Failures {
    clients: ClientRates,
    /// Of known names only, so that strangers cannot fill it.
    users: HashMap<Arc<str>, TokenBucket>,
}

/// The login is not checked now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOff {
    /// Too many wait.
    Busy,
    /// The client was wrong too often, or too many were wrong about this user.
    Guessing,
}

impl Checker {
    /// Starts the thread; it ends with the last way to it.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start() -> io::Result<Self> {
        let (sender, requests) = flume::bounded::<Request>(LOGIN_CHECKS_MAX);
        thread::Builder::new().name("logins".to_owned()).spawn(move || {
            for Request { book, credentials, answer } in requests {
                let is_right = book.is_right(&credentials);
                // Whoever has the answer finds nothing left of the password.
                drop(credentials);
                // A client that has gone meanwhile does not hear it.
                let _ = answer.send(is_right);
            }
        })?;
        Ok(Self { requests: Some(sender), failures: Arc::default() })
    }

    /// Whether the login of a client is right; `now` counts from any moment before.
    ///
    /// # Errors
    /// Why it is not looked at.
    pub async fn check(
        &self,
        book: Arc<Book>,
        credentials: Credentials,
        client: IpAddr,
        now: Duration,
    ) -> Result<bool, PutOff> {
        let user = book.entries.get_key_value(credentials.login.as_str()).map(|(name, _)| Arc::clone(name));
        if self.failures().are_too_many(client, user.as_deref(), now) {
            return Err(PutOff::Guessing);
        }
        let (answer, answered) = flume::bounded(1);
        let requests = self.requests.as_ref().ok_or(PutOff::Busy)?;
        requests.try_send(Request { book, credentials, answer }).map_err(|_| PutOff::Busy)?;
        let is_right = answered.recv_async().await.map_err(|_| PutOff::Busy)?;
        if !is_right {
            self.failures().note(client, user, now);
        }
        Ok(is_right)
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failures {
    fn are_too_many(&self, client: IpAddr, user: Option<&str>, now: Duration) -> bool {
        let of_user = user.and_then(|user| self.users.get(user)).copied();
        self.clients.is_spent(client, OF_CLIENT, now)
            || of_user.is_some_and(|mut bucket| bucket.take(OF_USER, now).is_err())
    }

    fn note(&mut self, client: IpAddr, user: Option<Arc<str>>, now: Duration) {
        // The one that is too many was counted by another session meanwhile.
        let _ = self.clients.take(client, OF_CLIENT, now);
        if let Some(user) = user {
            let _ =
                self.users.entry(user).or_insert_with(|| TokenBucket::full(OF_USER, now)).take(OF_USER, now);
        }
    }
}

const OF_CLIENT: Rate =
    Rate { events: LOGIN_FAILURES_MAX, period: LOGIN_FAILURES_WITHIN, burst: LOGIN_FAILURES_MAX };
const OF_USER: Rate = Rate {
    events: LOGIN_FAILURES_OF_USER_MAX,
    period: LOGIN_FAILURES_WITHIN,
    burst: LOGIN_FAILURES_OF_USER_MAX,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::auth::Mechanism;

    fn book(logins: &[(&str, &str)]) -> Arc<Book> {
        let login = |(name, kept): &(&str, &str)| Login {
            name: (*name).into(),
            password: Arc::new(SecretString::from(*kept)),
            senders: None,
        };
        Book::new(&logins.iter().map(login).collect::<Vec<_>>()).unwrap()
    }

    fn says(login: &str, password: &str) -> Credentials {
        Credentials {
            mechanism: Mechanism::Plain,
            login: login.to_owned(),
            password: SecretString::from(password),
        }
    }

    /// `secret` at the lowest cost.
    fn bcrypted() -> String {
        bcrypt::hash("secret", 4).unwrap()
    }

    /// `secret` at the lowest cost.
    fn argoned() -> String {
        use argon2::password_hash::{PasswordHasher as _, SaltString};
        let salt = SaltString::encode_b64(b"saltsaltsalt").unwrap();
        let params = argon2::Params::new(8, 1, 1, None).unwrap();
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        argon2.hash_password(b"secret", &salt).unwrap().to_string()
    }

    #[test]
    fn only_the_right_password_of_a_known_name_is_right() {
        let (bcrypted, argoned) = (bcrypted(), argoned());
        let book = book(&[("plain@d", "secret"), ("bcrypt@d", &bcrypted), ("argon@d", &argoned)]);
        for name in ["plain@d", "bcrypt@d", "argon@d"] {
            assert!(book.knows(name));
            assert!(book.is_right(&says(name, "secret")), "{name}");
            for wrong in ["", "Secret", "secret ", "secretsecret", &bcrypted, &argoned] {
                assert!(!book.is_right(&says(name, wrong)), "{name} {wrong}");
            }
        }
        assert!(!book.knows("nobody"));
    }

    #[test]
    fn an_unknown_name_is_wrong_with_every_password() {
        for kept in ["secret".to_owned(), String::from("$2b$broken"), bcrypted(), argoned()] {
            let book = book(&[("a@d", &kept)]);
            for password in ["secret", "", &kept] {
                assert!(!book.is_right(&says("b@d", password)));
                assert!(!book.is_right(&says("", password)));
            }
        }
    }

    #[test]
    fn a_broken_hash_is_found_before_anybody_waits_for_a_login() {
        for kept in ["plain", "$1$plain-too", &bcrypted(), &argoned()] {
            assert_eq!(check_kept(kept), Ok(()), "{kept}");
        }
        for kept in ["$2y$10$short", "$argon2id$v=19$m=8,t=1", "$2b$"] {
            assert_eq!(check_kept(kept), Err(Unusable), "{kept}");
        }
    }

    #[tokio::test]
    async fn the_thread_answers_and_without_one_nobody_is_let_in() {
        let book = book(&[("a@d", "secret")]);
        let checker = Checker::start().unwrap();
        let (client, now) = ("192.0.2.1".parse().unwrap(), Duration::ZERO);
        let check = |checker: Checker, password| {
            let book = Arc::clone(&book);
            async move { checker.check(book, says("a@d", password), client, now).await }
        };
        assert_eq!(check(checker.clone(), "secret").await, Ok(true));
        assert_eq!(check(checker, "wrong").await, Ok(false));
        assert_eq!(check(Checker::default(), "secret").await, Err(PutOff::Busy));
    }

    #[tokio::test]
    async fn who_guesses_is_put_off_and_others_are_not() {
        let book = book(&[("a@d", "secret")]);
        let checker = Checker::start().unwrap();
        let (guesser, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let check = async |password, client, now| {
            checker.check(Arc::clone(&book), says("a@d", password), client, now).await
        };
        for _ in 0..LOGIN_FAILURES_MAX {
            assert_eq!(check("wrong", guesser, Duration::ZERO).await, Ok(false));
        }
        assert_eq!(check("secret", guesser, Duration::ZERO).await, Err(PutOff::Guessing));
        assert_eq!(check("secret", other, Duration::ZERO).await, Ok(true));
        assert_eq!(check("secret", guesser, LOGIN_FAILURES_WITHIN).await, Ok(true));
    }

    #[tokio::test]
    async fn a_user_whom_many_guess_at_is_put_off_and_other_users_are_not() {
        let book = book(&[("a@d", "secret"), ("b@d", "secret")]);
        let checker = Checker::start().unwrap();
        let check = async |name, password, client: u32| {
            let client = IpAddr::from(std::net::Ipv4Addr::from(client));
            checker.check(Arc::clone(&book), says(name, password), client, Duration::ZERO).await
        };
        for client in 0..LOGIN_FAILURES_OF_USER_MAX {
            assert_eq!(check("a@d", "wrong", client).await, Ok(false));
            assert_eq!(check("nobody@d", "wrong", client).await, Ok(false), "strangers fill nothing");
        }
        assert_eq!(check("a@d", "secret", u32::MAX).await, Err(PutOff::Guessing));
        assert_eq!(check("b@d", "secret", u32::MAX).await, Ok(true));
        assert_eq!(checker.failures().users.len(), 1);
    }
}
