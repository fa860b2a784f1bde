//! What interfaces and addresses this network namespace has, and hearing when that changes: route netlink.
//!
//! Not /sys/class/net, which shows the namespace it was mounted in. It only reads; it must not configure anything.
#![allow(unsafe_code, reason = "netlink sockets are not in std")]

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::host::{Address, Host, Interface};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
const RTMGRP_LINK: u32 = 1;
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;

const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const ARPHRD_ETHER: u16 = 1;
const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;

const HEADER_OCTETS: usize = 16;
const RECEIVE_OCTETS: usize = 64 * 1024;

/// Reads all interfaces and addresses.
///
/// # Errors
/// The kernel's, and what it writes that cannot be read.
pub fn host() -> io::Result<Host> {
    let socket = open(0)?;
    let mut host = Host::default();
    dump(&socket, RTM_GETLINK, |kind, body| {
        if kind == RTM_NEWLINK {
            host.interfaces.extend(interface(body));
        }
    })?;
    dump(&socket, RTM_GETADDR, |kind, body| {
        if kind == RTM_NEWADDR {
            host.addresses.extend(address(body));
        }
    })?;
    Ok(host)
}

/// Hears when interfaces or addresses change. Which ones it does not tell: read [`host`] again.
#[derive(Debug)]
pub struct Changes(OwnedFd);

impl Changes {
    /// Listens from now on.
    ///
    /// # Errors
    /// The kernel's.
    pub fn listen() -> io::Result<Self> {
        open(RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR).map(Self)
    }

    /// Whether anything changed since the last call. Does not wait. What was lost for want of room is a change too.
    #[must_use]
    pub fn drain(&self) -> bool {
        let mut changed = false;
        let mut buffer = vec![0; RECEIVE_OCTETS];
        loop {
            match receive(&self.0, &mut buffer, libc::MSG_DONTWAIT) {
                Ok(0) => return changed,
                Ok(_) => changed = true,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => changed = true,
                Err(_) => return changed,
            }
        }
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[allow(clippy::cast_possible_truncation, reason = "16 and the size of a small struct")]
fn open(groups: u32) -> io::Result<OwnedFd> {
    // SAFETY: numbers in, a descriptor or -1 out.
    let fd =
        unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_ROUTE) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, for us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: zero is a value of this plain struct.
    let mut name: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    name.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    name.nl_groups = groups;
    // SAFETY: the name is live and of the size given.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const name).cast(),
            size_of::<libc::sockaddr_nl>() as libc::socklen_t,
        )
    };
    if bound == 0 { Ok(socket) } else { Err(io::Error::last_os_error()) }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8], flags: libc::c_int) -> io::Result<usize> {
    // SAFETY: the buffer is live and of the length given.
    let got = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// Asks for everything of one kind and hands out the messages.
fn dump(socket: &OwnedFd, kind: u16, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
    // Header (length, type, flags, sequence, port), then an empty `struct ifinfomsg`, which is no shorter than
    // an `ifaddrmsg`.
    let mut request = [0u8; 32];
    request[0..4].copy_from_slice(&32u32.to_ne_bytes());
    request[4..6].copy_from_slice(&kind.to_ne_bytes());
    request[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // SAFETY: the request is live and of the length given.
    let sent = unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut buffer = vec![0; RECEIVE_OCTETS];
    loop {
        let got = receive(socket, &mut buffer, 0)?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (kind, body) in messages(&buffer[..got]) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let code = number(body).map_or(libc::EPROTO, |code| code.cast_signed().saturating_neg());
                    return Err(io::Error::from_raw_os_error(code));
                }
                kind => each(kind, body),
            }
        }
    }
}

/// The messages of one datagram: type and body.
fn messages(mut octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = number(octets)? as usize;
        let kind = u16::from_ne_bytes([*octets.get(4)?, *octets.get(5)?]);
        let body = octets.get(HEADER_OCTETS..length)?;
        octets = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// The attributes from `octets` on: type and value.
fn attributes(mut octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes([*octets.first()?, *octets.get(1)?]));
        let kind = u16::from_ne_bytes([*octets.get(2)?, *octets.get(3)?]) & 0x3fff;
        let value = octets.get(4..length)?;
        octets = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn number(octets: &[u8]) -> Option<u32> {
    octets.first_chunk().map(|four| u32::from_ne_bytes(*four))
}

fn text(octets: &[u8]) -> String {
    let end = octets.iter().position(|octet| *octet == 0).unwrap_or(octets.len());
    String::from_utf8_lossy(&octets[..end]).into_owned()
}

/// `struct ifinfomsg`: family, pad, type (2), index (4), flags (4), change (4); then attributes.
fn interface(body: &[u8]) -> Option<Interface> {
    let hardware = u16::from_ne_bytes([*body.get(2)?, *body.get(3)?]);
    let flags = number(body.get(8..)?)?;
    let mut interface = Interface {
        index: number(body.get(4..)?)?,
        is_up: flags & IFF_UP != 0,
        is_loopback: flags & IFF_LOOPBACK != 0,
        is_ethernet: hardware == ARPHRD_ETHER,
        ..Interface::default()
    };
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            IFLA_IFNAME => interface.name = text(value),
            IFLA_MTU => interface.mtu = number(value)?,
            IFLA_LINK => interface.parent = number(value),
            IFLA_MASTER => interface.master = number(value),
            IFLA_LINKINFO => {
                let mut info = attributes(value);
                interface.kind = info.find(|(kind, _)| *kind == IFLA_INFO_KIND).map(|(_, value)| text(value));
            }
            _ => {}
        }
    }
    Some(interface)
}

/// `struct ifaddrmsg`: family, prefix length, flags, scope, index (4); then attributes. On a point-to-point
/// interface IFA_ADDRESS is the other end; IFA_LOCAL is ours.
fn address(body: &[u8]) -> Option<Address> {
    let interface = number(body.get(4..)?)?;
    let value =
        |wanted: u16| attributes(body.get(8..)?).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let octets = value(IFA_LOCAL).or_else(|| value(IFA_ADDRESS))?;
    let address = match octets.len() {
        4 => IpAddr::from(*octets.first_chunk::<4>()?),
        16 => IpAddr::from(*octets.first_chunk::<16>()?),
        _ => return None,
    };
    Some(Address { interface, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_loopback_as_the_kernel_shows_it() {
        let host = host().unwrap();
        let lo = host.interfaces.iter().find(|interface| interface.is_loopback).unwrap();
        assert_eq!((lo.name.as_str(), lo.kind.as_deref()), ("lo", None));
        assert!(lo.index > 0 && lo.mtu > 0 && !lo.is_ethernet);
        let of_lo = host.addresses.iter().filter(|address| address.interface == lo.index);
        assert!(!lo.is_up || of_lo.map(|address| address.address).any(|address| address.is_loopback()));
    }

    #[test]
    fn cut_short_messages_end_the_walk() {
        let mut message = vec![24u8, 0, 0, 0, 16, 0, 0, 0];
        message.resize(24, 0);
        assert_eq!(messages(&message).count(), 1);
        for length in 0..24 {
            assert_eq!(messages(&message[..length]).count(), 0, "{length}");
        }
        assert_eq!(attributes(&[8, 0, 3, 0, b'l', b'o', 0]).count(), 0);
        assert_eq!(attributes(&[3, 0, 3, 0]).count(), 0);
    }
}
