//! The control plane as its users see it: a real control socket, real HTTP, and workers that obey.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{self, Output, Verb};
use super::protocol::Question;
use super::workers::tests::obedient;
use super::*;
use crate::config;
use crate::egress::operator::{Line, Tally};
use crate::meter::Meter;
use crate::orders::Order;
use crate::tls;

/// Settings as a small site would have them.
pub(super) fn settings() -> Settings {
    let environment = [
        ("RELAY_HOST_NAME", "relay.example.com"),
        ("ACCEPTED_NETWORKS", "10.0.0.0/8 10.1.0.0/16"),
        ("SUBMISSION_NETWORKS", "10.0.0.0/8"),
        ("EXT_RELAY_HOST", "mail.example.net:587,[2001:db8::1]:25"),
        ("OUTGOING_SMTP_AUTH", "off"),
        ("DENIED_SENDERS", "@spam.example"),
        ("DELIVERY_PATIENCE", "forever"),
    ];
    let sources = config::Sources {
        environment: environment.iter().map(|&(name, value)| (name.into(), value.into())).collect(),
        ..config::Sources::default()
    };
    let config = config::load(&sources, &config::Host { name: "host".into(), cpus: 1 }).unwrap().config;
    Settings {
        ingress: Arc::new(config.ingress),
        egress: Arc::new(config.egress),
        tls: tls::Armour::default(),
        gate: Arc::new(config.gate),
        spool: Arc::new(config.spool),
    }
}

pub(super) fn listeners() -> Vec<Bound> {
    let bound = |listener, port| Bound { listener, address: SocketAddr::from(([0, 0, 0, 0], port)) };
    vec![bound(Listener::Smtp, 2525), bound(Listener::Submission, 2587)]
}

fn facts(workers: Vec<flume::Sender<Order>>, listeners: Vec<Bound>, reread: Reread) -> plane::Facts {
    plane::Facts {
        config: Config { listen_admin: Vec::new(), control_socket: PathBuf::from("/nonexistent") },
        listeners,
        version: "1.2.3",
        commit: "abc",
        workers: Workers::new(workers),
        reread,
        log_lines_dropped: Box::new(|| 0),
        gate: no_gate(),
    }
}

/// A gate that is off.
fn no_gate() -> Arc<Gate> {
    let mut config = (*settings().gate).clone();
    config.wanted = crate::gate::config::Wanted::Off;
    Arc::new(Gate::start_with(None, &config, crate::gate::Lists::default()).unwrap())
}

fn unchanged() -> Reread {
    Arc::new(|| Ok(Read { settings: settings(), warnings: vec!["LISTEN_SMTP waits for a restart".into()] }))
}

pub(super) fn plane(workers: Vec<flume::Sender<Order>>) -> Arc<Plane> {
    plane_of(workers, listeners())
}

pub(super) fn plane_of(workers: Vec<flume::Sender<Order>>, listeners: Vec<Bound>) -> Arc<Plane> {
    Arc::new(Plane::new(facts(workers, listeners, unchanged()), settings()))
}

/// Status code and body of a GET.
pub(super) async fn get_text(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// A control plane on a thread of its own, as the daemon runs it.
struct Running {
    home: tempfile::TempDir,
    admin: Vec<SocketAddr>,
    thread: std::thread::JoinHandle<Result<Ending, Fault>>,
}

fn run(workers: Vec<flume::Sender<Order>>, reread: Reread) -> Running {
    let home = tempfile::tempdir().unwrap();
    let facts = facts(workers, listeners(), reread);
    let plane = ControlPlane::bind(Start {
        config: Config {
            listen_admin: vec!["127.0.0.1:0".parse().unwrap()],
            control_socket: home.path().join("control.sock"),
        },
        settings: settings(),
        workers: facts.workers,
        listeners: facts.listeners,
        version: facts.version,
        commit: facts.commit,
        reread: facts.reread,
        log_lines_dropped: facts.log_lines_dropped,
        gate: facts.gate,
        companions: Vec::new(),
    })
    .unwrap();
    let admin = plane.admin_addresses().to_vec();
    Running { home, admin, thread: std::thread::spawn(|| plane.run()) }
}

impl Running {
    fn socket(&self) -> PathBuf {
        self.home.path().join("control.sock")
    }

    fn say(&self, verb: &Verb) -> (u8, String, String) {
        say(&self.socket(), verb)
    }

    fn stop(self) -> Ending {
        // The verb returns when the process has ended; here that is when the ending is dropped.
        let socket = self.socket();
        let verb = std::thread::spawn(move || say(&socket, &Verb::Stop));
        let ending = self.thread.join().unwrap().unwrap();
        assert_eq!(ending.waiters(), 1);
        assert!(!verb.is_finished());
        let drain = ending.drain;
        drop(ending);
        let (code, out, _) = verb.join().unwrap();
        assert_eq!(code, 0, "{out}");
        Ending { drain, waiters: Vec::new() }
    }
}

fn say(socket: &Path, verb: &Verb) -> (u8, String, String) {
    let (mut out, mut errors) = (Vec::new(), Vec::new());
    let code = client::run(socket, verb, &mut out, &mut errors);
    (code, String::from_utf8(out).unwrap(), String::from_utf8(errors).unwrap())
}

const STATUS: Verb = Verb::Status { output: Output::Text };

#[test]
fn status_is_0_while_running_and_3_after_the_stop() {
    let running = run(vec![obedient(Meter::default(), true)], unchanged());
    let (code, out, _) = running.say(&STATUS);
    assert_eq!(code, 0);
    assert!(out.contains("listening  0.0.0.0:2525 smtp"), "{out}");
    assert!(out.contains(&format!("listening  {} admin", running.admin[0])), "{out}");
    let (_, json, _) = running.say(&Verb::Status { output: Output::Json });
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["state"], "serving");
    let home = tempfile::tempdir().unwrap();
    let ending = running.stop();
    assert_eq!(ending.drain, Some(DrainEnd { sessions_cut: 1, workers_stuck: 0 }));
    let (code, _, errors) = say(&home.path().join("control.sock"), &STATUS);
    assert_eq!(code, 3);
    assert!(errors.contains("not running"), "{errors}");
}

#[test]
fn the_socket_is_gone_after_the_stop() {
    let running = run(vec![obedient(Meter::default(), true)], unchanged());
    let socket = running.socket();
    assert_eq!(running.say(&STATUS).0, 0);
    let ending = running.stop();
    assert!(!socket.exists());
    drop(ending);
    assert_eq!(say(&socket, &STATUS).0, 3);
}

#[test]
fn a_reload_says_when_the_new_configuration_is_in_force() {
    let running = run(vec![obedient(Meter::default(), true)], unchanged());
    let (code, out, errors) = running.say(&Verb::Reload { confirm: None });
    assert_eq!(code, 0);
    assert!(out.contains("in force"), "{out}");
    assert!(errors.contains("warning: LISTEN_SMTP waits for a restart"), "{errors}");
    running.stop();
}

#[test]
fn a_reload_of_a_bad_configuration_prints_all_mistakes_and_is_78() {
    let reread: Reread =
        Arc::new(|| Err(vec!["WORKERS=x: not a number".into(), "XDP=maybe: unknown".into()]));
    let running = run(vec![obedient(Meter::default(), true)], reread);
    let (code, _, errors) = running.say(&Verb::Reload { confirm: None });
    assert_eq!(code, 78);
    assert_eq!(errors, "WORKERS=x: not a number\nXDP=maybe: unknown\n");
    running.stop();
}

#[test]
fn a_reload_that_a_worker_refuses_is_taken_back_everywhere() {
    let workers = vec![obedient(Meter::default(), true), obedient(Meter::default(), false)];
    let running = run(workers, unchanged());
    assert_eq!(running.say(&Verb::Reload { confirm: None }).0, 78);
    running.stop();
}

#[test]
fn a_confirmed_reload_stays_and_a_second_confirmation_has_nothing_to_act_on() {
    let running = run(vec![obedient(Meter::default(), true)], unchanged());
    assert_eq!(running.say(&Verb::Confirm).0, 1);
    assert_eq!(running.say(&Verb::Reload { confirm: Some(Duration::from_secs(3600)) }).0, 0);
    let (code, _, errors) = running.say(&Verb::Reload { confirm: None });
    assert_eq!(code, 78, "a second reload waits for the confirmation of the first");
    assert!(errors.contains("ringpost confirm"), "{errors}");
    assert_eq!(running.say(&Verb::Confirm).0, 0);
    assert_eq!(running.say(&Verb::Confirm).0, 1);
    assert_eq!(running.say(&Verb::Reload { confirm: None }).0, 0);
    running.stop();
}

#[tokio::test(start_paused = true)]
async fn an_unconfirmed_reload_is_rolled_back() {
    let (sender, orders) = crate::orders::channel();
    // Tells which settings the worker was given, by their host name.
    let (told, given) = flume::unbounded();
    let worker = tokio::spawn(async move {
        while let Ok(order) = orders.recv_async().await {
            match order {
                Order::Reload(settings, reply) => {
                    told.send(settings.ingress.relay_host_name.to_string()).unwrap();
                    reply.send(Ok(())).unwrap();
                }
                Order::Snapshot(reply) => reply.send(Box::default()).unwrap(),
                Order::Flush(reply) => reply.send(0).unwrap(),
                Order::Queue(order) => order.lines.send(Line::End(Tally::default())).unwrap(),
                Order::Drain { .. } => return,
            }
        }
    });
    let reads = Arc::new(AtomicUsize::new(0));
    let reread: Reread = Arc::new(move || {
        let mut read = Read { settings: settings(), warnings: Vec::new() };
        let ingress = Arc::make_mut(&mut read.settings.ingress);
        ingress.relay_host_name = format!("new{}", reads.fetch_add(1, Ordering::Relaxed)).into();
        Ok(read)
    });
    let plane = Arc::new(Plane::new(facts(vec![sender], listeners(), reread), settings()));
    let answer = plane.reload(Some(Duration::from_secs(60))).await;
    assert!(matches!(answer, protocol::Answer::Reloaded { confirm_ms: Some(60_000), .. }), "{answer:?}");
    assert_eq!(given.recv_async().await.unwrap(), "new0");
    assert_eq!(&*plane.settings().await.ingress.relay_host_name, "new0");
    assert_eq!(given.recv_async().await.unwrap(), "relay.example.com");
    assert_eq!(&*plane.settings().await.ingress.relay_host_name, "relay.example.com");
    assert!(plane.metrics().await.contains("ringpost_config_reloads_total{outcome=\"rolled_back\"} 1\n"));
    worker.abort();
}

#[test]
fn explain_tells_the_verdict_as_text_and_as_json() {
    let running = run(vec![obedient(Meter::default(), true)], unchanged());
    let question =
        Question { address: "203.0.113.9".parse().unwrap(), port: Some(2525), from: None, to: None };
    let (code, out, _) = running.say(&Verb::Explain { question: question.clone(), output: Output::Text });
    assert_eq!(code, 0);
    assert!(out.contains("454 4.7.1 Relay access denied") && out.contains("no gate"), "{out}");
    let (_, json, _) = running.say(&Verb::Explain { question, output: Output::Json });
    let explanation: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(explanation["may_relay"], false);
    assert_eq!(explanation["route"][0], "mail.example.net:587 (its mail exchangers, else its addresses)");
    running.stop();
}

#[test]
fn flush_says_how_many_messages_are_attempted() {
    let running = run(vec![obedient(Meter::default(), true), obedient(Meter::default(), true)], unchanged());
    assert_eq!(running.say(&Verb::Flush), (0, "4 messages are attempted now\n".to_owned(), String::new()));
    running.stop();
}

#[test]
fn a_message_that_is_not_there_is_1_and_an_empty_queue_is_0() {
    use client::queue::{Action, QueueVerb, Shape, Which};
    let running = run(vec![obedient(Meter::default(), true)], unchanged());
    let ask = |action, ids: &[&str], shape| {
        let ids = ids.iter().map(|&id| id.to_owned()).collect();
        let verb = QueueVerb { action, ids, which: Which::default(), shape };
        let (mut out, mut errors) = (Vec::new(), Vec::new());
        let code = client::queue::run(&running.socket(), &verb, &mut out, &mut errors);
        (code, String::from_utf8(out).unwrap(), String::from_utf8(errors).unwrap())
    };
    assert_eq!(ask(Action::List, &[], Shape::Json), (0, String::new(), String::new()));
    assert_eq!(ask(Action::List, &[], Shape::Table).1, "the queue is empty\n");
    for id in ["U1K2JFJ00000000", "nonsense"] {
        for action in [Action::Show, Action::Hold, Action::Bounce] {
            assert_eq!(
                ask(action, &[id], Shape::Whole),
                (1, String::new(), format!("{id}: no such message\n"))
            );
        }
    }
    assert_eq!(
        ask(Action::Delete, &[], Shape::Table),
        (0, "0 of 0 messages deleted\n".to_owned(), String::new())
    );
    running.stop();
}

#[test]
fn a_request_that_is_not_understood_is_answered_and_closed() {
    use std::io::{Read as _, Write as _};
    let running = run(vec![obedient(Meter::default(), true)], unchanged());
    for request in ["{\"verb\":\"dance\"}\n".to_owned(), "x".repeat(2 * limits::CONTROL_LINE_OCTETS_MAX)] {
        let mut stream = UnixStream::connect(running.socket()).unwrap();
        // The daemon may have closed before all of a long line was sent.
        let _ = stream.write_all(request.as_bytes());
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.is_empty() || answer.starts_with("{\"answer\":\"malformed\""), "{answer}");
    }
    assert_eq!(running.say(&STATUS).0, 0);
    running.stop();
}

#[test]
fn a_second_control_plane_on_the_same_socket_is_refused() {
    let running = run(vec![obedient(Meter::default(), true)], unchanged());
    let facts = facts(Vec::new(), Vec::new(), unchanged());
    let second = ControlPlane::bind(Start {
        config: Config { listen_admin: Vec::new(), control_socket: running.socket() },
        settings: settings(),
        workers: facts.workers,
        listeners: facts.listeners,
        version: facts.version,
        commit: facts.commit,
        reread: facts.reread,
        log_lines_dropped: facts.log_lines_dropped,
        gate: facts.gate,
        companions: Vec::new(),
    });
    assert!(matches!(second, Err(Fault::AlreadyRunning(_))));
    assert_eq!(running.say(&STATUS).0, 0);
    running.stop();
}
