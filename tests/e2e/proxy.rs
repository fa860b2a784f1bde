//! PROXY headers (v1 and v2): from listed peers only, exact, before anything else; both addresses are judged.

use ringpost_tests::client::Client;
use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::message;
use ringpost_tests::upstream::Upstream;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn behind_a_proxy(upstream: &Upstream) -> Daemon {
    let builder = Builder::relaying_to(&upstream.host()).with("PROXY_PROTOCOL", "127.0.0.1");
    builder.with("ACCEPTED_NETWORKS", "198.18.1.0/24 2001:db8:1::/48").start()
}

fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).expect("a short header").to_be_bytes();
    [SIGNATURE, &[0x20 | command, family], &length, addresses].concat()
}

fn inet(source: [u8; 4]) -> Vec<u8> {
    [&source[..], &[127, 0, 0, 1], &4660_u16.to_be_bytes(), &25_u16.to_be_bytes()].concat()
}

fn inet6(last: u8, network: u8) -> Vec<u8> {
    let address = |last| [&[0x20, 0x01, 0x0d, 0xb8, 0, network][..], &[0; 9], &[last]].concat();
    [address(last), address(9), 4660_u16.to_be_bytes().into(), 25_u16.to_be_bytes().into()].concat()
}

/// The reply to RCPT, and what the trace says, for a client behind this header.
#[track_caller]
fn rcpt_behind(daemon: &Daemon, header: &[u8]) -> String {
    let mut client = Client::dial(daemon.smtp());
    client.send(header).reply().assert("220 ");
    client.command("EHLO client.test").assert("250 ");
    client.command("MAIL FROM:<a@client.test>").assert("250 2.1.0");
    client.command("RCPT TO:<b@example.com>").text()
}

#[test]
fn judges_the_claimed_address_by_the_accepted_networks() {
    let upstream = Upstream::plain();
    let daemon = behind_a_proxy(&upstream);
    let inside: [Vec<u8>; 4] = [
        b"PROXY TCP4 198.18.1.7 127.0.0.1 4660 25\r\n".to_vec(),
        b"PROXY TCP6 2001:db8:1::7 2001:db8::9 4660 25\r\n".to_vec(),
        v2(1, 0x11, &inet([198, 18, 1, 7])),
        v2(1, 0x21, &inet6(7, 1)),
    ];
    for header in &inside {
        assert!(rcpt_behind(&daemon, header).starts_with("250 2.1.5"), "{}", header.escape_ascii());
    }
    let outside: [Vec<u8>; 4] = [
        b"PROXY TCP4 198.19.1.7 127.0.0.1 4660 25\r\n".to_vec(),
        b"PROXY TCP6 2001:db8:2::7 2001:db8::9 4660 25\r\n".to_vec(),
        v2(1, 0x11, &inet([198, 19, 1, 7])),
        v2(1, 0x21, &inet6(7, 2)),
    ];
    for header in &outside {
        assert_eq!(
            rcpt_behind(&daemon, header),
            "454 4.7.1 Relay access denied",
            "{}",
            header.escape_ascii()
        );
    }
}

#[test]
fn tells_the_claimed_address_in_the_trace() {
    let upstream = Upstream::plain();
    let daemon = behind_a_proxy(&upstream);
    let mut client = Client::dial(daemon.smtp());
    client.send(b"PROXY TCP4 198.18.1.7 127.0.0.1 4660 25\r\n").reply().assert("220 ");
    client.command("EHLO client.test").assert("250 ");
    let sent = message::ordinary("x\r\n");
    client.deliver(&sent).assert("250 2.");
    let added = upstream.mail().assert_carries(&sent);
    assert!(added[0].contains("[198.18.1.7]"), "{added:?}");
}

#[test]
fn takes_local_and_unknown_for_the_peer_itself() {
    let upstream = Upstream::plain();
    let daemon = behind_a_proxy(&upstream);
    let tlv = [&inet([198, 18, 1, 7])[..], &[4, 0, 2, b'x', b'y']].concat();
    let own: [Vec<u8>; 4] = [
        b"PROXY UNKNOWN\r\n".to_vec(),
        b"PROXY UNKNOWN ff:ff::1 whatever 1 2\r\n".to_vec(),
        v2(0, 0, b""),
        v2(0, 0x11, &tlv),
    ];
    for header in own.iter().chain([&v2(1, 0x11, &tlv)]) {
        assert!(rcpt_behind(&daemon, header).starts_with("250 2.1.5"), "{}", header.escape_ascii());
    }
}

#[test]
fn a_header_may_come_one_octet_at_a_time() {
    let upstream = Upstream::plain();
    let daemon = behind_a_proxy(&upstream);
    for header in
        [b"PROXY TCP4 198.18.1.7 127.0.0.1 4660 25\r\n".to_vec(), v2(1, 0x11, &inet([198, 18, 1, 7]))]
    {
        let mut client = Client::dial(daemon.smtp());
        client.dribble(&header).reply().assert("220 ");
        client.quit();
    }
}

#[test]
fn closes_on_anything_that_is_no_header() {
    let upstream = Upstream::plain();
    let daemon = behind_a_proxy(&upstream);
    let lines = [
        "EHLO client.test\r\n",
        "PROXY TCP4 198.18.1.7 127.0.0.1 4660 25\n",
        "PROXY  TCP4 198.18.1.7 127.0.0.1 4660 25\r\n",
        "PROXY TCP4 198.18.001.7 127.0.0.1 4660 25\r\n",
        "PROXY TCP4 2001:db8:1::7 127.0.0.1 4660 25\r\n",
        "PROXY TCP6 198.18.1.7 2001:db8::9 4660 25\r\n",
        "PROXY TCP4 198.18.1.7 127.0.0.1 4660 65536\r\n",
        "PROXY TCP4 198.18.1.7 127.0.0.1 4660\r\n",
        "PROXY UDP4 198.18.1.7 127.0.0.1 4660 25\r\n",
        "proxy TCP4 198.18.1.7 127.0.0.1 4660 25\r\n",
    ];
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(108));
    let mut wrong: Vec<Vec<u8>> =
        lines.iter().copied().chain([long.as_str()]).map(|line| line.into()).collect();
    wrong.push([SIGNATURE, &[0x11, 0x11, 0, 12], &inet([198, 18, 1, 7])].concat());
    wrong.push(v2(2, 0x11, &inet([198, 18, 1, 7])));
    wrong.push(v2(1, 0x11, &[198, 18, 1, 7]));
    for header in wrong {
        let mut client = Client::dial(daemon.smtp());
        client.send_gladly(&header);
        let said = client.rest();
        assert!(!said.contains("220 "), "{} was taken: {said}", header.escape_ascii());
    }
}

#[test]
fn a_header_from_an_unlisted_peer_is_no_header() {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    let mut client = Client::connect(daemon.smtp());
    let reply = client.command("PROXY TCP4 198.18.1.7 127.0.0.1 4660 25");
    assert_eq!(reply.code / 100, 5, "{reply:?}");
}

#[test]
fn a_second_header_is_no_header() {
    let upstream = Upstream::plain();
    let daemon = behind_a_proxy(&upstream);
    let mut client = Client::dial(daemon.smtp());
    client.send(b"PROXY TCP4 198.18.1.7 127.0.0.1 4660 25\r\n").reply().assert("220 ");
    let reply = client.command("PROXY TCP4 198.18.1.8 127.0.0.1 4660 25");
    assert_eq!(reply.code / 100, 5, "{reply:?}");
}
