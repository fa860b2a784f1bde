//! Medians over rounds, ratios within a round, a table in Markdown. It measures nothing.
//!
//! A ratio is taken between two figures of the same round, and the median of those ratios is shown: what disturbs the
//! machine for a round disturbs both.

use serde::Serialize;

use crate::host::Host;
use crate::measure::{Figures, IdleFigures, Workload};
use crate::peer::{Holder, Peer};

const MEBIBYTE: f64 = (1 << 20) as f64;

/// A measurement, or in words why there is none.
pub type Outcome<T> = Result<T, String>;

/// All rounds of one peer under one load.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The peer.
    #[serde(serialize_with = "by_name")]
    pub peer: Peer,
    /// The load.
    pub workload: Workload,
    /// A measurement a round, in order.
    pub rounds: Vec<Outcome<Figures>>,
}

/// The memory of one peer with idle sessions.
#[derive(Debug, Clone, Serialize)]
pub struct IdleRow {
    /// The peer.
    #[serde(serialize_with = "by_name")]
    pub peer: Peer,
    /// What it took.
    pub figures: Outcome<IdleFigures>,
}

/// A whole run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where.
    pub host: Host,
    /// With what, in words.
    pub settings: String,
    /// Loads, the rows of one load together.
    pub rows: Vec<Row>,
    /// Idle sessions, where they were asked for.
    pub idle: Vec<IdleRow>,
}

impl Report {
    /// The report as people read it.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = self.head();
        for group in self.rows.chunk_by(|one, two| one.workload == two.workload) {
            load_table(&mut text, group);
        }
        if !self.idle.is_empty() {
            idle_table(&mut text, &self.idle);
        }
        text
    }

    fn head(&self) -> String {
        let host = &self.host;
        format!(
            "{} x {}, {:.0} GiB, Linux {}, {}, {}\ncommit {}; {}\n{}\n",
            host.processors,
            host.processor,
            host.memory_octets as f64 / 1024.0 / MEBIBYTE,
            host.kernel,
            host.system,
            host.file_system,
            host.commit,
            host.versions.join(", "),
            self.settings,
        )
    }
}

/// The peer whose figures the others are divided by: HAProxy, else Postfix, where it was measured.
fn baseline(rows: &[Row]) -> Option<&Row> {
    let measured =
        |peer: &Peer| rows.iter().find(|row| row.peer == *peer && row.rounds.iter().any(Result::is_ok));
    measured(&Peer::Haproxy(None)).or_else(|| measured(&Peer::Postfix))
}

fn load_table(text: &mut String, rows: &[Row]) {
    let Some(first) = rows.first() else { return };
    let base = baseline(rows);
    let name = base.map_or_else(|| "nothing".to_owned(), |row| row.peer.to_string());
    let mut notes = Vec::new();
    line(text, &format!("\n### {}\n", first.workload));
    line(
        text,
        &format!(
            "| peer | messages/s | / {name} | relay CPU µs/message | / {name} | p50 ms | p99 ms | p99.9 ms | RSS MiB (anonymous) | generator + sink µs |"
        ),
    );
    line(text, "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |");
    for row in rows {
        line(text, &load_line(row, base));
        notes.extend(faults(row));
    }
    if !notes.is_empty() {
        line(text, &format!("\n{}", notes.join("\n")));
    }
}

fn load_line(row: &Row, base: Option<&Row>) -> String {
    let Some(rate) = middle(row, |figures| figures.delivered_per_second) else {
        let reason = row.rounds.iter().find_map(|round| round.as_ref().err());
        return format!("| {} | left out: {} |", row.peer, reason.map_or("not measured", String::as_str));
    };
    let value = |figure: fn(&Figures) -> f64| middle(row, figure).unwrap_or(0.0);
    let quotient = |figure: fn(&Figures) -> f64| match base.and_then(|base| ratio(row, base, figure)) {
        Some(ratio) => format!("{ratio:.2}"),
        None => "–".to_owned(),
    };
    let rate = match row.peer.holder() {
        Holder::Sink => format!("{rate:.0}"),
        Holder::Queue => format!("{rate:.0} (accepted {:.0})", value(|figures| figures.accepted_per_second)),
    };
    let has_process = row.peer != Peer::Direct;
    let cost = |cell: String| if has_process { cell } else { "–".to_owned() };
    format!(
        "| {} | {rate} | {} | {} | {} | {:.2} | {:.2} | {:.2} | {} | {:.0} |",
        row.peer,
        quotient(|figures| figures.delivered_per_second),
        cost(format!("{:.1}", value(|figures| figures.peer_cpu_micros))),
        cost(quotient(|figures| figures.peer_cpu_micros)),
        value(|figures| figures.load.p50_micros as f64) / 1000.0,
        value(|figures| figures.load.p99_micros as f64) / 1000.0,
        value(|figures| figures.load.p999_micros as f64) / 1000.0,
        cost(format!(
            "{:.1} ({:.1})",
            value(|figures| figures.resident_octets as f64) / MEBIBYTE,
            value(|figures| figures.anonymous_octets as f64) / MEBIBYTE
        )),
        value(|figures| figures.load_cpu_micros),
    )
}

/// What makes a row's figures worth less, a line each.
fn faults(row: &Row) -> Vec<String> {
    let mut notes = Vec::new();
    for (round, outcome) in row.rounds.iter().enumerate() {
        let mut note = |what: String| notes.push(format!("**{}, round {}: {what}**", row.peer, round + 1));
        match outcome {
            Err(reason) if row.rounds.iter().any(Result::is_ok) => note(format!("not measured: {reason}")),
            Err(_) => {}
            Ok(figures) => {
                if figures.lost > 0 {
                    note(format!("{} acknowledged messages never arrived", figures.lost));
                }
                if figures.damaged > 0 {
                    note(format!(
                        "{} of {} checked messages arrived changed",
                        figures.damaged, figures.checked
                    ));
                }
                if let Some(failure) = &figures.load.failure {
                    note(format!("{} messages failed, the first: {failure}", figures.load.failures));
                }
            }
        }
    }
    notes
}

fn idle_table(text: &mut String, rows: &[IdleRow]) {
    line(text, "\n### Idle sessions\n");
    line(text, "| peer | sessions | RSS MiB | anonymous MiB | octets a session |");
    line(text, "| --- | --: | --: | --: | --: |");
    for row in rows {
        line(
            text,
            &match &row.figures {
                Err(reason) => format!("| {} | left out: {reason} |", row.peer),
                Ok(figures) => format!(
                    "| {} | {} | {:.1} | {:.1} | {} |",
                    row.peer,
                    figures.sessions,
                    figures.resident_octets as f64 / MEBIBYTE,
                    figures.anonymous_octets as f64 / MEBIBYTE,
                    figures.octets_per_session
                ),
            },
        );
    }
}

/// The median of a figure over the rounds that have one.
fn middle(row: &Row, figure: impl Fn(&Figures) -> f64) -> Option<f64> {
    median(row.rounds.iter().flatten().map(figure).collect())
}

/// The median over rounds of `row`'s figure divided by `base`'s in the same round.
fn ratio(row: &Row, base: &Row, figure: impl Fn(&Figures) -> f64) -> Option<f64> {
    let pairs = row.rounds.iter().zip(&base.rounds);
    let both =
        pairs.filter_map(|(one, other)| Some((figure(one.as_ref().ok()?), figure(other.as_ref().ok()?))));
    median(both.filter(|(_, other)| *other > 0.0).map(|(one, other)| one / other).collect())
}

/// The middle value; the mean of the two in the middle of an even number.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    Some(f64::midpoint(values[last / 2], values[last.div_ceil(2)]))
}

fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn by_name<S: serde::Serializer>(peer: &Peer, out: S) -> Result<S::Ok, S::Error> {
    out.collect_str(peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::{LoadReport, Mode};
    use crate::measure::Connections;

    fn figures(cpu: f64, rate: f64) -> Figures {
        let load = LoadReport {
            messages: 10,
            failures: 0,
            failure: None,
            connections: 1,
            seconds: 1.0,
            cpu_micros: 0,
            p50_micros: 1000,
            p99_micros: 2000,
            p999_micros: 3000,
            max_micros: 3000,
        };
        Figures {
            load,
            accepted_per_second: rate,
            delivered_per_second: rate,
            peer_cpu_micros: cpu,
            load_cpu_micros: 50.0,
            resident_octets: 3 << 20,
            anonymous_octets: 1 << 20,
            peak_octets: 3 << 20,
            lost: 0,
            damaged: 0,
            checked: 1,
        }
    }

    fn row(peer: Peer, rounds: Vec<Outcome<Figures>>) -> Row {
        let workload =
            Workload { sessions: 20, octets: 1024, mode: Mode::Lockstep, connections: Connections::Reused };
        Row { peer, workload, rounds }
    }

    fn table(rows: &[Row]) -> String {
        let mut text = String::new();
        load_table(&mut text, rows);
        text
    }

    #[test]
    fn divides_within_a_round_and_takes_the_median_of_that() {
        let base = row(
            Peer::Haproxy(None),
            vec![Ok(figures(100.0, 10.0)), Ok(figures(200.0, 10.0)), Ok(figures(10.0, 10.0))],
        );
        let ours = row(
            Peer::Direct,
            vec![Ok(figures(50.0, 10.0)), Ok(figures(100.0, 10.0)), Ok(figures(100.0, 10.0))],
        );
        assert_eq!(ratio(&ours, &base, |figures| figures.peer_cpu_micros), Some(0.5));
    }

    #[test]
    fn a_round_that_only_one_has_is_no_ratio() {
        let base = row(Peer::Haproxy(None), vec![Err("ended".to_owned()), Ok(figures(200.0, 10.0))]);
        let ours = row(Peer::Direct, vec![Ok(figures(1.0, 10.0)), Ok(figures(100.0, 10.0))]);
        assert_eq!(ratio(&ours, &base, |figures| figures.peer_cpu_micros), Some(0.5));
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
    }

    #[test]
    fn what_is_missing_is_left_out_visibly() {
        let text = table(&[
            row(Peer::Haproxy(None), vec![Err("not installed".to_owned())]),
            row(Peer::Direct, vec![Ok(figures(0.0, 9.0))]),
        ]);
        assert!(
            text.contains("| haproxy | left out: not installed |") && text.contains("| direct | 9 | – | – |"),
            "{text}"
        );
    }

    #[test]
    fn loss_and_damage_stand_below_the_table() {
        let bad = Figures { lost: 2, damaged: 1, ..figures(1.0, 9.0) };
        let text = table(&[row(Peer::Haproxy(None), vec![Ok(bad)])]);
        assert!(text.contains("**haproxy, round 1: 2 acknowledged messages never arrived**"), "{text}");
        assert!(text.contains("1 of 1 checked messages arrived changed"), "{text}");
    }
}
