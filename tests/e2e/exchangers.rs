//! Delivery to the recipients' own exchangers and to named upstreams, against a name server of the test's own.

use std::net::TcpListener;
use std::path::Path;

use ringpost_tests::client::Client;
use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::need;
use ringpost_tests::upstream::{Script, Upstream, refusing};
use ringpost_tests::zone::Zone;

/// Domains of every kind; all hosts take mail at one port. Nobody listens at 127.0.0.9.
const RECORDS: &str = "\
    two.test. 300 IN MX 10 dead.test.\n\
    two.test. 300 IN MX 20 live.test.\n\
    first.test. 300 IN MX 20 second-host.test.\n\
    first.test. 300 IN MX 10 live.test.\n\
    none.test. 300 IN MX 0 .\n\
    host.test. 300 IN A 127.0.0.1\n\
    both.test. 300 IN MX 10 second-host.test.\n\
    both.test. 300 IN A 127.0.0.1\n\
    nowhere.test. 300 IN MX 10 missing.test.\n\
    live.test. 300 IN A 127.0.0.1\n\
    second-host.test. 300 IN A 127.0.0.2\n\
    dead.test. 300 IN A 127.0.0.9\n";

/// Two hosts with one port, and the names that lead to them.
struct Stage {
    zone: Zone,
    first: Upstream,
    second: Upstream,
}

impl Stage {
    #[track_caller]
    fn new(knotd: &Path) -> Self {
        let (first, second) = loop {
            let first = Upstream::plain();
            let same_port = TcpListener::bind(("127.0.0.2", first.address().port()));
            if let Ok(listener) = same_port {
                break (first, Upstream::start_at(listener, Script::new()));
            }
        };
        Self { zone: Zone::start(knotd, RECORDS, "", ""), first, second }
    }

    fn relay(&self, hosts: &str) -> Daemon {
        Builder::relaying_to(hosts)
            .with("EXT_RELAY_PORT", &self.first.address().port().to_string())
            .with("DNS_SERVERS", &self.zone.address().to_string())
            .start()
    }

    fn taken(&self) -> (usize, usize) {
        (self.first.complete(), self.second.complete())
    }
}

/// Sends one mail to a recipient; the first reply that is no success, or the last one.
#[track_caller]
fn send_to(client: &mut Client, recipient: &str) -> String {
    client.command("MAIL FROM:<a@client.test>").assert("250");
    let answer = client.command(&format!("RCPT TO:<{recipient}>"));
    if answer.code != 250 {
        client.command("RSET").assert("250");
        return answer.text();
    }
    client.data(&message::ordinary("x\r\n")).text()
}

#[test]
fn goes_to_the_exchangers_of_the_recipient_in_order() {
    let stage = Stage::new(&need!("knotd"));
    let daemon = stage.relay("mx");
    let mut client = daemon.client();
    // The preferred exchanger is down: the next one gets it.
    assert!(send_to(&mut client, "b@two.test").starts_with("250 2."));
    assert_eq!(stage.taken(), (1, 0));
    // Both are up: the preferred one gets it, whatever the order of the records.
    assert!(send_to(&mut client, "b@FIRST.test").starts_with("250 2."));
    assert_eq!(stage.taken(), (2, 0));
    // RFC 5321 §5.1: the exchanger, not the address, where there are both; the address where there is no exchanger.
    assert!(send_to(&mut client, "b@both.test").starts_with("250 2."));
    assert_eq!(stage.taken(), (2, 1));
    assert!(send_to(&mut client, "b@host.test").starts_with("250 2."));
    assert!(send_to(&mut client, "b@[127.0.0.2]").starts_with("250 2."));
    assert_eq!(stage.taken(), (3, 2));
}

#[test]
fn tells_a_domain_that_takes_no_mail_from_one_that_cannot_be_found_now() {
    let stage = Stage::new(&need!("knotd"));
    let daemon = stage.relay("mx");
    let mut client = daemon.client();
    // RFC 7505 §4.1.
    assert!(send_to(&mut client, "b@none.test").starts_with("556 5.1.10"));
    for recipient in ["b@missing.test", "b@nowhere.test"] {
        let answer = send_to(&mut client, recipient);
        assert!(answer.starts_with("451 4."), "{recipient}: {answer}");
    }
    assert_eq!(stage.taken(), (0, 0));
    assert!(send_to(&mut client, "b@host.test").starts_with("250 2."), "the session goes on");
}

#[test]
fn a_name_server_that_does_not_answer_is_a_temporary_failure() {
    let daemon = Builder::relaying_to("mx").with("DNS_SERVERS", &refusing().to_string()).start();
    let answer = send_to(&mut daemon.client(), "b@example.com");
    assert!(answer.starts_with("451 4."), "{answer}");
}

#[test]
fn one_transaction_goes_to_one_domain_and_the_others_come_again() {
    let stage = Stage::new(&need!("knotd"));
    let daemon = stage.relay("mx");
    let mut client = daemon.client();
    client.command("MAIL FROM:<a@client.test>").assert("250");
    client.command("RCPT TO:<b@host.test>").assert("250");
    // RFC 5321 §4.5.3.1.10: the client tries the rest again in another transaction.
    client.command("RCPT TO:<c@both.test>").assert("452 4.5.3");
    client.command("RCPT TO:<d@host.test>").assert("250");
    client.data(&message::ordinary("x\r\n")).assert("250 2.");
    assert_eq!(stage.first.mail().accepted(), ["<b@host.test>", "<d@host.test>"]);
}

#[test]
fn an_upstream_in_brackets_is_a_host_and_without_them_a_domain() {
    let stage = Stage::new(&need!("knotd"));
    assert!(send_to(&mut stage.relay("both.test").client(), "b@example.com").starts_with("250 2."));
    assert_eq!(stage.taken(), (0, 1));
    assert!(send_to(&mut stage.relay("[both.test]").client(), "b@example.com").starts_with("250 2."));
    assert_eq!(stage.taken(), (1, 1));
}
