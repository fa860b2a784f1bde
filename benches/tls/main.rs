//! `cargo xtask bench tls`: what TLS costs the relay, in CPU by the kernel's own count: handshakes, full and resumed;
//! small messages on connections that stay; messages of 1 MiB; memory of a session that is idle. HAProxy, which takes TLS
//! off and puts it on again with the same cipher, stands beside ours in the same run.
//!
//! Argument: the relay's binary. Rounds alternate between the relays, and medians are told.

mod relay;
mod talk;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use relay::Relay;
use talk::{Client, Entry, Identity, Outcome, sink};

const ROUNDS: usize = 5;
const SESSIONS: usize = 4;
const HANDSHAKES: usize = 1500;
const IDLE_SESSIONS: usize = 1000;
/// Name, octets, messages of one session in a round.
const LOADS: [(&str, usize, usize); 2] = [("4 KiB", 4 << 10, 1500), ("1 MiB", 1 << 20, 60)];

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench tls: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Outcome<()> {
    let binary = PathBuf::from(std::env::args_os().nth(1).ok_or("which binary? target/release/ringpost")?);
    let identity = Identity::make()?;
    handshakes(&binary, &identity)?;
    idle(&binary, &identity)?;
    for (name, octets, count) in LOADS {
        messages(&binary, &identity, name, octets, count)?;
    }
    Ok(())
}

/// CPU of the relay for a connection: TCP, greeting, STARTTLS, EHLO, QUIT.
fn handshakes(binary: &Path, identity: &Identity) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let relay = Relay::ours(binary, dir.path(), identity, sink(identity, Entry::StartTls)?)?;
    let one = identity.client_config()?;
    let cost = |entry: Entry, config: &dyn Fn() -> Outcome<Arc<rustls::ClientConfig>>| -> Outcome<f64> {
        let mut costs = Vec::new();
        for _ in 0..ROUNDS {
            let before = relay.usage().cpu_micros;
            for _ in 0..HANDSHAKES {
                Client::connect(relay.address, entry, &config()?)?.quit()?;
            }
            costs.push(per(relay.usage().cpu_micros - before, HANDSHAKES));
        }
        Ok(median(costs))
    };
    let plain = cost(Entry::Plain, &|| Ok(Arc::clone(&one)))?;
    let full = cost(Entry::StartTls, &|| identity.client_config())?;
    let resumed = cost(Entry::StartTls, &|| Ok(Arc::clone(&one)))?;
    println!("session of one worker            CPU us   a second of CPU");
    for (name, cost) in [("plain", plain), ("TLS, full handshake", full), ("TLS, resumed", resumed)] {
        println!("  {name:<28} {cost:>9.1} {:>17.0}", 1e6 / cost);
    }
    Ok(())
}

/// Memory of idle sessions: anonymous octets of the process, over many of them.
fn idle(binary: &Path, identity: &Identity) -> Outcome<()> {
    let config = identity.client_config()?;
    let mut each = [0.0; 2];
    for (cost, entry) in each.iter_mut().zip([Entry::Plain, Entry::StartTls]) {
        let dir = tempfile::tempdir()?;
        let relay = Relay::ours(binary, dir.path(), identity, sink(identity, Entry::StartTls)?)?;
        let connect = || Client::connect(relay.address, entry, &config);
        // Pools and tables are there before the count begins.
        (0..10).try_for_each(|_| connect()?.quit())?;
        let before = relay.usage().anonymous_octets;
        let clients: Vec<Client> = (0..IDLE_SESSIONS).map(|_| connect()).collect::<Outcome<_>>()?;
        *cost = per(relay.usage().anonymous_octets.saturating_sub(before), clients.len());
    }
    let [plain, tls] = each.map(|octets| octets / 1024.0);
    println!(
        "idle session, KiB: plain {plain:.1}, inside TLS {tls:.1}, more by {:.1} (at most 12)",
        tls - plain
    );
    Ok(())
}

/// CPU for a message, ours beside HAProxy's, TLS on both sides.
fn messages(binary: &Path, identity: &Identity, name: &str, octets: usize, count: usize) -> Outcome<()> {
    let dirs = [tempfile::tempdir()?, tempfile::tempdir()?, tempfile::tempdir()?];
    let at_once = sink(identity, Entry::AtOnce)?;
    let mut relays = vec![Relay::ours(binary, dirs[0].path(), identity, sink(identity, Entry::StartTls)?)?];
    for (buffer, dir) in ["", "tune.bufsize 65536"].into_iter().zip(&dirs[1..]) {
        match Relay::haproxy(dir.path(), identity, at_once, buffer) {
            Ok(mut relay) => {
                relay.name = if buffer.is_empty() { "haproxy, 16 KiB" } else { "haproxy, 64 KiB" };
                relays.push(relay);
            }
            Err(error) => println!("SKIPPED haproxy: {error}"),
        }
    }
    let message = message(octets);
    let mut costs = vec![Vec::new(); relays.len()];
    for _ in 0..ROUNDS {
        for (relay, costs) in relays.iter().zip(&mut costs) {
            costs.push(round(relay, identity, &message, count)?);
        }
    }
    let medians: Vec<f64> = costs.into_iter().map(median).collect();
    println!("message of {name:<22} CPU us      ours by it");
    for (relay, cost) in relays.iter().zip(&medians) {
        println!("  {:<28} {cost:>9.1} {:>15.2}", relay.name, medians[0] / cost);
    }
    Ok(())
}

/// CPU for a message once all connections stand.
fn round(relay: &Relay, identity: &Identity, message: &Arc<Vec<u8>>, count: usize) -> Outcome<f64> {
    let config = identity.client_config()?;
    let mut clients = Vec::new();
    for _ in 0..SESSIONS {
        let mut client = Client::connect(relay.address, relay.entry, &config)?;
        client.send(message)?;
        clients.push(client);
    }
    let before = relay.usage().cpu_micros;
    let threads: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let message = Arc::clone(message);
            thread::spawn(move || -> Outcome<Client> {
                (0..count).try_for_each(|_| client.send(&message))?;
                Ok(client)
            })
        })
        .collect();
    let clients: Vec<Client> = threads
        .into_iter()
        .map(|thread| thread.join().map_err(|_| "a session panicked")?)
        .collect::<Outcome<_>>()?;
    let cost = per(relay.usage().cpu_micros - before, SESSIONS * count);
    clients.into_iter().try_for_each(Client::quit)?;
    Ok(cost)
}

/// A message of this size, with its final dot.
fn message(octets: usize) -> Arc<Vec<u8>> {
    let mut message = b"From: <a@load.example>\r\nTo: <b@sink.example>\r\nSubject: load\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\n\
        Message-ID: <1@load.example>\r\n\r\n"
        .to_vec();
    while message.len() < octets {
        message.extend_from_slice(&[b'x'; 76]);
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b".\r\n");
    Arc::new(message)
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
fn per(total: u64, count: usize) -> f64 {
    total as f64 / count as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
