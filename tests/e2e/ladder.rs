//! The last rung of the ladder: without io_uring the relay runs on epoll, and says so.

use ringpost_tests::daemon::Builder;
use ringpost_tests::message;
use ringpost_tests::upstream::Upstream;

#[test]
fn relays_and_stops_on_epoll_where_io_uring_is_refused() {
    let upstream = Upstream::plain();
    let daemon = Builder::relaying_to(&upstream.host()).with("MONOIO_FORCE_LEGACY_DRIVER", "1").start();
    for _ in 0..3 {
        daemon.client().deliver(&message::ordinary("x\r\n")).assert("250 2.");
    }
    assert_eq!(upstream.mails(3).len(), 3);
    assert!(daemon.metric(r#"ringpost_io_driver{mode="epoll"}"#).is_some_and(|workers| workers > 0.0));
    daemon.stop();
}
