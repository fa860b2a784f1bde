//! Several upstreams in order of preference: the next is tried when one cannot be used.

use ringpost_tests::daemon::Builder;
use ringpost_tests::message;
use ringpost_tests::upstream::{Act, Script, Stage, Upstream, refusing};

use crate::attempt::verdict;

#[test]
fn goes_to_the_next_upstream_when_one_refuses_connections() {
    let second = Upstream::plain();
    let refusing = refusing();
    let hosts = format!("[127.0.0.1]:{},{}", refusing.port(), second.host());
    let daemon = Builder::relaying_to(&hosts).start();
    let sent = message::ordinary("x\r\n");
    daemon.client().deliver(&sent).assert("250 2.");
    second.mail().assert_carries(&sent);
}

#[test]
fn goes_to_the_next_upstream_when_one_will_not_talk() {
    let unwilling = [
        Script::new().on(Stage::Connect, "421 4.3.2 Not now"),
        Script::new().on(Stage::Connect, "554 5.7.1 Not you"),
        Script::new().on(Stage::Connect, Act::Close),
        Script::new().on(Stage::Ehlo, "421 4.3.2 Not now"),
    ];
    for script in unwilling {
        let (first, second) = (Upstream::start(script), Upstream::plain());
        let daemon = Builder::relaying_to(&format!("{},{}", first.host(), second.host())).start();
        daemon.client().deliver(&message::ordinary("x\r\n")).assert("250 2.");
        assert_eq!((second.mails(1).len(), first.complete()), (1, 0));
    }
}

#[test]
fn prefers_the_first_upstream() {
    let (first, second) = (Upstream::plain(), Upstream::plain());
    let daemon = Builder::relaying_to(&format!("{},{}", first.host(), second.host())).start();
    let mut client = daemon.client();
    for _ in 0..3 {
        client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
    }
    assert_eq!((first.mails(3).len(), second.connections()), (3, 0));
}

#[test]
fn a_permanent_verdict_is_not_tried_elsewhere() {
    let first = Upstream::start(Script::new().on(Stage::Message, "554 5.6.0 Not this"));
    let second = Upstream::plain();
    let daemon = Builder::relaying_to(&format!("{},{}", first.host(), second.host())).start();
    verdict(&mut daemon.client(), &message::ordinary("x\r\n")).assert("554 5.6.0");
    assert_eq!(second.complete(), 0);
}

#[test]
fn answers_451_when_no_upstream_is_to_be_had() {
    let hosts = format!("[127.0.0.1]:{},[127.0.0.1]:{}", refusing().port(), refusing().port());
    let daemon = Builder::relaying_to(&hosts).start();
    let mut client = daemon.client();
    verdict(&mut client, &message::ordinary("x\r\n")).assert("451 4.4.");
    client.command("RSET").assert("250 2.");
    client.quit();
}
