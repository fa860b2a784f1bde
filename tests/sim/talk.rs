//! One end of a simulated connection as a peer of the relay uses it: octets out, lines in.

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
}

impl Talk {
    pub(crate) fn new(world: World, stream: SimStream) -> Self {
        Self { world, stream, input: Vec::new() }
    }

    /// Sends all of it; the other side has a long time to take it.
    pub(crate) async fn send(&mut self, octets: &[u8]) -> Result<(), Gone> {
        let by = self.world.now().after(PATIENCE);
        self.stream.send_octets(octets.to_vec(), by).await.0.map_err(|_| Gone::Closed)
    }

    /// Reads more.
    pub(crate) async fn read(&mut self) -> Result<(), Gone> {
        self.read_by(self.world.now().after(PATIENCE)).await
    }

    async fn read_by(&mut self, by: Moment) -> Result<(), Gone> {
        let (result, buffer) = self.stream.receive(Buffer::take(Size::Command), by).await;
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

/// Longer than all that the relay may take for one reply: several upstreams, each with its own patience.
const PATIENCE: Duration = Duration::from_secs(3 * 3600);
