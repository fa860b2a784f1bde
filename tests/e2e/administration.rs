//! What an operator does to the queue of the live daemon, and what the sender hears.

use std::net::{SocketAddr, TcpListener};

use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::process::{Finished, run};
use ringpost_tests::upstream::{Mail, Script, Stage, Upstream, refusing};

/// A relay that takes everything for later, and tries rarely.
fn queueing(hosts: &str) -> Builder {
    Builder::relaying_to(hosts).with("DELIVERY_PATIENCE", "0").with("QUEUE_RETRY", "1h")
}

/// A relay whose upstream is down, and where that will be.
fn stranded() -> (Daemon, SocketAddr) {
    let address = refusing();
    (queueing(&format!("[127.0.0.1]:{}", address.port())).start(), address)
}

/// Hands in a message and returns its id.
#[track_caller]
fn queued(daemon: &Daemon, from: &str, to: &str) -> String {
    let mut client = daemon.client();
    let reply = client.envelope(from, &[to]).data(&message::ordinary("x\r\n"));
    let reply = reply.assert("250 2.0.0 Ok: queued as ").text();
    reply.rsplit(' ').next().expect("an id").trim().to_owned()
}

/// Waits until every message was attempted once and waits for its next time, or is in line behind a dead upstream.
#[track_caller]
fn attempted(daemon: &Daemon) {
    daemon.logged("deferred");
}

#[track_caller]
fn ok(finished: Finished) -> String {
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    finished.stdout
}

fn rows(daemon: &Daemon) -> Vec<serde_json::Value> {
    let listed = ok(daemon.verb(&["queue", "list", "--json"]));
    listed.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

fn up(address: SocketAddr) -> Upstream {
    Upstream::start_at(TcpListener::bind(address).expect("the port is free"), Script::new())
}

fn text(mail: &Mail) -> String {
    String::from_utf8(mail.content()).expect("text")
}

#[test]
fn an_empty_queue_says_so_and_in_json_nothing() {
    let (daemon, _) = stranded();
    assert_eq!(ok(daemon.verb(&["queue", "list", "--json"])), "");
    assert_eq!(ok(daemon.verb(&["queue", "list"])), "the queue is empty\n");
    assert_eq!(ok(run(&mut daemon.environment_of(&daemon.called("mailq")))), "Mail queue is empty\n");
    for verb in ["show", "hold", "release", "requeue", "delete", "bounce"] {
        let finished = daemon.verb(&["queue", verb, "U1K2JFJ00000000"]);
        assert_eq!(finished.code, Some(1), "{verb}: {finished:#?}");
        assert!(finished.stderr.contains("no such message"), "{verb}: {finished:#?}");
    }
    let nobody = queueing("[127.0.0.1]:9");
    assert_eq!(nobody.verb(&["queue", "list"]).code, Some(3));
}

#[test]
fn list_and_show_tell_what_is_queued() {
    let (daemon, _) = stranded();
    let id = queued(&daemon, "a@client.test", "b@example.com");
    attempted(&daemon);
    let rows = rows(&daemon);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0]["queue_id"], id.as_str());
    assert_eq!(rows[0]["sender"], "a@client.test");
    assert_eq!(rows[0]["recipients"][0]["address"], "b@example.com");
    let fields: Vec<&String> = rows[0].as_object().expect("an object").keys().collect();
    for field in ["queue_name", "arrival_time", "message_size", "forced_expire"] {
        assert!(fields.iter().any(|found| *found == field), "{fields:?}");
    }
    let table = ok(daemon.verb(&["queue", "list"]));
    assert!(table.contains(&id) && table.contains("a@client.test -> b@example.com"), "{table}");
    let mailq = ok(run(&mut daemon.environment_of(&daemon.called("mailq"))));
    assert!(mailq.contains(&id) && mailq.contains(" Kbytes in 1 Request."), "{mailq}");
    let shown = ok(daemon.verb(&["queue", "show", &id]));
    for line in
        ["sender: <a@client.test>", "recipient: <b@example.com> pending", "Subject:", "Received: from"]
    {
        assert!(shown.contains(line), "{line:?} is not in {shown}");
    }
    daemon.stop();
}

#[test]
fn what_is_held_stays_until_it_is_released_also_after_a_restart() {
    let (daemon, address) = stranded();
    let held = queued(&daemon, "held@client.test", "b@example.com");
    attempted(&daemon);
    ok(daemon.verb(&["queue", "hold", &held]));
    let daemon = daemon.kill().start();
    assert_eq!(rows(&daemon)[0]["queue_name"], "hold");
    let upstream = up(address);
    let free = queued(&daemon, "free@client.test", "b@example.com");
    ok(daemon.verb(&["flush"]));
    assert_eq!(upstream.mail().reverse_path(), "<free@client.test>");
    daemon.says(|line| line.contains("event=delivered") && line.contains(&free));
    assert_eq!(rows(&daemon).len(), 1);
    assert_eq!(
        ok(daemon.verb(&["queue", "release", "--sender", "HELD@client.test"])),
        "1 of 1 messages released\n"
    );
    assert_eq!(upstream.mails(2)[1].reverse_path(), "<held@client.test>");
    daemon.stop();
}

#[test]
fn what_is_deleted_is_gone_for_good_and_nobody_is_told() {
    let (daemon, address) = stranded();
    let doomed = queued(&daemon, "a@client.test", "b@doomed.example");
    queued(&daemon, "a@client.test", "b@spared.example");
    attempted(&daemon);
    assert_eq!(
        ok(daemon.verb(&["queue", "delete", "--domain", "doomed.example"])),
        "1 of 1 messages deleted\n"
    );
    assert_eq!(daemon.verb(&["queue", "show", &doomed]).code, Some(1));
    let daemon = daemon.kill().start();
    let upstream = up(address);
    ok(daemon.verb(&["flush"]));
    assert_eq!(upstream.mail().accepted(), ["<b@spared.example>"]);
    daemon.reaches("ringpost_queue_octets", 0.0);
    assert_eq!(upstream.complete(), 1);
    daemon.stop();
}

#[test]
fn requeue_and_flush_do_not_wait_for_the_next_time() {
    let upstream = Upstream::start(
        Script::new()
            .once(Stage::Rcpt, "450 4.2.0 Busy")
            .once(Stage::Rcpt, "250 2.1.5 Ok")
            .once(Stage::Rcpt, "450 4.2.0 Busy"),
    );
    let daemon = queueing(&upstream.host()).start();
    for verb in [&["queue", "requeue", "--recipient", "b@example.com"][..], &["flush"]] {
        let id = queued(&daemon, "a@client.test", "b@example.com");
        daemon.says(|line| line.contains("event=deferred") && line.contains(&id));
        let row = rows(&daemon).remove(0);
        assert_eq!(row["queue_name"], "deferred");
        let reason = row["recipients"][0]["delay_reason"].as_str().unwrap_or_default();
        assert!(reason.contains("450 4.2.0 Busy"), "{row}");
        ok(daemon.verb(verb));
        daemon.says(|line| line.contains("event=delivered") && line.contains(&id));
    }
    assert_eq!(upstream.mails(2).len(), 2);
    daemon.stop();
}

#[test]
fn an_operator_returns_mail_to_its_sender() {
    let (daemon, address) = stranded();
    let id = queued(&daemon, "a@client.test", "b@example.com");
    let null = queued(&daemon, "", "c@example.com");
    attempted(&daemon);
    ok(daemon.verb(&["queue", "bounce", &id, &null]));
    daemon.logged("notice");
    let upstream = up(address);
    ok(daemon.verb(&["flush"]));
    let notice = upstream.mail();
    assert_eq!((notice.reverse_path(), notice.accepted()), ("<>", vec!["<a@client.test>"]));
    let text = text(&notice);
    for part in [
        "report-type=delivery-status",
        "Action: failed",
        "Status: 5.0.0",
        "Final-Recipient: rfc822;b@example.com",
        "returned by the postmaster",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    daemon.reaches("ringpost_queue_octets", 0.0);
    assert_eq!(upstream.complete(), 1, "nobody is told of what the null sender sent");
    daemon.stop();
}

#[test]
fn who_is_refused_for_good_is_told_to_the_sender_unless_he_said_never() {
    let script = Script::new().on_words(Stage::Rcpt, "nobody", "550 5.1.1 No such user here");
    let upstream = Upstream::start(script);
    let daemon = queueing(&upstream.host()).start();
    let sent = message::ordinary("x\r\n");
    let mut client = daemon.client();
    client.command("MAIL FROM:<quiet@client.test>").assert("250");
    client.command("RCPT TO:<nobody@example.com> NOTIFY=NEVER").assert("250");
    client.data(&sent).assert("250");
    daemon.reaches("ringpost_recipients_total{outcome=\"bounced\"}", 1.0);
    client.command("MAIL FROM:<a@client.test> RET=HDRS ENVID=QQ314").assert("250");
    client.command("RCPT TO:<nobody@example.com> ORCPT=rfc822;Nobody@example.com").assert("250");
    client.command("RCPT TO:<b@example.com>").assert("250");
    client.data(&sent).assert("250");
    let mails = upstream.mails(2);
    let notice = mails.iter().find(|mail| mail.reverse_path() == "<>").expect("a notice");
    assert_eq!(notice.accepted(), ["<a@client.test>"]);
    let text = text(notice);
    for part in [
        "Original-Envelope-Id: QQ314",
        "Original-Recipient: rfc822;Nobody@example.com",
        "Final-Recipient: rfc822;nobody@example.com",
        "Status: 5.1.1",
        "smtp; 550 5.1.1 No such user here",
        "text/rfc822-headers",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    daemon.reaches("ringpost_queue_octets", 0.0);
    assert_eq!(upstream.complete(), 2, "one mail, one notice");
    daemon.stop();
}

#[test]
fn notices_go_where_bounce_to_says() {
    for (bounce_to, expected) in [("ops@example.net", Some("<ops@example.net>")), ("off", None)] {
        let script = Script::new().on_words(Stage::Rcpt, "nobody", "550 5.1.1 No such user here");
        let upstream = Upstream::start(script);
        let daemon = queueing(&upstream.host()).with("BOUNCE_TO", bounce_to).start();
        queued(&daemon, "a@client.test", "nobody@example.com");
        daemon.reaches("ringpost_recipients_total{outcome=\"bounced\"}", 1.0);
        daemon.reaches("ringpost_queue_octets", 0.0);
        match expected {
            Some(address) => assert_eq!(upstream.mail().accepted(), [address]),
            None => assert_eq!(upstream.complete(), 0),
        }
        daemon.stop();
    }
}

#[test]
fn a_delay_is_told_once() {
    let upstream = Upstream::start(Script::new().on_words(Stage::Rcpt, "later", "450 4.2.0 Busy"));
    let daemon = queueing(&upstream.host()).with("QUEUE_RETRY", "100ms").with("DELAY_WARNING", "1ms").start();
    queued(&daemon, "a@client.test", "later@example.com");
    let notice = upstream.mail();
    let text = text(&notice);
    assert_eq!((notice.reverse_path(), notice.accepted()), ("<>", vec!["<a@client.test>"]));
    assert!(text.contains("Action: delayed") && text.contains("Will-Retry-Until:"), "{text}");
    // Some more attempts, and no more notices.
    daemon.reaches("ringpost_recipients_total{outcome=\"deferred\"}", 5.0);
    assert_eq!(upstream.complete(), 1);
    daemon.stop();
}

#[test]
fn fsck_tells_a_sound_spool_from_a_damaged_one() {
    let (daemon, _) = stranded();
    queued(&daemon, "a@client.test", "b@example.com");
    let beside = ok(daemon.verb(&["queue", "fsck"]));
    assert!(beside.contains("1 messages") && beside.contains("the spool is well"), "{beside}");
    let id = queued(&daemon, "a@client.test", "c@example.com");
    attempted(&daemon);
    let killed = daemon.kill();
    let segments = std::fs::read_dir(killed.dir().join("state/spool/segments")).expect("segments");
    for segment in segments {
        let path = segment.expect("a file").path();
        let mut octets = std::fs::read(&path).expect("a segment");
        let needle = b"c@example.com";
        if let Some(at) = octets.windows(needle.len()).position(|window| window == needle) {
            octets[at] = b'!';
            std::fs::write(&path, octets).expect("a segment");
        }
    }
    let checked = killed.verb(&["queue", "fsck"]);
    assert_eq!(checked.code, Some(1), "{checked:#?}");
    assert!(checked.stdout.contains(&format!("message {id}")), "{checked:#?}");
    let elsewhere = queueing("[127.0.0.1]:9");
    assert_eq!(elsewhere.verb(&["queue", "fsck"]).code, Some(73));
}
