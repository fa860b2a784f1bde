//! What the gate tells about itself. Values only.

use std::fmt;

use ipnet::IpNet;
use ringpost_ebpf::abi::{Class, Reason, VERDICTS, Verdict};

use super::advice::AttachMode;

/// The gate on one interface, as the metrics show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceCounters {
    /// Its name.
    pub interface: String,
    /// How the program is attached; none while it is not.
    pub mode: Option<AttachMode>,
    /// Packets by [`Verdict`], since the daemon started.
    pub packets: [u64; VERDICTS],
}

/// Packets that one network brought in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkCounter {
    /// The network.
    pub network: IpNet,
    /// Where it may go.
    pub classes: Vec<Class>,
    /// Packets accepted for it, not for a longer network inside it; since it was listed. Beyond
    /// [`NETWORKS_MAX`](ringpost_ebpf::abi::NETWORKS_MAX) networks the rest share one count.
    pub packets: u64,
}

/// The gate on one interface, as `gate status` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceStatus {
    /// Its name.
    pub interface: String,
    /// How the program is attached.
    pub mode: AttachMode,
    /// The kernel's id of the program.
    pub program: u32,
    /// Whether the entry point for multi-buffer frames is in place.
    pub takes_frags: bool,
    /// Packets by [`Verdict`], since the daemon started.
    pub packets: [u64; VERDICTS],
}

/// The whole gate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// Where it stands.
    pub interfaces: Vec<InterfaceStatus>,
    /// How often the lists were published: 1 at the start, one more with each reload.
    pub generation: u64,
    /// Networks of all classes.
    pub networks: usize,
    /// Bans that stand.
    pub bans: usize,
    /// What is worth knowing: where it does not stand and why, ports that may hit replies.
    pub notes: Vec<String>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.interfaces.is_empty() {
            writeln!(f, "not attached")?;
        }
        for on in &self.interfaces {
            let frags = if on.takes_frags { ", multi-buffer" } else { "" };
            writeln!(f, "{} {}{frags}, program {}", on.interface, on.mode.word(), on.program)?;
            for (verdict, packets) in Verdict::ALL.iter().zip(on.packets) {
                if packets > 0 {
                    writeln!(f, "  {:<16} {packets}", verdict.label())?;
                }
            }
        }
        writeln!(f, "lists {}: {} networks, {} bans", self.generation, self.networks, self.bans)?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

/// What the gate would do with a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explained {
    /// What becomes of its packets.
    pub verdict: Verdict,
    /// Why, if they are refused.
    pub reason: Option<Reason>,
}
