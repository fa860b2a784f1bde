//! `kill -9` at random moments under load, restart, drain: every acknowledged message is delivered, whatever the upstream
//! is like.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use ringpost_tests::daemon::{Builder, Daemon};
use ringpost_tests::upstream::{Act, Script, Stage, Upstream, refusing};
use ringpost_tests::wait::{Latch, Watched};

use super::ledger::{Balance, Ledger, Load, Shared, balance, mixed};

/// What the upstream does while the load is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    Up,
    Down,
    /// Its verdicts do not come until the end.
    Stalled,
    /// It puts many recipients off.
    Busy,
    /// It closes the connection at the dot.
    Closing,
}

/// How many times the daemon is killed in one play: `RINGPOST_CRASH_KILLS`, or a few.
fn kills() -> u64 {
    std::env::var("RINGPOST_CRASH_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// Where the draws begin: `RINGPOST_CRASH_SEED`, printed by a failure's output.
fn seed() -> u64 {
    std::env::var("RINGPOST_CRASH_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn script(weather: Weather, latch: &Latch) -> Script {
    let mut script = Script::new();
    match weather {
        Weather::Up | Weather::Down => {}
        Weather::Stalled => {
            let acts = || [Act::Wait(latch.clone()), Act::Say("250 2.0.0 Ok".to_owned())];
            script = script.on(Stage::Message, acts()).on(Stage::LastChunk, acts());
        }
        Weather::Busy => {
            for _ in 0..40 {
                script = script.once(Stage::Rcpt, "450 4.2.0 Busy").once(Stage::Rcpt, "250 2.1.5 Ok");
            }
        }
        Weather::Closing => {
            for _ in 0..20 {
                script = script.once(Stage::Message, Act::Close).once(Stage::Message, "250 2.0.0 Ok");
            }
        }
    }
    script
}

fn life(builder: Builder, number: u64) -> Daemon {
    // The sink tells the lives apart by their greetings.
    builder.with("RELAY_HOST_NAME", &format!("life{number}.test")).start()
}

#[track_caller]
fn play(weather: Weather, patience: &str) -> Balance {
    // Sessions of the first life may wait until the last.
    let latch = Latch::behind(kills() + 1);
    let address: SocketAddr = refusing();
    let up = || {
        let listener = TcpListener::bind(address).expect("the port is free");
        Upstream::start_at(listener, script(weather, &latch))
    };
    let mut upstream = (weather != Weather::Down).then(up);
    let mut builder = Builder::relaying_to(&format!("[127.0.0.1]:{}", address.port()))
        .with("DELIVERY_PATIENCE", patience)
        .with("QUEUE_RETRY", "100ms")
        .with("WORKERS", "2");
    let ledger: Shared = Arc::new(Watched::new(Ledger::default()));
    for kill in 0..kills() {
        let daemon = life(builder, kill);
        let before = ledger.read(|ledger| ledger.acknowledged.len());
        let load = Load::start(daemon.smtp(), 12, 60_000, &ledger);
        let enough = before + 20 + usize::try_from(mixed(seed() * 1000 + kill) % 150).unwrap_or(0);
        ledger.find("enough is acknowledged", |ledger| (ledger.acknowledged.len() >= enough).then_some(()));
        builder = daemon.kill();
        load.end();
    }
    latch.open();
    let upstream = upstream.get_or_insert_with(up);
    let daemon = life(builder, kills());
    daemon.verb(&["flush"]);
    daemon.reaches("ringpost_queue_octets", 0.0);
    assert_eq!(daemon.verb(&["queue", "list", "--json"]).stdout, "");
    let found = balance(&ledger, upstream);
    daemon.stop();
    println!("{weather:?}, patience {patience}, seed {}: {found:?}", seed());
    found
}

#[track_caller]
fn assert_balanced(weather: Weather) {
    for patience in ["0", "20ms"] {
        let found = play(weather, patience);
        assert!(found.acknowledged > 0);
        // Only an upstream that is lost after the dot may get a message twice without a kill in between.
        assert!(weather == Weather::Closing || found.twice_in_one_life == 0, "{found:?}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_when_the_upstream_is_up() {
    assert_balanced(Weather::Up);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_upstream_is_down() {
    assert_balanced(Weather::Down);
}

#[test]
fn nothing_acknowledged_is_lost_when_verdicts_do_not_come() {
    assert_balanced(Weather::Stalled);
}

#[test]
fn nothing_acknowledged_is_lost_when_recipients_are_put_off() {
    assert_balanced(Weather::Busy);
}

#[test]
fn nothing_acknowledged_is_lost_when_the_upstream_closes_at_the_dot() {
    assert_balanced(Weather::Closing);
}
