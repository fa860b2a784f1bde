//! Two ends in memory: every cut, every change, every size.

use proptest::prelude::*;

use super::*;
use crate::tls::client::Connector;
use crate::tls::client::Demand;
use crate::tls::config::{Config, Level, Version};
use crate::tls::rule::Rule;
use crate::tls::server::{Acceptor, Tickets};

/// Both ends, and how many octets of each flight are given to the other at once.
struct Pair {
    client: Records,
    server: Records,
    cut: usize,
}

/// A flight on its way is changed by this: it gets the place in all octets so far, and the octet.
type Change<'a> = &'a mut dyn FnMut(u8) -> u8;

fn pair(oldest: Version, cut: usize) -> Pair {
    thread_local! {
        static READY: (Arc<Acceptor>, Connector) = {
            let folder = tempfile::tempdir().unwrap();
            let config = Config {
                relay_host_name: "relay.example".into(),
                certificate: None,
                state_dir: folder.path().to_owned(),
                incoming_min: Version::Tls12,
                upstream_level: Level::May,
                upstream_tls_only: false,
                upstream_fingerprints: Vec::new(),
                upstream_ca: None,
            };
            let acceptor = Acceptor::load(&config, &Tickets::new().unwrap()).unwrap();
            (acceptor, Connector::new(&Demand::none()))
        };
    }
    READY.with(|(acceptor, connector)| {
        let client = match oldest {
            Version::Tls13 => connector.begin(&Rule::Any, "relay.example").unwrap(),
            Version::Tls12 => only_tls_1_2(),
        };
        let server = Records::server(acceptor.config(crate::meter::Listener::Smtp)).unwrap();
        Pair { client, server, cut }
    })
}

fn only_tls_1_2() -> Records {
    use crate::tls::rule::Verifier;
    let provider = crate::tls::server::provider();
    let algorithms = provider.signature_verification_algorithms;
    let verifier = Verifier::new(Rule::Any, Arc::default(), algorithms);
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Records::client(Arc::new(config), "relay.example".try_into().unwrap()).unwrap()
}

/// Turns one end until it wants octets, and gives what it owes.
fn settle(end: &mut Records) -> (Vec<u8>, Result<Turn, Fault>) {
    loop {
        match end.turn() {
            Ok(Turn::Moved) => {}
            result => return (end.take_owed(), result),
        }
    }
}

/// Gives octets to an end, piece by piece; what it answers comes back.
fn give(end: &mut Records, octets: &[u8], cut: usize) -> (Vec<u8>, Result<Turn, Fault>) {
    let mut answer = Vec::new();
    let mut result = Ok(Turn::NeedsOctets);
    for mut piece in octets.chunks(cut.max(1)) {
        while !piece.is_empty() {
            let mut buffer = end.refill(None);
            let fitted = buffer.append(piece);
            assert!(fitted > 0, "there is room for the record that has begun");
            piece = &piece[fitted..];
            end.received(buffer);
            let owed;
            (owed, result) = settle(end);
            answer.extend(owed);
            if result.is_err() {
                return (answer, result);
            }
        }
    }
    (answer, result)
}

impl Pair {
    /// Does the handshake; the octets of either side pass through `change`.
    fn shake_hands(&mut self, change: Change<'_>) -> Result<(), Fault> {
        let (mut flight, first) = settle(&mut self.client);
        first?;
        for _ in 0..10 {
            flight.iter_mut().for_each(|octet| *octet = change(*octet));
            let (mut back, result) = give(&mut self.server, &flight, self.cut);
            back.iter_mut().for_each(|octet| *octet = change(*octet));
            let (next, other) = give(&mut self.client, &back, self.cut);
            result?;
            other?;
            flight = next;
            if flight.is_empty() {
                break;
            }
        }
        Ok(())
    }
}

fn sealed(end: &mut Records, slices: &[Vec<u8>], close: bool) -> Vec<u8> {
    let mut flight = Flight::default();
    let octets = slices.iter().map(Vec::len).sum();
    end.seal(slices.iter().map(Vec::as_slice), octets, close, &mut flight).unwrap();
    flight.remaining().flatten().copied().collect()
}

/// Everything that an end makes of octets, read into buffers of this size.
fn opened(end: &mut Records, octets: &[u8], cut: usize, size: Size) -> Vec<u8> {
    let mut all = Vec::new();
    for mut piece in octets.chunks(cut.max(1)) {
        while !piece.is_empty() {
            let mut buffer = end.refill(None);
            let fitted = buffer.append(piece);
            piece = &piece[fitted..];
            end.received(buffer);
            loop {
                let mut into = Buffer::take(size);
                end.open(&mut into).unwrap();
                if into.filled().is_empty() {
                    break;
                }
                all.extend_from_slice(into.filled());
            }
        }
    }
    all
}

#[test]
fn hands_are_shaken_in_either_version_whatever_the_cut() {
    for (oldest, version) in [(Version::Tls12, "TLSv1.2"), (Version::Tls13, "TLSv1.3")] {
        for cut in [1, 7, 4096, 100_000] {
            let mut pair = pair(oldest, cut);
            pair.shake_hands(&mut |octet| octet).unwrap();
            let agreed = pair.client.agreed().unwrap();
            assert_eq!(agreed.version, version);
            assert_eq!(pair.server.agreed().unwrap().cipher, agreed.cipher);
            assert_eq!(pair.client.peer_certificates().len(), 1);
            assert!(!pair.client.holds_octets() && !pair.server.holds_octets(), "idle ends hold no buffer");
        }
    }
}

#[test]
fn an_end_that_is_said_is_told_from_one_that_is_not() {
    let mut pair = pair(Version::Tls13, 4096);
    pair.shake_hands(&mut |octet| octet).unwrap();
    let last = sealed(&mut pair.server, &[b"221 Bye\r\n".to_vec()], true);
    assert_eq!(opened(&mut pair.client, &last, 4096, Size::Command), b"221 Bye\r\n");
    assert!(pair.client.has_ended());
    // What comes behind is not looked at, sealed or not.
    pair.client.has_ended = true;
    for behind in [&last[..], b"250 evil\r\n"] {
        assert_eq!(opened(&mut pair.client, behind, 4096, Size::Command), b"");
    }
}

#[test]
fn many_small_slices_become_few_records() {
    let mut pair = pair(Version::Tls13, 4096);
    pair.shake_hands(&mut |octet| octet).unwrap();
    let slices = vec![b"0123456789abcdef".to_vec(); 2048];
    let octets = sealed(&mut pair.client, &slices, false);
    let overhead = octets.len() - 2048 * 16;
    assert!(overhead < 3 * RECORD_OVERHEAD_OCTETS_MAX / 4, "{overhead} octets of overhead for two records");
    assert_eq!(opened(&mut pair.server, &octets, 4096, Size::Body), slices.concat());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_sealed_is_opened_whatever_the_sizes(
        sizes in prop::collection::vec(0usize..40_000, 0..6),
        cut in 1usize..70_000,
        size in prop::sample::select(vec![Size::Command, Size::BodyFirst, Size::Body]),
        close in any::<bool>(),
    ) {
        let mut pair = pair(Version::Tls13, 4096);
        pair.shake_hands(&mut |octet| octet).unwrap();
        let slices: Vec<Vec<u8>> =
            sizes.iter().map(|&octets| (0..octets).map(|at| at.to_le_bytes()[0]).collect()).collect();
        for _ in 0..2 {
            if pair.server.has_ended() {
                break;
            }
            let wire = sealed(&mut pair.client, &slices, close);
            prop_assert_eq!(opened(&mut pair.server, &wire, cut, size), slices.concat());
            prop_assert_eq!(pair.server.has_ended(), close);
            prop_assert!(!pair.server.holds_octets());
        }
    }

    /// The build that serves ends at a panic: nothing that a peer sends may cause one.
    #[test]
    fn no_change_of_an_octet_panics(
        at in 0usize..6000,
        with in 1u8..,
        cut in prop::sample::select(vec![1usize, 5, 300, 100_000]),
        is_old in any::<bool>(),
    ) {
        let mut pair = pair(if is_old { Version::Tls12 } else { Version::Tls13 }, cut);
        let mut seen = 0;
        let result = pair.shake_hands(&mut |octet| {
            seen += 1;
            if seen == at + 1 { octet ^ with } else { octet }
        });
        if result.is_err() {
            // A broken end is asked for nothing more but its alert, which it has given; being asked is no harm.
            let _ = (pair.client.turn(), pair.server.turn());
        }
    }

    #[test]
    fn no_garbage_panics(garbage in prop::collection::vec(any::<u8>(), 1..400), cut in 1usize..100, tail in any::<bool>()) {
        let mut pair = pair(Version::Tls13, cut);
        if tail {
            pair.shake_hands(&mut |octet| octet).unwrap();
        }
        let _ = give(&mut pair.server, &garbage, cut);
        let _ = give(&mut pair.client, &garbage, cut);
    }
}
