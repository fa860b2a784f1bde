//! A message of the queue in the words of SMTP, and the other way round. Pure.
//!
//! What the spool keeps of an envelope is everything that a later transaction needs to say the same again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use crate::envelope::Envelope;
use crate::ingress::sink::Introduction;
use crate::meter::Label;
use crate::smtp::params::{BodyType, Mail, MailParams, Notify, Rcpt, RcptParams, Ret};
use crate::smtp::path::{ForwardPath, Mailbox, ReversePath};
use crate::spool::Keys;
use crate::spool::entry::{self, Entry, Origin, Recipient, Standing, State};
use crate::units::QueueId;

/// A message of the queue, without its body.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    pub(super) id: QueueId,
    pub(super) entry: Rc<Entry>,
    pub(super) state: State,
    pub(super) octets: u64,
}

impl Letter {
    /// The recipients that are to be delivered to, by their places in the envelope.
    pub(super) fn pending(&self) -> Vec<usize> {
        self.standing(Standing::Pending)
    }

    /// The recipients that stand so.
    pub(super) fn standing(&self, wanted: Standing) -> Vec<usize> {
        (0..self.entry.recipients.len()).filter(|&place| self.state.standing(place) == wanted).collect()
    }

    /// The transaction that hands it on, its recipients still to be named. `None`: what is kept is no address, which
    /// cannot be of what was accepted.
    pub(super) fn envelope(&self) -> Option<Envelope> {
        let entry = &self.entry;
        let reverse_path = match entry.sender.as_str() {
            "" => ReversePath::Null,
            sender => ReversePath::Mailbox(Mailbox::parse(sender).ok()?),
        };
        let params = MailParams {
            size: Some(self.octets),
            body: match entry.body {
                entry::Body::SevenBit => None,
                entry::Body::EightBitMime | entry::Body::BinaryMime => Some(BodyType::EightBitMime),
            },
            smtputf8: entry.smtputf8,
            ret: entry.ret.map(|ret| match ret {
                entry::Ret::Full => Ret::Full,
                entry::Ret::Headers => Ret::Headers,
            }),
            envid: entry.envid.as_deref().map(Into::into),
            auth: entry.auth.as_deref().map(Into::into),
            requiretls: entry.requiretls,
        };
        Some(Envelope {
            id: self.id,
            mail: Mail { reverse_path, params },
            recipients: Vec::new(),
            waives_tls: entry.waives_tls,
        })
    }

    /// One of its recipients; `None` as for [`Self::envelope`].
    pub(super) fn rcpt(&self, place: usize) -> Option<Rcpt> {
        let recipient = self.entry.recipients.get(place)?;
        let forward_path = ForwardPath::new(Mailbox::parse(&recipient.address).ok()?);
        let params = RcptParams {
            notify: notify_of(recipient.notify),
            orcpt: recipient.orcpt.as_deref().map(Into::into),
        };
        Some(Rcpt { forward_path, params })
    }
}

/// What is to be kept of a transaction: the recipients of these places.
pub(super) fn entry(
    envelope: &Envelope,
    places: impl Iterator<Item = usize>,
    client: &Introduction<'_>,
    arrival_ms: u64,
) -> Entry {
    let params = &envelope.mail.params;
    Entry {
        origin: Origin::Client,
        sender: envelope.mail.reverse_path.as_str().to_owned(),
        recipients: places.filter_map(|place| envelope.recipients.get(place)).map(recipient).collect(),
        ret: params.ret.map(|ret| match ret {
            Ret::Full => entry::Ret::Full,
            Ret::Headers => entry::Ret::Headers,
        }),
        envid: params.envid.as_deref().map(str::to_owned),
        auth: params.auth.as_deref().map(str::to_owned),
        body: match params.body {
            Some(BodyType::EightBitMime) => entry::Body::EightBitMime,
            Some(BodyType::SevenBit) | None => entry::Body::SevenBit,
        },
        smtputf8: params.smtputf8,
        requiretls: params.requiretls,
        waives_tls: envelope.waives_tls,
        arrival_ms,
        client: entry::Client {
            address: client.peer.client.ip(),
            port: client.peer.client.port(),
            helo: client.helo.to_owned(),
            login: client.user.map(str::to_owned),
            tls: client.tls.map(|agreed| agreed.to_string()),
            listener: client.peer.listener.text().to_owned(),
        },
    }
}

fn recipient(rcpt: &Rcpt) -> Recipient {
    Recipient {
        address: rcpt.forward_path.as_str().to_owned(),
        notify: rcpt.params.notify.map_or(0, bits_of),
        orcpt: rcpt.params.orcpt.as_deref().map(str::to_owned),
    }
}

/// On disk NEVER has a bit of its own: no bit at all stands for no NOTIFY.
fn bits_of(notify: Notify) -> u8 {
    let events = [
        (Notify::SUCCESS, Recipient::SUCCESS),
        (Notify::FAILURE, Recipient::FAILURE),
        (Notify::DELAY, Recipient::DELAY),
    ];
    let bits = events.iter().filter(|(event, _)| notify.wants(*event)).map(|(_, bit)| bit).sum();
    if bits == 0 { Recipient::NEVER } else { bits }
}

fn notify_of(bits: u8) -> Option<Notify> {
    let events = [
        (Notify::SUCCESS, Recipient::SUCCESS),
        (Notify::FAILURE, Recipient::FAILURE),
        (Notify::DELAY, Recipient::DELAY),
    ];
    let wanted = events.iter().filter(|(_, bit)| bits & bit != 0).map(|(event, _)| event.to_bits()).sum();
    (bits != 0).then(|| Notify::from_bits(wanted))
}

/// Whose a message is: where it goes (one line for all where the route is fixed, else one for each domain, and one more for
/// what goes there though the domain's policy cannot be kept), and who sends
/// it: client and sender together, without what mailing lists put behind `+` and `=` of each message's sender.
pub(super) fn keys(entry: &Entry, is_fixed: bool) -> Keys {
    let domain = || {
        let first = entry.recipients.first().map_or("", |recipient| recipient.address.as_str());
        first.rsplit_once('@').map_or_else(String::new, |(_, domain)| domain.to_ascii_lowercase())
    };
    let (local, domain_of_sender) = entry.sender.rsplit_once('@').unwrap_or((&entry.sender, ""));
    let local = local.split(['+', '=']).next().unwrap_or_default();
    let destination = if is_fixed { 0 } else { folded(&(domain(), entry.waives_tls)) };
    Keys { destination, source: folded(&(entry.client.address, local, domain_of_sender)) & !BACKLOG }
}

/// The bit of a source's key that tells its backlog from its fresh mail.
pub(super) const BACKLOG: u32 = 1;

fn folded(value: &impl Hash) -> u32 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    let hash = hasher.finish();
    u32::try_from((hash ^ hash >> 32) & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::envelope::Peer;
    use crate::meter::Listener;
    use crate::smtp::params::{Offer, mail, rcpt};

    const OFFER: Offer = Offer { esmtp: true, smtputf8: true, dsn: true, auth: true, requiretls: true };

    fn envelope(from: &str, to: &[&str]) -> Envelope {
        Envelope {
            id: QueueId::from_bits(7).unwrap(),
            mail: mail(from, OFFER).unwrap(),
            recipients: to.iter().map(|to| rcpt(to, OFFER, true).unwrap()).collect(),
            waives_tls: false,
        }
    }

    fn kept(envelope: &Envelope) -> Letter {
        let socket = "198.18.0.9:4025".parse().unwrap();
        let peer = Peer { listener: Listener::Smtp, socket, client: socket };
        let client = Introduction { peer: &peer, helo: "app.example", user: None, tls: None };
        let entry = entry(envelope, 0..envelope.recipients.len(), &client, 5);
        Letter { id: envelope.id, entry: Rc::new(entry), state: State::default(), octets: 1 }
    }

    #[test]
    fn what_was_said_once_is_said_again() {
        let said = envelope(
            "FROM:<a@b.example> SIZE=1 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=x+2By AUTH=a@b.example REQUIRETLS",
            &[
                "TO:<c@d.example> NOTIFY=NEVER ORCPT=rfc822;c@d.example",
                "TO:<\"e f\"@d.example> NOTIFY=SUCCESS,DELAY",
                "TO:<g@d.example>",
                "TO:<Postmaster>",
            ],
        );
        let letter = kept(&said);
        let again = letter.envelope().unwrap();
        assert_eq!(again.mail, said.mail);
        let rcpts: Vec<Rcpt> =
            letter.pending().into_iter().map(|place| letter.rcpt(place).unwrap()).collect();
        assert_eq!(rcpts, said.recipients);
        let null = envelope("FROM:<>", &["TO:<c@d.example>"]);
        assert_eq!(kept(&null).envelope().unwrap().mail.reverse_path, ReversePath::Null);
    }

    #[test]
    fn what_waives_tls_stands_in_a_line_of_its_own() {
        let mut said = envelope("FROM:<a@b.example>", &["TO:<c@d.example>"]);
        let strict = kept(&said);
        said.waives_tls = true;
        let waived = kept(&said);
        assert!(waived.envelope().unwrap().waives_tls && !strict.envelope().unwrap().waives_tls);
        let line = |letter: &Letter, is_fixed| keys(&letter.entry, is_fixed).destination;
        assert_ne!(line(&strict, false), line(&waived, false), "or it waits behind what cannot go");
        assert_eq!(line(&strict, true), line(&waived, true));
    }

    #[test]
    fn a_fixed_route_has_one_line_and_exchangers_one_for_each_domain() {
        let one = kept(&envelope("FROM:<a@b.example>", &["TO:<c@d.example>"]));
        let other = kept(&envelope("FROM:<a+7=x.y@b.example>", &["TO:<c@E.example>"]));
        assert_eq!(keys(&one.entry, true), keys(&other.entry, true), "tags do not make a sender");
        assert_ne!(keys(&one.entry, false).destination, keys(&other.entry, false).destination);
        let stranger = kept(&envelope("FROM:<z@b.example>", &["TO:<c@d.example>"]));
        assert_ne!(keys(&one.entry, true).source, keys(&stranger.entry, true).source);
    }

    proptest! {
        #[test]
        fn notify_survives_the_disk(bits in 0u8..8) {
            let notify = Notify::from_bits(bits);
            prop_assert_eq!(notify_of(bits_of(notify)), Some(notify));
        }
    }
}
