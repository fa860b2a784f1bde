//! A client's connection on tokio-uring: whole writes out, whole replies in. It knows nothing of transactions.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::TcpStream;

use crate::reply::{self, Parsed};

/// Octets read at once: replies are short.
const READ_OCTETS: usize = 4096;

/// Why a message or a connection failed.
#[derive(Debug)]
pub enum LinkError {
    /// The socket failed.
    Io(io::Error),
    /// The peer closed where a reply was due.
    Closed,
    /// The peer sent something that is no reply.
    Garbage,
    /// The peer answered otherwise than hoped: what was asked, and its reply.
    Refused(&'static str, String),
    /// The peer does not offer an extension that the load needs.
    Lacks(&'static str),
}

impl fmt::Display for LinkError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Io(error) => write!(out, "{error}"),
            LinkError::Closed => out.write_str("closed where a reply was due"),
            LinkError::Garbage => out.write_str("sent something that is no reply"),
            LinkError::Refused(stage, text) => write!(out, "answered {stage} with: {}", text.trim_end()),
            LinkError::Lacks(keyword) => write!(out, "does not offer {keyword}"),
        }
    }
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> Self {
        LinkError::Io(error)
    }
}

/// An open connection.
pub struct Link {
    stream: TcpStream,
    buffer: Vec<u8>,
    unread: Vec<u8>,
}

impl Link {
    /// Connects, without Nagle's delay.
    ///
    /// # Errors
    /// What the socket says.
    pub async fn connect(target: SocketAddr) -> Result<Self, LinkError> {
        let stream = TcpStream::connect(target).await?;
        stream.set_nodelay(true)?;
        Ok(Link { stream, buffer: Vec::with_capacity(READ_OCTETS), unread: Vec::new() })
    }

    /// Writes all of `octets` and gives the buffer back, on failure too.
    pub async fn send<B: BoundedBuf>(&mut self, octets: B) -> (Result<(), LinkError>, B) {
        let (result, octets) = self.stream.write_all(octets).await;
        (result.map_err(LinkError::Io), octets)
    }

    /// Writes a command and waits for its reply, which must have the code `hoped`.
    ///
    /// # Errors
    /// Another code, or a failed connection.
    pub async fn ask(
        &mut self,
        stage: &'static str,
        line: &'static [u8],
        hoped: u16,
    ) -> Result<(), LinkError> {
        self.send(line).await.0?;
        self.expect(stage, hoped).await
    }

    /// Waits for a reply, which must have the code `hoped`.
    ///
    /// # Errors
    /// Another code, or a failed connection.
    pub async fn expect(&mut self, stage: &'static str, hoped: u16) -> Result<(), LinkError> {
        self.judge(|reply| {
            if reply.code == hoped { Ok(()) } else { Err(LinkError::Refused(stage, reply.text.to_owned())) }
        })
        .await
    }

    /// Says EHLO after the banner; `needs` must be offered.
    ///
    /// # Errors
    /// A refusal, a keyword missing, or a failed connection.
    pub async fn greet(&mut self, needs: &[&'static str]) -> Result<(), LinkError> {
        self.expect("the connection", 220).await?;
        self.send(&b"EHLO load.bench.example\r\n"[..]).await.0?;
        self.judge(|reply| match needs.iter().find(|keyword| !reply.offers(keyword)) {
            _ if reply.code != 250 => Err(LinkError::Refused("EHLO", reply.text.to_owned())),
            Some(keyword) => Err(LinkError::Lacks(keyword)),
            None => Ok(()),
        })
        .await
    }

    /// Says QUIT and waits for the answer.
    ///
    /// # Errors
    /// A refusal or a failed connection.
    pub async fn quit(mut self) -> Result<(), LinkError> {
        self.ask("QUIT", b"QUIT\r\n", 221).await
    }

    /// Waits for a whole reply and hands it to `verdict`.
    async fn judge<T>(
        &mut self,
        verdict: impl Fn(reply::Reply<'_>) -> Result<T, LinkError>,
    ) -> Result<T, LinkError> {
        loop {
            match reply::parse(&self.unread) {
                Parsed::Reply(reply, taken) => {
                    let result = verdict(reply);
                    self.unread.drain(..taken);
                    return result;
                }
                Parsed::Garbage => return Err(LinkError::Garbage),
                Parsed::More => self.read().await?,
            }
        }
    }

    async fn read(&mut self) -> Result<(), LinkError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let (result, buffer) = self.stream.read(buffer).await;
        let octets = result?;
        self.unread.extend_from_slice(&buffer[..octets]);
        self.buffer = buffer;
        if octets == 0 { Err(LinkError::Closed) } else { Ok(()) }
    }
}
