//! What the simulated network does to its streams. Numbers only; what follows from them is the world's business.

/// What the network does to its streams. The chances are in a thousand, for each operation.
#[derive(Debug, Clone, Copy)]
pub struct Faults {
    /// Longest way of a segment, in microseconds.
    pub delay_micros_max: u64,
    /// Octets of the largest segment; a send is cut into random ones up to this.
    pub segment_octets_max: usize,
    /// Chance that a receive gives less than has arrived.
    pub short_reads_permille: u64,
    /// Chance that an operation finds the connection reset.
    pub resets_permille: u64,
}

impl Faults {
    /// A network that only takes its time.
    pub const NONE: Self = Self {
        delay_micros_max: 500,
        segment_octets_max: usize::MAX,
        short_reads_permille: 0,
        resets_permille: 0,
    };
    /// A network that cuts and delays, but loses nothing.
    pub const CUTS: Self = Self {
        delay_micros_max: 5_000,
        segment_octets_max: 7,
        short_reads_permille: 500,
        resets_permille: 0,
    };
    /// A network that also breaks connections.
    pub const BREAKS: Self = Self {
        delay_micros_max: 50_000,
        segment_octets_max: 900,
        short_reads_permille: 200,
        resets_permille: 5,
    };
}
