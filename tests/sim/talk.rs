//! One end of a simulated connection as a peer of the relay uses it: octets out, lines in.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ringpost::io::buffer::{Buffer, Size};
use ringpost::io::sim::{SimStream, World};
use ringpost::io::{Io, Stream};
use ringpost::units::Moment;

/// The other side is gone, or this one is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// It closed or reset the connection.
    Closed,
    /// It said nothing for the whole patience.
    Silent,
    /// This side has had enough.
    Left,
}

/// A connection, and what of it is not used yet.
pub(crate) struct Talk {
    pub(crate) world: World,
    pub(crate) stream: SimStream,
    pub(crate) input: Vec<u8>,
    name: String,
}

impl Talk {
    pub(crate) fn new(world: World, stream: SimStream, who: &str) -> Self {
        let name = if is_traced() { format!("{who}{}", next_number()) } else { String::new() };
        Self { world, stream, input: Vec::new(), name }
    }

    /// A line of the transcript, where one is wanted.
    fn trace(&self, mark: &str, octets: &[u8]) {
        if is_traced() {
            let shown: String = octets.escape_ascii().to_string().chars().take(160).collect();
            println!("{:>12} {} {mark} {shown}", self.world.now().0, self.name);
        }
    }

    /// Sends all of it; the other side has a long time to take it.
    pub(crate) async fn send(&mut self, octets: &[u8]) -> Result<(), Gone> {
        self.trace(">", octets);
        let by = self.world.now().after(PATIENCE);
        self.stream.send_octets(octets.to_vec(), by).await.0.map_err(|_| Gone::Closed)
    }

    /// Reads more.
    pub(crate) async fn read(&mut self) -> Result<(), Gone> {
        self.read_by(self.world.now().after(PATIENCE)).await
    }

    async fn read_by(&mut self, by: Moment) -> Result<(), Gone> {
        let (result, buffer) = self.stream.receive(Buffer::take(Size::Command), by).await;
        self.trace("<", buffer.filled());
        match result {
            Ok(1..) => {
                self.input.extend_from_slice(buffer.filled());
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => Err(Gone::Silent),
            Ok(0) | Err(_) => Err(Gone::Closed),
        }
    }

    /// The next line, its LF included.
    pub(crate) async fn line(&mut self) -> Result<Vec<u8>, Gone> {
        loop {
            if let Some(end) = self.input.iter().position(|&octet| octet == b'\n') {
                return Ok(self.input.drain(..=end).collect());
            }
            self.read().await?;
        }
    }

    /// The code of the next reply, all lines of it read.
    pub(crate) async fn reply(&mut self) -> Result<u16, Gone> {
        loop {
            let line = String::from_utf8_lossy(&self.line().await?).into_owned();
            if line.get(3..4) != Some("-") {
                return Ok(line.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0));
            }
        }
    }
}

/// Tells the connections of a transcript apart.
fn next_number() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

/// Whether one seed is played for a person to look at.
fn is_traced() -> bool {
    static IS_TRACED: OnceLock<bool> = OnceLock::new();
    *IS_TRACED.get_or_init(|| std::env::var_os("RINGPOST_SIM_SEED").is_some())
}

/// A line of the transcript, where one is wanted.
pub(crate) fn trace(line: &str) {
    if is_traced() {
        println!("{line}");
    }
}

/// Longer than all that the relay may take for one reply: several upstreams, each with its own patience.
const PATIENCE: Duration = Duration::from_secs(3 * 3600);
