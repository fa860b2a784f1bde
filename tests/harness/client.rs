//! A client that can do what a client must not: raw octets, any cut, any break. It must not mend anything.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use crate::certificate::credulous;
use crate::pipe::Pipe;
use crate::wait::PATIENCE;
use crate::wire;

/// A reply, or what was left of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Three digits.
    pub code: u16,
    /// The lines without code, separator and CRLF.
    pub lines: Vec<String>,
}

impl Reply {
    /// `250 2.0.0 Ok`: the last line as it came.
    pub fn text(&self) -> String {
        format!("{} {}", self.code, self.lines.last().map_or("", String::as_str))
    }

    /// Checks how the reply begins.
    ///
    /// # Panics
    /// When it begins otherwise.
    #[track_caller]
    pub fn assert(&self, start: &str) -> &Self {
        assert!(self.text().starts_with(start), "expected {start}…, heard {self:?}");
        self
    }
}

/// One connection to the relay.
#[derive(Debug)]
pub struct Client {
    pipe: Pipe,
    unread: Vec<u8>,
}

impl Client {
    /// Connects and reads nothing.
    ///
    /// # Panics
    /// When nobody listens.
    #[track_caller]
    pub fn dial(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("the relay listens"))
    }

    /// Speaks over a connection that somebody else has made.
    ///
    /// # Panics
    /// When the connection takes no options.
    #[track_caller]
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout can be set");
        stream.set_nodelay(true).expect("an option can be set");
        Self { pipe: Pipe::Plain(stream), unread: Vec::new() }
    }

    /// Connects and hears the banner.
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        let mut client = Self::dial(address);
        client.reply().assert("220 ");
        client
    }

    /// Connects, hears the banner and greets.
    #[track_caller]
    pub fn greeted(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        client.command("EHLO client.test").assert("250 ");
        client
    }

    /// Connects, goes inside TLS at once and hears the banner.
    #[track_caller]
    pub fn connect_inside(address: SocketAddr) -> Self {
        let mut client = Self::dial(address);
        client.shake_hands();
        client.reply().assert("220 ");
        client
    }

    /// Says STARTTLS, goes inside TLS and greets again.
    #[track_caller]
    pub fn starttls(&mut self) -> &mut Self {
        self.command("STARTTLS").assert("220 ");
        self.shake_hands();
        self.command("EHLO client.test").assert("250 ");
        self
    }

    /// Does the handshake and takes any certificate.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn shake_hands(&mut self) {
        self.pipe.connect(&credulous(), "relay.test").expect("a handshake");
    }

    /// The connection itself.
    pub fn pipe(&mut self) -> &mut Pipe {
        &mut self.pipe
    }

    /// Writes octets as they are.
    ///
    /// # Panics
    /// When the relay has closed the connection.
    #[track_caller]
    pub fn send(&mut self, octets: &[u8]) -> &mut Self {
        self.pipe.write_all(octets).expect("the relay reads");
        self
    }

    /// Writes as much as the relay will take; it may close in the middle.
    pub fn send_gladly(&mut self, octets: &[u8]) -> &mut Self {
        self.pipe.write_all(octets).ok();
        self
    }

    /// Writes octets in pieces that end at these offsets, each its own segment where the kernel allows.
    #[track_caller]
    pub fn send_cut(&mut self, octets: &[u8], cuts: &[usize]) -> &mut Self {
        let mut from = 0;
        for cut in cuts.iter().copied().chain([octets.len()]) {
            self.send(&octets[from..cut]);
            from = cut;
        }
        self
    }

    /// Writes octets one at a time.
    #[track_caller]
    pub fn dribble(&mut self, octets: &[u8]) -> &mut Self {
        for octet in octets {
            self.send(&[*octet]);
        }
        self
    }

    /// Sends one command and hears its reply.
    #[track_caller]
    pub fn command(&mut self, line: &str) -> Reply {
        self.send(format!("{line}\r\n").as_bytes()).reply()
    }

    /// Hears one reply.
    ///
    /// # Panics
    /// When none comes, or one that is malformed.
    #[track_caller]
    pub fn reply(&mut self) -> Reply {
        self.try_reply().expect("a reply, not the end of the connection")
    }

    /// Hears one reply, or the end of the connection.
    ///
    /// # Panics
    /// When neither comes, or a reply that is malformed (RFC 5321 §4.2).
    #[track_caller]
    pub fn try_reply(&mut self) -> Option<Reply> {
        let mut reply: Option<Reply> = None;
        loop {
            let line = self.line()?;
            assert!(line.len() >= 3 && line.is_char_boundary(3), "no reply: {line:?}");
            let (code, rest) = line.split_at(3);
            let code: u16 = code.parse().unwrap_or_else(|_| panic!("no reply: {line:?}"));
            let reply = reply.get_or_insert(Reply { code, lines: Vec::new() });
            assert_eq!(reply.code, code, "one reply with two codes: {line:?}");
            reply.lines.push(rest.get(1..).unwrap_or("").to_owned());
            if !rest.starts_with('-') {
                return Some(reply.clone());
            }
        }
    }

    /// Opens a transaction, lockstep.
    #[track_caller]
    pub fn envelope(&mut self, from: &str, to: &[&str]) -> &mut Self {
        self.command(&format!("MAIL FROM:<{from}>")).assert("250 2.1.0");
        for to in to {
            self.command(&format!("RCPT TO:<{to}>")).assert("250 2.1.5");
        }
        self
    }

    /// Sends content by DATA, stuffed and ended as it must be, and hears the verdict.
    #[track_caller]
    pub fn data(&mut self, content: &[u8]) -> Reply {
        self.command("DATA").assert("354");
        self.send(&[&wire::stuffed(content)[..], b".\r\n"].concat()).reply()
    }

    /// Sends content by DATA exactly as given, the terminator included, and hears the verdict.
    #[track_caller]
    pub fn raw_data(&mut self, wire: &[u8]) -> Reply {
        self.command("DATA").assert("354");
        self.send(wire).reply()
    }

    /// One whole mail to one recipient.
    #[track_caller]
    pub fn deliver(&mut self, content: &[u8]) -> Reply {
        self.envelope("a@client.test", &["b@example.com"]).data(content)
    }

    /// Waits until the relay has closed, and returns what it still said.
    ///
    /// # Panics
    /// When it does not close.
    #[track_caller]
    pub fn rest(&mut self) -> String {
        while self.fill() {}
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }

    /// Whether nothing is said for this long.
    pub fn hears_nothing(&mut self, span: Duration) -> bool {
        self.pipe.socket().set_read_timeout(Some(span)).expect("a timeout can be set");
        let silent = self.unread.is_empty()
            && self
                .pipe
                .socket()
                .peek(&mut [0])
                .is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        self.pipe.socket().set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        silent
    }

    /// Says QUIT and sees the relay close.
    #[track_caller]
    pub fn quit(mut self) {
        self.command("QUIT").assert("221 2.0.0");
        assert_eq!(self.rest(), "");
    }

    /// Ends the sending side only.
    pub fn finish_sending(&mut self) -> &mut Self {
        self.pipe.socket().shutdown(Shutdown::Write).ok();
        self
    }

    /// Breaks the connection with a TCP reset.
    pub fn reset(self) {
        SockRef::from(self.pipe.socket()).set_linger(Some(Duration::ZERO)).ok();
    }

    /// The address that the relay sees.
    ///
    /// # Panics
    /// When the kernel does not tell.
    pub fn address(&self) -> SocketAddr {
        self.pipe.socket().local_addr().expect("a bound address")
    }

    /// Hears one line without its CRLF, or the end of the connection.
    ///
    /// # Panics
    /// When neither comes, or a line that ends in a bare LF.
    #[track_caller]
    pub fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.unread.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..at + 2).take(at).collect();
                assert!(!line.contains(&b'\n'), "a bare LF in a reply: {}", line.escape_ascii());
                return Some(String::from_utf8(line).expect("replies are text"));
            }
            if !self.fill() {
                assert!(self.unread.is_empty(), "half a reply: {}", self.unread.escape_ascii());
                return None;
            }
        }
    }

    /// Reads more; false at the end of the connection, however it ended.
    #[track_caller]
    fn fill(&mut self) -> bool {
        let mut octets = [0; 16 * 1024];
        match self.pipe.read(&mut octets) {
            Ok(count) => {
                self.unread.extend_from_slice(&octets[..count]);
                count > 0
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                panic!("the relay neither speaks nor closes; unread: {}", self.unread.escape_ascii())
            }
            Err(_) => false,
        }
    }
}
