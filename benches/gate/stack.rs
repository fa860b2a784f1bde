//! What a SYN of a stranger costs on its whole way: dropped by the gate, or by nftables with the same networks in a set.
//!
//! Live frames of BPF_PROG_TEST_RUN come in on one end of a veth pair as if received there; what passes goes up the
//! stack to nftables within the measured time. So the figures are CPU time, and the harness itself is in the floor.

use std::error::Error;
use std::net::IpAddr;
use std::os::fd::AsFd;

use ringpost::gate::advice::AttachMode;
use ringpost::gate::link::Link;
use ringpost::gate::netlink;

use crate::frames::{OWN_V4, Sources, syn};
use crate::peer::command;
use crate::run::{self, Program};

const INTERFACE: &str = "bench2";
/// Outside of all networks of [`Sources::v4`].
const STRANGER: [u8; 4] = [203, 0, 113, 9];
/// Frames of one run; few enough that the median of the runs is not one of a disturbed machine.
const FRAMES: u32 = 100_000;
const ROUNDS: usize = 7;
/// Frames of the run that checks what becomes of them.
const CHECKED: u32 = 640;

/// One interface in the benchmark's namespace.
pub(crate) struct Stack {
    index: u32,
    frame: Vec<u8>,
}

impl Stack {
    /// Makes the pair, with the relay's address on the end where frames come in.
    pub(crate) fn build() -> Result<Self, Box<dyn Error>> {
        command("ip", &["link", "add", INTERFACE, "type", "veth", "peer", "name", "bench3"])?;
        command("ip", &["link", "set", INTERFACE, "address", "02:00:00:00:00:01"])?;
        command("ip", &["addr", "add", &format!("{OWN_V4}/15"), "dev", INTERFACE])?;
        for up in ["lo", INTERFACE, "bench3"] {
            command("ip", &["link", "set", up, "up"])?;
        }
        for conf in ["all", INTERFACE] {
            std::fs::write(format!("/proc/sys/net/ipv4/conf/{conf}/rp_filter"), "0")?;
        }
        let interfaces = netlink::host()?.interfaces;
        let index =
            interfaces.iter().find(|interface| interface.name == INTERFACE).ok_or("no interface")?.index;
        Ok(Self { index, frame: syn(IpAddr::from(STRANGER), 25) })
    }

    /// One row: these networks may come, and a stranger knocks.
    pub(crate) fn row(
        &self,
        gate: &Program,
        programs: [&Program; 2],
        sources: &Sources,
    ) -> Result<(), Box<dyn Error>> {
        let [dropping, passing] = programs;
        let floor = self.median(dropping)?;
        let ours = self.median(gate)?;
        let mut theirs = [0.0; 2];
        for (median, hook) in theirs.iter_mut().zip([INGRESS, INPUT]) {
            rules(hook, sources, "counter drop")?;
            let before = counted(hook)?;
            self.live(passing, CHECKED)?;
            let dropped = counted(hook)? - before;
            if dropped != u64::from(CHECKED) {
                return Err(format!("nftables dropped {dropped} of {CHECKED} frames").into());
            }
            rules(hook, sources, "drop")?;
            *median = self.median(passing)?;
        }
        command("nft", &["flush", "ruleset"])?;
        let [ingress, input] = theirs;
        println!(
            "{:>6} {floor:>10.0} {ours:>10.0} {ingress:>10.0} {input:>10.0} {:>8.1} {:>8.1}",
            sources.networks().len(),
            ingress / ours,
            input / ours,
        );
        Ok(())
    }

    fn median(&self, program: &Program) -> Result<f64, Box<dyn Error>> {
        let times: Result<Vec<f64>, _> = (0..ROUNDS).map(|_| self.live(program, FRAMES)).collect();
        let mut times = times?;
        times.sort_by(f64::total_cmp);
        Ok(times[ROUNDS / 2])
    }

    /// Runs a program on frames that come in, which veth only takes in where a program is attached.
    fn live(&self, program: &Program, frames: u32) -> Result<f64, Box<dyn Error>> {
        let _attached = Link::attach(program.as_fd(), self.index, AttachMode::Native)?;
        Ok(run::live(program, &self.frame, frames, self.index)?)
    }
}

/// The first hook there is, before anything is known of a frame.
const INGRESS: (&str, &str) = ("netdev", "ingress device bench2");
/// Where a firewall mostly stands.
const INPUT: (&str, &str) = ("inet", "input");

/// Rules as an administrator would write them for the same purpose.
fn rules((family, hook): (&str, &str), sources: &Sources, verdict: &str) -> Result<(), Box<dyn Error>> {
    let elements: Vec<String> =
        sources.networks().iter().map(|(address, prefix)| format!("{address}/{prefix}")).collect();
    let lines = [
        "flush ruleset".to_owned(),
        format!("table {family} t {{"),
        "set friends {".to_owned(),
        "type ipv4_addr; flags interval; auto-merge".to_owned(),
        format!("elements = {{ {} }}", elements.join(", ")),
        "}".to_owned(),
        "chain c {".to_owned(),
        format!("type filter hook {hook} priority 0;"),
        format!("tcp dport {{ 25, 465, 587 }} ip saddr != @friends {verdict}"),
        "}".to_owned(),
        "}\n".to_owned(),
    ];
    let file = std::env::temp_dir().join(format!("bench-gate-{}.nft", std::process::id()));
    std::fs::write(&file, lines.join("\n"))?;
    let loaded = command("nft", &["-f", &file.display().to_string()]);
    std::fs::remove_file(&file)?;
    loaded.map(drop)
}

/// Packets that the rule has counted.
fn counted((family, _): (&str, &str)) -> Result<u64, Box<dyn Error>> {
    let shown = command("nft", &["list", "chain", family, "t", "c"])?;
    let packets = shown.split_once("counter packets ").and_then(|(_, rest)| rest.split(' ').next());
    Ok(packets.ok_or("no counter")?.parse()?)
}
