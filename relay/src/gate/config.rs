//! What the gate is configured by: checked values, ready to use. No behaviour.

use std::time::Duration;

use crate::policy::rate::Rate;

/// Everything that the gate reads of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `XDP`.
    pub wanted: Wanted,
    /// `XDP_INTERFACES`; empty: those that own or route to the listen addresses.
    pub interfaces: Vec<String>,
    /// `XDP_MODE`.
    pub mode: Mode,
    /// `XDP_ACTION`.
    pub action: Action,
    /// `XDP_SYN_RATE`: new connections of one source.
    pub syn_rate: Option<Rate>,
    /// `AUTOBAN`.
    pub autoban: Option<Autoban>,
}

/// Whether there shall be a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Where it can be attached.
    Auto,
    /// The daemon does not start without.
    Require,
    /// None.
    Off,
}

/// How the program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Native, else generic.
    Auto,
    /// In the driver.
    Native,
    /// In the kernel's stack, after the driver.
    Generic,
    /// On the card.
    Offload,
}

/// What becomes of a packet that is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It vanishes.
    Drop,
    /// It is answered with a TCP reset.
    Reset,
    /// It passes and is counted.
    Count,
}

/// `10 in 1m for 1h`: so many offences of a source within a time ban it for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Autoban {
    /// Offences; at least 1.
    pub offences: u32,
    /// The time they are counted over.
    pub within: Duration,
    /// How long the ban lasts.
    pub ban_for: Duration,
}
