//! The options of `sendmail`, as Postfix takes them. Shapes only.

use std::path::PathBuf;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Mode {
    /// Hand in the message on standard input: `-bm`, or nothing.
    #[default]
    Submit,
    /// SMTP on standard input and output: `-bs`.
    Session,
    /// List the queue: `-bp`.
    List,
    /// Attempt what is queued: `-q`.
    Flush,
    /// Make the alias database anew: `-bi`, `-I`.
    Aliases,
}

/// What stands in the arguments.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Options {
    pub(super) mode: Mode,
    /// `-t`: the header names the recipients.
    pub(super) from_header: bool,
    /// `-i`, `-oi`: a line with a dot alone does not end the message.
    pub(super) dots_are_content: bool,
    /// `-f`, `-r`.
    pub(super) sender: Option<String>,
    /// `-F`.
    pub(super) name: Option<String>,
    /// `-C`.
    pub(super) config: Option<PathBuf>,
    pub(super) dsn: Dsn,
    pub(super) recipients: Vec<String>,
}

/// What is asked of delivery notices (RFC 3461).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Dsn {
    /// `-N`: the value of NOTIFY.
    pub(super) notify: Option<String>,
    /// `-R`: `FULL` or `HDRS`.
    pub(super) ret: Option<&'static str>,
    /// `-V`: the envelope's id, not yet in xtext.
    pub(super) envid: Option<String>,
}

/// Options with a value, in the same argument or the next one.
const WITH_VALUE: &str = "ABCFLNORVXbcfhopre";
/// Options that change nothing here: verbosity, rewriting, old delivery modes.
const IGNORED: &str = "GUmnvx";

/// Reads the arguments.
pub(super) fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(letters) = argument.strip_prefix('-').filter(|letters| !letters.is_empty()) else {
            options.recipients.push(argument.clone());
            continue;
        };
        if letters == "-" {
            options.recipients.extend(rest.by_ref().cloned());
            break;
        }
        for (at, letter) in letters.char_indices() {
            let behind = &letters[at + letter.len_utf8()..];
            if letter == 'q' {
                // `-q`, `-q30m`, `-qRdomain`: all of it is attempted, once.
                options.mode = Mode::Flush;
                break;
            }
            if WITH_VALUE.contains(letter) {
                let value = match behind {
                    "" => rest.next().ok_or_else(|| format!("-{letter} needs a value"))?.clone(),
                    behind => behind.to_owned(),
                };
                valued(&mut options, letter, value)?;
                break;
            }
            match letter {
                't' => options.from_header = true,
                'i' => options.dots_are_content = true,
                'I' => options.mode = Mode::Aliases,
                letter if IGNORED.contains(letter) => {}
                letter => return Err(format!("unknown option -{letter}")),
            }
        }
    }
    Ok(options)
}

fn valued(options: &mut Options, letter: char, value: String) -> Result<(), String> {
    match letter {
        'f' | 'r' => options.sender = Some(value),
        'F' => options.name = Some(value),
        'C' => options.config = Some(value.into()).filter(|path: &PathBuf| path.is_file()),
        'b' => {
            options.mode = match value.as_str() {
                "m" => Mode::Submit,
                "s" => Mode::Session,
                "p" => Mode::List,
                "i" => Mode::Aliases,
                other => return Err(format!("-b{other} is none of -bm, -bs, -bp, -bi")),
            }
        }
        'o' if value == "i" => options.dots_are_content = true,
        'N' => options.dsn.notify = Some(notify(&value)?),
        'R' => {
            options.dsn.ret = match value.to_ascii_lowercase().as_str() {
                "full" => Some("FULL"),
                "hdrs" => Some("HDRS"),
                _ => return Err(format!("-R {value}: expected full or hdrs")),
            }
        }
        'V' => options.dsn.envid = Some(value).filter(|id| !id.is_empty()),
        _ => {}
    }
    Ok(())
}

/// RFC 3461 §4.1: `NEVER` alone, or some of the three others.
fn notify(value: &str) -> Result<String, String> {
    let wrong = || format!("-N {value}: expected never, or some of success, failure, delay");
    let words: Vec<String> = value.split(',').map(|word| word.trim().to_ascii_uppercase()).collect();
    let is_known = words.iter().all(|word| matches!(word.as_str(), "SUCCESS" | "FAILURE" | "DELAY"));
    if is_known || words == ["NEVER"] { Ok(words.join(",")) } else { Err(wrong()) }
}
