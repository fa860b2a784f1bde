//! The relay itself, started as its users start it: by environment, knowing its addresses from the `event=ready` line.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use super::{GLANCE, PeerError, Place, READY_SECS_MAX, Started, placed};
use crate::clock;

/// The most sessions that are asked for; the daemon's own default.
const SESSIONS_MAX: usize = 20_000;
/// Handed on from our own environment: they change what is measured for every peer alike.
const HANDED_ON: [&str; 2] = ["PATH", "GLIBC_TUNABLES"];

pub(super) fn start(place: &Place<'_>, patience: &str) -> Result<Started, PeerError> {
    if !place.ringpost.is_file() {
        return Err(PeerError::Missing("not built: cargo build --release -p ringpost".to_owned()));
    }
    let (log, output) = (place.dir.join("log"), place.dir.join("ringpost.out"));
    let mut process = placed(place.ringpost, place.cpus)
        .arg("run")
        .env_clear()
        .envs(HANDED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .envs(settings(place, patience))
        .env("LOG_TARGET", &log)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&output)?)
        .spawn()?;
    match ready(&mut process, &log) {
        Ok(address) => Ok(Started { address, process: Some(process), output: Some(log) }),
        Err(error) => {
            // Where it still runs it is not ready after all that time.
            drop(process.kill());
            drop(process.wait());
            let written = [&output, &log].map(|path| fs::read_to_string(path).unwrap_or_default()).concat();
            let last = written.lines().last().unwrap_or("it wrote nothing");
            Err(PeerError::NotReady(format!("{error}; {last}")))
        }
    }
}

fn settings(place: &Place<'_>, patience: &str) -> Vec<(&'static str, String)> {
    let dir = place.dir.display();
    let sessions = place.sessions.clamp(1000, SESSIONS_MAX).to_string();
    vec![
        ("RELAY_HOST_NAME", "ringpost.bench.example".to_owned()),
        ("LISTEN_SMTP", "127.0.0.1:0".to_owned()),
        ("LISTEN_SUBMISSION", "off".to_owned()),
        ("LISTEN_SUBMISSIONS", "off".to_owned()),
        ("LISTEN_ADMIN", "127.0.0.1:0".to_owned()),
        ("CONTROL_SOCKET", format!("{dir}/c.sock")),
        ("STATE_DIR", dir.to_string()),
        ("ACCEPTED_NETWORKS", "127.0.0.0/8".to_owned()),
        ("EXT_RELAY_HOST", format!("[{}]:{}", place.upstream.ip(), place.upstream.port())),
        ("OUTGOING_SMTP_AUTH", "off".to_owned()),
        ("TLS_VERIFY", "none".to_owned()),
        ("DELIVERY_PATIENCE", patience.to_owned()),
        ("XDP", "off".to_owned()),
        ("WORKERS", place.threads.to_string()),
        ("SESSIONS_PER_CLIENT_MAX", sessions),
    ]
}

/// Waits for the ready line in the log and reads the plain SMTP listener's address from it.
fn ready(process: &mut Child, log: &Path) -> Result<SocketAddr, String> {
    let give_up = clock::now() + Duration::from_secs(READY_SECS_MAX);
    loop {
        // Values may stand in quotes.
        let text = fs::read_to_string(log).unwrap_or_default().replace('"', "");
        if let Some(line) = text.lines().find(|line| line.contains("event=ready")) {
            return smtp_address(line).ok_or_else(|| format!("no SMTP address in: {line}"));
        }
        if let Some(status) = process.try_wait().map_err(|error| error.to_string())? {
            return Err(format!("it ended: {status}"));
        }
        if clock::now() > give_up {
            return Err(format!("no ready line within {READY_SECS_MAX} s"));
        }
        thread::sleep(GLANCE);
    }
}

/// The first address of a field whose name ends with `smtp`.
fn smtp_address(line: &str) -> Option<SocketAddr> {
    let fields = line.split_ascii_whitespace().filter_map(|word| word.split_once('='));
    let values =
        fields.filter(|(name, _)| name.to_ascii_lowercase().ends_with("smtp")).map(|(_, value)| value);
    values.flat_map(|value| value.split(',')).find_map(|part| part.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_plain_listener_among_others() {
        let line = "2026-01-01T00:00:00Z INFO event=ready admin=127.0.0.1:9 submission=127.0.0.1:7 smtp=127.0.0.1:2525,[::1]:2525";
        assert_eq!(smtp_address(line), Some(([127, 0, 0, 1], 2525).into()));
        assert_eq!(smtp_address("event=ready listen_smtp=[::1]:25"), "[::1]:25".parse().ok());
        assert_eq!(smtp_address("event=ready smtp=off admin=127.0.0.1:9"), None);
    }
}
