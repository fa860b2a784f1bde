//! Swapping lists under traffic: a packet meets the old lists or the new, never a mixture, never none.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use aya::programs::{TestRun, TestRunOptions};
use ringpost::gate::loaded::{Entry, Loaded};
use ringpost_ebpf::abi::Class;
use ringpost_ebpf::compile::{Network, Plan, Table};

use crate::golden::{FRIEND, FRIEND6, OWN, OWN6, STRANGER, plan};
use crate::kernel::{DROP, PASS};
use crate::object;
use crate::packet::syn;

/// The golden plan with `extra` further networks that hold none of its sources.
fn with_extra(extra: u32, generation: u64) -> Plan {
    let mut plan = Plan { generation, ..plan() };
    plan.networks.extend((0..extra).map(|n| {
        let address = IpAddr::from((0x3000_0000 + n * 65_536 * 3).to_be_bytes());
        (Class::Smtp, Network { address, prefix: 24, number: 9 })
    }));
    plan
}

#[test]
fn no_packet_is_judged_by_half_a_list() {
    let mut loaded = Loaded::new(&object!()).unwrap();
    let tables = [Table::compile(&with_extra(0, 1)).unwrap(), Table::compile(&with_extra(1000, 2)).unwrap()];
    loaded.publish(&tables[0]).unwrap();
    let program = loaded.program(Entry::Linear).unwrap().fd().unwrap().try_clone().unwrap();
    let frames = [
        (syn().from(FRIEND).to(OWN, 25).octets(), PASS),
        (syn().from(FRIEND6).to(OWN6, 25).octets(), PASS),
        (syn().from(STRANGER).to(OWN, 25).octets(), DROP),
    ];
    // Another handle on the same program runs frames while this one swaps.
    let over = AtomicBool::new(false);
    let runs = std::thread::scope(|scope| {
        let judge = scope.spawn(|| {
            let ran = crate::kernel::ById::of(&program);
            let mut runs = 0u64;
            while !over.load(Ordering::Relaxed) || runs == 0 {
                for (frame, expected) in &frames {
                    assert_eq!(ran.run(frame), *expected, "run {runs}");
                    runs += 1;
                }
            }
            runs
        });
        for round in 0..100 {
            loaded.publish(&tables[round % 2]).unwrap();
        }
        over.store(true, Ordering::Relaxed);
        judge.join().expect("no wrong verdict")
    });
    assert!(runs > 0);
}

#[test]
fn a_list_that_does_not_fit_leaves_the_old_one() {
    let mut loaded = Loaded::new(&object!()).unwrap();
    loaded.publish(&Table::compile(&plan()).unwrap()).unwrap();
    let mut huge = plan();
    huge.networks.extend((0..300_000u32).map(|n| {
        let address =
            IpAddr::from((u128::from(n.wrapping_mul(0x9e37_79b9)) << 64 | 0x2001_0db8 << 96).to_be_bytes());
        (Class::Smtp, Network { address, prefix: 128, number: 9 })
    }));
    assert!(Table::compile(&huge).is_err());
    let frame = syn().from(STRANGER).to(OWN, 25).octets();
    let options = TestRunOptions { data_in: Some(&frame), ..TestRunOptions::default() };
    assert_eq!(loaded.program(Entry::Linear).unwrap().test_run(options).unwrap().return_value, DROP);
}
