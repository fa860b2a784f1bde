//! The verbs about the queue, and `mailq`, which is one of them under its old name.

use std::io::{self, Write as _};
use std::process::ExitCode;

use futures_lite::future::block_on;

use super::{Common, QueueVerb, Selector, print, tell};
use crate::config;
use crate::control::client::queue::{self, Action, QueueVerb as Asked, Shape, Which};
use crate::io::files::blocking::BlockingFiles;
use crate::spool::{self, Geometry, Keys, RecoverFault, Report, Setup, Touch};

/// `queue …`.
pub(super) fn verb(common: Common, verb: QueueVerb) -> ExitCode {
    let (more, asked) = match verb {
        QueueVerb::List { json, common } => {
            let shape = if json { Shape::Json } else { Shape::Table };
            (common, Asked { action: Action::List, ids: Vec::new(), which: Which::default(), shape })
        }
        QueueVerb::Show { id, common } => (
            common,
            Asked { action: Action::Show, ids: vec![id], which: Which::default(), shape: Shape::Whole },
        ),
        QueueVerb::Hold(selector) => selected(Action::Hold, selector),
        QueueVerb::Release(selector) => selected(Action::Release, selector),
        QueueVerb::Delete(selector) => selected(Action::Delete, selector),
        QueueVerb::Requeue(selector) => selected(Action::Requeue, selector),
        QueueVerb::Bounce(selector) => selected(Action::Bounce, selector),
        QueueVerb::Fsck { common: more } => return fsck(common.and(more)),
    };
    ask(common.and(more), &asked)
}

/// `mailq`, `sendmail -bp`.
pub(super) fn mailq(common: Common) -> ExitCode {
    let which = Which::default();
    match ask_code(common, &Asked { action: Action::List, ids: Vec::new(), which, shape: Shape::Mailq }) {
        // What scripts expect of a mail system that is down.
        EX_NOT_RUNNING => ExitCode::from(super::EX_UNAVAILABLE),
        code => ExitCode::from(code),
    }
}

fn ask(common: Common, asked: &Asked) -> ExitCode {
    ExitCode::from(ask_code(common, asked))
}

fn ask_code(common: Common, asked: &Asked) -> u8 {
    let socket = config::control_socket(&common.sources());
    let mut out = io::BufWriter::new(io::stdout().lock());
    let code = queue::run(&socket, asked, &mut out, &mut io::stderr().lock());
    // A reader that went away is no failure of the verb.
    let _ = out.flush();
    code
}

fn selected(action: Action, selector: Selector) -> (Common, Asked) {
    let Selector { ids, all: _, sender, recipient, domain, older, common } = selector;
    let older_ms = older.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    let which = Which { id: None, sender, recipient, domain, older_ms };
    (common, Asked { action, ids, which, shape: Shape::Table })
}

/// `queue fsck`: looks at every record; 0 where all is well, 1 where something is damaged, 73 where the spool cannot be
/// read.
fn fsck(common: Common) -> ExitCode {
    let directory = config::state_dir(&common.sources()).join(spool::DIRECTORY);
    if let Err(error) = std::fs::read_dir(&directory) {
        tell(&format!("{}: {error}", directory.display()));
        return ExitCode::from(EX_CANTCREAT);
    }
    let setup = Setup {
        directory,
        geometry: Geometry::for_budget(u64::MAX, 1),
        octets_max: u64::MAX,
        workers: 1,
        touch: Touch::Nothing,
    };
    match block_on(spool::recover(&BlockingFiles, &setup, |_| Keys::default())) {
        Ok(recovered) => {
            let report = recovered.report;
            let is_well = report.damage.is_empty() && report.incomplete.is_empty();
            print(&mut io::stdout().lock(), &told(&report), u8::from(!is_well))
        }
        Err(fault @ (RecoverFault::Newer(_) | RecoverFault::Io(..))) => {
            tell(&fault.to_string());
            ExitCode::from(EX_CANTCREAT)
        }
    }
}

fn told(report: &Report) -> String {
    let mut text = String::new();
    for damage in &report.damage {
        let file = match damage.segment {
            u32::MAX => "an archive file".to_owned(),
            number => format!("segment {number}"),
        };
        let whose =
            damage.id.map_or("no message's that can be told".to_owned(), |id| format!("message {id}"));
        text += &format!("damaged: {file}, octets {} to {}: {whose}\n", damage.from, damage.to);
    }
    for id in &report.incomplete {
        text += &format!("incomplete: message {id}: its record is whole, parts of its body are missing\n");
    }
    for path in &report.strange {
        text += &format!("strange: {}: no part of a spool\n", path.display());
    }
    if report.unreadable_blocks > 0 {
        text += &format!("unreadable: {} blocks\n", report.unreadable_blocks);
    }
    text += &format!(
        "{} segments with records, {} without, {} messages in files of their own\n",
        report.segments, report.spares, report.archived
    );
    text += &format!(
        "{} records are whole; {} messages of {} octets are to be delivered\n",
        report.records, report.messages, report.octets
    );
    let is_well = report.damage.is_empty() && report.incomplete.is_empty();
    text += match is_well {
        true => "the spool is well\n",
        false => "the spool is damaged; what a running relay writes right now can look like this\n",
    };
    text
}

const EX_NOT_RUNNING: u8 = 3;
const EX_CANTCREAT: u8 = 73;
