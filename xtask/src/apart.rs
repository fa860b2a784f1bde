//! Debian packages that the suites call and that cannot be installed beside others: unpacked under `target/peers`.
//!
//! OpenSMTPD excludes Postfix. The one of Debian's backports is taken where there is one: that of Debian 12 itself
//! does not get through a handshake with OpenSSL 3. It must not install anything, and leaves apt's own lists alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::shell::{Done, found, output, step, target};

/// What is unpacked: the package and the program by which it is known to be there.
const PACKAGES: [(&str, &str); 1] = [("opensmtpd", "usr/sbin/smtpd")];

/// The release whose own package is of no use.
const UNFIT: &str = "bookworm";

/// The packages that are not there.
pub(crate) fn missing() -> Vec<&'static str> {
    let is_missing = |(package, program): &&(&str, &str)| !place(package).join(program).is_file();
    PACKAGES.iter().filter(is_missing).map(|(package, _)| *package).collect()
}

/// Unpacks what is missing, where apt can; says what could not be had, since its tests then skip themselves.
pub(crate) fn ensure() {
    let tools = ["apt-get", "dpkg-deb"];
    for package in missing() {
        let fetched = match tools.into_iter().find(|tool| found(tool).is_none()) {
            Some(tool) => Err(format!("there is no {tool}").into()),
            None => unpack(package),
        };
        fetched.unwrap_or_else(|error| println!("no {package}: {error}"));
    }
}

fn place(package: &str) -> PathBuf {
    target().join("peers").join(package)
}

fn unpack(package: &str) -> Done {
    let place = place(package);
    let fetched = place.with_extension("fetched");
    fs::create_dir_all(&fetched)?;
    let codename = codename()?;
    let from_backports = backports(&fetched, &codename).and_then(|apt| download(apt, &fetched, package));
    match from_backports {
        Err(_) if codename != UNFIT => download(Command::new("apt-get"), &fetched, package)?,
        outcome => outcome?,
    }
    let is_archive = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
    let mut files = fs::read_dir(&fetched)?.flatten().map(|entry| entry.path());
    let archive = files.find(is_archive).ok_or("apt-get has brought no archive")?;
    step(Command::new("dpkg-deb").arg("--extract").arg(archive).arg(&place))?;
    Ok(fs::remove_dir_all(&fetched)?)
}

fn download(mut apt: Command, into: &Path, package: &str) -> Done {
    step(apt.args(["download", "-qq", package]).current_dir(into).stdin(Stdio::null()))
}

/// The release of Debian that this is.
fn codename() -> Result<String, Box<dyn std::error::Error>> {
    let release = output(Command::new("sh").args(["-c", ". /etc/os-release; echo $ID $VERSION_CODENAME"]))?;
    Ok(release.trim().strip_prefix("debian ").ok_or("this is not a release of Debian")?.to_owned())
}

/// An apt that knows the backports of this Debian and nothing else, with lists of its own.
fn backports(folder: &Path, codename: &str) -> Result<Command, Box<dyn std::error::Error>> {
    let sources = folder.join("sources.list");
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let line = format!("deb [signed-by={keys}] http://deb.debian.org/debian {codename}-backports main\n");
    fs::write(&sources, line)?;
    for directory in ["state/lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(folder.join(directory))?;
    }
    fs::write(folder.join("state/status"), "")?;
    let apt = || {
        let mut command = Command::new("apt-get");
        for (option, value) in [
            ("Dir::Etc::SourceList", sources.clone()),
            ("Dir::Etc::SourceParts", PathBuf::from("/dev/null")),
            ("Dir::State", folder.join("state")),
            ("Dir::State::Status", folder.join("state/status")),
            ("Dir::Cache", folder.join("cache")),
        ] {
            command.arg("-o").arg(format!("{option}={}", value.display()));
        }
        command
    };
    step(apt().args(["update", "-qq"]).stdin(Stdio::null()))?;
    Ok(apt())
}
