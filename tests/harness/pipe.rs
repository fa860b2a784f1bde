//! A TCP connection that may be inside TLS, for both ends of the harness. Blocking, and no cleverer than rustls.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned};

/// One end of a connection.
#[derive(Debug)]
pub enum Pipe {
    /// Outside TLS.
    Plain(TcpStream),
    /// Inside TLS, as its server.
    Server(Box<StreamOwned<ServerConnection, TcpStream>>),
    /// Inside TLS, as its client.
    Client(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Pipe {
    /// The socket below.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Server(stream) => &stream.sock,
            Self::Client(stream) => &stream.sock,
        }
    }

    /// Whether it is inside TLS.
    pub fn is_secure(&self) -> bool {
        !matches!(self, Self::Plain(_))
    }

    /// Does the server's handshake on the socket below.
    ///
    /// # Errors
    /// Why it failed.
    pub fn accept(&mut self, config: &Arc<ServerConfig>) -> io::Result<()> {
        let mut socket = self.socket().try_clone()?;
        let mut connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        *self = Self::Server(Box::new(StreamOwned::new(connection, socket)));
        Ok(())
    }

    /// Does the client's handshake on the socket below.
    ///
    /// # Errors
    /// Why it failed.
    pub fn connect(&mut self, config: &Arc<ClientConfig>, name: &str) -> io::Result<()> {
        let mut socket = self.socket().try_clone()?;
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let mut connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        *self = Self::Client(Box::new(StreamOwned::new(connection, socket)));
        Ok(())
    }

    /// Says close_notify and leaves TCP open.
    pub fn close_notify(&mut self) {
        match self {
            Self::Plain(_) => {}
            Self::Server(stream) => stream.conn.send_close_notify(),
            Self::Client(stream) => stream.conn.send_close_notify(),
        }
        self.flush().ok();
    }

    /// The state of the client's end.
    pub fn client(&self) -> Option<&ClientConnection> {
        match self {
            Self::Client(stream) => Some(&stream.conn),
            _ => None,
        }
    }
}

impl Read for Pipe {
    fn read(&mut self, octets: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(octets),
            Self::Server(stream) => stream.read(octets),
            Self::Client(stream) => stream.read(octets),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(octets),
            Self::Server(stream) => stream.write(octets),
            Self::Client(stream) => stream.write(octets),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Server(stream) => stream.flush(),
            Self::Client(stream) => stream.flush(),
        }
    }
}
