//! Writes docs/CONFIG.md from the table of variables.

use std::fmt::Write as _;

use super::features::Features;
use super::variable::{Section, Variable, Without};
use super::variables::{ALIASES, VARIABLES};

/// The reference of the configuration, as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(PREAMBLE);
    for section in Section::ALL {
        let _ = write!(
            text,
            "\n## {}\n\n| variable | default | meaning |\n| --- | --- | --- |\n",
            section.heading()
        );
        for variable in VARIABLES.iter().filter(|variable| variable.section == section) {
            let _ = writeln!(
                text,
                "| `{}` | {} | {}<br>Takes {}.{} |",
                variable.name,
                default(variable),
                cell(variable.meaning),
                cell(&variable.kind.expected()),
                availability(variable),
            );
        }
    }
    text.push_str("\n## Other names\n\nAccepted with a warning.\n\n| name | stands for |\n| --- | --- |\n");
    for (alias, variable) in ALIASES {
        let _ = writeln!(text, "| `{alias}` | `{}` |", variable.name);
    }
    text
}

fn default(variable: &Variable) -> String {
    match (variable.default, variable.default_in_words) {
        ("", "") => "none".to_owned(),
        ("", words) => cell(words),
        (default, _) => format!("`{default}`"),
    }
}

fn availability(variable: &Variable) -> String {
    let Some((feature, without)) = variable.needs.filter(|(feature, _)| !Features::BEST_BUILD.has(*feature))
    else {
        return String::new();
    };
    let subject = feature.subject();
    match without {
        Without::Ineffective => format!("<br>No effect yet: {subject} is not in this build."),
        Without::RefusedUnless([]) => format!("<br>Refused: {subject} is not in this build."),
        Without::RefusedUnless(harmless) => {
            format!("<br>Only `{}`: {subject} is not in this build.", harmless.join("`, `"))
        }
    }
}

/// A text as it may stand in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

const PREAMBLE: &str = "\
# Configuration

Written by `cargo xtask docs` from `relay/src/config/variables.rs`. Do not edit.

`--set NAME=VALUE` comes before the environment, the environment before `$CREDENTIALS_DIRECTORY/NAME`, that
before the TOML file (`--config FILE`, else `$RINGPOST_CONFIG`, else `/etc/ringpost/ringpost.toml` where it
exists), and the file before the default. Keys of the TOML file are the names in lower case; lists may be arrays.

- `NAME_FILE=/path` gives the content of a file, its trailing newline cut, wherever `NAME` may stand; `NAME` comes
  first where both are given. In files of lists `#` opens a comment.
- An empty value is the same as none, but for `ACCEPTED_NETWORKS`, `SUBMISSION_NETWORKS` (loopback alone) and the
  listeners (closed). `off` or `none` takes away what has no default.
- Durations: `500ms 30s 5m 2h 5d`. Sizes: `512K 25M 10G`, powers of 1024. Booleans: `yes no on off true false 1 0`.
  Lists: blanks or commas. Rates: `100/s`, `14/s burst 50`, periods `s m h d` or a duration; without `burst` as many
  may come at once as one period holds.
- A name that looks like one of these and is none stops the start, with the nearest right name.
- `ringpost check` prints every mistake, `ringpost config` what is in force and where each value came from.
";
