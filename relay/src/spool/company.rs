//! Whether a batch waits for company: it learns from what came of the last ones.
//!
//! A write costs as much for one message as for a few. Under a load of many small messages others come within a fraction of a
//! millisecond; all of them are then sooner through, for the processor has less to do. With few clients nobody comes, and
//! every client would wait for nothing. So a batch waits only where messages have met by themselves, and not after a wait in
//! vain, until they have met a good deal more often; that doubles with every such wait (decision 0008).
//!
//! What it must not do: let a client wait that is alone.

/// Messages that a batch waits for. Each of them saves a good part of a write, and less of it than the one before.
pub(super) const COMPANY: u32 = 4;
/// Octets of a batch that waits for nobody: the write costs little beside the copying.
pub(super) const COMPANY_OCTETS_MAX: usize = 32 * 1024;
/// Doublings of the encounters that it takes after waits in vain.
const DOUBLINGS_MAX: u32 = 12;

/// What one log knows of it.
#[derive(Debug, Default)]
pub(super) struct Company {
    is_expected: bool,
    /// Waits in vain since one was not.
    in_vain: u32,
    /// Encounters still to be seen before the next wait.
    wanted: u32,
}

impl Company {
    /// Whether the next batch waits.
    pub(super) fn is_expected(&self) -> bool {
        self.is_expected
    }

    /// A batch has waited. `came`: not in vain.
    pub(super) fn waited(&mut self, came: bool) {
        if came {
            self.in_vain = 0;
            return;
        }
        self.is_expected = false;
        self.in_vain = (self.in_vain + 1).min(DOUBLINGS_MAX);
        self.wanted = 1 << self.in_vain;
    }

    /// A batch that has not waited has so many messages.
    pub(super) fn met(&mut self, messages: u32) {
        if messages < 2 {
            return;
        }
        self.wanted = self.wanted.saturating_sub(1);
        self.is_expected = self.wanted == 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_alone() {
        let mut company = Company::default();
        (0..1000).for_each(|_| company.met(1));
        assert!(!company.is_expected());
        company.met(2);
        assert!(company.is_expected());
    }

    #[test]
    fn it_goes_on_while_somebody_comes() {
        let mut company = Company::default();
        company.met(5);
        (0..1000).for_each(|_| company.waited(true));
        assert!(company.is_expected());
    }

    #[test]
    fn two_clients_that_wait_for_a_third_soon_do_not() {
        let mut company = Company::default();
        let mut waits = 0;
        for _ in 0..10_000 {
            if company.is_expected() {
                waits += 1;
                company.waited(false);
            } else {
                company.met(2);
            }
        }
        assert!(waits < 15, "{waits} of 10,000 batches waited in vain");
    }

    #[test]
    fn one_that_comes_makes_good_for_waits_in_vain() {
        let mut company = Company::default();
        for _ in 0..5 {
            while !company.is_expected() {
                company.met(2);
            }
            company.waited(false);
        }
        while !company.is_expected() {
            company.met(2);
        }
        company.waited(true);
        company.waited(false);
        (0..2).for_each(|_| company.met(2));
        assert!(company.is_expected());
    }
}
