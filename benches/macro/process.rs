//! What a process and its descendants cost, as procfs tells it (proc(5)). Reads only; ends nobody.
//!
//! CPU is that of every living process of the tree (all threads, io_uring's workers among them) and of the children they
//! have reaped. `stat` reports it in ticks of 10 ms, rounded down for each process, which loses half of what a mail server
//! of a hundred processes uses in a second; `schedstat` has nanoseconds, but only for threads that live. The larger counts.

use std::collections::BTreeMap;
use std::fs;

/// Microseconds of a clock tick: USER_HZ is 100 in the ABI of every architecture that the relay runs on.
const TICK_MICROS: u64 = 10_000;

/// The cost of a tree of processes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// User and system time, in microseconds.
    pub cpu_micros: u64,
    /// Resident octets now, summed; pages that processes share count for each.
    pub resident_octets: u64,
    /// Of these the anonymous ones, which no other process shares but by fork.
    pub anonymous_octets: u64,
    /// The sum of each process's own highest resident size.
    pub peak_octets: u64,
    /// How many processes.
    pub processes: usize,
}

/// One process's line of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: u32,
    /// Of all its threads, ended ones too.
    own_ticks: u64,
    /// Of the children that it has reaped.
    reaped_ticks: u64,
    /// When it began, in ticks since the host did: tells it from a later process of the same number.
    began_ticks: u64,
}

/// A process that cannot be mistaken for another, even after it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Its number.
    pub pid: u32,
    began_ticks: u64,
}

impl Identity {
    /// Whether this very process still is there.
    #[must_use]
    pub fn lives(&self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.began_ticks == self.began_ticks)
    }
}

/// `root` and all its descendants.
#[must_use]
pub fn tree(root: u32) -> Vec<Identity> {
    let table = table();
    let identity = |pid| table.get(&pid).map(|stat| Identity { pid, began_ticks: stat.began_ticks });
    descendants(&table, root).into_iter().filter_map(identity).collect()
}

impl Stat {
    /// CPU in microseconds, given what its living threads say.
    fn cpu_micros(self, threads_nanos: u64) -> u64 {
        (self.own_ticks * TICK_MICROS).max(threads_nanos / 1000) + self.reaped_ticks * TICK_MICROS
    }
}

/// The cost of `root` and all its descendants; zero where it has ended.
#[must_use]
pub fn tree_usage(root: u32) -> Usage {
    let table = table();
    let mut usage = Usage::default();
    for pid in descendants(&table, root) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        usage.cpu_micros += table.get(&pid).map_or(0, |stat| stat.cpu_micros(threads_nanos(pid)));
        usage.resident_octets += field_octets(&status, "VmRSS:");
        usage.anonymous_octets += field_octets(&status, "RssAnon:");
        usage.peak_octets += field_octets(&status, "VmHWM:");
        usage.processes += 1;
    }
    usage
}

/// The CPU that this process has used, in microseconds.
#[must_use]
pub fn own_cpu_micros() -> u64 {
    let pid = std::process::id();
    stat(pid).map_or(0, |stat| stat.cpu_micros(threads_nanos(pid)))
}

/// The CPU of a process's living threads, in nanoseconds; 0 where the kernel does not keep it.
fn threads_nanos(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.path().join("schedstat")).ok());
    texts.filter_map(|text| text.split_ascii_whitespace().next()?.parse::<u64>().ok()).sum()
}

/// Every process of the host that can be seen.
fn table() -> BTreeMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, stat(pid)?))
        })
        .collect()
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `root`, where it lives, and all that descend from it.
fn descendants(table: &BTreeMap<u32, Stat>, root: u32) -> Vec<u32> {
    let mut found: Vec<u32> = table.contains_key(&root).then_some(root).into_iter().collect();
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(
            table.iter().filter(|(pid, stat)| stat.parent == parent && **pid != parent).map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found
}

/// The fields behind the command's name, which is in brackets and may hold anything, brackets too.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    // state ppid ... utime stime cutime cstime ... starttime are fields 3, 4, 14 to 17 and 22 of the whole line.
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own_ticks: number(11)? + number(12)?,
        reaped_ticks: number(13)? + number(14)?,
        began_ticks: number(19)?,
    })
}

/// A field of `/proc/PID/status`, given there in kB.
fn field_octets(status: &str, name: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_past_a_hostile_command_name() {
        let text = "12 (a) R 1 (b) S 7 1 1 0 -1 4194304 1 2 3 4 100 20 3 4 20 0 1 0 5";
        assert_eq!(
            parse_stat(text),
            Some(Stat { parent: 7, own_ticks: 120, reaped_ticks: 7, began_ticks: 5 })
        );
        assert_eq!(parse_stat("12 (sh"), None);
    }

    #[test]
    fn sums_a_tree_and_nothing_beside_it() {
        let stat = |parent| Stat { parent, own_ticks: 1, reaped_ticks: 0, began_ticks: 1 };
        let table = BTreeMap::from([(1, stat(0)), (5, stat(1)), (6, stat(5)), (7, stat(6)), (8, stat(1))]);
        assert_eq!(descendants(&table, 5), [5, 6, 7]);
        assert!(descendants(&table, 9).is_empty());
    }

    #[test]
    fn the_finer_account_counts_unless_threads_have_ended() {
        let stat = Stat { parent: 1, own_ticks: 2, reaped_ticks: 1, began_ticks: 1 };
        assert_eq!(stat.cpu_micros(27_000_000), 37_000);
        assert_eq!(stat.cpu_micros(5_000_000), 30_000);
    }

    #[test]
    fn sees_itself() {
        let usage = tree_usage(std::process::id());
        assert!(
            usage.processes >= 1 && usage.resident_octets > 0 && usage.peak_octets >= usage.resident_octets
        );
        assert!(usage.anonymous_octets <= usage.resident_octets);
    }

    #[test]
    fn tells_itself_from_another_of_the_same_number() {
        let own = tree(std::process::id())[0];
        assert!(own.lives() && !Identity { began_ticks: own.began_ticks + 1, ..own }.lives());
    }

    #[test]
    fn a_field_is_in_kilobytes() {
        assert_eq!(field_octets("Name:\tx\nVmRSS:\t    12 kB\n", "VmRSS:"), 12_288);
        assert_eq!(field_octets("Name:\tx\n", "VmRSS:"), 0);
    }
}
