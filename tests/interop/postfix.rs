//! A real Postfix as upstream: its own configuration, queue and port, in a directory that goes away.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use ringpost_tests::daemon::Builder;
use ringpost_tests::message;
use ringpost_tests::process::{Process, run};
use ringpost_tests::skip;
use ringpost_tests::skip::found;
use ringpost_tests::upstream::refusing;
use ringpost_tests::wait::until_listening;
use rustix::process::getuid;
use tempfile::TempDir;

/// Debian's `nobody`: who owns the mailbox.
const NOBODY: u32 = 65_534;

/// The services that a mail to a virtual mailbox needs.
const SERVICES: &str = "\
cleanup unix n - n - 0 cleanup\nqmgr unix n - n 300 1 qmgr\nrewrite unix - - n - - trivial-rewrite\n\
bounce unix - - n - 0 bounce\ndefer unix - - n - 0 bounce\ntrace unix - - n - 0 bounce\n\
proxymap unix - - n - - proxymap\nanvil unix - - n - 1 anvil\nvirtual unix - n n - - virtual\n\
error unix - - n - - error\nretry unix - - n - - error\nsmtp unix - - n - - smtp\n\
scache unix - - n - 1 scache\npostlog unix-dgram n - n - 1 postlogd\n";

struct Postfix {
    program: PathBuf,
    process: Process,
    address: SocketAddr,
    dir: TempDir,
}

impl Postfix {
    /// A running Postfix, or why there can be none.
    fn start(settings: &str) -> Result<Self, String> {
        let postfix = found("postfix").ok_or("postfix is not installed")?;
        if !getuid().is_root() {
            return Err("postfix starts only as root".to_owned());
        }
        let dir = tempfile::Builder::new().prefix("postfix-").tempdir().map_err(|error| error.to_string())?;
        let address = refusing();
        configure(dir.path(), address, settings).map_err(|error| error.to_string())?;
        let checked = run(Command::new(&postfix).arg("-c").arg(dir.path()).arg("check"));
        if checked.code != Some(0) {
            return Err(format!("postfix check: {}{}", checked.stdout, checked.stderr));
        }
        let process = Process::start(Command::new(&postfix).arg("-c").arg(dir.path()).arg("start-fg"));
        let running = Self { program: postfix, process, address, dir };
        until_listening(address);
        Ok(running)
    }

    fn host(&self) -> String {
        format!("[127.0.0.1]:{}", self.address.port())
    }

    /// Waits for a line of its log.
    #[track_caller]
    fn logs(&self, text: &str) -> String {
        self.process.said().find(&format!("postfix logs {text}"), |said| {
            said.stdout.iter().find(|line| line.contains(text)).cloned()
        })
    }

    /// The mails in the mailbox, with CRLF line ends, oldest first.
    fn mailbox(&self) -> Vec<Vec<u8>> {
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

#[test]
fn postfix_takes_and_delivers() {
    let postfix = match Postfix::start("") {
        Ok(postfix) => postfix,
        Err(reason) => skip!("{reason}"),
    };
    let daemon = Builder::relaying_to(&postfix.host()).start();
    let mut client = daemon.client();
    let sent = message::ordinary("one\r\n.two\r\n.\r\n\r\n..three\r\nGrüße\r\n");
    client.deliver(&sent).assert("250 2.");
    postfix.logs("status=sent");
    let mails = postfix.mailbox();
    assert_eq!(mails.len(), 1);
    assert!(mails[0].ends_with(&sent), "{}", mails[0].escape_ascii());
}

#[test]
fn postfix_takes_chunks() {
    let postfix = match Postfix::start("") {
        Ok(postfix) => postfix,
        Err(reason) => skip!("{reason}"),
    };
    let daemon = Builder::relaying_to(&postfix.host()).start();
    let mut client = daemon.client();
    let sent = message::of_size(300 << 10);
    client.envelope("a@client.test", &["b@example.com"]);
    let (first, second) = sent.split_at(100_001);
    client.send(format!("BDAT {}\r\n", first.len()).as_bytes()).send(first).reply().assert("250 2.");
    client.send(format!("BDAT {} LAST\r\n", second.len()).as_bytes()).send(second).reply().assert("250 2.");
    postfix.logs("status=sent");
    assert!(postfix.mailbox()[0].ends_with(&sent));
}

#[test]
fn postfix_refuses_and_the_client_hears_it() {
    let postfix = match Postfix::start("message_size_limit = 5000") {
        Ok(postfix) => postfix,
        Err(reason) => skip!("{reason}"),
    };
    let daemon = Builder::relaying_to(&postfix.host()).start();
    let mut client = daemon.client();
    client.command("MAIL FROM:<a@client.test>").assert("250 2.1.0");
    client.command("RCPT TO:<nobody@example.com>").assert("550 5.1.1");
    client.command("RCPT TO:<b@example.com>").assert("250 2.1.5");
    client.data(&message::of_size(8000)).assert("552 5.3.4");
    client.deliver(&message::ordinary("small\r\n")).assert("250 2.");
    postfix.logs("status=sent");
    assert_eq!(postfix.mailbox().len(), 1);
}

#[test]
fn postfix_that_is_picky_about_its_clients_is_satisfied() {
    let strict = "strict_rfc821_envelopes = yes\nsmtpd_helo_required = yes\nsmtpd_data_restrictions = \
                  reject_unauth_pipelining\nsmtpd_discard_ehlo_keywords = pipelining, chunking\nsmtpd_delay_reject = no";
    let postfix = match Postfix::start(strict) {
        Ok(postfix) => postfix,
        Err(reason) => skip!("{reason}"),
    };
    let daemon = Builder::relaying_to(&postfix.host()).start();
    let mut client = daemon.client();
    for _ in 0..5 {
        client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
    }
    daemon.stop();
    let log = postfix.process.said().read(|said| said.all());
    for complaint in
        ["improper command pipelining", "lost connection after DATA", "lost connection after MAIL"]
    {
        assert!(!log.contains(complaint), "{log}");
    }
}
