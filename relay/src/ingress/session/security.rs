//! TLS and logins of a session: the handshake, and whether a login is right.

use std::io;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;

use super::{Flow, Session};
use crate::ingress::sink::Sink;
use crate::ingress::{log, login};
use crate::io::Io;
use crate::limits::TLS_HANDSHAKE_TIMEOUT;
use crate::meter::{AuthOutcome, HandshakeOutcome, SessionOutcome, TlsSide, TlsVersion};
use crate::smtp::auth::Credentials;
use crate::smtp::reply;
use crate::smtp::server::Answer;
use crate::tls::{Fault, Records};
use crate::units::Moment;

impl<I: Io, S: Sink> Session<I, S> {
    pub(super) async fn start_tls(&mut self) -> Flow {
        self.send_replies().await?;
        // RFC 3207 §4.2: what came before TLS was anybody's (invariant 5).
        self.input = Bytes::new();
        self.secure().await?;
        self.machine.tls_started();
        self.user = None;
        self.waiting_since = self.ingress.io.tick();
        ControlFlow::Continue(())
    }

    /// Does the handshake. There is no way back from a failed one.
    pub(super) async fn secure(&mut self) -> Flow {
        let Some(acceptor) = self.ingress.acceptor() else {
            return ControlFlow::Break(SessionOutcome::Fault);
        };
        // What came behind a PROXY header belongs to the handshake.
        let early = std::mem::take(&mut self.input);
        let by = self.ingress.io.now().after(TLS_HANDSHAKE_TIMEOUT);
        let result = match Records::server(acceptor.config(self.peer.listener)) {
            Ok(records) => self.stream.secure(records.with_received(&early), by).await,
            Err(fault) => Err(fault),
        };
        let (version, outcome) = match &result {
            Ok(agreed) => (agreed.label, HandshakeOutcome::Ok),
            Err(_) => (TlsVersion::None, HandshakeOutcome::Failed),
        };
        self.ingress.meter(|meter| meter.tls_handshakes[TlsSide::Inbound][version][outcome] += 1);
        match result {
            Ok(_) => ControlFlow::Continue(()),
            Err(fault) => {
                log::handshake_failed(self, &fault);
                ControlFlow::Break(match fault {
                    Fault::Tls(_) => SessionOutcome::Abuse,
                    Fault::Io(error) if error.kind() == io::ErrorKind::TimedOut => SessionOutcome::Timeout,
                    Fault::Io(_) => SessionOutcome::Lost,
                })
            }
        }
    }

    /// RFC 4954 §4, §6: what was wrong is not told, and a login that cannot be checked is not wrong.
    pub(super) async fn decide_login(&mut self, credentials: Credentials) {
        let name = credentials.login.clone();
        let (is_known, verdict) = match self.ingress.logins() {
            Some((book, checker)) => (book.knows(&name), self.check(&checker, book, credentials).await),
            None => (false, Ok(false)),
        };
        let answer = match verdict {
            Ok(true) => {
                self.user = Some(name.as_str().into());
                Answer::Accept
            }
            Ok(false) => Answer::Refuse(reply::AUTH_FAILED),
            Err(_) => Answer::Refuse(reply::AUTH_UNAVAILABLE),
        };
        if answer == Answer::Refuse(reply::AUTH_FAILED) {
            self.ingress.offence(&self.peer);
        }
        let outcome = if answer == Answer::Accept { AuthOutcome::Ok } else { AuthOutcome::Failed };
        self.ingress.meter(|meter| meter.auth[outcome] += 1);
        // A name that nobody has may be a password in the wrong place: it is not logged.
        log::login(self, is_known.then_some(name.as_str()), outcome);
        self.machine.answer(answer, &mut self.replies);
    }

    async fn check(
        &self,
        checker: &login::Checker,
        book: Arc<login::Book>,
        credentials: Credentials,
    ) -> Result<bool, login::PutOff> {
        let now = self.ingress.io.tick().since(Moment::default());
        checker.check(book, credentials, self.peer.client.ip(), now).await
    }
}
