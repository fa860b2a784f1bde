//! Plays the lives of a relay that takes custody: patience, queue, crashes, recoveries, and at last good weather.
//!
//! A seed gives clients, upstreams and a disk; each life its own workers and patience, faults of its disk, and the point
//! at which it ends: after so many steps, or just behind the n-th thing that a peer hears. After the last crash everything
//! heals: what was promised must then come out, the ledger says to whom, and the queue must be empty, also after one more
//! crash.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use ringpost::egress;
use ringpost::io::Io;
use ringpost::io::files::sim::{self as files, SimDisk};
use ringpost::io::sim::{Faults, SimStream, World};
use ringpost::spool::{self, Geometry};
use ringpost::units::Moment;

use crate::client::visit;
use crate::dice::Dice;
use crate::flaws::Flaw;
use crate::ledger::{Harvest, History, Ledger, Terms};
use crate::machine::{Machine, Manner};
use crate::mail::Mail;
use crate::plan::{HONEST_TROUBLES, Plan, Weather};
use crate::play::{RELAY, egress_config, upstream_address};
use crate::talk::trace;
use crate::upstream::{Upstream, Watch};

/// What came of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lives {
    pub(crate) wrongs: Vec<String>,
    pub(crate) harvest: Harvest,
    pub(crate) ended: Moment,
    /// The same in every run of the seed.
    pub(crate) course: u64,
}

/// Where a life ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// After so many steps.
    Steps(u64),
    /// So many steps behind the event that makes the ledger count so far.
    Behind(u64, u64),
    /// In the middle of the next write behind that event.
    Writing(u64),
}

/// Everything that acts, and what is known of it.
struct Stage {
    world: World,
    dice: Dice,
    ledger: Rc<RefCell<Ledger>>,
    history: History,
    plans: Vec<Rc<Plan>>,
    upstreams: Vec<Rc<RefCell<World>>>,
    clients_left: Rc<Cell<usize>>,
    /// The machine that runs now.
    machine: Rc<RefCell<Option<Machine>>>,
    flaw: Option<Flaw>,
    recovered: usize,
}

/// Plays a seed with a flaw, or without.
pub(crate) fn play(seed: u64, flaw: Option<Flaw>) -> Lives {
    let dice = Dice::new(seed);
    let mut stage = Stage::set(seed, dice, flaw);
    let mut disk = SimDisk::new(stage.dice.below(u64::MAX));
    for _ in 0..stage.dice.pick(&[0, 0, 1, 2, 4]) {
        disk = stage.live(disk);
    }
    let disk = stage.rest(disk);
    stage.look_once_more(disk);
    stage.world.end();
    let (wrongs, mut harvest) = stage.ledger.borrow().judge_custody(&stage.history);
    harvest.recovered = stage.recovered;
    Lives { wrongs, harvest, ended: stage.world.now(), course: stage.world.course() }
}

impl Stage {
    fn set(seed: u64, dice: Dice, flaw: Option<Flaw>) -> Self {
        let still = Faults { delay_micros_max: 0, ..Faults::NONE };
        let faults = dice.pick(&[still, Faults::NONE, Faults::NONE, Faults::CUTS, Faults::BREAKS]);
        let world = World::new(seed, faults);
        let terms = Terms {
            loses_replies: faults.resets_permille > 0,
            delays: faults.delay_micros_max > 0,
            returns_8bit: true,
        };
        let plans: Vec<_> = (0..1 + dice.below(2)).map(|_| Rc::new(roll_plan(&dice))).collect();
        let history = History {
            lifetime: Duration::from_secs(dice.pick(&[600, 7200])),
            // One that refuses EHLO at times offers nothing at times.
            returns_8bit: plans
                .iter()
                .any(|plan| !plan.eight_bit || !plan.is_esmtp || plan.trouble_permille > 0),
            size_min: plans.iter().filter_map(|plan| plan.size).min(),
            ..History::default()
        };
        let stage = Self {
            upstreams: plans.iter().map(|_| Rc::new(RefCell::new(world.process()))).collect(),
            clients_left: Rc::default(),
            ledger: Rc::new(RefCell::new(Ledger::new(terms))),
            machine: Rc::default(),
            recovered: 0,
            world,
            dice,
            history,
            plans,
            flaw,
        };
        for at in 0..stage.plans.len() {
            stage.reopener(at)();
            stage.trouble_upstream(at);
        }
        stage.send_clients();
        stage
    }

    /// Sometimes it is down for a while.
    fn trouble_upstream(&self, at: usize) {
        if !self.dice.happens(400) {
            return;
        }
        let wait = Duration::from_millis(self.dice.below(60_000));
        let down = Duration::from_millis(self.dice.pick(&[500, 5_000, 60_000, 900_000]));
        let (world, host) = (self.world.clone(), Rc::clone(&self.upstreams[at]));
        let again = self.reopener(at);
        self.world.spawn(async move {
            world.sleep(wait).await;
            host.borrow().kill();
            world.sleep(down).await;
            again();
        });
    }

    /// Opens an upstream anew, in a process of its own.
    fn reopener(&self, at: usize) -> impl Fn() + 'static {
        let (world, host, plan) =
            (self.world.clone(), Rc::clone(&self.upstreams[at]), Rc::clone(&self.plans[at]));
        let (dice, ledger, watch) = (self.dice.clone(), Rc::clone(&self.ledger), self.watch());
        move || {
            host.borrow().kill();
            let process = world.process();
            let (plan, dice, ledger, watch) =
                (Rc::clone(&plan), dice.clone(), Rc::clone(&ledger), Rc::clone(&watch));
            let serving = process.clone();
            process.listen(upstream_address(at), move |stream: SimStream| {
                let (plan, dice, ledger) = (Rc::clone(&plan), dice.clone(), Rc::clone(&ledger));
                let upstream = Upstream::new(serving.clone(), stream, plan, dice, ledger, Rc::clone(&watch));
                serving.spawn(upstream.serve());
            });
            host.replace(process);
        }
    }

    /// What upstreams tell of each message that they have whole: for the flaw that settles it before they say a word.
    fn watch(&self) -> Watch {
        if self.flaw != Some(Flaw::DoneFirst) {
            return Rc::new(|_| {});
        }
        let machine = Rc::clone(&self.machine);
        Rc::new(move |content| {
            let text = String::from_utf8_lossy(content);
            let id = text.split(" id ").nth(1).and_then(|rest| rest.split([';', '\r', ' ']).next());
            if let (Some(id), Some(machine)) = (id, &*machine.borrow()) {
                machine.settle(id);
            }
        })
    }

    /// Clients come over the first minute, and come again until they have said everything.
    fn send_clients(&self) {
        let mut key = 0;
        for _ in 0..1 + self.dice.below(6) {
            let mut mails: VecDeque<_> = (0..1 + self.dice.below(4))
                .map(|_| {
                    key += 1;
                    Rc::new(Mail::roll(key, &self.dice))
                })
                .collect();
            let (world, dice, ledger) = (self.world.clone(), self.dice.clone(), Rc::clone(&self.ledger));
            let left = Rc::clone(&self.clients_left);
            left.set(left.get() + 1);
            let wait = Duration::from_millis(self.dice.below(self.dice.pick(&[10, 3_000, 60_000])));
            self.world.spawn(async move {
                world.sleep(wait).await;
                while !mails.is_empty() {
                    visit(world.clone(), RELAY, &mut mails, dice.clone(), Rc::clone(&ledger)).await;
                    world.sleep(Duration::from_millis(100 + dice.below(3_000))).await;
                }
                left.set(left.get() - 1);
            });
        }
    }

    fn roll_manner(&self) -> Manner {
        let dice = &self.dice;
        let patience = dice.pick(&[0, 0, 5, 5, 50, 50, 1000, 20_000]);
        let mut egress = egress_config(dice, self.plans.len());
        egress.delivery_patience = egress::Patience::Within(Duration::from_millis(patience));
        egress.eightbit = egress::EightBit::Bounce;
        let retry: &[u64] = dice.pick(&[&[1, 5, 20][..], &[20, 60], &[60]]);
        let octets_max = dice.pick(&[4 << 20, 4 << 20, 700_000]);
        let faults = files::Faults { write_short: 20, ..files::Faults::NONE };
        let faults = match dice.below(8) {
            0 => files::Faults { write_eio: 30, names: 30, read_eio: 20, ..faults },
            1 => files::Faults { write_eio: 300, write_enospc: 50, ..faults },
            2 => files::Faults { write_enospc: 50, capacity_octets: 400_000, ..faults },
            _ => faults,
        };
        Manner {
            workers: 1 + u16::try_from(dice.below(3)).unwrap_or(0),
            egress,
            spool: spool::Config {
                state_dir: "state".into(),
                retry: retry.iter().map(|&secs| Duration::from_secs(secs)).collect(),
                lifetime: self.history.lifetime,
                delay_warning: dice.happens(300).then_some(Duration::from_secs(30)),
                bounce_to: spool::config::BounceTo::Sender,
                space_max: spool::config::SpaceMax::Size(ringpost::units::Octets(octets_max)),
            },
            geometry: dice.pick(&[SMALL, SMALL, MIDDLE]),
            octets_max,
            faults,
            disk_micros_max: dice.pick(&[300, 3_000, 3_000, 100_000]),
            flaw: self.flaw,
        }
    }

    fn start(&mut self, disk: SimDisk, manner: Manner) -> Machine {
        let had_trouble = !self.history.disk_troubles.is_empty();
        let machine = Machine::start(&self.world, disk, (manner, had_trouble), &self.dice, &self.ledger);
        self.machine.replace(Some(machine.clone()));
        machine
    }

    /// One life, from its start to its crash, and the time until the next one.
    fn live(&mut self, disk: SimDisk) -> SimDisk {
        let manner = self.roll_manner();
        let is_failing = manner.is_disk_failing();
        let begun = self.world.now();
        let machine = self.start(disk, manner);
        let end = self.roll_end();
        self.run_to(end, &machine);
        let now = self.world.now();
        trace(&format!("{:>12} crash, {} queued", now.0, machine.queued()));
        self.history.crashes.push(now);
        self.ledger.borrow_mut().crashes += 1;
        if is_failing || machine.was_full.get() {
            self.history.disk_troubles.push((begun, now));
        }
        self.recovered += machine.recovered.get();
        self.machine.take();
        let disk = machine.crash(self.dice.below(u64::MAX));
        let down = Duration::from_millis(self.dice.pick(&[10, 500, 20_000]));
        self.pass(down);
        disk
    }

    fn roll_end(&self) -> End {
        let dice = &self.dice;
        let events = self.ledger.borrow().events + dice.below(30);
        match dice.below(3) {
            0 => End::Steps(dice.below(dice.pick(&[300, 3_000, 20_000]))),
            1 => End::Writing(events),
            _ => End::Behind(events, dice.below(dice.pick(&[3, 30, 300]))),
        }
    }

    fn run_to(&self, end: End, machine: &Machine) {
        let by = self.world.now().after(LIFE_MAX);
        let run_while =
            |goes_on: &dyn Fn() -> bool| while goes_on() && self.world.now() < by && self.world.step() {};
        let counts_to = |events: u64| move || self.ledger.borrow().events < events;
        let mut steps = 0;
        match end {
            End::Steps(count) => steps = count,
            End::Behind(events, count) => {
                run_while(&counts_to(events));
                steps = count;
            }
            End::Writing(events) => {
                run_while(&counts_to(events));
                run_while(&|| !machine.is_writing.get());
            }
        }
        while steps > 0 && self.world.step() {
            steps -= 1;
        }
    }

    /// Lets time pass.
    fn pass(&self, time: Duration) {
        let world = self.world.clone();
        let by = self.world.now().after(time + Duration::from_secs(1));
        self.world.run(by, async move { world.sleep(time).await });
    }

    /// From now on the network is sound, and the upstreams are up and take what they will.
    fn heal(&self) {
        self.world.set_faults(Faults { delay_micros_max: 100, ..Faults::NONE });
        for (at, plan) in self.plans.iter().enumerate() {
            plan.weather.set(Weather::Fair);
            self.reopener(at)();
        }
    }

    /// The last life: first as bad as those before it, then everything heals, and what was promised comes out.
    fn rest(&mut self, disk: SimDisk) -> SimDisk {
        let manner = self.roll_manner();
        let octets_max = manner.octets_max.max(4 << 20);
        let is_failing = manner.is_disk_failing();
        let begun = self.world.now();
        let machine = self.start(disk, Manner { octets_max, ..manner });
        self.pass(Duration::from_millis(self.dice.pick(&[0, 1_000, 30_000, 120_000])));
        self.heal();
        machine.heal_disk();
        if is_failing || machine.was_full.get() {
            self.history.disk_troubles.push((begun, self.world.now()));
        }
        let by = self.world.now().after(REST_MAX);
        while self.world.now() < by {
            self.pass(Duration::from_secs(10));
            if self.clients_left.get() == 0 && machine.is_up() && machine.queued() == 0 {
                break;
            }
        }
        self.history.ended = self.world.now();
        // Idle connections are given up, sessions end, tombstones come to the disk.
        self.pass(Duration::from_secs(120));
        self.recovered += machine.recovered.get();
        let mut wrongs = machine.judge_rest();
        if self.clients_left.get() > 0 {
            wrongs.push(format!("{} clients never came to their end", self.clients_left.get()));
        }
        if machine.queued() > 0 {
            wrongs.push(format!("{} messages never left the queue", machine.queued()));
        }
        self.ledger.borrow_mut().wrongs.extend(wrongs);
        self.machine.take();
        machine.crash(self.dice.below(u64::MAX))
    }

    /// What was settled stays settled.
    fn look_once_more(&mut self, disk: SimDisk) {
        let manner = Manner { faults: files::Faults::NONE, ..self.roll_manner() };
        let machine = self.start(disk, manner);
        self.pass(Duration::from_secs(5));
        if machine.recovered.get() > 0 {
            let what = format!("{} messages came back after all was settled", machine.recovered.get());
            self.ledger.borrow_mut().wrong(what);
        }
        self.machine.take();
    }
}

fn roll_plan(dice: &Dice) -> Plan {
    let plan = Plan::roll(dice);
    let size = dice.happens(100).then(|| dice.pick(&[30_000, 10_000_000]));
    // Often an upstream that is merely slow, or merely refuses, shows more than one that breaks all the time.
    let trouble_permille = dice.pick(&[0, 0, 30, 100, 300]);
    let lag_micros_max = dice.pick(&[0, 1_000, 80_000, 2_000_000]);
    Plan { size, trouble_permille, lag_micros_max, troubles: HONEST_TROUBLES, ..plan }
}

const SMALL: Geometry =
    Geometry { segment_octets: 128 * 1024, batch_octets: 8192, chunk_octets: 2048, spares: 1 };
const MIDDLE: Geometry =
    Geometry { segment_octets: 512 * 1024, batch_octets: 64 * 1024, chunk_octets: 16 * 1024, spares: 2 };
/// How long a life waits for its end.
const LIFE_MAX: Duration = Duration::from_secs(300);
/// How long it may take until everything has come out.
const REST_MAX: Duration = Duration::from_secs(4 * 3600);
