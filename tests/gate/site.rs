//! A relay behind its gate: the real daemon in the lab's namespace on the ports of the real world, an upstream that
//! takes everything, and clients on the other side of the link.

use std::net::SocketAddr;
use std::path::PathBuf;

use ringpost_tests::client::Client;
use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::upstream::Upstream;

use crate::lab::{INTERFACE, Lab, RELAY, RELAY6, eventually};

/// Who may relay: both friends of the lab.
pub(crate) const FRIENDLY: &str = "198.18.1.0/24 2001:db8:1::/48";

/// See the module.
pub(crate) struct Site {
    pub(crate) lab: Lab,
    pub(crate) upstream: Upstream,
    pub(crate) daemon: Daemon,
}

/// How the site's daemon is to be started: all variables but those of the test.
pub(crate) fn builder(upstream: &Upstream) -> Builder {
    Builder::relaying_to(&upstream.host())
        .with("LISTEN_SMTP", "0.0.0.0:25 [::]:25")
        .with("ACCEPTED_NETWORKS", FRIENDLY)
        .with("XDP", "require")
}

/// The relay's port of a client's family.
pub(crate) fn port_for(from: &str, port: u16) -> SocketAddr {
    let ip = if from.contains(':') { RELAY6 } else { RELAY };
    SocketAddr::new(ip.parse().expect("an address"), port)
}

impl Site {
    /// Builds it. The daemon is started by this thread, and so in the lab's namespace.
    #[track_caller]
    pub(crate) fn build(lab: Lab, configure: impl FnOnce(Builder) -> Builder) -> Self {
        let upstream = Upstream::plain();
        let daemon = configure(builder(&upstream)).start();
        Self { lab, upstream, daemon }
    }

    /// A client from this address that has greeted on port 25.
    #[track_caller]
    pub(crate) fn client(&self, from: &str) -> Client {
        let stream = self.lab.client().connect(from, port_for(from, 25));
        let mut client = Client::over(stream.expect("it may connect"));
        client.reply().assert("220 ");
        client.command("EHLO client.test").assert("250 ");
        client
    }

    /// Relays a message from this address and sees it arrive.
    #[track_caller]
    pub(crate) fn relays(&self, from: &str) {
        let before = self.upstream.complete();
        let mut client = self.client(from);
        client.deliver(b"Subject: x\r\n\r\nthrough the gate\r\n").assert("250 2.");
        client.quit();
        self.upstream.mails(before + 1);
    }

    /// What the address hears as the answer to its first recipient.
    #[track_caller]
    pub(crate) fn rcpt(&self, from: &str) -> String {
        let mut client = self.client(from);
        client.command("MAIL FROM:<a@client.test>").assert("250 ");
        client.command("RCPT TO:<b@example.com>").text()
    }

    /// Knocks and waits until the packet is counted so; no answer came.
    #[track_caller]
    pub(crate) fn is_kept_out(&self, from: &str, port: u16, verdict: &str) {
        let before = self.packets(verdict);
        let knocking = self.lab.client().knock(from, port_for(from, port));
        eventually("the SYN is counted", || (self.packets(verdict) > before).then_some(()));
        assert!(knocking.peer_addr().is_err(), "{from} hears nothing");
    }

    /// Packets of this verdict, by the metric.
    #[track_caller]
    pub(crate) fn packets(&self, verdict: &str) -> u64 {
        let sample =
            format!("ringpost_gate_packets_total{{interface=\"{INTERFACE}\",verdict=\"{verdict}\"}}");
        let packets = self.daemon.metric(&sample).unwrap_or_default();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small count")]
        let packets = packets as u64;
        packets
    }

    /// What a verb prints, which succeeds.
    #[track_caller]
    pub(crate) fn verb(&self, words: &[&str]) -> String {
        let done = self.daemon.verb(words);
        assert_eq!(done.code, Some(0), "{words:?}: {done:#?}");
        done.stdout
    }

    /// Writes the file that `ACCEPTED_NETWORKS_FILE` names.
    pub(crate) fn write_networks(&self, networks: &str) {
        std::fs::write(self.daemon.dir().join("networks"), networks).expect("a file");
    }
}

/// A builder whose networks stand in a file that the test may write anew.
pub(crate) fn with_networks_in_a_file(builder: Builder, networks: &str) -> Builder {
    let file: PathBuf = builder.dir().join("networks");
    std::fs::write(&file, networks).expect("a file");
    builder.without("ACCEPTED_NETWORKS").with("ACCEPTED_NETWORKS_FILE", &file.display().to_string())
}

/// Whether the binary under test has the gate embedded; else why it has not.
pub(crate) fn embedded() -> Result<(), String> {
    let version = Builder::relaying_to("[127.0.0.1]:9").verb(&["version"]).stdout;
    let is_in = version.lines().any(|line| line == "gate: embedded");
    if is_in { Ok(()) } else { Err("the binary has no gate: `cargo xtask build --debug`".to_owned()) }
}

/// A lab for a daemon with a gate, or a return from the test with a visible reason.
#[macro_export]
macro_rules! site {
    () => {
        site!(|builder| builder)
    };
    ($configure:expr) => {{
        let _ = $crate::object!();
        if let Err(reason) = $crate::site::embedded() {
            ringpost_tests::skip!("{reason}");
        }
        $crate::site::Site::build($crate::lab!(), $configure)
    }};
}
