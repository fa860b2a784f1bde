//! `ringpost-load`: loads a loopback SMTP server and prints one line of JSON. With `--idle` it only holds sessions open,
//! prints `idle N` once they are, and ends when its input closes.

use std::io::Read;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use ringpost_benches::load::{self, Mode, Plan};
use ringpost_benches::size::Size;
use ringpost_benches::{idle, ring};

/// Load a loopback SMTP server.
#[derive(Parser)]
#[command(name = "ringpost-load", version)]
struct Arguments {
    /// The server, a loopback address.
    target: SocketAddr,
    /// Concurrent sessions.
    #[arg(long, default_value_t = 20)]
    sessions: u32,
    /// Messages in all.
    #[arg(long)]
    messages: Option<u64>,
    /// Begin messages for so long.
    #[arg(long)]
    seconds: Option<f64>,
    /// Octets of a message.
    #[arg(long, default_value = "1K")]
    size: Size,
    /// How commands are put into segments.
    #[arg(long, value_enum, default_value = "lockstep")]
    mode: Mode,
    /// The same as `--mode chunking`: BDAT with the message in one write.
    #[arg(long)]
    chunking: bool,
    /// Open a new connection after so many messages; 0 keeps one for the whole load.
    #[arg(long, default_value_t = 0)]
    messages_per_connection: u64,
    /// Begin no more messages a second than this, by all sessions together.
    #[arg(long)]
    rate: Option<f64>,
    /// Mark the messages' identifiers with this number.
    #[arg(long, default_value_t = 1)]
    run: u32,
    /// Send nothing: hold so many sessions open past EHLO until the input closes.
    #[arg(long)]
    idle: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.idle {
        Some(sessions) => hold(arguments.target, sessions),
        None => send(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringpost-load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn send(arguments: &Arguments) -> Result<(), String> {
    let duration =
        arguments.seconds.map(Duration::try_from_secs_f64).transpose().map_err(|error| error.to_string())?;
    let plan = Plan {
        target: arguments.target,
        sessions: arguments.sessions,
        messages: arguments.messages,
        duration,
        octets: arguments.size.0,
        mode: if arguments.chunking { Mode::Chunking } else { arguments.mode },
        messages_per_connection: Some(arguments.messages_per_connection).filter(|most| *most > 0),
        rate: arguments.rate.filter(|rate| *rate > 0.0),
        run: arguments.run,
    };
    let report = ring::run(load::run(plan)).map_err(|error| error.to_string())?;
    println!("{}", serde_json::to_string(&report).map_err(|error| error.to_string())?);
    match report.failure {
        Some(failure) => Err(format!("{} messages failed, the first: {failure}", report.failures)),
        None => Ok(()),
    }
}

fn hold(target: SocketAddr, sessions: usize) -> Result<(), String> {
    if !target.ip().is_loopback() {
        return Err(load::LoadError::NotLoopback(target).to_string());
    }
    ring::run(async {
        let links = idle::open(target, sessions).await.map_err(|error| error.to_string())?;
        println!("idle {}", links.len());
        // Blocking is wanted: nothing is to happen until the input closes.
        std::io::stdin().read_to_end(&mut Vec::new()).map_err(|error| error.to_string())?;
        Ok(())
    })
}
