//! Exact notices for each event, and who hears of what.

use super::*;
use crate::limits::NOTICE_RECIPIENTS_SHOWN_MAX;
use crate::units::{QueueIds, WorkerId};

fn ids() -> [QueueId; 2] {
    let mut ids = QueueIds::new(1_790_000_000_000, WorkerId(0));
    [ids.issue(), ids.issue()]
}

fn entry(sender: &str, recipients: &[&str]) -> Entry {
    crate::spool::entry::tests::entry(sender, recipients, 1_000_000_000_000)
}

fn refused(recipient: usize) -> Outcome {
    Outcome {
        recipient,
        status: Enhanced(5, 1, 1),
        diagnostic: Diagnostic::Smtp("550 5.1.1 <bob@example.org>: no such user here".to_owned()),
        remote: Some("mx.example.org".to_owned()),
        tried_ms: Some(1_000_000_060_000),
    }
}

fn built(
    event: Event,
    outcomes: &[Outcome],
    entry: &Entry,
    octets: &[u8],
    bounce_to: &BounceTo,
) -> Option<Notice> {
    let [id, notice_id] = ids();
    let original = Original { id, entry, octets, is_whole: true };
    let now = LocalTime { unix_ms: 1_000_000_061_000, offset_minutes: 120 };
    notice(event, outcomes, &original, &Teller { host_name: "relay.example", bounce_to, id: notice_id, now })
}

fn text_of(notice: &Notice) -> &str {
    std::str::from_utf8(&notice.octets).unwrap()
}

const MAIL: &[u8] = b"From: a@example.com\r\nSubject: Hello\r\n\r\nText\r\n.\r\n";

#[test]
fn a_failure_is_told_to_people_and_programs() {
    let mut entry = entry("alice@example.com", &["bob@example.org", "carol@example.org"]);
    entry.envid = Some("QQ+2B314159".to_owned());
    entry.recipients[0].orcpt = Some("rfc822;Bob+2Bx@example.org".to_owned());
    let notice = built(Event::Failed, &[refused(0)], &entry, MAIL, &BounceTo::Sender).unwrap();
    let [id, notice_id] = ids();
    let expected = format!(
        "Date: Sun, 9 Sep 2001 03:47:41 +0200\r\n\
         From: Mail Delivery System <MAILER-DAEMON@relay.example>\r\n\
         To: <alice@example.com>\r\n\
         Subject: Undelivered mail returned to sender\r\n\
         Message-ID: <{notice_id}.notice@relay.example>\r\n\
         Auto-Submitted: auto-replied\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"=_{notice_id}.0\"\r\n\
         \r\n\
         --=_{notice_id}.0\r\n\
         Content-Description: Notice\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\
         Content-Transfer-Encoding: 7bit\r\n\
         \r\n\
         This is the mail relay relay.example.\r\n\
         \r\n\
         Your message of Sun, 9 Sep 2001 03:46:40 +0200 (queue id {id})\r\n\
         could not be delivered to the recipients below. It is not tried again. The\r\n\
         message is attached.\r\n\
         \r\n\
         If the reason below does not tell you what to do, ask the recipient's\r\n\
         postmaster, or yours, and show this notice.\r\n\
         \r\n\
         <bob@example.org>:\r\n    mx.example.org said: 550 5.1.1 <bob@example.org>: no such user here\r\n\
         \r\n\
         --=_{notice_id}.0\r\n\
         Content-Description: Delivery report\r\n\
         Content-Type: message/delivery-status\r\n\
         Content-Transfer-Encoding: 7bit\r\n\
         \r\n\
         Original-Envelope-Id: QQ+314159\r\n\
         Reporting-MTA: dns; relay.example\r\n\
         Arrival-Date: Sun, 9 Sep 2001 03:46:40 +0200\r\n\
         X-Ringpost-Queue-ID: {id}\r\n\
         \r\n\
         Original-Recipient: rfc822;Bob+x@example.org\r\n\
         Final-Recipient: rfc822;bob@example.org\r\n\
         Action: failed\r\n\
         Status: 5.1.1\r\n\
         Remote-MTA: dns; mx.example.org\r\n\
         Diagnostic-Code: smtp; 550 5.1.1 <bob@example.org>: no such user here\r\n\
         Last-Attempt-Date: Sun, 9 Sep 2001 03:47:40 +0200\r\n\
         \r\n\
         --=_{notice_id}.0\r\n\
         Content-Description: Message\r\n\
         Content-Type: message/rfc822\r\n\
         Content-Transfer-Encoding: 7bit\r\n\
         \r\n\
         From: a@example.com\r\nSubject: Hello\r\n\r\nText\r\n.\r\n\
         \r\n\
         --=_{notice_id}.0--\r\n"
    );
    assert_eq!(text_of(&notice), expected);
    assert_eq!(notice.entry.sender, "");
    assert_eq!(notice.entry.origin, Origin::Notice);
    assert_eq!(notice.entry.body, Body::SevenBit);
    assert_eq!(
        notice.entry.recipients,
        [Recipient { address: "alice@example.com".to_owned(), notify: Recipient::NEVER, orcpt: None }]
    );
}

#[test]
fn a_delay_says_until_when_and_returns_headers_only() {
    let mut entry = entry("alice@example.com", &["bob@example.org"]);
    entry.ret = Some(Ret::Full);
    let late = Outcome {
        status: Enhanced(4, 4, 1),
        diagnostic: Diagnostic::Local("connection refused".to_owned()),
        remote: None,
        ..refused(0)
    };
    let event = Event::Delayed { until_ms: 1_000_432_000_000 };
    let notice = built(event, &[late], &entry, MAIL, &BounceTo::Sender).unwrap();
    let text = text_of(&notice);
    assert!(text.contains("Subject: Delayed mail: delivery goes on\r\n"), "{text}");
    assert!(
        text.contains(
            "Action: delayed\r\nStatus: 4.4.1\r\nDiagnostic-Code: x-ringpost; connection refused\r\n"
        )
    );
    assert!(text.contains("Will-Retry-Until: Fri, 14 Sep 2001 03:46:40 +0200\r\n"));
    assert!(text.contains("text/rfc822-headers\r\nContent-Transfer-Encoding: 7bit\r\n\r\nFrom: a@example.com\r\nSubject: Hello\r\n\r\n--"));
    assert!(!text.contains("Text"));
}

#[test]
fn what_is_relayed_into_the_unknown_is_told_where_success_was_asked_for() {
    let mut entry = entry("alice@example.com", &["bob@example.org", "carol@example.org"]);
    entry.recipients[1].notify = Recipient::SUCCESS | Recipient::FAILURE;
    let relayed = |recipient| Outcome {
        status: Enhanced(2, 0, 0),
        diagnostic: Diagnostic::Smtp("250 ok".to_owned()),
        ..refused(recipient)
    };
    let outcomes = [relayed(0), relayed(1)];
    let notice = built(Event::Relayed, &outcomes, &entry, MAIL, &BounceTo::Sender).unwrap();
    let text = text_of(&notice);
    assert!(
        text.contains("Final-Recipient: rfc822;carol@example.org\r\nAction: relayed\r\nStatus: 2.0.0\r\n")
    );
    assert!(!text.contains("bob@"), "{text}");
    assert_eq!(built(Event::Relayed, &outcomes[..1], &entry, MAIL, &BounceTo::Sender), None);
}

#[test]
fn a_notice_never_causes_a_notice() {
    for event in [Event::Failed, Event::Delayed { until_ms: 0 }, Event::Relayed] {
        let null_sender = entry("", &["bob@example.org"]);
        let mut ours = entry("alice@example.com", &["bob@example.org"]);
        ours.origin = Origin::Notice;
        let mut never = entry("alice@example.com", &["bob@example.org"]);
        never.recipients[0].notify = Recipient::NEVER;
        let anybody = BounceTo::Address("postmaster@example.com".to_owned());
        for (entry, bounce_to) in
            [(&null_sender, &anybody), (&ours, &anybody), (&never, &anybody), (&never, &BounceTo::Sender)]
        {
            assert_eq!(built(event, &[refused(0)], entry, MAIL, bounce_to), None);
        }
    }
}

#[test]
fn notify_says_which_events_are_told() {
    let delayed = Event::Delayed { until_ms: 0 };
    for (notify, told) in [
        (0, [true, true, false]),
        (Recipient::FAILURE, [true, false, false]),
        (Recipient::DELAY, [false, true, false]),
        (Recipient::SUCCESS, [false, false, true]),
        (Recipient::SUCCESS | Recipient::FAILURE | Recipient::DELAY, [true, true, true]),
        (Recipient::NEVER, [false, false, false]),
    ] {
        let mut entry = entry("alice@example.com", &["bob@example.org"]);
        entry.recipients[0].notify = notify;
        let heard = [Event::Failed, delayed, Event::Relayed]
            .map(|event| addressee(&entry, 0, event, &BounceTo::Sender).is_some());
        assert_eq!(heard, told, "NOTIFY {notify}");
    }
}

#[test]
fn bounce_to_decides_where_notices_go() {
    let entry = entry("alice@example.com", &["bob@example.org"]);
    assert_eq!(built(Event::Failed, &[refused(0)], &entry, MAIL, &BounceTo::Off), None);
    let operator = BounceTo::Address("ops@example.net".to_owned());
    let notice = built(Event::Failed, &[refused(0)], &entry, MAIL, &operator).unwrap();
    assert_eq!(notice.entry.recipients[0].address, "ops@example.net");
    assert!(text_of(&notice).contains("To: <ops@example.net>\r\n"));
}

#[test]
fn ret_and_size_decide_how_much_goes_back() {
    let body = "line\r\n".repeat(20_000);
    let long = format!("Subject: x\r\nX-Y: z\r\n\r\n{body}").into_bytes();
    for (ret, octets, is_message) in [
        (None, MAIL, true),
        (Some(Ret::Full), MAIL, true),
        (Some(Ret::Headers), MAIL, false),
        (None, &long[..], false),
        (Some(Ret::Full), &long[..], false),
    ] {
        let mut entry = entry("alice@example.com", &["bob@example.org"]);
        entry.ret = ret;
        let notice = built(Event::Failed, &[refused(0)], &entry, octets, &BounceTo::Sender).unwrap();
        assert_eq!(text_of(&notice).contains("message/rfc822"), is_message);
        assert_eq!(text_of(&notice).contains("text/rfc822-headers"), !is_message);
        assert!(notice.octets.len() < NOTICE_ORIGINAL_OCTETS_MAX + 4096);
    }
}

#[test]
fn a_header_section_without_end_is_cut_at_a_line() {
    let endless = "X-Y: zzzzzzz\r\n".repeat(NOTICE_ORIGINAL_OCTETS_MAX).into_bytes();
    let section = header_section(&endless);
    assert!(section.len() <= NOTICE_ORIGINAL_OCTETS_MAX && section.len() > NOTICE_ORIGINAL_OCTETS_MAX - 20);
    assert!(section.ends_with(b"\r\n"));
    assert_eq!(header_section(b""), b"");
    assert_eq!(header_section(b"no header at all"), b"");
    assert_eq!(header_section(b"A: b\r\n\r\nText\r\n"), b"A: b\r\n");
}

#[test]
fn eight_bit_content_is_declared_or_left_out_for_who_refused_it() {
    let mail = "Subject: x\r\n\r\nGr\u{fc}\u{df}e\r\n".as_bytes();
    let entry = entry("alice@example.com", &["bob@example.org"]);
    let notice = built(Event::Failed, &[refused(0)], &entry, mail, &BounceTo::Sender).unwrap();
    assert_eq!(notice.entry.body, Body::EightBitMime);
    assert!(text_of(&notice).contains("message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n"));
    let no_way = Outcome { status: Enhanced(5, 6, 3), ..refused(0) };
    let notice = built(Event::Failed, &[no_way], &entry, mail, &BounceTo::Sender).unwrap();
    assert_eq!(notice.entry.body, Body::SevenBit);
    assert!(notice.octets.is_ascii());
    let headers = "Subject: Gr\u{fc}\u{df}e\r\n\r\n".as_bytes();
    let mut hdrs = entry.clone();
    hdrs.ret = Some(Ret::Headers);
    let notice = built(Event::Failed, &[refused(0)], &hdrs, headers, &BounceTo::Sender).unwrap();
    assert!(text_of(&notice).contains(
        "text/rfc822-headers\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nSubject: Gr=C3=BC=C3=9Fe\r\n"
    ));
}

#[test]
fn internationalized_mail_is_told_in_the_readers_script() {
    let mail = "Subject: \u{6d4b}\r\n\r\nx\r\n".as_bytes();
    let mut ours = entry("j\u{f6}rg@example.com", &["b\u{f6}b@example.org"]);
    ours.smtputf8 = true;
    ours.recipients[0].orcpt = Some("utf-8;b\\x{F6}b@example.org".to_owned());
    let notice = built(Event::Failed, &[refused(0)], &ours, mail, &BounceTo::Sender).unwrap();
    let text = text_of(&notice);
    assert!(notice.entry.smtputf8 && notice.entry.body == Body::EightBitMime);
    assert!(text.contains("message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n"), "{text}");
    assert!(text.contains(
        "Original-Recipient: utf-8;b\u{f6}b@example.org\r\nFinal-Recipient: utf-8;b\u{f6}b@example.org\r\n"
    ));
    assert!(text.contains("message/global\r\n"));

    // A reader whose address is ASCII may have a mailbox that knows nothing of all this.
    ours.sender = "jorg@example.com".to_owned();
    let notice = built(Event::Failed, &[refused(0)], &ours, mail, &BounceTo::Sender).unwrap();
    let text = text_of(&notice);
    assert!(notice.octets.is_ascii() && !notice.entry.smtputf8 && notice.entry.body == Body::SevenBit);
    assert!(text.contains("Final-Recipient: utf-8;b\\x{F6}b@example.org\r\n"), "{text}");
    assert!(text.contains("message/global\r\nContent-Transfer-Encoding: base64\r\n"));
}

#[test]
fn what_an_upstream_says_makes_no_field_and_no_boundary() {
    let [_, notice_id] = ids();
    let entry = entry("alice@example.com", &["bob@example.org"]);
    let mut evil = refused(0);
    evil.diagnostic =
        Diagnostic::Smtp(format!("550 no\r\nAction: delivered\r\n\r\n--=_{notice_id}.0--\r\n\u{e9}"));
    evil.remote = Some("mx\r\nX: y".to_owned());
    let notice = built(Event::Failed, &[evil], &entry, MAIL, &BounceTo::Sender).unwrap();
    let text = text_of(&notice);
    assert!(text.is_ascii());
    assert!(!text.contains("\r\nAction: delivered") && !text.contains("\r\nX: y"), "{text}");
    assert!(text.ends_with(&format!("--=_{notice_id}.1--\r\n")));
    assert_eq!(text.matches(&format!("\r\n--=_{notice_id}.1")).count(), 4);
}

#[test]
fn many_recipients_are_all_in_the_report_and_some_in_the_text() {
    let addresses: Vec<String> = (0..200).map(|number| format!("u{number}@example.org")).collect();
    let entry = entry("alice@example.com", &addresses.iter().map(String::as_str).collect::<Vec<_>>());
    let outcomes: Vec<Outcome> = (0..200).map(refused).collect();
    let notice = built(Event::Failed, &outcomes, &entry, MAIL, &BounceTo::Sender).unwrap();
    let text = text_of(&notice);
    assert_eq!(text.matches("Final-Recipient:").count(), 200);
    assert_eq!(text.matches(">:\r\n    ").count(), NOTICE_RECIPIENTS_SHOWN_MAX);
    assert!(text.contains("and 150 more, who stand in the attached report.\r\n"));
}
