//! From text to networks, sockets, host names and mail addresses. Pure; no name is ever looked up here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::values::{Wrong, whole};
use crate::egress::config::{UpstreamAddress, UpstreamHost};
use crate::limits::{DOMAIN_OCTETS_MAX, LOCAL_PART_OCTETS_MAX};
use crate::policy::acl::canonical_net;

/// A network or a single address; IPv6 may stand in brackets, as Postfix writes it. IPv4 networks written as
/// IPv4-mapped IPv6 are taken for what they are.
pub(super) fn network(text: &str) -> Result<IpNet, Wrong> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix)),
        None => (text, None),
    };
    let bracketed = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address: IpAddr = match bracketed {
        Some(inner) => IpAddr::V6(inner.parse::<Ipv6Addr>().map_err(|_| Wrong::default())?),
        None => address.parse().map_err(|_| Wrong::default())?,
    };
    let bits: u8 = if address.is_ipv4() { 32 } else { 128 };
    let prefix = match prefix {
        Some(prefix) => whole::<u8>(prefix)?,
        None => bits,
    };
    let net = IpNet::new(address, prefix)
        .map_err(|_| Wrong::because(format!("the part after the slash is at most {bits} here")))?;
    if net.trunc() != net {
        return Err(Wrong::because(format!(
            "bits are set right of the prefix: perhaps {} is meant",
            net.trunc()
        )));
    }
    Ok(canonical_net(net))
}

/// The networks of the host itself: they may always relay.
pub(super) fn loopback() -> [IpNet; 2] {
    let v4 = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
    let v6 = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);
    [IpNet::V4(v4), IpNet::V6(v6)]
}

/// `0.0.0.0:25`, `[::]:25`; port 0 is any free one.
pub(super) fn listen(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(_) => Wrong::because("the port is missing"),
        Err(_) => Wrong::default(),
    })
}

/// `192.0.2.53`, `192.0.2.53:5353`, `2001:db8::53`, `[2001:db8::53]:53`.
pub(super) fn name_server(text: &str) -> Result<SocketAddr, Wrong> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    match (bare.parse::<IpAddr>(), text.parse::<SocketAddr>()) {
        (Ok(address), _) => Ok(SocketAddr::new(address, 53)),
        (_, Ok(socket)) if socket.port() != 0 => Ok(socket),
        _ => Err(Wrong::default()),
    }
}

/// One entry of `EXT_RELAY_HOST`: `name`, `[name]`, an address literal, each with or without `:port`.
pub(super) fn upstream(text: &str, port: u16) -> Result<UpstreamAddress, Wrong> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(UpstreamAddress { host: UpstreamHost::Address(address), port });
    }
    let (host, rest) = match text.strip_prefix('[') {
        Some(inner) => {
            let (inside, rest) = inner.split_once(']').ok_or_else(|| Wrong::because("the ] is missing"))?;
            (literal(inside)?, rest)
        }
        None => {
            let end = text.find(':').unwrap_or(text.len());
            let (name, rest) = text.split_at(end);
            (
                name.parse().map(UpstreamHost::Address).or_else(|_| host_name(name).map(UpstreamHost::Mx))?,
                rest,
            )
        }
    };
    let port = match rest.strip_prefix(':') {
        Some(digits) => upstream_port(digits)?,
        None if rest.is_empty() => port,
        None => return Err(Wrong::default()),
    };
    Ok(UpstreamAddress { host, port })
}

fn literal(inside: &str) -> Result<UpstreamHost, Wrong> {
    let bare = inside.strip_prefix("IPv6:").unwrap_or(inside);
    bare.parse().map(UpstreamHost::Address).or_else(|_| host_name(inside).map(UpstreamHost::Host))
}

fn upstream_port(digits: &str) -> Result<u16, Wrong> {
    match whole(digits) {
        Ok(0) | Err(_) => Err(Wrong::because("a port is a number from 1 to 65535")),
        Ok(port) => Ok(port),
    }
}

/// A host name (RFC 5321 §4.1.2, and underscores, which the DNS knows); a closing dot is dropped, case is kept.
pub(super) fn host_name(text: &str) -> Result<Arc<str>, Wrong> {
    let name = text.strip_suffix('.').unwrap_or(text);
    let labels_fit = name.split('.').all(is_label);
    // Digits and dots alone are a mistyped address, never a name.
    let is_numeric = name.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.');
    if name.len() > DOMAIN_OCTETS_MAX || !labels_fit || (is_numeric && name.contains('.')) {
        return Err(Wrong::default());
    }
    Ok(Arc::from(name))
}

fn is_label(label: &str) -> bool {
    let octets = label.as_bytes();
    let edge = |octet: Option<&u8>| octet.is_some_and(|o| o.is_ascii_alphanumeric() || *o == b'_');
    octets.len() <= 63
        && edge(octets.first())
        && edge(octets.last())
        && octets.iter().all(|o| o.is_ascii_alphanumeric() || matches!(o, b'-' | b'_'))
}

/// `local@domain`. Quoted local parts are not taken: blanks and commas part the items of a list.
pub(super) fn mail_address(text: &str) -> Result<String, Wrong> {
    let (local, domain) = text.rsplit_once('@').ok_or_else(Wrong::default)?;
    let local_fits = (1..=LOCAL_PART_OCTETS_MAX).contains(&local.len())
        && !local.chars().any(|c| c.is_control() || c.is_whitespace() || "<>()[]\\\",;:@".contains(c));
    if !local_fits {
        return Err(Wrong::default());
    }
    domain_of_address(domain).map(|()| text.to_owned())
}

/// `local@domain`, `@domain`, or `<>` for the null reverse-path.
pub(super) fn address_pattern(text: &str) -> Result<String, Wrong> {
    match text.strip_prefix('@') {
        Some(domain) => domain_of_address(domain).map(|()| text.to_owned()),
        None if text == "<>" => Ok(text.to_owned()),
        None if !text.contains('@') => Err(Wrong::because(format!("perhaps @{text} is meant"))),
        None => mail_address(text),
    }
}

/// ASCII as a host name, or internationalised (RFC 6531 §3.3): then only length and shape are looked at.
fn domain_of_address(domain: &str) -> Result<(), Wrong> {
    if domain.is_ascii() {
        return host_name(domain).map(|_| ());
    }
    let fits = domain.len() <= DOMAIN_OCTETS_MAX
        && domain.split('.').all(|label| !label.is_empty())
        && !domain.chars().any(|c| c.is_control() || c.is_whitespace());
    fits.then_some(()).ok_or_else(Wrong::default)
}

/// The name of a network interface: at most 15 octets, no slash, no blank (Linux, `dev_valid_name`).
pub(super) fn interface(text: &str) -> Result<String, Wrong> {
    let fits = (1..=15).contains(&text.len())
        && text != "."
        && text != ".."
        && text.bytes().all(|octet| octet.is_ascii_graphic() && !matches!(octet, b'/' | b':'));
    fits.then(|| text.to_owned()).ok_or_else(Wrong::default)
}
