//! Commands as clients really and wrongly send them.

use ringpost_tests::client::Client;
use ringpost_tests::daemon::Daemon;
use ringpost_tests::message;
use ringpost_tests::upstream::Upstream;

fn relay() -> (Upstream, Daemon) {
    let upstream = Upstream::plain();
    let daemon = Daemon::relaying_to(&upstream);
    (upstream, daemon)
}

#[test]
fn offers_what_it_does() {
    let (_upstream, daemon) = relay();
    let ehlo = Client::connect(daemon.smtp()).command("EHLO client.test");
    let offers =
        ["PIPELINING", "SIZE 26214400", "8BITMIME", "SMTPUTF8", "CHUNKING", "ENHANCEDSTATUSCODES", "DSN"];
    for offer in offers {
        assert!(ehlo.lines.iter().any(|line| line == offer), "{offer} is missing: {ehlo:?}");
    }
    assert!(
        ehlo.lines.iter().any(|line| line.starts_with("LIMITS ") && line.contains("RCPTMAX=1000")),
        "{ehlo:?}"
    );
    assert!(!ehlo.lines.iter().any(|line| line.starts_with("AUTH")), "no login on the plain port: {ehlo:?}");
    assert!(ehlo.lines[0].starts_with("relay.test"), "{ehlo:?}");
}

#[test]
fn reads_commands_in_any_case_and_lenient_paths() {
    let (upstream, daemon) = relay();
    let mut client = Client::connect(daemon.smtp());
    client.command("eHlO client.test").assert("250 ");
    client.command("mAiL fRoM: <Abc@client.test>").assert("250 2.1.0");
    client.command("rcpt to:b@example.com").assert("250 2.1.5");
    client.command("RCPT TO:<@hop.test,@other.test:c@example.com>").assert("250 2.1.5");
    client.data(b"Subject: x\r\n\r\nx\r\n").assert("250 2.");
    let mail = upstream.mail();
    assert_eq!(mail.reverse_path(), "<Abc@client.test>");
    assert_eq!(mail.accepted(), ["<b@example.com>", "<c@example.com>"]);
}

#[test]
fn refuses_what_is_no_address() {
    let (_upstream, daemon) = relay();
    let mut client = daemon.client();
    client.command("MAIL FROM:<a@client.test>").assert("250 2.1.0");
    let long_local = format!("{}@example.com", "l".repeat(65));
    let long_domain = format!("l@{}com", "domain.".repeat(40));
    let wrong =
        ["", "a@b@us", "a@.b", "a@b..c", "a..b@c", ".a@c", "\"a", "a@[1.2.3]", &long_local, &long_domain];
    for address in wrong {
        let reply = client.command(&format!("RCPT TO:<{address}>"));
        assert!([501, 553].contains(&reply.code), "<{address}>: {reply:?}");
        if client.command("NOOP").code == 421 {
            break;
        }
    }
    client.command("RCPT TO:<b@example.com>").assert("250 2.1.5");
}

#[test]
fn keeps_the_order_of_a_transaction() {
    let (_upstream, daemon) = relay();
    let mut client = Client::connect(daemon.smtp());
    client.command("MAIL FROM:<a@client.test>").assert("503 5.5.1");
    client.command("EHLO client.test").assert("250 ");
    client.command("RCPT TO:<b@example.com>").assert("503 5.5.1");
    client.command("DATA").assert("503 5.5.1");
    client.command("MAIL FROM:<a@client.test>").assert("250 2.1.0");
    client.command("MAIL FROM:<b@client.test>").assert("503 5.5.1");
    let reply = client.command("DATA");
    assert!([503, 554].contains(&reply.code), "{reply:?}");
    client.command("EHLO client.test").assert("250 ");
    client.command("RCPT TO:<b@example.com>").assert("503 5.5.1");
}

#[test]
fn leaves_nothing_of_a_transaction_behind() {
    let (upstream, daemon) = relay();
    let mut client = daemon.client();
    client.envelope("a@client.test", &["old@example.com"]);
    client.command("EHLO client.test").assert("250 ");
    client.deliver(&message::ordinary("x\r\n")).assert("250 2.");
    client.command("RCPT TO:<b@example.com>").assert("503 5.5.1");
    client.command("DATA").assert("503 5.5.1");
    assert_eq!(upstream.mail().accepted(), ["<b@example.com>"]);
}

#[test]
fn refuses_parameters_it_does_not_know() {
    let (_upstream, daemon) = relay();
    let mut client = daemon.client();
    let wrong =
        ["FOO=1", "BODY=FOO", "SIZE=1 SIZE=2", "RET=FULL RET=HDRS", "RET=SOME", "ENVID=a+0D+0A", "SIZE=x"];
    for parameter in wrong {
        let reply = client.command(&format!("MAIL FROM:<a@client.test> {parameter}"));
        assert!([501, 555].contains(&reply.code), "{parameter}: {reply:?}");
    }
    client.command("MAIL FROM:<a@client.test>").assert("250 2.1.0");
    for parameter in ["NOTIFY=NEVER,FAILURE", "ORCPT=rfc822;a+0D+0A", "SIZE=1"] {
        let reply = client.command(&format!("RCPT TO:<b@example.com> {parameter}"));
        assert!([501, 555].contains(&reply.code), "{parameter}: {reply:?}");
    }
    client.command("RCPT TO:<b@example.com>").assert("250 2.1.5");
}

#[test]
fn refuses_bare_newlines_and_controls_in_commands() {
    let (_upstream, daemon) = relay();
    for line in [&b"NOOP\n"[..], b"NO\rOP\r\n", b"NOOP\0\r\n", b"\xff\xfe\r\n", b"NOOP \x1b[2J\r\n", b"\r\n"]
    {
        let mut client = daemon.client();
        let reply = client.send(line).reply();
        assert_eq!(reply.code / 100, 5, "{}: {reply:?}", line.escape_ascii());
        assert!(reply.text().chars().all(|c| !c.is_control()), "nothing is echoed raw: {reply:?}");
    }
}

#[test]
fn answers_the_commands_that_do_nothing() {
    let (_upstream, daemon) = relay();
    let mut client = daemon.client();
    client.command("NOOP whatever").assert("250 2.");
    client.command("HELP").assert("214 ");
    client.command("VRFY b@example.com").assert("252 2.");
    for line in ["EXPN list", "ETRN example.com", "TURN", "XCLIENT ADDR=1.2.3.4", "AUTH PLAIN AGEAYg=="] {
        let reply = client.command(line);
        assert!([500, 502, 503, 538].contains(&reply.code), "{line}: {reply:?}");
    }
    client.command("RSET").assert("250 2.");
    client.quit();
}

#[test]
fn every_reply_but_banner_and_ehlo_carries_an_enhanced_code() {
    let (_upstream, daemon) = relay();
    let mut client = daemon.client();
    for line in [
        "NOOP",
        "RSET",
        "VRFY x",
        "FOO",
        "MAIL",
        "MAIL FROM:<a@client.test>",
        "RCPT TO:<b@example.com>",
        "DATA x",
    ] {
        let reply = client.command(line);
        let class = format!("{}.", reply.code / 100);
        assert!(reply.lines.iter().all(|line| line.starts_with(&class)), "{line}: {reply:?}");
    }
    client.quit();
}
