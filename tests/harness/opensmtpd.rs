//! A real OpenSMTPD, as upstream or as a client's relay: the unpacked Debian package in a mount namespace of its own,
//! with its own users, spool and sockets, gone with the test. It must not touch the machine's users or spool.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::getuid;
use tempfile::TempDir;

use crate::certificate::{Authority, Validity};
use crate::process::{Process, run};
use crate::skip::found;
use crate::upstream::{at_port_465, refusing};
use crate::wait::until_listening;

/// Debian's `nobody`: who owns the mailbox.
const NOBODY: u32 = 65_534;

/// What OpenSMTPD finds in its namespace: the package over `/usr`, its two users, empty places for what it writes, and
/// the certificate authorities of the test. It dies with its namespace.
const STAGE: &str = "
mount -t overlay overlay -o lowerdir=\"$1/usr\":/usr /usr
for place in /var/spool /var/lib /run; do mount -t tmpfs tmpfs $place; done
mkdir -p /var/lib/opensmtpd/empty
mkdir -m 711 /var/spool/smtpd
{ cat /etc/passwd; echo opensmtpd:x:990:990::/:/bin/false; echo opensmtpq:x:991:991::/:/bin/false; } > passwd
{ cat /etc/group; echo opensmtpd:x:990:; echo opensmtpq:x:991:; } > group
for file in passwd group; do mount --bind $file /etc/$file; done
mount --bind authorities /etc/ssl/certs/ca-certificates.crt
exec /usr/sbin/smtpd -d -f smtpd.conf
";

/// A running OpenSMTPD. It takes mail for `b@example.com`.
#[derive(Debug)]
pub struct OpenSmtpd {
    process: Process,
    plain: SocketAddr,
    inside: SocketAddr,
    dir: TempDir,
}

impl OpenSmtpd {
    /// At a port with STARTTLS, without which it takes no mail, and at 465; its certificate is for the address of both.
    ///
    /// # Errors
    /// Why there can be none.
    pub fn upstream(authority: &Authority) -> Result<Self, String> {
        let free = |listener: Option<TcpListener>| listener?.local_addr().ok();
        let inside = free(at_port_465()).ok_or("port 465 cannot be bound")?;
        let plain = free(TcpListener::bind((inside.ip(), 0)).ok()).ok_or("no free port")?;
        let identity = authority.host(&[&inside.ip().to_string()], Validity::Now);
        let listen = |at: SocketAddr, how| {
            format!("listen on {} port {} {how} pki ours hostname upstream.test\n", at.ip(), at.port())
        };
        let settings = format!(
            "table mailboxes {{ \"b@example.com\" = nobody }}\npki ours cert \"DIR/chain.pem\"\n\
             pki ours key \"DIR/key.pem\"\n{}{}action \"keep\" maildir \"DIR/box\" virtual <mailboxes>\n\
             match from any for domain \"example.com\" action \"keep\"\n",
            listen(plain, "tls-require"),
            listen(inside, "smtps"),
        );
        let files = [("chain.pem", &*identity.chain_pem()), ("key.pem", &*identity.key_pem())];
        Self::start(&settings, &files, [plain, inside])
    }

    /// Takes all mail in plaintext and hands it to a relay by this URL (`smtp+tls://…`), whose certificate must be by
    /// one of these authorities.
    ///
    /// # Errors
    /// Why there can be none.
    pub fn relaying_to(url: &str, authorities: &str) -> Result<Self, String> {
        let at = refusing();
        let settings = format!(
            "listen on {} port {} hostname relay.client.test\naction \"on\" relay host {url} helo relay.client.test\n\
             match from any for any action \"on\"\n",
            at.ip(),
            at.port()
        );
        Self::start(&settings, &[("authorities", authorities)], [at, at])
    }

    fn start(settings: &str, files: &[(&str, &str)], listening: [SocketAddr; 2]) -> Result<Self, String> {
        let package = package().ok_or("opensmtpd is not unpacked: cargo xtask setup")?;
        if !getuid().is_root() {
            return Err("opensmtpd starts only as root".to_owned());
        }
        let unshare = found("unshare").ok_or("unshare is not installed")?;
        if run(Command::new(&unshare).args(["--mount", "--pid", "--fork", "true"])).code != Some(0) {
            return Err("no mount namespace".to_owned());
        }
        let dir = lay_out(settings, files).map_err(|error| error.to_string())?;
        let mut command = Command::new(unshare);
        command.args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-e",
            "-c",
            STAGE,
            "sh",
        ]);
        let process = Process::start(command.arg(package).current_dir(dir.path()));
        listening.into_iter().for_each(until_listening);
        let [plain, inside] = listening;
        Ok(Self { process, plain, inside, dir })
    }

    /// Where it takes mail, with STARTTLS if it has a certificate.
    pub fn plain(&self) -> SocketAddr {
        self.plain
    }

    /// Where it begins with a handshake.
    pub fn inside(&self) -> SocketAddr {
        self.inside
    }

    /// Waits until its log is as the test wants it.
    #[track_caller]
    pub fn settles(&self, what: &str, mut is_settled: impl FnMut(&str) -> bool) {
        self.process
            .said()
            .find(&format!("opensmtpd has done {what}"), |said| is_settled(&said.all()).then_some(()));
    }

    /// Everything that it has logged so far.
    pub fn log(&self) -> String {
        self.process.said().read(|said| said.all())
    }

    /// The mails in the mailbox, with CRLF line ends.
    ///
    /// # Panics
    /// When one cannot be read.
    pub fn mailbox(&self) -> Vec<Vec<u8>> {
        let entries = fs::read_dir(self.dir.path().join("box/new")).into_iter().flatten().flatten();
        let text = |path: PathBuf| fs::read(path).expect("a mail can be read");
        entries
            .map(|entry| text(entry.path()))
            .map(|text| text.split(|octet| *octet == b'\n').collect::<Vec<_>>().join(&b"\r\n"[..]))
            .collect()
    }
}

/// Where `cargo xtask setup` has unpacked the package: under the folder that the test was built into.
fn package() -> Option<PathBuf> {
    let here = std::env::current_exe().ok()?;
    let place = here.ancestors().nth(3)?.join("peers/opensmtpd");
    place.join("usr/sbin/smtpd").is_file().then_some(place)
}

fn lay_out(settings: &str, files: &[(&str, &str)]) -> std::io::Result<TempDir> {
    let dir = tempfile::Builder::new().prefix("opensmtpd-").tempdir()?;
    let write = |name: &str, text: &str| -> std::io::Result<()> {
        let path = dir.path().join(name);
        fs::write(&path, text)?;
        // It refuses keys and configurations that others may write or read.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
    };
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    write("smtpd.conf", &settings.replace("DIR", &path_text(dir.path())))?;
    write("authorities", "")?;
    files.iter().try_for_each(|(name, text)| write(name, text))?;
    // It looks authorities up once it has given root away.
    fs::set_permissions(dir.path().join("authorities"), fs::Permissions::from_mode(0o644))?;
    fs::create_dir(dir.path().join("box"))?;
    chown(dir.path().join("box"), Some(NOBODY), None)?;
    Ok(dir)
}

fn path_text(path: &Path) -> String {
    path.display().to_string()
}
