//! Both ends of a relay under test, inside TLS: a client that sends mail and a sink that takes it. Blocking, a thread a
//! connection: what they cost is not measured. One cipher, so that all relays do the same work.

use std::error::Error;
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite, default_provider};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
};

/// Between two looks at the sink, and how many of them: a minute.
const GLANCE: Duration = Duration::from_millis(1);
const GLANCES: usize = 60_000;

pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// When TLS begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// After STARTTLS.
    StartTls,
    /// At once, as a proxy does that knows no SMTP.
    AtOnce,
    /// Never.
    Plain,
}

/// A certificate for everybody here, and its key, as PEM.
pub(crate) struct Identity {
    pub(crate) chain_pem: String,
    pub(crate) key_pem: String,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    pub(crate) fn make() -> Outcome<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
        Ok(Self {
            chain_pem: made.cert.pem(),
            key_pem: made.signing_key.serialize_pem(),
            chain: vec![made.cert.der().clone()],
            key: PrivateKeyDer::try_from(made.signing_key.serialize_der())?,
        })
    }

    fn server(&self) -> Outcome<Arc<ServerConfig>> {
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        Ok(Arc::new(config))
    }

    /// What clients come with: this certificate and no other. Sessions are resumed within one configuration.
    pub(crate) fn client_config(&self) -> Outcome<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        self.chain.iter().try_for_each(|certificate| roots.add(certificate.clone()))?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

/// TLS 1.3 with AES-128-GCM and nothing else.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = default_provider();
    provider.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
    Arc::new(provider)
}

/// A stream that is plain or inside TLS.
trait Channel: Read + Write + Send {
    /// Whether an earlier session was resumed, by what rustls knows of the handshake.
    fn is_resumed(&self) -> bool;
}

impl Channel for TcpStream {
    fn is_resumed(&self) -> bool {
        false
    }
}

impl Channel for StreamOwned<ClientConnection, TcpStream> {
    fn is_resumed(&self) -> bool {
        self.conn.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}

/// A client that has greeted.
pub(crate) struct Client {
    stream: BufReader<Box<dyn Channel>>,
}

impl Client {
    pub(crate) fn connect(at: SocketAddr, entry: Entry, config: &Arc<ClientConfig>) -> Outcome<Self> {
        let mut socket = TcpStream::connect(at)?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from("localhost")?;
        let begin = |socket| -> Outcome<Box<dyn Channel>> {
            Ok(Box::new(StreamOwned::new(ClientConnection::new(Arc::clone(config), name)?, socket)))
        };
        let stream = match entry {
            Entry::Plain => Box::new(socket),
            Entry::AtOnce => begin(socket)?,
            Entry::StartTls => {
                // Nothing may be read ahead of the handshake: an octet at a time.
                reply_of(&mut socket)?;
                socket.write_all(b"EHLO load.example\r\n")?;
                reply_of(&mut socket)?;
                socket.write_all(b"STARTTLS\r\n")?;
                reply_of(&mut socket)?;
                begin(socket)?
            }
        };
        let mut client = Self { stream: BufReader::new(stream) };
        if entry != Entry::StartTls {
            client.reply("2")?;
        }
        client.say(b"EHLO load.example\r\n", "250")?;
        Ok(client)
    }

    pub(crate) fn say(&mut self, octets: &[u8], expected: &str) -> Outcome<()> {
        self.stream.get_mut().write_all(octets)?;
        self.stream.get_mut().flush()?;
        self.reply(expected)
    }

    fn reply(&mut self, expected: &str) -> Outcome<()> {
        let mut line = String::new();
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            if line.as_bytes().get(3) != Some(&b'-') {
                break;
            }
        }
        if line.starts_with(expected) {
            Ok(())
        } else {
            Err(format!("expected {expected}, got {line:?}").into())
        }
    }

    /// One mail; commands in one flight, the message in the next.
    pub(crate) fn send(&mut self, message: &[u8]) -> Outcome<()> {
        self.say(b"MAIL FROM:<a@load.example>\r\nRCPT TO:<b@sink.example>\r\nDATA\r\n", "250")?;
        self.reply("250")?;
        self.reply("354")?;
        self.say(message, "250")
    }

    pub(crate) fn is_resumed(&self) -> bool {
        self.stream.get_ref().is_resumed()
    }

    pub(crate) fn quit(mut self) -> Outcome<()> {
        self.say(b"QUIT\r\n", "221")
    }
}

/// One reply of a plain stream, without reading behind it.
fn reply_of(socket: &mut TcpStream) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        let mut octet = [0];
        socket.read_exact(&mut octet)?;
        line.push(octet[0]);
        if octet[0] == b'\n' {
            if line.get(3) == Some(&b' ') {
                return Ok(());
            }
            line.clear();
        }
    }
}

/// A sink that takes everything; its threads end with the process.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
}

/// What the sink has seen.
#[derive(Default)]
struct Counts {
    messages: AtomicUsize,
    resumed: AtomicUsize,
}

impl Sink {
    pub(crate) fn start(identity: &Identity, entry: Entry) -> Outcome<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let (config, counts) = (identity.server()?, Arc::new(Counts::default()));
        let counted = Arc::clone(&counts);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (config, counts) = (Arc::clone(&config), Arc::clone(&counted));
                // A relay that goes away is no fault here.
                thread::spawn(move || take(socket, &config, entry, &counts).ok());
            }
        });
        Ok(Self { address, counts })
    }

    /// Messages taken so far.
    pub(crate) fn messages(&self) -> usize {
        self.counts.messages.load(Relaxed)
    }

    /// Waits until it has taken so many.
    pub(crate) fn await_messages(&self, count: usize) -> Outcome<()> {
        for _ in 0..GLANCES {
            if self.messages() >= count {
                return Ok(());
            }
            thread::sleep(GLANCE);
        }
        Err(format!("{} of {count} messages arrived", self.messages()).into())
    }

    /// Connections so far on which an earlier session was resumed.
    pub(crate) fn resumed(&self) -> usize {
        self.counts.resumed.load(Relaxed)
    }
}

fn take(mut socket: TcpStream, config: &Arc<ServerConfig>, entry: Entry, counts: &Counts) -> Outcome<()> {
    socket.set_nodelay(true)?;
    if entry == Entry::StartTls {
        socket.write_all(b"220 sink.example ESMTP\r\n")?;
        await_line(&mut socket)?;
        socket.write_all(b"250-sink.example\r\n250-PIPELINING\r\n250 STARTTLS\r\n")?;
        await_line(&mut socket)?;
        socket.write_all(b"220 Go\r\n")?;
    }
    let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(config))?, socket);
    if entry == Entry::AtOnce {
        stream.write_all(b"220 sink.example ESMTP\r\n")?;
    }
    let mut stream = BufReader::with_capacity(128 << 10, stream);
    stream.fill_buf()?;
    if stream.get_ref().conn.handshake_kind() == Some(HandshakeKind::Resumed) {
        counts.resumed.fetch_add(1, Relaxed);
    }
    let mut line = Vec::new();
    while {
        line.clear();
        stream.read_until(b'\n', &mut line)? > 0
    } {
        let reply: &[u8] = match line.first().map(u8::to_ascii_uppercase) {
            Some(b'E') => b"250-sink.example\r\n250 PIPELINING\r\n",
            Some(b'D') => b"354 Go\r\n",
            Some(b'Q') => b"221 Bye\r\n",
            _ => b"250 2.0.0 Ok\r\n",
        };
        stream.get_mut().write_all(reply)?;
        if reply.starts_with(b"354") {
            skip_message(&mut stream)?;
            counts.messages.fetch_add(1, Relaxed);
            stream.get_mut().write_all(b"250 2.0.0 Ok\r\n")?;
        }
    }
    Ok(())
}

fn await_line(socket: &mut TcpStream) -> io::Result<()> {
    let mut octet = [0];
    while octet[0] != b'\n' {
        socket.read_exact(&mut octet)?;
    }
    Ok(())
}

fn skip_message(stream: &mut impl io::BufRead) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if stream.read_until(b'\n', &mut line)? == 0 || line == b".\r\n" {
            return Ok(());
        }
    }
}
