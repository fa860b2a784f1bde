//! What a simulated upstream offers, and what may go wrong with it.

use std::cell::Cell;
use std::rc::Rc;

use crate::dice::Dice;

/// What one upstream offers, and how often it is in trouble.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) is_esmtp: bool,
    pub(crate) pipelining: bool,
    pub(crate) chunking: bool,
    pub(crate) eight_bit: bool,
    pub(crate) size: Option<usize>,
    pub(crate) recipients_max: Option<usize>,
    pub(crate) messages_max: Option<usize>,
    /// Chance in a thousand of trouble, at each answer.
    pub(crate) trouble_permille: u64,
    /// Longest time of an ordinary answer, in microseconds.
    pub(crate) lag_micros_max: u64,
    /// What trouble there may be.
    pub(crate) troubles: &'static [Trouble],
    pub(crate) weather: Rc<Cell<Weather>>,
}

/// How things go in general.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// As the plan has it.
    Foul,
    /// No trouble, and nobody is put off.
    Fair,
}

impl Plan {
    pub(crate) fn roll(dice: &Dice) -> Self {
        let some = |number: u64| dice.happens(200).then(|| usize::try_from(number).unwrap_or(1));
        Self {
            is_esmtp: dice.happens(950),
            pipelining: dice.happens(700),
            chunking: dice.happens(400),
            eight_bit: dice.happens(800),
            size: some(dice.pick(&[700, 30_000, 10_000_000])),
            recipients_max: some(1 + dice.below(5)),
            messages_max: some(1 + dice.below(3)),
            trouble_permille: dice.pick(&[0, 0, 20, 60, 150]),
            lag_micros_max: dice.pick(&[0, 1_000, 1_000_000]),
            troubles: TROUBLES,
            weather: Rc::new(Cell::new(Weather::Foul)),
        }
    }

    /// The answer to EHLO.
    pub(crate) fn hello(&self) -> String {
        let mut words = vec!["up.test".to_owned(), "ENHANCEDSTATUSCODES".to_owned()];
        words.extend(self.pipelining.then(|| "PIPELINING".to_owned()));
        words.extend(self.chunking.then(|| "CHUNKING".to_owned()));
        words.extend(self.eight_bit.then(|| "8BITMIME".to_owned()));
        words.extend(self.size.map(|size| format!("SIZE {size}")));
        let limits = [("RCPTMAX", self.recipients_max), ("MAILMAX", self.messages_max)];
        let limits: Vec<_> =
            limits.iter().filter_map(|(word, max)| Some(format!("{word}={}", (*max)?))).collect();
        words.extend((!limits.is_empty()).then(|| format!("LIMITS {}", limits.join(" "))));
        let last = words.len() - 1;
        let line =
            |(at, word): (usize, &String)| format!("250{}{word}\r\n", if at == last { ' ' } else { '-' });
        words.iter().enumerate().map(line).collect()
    }
}

/// What goes wrong with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    Refusal(u16),
    Goodbye,
    Close,
    Reset,
    Silence,
    Nonsense,
    Half,
    Stray,
    Slow,
}

/// All of it, the replies too many last.
pub(crate) const TROUBLES: &[Trouble] = &[
    Trouble::Refusal(450),
    Trouble::Refusal(550),
    Trouble::Refusal(554),
    Trouble::Refusal(552),
    Trouble::Refusal(530),
    Trouble::Goodbye,
    Trouble::Close,
    Trouble::Reset,
    Trouble::Silence,
    Trouble::Nonsense,
    Trouble::Half,
    Trouble::Slow,
    Trouble::Stray,
];

/// All but the replies too many, which no client of SMTP can always tell from the true ones.
pub(crate) const HONEST_TROUBLES: &[Trouble] = TROUBLES.split_at(TROUBLES.len() - 1).0;
