//! The command line: from arguments to one verb and its exit code. It decides nothing about mail.
//!
//! Exit codes are those of sysexits: 64 for wrong arguments, 69 for what is not in this build, 78 for a wrong
//! configuration. The last module in the order: it may call all others, none calls it.

mod arguments;
mod daemon;
mod queue;
mod sendmail;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

pub use arguments::{Arguments, Common, GateVerb, QueueVerb, Selector, Target, Verb};

use crate::config::features::{Feature, Features};
use crate::config::{self, Host, Loaded, Refused, Sources};
use crate::control::client::Verb as Asked;
use crate::io::ladder;
use crate::{gate, selftest, tls};

/// Does what the arguments ask for; the first is the name that the binary was called by.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let called = arguments.first().and_then(|name| Path::new(name).file_name()).and_then(OsStr::to_str);
    if let Some(name @ ("sendmail" | "mailq" | "newaliases")) = called {
        return sendmail::main(name, arguments.iter().skip(1).cloned());
    }
    match Arguments::try_parse_from(arguments) {
        Ok(arguments) => verb(arguments),
        Err(error) => {
            let asked_for = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Nobody is left to tell that the terminal is gone.
            let _ = error.print();
            ExitCode::from(if asked_for { 0 } else { EX_USAGE })
        }
    }
}

fn verb(arguments: Arguments) -> ExitCode {
    let Arguments { common, verb } = arguments;
    match verb.unwrap_or(Verb::Run { common: Common::default() }) {
        Verb::Run { common: more } => daemon::run(common.and(more)),
        Verb::Check { common: more } => check(&common.and(more).sources(), &mut io::stdout().lock()),
        Verb::Config { common: more } => show(&common.and(more).sources()),
        Verb::Version => version(&ladder::abilities(), &mut io::stdout().lock()),
        Verb::Status { json, common: more } => {
            daemon::ask(common.and(more), &Asked::Status { output: daemon::output(json) })
        }
        Verb::Stop { common: more } => daemon::ask(common.and(more), &Asked::Stop),
        Verb::Reload { confirm, common: more } => daemon::ask(common.and(more), &Asked::Reload { confirm }),
        Verb::Confirm { common: more } => daemon::ask(common.and(more), &Asked::Confirm),
        Verb::Flush { common: more } => daemon::ask(common.and(more), &Asked::Flush),
        Verb::Explain { target, from, to, json, common: more } => {
            daemon::explain(common.and(more), target, (from, to), daemon::output(json))
        }
        Verb::Queue(verb) => queue::verb(common, verb),
        Verb::Gate(verb) => daemon::gate(common, verb),
        Verb::Top { .. } => not_in_this_build("top"),
        Verb::Selftest { to, common: more } => {
            selftest(&common.and(more).sources(), to.as_deref(), &mut io::stdout().lock())
        }
    }
}

/// `ringpost check`: every mistake and warning, one a line.
fn check(sources: &Sources, out: &mut impl Write) -> ExitCode {
    let (mistakes, warnings): (Vec<String>, _) = match config::load(sources, &Host::current()) {
        Ok(loaded) => {
            let mistakes = tls::mistakes(&loaded.config.tls);
            (mistakes.iter().map(ToString::to_string).collect(), loaded.warnings)
        }
        Err(refused) => (refused.mistakes.iter().map(ToString::to_string).collect(), refused.warnings),
    };
    let lines = mistakes.iter().map(|mistake| format!("mistake: {mistake}"));
    let lines = lines.chain(warnings.iter().map(|warning| format!("warning: {warning}")));
    let mut report: String = lines.map(|line| line + "\n").collect();
    let verdict = if mistakes.is_empty() { "may run" } else { "may not run" };
    let count = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    report += &format!(
        "the configuration {verdict}: {}, {}\n",
        count(mistakes.len(), "mistake"),
        count(warnings.len(), "warning")
    );
    print(out, &report, if mistakes.is_empty() { 0 } else { EX_CONFIG })
}

/// `ringpost selftest`: each line as soon as it is known.
fn selftest(sources: &Sources, to: Option<&str>, out: &mut impl Write) -> ExitCode {
    let loaded = match config::load(sources, &Host::current()) {
        Ok(loaded) => loaded,
        Err(refused) => return refuse(&refused),
    };
    let mut tell_line = |line: &str| {
        // A reader that went away is no failure of the verb.
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
    };
    match selftest::run(&loaded.config, to, &mut tell_line) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EX_UNAVAILABLE),
        Err(why) => {
            tell(&why);
            ExitCode::from(EX_UNAVAILABLE)
        }
    }
}

/// `ringpost config`: what is in force, as TOML.
fn show(sources: &Sources) -> ExitCode {
    match config::load(sources, &Host::current()) {
        Ok(loaded) => {
            tell_warnings(&loaded);
            print(&mut io::stdout().lock(), &loaded.effective.toml(), 0)
        }
        Err(refused) => refuse(&refused),
    }
}

/// `ringpost version`: each ability of the kernel is a name and whether it was found.
fn version(abilities: &[(&str, bool)], out: &mut impl Write) -> ExitCode {
    let gate = if Features::THIS_BUILD.has(Feature::Gate) { "embedded" } else { "not in this build" };
    let mut text =
        format!("ringpost {} ({})\ngate: {gate}\n", env!("CARGO_PKG_VERSION"), env!("RINGPOST_COMMIT"));
    text += &format!("tls: {}\n", tls::server::PROVIDER);
    for (name, found) in abilities {
        text += &format!("{name}: {}\n", if *found { "yes" } else { "no" });
    }
    for (name, found) in gate::abilities() {
        text += &match found {
            Ok(()) => format!("{name}: yes\n"),
            Err(why) => format!("{name}: no: {}\n", why.lines().next().unwrap_or_default()),
        };
    }
    print(out, &text, 0)
}

fn refuse(refused: &Refused) -> ExitCode {
    for mistake in &refused.mistakes {
        tell(&format!("configuration: {mistake}"));
    }
    ExitCode::from(EX_CONFIG)
}

fn tell_warnings(loaded: &Loaded) {
    for warning in &loaded.warnings {
        tell(&format!("warning: {warning}"));
    }
}

fn not_in_this_build(verb: &str) -> ExitCode {
    tell(&format!("{verb} is not in this build"));
    ExitCode::from(EX_UNAVAILABLE)
}

/// One line for the human on standard error. Where that is closed there is nobody to tell.
fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "ringpost: {line}");
}

/// The verb's product; a reader that went away is no failure of the verb.
fn print(out: &mut impl Write, text: &str, code: u8) -> ExitCode {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            tell(&format!("cannot write: {error}"));
            ExitCode::from(EX_IOERR)
        }
        _ => ExitCode::from(code),
    }
}

const EX_USAGE: u8 = 64;
const EX_UNAVAILABLE: u8 = 69;
const EX_IOERR: u8 = 74;
const EX_CONFIG: u8 = 78;

#[cfg(test)]
mod tests;
