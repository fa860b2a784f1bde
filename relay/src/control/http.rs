//! The admin listeners: HTTP/1.1 for Prometheus, orchestrators and people. Read only.
//!
//! Who may connect may read: the bind address is the only permission (loopback by default). Bounds: connections at
//! once, octets of a request's head, time for it; a body is never read.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::plane::{Phase, Plane};
use crate::egress::Patience;
use crate::limits;

/// The task that serves one admin listener.
pub(super) fn serve(
    listener: std::net::TcpListener,
    plane: Arc<Plane>,
) -> io::Result<impl Future<Output = ()> + Send> {
    let listener = TcpListener::from_std(listener)?;
    Ok(accept_all(listener, router(plane), limits::ADMIN_HEADER_TIMEOUT))
}

fn router(plane: Arc<Plane>) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/metrics", get(metrics))
        .route("/healthz", get(health))
        .route("/readyz", get(readiness))
        .route("/status", get(status))
        .with_state(plane)
}

async fn accept_all(listener: TcpListener, router: Router, head_timeout: Duration) {
    let room = Arc::new(Semaphore::new(limits::ADMIN_CONNECTIONS_MAX));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let connection = converse(stream, router.clone(), head_timeout);
                tokio::spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn converse(stream: TcpStream, router: Router, head_timeout: Duration) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(limits::ADMIN_REQUEST_OCTETS_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // A peer that breaks the protocol or goes away is its own affair.
    let _ = connection.await;
}

async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, PAGE).into_response()
}

async fn metrics(State(plane): State<Arc<Plane>>) -> Response {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], plane.metrics().await).into_response()
}

/// Whether the process should be left alone: it runs, and every worker answers.
#[derive(Serialize)]
struct HealthReport {
    healthy: bool,
    workers: usize,
    workers_stuck: usize,
}

async fn health(State(plane): State<Arc<Plane>>) -> Response {
    let census = plane.census().await;
    let healthy = census.workers_stuck == 0;
    let report = HealthReport { healthy, workers: census.workers, workers_stuck: census.workers_stuck };
    json(status_of(healthy), &report)
}

/// Whether mail should be sent here.
#[derive(Serialize)]
struct ReadinessReport {
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

async fn readiness(State(plane): State<Arc<Plane>>) -> Response {
    let reason = unready(&plane).await;
    json(status_of(reason.is_none()), &ReadinessReport { ready: reason.is_none(), reason })
}

async fn unready(plane: &Plane) -> Option<&'static str> {
    if *plane.phase.borrow() != Phase::Serving {
        return Some("draining");
    }
    if plane.facts.listeners.is_empty() {
        return Some("no listener is open");
    }
    let (census, patience) = (plane.census().await, plane.patience().await);
    let is_full = census.meter.spools_full > 0;
    match () {
        () if census.workers_stuck > 0 => Some("a worker does not answer"),
        () if census.meter.spools_broken > 0 => Some("the spool cannot be written"),
        () if is_full && patience == Patience::Within(Duration::ZERO) => Some("the spool is full"),
        // With a spool mail is taken all the same.
        () if !census.meter.upstreams.is_usable() && (is_full || patience == Patience::Forever) => {
            Some("every upstream is down")
        }
        () => None,
    }
}

async fn status(State(plane): State<Arc<Plane>>) -> Response {
    json(StatusCode::OK, &plane.status().await)
}

fn status_of(good: bool) -> StatusCode {
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    const HEADERS: [(HeaderName, &str); 2] =
        [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    match serde_json::to_string(value) {
        Ok(text) => (status, HEADERS, text + "\n").into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// How long accepting pauses when the system has no descriptor or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The exposition format's version.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The page that people look at: self-contained, it reads `/status` every two seconds.
const PAGE: &str = include_str!("page.html");
/// The page may run its own script and ask this server, nothing else.
const PAGE_POLICY: &str =
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::{get_text, plane, plane_of};
    use crate::control::workers::tests::obedient;
    use crate::meter::{Health, Listener, Meter};
    use crate::orders;
    use crate::units::Moment;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn started(plane: Arc<Plane>) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(accept_all(listener, router(plane), Duration::from_millis(50)));
        address
    }

    #[tokio::test]
    async fn metrics_show_what_the_workers_counted() {
        let mut meter = Meter::default();
        meter.messages_received[Listener::Smtp] = 12;
        let address = started(plane(vec![obedient(meter.clone(), true), obedient(meter, true)])).await;
        let (code, text) = get_text(address, "/metrics").await;
        assert_eq!(code, 200);
        assert!(text.contains("\nringpost_messages_received_total{listener=\"smtp\"} 24\n"));
        assert!(text.contains("\nringpost_workers 2\n"));
        assert!(text.contains("\nringpost_build_info{version=\"1.2.3\",commit=\"abc\"} 1\n"));
    }

    #[tokio::test]
    async fn health_is_red_when_a_worker_is_gone() {
        let address = started(plane(vec![obedient(Meter::default(), true)])).await;
        assert_eq!(get_text(address, "/healthz").await.0, 200);
        let address = started(plane(vec![obedient(Meter::default(), true), orders::channel().0])).await;
        let (code, text) = get_text(address, "/healthz").await;
        assert_eq!(code, 503);
        assert_eq!(text.trim(), r#"{"healthy":false,"workers":2,"workers_stuck":1}"#);
    }

    #[tokio::test]
    async fn readiness_needs_an_upstream_and_ends_with_the_drain() {
        let mut meter = Meter::default();
        let slot = meter.upstreams.slot("a:25");
        let serving = plane(vec![obedient(meter.clone(), true)]);
        let address = started(Arc::clone(&serving)).await;
        assert_eq!(get_text(address, "/readyz").await, (200, "{\"ready\":true}\n".to_owned()));
        serving.stop();
        let (code, text) = get_text(address, "/readyz").await;
        assert_eq!((code, text.trim()), (503, r#"{"ready":false,"reason":"draining"}"#));
        assert_eq!(get_text(address, "/healthz").await.0, 200, "a draining relay is to be left alone");
        meter.upstreams[slot].note(Health::Down, Moment(1));
        let address = started(plane(vec![obedient(meter, true)])).await;
        let (code, text) = get_text(address, "/readyz").await;
        assert_eq!((code, text.trim()), (503, r#"{"ready":false,"reason":"every upstream is down"}"#));
    }

    #[tokio::test]
    async fn readiness_needs_a_spool_that_can_be_written() {
        let full = Meter { spools_full: 1, ..Meter::default() };
        let address = started(plane(vec![obedient(full, true)])).await;
        assert_eq!(
            get_text(address, "/readyz").await.0,
            200,
            "mail goes through, as long as an upstream is there"
        );
        let broken = Meter { spools_broken: 1, ..Meter::default() };
        let address = started(plane(vec![obedient(broken, true)])).await;
        let (code, text) = get_text(address, "/readyz").await;
        assert_eq!((code, text.trim()), (503, r#"{"ready":false,"reason":"the spool cannot be written"}"#));
    }

    #[tokio::test]
    async fn readiness_needs_a_listener() {
        let closed = plane_of(vec![obedient(Meter::default(), true)], Vec::new());
        let address = started(closed).await;
        assert_eq!(get_text(address, "/readyz").await.0, 503);
    }

    #[tokio::test]
    async fn status_tells_bound_addresses_and_upstreams() {
        let mut meter = Meter::default();
        let slot = meter.upstreams.slot("a:25");
        meter.upstreams[slot].busy = 2;
        let address = started(plane(vec![obedient(meter, true)])).await;
        let (code, text) = get_text(address, "/status").await;
        assert_eq!(code, 200);
        let status: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(status["listeners"][0]["listener"], "smtp");
        assert_eq!(status["listeners"][0]["address"], "0.0.0.0:2525");
        assert_eq!(status["upstreams"][0]["busy"], 2);
        assert_eq!(status["upstreams"][0]["up"], serde_json::Value::Null);
        assert_eq!(status["gate"], serde_json::Value::Null);
        assert_eq!(status["pid"], std::process::id());
    }

    #[tokio::test]
    async fn the_page_needs_nothing_from_elsewhere() {
        let address = started(plane(Vec::new())).await;
        let (code, text) = get_text(address, "/").await;
        assert_eq!(code, 200);
        assert!(text.contains("<title>ringpost</title>"));
        assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("src="));
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused() {
        let address = started(plane(Vec::new())).await;
        assert_eq!(get_text(address, "/../etc/passwd").await.0, 404);
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"POST /status HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 405");
    }

    #[tokio::test]
    async fn a_client_that_says_nothing_is_closed() {
        let address = started(plane(Vec::new())).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /status HT").await.unwrap();
        let mut rest = Vec::new();
        // Ends only when the server closes the connection.
        let _ = stream.read_to_end(&mut rest).await;
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        let address = started(plane(Vec::new())).await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        let long = vec![b'a'; 2 * limits::ADMIN_REQUEST_OCTETS_MAX];
        let _ = stream.write_all(b"GET /status HTTP/1.1\r\nX-Long: ").await;
        let _ = stream.write_all(&long).await;
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply).await;
        assert!(
            reply.is_empty() || reply.starts_with(b"HTTP/1.1 431"),
            "{}",
            String::from_utf8_lossy(&reply)
        );
    }
}
