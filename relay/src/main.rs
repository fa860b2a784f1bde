//! Arguments and exit code; everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringpost::cli::main(std::env::args_os())
}
