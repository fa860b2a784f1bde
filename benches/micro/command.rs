//! Commands and replies of one message: the parser against splitting into strings, and both machines through a
//! whole transaction without a socket.

mod timing;

use ringpost::smtp::body::Form;
use ringpost::smtp::client::{Client, ClientEvent, MailOptions, RcptOptions};
use ringpost::smtp::command;
use ringpost::smtp::reply::{self, Reply, ReplyBuf};
use ringpost::smtp::server::{Answer, Event, Profile, Proof, Question, Server};
use timing::{Case, Work, compare};

fn main() {
    let per_call = |count| Work { count, unit: "M/s", scale: 1e6 };
    let lines: [&[u8]; 4] = [
        b"MAIL FROM:<somebody@example.com> SIZE=1024 BODY=8BITMIME",
        b"RCPT TO:<you@example.net> NOTIFY=FAILURE",
        b"DATA",
        b"QUIT",
    ];
    let cases = vec![
        Case::new("strings", || lines.iter().map(|line| naive(line)).sum()),
        Case::new("command::parse", || {
            lines.iter().map(|line| u64::from(command::parse(line).is_ok())).sum()
        }),
    ];
    compare("four command lines", per_call(lines.len()), cases);

    let text = b"An ordinary line of text, as it stands in most of the messages that we see.\r\n".repeat(13);
    let message = [
        &b"MAIL FROM:<somebody@example.com> SIZE=1024\r\nRCPT TO:<you@example.net>\r\nDATA\r\n"[..],
        &text,
        b".\r\n",
    ]
    .concat();
    let mut server = Server::new(Profile::relay("relay.example".into()));
    let (mut out, mut client, mut commands) = (ReplyBuf::new(), ready(), Vec::with_capacity(1024));
    serve(&mut server, b"EHLO app.example\r\n", &mut out);
    let (server_case, client_case) = (
        Case::new("a message of 1 KiB", || serve(&mut server, &message, &mut out)),
        Case::new("MAIL to the verdict", || relay(&mut client, &mut commands)),
    );
    compare("server machine", per_call(1), vec![server_case]);
    compare("client machine", per_call(1), vec![client_case]);
}

fn naive(line: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(line).to_uppercase();
    let words: Vec<String> = text.split(' ').map(String::from).collect();
    u64::from(["MAIL", "RCPT", "DATA", "QUIT"].contains(&words[0].as_str()))
}

struct Held;

impl Proof for Held {
    fn reply(&self) -> Reply {
        reply::queued_as("0123456789BCDFG")
    }
}

/// Drives the server through the input; everything is taken.
fn serve(server: &mut Server, input: &[u8], out: &mut ReplyBuf) -> u64 {
    let mut rest = input;
    out.clear();
    loop {
        let step = server.step(rest, out);
        rest = &rest[step.consumed..];
        match step.event {
            Event::NeedInput if rest.is_empty() => return out.len() as u64,
            Event::Question(Question::Message) => server.taken(&Held, out),
            Event::Question(Question::OpenBody { .. }) => server.answer(Answer::Open(Form::Stuffed), out),
            Event::Question(_) => server.answer(Answer::Accept, out),
            _ => {}
        }
    }
}

fn ready() -> Client {
    let mut client = Client::new();
    client.step(b"220 up.example\r\n");
    let _ = client.ehlo("relay.example", &mut Vec::new());
    client.step(b"250-up.example\r\n250-PIPELINING\r\n250 SIZE 10000000\r\n");
    client
}

/// One message by the client machine, its replies in the three portions in which they come.
fn relay(client: &mut Client, out: &mut Vec<u8>) -> u64 {
    out.clear();
    let options = MailOptions { size: Some(1024), ..MailOptions::default() };
    let _ = client.mail("somebody@example.com", &options, out);
    let _ = client.rcpt("you@example.net", &RcptOptions::default(), out);
    client.data(out);
    let mut replies =
        replies_in(client, b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n");
    client.end_of_data(out);
    replies += replies_in(client, b"250 2.0.0 Ok: queued as 4bXyZ\r\n");
    replies + out.len() as u64
}

fn replies_in(client: &mut Client, input: &[u8]) -> u64 {
    let (mut rest, mut replies) = (input, 0);
    loop {
        let step = client.step(rest);
        rest = &rest[step.consumed..];
        match step.event {
            ClientEvent::Reply { reply, .. } => replies += u64::from(reply.code),
            _ => return replies,
        }
    }
}
