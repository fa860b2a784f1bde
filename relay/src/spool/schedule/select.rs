//! Which messages an operator means: `queue hold --sender a@b`, `queue delete --older 3d`. Pure.

use std::time::Duration;

use crate::spool::entry::Entry;
use crate::units::QueueId;

/// Some of the messages in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// These.
    Ids(Vec<QueueId>),
    /// All of them.
    All,
    /// Those from this sender; `<>` or nothing: the null sender.
    Sender(String),
    /// Those with this recipient among theirs.
    Recipient(String),
    /// Those with a recipient in this domain.
    Domain(String),
    /// Those that have been here so long.
    OlderThan(Duration),
    /// Those that all of these mean; without any: all.
    Every(Vec<Selector>),
}

impl Selector {
    /// Whether [`Self::matches`] needs the envelope, or is content with the id and the time of arrival.
    #[must_use]
    pub fn wants_entry(&self) -> bool {
        match self {
            Self::Sender(_) | Self::Recipient(_) | Self::Domain(_) => true,
            Self::Every(conditions) => conditions.iter().any(Self::wants_entry),
            Self::Ids(_) | Self::All | Self::OlderThan(_) => false,
        }
    }

    /// Whether a message is meant. Addresses are compared without case, as operators type them. A message whose envelope
    /// is needed and not given is not meant.
    #[must_use]
    pub fn matches(&self, id: QueueId, arrival_ms: u64, entry: Option<&Entry>, now_ms: u64) -> bool {
        let recipients = || entry.map_or(&[][..], |entry| &entry.recipients);
        match self {
            Self::Ids(ids) => ids.contains(&id),
            Self::All => true,
            Self::Sender(sender) => {
                let wanted = sender.trim_start_matches('<').trim_end_matches('>');
                entry.is_some_and(|entry| entry.sender.eq_ignore_ascii_case(wanted))
            }
            Self::Recipient(wanted) => {
                let wanted = wanted.trim_start_matches('<').trim_end_matches('>');
                recipients().iter().any(|recipient| recipient.address.eq_ignore_ascii_case(wanted))
            }
            Self::Domain(wanted) => {
                let wanted = wanted.trim_start_matches('@');
                recipients().iter().any(|recipient| domain(&recipient.address).eq_ignore_ascii_case(wanted))
            }
            Self::OlderThan(age) => Duration::from_millis(now_ms.saturating_sub(arrival_ms)) >= *age,
            Self::Every(conditions) => {
                conditions.iter().all(|condition| condition.matches(id, arrival_ms, entry, now_ms))
            }
        }
    }
}

/// What follows the last `@`; nothing where there is none.
fn domain(address: &str) -> &str {
    address.rsplit_once('@').map_or("", |(_, domain)| domain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::entry::tests::entry;

    #[test]
    fn a_selector_means_what_it_says() {
        let id = QueueId::from_bits(7).unwrap();
        let mail = entry("Some.One@example.org", &["a@one.example", "\"x@y\"@Two.example"], 1000);
        let notice = entry("", &["b@two.example"], 1000);
        let means = |selector: Selector, entry: &Entry| selector.matches(id, 1000, Some(entry), 61_000);
        assert!(means(Selector::All, &mail));
        assert!(means(Selector::Ids(vec![id]), &mail));
        assert!(!means(Selector::Ids(Vec::new()), &mail));
        assert!(means(Selector::Sender("some.one@EXAMPLE.org".into()), &mail));
        assert!(means(Selector::Sender("<>".into()), &notice));
        assert!(!means(Selector::Sender("<>".into()), &mail));
        assert!(means(Selector::Recipient("<a@one.example>".into()), &mail));
        assert!(means(Selector::Domain("two.example".into()), &mail));
        assert!(!means(Selector::Domain("y".into()), &mail));
        assert!(means(Selector::OlderThan(Duration::from_secs(60)), &mail));
        assert!(!means(Selector::OlderThan(Duration::from_secs(61)), &mail));
        assert!(!Selector::Domain("two.example".into()).matches(id, 1000, None, 61_000));
        let both = |sender: &str, age| {
            Selector::Every(vec![
                Selector::Sender(sender.into()),
                Selector::OlderThan(Duration::from_secs(age)),
            ])
        };
        assert!(means(both("some.one@example.org", 60), &mail) && both("", 1).wants_entry());
        assert!(
            !means(both("some.one@example.org", 61), &mail) && !means(both("other@example.org", 1), &mail)
        );
        assert!(means(Selector::Every(Vec::new()), &mail));
    }
}
