//! HTTPS for the control plane: the few questions that mail needs the web for. One request, one connection.
//!
//! MTA-STS policies (RFC 8461) and access tokens (RFC 6749) are fetched here. Every wait and every answer is bounded, a
//! redirection is an answer like any other and never followed (RFC 8461 §3.3), and the certificate must be a trusted
//! one for the host's name. Names are resolved by whoever asks.
//!
//! It must not be used by a worker, nor log what it sends: a form may hold secrets.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use secrecy::zeroize::Zeroizing;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::limits::{HTTPS_OCTETS_MAX, HTTPS_TIMEOUT};
use crate::tls::client::web;
use crate::tls::rule::Authorities;

/// An `https://` address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The host's name or address, as its certificate must have it.
    pub host: Arc<str>,
    /// The port; 443 where none is written.
    pub port: u16,
    /// Path and query.
    pub path: Arc<str>,
}

impl Location {
    /// Reads an address; `None` for what is none, has another scheme, or a user in it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if uri.scheme_str() != Some("https") || host.is_empty() {
            return None;
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        Some(Self { host: host.into(), port: authority.port_u16().unwrap_or(HTTPS_PORT), path: path.into() })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}:{}{}", self.host, self.port, self.path)
    }
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status, 200 for what was asked for.
    pub status: u16,
    /// The media type, in lower case, without parameters.
    pub media_type: String,
    /// The content, at most `limits::HTTPS_OCTETS_MAX` octets; wiped when it goes.
    pub body: Zeroizing<Vec<u8>>,
}

/// Why there is no answer, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(pub String);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Asks for what stands at a location: the first address that answers at all is believed.
///
/// With a form it is a POST of that form (RFC 6749 §3.2), else a GET.
///
/// # Errors
/// Why there is no answer, of each address.
pub async fn ask(
    location: &Location,
    addresses: &[SocketAddr],
    authorities: &Arc<Authorities>,
    form: Option<&str>,
) -> Result<Answer, Fault> {
    let mut faults = Vec::new();
    for address in addresses {
        let attempt = timeout(HTTPS_TIMEOUT, ask_one(location, *address, authorities, form)).await;
        match attempt.unwrap_or_else(|_elapsed| Err(io::Error::from(io::ErrorKind::TimedOut).into())) {
            Ok(answer) => return Ok(answer),
            Err(error) => faults.push(format!("{location} at {address}: {error}")),
        }
    }
    if faults.is_empty() {
        faults.push(format!("{location}: the host has no address"));
    }
    Err(Fault(faults.join("; ")))
}

type Error = Box<dyn std::error::Error + Send + Sync>;

async fn ask_one(
    location: &Location,
    address: SocketAddr,
    authorities: &Arc<Authorities>,
    form: Option<&str>,
) -> Result<Answer, Error> {
    let request = request(location, form)?;
    let config = web(&location.host, authorities).map_err(|fault| fault.to_string())?;
    let name = ServerName::try_from(location.host.to_string())?;
    let stream = TcpStream::connect(address).await?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the connection, which ends with this function.
    let driver = tokio::spawn(connection);
    let answer = async { answer(sender.send_request(request).await?).await }.await;
    driver.abort();
    answer
}

fn request(location: &Location, form: Option<&str>) -> Result<Request<Full<Bytes>>, Error> {
    let host = match (location.host.contains(':'), location.port) {
        (true, port) => format!("[{}]:{port}", location.host),
        (false, HTTPS_PORT) => location.host.to_string(),
        (false, port) => format!("{}:{port}", location.host),
    };
    let request = Request::builder().uri(&*location.path).header(HOST, host).header(ACCEPT, "*/*");
    Ok(match form {
        Some(form) => request
            .method(Method::POST)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::copy_from_slice(form.as_bytes())))?,
        None => request.body(Full::default())?,
    })
}

async fn answer(response: Response<hyper::body::Incoming>) -> Result<Answer, Error> {
    let status = response.status().as_u16();
    let media_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.unwrap_or_default().split(';').next().unwrap_or_default();
    let media_type = media_type.trim().to_ascii_lowercase();
    let body = Limited::new(response.into_body(), HTTPS_OCTETS_MAX).collect().await?.to_bytes();
    Ok(Answer { status, media_type, body: Zeroizing::new(body.to_vec()) })
}

/// A value within a form (RFC 6749 appendix B).
#[must_use]
pub fn encoded(text: &str) -> Zeroizing<String> {
    let mut encoded = Zeroizing::new(String::with_capacity(text.len() * 3));
    for octet in text.bytes() {
        match octet {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'*' => {
                encoded.push(char::from(octet));
            }
            b' ' => encoded.push('+'),
            _ => {
                encoded.push('%');
                let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
                encoded.push(digit(octet >> 4).to_ascii_uppercase());
                encoded.push(digit(octet & 15).to_ascii_uppercase());
            }
        }
    }
    encoded
}

const HTTPS_PORT: u16 = 443;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_https_and_nothing_else() {
        let location = Location::parse("https://Login.example:8443/oauth/token?x=1").unwrap();
        assert_eq!(
            (&*location.host, location.port, &*location.path),
            ("Login.example", 8443, "/oauth/token?x=1")
        );
        assert_eq!(Location::parse("https://a.example").unwrap().to_string(), "https://a.example:443/");
        assert_eq!(&*Location::parse("https://[2001:db8::1]:4/t").unwrap().host, "2001:db8::1");
        for wrong in
            ["http://a.example/", "a.example", "https://", "https:///x", "https://u:p@a.example/", ""]
        {
            assert_eq!(Location::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_form_carries_any_text() {
        assert_eq!(*encoded("1//a b&c=ü*"), "1%2F%2Fa+b%26c%3D%C3%BC*");
    }

    #[test]
    fn a_request_says_whom_it_is_for() {
        let get = request(&Location::parse("https://a.example/p").unwrap(), None).unwrap();
        assert_eq!(
            (get.method(), get.uri().path(), &get.headers()[HOST]),
            (&Method::GET, "/p", &"a.example".parse().unwrap())
        );
        let post = request(&Location::parse("https://[::1]:444/p").unwrap(), Some("a=b")).unwrap();
        assert_eq!((post.method(), &post.headers()[HOST]), (&Method::POST, &"[::1]:444".parse().unwrap()));
    }
}
