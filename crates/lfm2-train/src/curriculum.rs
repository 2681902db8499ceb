//! Easy items first: the order of training data by how hard it is for reference models.
//!
//! Knows scores of items, not what the items are.

use serde::{Deserialize, Serialize};

use crate::rng::Rng;
use crate::{Error, Result};

/// The share of models that fail on each item, from 0 (all succeed) to 1. `success` holds one row
/// per model.
///
/// # Errors
/// [`Error::InvalidOption`] when there is no model or the rows differ in length.
pub fn difficulty(success: &[Vec<bool>]) -> Result<Vec<f64>> {
    let Some(first) = success.first() else {
        return Err(Error::option(
            "curriculum",
            "expected the scores of a model, found none",
        ));
    };
    if let Some(bad) = success.iter().find(|row| row.len() != first.len()) {
        let detail = format!(
            "expected {} scores of every model, found {}",
            first.len(),
            bad.len()
        );
        return Err(Error::option("curriculum", detail));
    }
    let models = success.len() as f64;
    let solved = |item: usize| success.iter().filter(|row| row[item]).count() as f64;
    Ok((0..first.len())
        .map(|item| 1.0 - solved(item) / models)
        .collect())
}

/// The difficulty of items that nobody can mark right or wrong: their place among all by the mean of
/// the models' losses, from 0 (the smallest) to 1. `losses` holds one row per model.
///
/// # Errors
/// [`Error::InvalidOption`] when there is no model, the rows differ in length, or a loss is not
/// finite.
pub fn difficulty_by_loss(losses: &[Vec<f64>]) -> Result<Vec<f64>> {
    let Some(first) = losses.first() else {
        return Err(Error::option(
            "curriculum",
            "expected the losses of a model, found none",
        ));
    };
    let items = first.len();
    if losses.iter().any(|row| row.len() != items)
        || losses.iter().flatten().any(|x| !x.is_finite())
    {
        let detail = format!("expected {items} finite losses of every model");
        return Err(Error::option("curriculum", detail));
    }
    let mean = |item: usize| losses.iter().map(|row| row[item]).sum::<f64>() / losses.len() as f64;
    let means: Vec<f64> = (0..items).map(mean).collect();
    let mut ranks = vec![0.0; items];
    for (rank, item) in easy_first(&means).into_iter().enumerate() {
        ranks[item] = rank as f64 / items.saturating_sub(1).max(1) as f64;
    }
    Ok(ranks)
}

/// The items from easy to hard; equals stay in their order.
pub fn easy_first(difficulty: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..difficulty.len()).collect();
    order.sort_by(|&a, &b| difficulty[a].total_cmp(&difficulty[b]));
    order
}

/// `order` in `count` stages of equal size; the first ones get what is left over.
pub fn stages(order: &[usize], count: usize) -> Vec<Vec<usize>> {
    let count = count.max(1);
    let (size, more) = (order.len() / count, order.len() % count);
    let mut rest = order;
    let stages = (0..count).map(|stage| {
        let (this, after) = rest.split_at(size + usize::from(stage < more));
        rest = after;
        this.to_vec()
    });
    stages.collect()
}

/// What happens to items that no model solves; their answers are often wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unsolved {
    /// They come last.
    #[default]
    Last,
    /// They are left out.
    Drop,
}

/// How difficulty becomes an order of training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Curriculum {
    /// Strictly from easy to hard.
    Strict,
    /// Stages of equal size from easy to hard, shuffled inside.
    Stages {
        /// The number of stages.
        count: usize,
    },
    /// A window that opens: at step `t` of `steps`, items up to difficulty
    /// `start + (1 - start) * t / steps` take part, in random order.
    Window {
        /// The difficulty that is open from the first step.
        start: f64,
    },
}

impl Default for Curriculum {
    fn default() -> Self {
        Self::Stages { count: 4 }
    }
}

impl Curriculum {
    /// Checks that every setting is in its range.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] naming the field.
    pub fn validate(&self) -> Result<()> {
        match *self {
            Self::Stages { count: 0 } => Err(Error::option(
                "curriculum.count",
                "expected at least 1, found 0",
            )),
            Self::Window { start } if !(0.0..=1.0).contains(&start) => {
                let detail = format!("expected a number from 0 to 1, found {start}");
                Err(Error::option("curriculum.start", detail))
            }
            _ => Ok(()),
        }
    }

    /// The difficulty that is open when `done` (0 to 1) of the run is over.
    pub fn open(&self, done: f64) -> f64 {
        match *self {
            Self::Strict | Self::Stages { .. } => 1.0,
            Self::Window { start } => start + (1.0 - start) * done.clamp(0.0, 1.0),
        }
    }

    /// One pass over the items that are open when `done` of the run is over. Items that were never
    /// solved (difficulty 1) come last or are left out, as `unsolved` says.
    pub fn epoch(
        &self,
        difficulty: &[f64],
        unsolved: Unsolved,
        done: f64,
        rng: &mut Rng,
    ) -> Vec<usize> {
        let open = self.open(done);
        let is_solved = |item: &usize| difficulty[*item] < 1.0;
        let (mut solved, mut never): (Vec<usize>, Vec<usize>) = easy_first(difficulty)
            .into_iter()
            .filter(|&item| difficulty[item] <= open)
            .partition(is_solved);
        match *self {
            Self::Strict => {}
            Self::Stages { count } => {
                let mut parts = stages(&solved, count);
                parts.iter_mut().for_each(|stage| rng.shuffle(stage));
                solved = parts.concat();
            }
            Self::Window { .. } => rng.shuffle(&mut solved),
        }
        match unsolved {
            Unsolved::Last => solved.append(&mut never),
            Unsolved::Drop => {}
        }
        solved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difficulty_is_the_share_of_failures_and_equals_keep_their_order() {
        let success = [
            vec![true, false, true, false],
            vec![true, false, false, true],
        ];
        let hard = difficulty(&success).unwrap();
        assert_eq!(hard, [0.0, 1.0, 0.5, 0.5]);
        assert_eq!(easy_first(&hard), [0, 2, 3, 1]);
        assert!(difficulty(&[]).is_err());
        assert!(difficulty(&[vec![true], vec![]]).is_err());
    }

    #[test]
    fn losses_are_ranked() {
        let ranks = difficulty_by_loss(&[vec![3.0, 1.0, 9.0], vec![3.0, 2.0, 1.0]]).unwrap();
        assert_eq!(ranks, [0.5, 0.0, 1.0]);
        assert!(difficulty_by_loss(&[vec![f64::NAN]]).is_err());
    }

    #[test]
    fn stages_are_as_equal_as_can_be() {
        let parts = stages(&(0..10).collect::<Vec<_>>(), 4);
        let sizes: Vec<usize> = parts.iter().map(Vec::len).collect();
        assert_eq!(sizes, [3, 3, 2, 2]);
        assert_eq!(parts.concat(), (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn a_stage_is_shuffled_inside_and_comes_before_harder_ones() {
        let difficulty: Vec<f64> = (0..40).map(|i| f64::from(i) / 40.0).collect();
        let order = Curriculum::default().epoch(&difficulty, Unsolved::Last, 0.0, &mut Rng::new(1));
        for (i, stage) in order.chunks(10).enumerate() {
            assert!(stage.iter().all(|item| item / 10 == i), "{stage:?}");
            assert!(!stage.is_sorted());
        }
    }

    #[test]
    fn the_window_opens_and_the_unsolved_are_dropped() {
        let difficulty = [0.0, 0.25, 0.5, 0.75, 1.0];
        let window = Curriculum::Window { start: 0.2 };
        let count = |done, unsolved| {
            window
                .epoch(&difficulty, unsolved, done, &mut Rng::new(2))
                .len()
        };
        assert_eq!(count(0.0, Unsolved::Last), 1);
        assert_eq!(count(0.5, Unsolved::Last), 3);
        assert_eq!(count(1.0, Unsolved::Last), 5);
        assert_eq!(count(1.0, Unsolved::Drop), 4);
        let last = window.epoch(&difficulty, Unsolved::Last, 1.0, &mut Rng::new(2));
        assert_eq!(last[4], 4);
        assert!(Curriculum::Window { start: 1.5 }.validate().is_err());
        assert!(Curriculum::Stages { count: 0 }.validate().is_err());
    }
}
