//! Packets that read like a sentence: `syn().from("198.18.9.9").to("198.18.0.1", 25).tagged(10)`.
//!
//! Written out by hand from the RFCs, not with the gate's own code: two readings of the same headers.

use std::net::IpAddr;

/// Ethernet's type of a VLAN tag.
pub(crate) const VLAN: u16 = 0x8100;
/// Ethernet's type of an outer tag.
pub(crate) const QINQ: u16 = 0x88a8;

/// What a packet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carries {
    /// TCP with these flags.
    Tcp(u8),
    /// UDP.
    Udp,
    /// ICMP or ICMPv6 echo.
    Icmp,
    /// Some other protocol; the octets look like a SYN.
    Protocol(u8),
}

/// An IPv6 extension header: its number, and how many octets it has.
pub(crate) type Extension = (u8, usize);

/// A packet to be written out.
#[derive(Debug, Clone)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) port: u16,
    pub(crate) source_port: u16,
    pub(crate) carries: Carries,
    pub(crate) tags: Vec<u16>,
    pub(crate) ethertype: Option<u16>,
    /// Octets of IPv4 options; a multiple of 4.
    pub(crate) options: usize,
    /// IPv4 header length in words, if it shall lie.
    pub(crate) header_words: Option<u8>,
    pub(crate) extensions: Vec<Extension>,
    /// Routing header's segments left.
    pub(crate) segments_left: u8,
    /// Offset in units of 8 octets, and whether more follow.
    pub(crate) fragment: Option<(u16, bool)>,
    pub(crate) sequence: u32,
    pub(crate) acknowledged: u32,
    pub(crate) payload: usize,
    pub(crate) cut: Option<usize>,
}

/// A SYN, so far from nowhere to nowhere.
pub(crate) fn syn() -> Packet {
    tcp(0x02)
}

/// A segment with ACK.
pub(crate) fn ack() -> Packet {
    tcp(0x10)
}

/// A TCP segment with these flags.
pub(crate) fn tcp(flags: u8) -> Packet {
    Packet {
        source: [0, 0, 0, 0].into(),
        destination: [0, 0, 0, 0].into(),
        port: 0,
        source_port: 40_000,
        carries: Carries::Tcp(flags),
        tags: Vec::new(),
        ethertype: None,
        options: 0,
        header_words: None,
        extensions: Vec::new(),
        segments_left: 0,
        fragment: None,
        sequence: 0x0102_0304,
        acknowledged: 0,
        payload: 0,
        cut: None,
    }
}

/// A UDP datagram.
pub(crate) fn udp() -> Packet {
    Packet { carries: Carries::Udp, ..syn() }
}

/// An echo request.
pub(crate) fn icmp() -> Packet {
    Packet { carries: Carries::Icmp, ..syn() }
}

impl Packet {
    pub(crate) fn from(self, source: &str) -> Self {
        Self { source: source.parse().unwrap(), ..self }
    }

    pub(crate) fn to(self, destination: &str, port: u16) -> Self {
        Self { destination: destination.parse().unwrap(), port, ..self }
    }

    pub(crate) fn with_source_port(self, source_port: u16) -> Self {
        Self { source_port, ..self }
    }

    /// One more tag, inside those there are.
    pub(crate) fn tagged(mut self, kind: u16) -> Self {
        self.tags.push(kind);
        self
    }

    pub(crate) fn of_type(self, ethertype: u16) -> Self {
        Self { ethertype: Some(ethertype), ..self }
    }

    pub(crate) fn with_options(self, options: usize) -> Self {
        Self { options, ..self }
    }

    pub(crate) fn claiming_words(self, words: u8) -> Self {
        Self { header_words: Some(words), ..self }
    }

    /// One more extension header.
    pub(crate) fn behind(mut self, kind: u8, octets: usize) -> Self {
        self.extensions.push((kind, octets));
        self
    }

    pub(crate) fn with_segments_left(self, segments_left: u8) -> Self {
        Self { segments_left, ..self }
    }

    /// A fragment at this offset, in octets.
    pub(crate) fn fragment(self, offset: u16, more: bool) -> Self {
        Self { fragment: Some((offset / 8, more)), ..self }
    }

    pub(crate) fn carrying(self, protocol: u8) -> Self {
        Self { carries: Carries::Protocol(protocol), ..self }
    }

    pub(crate) fn with_payload(self, payload: usize) -> Self {
        Self { payload, ..self }
    }

    pub(crate) fn acknowledging(self, acknowledged: u32) -> Self {
        Self { acknowledged, ..self }
    }

    /// Only the first octets of it.
    pub(crate) fn cut_to(self, octets: usize) -> Self {
        Self { cut: Some(octets), ..self }
    }

    /// Offset of the IP header.
    pub(crate) fn ip_at(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    /// Octets up to the transport header.
    pub(crate) fn transport_at(&self) -> usize {
        let extensions: usize = self.extensions.iter().map(|(_, octets)| octets).sum();
        let fragment = if self.fragment.is_some() { 8 } else { 0 };
        self.ip_at() + if self.is_v4() { 20 + self.options } else { 40 + fragment + extensions }
    }

    pub(crate) fn is_v4(&self) -> bool {
        self.source.is_ipv4()
    }

    /// The frame. Never shorter than what BPF_PROG_TEST_RUN takes.
    pub(crate) fn octets(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for (number, kind) in (1u16..).zip(&self.tags) {
            frame.extend(kind.to_be_bytes());
            frame.extend((number * 10).to_be_bytes());
        }
        let own = if self.is_v4() { 0x0800u16 } else { 0x86dd };
        frame.extend(self.ethertype.unwrap_or(own).to_be_bytes());
        let transport = self.transport();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend(self.ipv4(source.octets(), destination.octets(), transport.len()));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend(self.ipv6(source.octets(), destination.octets(), transport.len()));
            }
            (source, destination) => panic!("{source} and {destination} do not go together"),
        }
        frame.extend(transport);
        frame.truncate(self.cut.unwrap_or(usize::MAX).max(14));
        frame
    }

    fn protocol(&self) -> u8 {
        match self.carries {
            Carries::Tcp(_) => 6,
            Carries::Udp => 17,
            Carries::Icmp if self.is_v4() => 1,
            Carries::Icmp => 58,
            Carries::Protocol(number) => number,
        }
    }

    fn ipv4(&self, source: [u8; 4], destination: [u8; 4], carried: usize) -> Vec<u8> {
        let words = self.header_words.unwrap_or(5 + u8::try_from(self.options / 4).unwrap());
        let total = u16::try_from(20 + self.options + carried).unwrap();
        let fragment = self.fragment.map_or(0x4000, |(offset, more)| offset | u16::from(more) << 13);
        let mut header = vec![0x40 | words & 0x0f, 0];
        header.extend(total.to_be_bytes());
        header.extend([0, 7]);
        header.extend(fragment.to_be_bytes());
        header.extend([61, self.protocol(), 0, 0]);
        header.extend(source);
        header.extend(destination);
        header.extend(std::iter::repeat_n(1, self.options));
        header
    }

    fn ipv6(&self, source: [u8; 16], destination: [u8; 16], carried: usize) -> Vec<u8> {
        // A fragment header stands behind the others.
        let mut chain = self.extensions.clone();
        chain.extend(self.fragment.map(|_| (44, 8)));
        let after = |at: usize| chain.get(at).map_or(self.protocol(), |(kind, _)| *kind);
        let mut extensions = Vec::new();
        for (at, (kind, octets)) in chain.iter().enumerate() {
            let mut header = vec![0; *octets];
            header[0] = after(at + 1);
            // RFC 4302: in words less two; RFC 8200: in units of eight octets less one.
            header[1] = u8::try_from(if *kind == 51 { octets / 4 - 2 } else { octets / 8 - 1 }).unwrap();
            if *kind == 43 {
                header[3] = self.segments_left;
            }
            if let (44, Some((offset, more))) = (*kind, self.fragment) {
                header[1] = 0;
                header[2..4].copy_from_slice(&(offset << 3 | u16::from(more)).to_be_bytes());
            }
            extensions.extend(header);
        }
        let mut header = vec![0x60, 0, 0, 0];
        header.extend(u16::try_from(extensions.len() + carried).unwrap().to_be_bytes());
        header.extend([after(0), 61]);
        header.extend(source);
        header.extend(destination);
        header.extend(extensions);
        header
    }

    fn transport(&self) -> Vec<u8> {
        let flags = if let Carries::Tcp(flags) = self.carries { flags } else { 2 };
        let mut octets = Vec::new();
        octets.extend(self.source_port.to_be_bytes());
        octets.extend(self.port.to_be_bytes());
        octets.extend(self.sequence.to_be_bytes());
        octets.extend(self.acknowledged.to_be_bytes());
        octets.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        octets.extend(std::iter::repeat_n(0xee, self.payload));
        octets
    }
}
