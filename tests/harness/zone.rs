//! A signed name space of our own: Knot DNS as its server and signer, on a free loopback port. The root is ours, so
//! that a validating look-up begins at our key and ends at our records.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::process::{self, Process, Said};

/// A running name server.
#[derive(Debug)]
pub struct Zone {
    address: SocketAddr,
    dir: TempDir,
    _process: Process,
}

impl Zone {
    /// Serves these records of the signed root, of an unsigned zone `insecure.` and of a zone `bogus.` whose signature
    /// the root promises and that has none. Records stand as in a zone file; names are absolute.
    ///
    /// # Panics
    /// When the server does not come up.
    #[track_caller]
    pub fn start(knotd: &Path, root: &str, insecure: &str, bogus: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("zone-").tempdir().expect("a directory");
        let address = free_port();
        let write = |name: &str, text: &str| {
            std::fs::write(dir.path().join(name), text).expect("a file can be written");
        };
        write("knot.conf", &configuration(dir.path(), address));
        let delegations = format!(
            "insecure. 300 IN NS ns.test.\nbogus. 300 IN NS ns.test.\nbogus. 300 IN DS 12345 13 2 {}\n",
            "00".repeat(32)
        );
        write("root.zone", &format!("{}{delegations}ns.test. 300 IN A 127.0.0.1\n{root}", apex(".")));
        write("insecure.zone", &format!("{}{insecure}", apex("insecure.")));
        write("bogus.zone", &format!("{}{bogus}", apex("bogus.")));
        let process = Process::start(Command::new(knotd).arg("-c").arg(dir.path().join("knot.conf")));
        process.said().find("the zones are signed and served", |said| {
            let all = Said::all(said);
            assert!(!Process::is_silent(said), "the name server ended: {all}");
            all.contains("server started").then_some(())
        });
        Self { address, dir, _process: process }
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The root's key, for `DNS_TRUST_ANCHORS`.
    ///
    /// # Panics
    /// When the signer does not tell it.
    #[track_caller]
    pub fn trust_anchors(&self, keymgr: &Path) -> PathBuf {
        let configuration = self.dir.path().join("knot.conf");
        let finished = process::run(Command::new(keymgr).arg("-c").arg(configuration).args([".", "dnskey"]));
        assert_eq!(finished.code, Some(0), "{finished:#?}");
        let path = self.dir.path().join("anchors");
        // `. DNSKEY 257 3 13 …`; class and time are what a zone file has there.
        let text = finished.stdout.replacen(". DNSKEY", ". 300 IN DNSKEY", 1);
        std::fs::write(&path, text).expect("a file can be written");
        path
    }
}

fn apex(zone: &str) -> String {
    format!("{zone} 300 IN SOA ns.test. admin.test. 1 3600 600 86400 60\n{zone} 300 IN NS ns.test.\n")
}

fn configuration(dir: &Path, address: SocketAddr) -> String {
    let dir = dir.display();
    let mut text = format!(
        "server:\n    rundir: {dir}\n    listen: {}@{}\n    udp-workers: 1\n    tcp-workers: 1\n    \
         background-workers: 1\ndatabase:\n    storage: {dir}\nlog:\n  - target: stdout\n    any: info\n\
         policy:\n  - id: ours\n    algorithm: ecdsap256sha256\n    single-type-signing: on\nzone:\n",
        address.ip(),
        address.port()
    );
    for (zone, file, signing) in [
        (".", "root.zone", "    dnssec-signing: on\n    dnssec-policy: ours\n    zonefile-sync: -1\n"),
        ("insecure.", "insecure.zone", ""),
        ("bogus.", "bogus.zone", ""),
    ] {
        // Writing to a String cannot fail.
        let _ = write!(text, "  - domain: {zone}\n    storage: {dir}\n    file: {file}\n{signing}");
    }
    text
}

/// A port that is free for UDP and TCP.
fn free_port() -> SocketAddr {
    loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = udp.local_addr().expect("a bound address");
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
