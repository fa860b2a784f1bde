//! Small messages of the queue go out in one flight where the upstream takes chunks, and every fate they can meet there is
//! the one they would have met otherwise.

use ringpost_tests::client::Client;
use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::upstream::{Act, Script, Stage, Upstream};

fn queueing(upstream: &Upstream) -> Daemon {
    Builder::relaying_to(&upstream.host())
        .with("DELIVERY_PATIENCE", "0")
        .with("QUEUE_RETRY", "200ms")
        .with("UPSTREAM_CONNECTIONS", "1")
        .start()
}

/// The first message shows what the upstream takes; those behind it go out at once.
fn acquaint(upstream: &Upstream, client: &mut Client) {
    client.deliver(&message::ordinary("first\r\n")).assert("250 2.0.0 Ok: queued as ");
    upstream.mail();
}

#[test]
fn envelope_and_content_travel_together_where_the_upstream_takes_chunks() {
    for (offer, is_together) in [("CHUNKING", true), ("DSN", false)] {
        let script = Script::new().offering(offer).on_words(Stage::Rcpt, "nobody@", "550 5.1.1 No such user");
        let upstream = Upstream::start(script);
        let daemon = queueing(&upstream);
        let mut client = daemon.client();
        acquaint(&upstream, &mut client);
        client.envelope("a@client.test", &["nobody@example.com"]);
        client.data(&message::ordinary("x\r\n")).assert("250 2.0.0 Ok: queued as ");
        // The notice is the second that is taken.
        assert_eq!(upstream.mails(2)[1].reverse_path(), "<>");
        daemon.reaches("ringpost_queue_octets", 0.0);
        let said = upstream.commands(0);
        let refused = said.iter().position(|line| line.contains("nobody@")).expect("it was asked");
        assert_eq!(said[refused + 1].starts_with("BDAT"), is_together, "{said:?}");
        daemon.stop();
    }
}

#[test]
fn each_recipient_has_its_own_fate() {
    let script = Script::new().offering("CHUNKING").on_words(Stage::Rcpt, "never@", "550 5.1.1 Unknown");
    let upstream = Upstream::start(
        script
            .once(Stage::Rcpt, "250 2.1.5 Ok")
            .once(Stage::Rcpt, "250 2.1.5 Ok")
            .once(Stage::Rcpt, "450 4.2.0 Busy"),
    );
    let daemon = queueing(&upstream);
    let mut client = daemon.client();
    acquaint(&upstream, &mut client);
    client.envelope("a@client.test", &["now@example.com", "later@example.com", "never@example.com"]);
    let sent = message::ordinary("..x\r\n.\u{e4}\r\n");
    client.data(&sent).assert("250 2.0.0 Ok: queued as ");
    let mails = upstream.mails(4);
    let taken = |to: &str| mails.iter().filter(|mail| mail.accepted() == [to]).collect::<Vec<_>>();
    for to in ["<now@example.com>", "<later@example.com>"] {
        assert_eq!(taken(to).len(), 1, "{to}");
        taken(to)[0].assert_carries(&sent);
    }
    assert_eq!(taken("<a@client.test>").len(), 1, "the notice");
    daemon.reaches("ringpost_queue_octets", 0.0);
    daemon.stop();
}

#[test]
fn what_is_refused_for_now_or_lost_is_tried_again_and_what_is_unknown_is_counted() {
    let say = |text: &str| vec![Act::Say(text.to_owned())];
    for (stage, acts, unknown) in [
        (Stage::Mail, say("451 4.3.0 Not now"), 0.0),
        (Stage::Mail, say("421 4.3.2 Going down"), 0.0),
        (Stage::Rcpt, say("450 4.2.0 Busy"), 0.0),
        (Stage::LastChunk, say("452 4.3.1 Full"), 0.0),
        (Stage::LastChunk, vec![Act::Close], 1.0),
        (Stage::Mail, vec![Act::Close], 1.0),
    ] {
        let first = Script::new().offering("CHUNKING").once(stage, "250 2.0.0 Ok");
        let upstream = Upstream::start(first.once(stage, acts.clone()));
        let daemon = queueing(&upstream);
        let mut client = daemon.client();
        acquaint(&upstream, &mut client);
        let sent = message::ordinary("second\r\n");
        client.deliver(&sent).assert("250 2.0.0 Ok: queued as ");
        daemon.reaches("ringpost_recipients_total{outcome=\"delivered\"}", 2.0);
        daemon.reaches("ringpost_queue_octets", 0.0);
        let mails = upstream.record().read(|record| record.mails.clone());
        mails.last().unwrap_or_else(|| panic!("{stage:?}")).assert_carries(&sent);
        let counted = daemon.metric("ringpost_outcomes_unknown_total");
        assert_eq!(counted, Some(unknown), "{stage:?} {acts:?}");
        daemon.stop();
    }
}

#[test]
fn what_is_refused_for_good_is_returned_and_the_connection_serves_on() {
    for (stage, refusal) in [
        (Stage::Mail, "550 5.7.1 Not you"),
        (Stage::Rcpt, "550 5.1.1 Unknown"),
        (Stage::LastChunk, "554 5.6.0 Not this"),
    ] {
        let script = Script::new().offering("CHUNKING").once(stage, "250 2.0.0 Ok").once(stage, refusal);
        let upstream = Upstream::start(script);
        let daemon = queueing(&upstream);
        let mut client = daemon.client();
        acquaint(&upstream, &mut client);
        client.deliver(&message::ordinary("second\r\n")).assert("250 2.0.0 Ok: queued as ");
        daemon.logged("bounced");
        daemon.reaches("ringpost_recipients_total{outcome=\"delivered\"}", 2.0);
        let mails = upstream.record().read(|record| record.mails.clone());
        let notice = String::from_utf8(mails.last().expect("it came").content()).expect("ASCII");
        assert!(notice.contains(refusal), "{stage:?}: {notice}");
        assert_eq!(upstream.connections(), 1, "{stage:?}");
        daemon.stop();
    }
}
