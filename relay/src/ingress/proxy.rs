//! The PROXY protocol header, versions 1 and 2 (haproxy's proxy-protocol.txt), read strictly.
//!
//! Pure: octets in, a verdict out. A connection from a listed network must open with a whole and valid header;
//! presence is never guessed, and whatever is not exactly a header closes the connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What the octets so far amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// A valid beginning; more is needed.
    Partial,
    /// A whole header of so many octets.
    Whole {
        /// Octets of the header.
        octets: usize,
        /// The client it names; `None` for LOCAL, UNKNOWN and address families other than TCP over IP: the peer itself.
        client: Option<SocketAddr>,
    },
    /// Not a header.
    Invalid,
}

/// Longest version 1 header, CRLF included.
const V1_OCTETS_MAX: usize = 107;
const V2_SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED_OCTETS: usize = 16;
/// Longest version 2 header that is taken, its TLVs included: it must fit the first receive.
const V2_OCTETS_MAX: usize = 2048;

/// Reads the header at the start of a connection.
#[must_use]
pub fn read(input: &[u8]) -> Header {
    let signature = &V2_SIGNATURE[..V2_SIGNATURE.len().min(input.len())];
    if input.starts_with(signature) {
        return if input.len() < V2_FIXED_OCTETS { Header::Partial } else { read_v2(input) };
    }
    read_v1(input)
}

fn read_v1(input: &[u8]) -> Header {
    let line = &input[..input.len().min(V1_OCTETS_MAX)];
    let Some(end) = memchr::memchr(b'\n', line) else {
        let prefix = &b"PROXY "[..line.len().min(6)];
        let possible = input.len() < V1_OCTETS_MAX && line.starts_with(prefix);
        return if possible { Header::Partial } else { Header::Invalid };
    };
    let text = line[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok());
    match text.and_then(|text| text.strip_prefix("PROXY ")).map(v1_client) {
        Some(Ok(client)) => Header::Whole { octets: end + 1, client },
        _ => Header::Invalid,
    }
}

fn v1_client(text: &str) -> Result<Option<SocketAddr>, ()> {
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Ok(None);
    }
    let fields: Vec<&str> = text.split(' ').collect();
    let [family, source, destination, source_port, destination_port] = fields[..] else { return Err(()) };
    let parse: fn(&str) -> Option<IpAddr> = match family {
        "TCP4" => |text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "TCP6" => |text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => return Err(()),
    };
    let source = parse(source).ok_or(())?;
    parse(destination).ok_or(())?;
    port(destination_port)?;
    Ok(Some(SocketAddr::new(source, port(source_port)?)))
}

/// A decimal port without sign or leading zero.
fn port(text: &str) -> Result<u16, ()> {
    let plain = text.bytes().all(|octet| octet.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().map_err(|_error| ()) } else { Err(()) }
}

fn read_v2(input: &[u8]) -> Header {
    let (version, command) = (input[12] >> 4, input[12] & 15);
    let (family, length) = (input[13], usize::from(u16::from_be_bytes([input[14], input[15]])));
    let octets = V2_FIXED_OCTETS + length;
    if version != 2 || command > 1 || octets > V2_OCTETS_MAX {
        return Header::Invalid;
    }
    let Some(body) = input.get(V2_FIXED_OCTETS..octets) else { return Header::Partial };
    let addresses = match family {
        0x11 => 12,
        0x21 => 36,
        // Unspecified, UDP and Unix sockets carry no client that could be judged.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => 0,
        _ => return Header::Invalid,
    };
    if body.len() < addresses || !tlvs_fit(&body[addresses..], family) {
        return Header::Invalid;
    }
    let client = if command == 0 { None } else { v2_client(family, body) };
    Header::Whole { octets, client }
}

fn v2_client(family: u8, body: &[u8]) -> Option<SocketAddr> {
    match family {
        0x11 => {
            let address = Ipv4Addr::from(<[u8; 4]>::try_from(body.get(..4)?).ok()?);
            Some(SocketAddr::new(address.into(), u16::from_be_bytes([*body.get(8)?, *body.get(9)?])))
        }
        0x21 => {
            let address = Ipv6Addr::from(<[u8; 16]>::try_from(body.get(..16)?).ok()?);
            Some(SocketAddr::new(address.into(), u16::from_be_bytes([*body.get(32)?, *body.get(33)?])))
        }
        _ => None,
    }
}

/// TLVs are skipped, but they must lie within the header. Only TCP families have them at a known place.
fn tlvs_fit(mut rest: &[u8], family: u8) -> bool {
    if !matches!(family, 0x11 | 0x21) {
        return true;
    }
    while !rest.is_empty() {
        let [_kind, high, low, value @ ..] = rest else { return false };
        let Some(next) = value.get(usize::from(u16::from_be_bytes([*high, *low]))..) else { return false };
        rest = next;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&V2_SIGNATURE[..], &[command, family], &length, body].concat()
    }

    #[test]
    fn takes_what_the_specification_allows() {
        let whole = |octets, client| Header::Whole { octets, client };
        let v4 = b"PROXY TCP4 198.18.0.1 198.18.0.2 56324 25\r\nEHLO x\r\n";
        assert_eq!(read(v4), whole(43, client("198.18.0.1:56324")));
        let v6 = b"PROXY TCP6 2001:db8::1 2001:db8::2 1 25\r\n";
        assert_eq!(read(v6), whole(v6.len(), client("[2001:db8::1]:1")));
        assert_eq!(read(b"PROXY UNKNOWN\r\n"), whole(15, None));
        assert_eq!(read(b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n"), whole(43, None));
        let addresses = [198, 18, 0, 1, 198, 18, 0, 2, 0xdc, 4, 0, 25];
        assert_eq!(read(&v2(0x21, 0x11, &addresses)), whole(28, client("198.18.0.1:56324")));
        let with_tlv = [&addresses[..], &[3, 0, 4, 1, 2, 3, 4]].concat();
        assert_eq!(read(&v2(0x21, 0x11, &with_tlv)), whole(35, client("198.18.0.1:56324")));
        assert_eq!(read(&v2(0x20, 0x00, &[])), whole(16, None));
        assert_eq!(read(&v2(0x20, 0x11, &addresses)), whole(28, None));
    }

    #[test]
    fn refuses_everything_else() {
        for line in [
            "PROXY TCP4 198.18.0.1 198.18.0.2 056324 25\r\n",
            "PROXY TCP4 198.18.0.1  198.18.0.2 5 25\r\n",
            "PROXY TCP4 2001:db8::1 2001:db8::2 5 25\r\n",
            "PROXY TCP4 198.18.0.1 198.18.0.2 5 65536\r\n",
            "PROXY TCP4 198.18.0.1 198.18.0.2 5 25\n",
            "PROXY TCP4 198.18.0.1 198.18.0.2 5 +25\r\n",
            "PROXY UDP4 198.18.0.1 198.18.0.2 5 25\r\n",
            "PROXY\r\n",
            "EHLO x\r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            assert_eq!(read(line.as_bytes()), Header::Invalid, "{line:?}");
        }
        assert_eq!(read(&[b'P'; 107]), Header::Invalid);
        assert_eq!(read(format!("PROXY TCP4 {}", " ".repeat(120)).as_bytes()), Header::Invalid);
        assert_eq!(read(&v2(0x11, 0x11, &[0; 12])), Header::Invalid, "version 1 in a version 2 header");
        assert_eq!(read(&v2(0x22, 0x11, &[0; 12])), Header::Invalid, "unknown command");
        assert_eq!(read(&v2(0x21, 0x11, &[0; 11])), Header::Invalid, "short addresses");
        assert_eq!(read(&v2(0x21, 0x11, &[0; 14])), Header::Invalid, "a TLV that overruns");
        assert_eq!(read(&v2(0x21, 0x41, &[])), Header::Invalid, "unknown family");
        assert_eq!(read(&v2(0x21, 0x11, &[0; 65_535])), Header::Invalid, "more TLVs than are taken");
    }

    #[test]
    fn every_prefix_of_a_header_asks_for_more() {
        let v1 = b"PROXY TCP4 198.18.0.1 198.18.0.2 56324 25\r\n".to_vec();
        for header in [v1, v2(0x21, 0x11, &[1; 12])] {
            for cut in 0..header.len() {
                assert_eq!(read(&header[..cut]), Header::Partial, "{cut} octets");
            }
        }
    }
}
