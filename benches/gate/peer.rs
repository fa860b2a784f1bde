//! Debian's xdp-filter (package xdp-tools), with the networks' addresses in its list.
//!
//! It knows exact addresses only, so each network is there by its first address, the one that the frames use.
//! It runs on one end of a veth pair in the benchmark's own namespaces.

use std::net::IpAddr;
use std::process::Command;

use aya::Pod;
use aya::maps::{Map, MapData, PerCpuHashMap, PerCpuValues};
use aya::util::nr_cpus;

use crate::frames::Sources;
use crate::run::Program;

const BPFFS: &str = "/sys/fs/bpf";

/// The program and where its lists are pinned.
pub(crate) struct XdpFilter {
    program: Program,
}

impl XdpFilter {
    /// Loads it with policy `allow`: listed sources are dropped. The other policy costs it the same.
    pub(crate) fn start() -> Result<Self, Box<dyn std::error::Error>> {
        command("mount", &["--make-rprivate", "/"])?;
        command("mount", &["-t", "bpf", "bpf", BPFFS])?;
        command("ip", &["link", "add", "bench0", "type", "veth", "peer", "name", "bench1"])?;
        command("ip", &["link", "set", "bench0", "up"])?;
        command("xdp-filter", &["load", "bench0", "--policy", "allow", "--mode", "native"])?;
        let links = command("bpftool", &["-j", "net", "show", "dev", "bench0"])?;
        let id = id_in(&links).ok_or("bpftool shows no program on bench0")?;
        Ok(Self { program: Program::by_id(id)? })
    }

    /// The program.
    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    /// Lists the first address of each network, to be dropped.
    pub(crate) fn load(&mut self, sources: &Sources) -> Result<(), Box<dyn std::error::Error>> {
        let addresses: Vec<IpAddr> = sources.networks().iter().map(|(address, _)| *address).collect();
        match addresses.first() {
            Some(IpAddr::V4(_)) => list::<[u8; 4]>("filter_ipv4", &addresses, |address| match address {
                IpAddr::V4(v4) => v4.octets(),
                IpAddr::V6(_) => [0; 4],
            }),
            _ => list::<[u8; 16]>("filter_ipv6", &addresses, |address| match address {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            }),
        }
    }
}

fn list<K: Pod>(
    map: &str,
    addresses: &[IpAddr],
    key: impl Fn(&IpAddr) -> K,
) -> Result<(), Box<dyn std::error::Error>> {
    const XDP_FILTER_SOURCE: u64 = 1;
    let data = MapData::from_pin(format!("{BPFFS}/xdp-filter/{map}"))?;
    let mut map: PerCpuHashMap<_, K, u64> = PerCpuHashMap::try_from(Map::PerCpuHashMap(data))?;
    let cpus = nr_cpus().map_err(|(_, error)| error)?;
    for address in addresses {
        map.insert(key(address), PerCpuValues::try_from(vec![XDP_FILTER_SOURCE; cpus])?, 0)?;
    }
    Ok(())
}

/// Runs a program of the system and gives what it printed.
pub(crate) fn command(program: &str, arguments: &[&str]) -> Result<String, Box<dyn std::error::Error>> {
    let output =
        Command::new(program).args(arguments).output().map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("{program} {}: {}", arguments.join(" "), words.trim()).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn id_in(json: &str) -> Option<u32> {
    let shown: serde_json::Value = serde_json::from_str(json).ok()?;
    let xdp = shown.get(0)?.get("xdp")?;
    let first = xdp.get(0)?;
    let id = first.get("id").or_else(|| first.get("multi_attachments")?.get(0)?.get("id"))?;
    u32::try_from(id.as_u64()?).ok()
}
