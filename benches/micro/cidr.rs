//! Whether an address may relay: `policy::acl::Networks` against asking each network in turn.

mod timing;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use ringpost::policy::acl::Networks;
use timing::{Case, Work, compare};

fn main() {
    for count in [4u32, 100, 10_000] {
        let nets: Vec<IpNet> = networks(count);
        let asked: Vec<IpAddr> = addresses();
        let networks = Networks::new(nets.iter().copied());
        let cases = vec![
            Case::new("each in turn", || {
                let held = asked.iter().filter(|address| nets.iter().any(|net| net.contains(*address)));
                held.count() as u64
            }),
            Case::new("Networks", || {
                asked.iter().filter(|address| networks.contains(**address)).count() as u64
            }),
        ];
        compare(&format!("{count} networks"), Work { count: asked.len(), unit: "M/s", scale: 1e6 }, cases);
    }
}

/// Networks that hold about a quarter of the addresses asked, half of them IPv6.
fn networks(count: u32) -> Vec<IpNet> {
    let mut random = Random(1);
    let v4 = (0..count / 2).map(|_| {
        let address = Ipv4Addr::from(0x0A00_0000 | (random.next() & 0x007F_FF00));
        Ipv4Net::new(address, 24).map(IpNet::from)
    });
    let v4: Vec<_> = v4.collect();
    let v6 = (0..count - count / 2).map(|_| {
        let address = Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(random.next() & 0x7FFF) << 64);
        Ipv6Net::new(address, 64).map(IpNet::from)
    });
    v4.into_iter().chain(v6).flatten().collect()
}

fn addresses() -> Vec<IpAddr> {
    let mut random = Random(2);
    let address = |number: u32| match number % 2 {
        0 => IpAddr::from(Ipv4Addr::from(0x0A00_0000 | (number >> 1 & 0x00FF_FFFF))),
        _ => {
            IpAddr::from(Ipv6Addr::from(0x2001_0db8_u128 << 96 | u128::from(number >> 1 & 0xFFFF) << 64 | 1))
        }
    };
    (0..1000).map(|_| address(random.next())).collect()
}

/// The same numbers on each run (Numerical Recipes' generator, its upper half).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 33).unwrap_or(0)
    }
}
