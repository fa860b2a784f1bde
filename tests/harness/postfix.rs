//! A real Postfix, as upstream or beside the relay: its own configuration, queue and port, in a directory that goes
//! away. It must not touch the machine's own Postfix.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::getuid;
use tempfile::TempDir;

use crate::process::{Process, run};
use crate::skip::found;
use crate::upstream::refusing;
use crate::wait::until_listening;

/// Debian's `nobody`: who owns the mailbox.
const NOBODY: u32 = 65_534;

/// The services that a mail to a virtual mailbox needs.
const SERVICES: &str = "\
cleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\nrewrite unix - - n - - trivial-rewrite\n\
bounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\n\
proxymap unix - - n - - proxymap\nanvil unix - - n - 1 anvil\nvirtual unix - n n - - virtual\n\
error unix - - n - - error\nretry unix - - n - - error\nsmtp unix - - n - - smtp\n\
scache unix - - n - 1 scache\npostlog unix-dgram n - n - 1 postlogd\n\
tlsmgr unix - - n 1000? 1 tlsmgr\n";

/// A running Postfix.
#[derive(Debug)]
pub struct Postfix {
    program: PathBuf,
    process: Process,
    address: SocketAddr,
    dir: TempDir,
}

impl Postfix {
    /// A running Postfix with these further settings, or why there can be none.
    ///
    /// # Errors
    /// Why there can be none.
    pub fn start(settings: &str) -> Result<Self, String> {
        Self::with_files(settings, &[])
    }

    /// Likewise, with further files; `DIR` in the settings is where they stand.
    ///
    /// # Errors
    /// Why there can be none.
    pub fn with_files(settings: &str, files: &[(&str, &str)]) -> Result<Self, String> {
        let postfix = found("postfix").ok_or("postfix is not installed")?;
        if !getuid().is_root() {
            return Err("postfix starts only as root".to_owned());
        }
        let dir = tempfile::Builder::new().prefix("postfix-").tempdir().map_err(|error| error.to_string())?;
        let address = refusing();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).map_err(|error| error.to_string())?;
        }
        let settings = settings.replace("DIR", &dir.path().display().to_string());
        configure(dir.path(), address, &settings).map_err(|error| error.to_string())?;
        let checked = run(Command::new(&postfix).arg("-c").arg(dir.path()).arg("check"));
        if checked.code != Some(0) {
            return Err(format!("postfix check: {}{}", checked.stdout, checked.stderr));
        }
        let process = Process::start(Command::new(&postfix).arg("-c").arg(dir.path()).arg("start-fg"));
        let running = Self { program: postfix, process, address, dir };
        until_listening(address);
        Ok(running)
    }

    /// As `EXT_RELAY_HOST` takes it.
    pub fn host(&self) -> String {
        format!("[127.0.0.1]:{}", self.address.port())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Everything that it has logged so far.
    pub fn log(&self) -> String {
        self.process.said().read(|said| said.all())
    }

    /// Waits until its log is as the test wants it.
    #[track_caller]
    pub fn settles(&self, what: &str, mut is_settled: impl FnMut(&str) -> bool) {
        self.process
            .said()
            .find(&format!("postfix has done {what}"), |said| is_settled(&said.all()).then_some(()));
    }

    /// Waits for a line of its log.
    #[track_caller]
    pub fn logs(&self, text: &str) -> String {
        self.process.said().find(&format!("postfix logs {text}"), |said| {
            said.stdout.iter().find(|line| line.contains(text)).cloned()
        })
    }

    /// The mails in the mailbox, with CRLF line ends, oldest first.
    ///
    /// # Panics
    /// When one cannot be read.
    pub fn mailbox(&self) -> Vec<Vec<u8>> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.dir.path().join("mail/box/new"))
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
            .unwrap_or_default();
        files.sort();
        let text = |path: &PathBuf| fs::read(path).expect("a mail can be read");
        files
            .iter()
            .map(|path| text(path).split(|octet| *octet == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..]))
            .collect()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // The master leads a session of its own: only its own verb reaches it.
        run(Command::new(&self.program).arg("-c").arg(self.dir.path()).arg("stop"));
    }
}

fn configure(dir: &Path, address: SocketAddr, settings: &str) -> std::io::Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    for name in ["queue", "data", "mail"] {
        fs::create_dir(dir.join(name))?;
    }
    chown(dir.join("mail"), Some(NOBODY), None)?;
    let owner = run(Command::new("id").args(["-u", "postfix"])).stdout.trim().parse().unwrap_or(NOBODY);
    chown(dir.join("data"), Some(owner), None)?;
    let at = dir.display();
    let main = format!(
        "compatibility_level = 3.6\nmaillog_file = /dev/stdout\nqueue_directory = {at}/queue\n\
         data_directory = {at}/data\ncommand_directory = /usr/sbin\ndaemon_directory = /usr/lib/postfix/sbin\n\
         mail_owner = postfix\nsetgid_group = postdrop\nmyhostname = upstream.test\nmydestination =\n\
         inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmynetworks = 127.0.0.0/8\nalias_maps =\n\
         virtual_mailbox_domains = example.com\nvirtual_mailbox_base = {at}/mail\n\
         virtual_mailbox_maps = inline:{{ b@example.com=box/ }}\nvirtual_uid_maps = static:{NOBODY}\n\
         virtual_gid_maps = static:{NOBODY}\nsmtpd_relay_restrictions = permit_mynetworks, reject\n{settings}\n"
    );
    fs::write(dir.join("main.cf"), main)?;
    fs::write(dir.join("master.cf"), format!("{address} inet n - n - - smtpd\n{SERVICES}"))
}
