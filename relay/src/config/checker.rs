//! Takes one variable after the other from what was written, parses it, and notes every mistake. `None` always
//! means that a mistake has been noted; nothing is guessed in its place.

use secrecy::zeroize::Zeroizing;

use super::effective::Effective;
use super::features::{Feature, Features};
use super::kind::Kind;
use super::raw::{Lookup, Raw};
use super::report::{Mistake, Origin, Warning};
use super::values::{Wrong, items};
use super::variable::{Variable, Without};
use super::variables::{OFFS, VARIABLES};
use crate::limits::CONFIG_ITEM_MISTAKES_MAX;

/// The check under way.
pub(super) struct Checker<'a> {
    raw: &'a Raw,
    build: Features,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<Warning>,
    pub(super) effective: Effective,
}

impl<'a> Checker<'a> {
    pub(super) fn new(raw: &'a Raw, build: Features) -> Self {
        let (mistakes, warnings) = (raw.mistakes.clone(), raw.warnings.clone());
        Self { raw, build, mistakes, warnings, effective: Effective::default() }
    }

    pub(super) fn has(&self, feature: Feature) -> bool {
        self.build.has(feature)
    }

    pub(super) fn is_written(&self, variable: &Variable) -> bool {
        self.raw.is_written(variable)
    }

    /// One value that has a default.
    pub(super) fn one<T>(
        &mut self,
        variable: &'static Variable,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        let (text, origin) = self.scalar(variable)?;
        self.parsed(variable, &text, &origin, parse)
    }

    /// One value that may be missing: not written, `off` or `none`. The outer `None` is a mistake.
    pub(super) fn maybe<T>(
        &mut self,
        variable: &'static Variable,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<Option<T>> {
        let (text, origin) = self.scalar(variable)?;
        if text.is_empty() || (may_say_off(variable) && is_off(&text)) {
            return Some(None);
        }
        self.parsed(variable, &text, &origin, parse).map(Some)
    }

    /// The items of a list, each wrong one a mistake of its own; `none` is an empty list.
    pub(super) fn list<T>(
        &mut self,
        variable: &'static Variable,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        let (text, origin) = self.text(variable)?;
        if is_off(text.trim()) {
            return Some(Vec::new());
        }
        let mut values = Vec::new();
        let mut wrong = 0usize;
        for item in items(&text) {
            match parse(item) {
                Ok(value) => values.push(value),
                Err(why) => {
                    wrong += 1;
                    if wrong <= CONFIG_ITEM_MISTAKES_MAX {
                        self.mistake(variable, item, &origin, expected(variable, &why));
                    }
                }
            }
        }
        if wrong > CONFIG_ITEM_MISTAKES_MAX {
            let more = format!("{} more items are wrong", wrong - CONFIG_ITEM_MISTAKES_MAX);
            self.mistakes.push(Mistake::in_name(variable.name, Some(origin), more));
        }
        (wrong == 0).then_some(values)
    }

    /// The lines of a value, each with its number from 1; empty ones are left out.
    pub(super) fn lines<T>(
        &mut self,
        variable: &'static Variable,
        parse: impl Fn(&str) -> Result<T, Wrong>,
    ) -> Option<Vec<T>> {
        let (text, origin) = self.text(variable)?;
        let mut values = Vec::new();
        let mut is_right = true;
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            match parse(line) {
                Ok(value) => values.push(value),
                Err(why) => {
                    let problem = format!("line {}: {}", number + 1, expected(variable, &why));
                    self.mistake(variable, line, &origin, problem);
                    is_right = false;
                }
            }
        }
        is_right.then_some(values)
    }

    /// The text of a variable, or its default, and where it came from. `None`: it could not be read.
    pub(super) fn text(&mut self, variable: &'static Variable) -> Option<(Zeroizing<String>, Origin)> {
        let (text, origin) = match self.raw.lookup(variable) {
            Lookup::Unreadable => return None,
            Lookup::Written(written) => (written.text.clone(), written.origin.clone()),
            Lookup::Absent => (Zeroizing::new(variable.default.to_owned()), Origin::Default("")),
        };
        self.effective.set(variable, &text, origin.clone());
        Some((text, origin))
    }

    fn scalar(&mut self, variable: &'static Variable) -> Option<(Zeroizing<String>, Origin)> {
        let (text, origin) = self.text(variable)?;
        if matches!(self.raw.lookup(variable), Lookup::Written(written) if written.is_array) {
            let problem = format!("expected {}, not a list", variable.kind.expected());
            self.mistake(variable, &text, &origin, problem);
            return None;
        }
        let text = if variable.kind.is_verbatim() { text } else { Zeroizing::new(text.trim().to_owned()) };
        Some((text, origin))
    }

    fn parsed<T>(
        &mut self,
        variable: &'static Variable,
        text: &str,
        origin: &Origin,
        parse: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<T> {
        match parse(text) {
            Ok(value) => Some(value),
            Err(why) => {
                self.mistake(variable, text, origin, expected(variable, &why));
                None
            }
        }
    }

    /// Notes a mistake in a variable's value.
    pub(super) fn mistake(&mut self, variable: &Variable, value: &str, origin: &Origin, problem: String) {
        self.mistakes.push(Mistake::in_value(variable, value, origin, problem));
    }

    /// Notes a mistake in the value that is written for a variable; where none is, one about its absence.
    pub(super) fn mistake_about(&mut self, variable: &Variable, problem: impl Into<String>) {
        let mistake = match self.raw.lookup(variable) {
            Lookup::Written(written) => {
                Mistake::in_value(variable, &written.text, &written.origin, problem.into())
            }
            Lookup::Unreadable | Lookup::Absent => Mistake::in_name(variable.name, None, problem.into()),
        };
        self.mistakes.push(mistake);
    }

    /// Notes a warning.
    pub(super) fn warn(&mut self, variable: &Variable, text: impl Into<String>) {
        self.warnings.push(Warning { variable: variable.name.to_owned(), text: text.into() });
    }

    /// Refuses what is switched on but not in this build, and warns of what has no effect in it. Comes last: of
    /// a value that is wrong anyway nothing more is said.
    pub(super) fn refuse_unbuilt(&mut self, is_excused: impl Fn(&Variable) -> bool) {
        for variable in VARIABLES {
            let (Some((feature, without)), Lookup::Written(written)) =
                (variable.needs, self.raw.lookup(variable))
            else {
                continue;
            };
            let is_wrong = self.mistakes.iter().any(|mistake| mistake.variable == variable.name);
            if self.has(feature) || is_wrong || is_excused(variable) {
                continue;
            }
            let value = written.text.trim().to_owned();
            let says = format!("{} is not in this build", feature.subject());
            let is_one_of = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(&value));
            match without {
                Without::Ineffective if items(&value).eq(items(variable.default)) => {}
                Without::Ineffective => self.warn(variable, format!("has no effect: {says}")),
                Without::RefusedUnless(harmless) if is_one_of(harmless) => {}
                Without::RefusedUnless(_) if may_say_off(variable) && is_off(&value) => {}
                Without::RefusedUnless(harmless) => {
                    let rest = match harmless {
                        [] => "expected nothing here".to_owned(),
                        words => format!("expected {}", words.join(" or ")),
                    };
                    self.mistake_about(variable, format!("{says}; {rest}"));
                }
            }
        }
    }
}

/// Whether `off` and `none` take the variable's value away: a login or a password may be such a word.
fn may_say_off(variable: &Variable) -> bool {
    !variable.kind.is_verbatim() && variable.kind != Kind::Text
}

/// Whether the text is a word that takes away what has no default.
pub(super) fn is_off(text: &str) -> bool {
    OFFS.iter().any(|word| word.eq_ignore_ascii_case(text))
}

fn expected(variable: &Variable, why: &Wrong) -> String {
    let expected = variable.kind.expected();
    if why.hint.is_empty() {
        format!("expected {expected}")
    } else {
        format!("expected {expected}; {}", why.hint)
    }
}
