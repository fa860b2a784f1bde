//! A web server inside TLS for one test: each request is answered by a function, and written down.
//!
//! One request a connection, as ringpost asks. It must not be used by anything but tests.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::wait::Watched;

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Method and path.
    pub line: String,
    /// The header fields, as they were written.
    pub head: String,
    /// What followed them.
    pub body: String,
}

/// A running server.
#[derive(Debug)]
pub struct Web {
    address: SocketAddr,
    asked: Arc<Watched<Vec<Asked>>>,
}

impl Web {
    /// Answers every request on this listener by the function: status line and headers, an empty line, the content. No
    /// text at all closes the connection.
    ///
    /// # Panics
    /// When the listener has no address.
    pub fn start(
        listener: TcpListener,
        config: Arc<ServerConfig>,
        answer: impl Fn(&Asked) -> String + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("a bound listener");
        let asked = Arc::new(Watched::new(Vec::new()));
        let record = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // A client that does not trust us goes away: the test sees it by what was not asked.
                serve(stream, &config, &record, &answer).ok();
            }
        });
        Self { address, asked }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was asked so far.
    pub fn asked(&self) -> &Watched<Vec<Asked>> {
        &self.asked
    }
}

/// A whole answer with this status, media type and content.
pub fn answer(status: &str, media_type: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn serve(
    stream: TcpStream,
    config: &Arc<ServerConfig>,
    record: &Watched<Vec<Asked>>,
    answer: impl Fn(&Asked) -> String,
) -> io::Result<()> {
    let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, stream);
    let mut octets = Vec::new();
    let asked = loop {
        if let Some(asked) = whole(&octets) {
            break asked;
        }
        let mut more = [0; 4096];
        match stream.read(&mut more)? {
            0 => return Ok(()),
            count => octets.extend_from_slice(&more[..count]),
        }
    };
    let text = answer(&asked);
    record.update(|all| all.push(asked));
    stream.write_all(text.as_bytes())?;
    stream.conn.send_close_notify();
    stream.flush()
}

/// The request, once all of it is there.
fn whole(octets: &[u8]) -> Option<Asked> {
    let text = std::str::from_utf8(octets).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let (line, head) = head.split_once("\r\n").unwrap_or((head, ""));
    let length = head.lines().find_map(|field| {
        let (name, value) = field.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    (body.len() >= length.unwrap_or(0)).then(|| Asked {
        line: line.to_owned(),
        head: head.to_owned(),
        body: body.to_owned(),
    })
}
