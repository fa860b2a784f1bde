//! The schedule's promises, one a test, and a model that does random things to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::policy::rate::Rate;

const HOUR_MS: u64 = 3_600_000;

fn id(number: u32) -> QueueId {
    QueueId::from_bits(u128::from(number) + 1).unwrap()
}

fn schedule(limit: u32) -> Schedule {
    let waits = [60, 300, 600].map(Duration::from_secs).to_vec();
    Schedule::new(Retry::new(waits, Duration::from_secs(24 * 3600)), limit)
}

fn at(seconds: u64) -> Now {
    Now { moment: Moment(seconds * 1_000_000), unix_ms: 1_000_000_000_000 + seconds * 1000 }
}

fn mail(number: u32, destination: u32, source: u32) -> Summary {
    let now_s = u32::try_from(at(0).unix_ms / 1000).unwrap();
    Summary {
        id: id(number),
        keys: Keys { destination, source },
        arrival_s: now_s,
        due_s: now_s,
        attempts: 0,
        held: false,
        delay_told: false,
        octets: 1,
    }
}

const LOOK: Look = Look { messages: 100, found_max: 100, warn_after: None };

/// Lets everything that may begin begin; says what did.
fn begin(schedule: &mut Schedule, now: Now) -> Vec<QueueId> {
    std::iter::from_fn(|| schedule.next(now, None)).map(|due| due.id).collect()
}

fn open_window(schedule: &mut Schedule, destination: u32) {
    for number in 0..40 {
        schedule.insert(&mail(1_000_000 + number, destination, 0), at(0));
        let due = schedule.next(at(0), None).unwrap();
        assert_eq!(schedule.finished(due.id, Outcome::Settled, at(0), 0), After::Gone);
    }
}

#[test]
fn new_mail_is_due_at_once_and_only_once() {
    let mut schedule = schedule(20);
    schedule.insert(&mail(1, 0, 0), at(0));
    schedule.insert(&mail(1, 0, 0), at(0));
    assert_eq!(begin(&mut schedule, at(0)), [id(1)]);
    assert_eq!(schedule.counts(), Counts { under_way: 1, ..Counts::default() });
    assert_eq!(schedule.finished(id(1), Outcome::Settled, at(0), 0), After::Gone);
    assert_eq!(schedule.counts(), Counts::default());
    assert_eq!(schedule.wake_at(at(0).moment), Moment::NEVER);
}

#[test]
fn sources_take_turns_so_that_a_flood_delays_itself() {
    let mut schedule = schedule(1);
    for number in 0..100 {
        schedule.insert(&mail(number, 0, 1), at(0));
    }
    schedule.insert(&mail(500, 0, 2), at(0));
    schedule.insert(&mail(501, 0, 3), at(0));
    let mut order = Vec::new();
    while let Some(due) = schedule.next(at(0), None) {
        order.push(due.id);
        schedule.finished(due.id, Outcome::Settled, at(0), 0);
    }
    assert_eq!(order.len(), 102);
    assert_eq!(order[..4], [id(0), id(500), id(501), id(1)]);
}

#[test]
fn destinations_take_turns_and_a_dead_one_does_not_hold_up_the_others() {
    let mut schedule = schedule(5);
    for number in 0..30 {
        schedule.insert(&mail(number, number % 2, 0), at(0));
    }
    let mut delivered = 0;
    for _ in 0..200 {
        let Some(due) = schedule.next(at(0), None) else { break };
        let outcome = if due.destination == 0 { Outcome::Unreachable } else { Outcome::Settled };
        delivered += u32::from(outcome == Outcome::Settled);
        schedule.finished(due.id, outcome, at(0), 0);
    }
    assert_eq!(delivered, 15);
    assert_eq!(schedule.counts(), Counts { waiting: 3, ready: 12, ..Counts::default() });
}

#[test]
fn a_destination_has_no_more_under_way_than_its_window_and_its_limit() {
    let mut schedule = schedule(7);
    for number in 0..100 {
        schedule.insert(&mail(number, 0, 0), at(0));
    }
    assert_eq!(begin(&mut schedule, at(0)).len(), 2, "at first the window is small");
    let (mut begun, mut most) = (Vec::new(), 2);
    for number in 0..90 {
        schedule.finished(id(number), Outcome::Settled, at(0), 0);
        begun = begin(&mut schedule, at(0));
        most = most.max(schedule.counts().under_way);
        assert!(begun.len() <= 2, "the window opens by one");
    }
    assert_eq!((most, begun.len()), (7, 1));
}

#[test]
fn a_deferred_message_waits_as_configured() {
    let mut schedule = schedule(20);
    schedule.insert(&mail(1, 0, 0), at(0));
    begin(&mut schedule, at(0));
    let after = schedule.finished(id(1), Outcome::Deferred, at(0), 6_000_000);
    assert_eq!(after, After::Again { attempts: 1, due_ms: at(60).unix_ms });
    assert!(begin(&mut schedule, at(59)).is_empty());
    assert_eq!(schedule.wake_at(at(59).moment), at(60).moment);
    assert_eq!(begin(&mut schedule, at(60)), [id(1)]);
}

#[test]
fn a_dead_upstream_costs_one_attempt_at_a_time_whatever_the_backlog() {
    let mut schedule = schedule(20);
    for number in 0..1000 {
        schedule.insert(&mail(number, 0, number), at(0));
    }
    let mut attempts = 0;
    for second in 0..3600 {
        for id in begin(&mut schedule, at(second)) {
            attempts += 1;
            schedule.finished(id, Outcome::Unreachable, at(second), 0);
        }
    }
    // One each 30 s, once the pauses have grown.
    assert!((115..135).contains(&attempts), "{attempts}");
    for id in begin(&mut schedule, at(4000)) {
        schedule.finished(id, Outcome::Settled, at(4000), 0);
    }
    let mut delivered = 1;
    while let Some(due) = schedule.next(at(4000), None) {
        delivered += 1;
        schedule.finished(due.id, Outcome::Settled, at(4000), 0);
    }
    assert!(delivered > 980, "it drains as soon as a probe succeeds: {delivered}");
}

#[test]
fn nothing_expires_without_an_attempt() {
    let mut schedule = schedule(20);
    let days = 30 * 24 * 3600;
    schedule.insert(&mail(1, 0, 0), at(days));
    assert_eq!(schedule.aged(at(days), LOOK), Aged::default());
    assert_eq!(begin(&mut schedule, at(days)), [id(1)]);
    assert_eq!(schedule.finished(id(1), Outcome::Deferred, at(days), 0), After::Expired);
    assert_eq!(schedule.finished(id(1), Outcome::Dropped, at(days), 0), After::Gone);
}

/// Three attempts in vain, which open the breaker of the first destination.
fn open_breaker(schedule: &mut Schedule, now: Now) {
    for _ in 0..3 {
        let due = schedule.next(now, None).unwrap();
        schedule.finished(due.id, Outcome::Unreachable, now, 0);
    }
}

#[test]
fn with_a_dead_upstream_all_expires_that_was_there_when_it_was_tried() {
    let mut schedule = schedule(20);
    for number in 0..5 {
        schedule.insert(&mail(number, 0, 0), at(0));
    }
    open_breaker(&mut schedule, at(7));
    let too_late = Summary { arrival_s: mail(0, 0, 0).arrival_s + 7, ..mail(5, 0, 0) };
    schedule.insert(&too_late, at(7));
    assert_eq!(schedule.aged(at(8), LOOK), Aged::default());
    let now = Now { unix_ms: at(8).unix_ms + 25 * HOUR_MS, ..at(8) };
    let expired: BTreeSet<QueueId> = schedule.aged(now, LOOK).expired.into_iter().collect();
    assert_eq!(expired, [0, 1, 2, 3, 4].map(id).into_iter().collect());
    for id in expired {
        assert_eq!(schedule.finished(id, Outcome::Dropped, now, 0), After::Gone);
    }
    assert_eq!(schedule.counts(), Counts { ready: 1, ..Counts::default() });
}

#[test]
fn what_could_not_be_returned_is_not_looked_at_again_before_its_time() {
    let mut schedule = schedule(20);
    (0..4).for_each(|number| schedule.insert(&mail(number, 0, 0), at(0)));
    open_breaker(&mut schedule, at(7));
    let later = |seconds| Now { unix_ms: at(seconds).unix_ms + 25 * HOUR_MS, ..at(seconds) };
    assert_eq!(schedule.aged(later(8), Look { found_max: 3, ..LOOK }).expired.len(), 3);
    let expired = schedule.aged(later(8), LOOK).expired;
    assert_eq!(expired.len(), 1, "the others are under way");
    assert!(schedule.postpone(expired[0], later(8), 0).is_some());
    assert_eq!(schedule.aged(later(9), LOOK), Aged::default());
    schedule.wake(at(100).moment);
    assert_eq!(schedule.aged(later(100), LOOK).expired, expired);
}

#[test]
fn senders_hear_of_a_delay_once_also_without_an_attempt() {
    let mut schedule = schedule(20);
    (0..8).for_each(|number| schedule.insert(&mail(number, 0, 0), at(0)));
    schedule.insert(&Summary { delay_told: true, ..mail(8, 0, 0) }, at(0));
    schedule.hold(id(0));
    open_breaker(&mut schedule, at(0));
    let look = Look { warn_after: Some(Duration::from_secs(60)), ..LOOK };
    assert_eq!(schedule.aged(at(59), look), Aged::default());
    let late: BTreeSet<QueueId> = schedule.aged(at(61), look).late.into_iter().collect();
    assert_eq!(late, (1..8).map(id).collect(), "the one held and the one told are left alone");
    assert_eq!(schedule.aged(at(62), look), Aged::default());
    schedule.note_told(id(5), false);
    assert_eq!(schedule.aged(at(62), look).late, [id(5)]);
    assert!(schedule.is_told(id(5)) && !schedule.is_told(id(0)));
}

#[test]
fn want_of_a_connection_says_nothing_of_a_destination_and_is_no_attempt() {
    let mut schedule = schedule(20);
    (0..10).for_each(|number| schedule.insert(&mail(number, 0, 0), at(0)));
    for number in 0..10 {
        let due = schedule.next(at(number), None).expect("no breaker opens");
        let after = schedule.finished(due.id, Outcome::Unasked, at(number), 6_000_000);
        assert_eq!(after, After::Again { attempts: 0, due_ms: at(number + 60).unix_ms });
    }
    assert!(!schedule.is_dead(0));
    let old = Now { unix_ms: at(70).unix_ms + 25 * HOUR_MS, ..at(70) };
    let due = schedule.next(old, None).unwrap();
    assert!(matches!(schedule.finished(due.id, Outcome::Unasked, old, 0), After::Again { .. }), "no expiry");
}

#[test]
fn a_message_held_while_under_way_is_not_attempted_twice_at_once() {
    let mut schedule = schedule(20);
    schedule.insert(&mail(1, 0, 0), at(0));
    begin(&mut schedule, at(0));
    assert!(schedule.hold(id(1)) && schedule.release(id(1), at(0)));
    assert!(begin(&mut schedule, at(0)).is_empty());
    schedule.hold(id(1));
    schedule.finished(id(1), Outcome::Deferred, at(0), 0);
    assert_eq!(schedule.counts(), Counts { held: 1, ..Counts::default() });
    assert!(begin(&mut schedule, at(100_000)).is_empty());
    schedule.release(id(1), at(100_000));
    assert_eq!(begin(&mut schedule, at(100_000)), [id(1)]);
}

#[test]
fn a_flush_tries_everything_but_what_is_held() {
    let mut schedule = schedule(20);
    for number in 0..3 {
        schedule.insert(&mail(number, 0, 0), at(0));
    }
    schedule.hold(id(2));
    for _ in 0..2 {
        let due = schedule.next(at(0), None).unwrap();
        schedule.finished(due.id, Outcome::Deferred, at(0), 0);
    }
    assert!(begin(&mut schedule, at(1)).is_empty());
    schedule.flush(at(1));
    assert_eq!(begin(&mut schedule, at(1)).len(), 2);
}

#[test]
fn the_rate_is_kept_and_said_when_it_ends() {
    let mut schedule = schedule(100);
    open_window(&mut schedule, 0);
    let bucket = Bucket::new(Rate { events: 10, period: Duration::from_secs(1), burst: 1 });
    for number in 0..5 {
        schedule.insert(&mail(number, 0, 0), at(0));
    }
    assert!(schedule.next(at(0), Some(&bucket)).is_some());
    assert!(schedule.next(at(0), Some(&bucket)).is_none());
    assert_eq!(schedule.wake_at(at(0).moment), Moment(100_000));
}

/// What the model knows of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Idle,
    UnderWay,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn whatever_is_done_to_it_nothing_is_lost_or_attempted_twice_at_once(
        steps in prop::collection::vec((0u8..10, 0u32..30, 0u64..400, any::<u64>()), 1..300),
    ) {
        let mut schedule = schedule(3);
        let mut known: BTreeMap<QueueId, Known> = BTreeMap::new();
        let mut now = at(0);
        for (step, number, seconds, random) in steps {
            let id = id(number);
            match step {
                0..3 => {
                    schedule.insert(&mail(number, number % 3, number % 5), now);
                    known.entry(id).or_insert(Known::Idle);
                }
                3 | 4 => if let Some(due) = schedule.next(now, None) {
                    prop_assert_eq!(known.insert(due.id, Known::UnderWay), Some(Known::Idle));
                },
                5 | 6 => if known.get(&id) == Some(&Known::UnderWay) {
                    let outcomes = [
                        Outcome::Settled, Outcome::Deferred, Outcome::Unreachable, Outcome::Dropped, Outcome::Unasked,
                    ];
                    let outcome = outcomes[usize::try_from(random % 5).unwrap()];
                    match schedule.finished(id, outcome, now, random) {
                        After::Gone => drop(known.remove(&id)),
                        After::Again { .. } => drop(known.insert(id, Known::Idle)),
                        After::Expired => {}
                    }
                },
                7 => now = Now {
                    moment: now.moment.after(Duration::from_secs(seconds)),
                    unix_ms: now.unix_ms + seconds * 1000,
                },
                8 => {
                    prop_assert_eq!(schedule.hold(id), known.contains_key(&id));
                    if random % 2 == 0 {
                        schedule.release(id, now);
                    }
                }
                _ => match random % 3 {
                    0 => prop_assert_eq!(schedule.remove(id), known.remove(&id).is_some()),
                    1 => prop_assert_eq!(schedule.requeue(id, now), known.contains_key(&id)),
                    _ => schedule.flush(now),
                },
            }
            let counts = schedule.counts();
            let under_way = known.values().filter(|&&known| known == Known::UnderWay).count();
            prop_assert_eq!(counts.under_way, under_way);
            prop_assert_eq!(counts.waiting + counts.ready + counts.under_way + counts.held, known.len());
        }
        for number in 0..30 {
            schedule.release(id(number), now);
        }
        let running: Vec<QueueId> =
            known.iter().filter(|(_, known)| **known == Known::UnderWay).map(|(&id, _)| id).collect();
        for id in running {
            schedule.finished(id, Outcome::Dropped, now, 0);
            known.remove(&id);
        }
        schedule.flush(now);
        while let Some(due) = schedule.next(now, None) {
            prop_assert_eq!(known.remove(&due.id), Some(Known::Idle));
            schedule.finished(due.id, Outcome::Settled, now, 0);
        }
        prop_assert!(known.is_empty(), "{:?}", known);
    }
}
