//! Which backlogs take too long to be followed? The server tells what a watch missed a thousand revisions at a time, and all that
//! one revision did, such as the end of a lease, in one message: where that takes long to arrive, nothing is told before all of
//! it is there, and whoever opens the watch anew is sent the same. Pages come in parts that a slow link carries.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use crate::names::Range;

/// How many are remembered: as many as a handle has watches.
const REMEMBERED: usize = 32;

/// Where watches stood that were sent much and had all of it in time not once.
#[derive(Debug, Default)]
pub(crate) struct Backlogs(Mutex<VecDeque<(Range, i64)>>);

impl Backlogs {
    /// Takes note that what follows `told` is too long.
    pub(crate) fn is_too_long(&self, range: &Range, told: i64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(other, _)| other != range);
        if known.len() == REMEMBERED {
            known.pop_front();
        }
        known.push_back((range.clone(), told));
    }

    /// Whether what follows `told` was too long when it was tried last. Asked once: then it may be followed again.
    pub(crate) fn was_too_long(&self, range: &Range, told: i64) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.len();
        known.retain(|(other, at)| (other, *at) != (range, told));
        known.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_remembered_for_one_question_and_no_more_of_them_than_there_are_watches() {
        let range = |number: usize| Range { start: vec![number as u8], end: vec![number as u8 + 1] };
        let backlogs = Backlogs::default();
        backlogs.is_too_long(&range(0), 7);
        assert!(!backlogs.was_too_long(&range(0), 8) && !backlogs.was_too_long(&range(1), 7));
        assert!(backlogs.was_too_long(&range(0), 7) && !backlogs.was_too_long(&range(0), 7));
        (0..=REMEMBERED).for_each(|number| backlogs.is_too_long(&range(number), 7));
        assert!(!backlogs.was_too_long(&range(0), 7) && backlogs.was_too_long(&range(1), 7));
    }
}
