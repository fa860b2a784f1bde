//! `cargo xtask bench tls`: what TLS costs the relay, in CPU by the kernel's own count: handshakes, full and resumed;
//! small messages on connections that stay; messages of 1 MiB; memory of a session that is idle. HAProxy, which takes TLS
//! off and puts it on again with the same cipher, stands beside ours in the same run.
//!
//! Arguments: the relay's binary, and which parts are wanted, all without any. Rounds alternate between the relays, and
//! medians are told.

mod relay;
mod talk;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use relay::Relay;
use talk::{Client, Entry, Identity, Outcome, Sink};

const ROUNDS: usize = 5;
const SESSIONS: usize = 20;
const HANDSHAKES: usize = 1500;
const IDLE_SESSIONS: usize = 1000;
const UPSTREAM_HANDSHAKES: usize = 500;
/// Connections to the upstream stay.
const MESSAGES_PER_CONNECTION: u32 = 1_000_000;
/// Name, octets, messages of one session in a round.
const LOADS: [(&str, usize, usize); 2] = [("small", 4 << 10, 400), ("bulk", 1 << 20, 12)];

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
    let mut arguments = std::env::args().skip(1);
    let binary = PathBuf::from(arguments.next().ok_or("which binary? target/release/ringpost")?);
    let wanted: Vec<String> = arguments.collect();
    let is_wanted = |part: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == part);
    let identity = Identity::make()?;
    if is_wanted("handshakes") {
        handshakes(&binary, &identity)?;
    }
    if is_wanted("idle") {
        idle(&binary, &identity)?;
    }
    for (name, octets, count) in LOADS.into_iter().filter(|(name, ..)| is_wanted(name)) {
        messages(&binary, &identity, name, octets, count)?;
    }
    Ok(())
}

/// CPU of the relay for a connection: TCP, greeting, STARTTLS, EHLO, QUIT; and how many of those to the upstream are
/// resumed, of a relay that makes a new one for each message.
fn handshakes(binary: &Path, identity: &Identity) -> Outcome<()> {
    let (dir, sink) = (tempfile::tempdir()?, Sink::start(identity, Entry::StartTls)?);
    let relay = Relay::ours(binary, dir.path(), identity, sink.address, 1)?;
    let one = identity.client_config()?;
    let cost = |entry: Entry, config: &dyn Fn() -> Outcome<Arc<rustls::ClientConfig>>| -> Outcome<_> {
        let (mut costs, mut resumed) = (Vec::new(), 0);
        for _ in 0..ROUNDS {
            let before = relay.usage().cpu_micros;
            for _ in 0..HANDSHAKES {
                let client = Client::connect(relay.address, entry, &config()?)?;
                resumed += usize::from(client.is_resumed());
                client.quit()?;
            }
            costs.push(per(relay.usage().cpu_micros - before, HANDSHAKES));
        }
        Ok((median(costs), resumed))
    };
    let plain = cost(Entry::Plain, &|| Ok(Arc::clone(&one)))?;
    let full = cost(Entry::StartTls, &|| identity.client_config())?;
    let resumed = cost(Entry::StartTls, &|| Ok(Arc::clone(&one)))?;
    println!("session of one worker            CPU us   a second of CPU    resumed");
    for (name, (cost, resumed)) in
        [("plain", plain), ("TLS, full handshake", full), ("TLS, resumed", resumed)]
    {
        let all = ROUNDS * HANDSHAKES;
        println!("  {name:<28} {cost:>9.1} {:>17.0}    {resumed} of {all}", 1e6 / cost);
    }
    let message = message(64);
    let mut client = Client::connect(relay.address, Entry::StartTls, &one)?;
    (0..UPSTREAM_HANDSHAKES).try_for_each(|_| client.send(&message))?;
    println!("connections to the upstream: {} of {UPSTREAM_HANDSHAKES} resumed", sink.resumed());
    client.quit()
}

/// Memory of idle sessions: anonymous octets of the process, over many of them.
fn idle(binary: &Path, identity: &Identity) -> Outcome<()> {
    let config = identity.client_config()?;
    let mut each = [0.0; 2];
    for (cost, entry) in each.iter_mut().zip([Entry::Plain, Entry::StartTls]) {
        let dir = tempfile::tempdir()?;
        let sink = Sink::start(identity, Entry::StartTls)?;
        let relay = Relay::ours(binary, dir.path(), identity, sink.address, MESSAGES_PER_CONNECTION)?;
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

/// CPU for a message, ours beside HAProxy's and Postfix's, TLS on both sides. Postfix's is that of all its processes
/// until the message has left its queue.
fn messages(binary: &Path, identity: &Identity, name: &str, octets: usize, count: usize) -> Outcome<()> {
    let dirs: Vec<_> = (0..4).map(|_| tempfile::tempdir()).collect::<Result<_, _>>()?;
    let sink = || Sink::start(identity, Entry::StartTls);
    let onward = sink()?;
    let ours = Relay::ours(binary, dirs[0].path(), identity, onward.address, MESSAGES_PER_CONNECTION)?;
    let mut relays = vec![(ours, onward)];
    for (name, buffer, dir) in
        [("haproxy, 16 KiB", "", &dirs[1]), ("haproxy, 64 KiB", "tune.bufsize 65536", &dirs[2])]
    {
        let onward = Sink::start(identity, Entry::AtOnce)?;
        match Relay::haproxy(name, dir.path(), identity, onward.address, buffer) {
            Ok(relay) => relays.push((relay, onward)),
            Err(error) => println!("SKIPPED haproxy: {error}"),
        }
    }
    let queued = sink()?;
    match Relay::postfix(dirs[3].path(), identity, &queued) {
        Ok(relay) => relays.push((relay, queued)),
        Err(error) => println!("SKIPPED postfix: {error}"),
    }
    let message = message(octets);
    let mut costs = vec![Vec::new(); relays.len()];
    for _ in 0..ROUNDS {
        for ((relay, sink), costs) in relays.iter().zip(&mut costs) {
            costs.push(round(relay, sink, identity, &message, count)?);
        }
    }
    let medians: Vec<f64> = costs.into_iter().map(median).collect();
    println!("message, {name:<21} CPU us      ours by it");
    for ((relay, _), cost) in relays.iter().zip(&medians) {
        println!("  {:<28} {cost:>9.1} {:>15.2}", relay.name, medians[0] / cost);
    }
    Ok(())
}

/// CPU for a message once all connections stand, until the sink has every message.
fn round(
    relay: &Relay,
    sink: &Sink,
    identity: &Identity,
    message: &Arc<Vec<u8>>,
    count: usize,
) -> Outcome<f64> {
    let config = identity.client_config()?;
    let before = sink.messages();
    let mut clients = Vec::new();
    for _ in 0..SESSIONS {
        let mut client = Client::connect(relay.address, relay.entry, &config)?;
        client.send(message)?;
        clients.push(client);
    }
    sink.await_messages(before + SESSIONS)?;
    let cpu_before = relay.usage().cpu_micros;
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
    sink.await_messages(before + SESSIONS * (count + 1))?;
    let cost = per(relay.usage().cpu_micros - cpu_before, SESSIONS * count);
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
