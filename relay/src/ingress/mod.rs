//! Inbound: listeners, sessions, bodies. It knows the `Sink` trait and `Custody`, never `egress` or `spool`.
//!
//! [`Ingress`] is what the sessions of one worker share: the configuration in force, the meter, the queue ids, and the
//! judgements that need them.

pub mod admission;
pub mod body;
pub mod config;
pub mod log;
pub mod login;
pub mod proxy;
pub mod session;
pub mod sink;

use std::cell::{Cell, Ref, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

pub use config::Config;

use self::body::Fields;
use self::login::{Book, Checker};
use crate::envelope::{Envelope, Peer};
use crate::io::Io;
use crate::meter::{Listener, Meter};
use crate::policy::acl::canonical;
use crate::policy::rate::ClientRates;
use crate::smtp::auth::Mechanism;
use crate::smtp::params::{Mail, Rcpt};
use crate::smtp::path::{ForwardPath, Mailbox, ReversePath};
use crate::smtp::reply::{self, Reply};
use crate::smtp::server::{Profile, Role, Server};
use crate::tls::config::Level;
use crate::tls::server::Acceptor;
use crate::tls::{Agreed, Armour};
use crate::trace::{self, LocalTime, Protocol, Trace};
use crate::units::{Moment, QueueId, QueueIds};

/// Octets reserved for our header fields: they seldom need more.
const RECEIVED_OCTETS: usize = 512;

/// What the sessions of one worker share.
pub struct Ingress<I: Io> {
    /// The worker's hands.
    pub io: I,
    config: RefCell<Arc<Config>>,
    meter: Rc<RefCell<Meter>>,
    ids: Rc<RefCell<QueueIds>>,
    rates: Arc<Mutex<ClientRates>>,
    is_draining: Cell<bool>,
    acceptor: RefCell<Option<Arc<Acceptor>>>,
    /// Whether upstreams are met with TLS.
    has_tls_onward: Cell<bool>,
    logins: RefCell<Logins>,
    offences: RefCell<Option<flume::Sender<IpAddr>>>,
}

/// Who may log in, and who finds that out.
#[derive(Debug, Default)]
struct Logins {
    book: Option<Arc<Book>>,
    checker: Checker,
}

impl<I: Io> Ingress<I> {
    /// The shared part of a worker's sessions.
    #[must_use]
    pub fn new(
        io: I,
        config: Arc<Config>,
        meter: Rc<RefCell<Meter>>,
        ids: Rc<RefCell<QueueIds>>,
        rates: Arc<Mutex<ClientRates>>,
    ) -> Self {
        let logins = Logins { book: Book::new(&config.logins), checker: Checker::default() };
        Self {
            io,
            config: RefCell::new(config),
            meter,
            ids,
            rates,
            is_draining: Cell::new(false),
            acceptor: RefCell::default(),
            has_tls_onward: Cell::new(false),
            logins: RefCell::new(logins),
            offences: RefCell::default(),
        }
    }

    /// Offers TLS as this says from the next session on; before the first time there is none.
    pub fn arm(&self, armour: &Armour) {
        self.acceptor.borrow_mut().clone_from(&armour.acceptor);
        self.has_tls_onward.set(armour.demand.level != Level::None);
    }

    /// Lets logins be checked; before this none can be.
    pub fn check_logins_by(&self, checker: Checker) {
        self.logins.borrow_mut().checker = checker;
    }

    /// Has offences of clients counted there; before this nobody counts them.
    pub fn report_offences_to(&self, counted: Option<flume::Sender<IpAddr>>) {
        *self.offences.borrow_mut() = counted;
    }

    /// A client abused the protocol or failed to log in.
    fn offence(&self, peer: &Peer) {
        if let Some(counted) = &*self.offences.borrow() {
            // Of a flood of offences a part is counted: that is enough for a ban.
            let _ = counted.try_send(peer.client.ip());
        }
    }

    /// The book in force and the way to have it looked into; `None`: nobody may log in.
    fn logins(&self) -> Option<(Arc<Book>, Checker)> {
        let logins = self.logins.borrow();
        logins.book.clone().map(|book| (book, logins.checker.clone()))
    }

    fn acceptor(&self) -> Option<Arc<Acceptor>> {
        self.acceptor.borrow().clone()
    }

    /// The configuration in force; not to be held over a wait.
    pub fn config(&self) -> Ref<'_, Config> {
        Ref::map(self.config.borrow(), |config| &**config)
    }

    /// Puts another configuration in force: for new sessions, and for the judgements of open ones.
    pub fn configure(&self, config: Arc<Config>) {
        self.logins.borrow_mut().book = Book::new(&config.logins);
        *self.config.borrow_mut() = config;
    }

    /// Whether the worker ends: no transaction begins any more.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.is_draining.get()
    }

    /// The worker ends.
    pub fn drain(&self) {
        self.is_draining.set(true);
    }

    fn meter(&self, count: impl FnOnce(&mut Meter)) {
        count(&mut self.meter.borrow_mut());
    }

    fn issue_queue_id(&self) -> QueueId {
        self.ids.borrow_mut().issue()
    }

    fn profile(&self, listener: Listener) -> Profile {
        let config = self.config();
        let mut profile = Profile::relay(Arc::clone(&config.relay_host_name));
        profile.role = if listener == Listener::Smtp { Role::Relay } else { Role::Submission };
        profile.tls = listener == Listener::Submissions;
        if profile.role == Role::Submission && self.logins.borrow().book.is_some() {
            profile.auth = &[Mechanism::Plain, Mechanism::Login];
        }
        profile.starttls = self.acceptor.borrow().is_some();
        // RFC 8689 §3: offered where it can be kept.
        profile.requiretls = self.has_tls_onward.get();
        profile.size_max = config.message_size_max.0;
        profile.recipients_max = config.recipients_max;
        profile.bare_newline = config.bare_newline;
        profile
    }

    /// Our own header fields for a message that begins now.
    fn fields(&self, peer: &Peer, machine: &Server, agreed: Option<Agreed>, envelope: &Envelope) -> Fields {
        let host_name = Arc::clone(&self.config().relay_host_name);
        let at = LocalTime { unix_ms: self.io.unix_ms(), offset_minutes: 0 };
        let only_recipient = match &envelope.recipients[..] {
            [rcpt] => Some(rcpt.forward_path.as_str()),
            _ => None,
        };
        let mut received = Vec::with_capacity(RECEIVED_OCTETS);
        let with = Protocol {
            extended: machine.is_esmtp(),
            tls: agreed.is_some(),
            authenticated: machine.is_authenticated(),
            utf8: envelope.mail.params.smtputf8,
        };
        let trace = Trace {
            helo: machine.helo().unwrap_or_default(),
            client: canonical(peer.client.ip()),
            client_name: None,
            host_name: &host_name,
            with,
            tls: agreed.map(|agreed| (agreed.version, agreed.cipher)),
            queue_id: envelope.id,
            only_recipient,
            at,
        };
        trace::received(&trace, &mut received);
        Fields { received, id: envelope.id, host_name, at }
    }

    /// An address without a domain gets ours, as Postfix does it for its clients (`root` of cron becomes
    /// `root@RELAY_HOST_NAME`): upstream it would mean somebody else, or nobody.
    fn qualify_sender(&self, mail: &mut Mail) {
        if let ReversePath::Mailbox(mailbox) = &mut mail.reverse_path {
            self.qualify(mailbox);
        }
    }

    /// Likewise; but `<Postmaster>` is whoever it is at the next hop (RFC 5321 §4.1.1.3).
    fn qualify_recipient(&self, rcpt: &mut Rcpt) {
        let path = &rcpt.forward_path;
        if !path.is_postmaster() && !path.mailbox().is_qualified() {
            let mut mailbox = path.mailbox().clone();
            self.qualify(&mut mailbox);
            rcpt.forward_path = ForwardPath::new(mailbox);
        }
    }

    fn qualify(&self, mailbox: &mut Mailbox) {
        if !mailbox.is_qualified()
            && let Ok(qualified) = mailbox.at_domain(&self.config().relay_host_name)
        {
            *mailbox = qualified;
        }
    }

    /// Whether a sender may begin a transaction.
    fn judge_sender(&self, peer: &Peer, user: Option<&str>, mail: &Mail) -> Result<(), Reply> {
        let config = self.config();
        let sender = mail.reverse_path.as_str();
        let is_allowed = config.allowed_senders.is_empty() || config.allowed_senders.matches(sender);
        if !is_allowed || config.denied_senders.matches(sender) {
            return Err(reply::SENDER_DENIED);
        }
        if user.is_some_and(|user| !config.may_send_as(user, sender)) {
            return Err(reply::SENDER_OF_OTHERS);
        }
        let Some(rate) = config.client_rate else { return Ok(()) };
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.io.now().since(Moment::default());
        rates.take(peer.client.ip(), rate, now).map_err(|_wait| reply::CLIENT_TOO_FAST)
    }

    /// Whether a client may relay to a recipient: who has logged in may, and who comes from an accepted network. Behind
    /// a proxy both addresses must be accepted ones.
    fn judge_recipient(&self, peer: &Peer, user: Option<&str>, rcpt: &Rcpt) -> Result<(), Reply> {
        let config = self.config();
        let may_relay = |address: IpAddr| user.is_some() || config.accepted_networks.contains(address);
        if !may_relay(peer.client.ip()) || !may_relay(peer.socket.ip()) {
            return Err(reply::RELAY_DENIED);
        }
        let recipient = rcpt.forward_path.as_str();
        let is_allowed = config.allowed_recipients.is_empty() || config.allowed_recipients.matches(recipient);
        if !is_allowed || config.denied_recipients.matches(recipient) {
            return Err(reply::RECIPIENT_DENIED);
        }
        Ok(())
    }
}
