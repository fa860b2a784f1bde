//! HAProxy in front of the relay, telling it by PROXY headers where clients come from.

use std::fs;
use std::process::Command;

use ringpost_tests::client::Client;
use ringpost_tests::daemon::Builder;
use ringpost_tests::message;
use ringpost_tests::need;
use ringpost_tests::process::Process;
use ringpost_tests::upstream::{Upstream, refusing};
use ringpost_tests::wait::until_listening;

#[test]
fn haproxy_tells_where_clients_come_from() {
    let haproxy = need!("haproxy");
    for version in ["send-proxy", "send-proxy-v2"] {
        let upstream = Upstream::plain();
        let daemon = Builder::relaying_to(&upstream.host()).with("PROXY_PROTOCOL", "127.0.0.1").start();
        let (front, relay) = (refusing(), daemon.smtp());
        let configuration = format!(
            "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n\
             listen smtp\n bind {front}\n source 127.0.0.1\n server relay {relay} {version}\n"
        );
        let file = daemon.dir().join("haproxy.cfg");
        fs::write(&file, configuration).expect("a file");
        let _balancer = Process::start(Command::new(&haproxy).arg("-db").arg("-f").arg(&file));
        until_listening(front);
        let mut client = Client::greeted(front);
        let sent = message::of_size(200 << 10);
        client.deliver(&sent).assert("250 2.");
        upstream.mail().assert_carries(&sent);
        client.quit();
    }
}
