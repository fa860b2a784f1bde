//! `ringpost-reference NAME`: prints a document that is written from code, for `cargo xtask docs`. It must not
//! hold any text of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    let name = std::env::args().nth(1).unwrap_or_default();
    let text = match name.as_str() {
        "CONFIG" => ringpost::config::reference(),
        "METRICS" => ringpost::meter::reference(),
        "REPLIES" => ringpost::smtp::reply::reference(),
        _ => {
            eprintln!("usage: ringpost-reference CONFIG|METRICS|REPLIES");
            return ExitCode::from(64);
        }
    };
    print!("{text}");
    ExitCode::SUCCESS
}
