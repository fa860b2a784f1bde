//! Who may relay: ACCEPTED_NETWORKS and loopback, nobody else.

use std::net::{IpAddr, SocketAddr, TcpStream};

use ringpost_tests::client::Client;
use ringpost_tests::daemon::Builder;
use ringpost_tests::namespace::{self, Place};
use ringpost_tests::skip;
use ringpost_tests::upstream::Upstream;

/// The reply to RCPT for a client that comes from this address, which the kernel picks as the one it goes to.
#[track_caller]
fn rcpt_at(address: SocketAddr) -> String {
    let source =
        TcpStream::connect(address).and_then(|stream| stream.local_addr()).expect("the relay listens");
    assert_eq!(source.ip(), address.ip(), "the source is the address itself");
    let mut client = Client::greeted(address);
    client.command("MAIL FROM:<a@client.test>").assert("250 2.1.0");
    client.command("RCPT TO:<b@example.com>").text()
}

#[test]
fn lets_only_accepted_networks_and_loopback_relay() {
    let addresses = ["198.18.1.1/32", "198.18.2.1/32", "2001:db8:1::1/128", "2001:db8:2::1/128"];
    match namespace::enter(&addresses) {
        Place::Unable(reason) => skip!("{reason}"),
        Place::Done => return,
        Place::Inside => {}
    }
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host())
        .with("LISTEN_SMTP", "0.0.0.0:0 [::]:0")
        .with("ACCEPTED_NETWORKS", "198.18.1.0/24, 2001:db8:1::1")
        .start();
    let port = |ip: &str| {
        let ip: IpAddr = ip.parse().expect("an address");
        let bound = daemon.listeners("smtp").into_iter().find(|bound| bound.is_ipv4() == ip.is_ipv4());
        SocketAddr::new(ip, bound.expect("a listener of its family").port())
    };
    for accepted in ["127.0.0.1", "::1", "198.18.1.1", "2001:db8:1::1"] {
        assert!(rcpt_at(port(accepted)).starts_with("250 2.1.5"), "{accepted}");
    }
    for refused in ["198.18.2.1", "2001:db8:2::1"] {
        assert_eq!(rcpt_at(port(refused)), "454 4.7.1 Relay access denied", "{refused}");
    }
    daemon.stop();
    assert_eq!(upstream.complete(), 0);
}
