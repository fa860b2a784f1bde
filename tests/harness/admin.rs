//! The admin port: a GET and the reading of metrics. It must not need an HTTP library.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::wait::PATIENCE;

/// What the admin port answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Everything after the header section.
    pub body: String,
}

/// Asks for a path.
///
/// # Panics
/// When nobody listens or the answer is no HTTP.
#[track_caller]
pub fn get(address: SocketAddr, path: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("the admin port listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text until it closes");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a header section");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer { status: status.expect("a status"), body: body.to_owned() }
}

/// The value of a sample in Prometheus text, by its whole name and labels.
pub fn sample(metrics: &str, sample: &str) -> Option<f64> {
    let found = metrics.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '))?;
    found.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_samples_by_their_whole_name() {
        let metrics = "# TYPE a counter\na_total{x=\"1\"} 2\na_total 3\n";
        assert_eq!(sample(metrics, "a_total"), Some(3.0));
        assert_eq!(sample(metrics, "a_total{x=\"1\"}"), Some(2.0));
        assert_eq!(sample(metrics, "a"), None);
    }
}
