//! `ringpost-sink`: takes mail on loopback and counts it. Prints `ready ADDRESS`, then a line of JSON totals for each line
//! of its input, and the last one when its input closes or on SIGTERM.

use std::io::BufRead;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ringpost_benches::receiver::Offers;
use ringpost_benches::ring;
use ringpost_benches::sink::{self, Manners, Sink};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Take mail on loopback and count it.
#[derive(Parser)]
#[command(name = "ringpost-sink", version)]
struct Arguments {
    /// Where to listen, a loopback address.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Do not offer CHUNKING.
    #[arg(long)]
    no_chunking: bool,
    /// Do not offer PIPELINING.
    #[arg(long)]
    no_pipelining: bool,
    /// Hold each verdict back for so many milliseconds.
    #[arg(long, default_value_t = 0)]
    delay: u64,
    /// Check the content of one message in so many; 1 checks all and counts repeated ones.
    #[arg(long, default_value_t = 0, num_args = 0..=1, default_missing_value = "1")]
    verify: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match ring::run(serve(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringpost-sink: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: &Arguments) -> std::io::Result<()> {
    let sink = Sink::new(Manners {
        offers: Offers { pipelining: !arguments.no_pipelining, chunking: !arguments.no_chunking },
        delay: Duration::from_millis(arguments.delay),
        check_every: arguments.verify,
    });
    let listener = sink::listen(arguments.listen)?;
    println!("ready {}", listener.local_addr()?);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut asked = input_lines();
    let serving = sink.serve(listener);
    tokio::pin!(serving);
    loop {
        tokio::select! {
            ended = &mut serving => return ended,
            _ = terminate.recv() => break,
            line = asked.recv() => match line {
                Some(()) => print(&sink),
                None => break,
            },
        }
    }
    print(&sink);
    Ok(())
}

fn print(sink: &Sink) {
    match serde_json::to_string(&sink.report()) {
        Ok(line) => println!("{line}"),
        Err(error) => eprintln!("ringpost-sink: {error}"),
    }
}

/// A message for each line of the standard input, which is read by a thread of its own: it sleeps while mail flows.
fn input_lines() -> mpsc::Receiver<()> {
    let (tell, asked) = mpsc::channel(1);
    std::thread::spawn(move || {
        for _ in std::io::stdin().lock().lines().map_while(Result::ok) {
            if tell.blocking_send(()).is_err() {
                return;
            }
        }
    });
    asked
}
