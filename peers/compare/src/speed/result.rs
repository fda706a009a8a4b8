//! What a measurement came to.

use serde::{Deserialize, Serialize};

/// One line of the comparison.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// The work, as the goals call it.
    pub(crate) work: String,
    /// On which store, with how much in it, what of it.
    pub(crate) what: String,
    /// Of the figures.
    pub(crate) unit: String,
    pub(crate) goal: Goal,
    pub(crate) ours: Figures,
    pub(crate) reference: Figures,
    /// What has to be known to read it.
    pub(crate) note: String,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// The reference's figure is at least so many times ours.
    Times(f64),
    /// Ours is not above the reference's beyond what the rounds differ by among themselves.
    NotMore,
    /// Ours works.
    Works,
    /// Ours is at most this.
    AtMost(f64),
    /// Told beside the goals.
    None,
}

/// One side's figures: one for each round, or why there is none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figures {
    Rounds(Vec<f64>),
    Fails(String),
    NotMeasured(String),
}

impl Figures {
    pub(crate) fn median(&self) -> Option<f64> {
        match self {
            Self::Rounds(rounds) => quantile(rounds, 0.5),
            _ => None,
        }
    }

    /// The smallest and the largest.
    pub(crate) fn spread(&self) -> Option<(f64, f64)> {
        match self {
            Self::Rounds(rounds) => Some((quantile(rounds, 0.0)?, quantile(rounds, 1.0)?)),
            _ => None,
        }
    }
}

impl Comparison {
    /// The reference's median over ours.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let (ours, reference) = (self.ours.median()?, self.reference.median()?);
        // Nothing at all is as little as the smallest thing that can be told from it.
        Some(reference / ours.max(f64::MIN_POSITIVE))
    }

    /// Whether the goal is met; nothing where it cannot be said.
    pub(crate) fn met(&self) -> Option<bool> {
        match self.goal {
            Goal::Times(wanted) => self.ratio().map(|ratio| ratio >= wanted),
            Goal::NotMore => Some(self.ratio()? >= 1.0 || !self.is_more_beyond_noise()?),
            Goal::Works => match self.ours {
                Figures::Rounds(_) => Some(true),
                Figures::Fails(_) => Some(false),
                Figures::NotMeasured(_) => None,
            },
            Goal::AtMost(most) => self.ours.median().map(|ours| ours <= most),
            Goal::None => None,
        }
    }

    /// Rounds are taken in turns, so that what disturbs the machine disturbs a pair of them alike. Noise decides each pair by
    /// chance: ours is more where it is so in every pair, or in all but one of five or more.
    fn is_more_beyond_noise(&self) -> Option<bool> {
        let (Figures::Rounds(ours), Figures::Rounds(reference)) = (&self.ours, &self.reference) else { return None };
        let (pairs, (_, most)) = (ours.len().min(reference.len()), self.reference.spread()?);
        let more = ours.iter().zip(reference).filter(|(ours, reference)| ours > reference).count();
        Some(more + usize::from(pairs >= 5) >= pairs || self.ours.median()? > most)
    }
}

/// The value below which `part` of the values are.
pub(crate) fn quantile(values: &[f64], part: f64) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().checked_sub(1)?;
    values.get((last as f64 * part).round() as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comparison(goal: Goal, ours: &[f64], reference: &[f64]) -> Comparison {
        let rounds = |values: &[f64]| Figures::Rounds(values.to_vec());
        let text = String::new;
        Comparison {
            work: text(),
            what: text(),
            unit: text(),
            goal,
            ours: rounds(ours),
            reference: rounds(reference),
            note: text(),
        }
    }

    #[test]
    fn a_goal_of_times_is_judged_by_medians() {
        assert_eq!(comparison(Goal::Times(10.0), &[1.0, 2.0, 90.0], &[19.0, 20.0, 21.0]).met(), Some(true));
        assert_eq!(comparison(Goal::Times(10.0), &[1.0, 2.0, 2.0], &[19.0, 19.9, 99.0]).met(), Some(false));
    }

    #[test]
    fn slower_in_some_pairs_of_rounds_is_noise_and_in_nearly_all_is_not() {
        let met = |ours: &[f64], reference: &[f64]| comparison(Goal::NotMore, ours, reference).met();
        assert_eq!(met(&[3.0, 5.0, 3.0], &[2.0, 4.0, 3.5]), Some(true));
        // Their ranges overlap, and yet each round says the same.
        assert_eq!(met(&[3.0, 5.0, 4.0], &[2.0, 4.0, 3.5]), Some(false));
        assert_eq!(met(&[3.0, 3.0, 3.0, 3.0, 3.0], &[2.0, 2.0, 2.0, 2.0, 9.0]), Some(false));
        assert_eq!(met(&[3.0, 3.0, 3.0, 3.0, 3.0], &[2.0, 2.0, 2.0, 9.0, 9.0]), Some(true));
        assert_eq!(met(&[1.0, 1.0, 3.0], &[2.0, 2.0, 2.0]), Some(true));
        assert_eq!(met(&[5.0, 1.0, 6.0], &[2.0, 4.0, 3.0]), Some(false));
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let mut comparison = comparison(Goal::Times(2.0), &[1.0], &[4.0]);
        comparison.reference = Figures::NotMeasured("no time".to_owned());
        assert_eq!(comparison.met(), None);
        comparison.goal = Goal::Works;
        assert_eq!(comparison.met(), Some(true));
        comparison.ours = Figures::Fails("too large".to_owned());
        assert_eq!(comparison.met(), Some(false));
    }
}
