//! The log as its readers see it: real files and sockets, hostile values.

use std::collections::BTreeMap;
use std::path::Path;

use tracing::subscriber::with_default;

use super::config::{Format, Target};
use super::*;
use crate::limits;

const PATIENCE: Duration = Duration::from_secs(60);

/// What the log makes of the events that `act` logs.
fn logged(format: Format, level: Level, act: impl FnOnce(&Log)) -> String {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("log");
    let (log, recorder) =
        Log::prepare(&Config { target: Target::File(path.clone()), format, level }).unwrap();
    with_default(recorder, || act(&log));
    assert!(log.flush(PATIENCE));
    std::fs::read_to_string(path).unwrap()
}

fn text(act: impl FnOnce()) -> String {
    logged(Format::Text, Level::Info, |_| act())
}

fn json(act: impl FnOnce()) -> BTreeMap<String, serde_json::Value> {
    let line = logged(Format::Json, Level::Info, |_| act());
    assert_eq!(line.matches('\n').count(), 1, "{line}");
    serde_json::from_str(&line).unwrap()
}

/// The line after its stamp.
fn after_stamp(line: &str) -> &str {
    assert!(line.starts_with("ts=2"), "{line}");
    line.split_once(' ').unwrap().1
}

#[test]
fn a_line_holds_its_fields_in_order() {
    let line = text(|| {
        tracing::info!(event = "relayed", session = %"0.1a", from = "a@b.example", nrcpt = 2, delay = 0.25, ok = true);
    });
    assert_eq!(
        after_stamp(&line),
        "level=info event=relayed session=0.1a from=a@b.example nrcpt=2 delay=0.25 ok=true\n"
    );
}

#[test]
fn absent_values_have_no_field() {
    let line = text(|| tracing::warn!(event = "ready", smtp = Some("[::]:25"), submission = None::<&str>));
    assert_eq!(after_stamp(&line), "level=warn event=ready smtp=[::]:25\n");
}

#[test]
fn json_has_the_same_names_and_real_numbers() {
    let object = json(|| {
        tracing::info!(
            event = "relayed",
            from = "a@b",
            size = 1234u64,
            delay = 0.5,
            bad = f64::NAN,
            ok = false
        );
    });
    assert_eq!(object["level"], "info");
    assert_eq!(object["from"], "a@b");
    assert_eq!(object["size"], 1234);
    assert_eq!(object["delay"], 0.5);
    assert_eq!(object["bad"], serde_json::Value::Null);
    assert_eq!(object["ok"], false);
    assert_eq!(object["ts"].as_str().unwrap().len(), "2026-01-02T03:04:05.678Z".len());
}

/// E7 of the catalogue of attacks: what a peer may put into HELO, an address or a reply.
const HOSTILE: [&str; 6] = [
    "x\r\nts=2026-01-01 level=error event=forged",
    "\x1b[2J\x1b[31mred",
    "abc\u{202e}gnp.exe\u{2066}",
    "quote\" back\\slash {\"event\":\"forged\"}",
    "\0\u{85}\u{9b}\u{2028}end",
    "Grüße 世界",
];

#[test]
fn no_value_forges_a_line_in_text() {
    for value in HOSTILE {
        let line = text(|| tracing::info!(event = "rejected", helo = value, reply = ?value, to = %value));
        assert_eq!(line.lines().count(), 1, "{line:?}");
        assert!(!line.trim_end().chars().any(char::is_control), "{line:?}");
        assert!(!line.contains(['\u{202e}', '\u{2066}', '\u{2028}']), "{line:?}");
        assert_eq!(
            line.matches(" level=").count() - line.matches("2026-01-01 level=").count(),
            1,
            "{line:?}"
        );
    }
}

#[test]
fn no_value_forges_a_field_in_json() {
    for value in HOSTILE {
        let object = json(|| tracing::info!(event = "rejected", helo = value, to = %value));
        assert_eq!(object["event"], "rejected");
        assert_eq!((&object["helo"], &object["to"]), (&value.into(), &value.into()));
    }
}

#[test]
fn a_value_of_a_megabyte_is_cut() {
    let long = "\x1b".repeat(1 << 20);
    for format in [Format::Text, Format::Json] {
        let line = logged(format, Level::Info, |_| {
            tracing::info!(event = "rejected", from = long.as_str(), to = %long, reply = ?long, last = 1);
        });
        assert!(line.len() <= limits::LOG_LINE_OCTETS_MAX, "{}", line.len());
        assert!(line.contains('…'));
        assert!(line.contains("truncated"), "{}", &line[line.len() - 100..]);
        if format == Format::Json {
            serde_json::from_str::<serde_json::Value>(&line).unwrap();
        }
    }
}

#[test]
fn the_level_holds_and_can_be_changed() {
    let lines = logged(Format::Text, Level::Warn, |log| {
        let step = |number: u32| tracing::info!(event = "step", number);
        step(1);
        log.set_level(Level::Info);
        step(2);
        log.set_level(Level::Error);
        step(3);
    });
    assert_eq!(lines.lines().count(), 1, "{lines}");
    assert!(lines.contains("number=2"), "{lines}");
}

#[test]
fn libraries_are_heard_when_they_warn() {
    let lines = text(|| {
        tracing::info!(target: "hickory_resolver::x", "chatter");
        tracing::warn!(target: "hickory_resolver::x", "a name server is odd: {}", "192.0.2.1");
    });
    assert_eq!(
        after_stamp(&lines),
        "level=warn event=library target=hickory_resolver::x message=\"a name server is odd: 192.0.2.1\"\n"
    );
}

#[test]
fn lines_of_all_threads_arrive_and_none_is_torn() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("log");
    let config = Config { target: Target::File(path.clone()), format: Format::Text, level: Level::Info };
    let (log, recorder) = Log::prepare(&config).unwrap();
    let dispatch = tracing::Dispatch::new(recorder);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let dispatch = &dispatch;
            scope.spawn(move || {
                tracing::dispatcher::with_default(dispatch, || {
                    for number in 0..2000 {
                        tracing::info!(event = "step", thread, number);
                    }
                });
            });
        }
    });
    assert!(log.flush(PATIENCE));
    let lines = std::fs::read_to_string(path).unwrap();
    assert_eq!(lines.lines().count() as u64 + log.lines_dropped(), 8000);
    assert!(lines.lines().all(|line| line.starts_with("ts=2") && line.contains(" number=")));
}

#[test]
fn a_target_that_does_not_take_lines_stops_nobody() {
    // A FIFO whose reader never reads: the writer blocks once the pipe is full.
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let config = Config { target: Target::File(path), format: Format::Text, level: Level::Info };
    let (log, recorder) = Log::prepare(&config).unwrap();
    let value = "x".repeat(1000);
    with_default(recorder, || {
        for _ in 0..5000 {
            tracing::info!(event = "step", value = value.as_str());
        }
    });
    assert!(log.lines_dropped() > 0);
    assert!(!log.flush(Duration::from_millis(1)), "nothing is read, so nothing is flushed");
    drop(reader);
}

#[test]
fn the_journal_gets_every_field_beside_the_message() {
    let record = datagram(Target::Journald, |path| Config {
        target: Target::File(path.to_owned()),
        format: Format::Text,
        level: Level::Info,
    });
    let lines: Vec<&str> = record.lines().collect();
    assert_eq!(
        lines,
        [
            "RINGPOST_EVENT=rejected",
            r"RINGPOST_QUEUE_ID=a\nMESSAGE=forged",
            "RINGPOST_CODE=550",
            "PRIORITY=4",
            "SYSLOG_IDENTIFIER=ringpost",
            r#"MESSAGE=level=warn event=rejected queue_id="a\nMESSAGE=forged" code=550"#,
        ]
    );
}

#[test]
fn syslog_gets_facility_severity_and_name() {
    let record = datagram(Target::Syslog, |path| Config {
        target: Target::File(path.to_owned()),
        format: Format::Text,
        level: Level::Info,
    });
    assert!(record.starts_with("<20>"), "{record}");
    let (head, line) = record.split_once("]: ").unwrap();
    assert!(head.ends_with(&format!(" ringpost[{}", std::process::id())), "{record}");
    assert_eq!(line, r#"level=warn event=rejected queue_id="a\nMESSAGE=forged" code=550"#);
}

/// The one record that a datagram target would be sent.
fn datagram(target: Target, config: impl FnOnce(&Path) -> Config) -> String {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("records");
    let config = config(&path);
    let (log, mut recorder) = Log::prepare(&config).unwrap();
    recorder.encoding = Encoding::of(&Config { target, ..config });
    with_default(recorder, || {
        tracing::warn!(event = "rejected", queue_id = "a\nMESSAGE=forged", code = 550);
    });
    assert!(log.flush(PATIENCE));
    let octets = std::fs::read(path).unwrap();
    let record = lanes::records(&octets).next().unwrap().to_vec();
    String::from_utf8(record).unwrap()
}
