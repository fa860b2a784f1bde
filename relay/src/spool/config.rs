//! What the spool is configured by: checked values, ready to use. No behaviour.

use std::path::PathBuf;
use std::time::Duration;

use crate::units::Octets;

/// Everything that the spool reads of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// `STATE_DIR`: the spool lies below it.
    pub state_dir: PathBuf,
    /// `QUEUE_RETRY`: waits between attempts; never empty, the last repeats.
    pub retry: Vec<Duration>,
    /// `QUEUE_LIFETIME`: after which a message is returned.
    pub lifetime: Duration,
    /// `DELAY_WARNING`: after which the sender is told of a delay.
    pub delay_warning: Option<Duration>,
    /// `BOUNCE_TO`.
    pub bounce_to: BounceTo,
    /// `QUEUE_BYTES_MAX`.
    pub space_max: SpaceMax,
}

/// Where notices go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BounceTo {
    /// To the sender.
    Sender,
    /// Nowhere.
    Off,
    /// To this address.
    Address(String),
}

/// How much the spool may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpaceMax {
    /// So many hundredths of the file system, 1 to 100.
    Percent(u8),
    /// So many octets.
    Size(Octets),
}
