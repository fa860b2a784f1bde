//! The verbs that run the daemon or talk to one that runs.

use std::io;
use std::process::ExitCode;

use super::{Common, GateVerb, Target, refuse, tell, tell_warnings};
use crate::config::{self, Host, Sources};
use crate::control::client::{self, Output, Verb};
use crate::control::protocol::{GateQuestion, Question};
use crate::daemon;
use crate::io::ladder::Rung;
use crate::io::process::{hide_memory, scrub_environment};

/// `run`: in the foreground until it is told to stop.
pub(super) fn run(common: Common) -> ExitCode {
    // First of all: a password must not be read from outside, nor stay in a core dump.
    if let Err(error) = hide_memory() {
        tell(&format!("warning: core dumps are not forbidden: {error}"));
    }
    daemon::panics::install();
    let sources = common.sources();
    scrub_environment(Sources::is_secret);
    let loaded = match config::load(&sources, &Host::current()) {
        Ok(loaded) => loaded,
        Err(refused) => return refuse(&refused),
    };
    tell_warnings(&loaded);
    match daemon::run(loaded, sources, Rung::DeferTaskrun) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            tell(&fault.to_string());
            ExitCode::from(fault.exit_code())
        }
    }
}

/// Asks the daemon behind `CONTROL_SOCKET`.
pub(super) fn ask(common: Common, verb: &Verb) -> ExitCode {
    let socket = config::control_socket(&common.sources());
    ExitCode::from(client::run(&socket, verb, &mut io::stdout().lock(), &mut io::stderr().lock()))
}

pub(super) fn explain(
    common: Common,
    target: Target,
    (from, to): (Option<String>, Option<String>),
    output: Output,
) -> ExitCode {
    let question = Question { address: target.ip, port: target.port, from, to };
    ask(common, &Verb::Explain { question, output })
}

/// `gate …`.
pub(super) fn gate(common: Common, verb: GateVerb) -> ExitCode {
    let of_gate = |more, question| ask(common.clone().and(more), &Verb::Gate(question));
    match verb {
        GateVerb::Status { common: more } => of_gate(more, GateQuestion::Status),
        GateVerb::Drops { common: more } => of_gate(more, GateQuestion::Drops),
        GateVerb::Bans { common: more } => of_gate(more, GateQuestion::Bans),
        GateVerb::Ban { ip, ban_for, common: more } => {
            let for_ms = ban_for.map(|lasting| u64::try_from(lasting.as_millis()).unwrap_or(u64::MAX));
            of_gate(more, GateQuestion::Ban { source: ip, for_ms })
        }
        GateVerb::Unban { ip, common: more } => of_gate(more, GateQuestion::Unban { source: ip }),
        GateVerb::Trace { common: more } => ask(common.and(more), &Verb::Trace),
    }
}

/// `--json` or not.
pub(super) fn output(json: bool) -> Output {
    if json { Output::Json } else { Output::Text }
}
