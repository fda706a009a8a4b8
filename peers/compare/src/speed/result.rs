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
    /// The reference is known to fail at this: it is told, and nothing is wrong with the measurement.
    #[serde(default)]
    pub(crate) reference_fails: bool,
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
    /// Of every round.
    Rounds(Vec<f64>),
    /// Of the rounds before one that failed.
    Broken { rounds: Vec<f64>, error: String },
    /// The first round failed.
    Fails(String),
    /// There was no round.
    NotMeasured(String),
}

impl Figures {
    /// As far as there are rounds.
    pub(crate) fn rounds(&self) -> &[f64] {
        match self {
            Self::Rounds(rounds) | Self::Broken { rounds, .. } => rounds,
            Self::Fails(_) | Self::NotMeasured(_) => &[],
        }
    }

    /// Why there are no more rounds.
    pub(crate) fn error(&self) -> Option<&str> {
        match self {
            Self::Rounds(_) => None,
            Self::Broken { error, .. } | Self::Fails(error) | Self::NotMeasured(error) => Some(error),
        }
    }

    pub(crate) fn median(&self) -> Option<f64> {
        quantile(self.rounds(), 0.5)
    }

    /// The smallest and the largest.
    pub(crate) fn spread(&self) -> Option<(f64, f64)> {
        Some((quantile(self.rounds(), 0.0)?, quantile(self.rounds(), 1.0)?))
    }
}

/// Below this a figure is nothing: a difference of two equal ones is hardly ever zero to the last bit.
const NOTHING: f64 = 1e-6;

impl Comparison {
    /// The reference's median over ours.
    pub(crate) fn ratio(&self) -> Option<f64> {
        let (ours, reference) = (self.ours.median()?, self.reference.median()?);
        // Nothing at all is as little as the smallest thing that can be told from it.
        Some(reference / ours.max(f64::MIN_POSITIVE))
    }

    /// Whether ours is nothing at all, so that no ratio can be told.
    pub(crate) fn is_all_of_it(&self) -> bool {
        self.ours.median().is_some_and(|ours| ours < NOTHING)
    }

    /// Whether the goal is met; nothing where it cannot be said.
    pub(crate) fn met(&self) -> Option<bool> {
        match (self.goal, &self.ours) {
            (Goal::None, _) | (_, Figures::NotMeasured(_)) => None,
            (_, Figures::Fails(_)) | (Goal::Works | Goal::AtMost(_), Figures::Broken { .. }) => Some(false),
            (Goal::Works, Figures::Rounds(_)) => Some(true),
            (Goal::Times(wanted), _) => self.ratio().map(|ratio| ratio >= wanted),
            (Goal::NotMore, _) => Some(self.ratio()? >= 1.0 || !self.is_more_beyond_noise()?),
            (Goal::AtMost(most), Figures::Rounds(_)) => self.ours.median().map(|ours| ours <= most),
        }
    }

    /// What went wrong: everything but that the reference fails where it is known to.
    pub(crate) fn failures(&self) -> Vec<(&'static str, &str)> {
        match (&self.ours, &self.reference) {
            (Figures::NotMeasured(error), _) | (_, Figures::NotMeasured(error)) => vec![("not measured", error)],
            (ours, reference) => {
                let reference = reference.error().filter(|_| !self.reference_fails).map(|error| ("reference", error));
                ours.error().map(|error| ("ours", error)).into_iter().chain(reference).collect()
            }
        }
    }

    /// Rounds are taken in turns, so that what disturbs the machine disturbs a pair of them alike. Noise decides each pair by
    /// chance: ours is more where it is so in every pair, or in all but one of five or more.
    fn is_more_beyond_noise(&self) -> Option<bool> {
        let (ours, reference) = (self.ours.rounds(), self.reference.rounds());
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
            reference_fails: false,
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

    #[test]
    fn a_round_that_fails_leaves_those_before_it() {
        let mut comparison = comparison(Goal::Times(2.0), &[], &[4.0, 4.0, 4.0]);
        comparison.ours = Figures::Broken { rounds: vec![1.0, 1.0], error: "cut".to_owned() };
        assert_eq!((comparison.ratio(), comparison.met()), (Some(4.0), Some(true)));
        assert_eq!(comparison.failures(), [("ours", "cut")]);
        // What has to hold every time has not.
        comparison.goal = Goal::AtMost(5.0);
        assert_eq!(comparison.met(), Some(false));
        comparison.goal = Goal::Works;
        assert_eq!(comparison.met(), Some(false));
    }

    #[test]
    fn only_a_failure_that_is_known_is_no_failure() {
        let mut comparison = comparison(Goal::Works, &[1.0], &[]);
        comparison.reference = Figures::Fails("too large".to_owned());
        assert_eq!(comparison.failures(), [("reference", "too large")]);
        comparison.reference_fails = true;
        assert!(comparison.failures().is_empty());
        comparison.ours = Figures::Fails("no answer".to_owned());
        assert_eq!(comparison.failures(), [("ours", "no answer")]);
        comparison.reference = Figures::NotMeasured("no etcd".to_owned());
        assert_eq!(comparison.failures(), [("not measured", "no etcd")]);
    }

    #[test]
    fn ours_failing_is_a_miss() {
        let mut comparison = comparison(Goal::AtMost(5.0), &[], &[4.0]);
        comparison.ours = Figures::Fails("not whole".to_owned());
        assert_eq!(comparison.met(), Some(false));
    }

    #[test]
    fn a_residue_of_two_equal_times_is_nothing() {
        assert!(comparison(Goal::None, &[1e-14], &[3.0]).is_all_of_it());
        assert!(!comparison(Goal::None, &[0.01], &[3.0]).is_all_of_it());
    }
}
