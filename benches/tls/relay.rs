//! The relays under test, each started on free ports with one thread, and what each has cost so far.
//!
//! It ends only what it has started.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use ringpost_benches::peer::{Place, Started, postfix_with};
use ringpost_benches::process::{Usage, tree_usage};

use super::talk::{Entry, Identity, Outcome, Sink};

/// A running relay; dropping it ends it.
pub(crate) struct Relay {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    pub(crate) entry: Entry,
    process: Process,
}

/// What is ended with it.
enum Process {
    Own(Child),
    Peer(Started),
}

impl Relay {
    /// Ours: STARTTLS in and out; so many messages on each connection to the sink.
    pub(crate) fn ours(
        binary: &Path,
        dir: &Path,
        identity: &Identity,
        sink: SocketAddr,
        messages: u32,
    ) -> Outcome<Self> {
        let log = dir.join("log");
        let path = |name: &str| dir.join(name).display().to_string();
        let child = Command::new(binary)
            .arg("run")
            .env_clear()
            .envs([
                ("RELAY_HOST_NAME", "localhost".to_owned()),
                ("LISTEN_SMTP", "127.0.0.1:0".to_owned()),
                ("LISTEN_SUBMISSION", "off".to_owned()),
                ("LISTEN_SUBMISSIONS", "off".to_owned()),
                ("LISTEN_ADMIN", "off".to_owned()),
                ("CONTROL_SOCKET", path("control.sock")),
                ("STATE_DIR", path("state")),
                ("EXT_RELAY_HOST", format!("[{}]:{}", sink.ip(), sink.port())),
                ("OUTGOING_SMTP_AUTH", "off".to_owned()),
                ("TLS_VERIFY", "encrypt".to_owned()),
                ("SSL_CERT_PEM", identity.chain_pem.clone()),
                ("SSL_CERT_KEY", identity.key_pem.clone()),
                ("DELIVERY_PATIENCE", "forever".to_owned()),
                ("XDP", "off".to_owned()),
                ("WORKERS", "1".to_owned()),
                ("UPSTREAM_MESSAGES_PER_CONNECTION", messages.to_string()),
                ("SESSIONS_PER_CLIENT_MAX", "5000".to_owned()),
                ("LOG_TARGET", log.display().to_string()),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("err"))?)
            .spawn()?;
        let mut relay =
            Self { name: "ringpost", address: sink, entry: Entry::StartTls, process: Process::Own(child) };
        relay.address = relay.wait(|| {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let line = text.lines().find(|line| line.contains("event=ready"))?;
            line.split(' ').find_map(|word| word.strip_prefix("smtp="))?.parse().ok()
        })?;
        Ok(relay)
    }

    /// HAProxy, which moves octets from one TLS to another, with buffers of its best size.
    pub(crate) fn haproxy(
        name: &'static str,
        dir: &Path,
        identity: &Identity,
        sink: SocketAddr,
        buffer: &str,
    ) -> Outcome<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        fs::write(dir.join("both.pem"), format!("{}{}", identity.chain_pem, identity.key_pem))?;
        let config = format!(
            "global\n    maxconn 5000\n    nbthread 1\n    {buffer}\ndefaults\n    mode tcp\n    timeout connect 10s\n    \
             timeout client 1h\n    timeout server 1h\nlisten smtp\n    bind {address} ssl crt {}\n    \
             server sink {sink} ssl verify none\n",
            dir.join("both.pem").display()
        );
        let path = dir.join("haproxy.cfg");
        fs::write(&path, config)?;
        let child = Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("err"))?)
            .spawn()?;
        let mut relay = Self { name, address, entry: Entry::AtOnce, process: Process::Own(child) };
        relay.wait(|| std::net::TcpStream::connect(address).ok())?;
        Ok(relay)
    }

    /// Postfix with its durable queue: STARTTLS in and out.
    pub(crate) fn postfix(dir: &Path, identity: &Identity, sink: &Sink) -> Outcome<Self> {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
        let both = dir.join("both.pem");
        fs::write(&both, format!("{}{}", identity.key_pem, identity.chain_pem))?;
        let settings = format!(
            "smtpd_tls_chain_files = {}\nsmtpd_tls_security_level = may\nsmtp_tls_security_level = encrypt\n\
             smtp_tls_connection_reuse = yes\nsmtpd_tls_loglevel = 0\n",
            both.display()
        );
        let place = Place {
            upstream: sink.address,
            dir,
            threads: 1,
            sessions: 50,
            ringpost: Path::new(""),
            cpus: None,
        };
        let started = postfix_with(&place, &settings).map_err(|error| error.to_string())?;
        let address = started.address;
        Ok(Self { name: "postfix, queued", address, entry: Entry::StartTls, process: Process::Peer(started) })
    }

    /// What it has cost so far.
    pub(crate) fn usage(&self) -> Usage {
        match &self.process {
            Process::Own(child) => tree_usage(child.id()),
            Process::Peer(started) => started.root().map(tree_usage).unwrap_or_default(),
        }
    }

    fn wait<T>(&mut self, mut is_ready: impl FnMut() -> Option<T>) -> Outcome<T> {
        for _ in 0..1000 {
            if let Some(ready) = is_ready() {
                return Ok(ready);
            }
            if let Process::Own(child) = &mut self.process
                && let Some(status) = child.try_wait()?
            {
                return Err(format!("{} ended: {status}", self.name).into());
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(format!("{} is not ready", self.name).into())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Process::Own(child) = &mut self.process {
            // It may have ended by itself.
            child.kill().ok();
            child.wait().ok();
        }
    }
}
