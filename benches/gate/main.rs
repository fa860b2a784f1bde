//! `cargo xtask bench gate`: nanoseconds a packet of the gate, by BPF_PROG_TEST_RUN, in one run beside an empty
//! XDP program and Debian's xdp-filter with as many addresses; and CPU time a dropped SYN beside nftables.
//!
//! Argument: the gate's object. It must not touch any interface but the veth pair
//! it makes for xdp-filter, in a network and mount namespace of its own.
#![allow(clippy::cast_possible_truncation, reason = "small numbers, and noise that is cut on purpose")]
#![allow(unsafe_code, reason = "bpf(2) for programs that aya did not load, and namespaces")]

mod frames;
mod peer;
mod run;
mod stack;

use std::net::IpAddr;
use std::process::ExitCode;

use ringpost::gate::loaded::{Entry, Loaded};
use ringpost_ebpf::abi::{Action, Class};
use ringpost_ebpf::compile::{Listener, Network, Plan, Table};

use frames::{Sources, syn};
use run::{Program, SHUFFLED, Shuffle};

const SIZES: [usize; 3] = [1, 100, 10_000];
const ROUNDS: usize = 11;
const REPEAT: u32 = 200_000;

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench gate: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let object = arguments.next().ok_or("which object? target/bpf/ringpost-gate.o")?;
    run::pin_to_cpu(0)?;
    run::enter_namespaces()?;
    let mut gate = Loaded::new(&std::fs::read(object)?)?;
    for entry in [Entry::Linear, Entry::Frags] {
        if let Ok(program) = gate.program(entry) {
            let verified = program.info()?.verified_instruction_count().unwrap_or(0);
            println!("{entry:?}: {verified} verified instructions");
        }
    }
    let empty = Program::empty()?;
    let peer = peer::XdpFilter::start();
    if let Err(error) = &peer {
        println!("SKIPPED xdp-filter: {error}");
    }
    let mut peer = peer.ok();
    println!(
        "{:<34} {:>7} {:>7} {:>7} {:>7} {:>7}",
        "ns a packet (median)", "empty", "gate", "over", "xdp-flt", "ratio"
    );
    for count in SIZES {
        for sources in [Sources::v4(count), Sources::v6(count)] {
            gate.publish(&table(&sources)?)?;
            if let Some(peer) = &mut peer {
                peer.load(&sources)?;
            }
            rows(&gate, &empty, peer.as_ref(), &sources)?;
        }
    }
    dropped_syns(&mut gate, &empty)
}

/// The whole way of a SYN that is refused, beside nftables.
fn dropped_syns(gate: &mut Loaded, passing: &Program) -> Result<(), Box<dyn std::error::Error>> {
    let stack = match stack::Stack::build() {
        Ok(stack) => stack,
        Err(error) => {
            println!("SKIPPED nftables: {error}");
            return Ok(());
        }
    };
    let dropping = Program::answering(run::DROP)?;
    println!(
        "\nns of CPU a dropped SYN\n{:>6} {:>10} {:>10} {:>10} {:>10} {:>8} {:>8}",
        "CIDRs", "empty drop", "gate", "nft ingr.", "nft input", "ingr./g.", "input/g."
    );
    for count in SIZES {
        let sources = Sources::v4(count);
        gate.publish(&table(&sources)?)?;
        let program = Program::of(gate.program(Entry::Linear)?)?;
        stack.row(&program, [&dropping, passing], &sources)?;
    }
    Ok(())
}

/// The table of a relay that listens on one address of each family on 25, 465 and 587.
fn table(sources: &Sources) -> Result<Table, Box<dyn std::error::Error>> {
    let own: [IpAddr; 2] = [frames::OWN_V4.into(), frames::OWN_V6.into()];
    let ports = [(25, Class::Smtp), (465, Class::Submission), (587, Class::Submission)];
    let listeners =
        own.iter().flat_map(|address| ports.map(|(port, class)| Listener { address: *address, port, class }));
    let networks = sources.networks().iter().zip(1u16..).flat_map(|((address, prefix), number)| {
        let network = Network { address: *address, prefix: *prefix, number };
        [(Class::Smtp, network), (Class::Submission, network)]
    });
    Ok(Table::compile(&Plan {
        generation: 1,
        action: Action::Drop,
        syn_rate: None,
        listeners: listeners.collect(),
        networks: networks.collect(),
    })?)
}

fn rows(
    gate: &Loaded,
    empty: &Program,
    peer: Option<&peer::XdpFilter>,
    sources: &Sources,
) -> Result<(), Box<dyn std::error::Error>> {
    let gate = Program::of(gate.program(Entry::Linear)?)?;
    let count = sources.networks().len();
    let many = |source: &dyn Fn(usize) -> IpAddr| (0..SHUFFLED).map(|n| syn(source(n), 25)).collect();
    let inside: Vec<Vec<u8>> = many(&|n| sources.inside(n));
    let outside: Vec<Vec<u8>> = many(&|n| sources.outside(n));
    let other = [syn(sources.inside(0), 22)];
    // The gate's verdict, and xdp-filter's, which drops what is listed whatever its port.
    let cases = [
        ("accept, one source", &inside[..1], run::PASS, run::DROP),
        ("accept, 4096 sources", &inside[..], run::PASS, run::DROP),
        ("drop, one source", &outside[..1], run::DROP, run::PASS),
        ("drop, 4096 sources", &outside[..], run::DROP, run::PASS),
        ("other port", &other[..], run::PASS, run::DROP),
    ];
    for (name, frames, by_gate, by_peer) in cases {
        let programs =
            [Some((empty, run::PASS)), Some((&gate, by_gate)), peer.map(|peer| (peer.program(), by_peer))];
        let mut medians = [f64::NAN; 3];
        for (median, program) in medians.iter_mut().zip(programs) {
            let Some((program, expected)) = program else { continue };
            *median = if frames.len() == 1 {
                median_time(program, &frames[0], expected)?
            } else {
                median_time(Shuffle::before(program, frames)?.program(), &frames[0], expected)?
            };
        }
        let [floor, ours, theirs] = medians;
        let label = format!("{} {count:>6} {name}", sources.family());
        println!(
            "{label:<34} {floor:>7.1} {ours:>7.1} {:>7.1} {theirs:>7.1} {:>7.2}",
            ours - floor,
            ours / theirs
        );
    }
    Ok(())
}

fn median_time(program: &Program, frame: &[u8], expected: u32) -> std::io::Result<f64> {
    let times: std::io::Result<Vec<f64>> =
        (0..ROUNDS).map(|_| run::time(program, frame, REPEAT, expected)).collect();
    let mut times = times?;
    times.sort_by(f64::total_cmp);
    Ok(times[ROUNDS / 2])
}
