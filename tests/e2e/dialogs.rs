//! The dialogs marked `live`, held with the daemon: the fourth way, after the machine's three.

use ringpost_tests::client::Client;
use ringpost_tests::daemon::Builder;
use ringpost_tests::dialog::{Dialog, Message, Turn};
use ringpost_tests::upstream::{Mail, Script, Stage, Upstream};

const VERDICT: &str = "250 2.0.0 Ok: queued as 4711";

/// The octets of the client in one piece for each of its turns, or one at a time.
#[derive(Clone, Copy)]
enum Pace {
    Turns,
    Octets,
    /// In its turns, inside TLS.
    Inside,
}

#[test]
fn the_daemon_holds_every_live_dialog_turn_by_turn() {
    hold_all(Pace::Turns);
}

#[test]
fn the_daemon_holds_every_live_dialog_octet_by_octet() {
    hold_all(Pace::Octets);
}

#[test]
fn the_daemon_holds_every_live_dialog_inside_tls() {
    hold_all(Pace::Inside);
}

fn hold_all(pace: Pace) {
    let dialogs = Dialog::all().expect("dialogs that can be read");
    let wrong: Vec<String> = dialogs
        .iter()
        .filter(|dialog| dialog.is_live)
        .filter_map(|dialog| hold(dialog, pace).err().map(|what| format!("{}: {what}", dialog.name)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn hold(dialog: &Dialog, pace: Pace) -> Result<(), String> {
    // The verdict is passed through, and the dialogs have the machine's own words for it.
    let script = Script::new().offering("CHUNKING").offering("DSN");
    let script = script.on(Stage::Message, VERDICT).on(Stage::LastChunk, VERDICT);
    let upstream = Upstream::start(script);
    let daemon = Builder::relaying_to(&upstream.host()).with("RELAY_HOST_NAME", "mx.example").start();
    let mut client = Client::dial(daemon.smtp());
    let mut said = String::new();
    let mut turns = dialog.turns.iter();
    if let Pace::Inside = pace {
        // The banner comes before TLS; everything else begins anew behind it (RFC 3207 §4.2).
        said = client.line().map(|line| format!("{line}\r\n")).ok_or("no banner")?;
        client.command("EHLO before.test").assert("250 ");
        client.command("STARTTLS").assert("220 ");
        client.shake_hands();
        turns.next();
    }
    for turn in turns {
        match (turn, pace) {
            (Turn::Client(octets), Pace::Turns | Pace::Inside) => drop(client.send_gladly(octets)),
            (Turn::Client(octets), Pace::Octets) => octets.chunks(1).for_each(|octet| {
                client.send_gladly(octet);
            }),
            (Turn::Server(_), _) => match line(&mut client) {
                Some(line) => said.push_str(&format!("{line}\r\n")),
                None => break,
            },
            (Turn::Tls, _) => return Err("a live dialog has no handshake".to_owned()),
        }
    }
    if !dialog.events.iter().any(|event| event == "close") {
        client.finish_sending();
    }
    said.push_str(&client.rest().replace(OFFERS_TLS, OFFERS_NO_TLS));
    drop(client);
    dialog.judge_replies(said.as_bytes())?;
    daemon.stop();
    let mails = upstream.mails(dialog.messages.len());
    let taken: Vec<Message> =
        mails.iter().zip(&dialog.messages).map(|(mail, wanted)| taken(mail, wanted)).collect();
    if mails.len() == taken.len() { dialog.judge_messages(&taken) } else { Err(format!("{mails:#?}")) }
}

/// A line of the daemon, as the machine would have said it: it offers STARTTLS last, and the machine of the dialogs
/// does not.
fn line(client: &mut Client) -> Option<String> {
    let line = client.line()?;
    match line.as_str() {
        "250-DSN" => client.line().filter(|next| next == "250 STARTTLS").map(|_| "250 DSN".to_owned()),
        _ => Some(line),
    }
}

const OFFERS_TLS: &str = "250-DSN\r\n250 STARTTLS\r\n";
const OFFERS_NO_TLS: &str = "250 DSN\r\n";

/// The mail as the machine would have told of it. The daemon puts its trace before the content: where the
/// content is what was wanted behind it, it is taken for that; its size cannot be told apart from the trace.
fn taken(mail: &Mail, wanted: &Message) -> Message {
    let content = mail.content();
    let same = wanted.content.as_ref().is_some_and(|wanted| content.ends_with(wanted));
    Message {
        from: Some(mail.reverse_path().to_owned()),
        to: Some(mail.accepted().into_iter().map(str::to_owned).collect()),
        size: wanted.size,
        content: if same { wanted.content.clone() } else { Some(content) },
    }
}
