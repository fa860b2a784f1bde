//! What Debian packages the suites and the benches call, and putting them in place.
//!
//! As root on a machine with apt they are installed, without a question asked and without a service started;
//! elsewhere the packages to install are named. It must never change a service that runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::shell::{Done, found, step};

/// A program that the suites call, and the package it is in.
pub(crate) struct Needed {
    /// A file name looked for on `PATH`, or a whole path where the package brings no program.
    pub(crate) program: &'static str,
    /// Debian's package.
    pub(crate) package: &'static str,
    /// Who needs it, in a word or two.
    pub(crate) purpose: &'static str,
}

/// Peers and tools of the suites.
pub(crate) const SUITES: &[Needed] = &[
    Needed { program: "smtp-sink", package: "postfix", purpose: "upstream, sink and source of interop" },
    Needed { program: "swaks", package: "swaks", purpose: "client of interop" },
    Needed {
        program: "/usr/share/doc/libnet-ssleay-perl/copyright",
        package: "libnet-ssleay-perl",
        purpose: "TLS of swaks",
    },
    Needed { program: "s-nail", package: "s-nail", purpose: "client of interop" },
    Needed { program: "bsd-mailx", package: "bsd-mailx", purpose: "sendmail's caller in interop" },
    Needed { program: "msmtp", package: "msmtp", purpose: "client of interop" },
    Needed { program: "curl", package: "curl", purpose: "client of interop" },
    Needed { program: "python3", package: "python3", purpose: "client of interop" },
    Needed { program: "haproxy", package: "haproxy", purpose: "PROXY headers from a real balancer" },
    Needed { program: "openssl", package: "openssl", purpose: "peer of tls" },
    Needed { program: "knotd", package: "knot", purpose: "signed zones for tls" },
    Needed { program: "unbound", package: "unbound", purpose: "validating resolver of tls" },
    Needed { program: "ip", package: "iproute2", purpose: "network namespaces" },
    Needed { program: "unshare", package: "util-linux", purpose: "network namespaces" },
    Needed { program: "mkfs.ext4", package: "e2fsprogs", purpose: "file systems of crash" },
    Needed { program: "nbdkit", package: "nbdkit", purpose: "disks of crash that fail on demand" },
    Needed { program: "nbdfuse", package: "libnbd-bin", purpose: "such a disk as a file" },
    Needed { program: "fusermount3", package: "fuse3", purpose: "such a disk as a file" },
];

/// Installs what is missing where that is possible; says what is missing where it is not.
///
/// # Errors
/// Only when apt itself cannot be started: a package that cannot be had is a skip, not a failure.
pub(crate) fn ensure(needed: &[Needed]) -> Done {
    let missing = missing(needed);
    if missing.is_empty() {
        return Ok(());
    }
    if found("apt-get").is_none() || !is_root()? {
        println!("missing, and not installed since this is not root on Debian:");
        for entry in &missing {
            println!("  {:<12} ({}; package {})", entry.program, entry.purpose, entry.package);
        }
        println!("  sudo apt-get install --no-install-recommends {}", names(&missing).join(" "));
        return Ok(());
    }
    let _fence = ServiceFence::raise()?;
    preseed()?;
    // One after the other, so that one package that cannot be had does not keep the rest away.
    if install(&names(&missing)).is_err() {
        step(apt().arg("update").arg("-qq")).unwrap_or_else(|error| println!("  {error}"));
        for name in names(&missing) {
            install(&[name]).unwrap_or_else(|error| println!("  {error}"));
        }
    }
    Ok(())
}

/// What of it is not on this machine.
pub(crate) fn missing(needed: &[Needed]) -> Vec<&Needed> {
    needed.iter().filter(|entry| found(entry.program).is_none()).collect()
}

fn names<'a>(needed: &[&'a Needed]) -> Vec<&'a str> {
    let mut names: Vec<&str> = needed.iter().map(|entry| entry.package).collect();
    names.dedup();
    names
}

fn install(packages: &[&str]) -> Done {
    step(apt().args(["install", "-qq", "-y", "--no-install-recommends"]).args(packages))
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Postfix asks at installation what it is to be; here it is to be nothing.
fn preseed() -> Done {
    if found("debconf-set-selections").is_none() {
        return Ok(());
    }
    let answer = "postfix postfix/main_mailer_type select No configuration";
    step(Command::new("sh").args(["-c", &format!("echo '{answer}' | debconf-set-selections")]))
}

fn is_root() -> std::io::Result<bool> {
    let output = Command::new("id").arg("-u").stdin(Stdio::null()).output()?;
    Ok(output.stdout.trim_ascii() == b"0")
}

/// While it stands, no package starts its service: Debian's maintainer scripts ask `policy-rc.d` first.
struct ServiceFence {
    ours: bool,
}

impl ServiceFence {
    const PATH: &'static str = "/usr/sbin/policy-rc.d";

    fn raise() -> std::io::Result<Self> {
        if Path::new(Self::PATH).exists() {
            return Ok(Self { ours: false });
        }
        fs::write(Self::PATH, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(Self::PATH, fs::Permissions::from_mode(0o755))?;
        Ok(Self { ours: true })
    }
}

impl Drop for ServiceFence {
    fn drop(&mut self) {
        if self.ours && fs::remove_file(Self::PATH).is_err() {
            println!("  {} could not be removed: no service starts until it is", Self::PATH);
        }
    }
}
