//! HAProxy in TCP mode: what moving the octets costs where nobody reads them. No logs, as many threads as the others.
//! Its default buffers of 16 KiB are not its best: with 64 KiB a message of 1 MiB cost it 20 to 30 % less CPU here, and
//! `option splice-auto` nothing less. Both are offered; whoever compares large messages should show both.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::process::Stdio;

use super::{PeerError, Place, Started, debian, placed};
use crate::sink;
use crate::size::Size;

/// Connections beside those of the load: probes, and the previous run's in their last moments.
const SPARE_CONNECTIONS: usize = 1000;

pub(super) fn start(place: &Place<'_>, buffer: Option<Size>) -> Result<Started, PeerError> {
    let program = debian("haproxy", "haproxy")?;
    // It gets the listening socket as its input: no port has to be guessed, and it can be connected to at once.
    // Its -q would close that input.
    let listener = sink::listen(([127, 0, 0, 1], 0).into())?;
    let address = listener.local_addr()?;
    let config = place.dir.join("haproxy.cfg");
    fs::write(&config, text(place, buffer))?;
    let output = place.dir.join("haproxy.out");
    let process = placed(&program, place.cpus)
        .args(["-db", "-f"])
        .arg(&config)
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .stdout(Stdio::null())
        .stderr(File::create(&output)?)
        .spawn()?;
    Ok(Started { address, process: Some(process), output: Some(output) })
}

fn text(place: &Place<'_>, buffer: Option<Size>) -> String {
    let buffer = buffer.map(|size| format!("    tune.bufsize {}\n", size.0)).unwrap_or_default();
    format!(
        "global\n    maxconn {connections}\n    nbthread {threads}\n{buffer}\
         defaults\n    mode tcp\n    maxconn {connections}\n    timeout connect 10s\n    timeout client 1h\n    timeout server 1h\n\
         listen smtp\n    bind fd@0\n    server sink {upstream}\n",
        connections = place.sessions + SPARE_CONNECTIONS,
        threads = place.threads,
        upstream = place.upstream,
    )
}
