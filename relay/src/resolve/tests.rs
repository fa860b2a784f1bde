//! The resolver against a name server of our own on loopback: real packets, invented zones.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::*;

/// What the server does with a question.
enum Reply {
    Records(Vec<(&'static str, u32, RData)>),
    Code(ResponseCode),
    Silence,
}

/// A zone: a function from name (lower case, without the last dot) and type to what is said.
type Zone = fn(&str, RecordType) -> Reply;

fn name(text: &str) -> Name {
    Name::from_ascii(format!("{text}.")).unwrap()
}

fn a(last: u8) -> RData {
    RData::A(A::new(192, 0, 2, last))
}

fn mx(preference: u16, exchange: &str) -> RData {
    let exchange = if exchange == "." { Name::root() } else { name(exchange) };
    RData::MX(MX::new(preference, exchange))
}

fn respond(query: &[u8], zone: Zone, octets_max: usize) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).unwrap();
    let question = query.queries[0].clone();
    let asked = question.name().to_ascii().to_lowercase();
    let mut response = Message::response(query.metadata.id, OpCode::Query);
    response.metadata.recursion_available = true;
    response.metadata.recursion_desired = true;
    match zone(asked.trim_end_matches('.'), question.query_type()) {
        Reply::Silence => return None,
        Reply::Code(code) => response.metadata.response_code = code,
        Reply::Records(records) => {
            if records.is_empty() {
                let soa = SOA::new(name("ns.test"), name("admin.test"), 1, 3600, 600, 86_400, 60);
                response.add_authority(Record::from_rdata(name("test"), 60, RData::SOA(soa)));
            }
            for (owner, ttl, data) in records {
                response.add_answer(Record::from_rdata(name(owner), ttl, data));
            }
        }
    }
    response.add_query(question);
    let octets = response.to_vec().unwrap();
    if octets.len() > octets_max {
        return Some(response.truncate().to_vec().unwrap());
    }
    Some(octets)
}

/// Serves a zone over UDP and TCP on one free port; counts nothing, ends with the test's runtime.
async fn name_server(zone: Zone) -> SocketAddr {
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        // The same port may be taken for TCP: then another one.
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    tokio::spawn(async move {
        let mut query = [0; 1500];
        while let Ok((octets, peer)) = udp.recv_from(&mut query).await {
            if let Some(response) = respond(&query[..octets], zone, 1232) {
                udp.send_to(&response, peer).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = tcp.accept().await {
            let octets = stream.read_u16().await.unwrap();
            let mut query = vec![0; usize::from(octets)];
            stream.read_exact(&mut query).await.unwrap();
            if let Some(response) = respond(&query, zone, usize::from(u16::MAX)) {
                stream.write_u16(u16::try_from(response.len()).unwrap()).await.unwrap();
                stream.write_all(&response).await.unwrap();
            }
        }
    });
    address
}

async fn resolver(zone: Zone) -> Resolver {
    let (asker, questions) = channel();
    tokio::spawn(Service::new(questions, &[name_server(zone).await]).run());
    Resolver::new(asker)
}

async fn ask(zone: Zone, name: &str, kind: Kind) -> Result<Resolution, Failure> {
    resolver(zone).await.resolve(&name.into(), kind).await
}

fn addresses(host: &Host) -> Vec<String> {
    host.addresses.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn exchangers_come_in_order_of_preference_with_their_addresses() {
    let found = ask(
        |name, kind| match (name, kind) {
            ("example.test", RecordType::MX) => Reply::Records(vec![
                ("example.test", 300, mx(20, "second.test")),
                ("example.test", 300, mx(10, "first.test")),
                ("example.test", 300, mx(30, "gone.test")),
            ]),
            ("first.test", RecordType::A) => {
                Reply::Records(vec![("first.test", 120, a(1)), ("first.test", 120, a(2))])
            }
            ("first.test", RecordType::AAAA) => {
                Reply::Records(vec![("first.test", 300, RData::AAAA(AAAA("2001:db8::1".parse().unwrap())))])
            }
            ("second.test", RecordType::A) => Reply::Records(vec![("second.test", 300, a(3))]),
            ("gone.test", _) => Reply::Code(ResponseCode::NXDomain),
            _ => Reply::Records(Vec::new()),
        },
        "example.test",
        Kind::MxThenAddress,
    )
    .await
    .unwrap();
    let names: Vec<(&str, u16)> = found.hosts.iter().map(|host| (&*host.name, host.preference)).collect();
    assert_eq!(names, [("first.test", 10), ("second.test", 20)]);
    assert_eq!(addresses(&found.hosts[0]), ["192.0.2.1", "2001:db8::1", "192.0.2.2"]);
    assert!(found.valid_for <= Duration::from_secs(120) && found.valid_for > Duration::from_secs(60));
}

#[tokio::test]
async fn a_name_without_exchangers_is_its_own() {
    let zone: Zone = |name, kind| match (name, kind) {
        ("host.test", RecordType::A) => Reply::Records(vec![("host.test", 0, a(7))]),
        _ => Reply::Records(Vec::new()),
    };
    let found = ask(zone, "host.test", Kind::MxThenAddress).await.unwrap();
    assert_eq!(&*found.hosts[0].name, "host.test");
    assert_eq!(addresses(&found.hosts[0]), ["192.0.2.7"]);
    assert_eq!(found.valid_for, limits::DNS_TTL_MIN, "a TTL of 0 is clamped");
}

#[tokio::test]
async fn a_bracketed_name_is_never_asked_for_exchangers() {
    let zone: Zone = |_, kind| match kind {
        RecordType::MX => panic!("asked for MX"),
        RecordType::A => Reply::Records(vec![("host.test", 60, a(7))]),
        _ => Reply::Records(Vec::new()),
    };
    assert!(ask(zone, "host.test", Kind::AddressOnly).await.is_ok());
}

#[tokio::test]
async fn a_null_mx_takes_no_mail_even_where_the_name_has_an_address() {
    let zone: Zone = |_, kind| match kind {
        RecordType::MX => Reply::Records(vec![("null.test", 60, mx(0, "."))]),
        _ => Reply::Records(vec![("null.test", 60, a(1))]),
    };
    assert_eq!(ask(zone, "null.test", Kind::MxThenAddress).await, Err(Failure::NullMx));
}

#[tokio::test]
async fn a_root_exchanger_beside_others_is_skipped() {
    let zone: Zone = |name, kind| match (name, kind) {
        ("odd.test", RecordType::MX) => {
            Reply::Records(vec![("odd.test", 60, mx(0, ".")), ("odd.test", 60, mx(10, "host.test"))])
        }
        ("host.test", RecordType::A) => Reply::Records(vec![("host.test", 60, a(9))]),
        _ => Reply::Records(Vec::new()),
    };
    let found = ask(zone, "odd.test", Kind::MxThenAddress).await.unwrap();
    assert_eq!(found.hosts.len(), 1);
    assert_eq!(addresses(&found.hosts[0]), ["192.0.2.9"]);
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_told_from_a_server_that_fails() {
    let nxdomain: Zone = |_, _| Reply::Code(ResponseCode::NXDomain);
    assert_eq!(ask(nxdomain, "no.test", Kind::MxThenAddress).await, Err(Failure::NoSuchName));
    let empty: Zone = |_, _| Reply::Records(Vec::new());
    assert_eq!(ask(empty, "empty.test", Kind::MxThenAddress).await, Err(Failure::NoSuchName));
    for code in [ResponseCode::ServFail, ResponseCode::Refused] {
        let zone: Zone = match code {
            ResponseCode::ServFail => |_, _| Reply::Code(ResponseCode::ServFail),
            _ => |_, _| Reply::Code(ResponseCode::Refused),
        };
        let failure = ask(zone, "fail.test", Kind::MxThenAddress).await.unwrap_err();
        assert!(matches!(failure, Failure::Transient(_)), "{code}: {failure:?}");
    }
}

#[tokio::test]
async fn failing_exchangers_never_fall_back_to_the_address() {
    let zone: Zone = |_, kind| match kind {
        RecordType::MX => Reply::Code(ResponseCode::ServFail),
        _ => Reply::Records(vec![("half.test", 60, a(1))]),
    };
    let failure = ask(zone, "half.test", Kind::MxThenAddress).await.unwrap_err();
    assert!(matches!(failure, Failure::Transient(_)), "{failure:?}");
}

#[tokio::test]
async fn one_family_is_enough_where_the_other_fails() {
    let zone: Zone = |_, kind| match kind {
        RecordType::AAAA => Reply::Code(ResponseCode::ServFail),
        _ => Reply::Records(vec![("half.test", 60, a(1))]),
    };
    let found = ask(zone, "half.test", Kind::AddressOnly).await.unwrap();
    assert_eq!(addresses(&found.hosts[0]), ["192.0.2.1"]);
}

#[tokio::test]
async fn exchangers_without_any_address_are_a_failure_for_the_moment() {
    let zone: Zone = |name, kind| match (name, kind) {
        ("example.test", RecordType::MX) => Reply::Records(vec![("example.test", 60, mx(10, "gone.test"))]),
        _ => Reply::Code(ResponseCode::NXDomain),
    };
    let failure = ask(zone, "example.test", Kind::MxThenAddress).await;
    assert_eq!(failure, Err(Failure::Transient("no mail exchanger has an address".into())));
}

#[tokio::test]
async fn aliases_are_followed_and_loops_end() {
    let zone: Zone = |name_asked, kind| match (name_asked, kind) {
        ("alias.test", RecordType::A) => Reply::Records(vec![
            ("alias.test", 60, RData::CNAME(CNAME(name("real.test")))),
            ("real.test", 60, a(4)),
        ]),
        ("loop.test", _) => Reply::Records(vec![("loop.test", 60, RData::CNAME(CNAME(name("pool.test"))))]),
        ("pool.test", _) => Reply::Records(vec![("pool.test", 60, RData::CNAME(CNAME(name("loop.test"))))]),
        _ => Reply::Records(Vec::new()),
    };
    let resolver = resolver(zone).await;
    let found = resolver.resolve(&"alias.test".into(), Kind::AddressOnly).await.unwrap();
    assert_eq!(addresses(&found.hosts[0]), ["192.0.2.4"]);
    assert!(resolver.resolve(&"loop.test".into(), Kind::AddressOnly).await.is_err());
}

#[tokio::test]
async fn of_many_addresses_the_bound_is_kept() {
    let zone: Zone = |_, kind| match kind {
        RecordType::A => Reply::Records((1..=200).map(|last| ("many.test", 60, a(last))).collect()),
        _ => Reply::Records(Vec::new()),
    };
    let found = ask(zone, "many.test", Kind::AddressOnly).await.unwrap();
    let distinct: HashSet<&IpAddr> = found.hosts[0].addresses.iter().collect();
    assert_eq!(distinct.len(), limits::UPSTREAM_ADDRESSES_MAX);
    assert!(distinct.contains(&IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))));
}

#[tokio::test(start_paused = true)]
async fn silent_name_servers_are_given_up() {
    let failure = ask(|_, _| Reply::Silence, "silent.test", Kind::MxThenAddress).await.unwrap_err();
    assert!(matches!(failure, Failure::Transient(_)), "{failure:?}");
}

#[tokio::test]
async fn what_is_no_name_does_not_exist() {
    let zone: Zone = |_, _| panic!("asked for a name that is none");
    let long = "a".repeat(300);
    for name in ["a..b", long.as_str()] {
        assert_eq!(ask(zone, name, Kind::MxThenAddress).await, Err(Failure::NoSuchName), "{name}");
    }
}

#[tokio::test]
async fn the_hosts_file_counts_where_no_name_server_does() {
    // `localhost` stands in every hosts file.
    let zone: Zone = |_, _| Reply::Code(ResponseCode::ServFail);
    let found = ask(zone, "localhost", Kind::MxThenAddress).await.unwrap();
    assert!(found.hosts[0].addresses.iter().all(IpAddr::is_loopback));
}

#[tokio::test]
async fn a_worker_asks_once_and_serves_on_when_the_service_is_gone() {
    let (asker, questions) = channel();
    let resolver = Resolver::new(asker);
    let service = tokio::spawn(async move {
        let Ok(Request::Look(query)) = questions.recv_async().await else { panic!("no question") };
        let host = Host { name: query.name, preference: 0, addresses: vec!["192.0.2.1".parse().unwrap()] };
        query.answer.send(Ok(Resolution { hosts: vec![host], valid_for: Duration::from_secs(60) })).unwrap();
    });
    let name: Arc<str> = "a.test".into();
    let first = resolver.resolve(&name, Kind::AddressOnly).await;
    service.await.unwrap();
    assert_eq!(resolver.resolve(&name, Kind::AddressOnly).await, first, "from the cache");
    let other = resolver.resolve(&"b.test".into(), Kind::AddressOnly).await;
    assert!(matches!(other, Err(Failure::Transient(_))), "{other:?}");
}

#[test]
fn equals_are_shuffled_and_preferences_kept() {
    let host = |name: &str, preference| Host { name: name.into(), preference, addresses: Vec::new() };
    let mut firsts = HashSet::new();
    let mut seed = 1u64;
    for _ in 0..200 {
        let mut hosts = vec![host("a", 5), host("b", 10), host("c", 10), host("d", 10), host("e", 20)];
        shuffle_equals(&mut hosts, || {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed >> 33
        });
        let preferences: Vec<u16> = hosts.iter().map(|host| host.preference).collect();
        assert_eq!(preferences, [5, 10, 10, 10, 20]);
        firsts.insert(hosts[1].name.to_string());
    }
    assert_eq!(firsts.len(), 3);
}
