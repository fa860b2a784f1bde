//! The part of a notice for people: what happened, to whom, and what they can do.
//!
//! Plain sentences first, then each recipient with the other side's own words. Must not hold anything that the report does
//! not say to programs.

use super::report::shown;
use super::{Diagnostic, Event, Original, Outcome, Part, Returned, Script, Teller};
use crate::limits::NOTICE_RECIPIENTS_SHOWN_MAX;
use crate::trace::LocalTime;

/// The subject.
pub(super) fn subject(event: Event) -> &'static str {
    match event {
        Event::Failed => "Undelivered mail returned to sender",
        Event::Delayed { .. } => "Delayed mail: delivery goes on",
        Event::Relayed => "Mail relayed to a host that sends no delivery notices",
    }
}

/// The whole text.
pub(super) fn text(
    event: Event,
    told: &[&Outcome],
    original: &Original<'_>,
    teller: &Teller<'_>,
    returned: &Returned<'_>,
) -> String {
    let &Returned { part, script, .. } = returned;
    let mut out = String::new();
    let local = |unix_ms| LocalTime { unix_ms, ..teller.now };
    say(&mut out, &format!("This is the mail relay {}.", teller.host_name));
    out.push_str("\r\n");
    let arrival = local(original.entry.arrival_ms);
    let about = format!("Your message of {arrival} (queue id {})", original.id);
    let rest = match (event, part) {
        (Event::Failed, Part::Message) => {
            "could not be delivered to the recipients below. It is not tried again. The message is attached."
                .to_owned()
        }
        (Event::Failed, Part::Headers) => {
            "could not be delivered to the recipients below. It is not tried again. Its header section is attached."
                .to_owned()
        }
        (Event::Delayed { until_ms }, _) => format!(
            "has not been delivered to the recipients below yet. Delivery is tried until {}. THIS IS A WARNING ONLY: you need not send the message again.",
            local(until_ms)
        ),
        (Event::Relayed, _) => {
            "was taken by the next mail host for the recipients below. That host sends no delivery notices: you may hear nothing more."
                .to_owned()
        }
    };
    say(&mut out, &format!("{about} {rest}"));
    if event == Event::Failed {
        out.push_str("\r\n");
        say(
            &mut out,
            "If the reason below does not tell you what to do, ask the recipient's postmaster, or yours, and show this notice.",
        );
    }
    for outcome in told.iter().take(NOTICE_RECIPIENTS_SHOWN_MAX) {
        recipient(&mut out, outcome, original, script);
    }
    if let Some(more) = told.len().checked_sub(NOTICE_RECIPIENTS_SHOWN_MAX).filter(|&more| more > 0) {
        out.push_str("\r\n");
        say(&mut out, &format!("and {more} more, who stand in the attached report."));
    }
    out
}

fn recipient(out: &mut String, outcome: &Outcome, original: &Original<'_>, script: Script) {
    let Some(recipient) = original.entry.recipients.get(outcome.recipient) else { return };
    out.push_str("\r\n");
    out.push_str(&format!("<{}>:\r\n", shown(&recipient.address, script)));
    let words = match (&outcome.diagnostic, &outcome.remote) {
        (Diagnostic::Smtp(said), Some(remote)) => format!("{remote} said: {said}"),
        (Diagnostic::Smtp(said) | Diagnostic::Local(said), _) => said.clone(),
    };
    wrap(out, "    ", &shown(&words, script));
}

fn say(out: &mut String, sentence: &str) {
    wrap(out, "", sentence);
}

/// Lines of at most [`WIDTH`] where the words allow it.
fn wrap(out: &mut String, indent: &str, text: &str) {
    let mut line = out.len();
    out.push_str(indent);
    let mut is_first = true;
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if !is_first && out.len() - line + 1 + word.len() > WIDTH {
            out.push_str("\r\n");
            line = out.len();
            out.push_str(indent);
        } else if !is_first {
            out.push(' ');
        }
        out.push_str(word);
        is_first = false;
    }
    out.push_str("\r\n");
}

const WIDTH: usize = 76;
