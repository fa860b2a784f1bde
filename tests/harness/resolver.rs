//! A validating resolver, as the machine of a mail server has one: Debian's unbound at port 53 of a network of the test's
//! own, over a name space of our own. It must not be started in the machine's network.

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::process::{Process, Said};
use crate::zone::Zone;

/// A running resolver.
#[derive(Debug)]
pub struct Resolver {
    _process: Process,
    _dir: TempDir,
}

impl Resolver {
    /// Resolves this name space, and believes the keys of these trust anchors.
    ///
    /// # Panics
    /// When it does not come up.
    #[track_caller]
    pub fn start(unbound: &Path, zone: &Zone, anchors: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("unbound-").tempdir().expect("a directory");
        let server = zone.address();
        // `test.` is answered by unbound itself unless it is told not to (RFC 6761 §6.2).
        let text = format!(
            "server:\n  interface: 127.0.0.1\n  port: 53\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  \
             pidfile: \"\"\n  directory: \"{dir}\"\n  use-syslog: no\n  logfile: \"\"\n  verbosity: 1\n  \
             num-threads: 1\n  do-ip6: no\n  do-not-query-localhost: no\n  module-config: \"validator iterator\"\n  \
             trust-anchor-file: \"{anchors}\"\n  local-zone: \"test.\" nodefault\n\
             remote-control:\n  control-enable: no\nstub-zone:\n  name: \".\"\n  stub-addr: {ip}@{port}\n",
            dir = dir.path().display(),
            anchors = anchors.display(),
            ip = server.ip(),
            port = server.port(),
        );
        let path = dir.path().join("unbound.conf");
        fs::write(&path, text).expect("a file can be written");
        let process = Process::start(Command::new(unbound).arg("-c").arg(&path));
        process.said().find("the resolver answers", |said| {
            let all = Said::all(said);
            assert!(!Process::is_silent(said), "the resolver ended: {all}");
            all.contains("start of service").then_some(())
        });
        Self { _process: process, _dir: dir }
    }
}
