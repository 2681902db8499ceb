//! How many tokens to guess, by what passes cost and how often guesses are right.
//!
//! With `a` the chance that a guess is right where all before it were, a pass with `k` guesses gives
//! `1 + a + .. + a^k` tokens on average. The governor takes the `k` with the most tokens per second,
//! which may be none. It reads no clock: times are told to it.

use std::time::Duration;

use super::Pace;

/// Weight of a new observation of right and wrong guesses.
const ACCEPTANCE_WEIGHT: f64 = 0.1;
/// Weight of a new time.
const COST_WEIGHT: f64 = 0.25;
/// A time counts as at most this many times the known one: a pass that was interrupted says little.
const OUTLIER: f64 = 4.0;
/// What a further token of a pass is taken to cost before it was tried, in passes: little, so that it
/// is tried.
const UNTRIED_COST: f64 = 0.05;
/// Passes without guesses, at first and at most, after which guesses are tried again.
const FIRST_PROBE: usize = 16;
const LAST_PROBE: usize = 512;
/// Passes with guesses after which one without is measured again.
const STALE: usize = 64;

#[derive(Debug)]
pub(super) struct Governor {
    pace: Pace,
    acceptance: f64,
    /// Seconds of a pass by its number of guesses; `None` where there was none yet.
    costs: Vec<Option<f64>>,
    /// Passes in a row that guessed nothing although they could.
    idle: usize,
    probe_after: usize,
    since_plain: usize,
}

/// How a pass with guesses went.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verified {
    pub(super) drafted: usize,
    pub(super) accepted: usize,
    /// Whether it ended with a wrong guess, and not with the text.
    pub(super) refused: bool,
    pub(super) time: Duration,
}

impl Governor {
    pub(super) fn new(max_draft: usize, pace: Pace) -> Self {
        Self {
            pace,
            acceptance: 0.5,
            costs: vec![None; max_draft + 1],
            idle: 0,
            probe_after: FIRST_PROBE,
            since_plain: 0,
        }
    }

    /// How many tokens to guess for the next pass, up to `limit`.
    pub(super) fn draft_len(&mut self, limit: usize) -> usize {
        let limit = limit.min(self.costs.len() - 1);
        if limit == 0 || self.pace == Pace::Constant {
            return limit;
        }
        // Nothing can be compared with an unknown time, and an old one is not much better.
        if self.seconds(0).is_none() || self.since_plain >= STALE {
            return 0;
        }
        match self.best(0..=limit) {
            0 if self.idle >= self.probe_after => {
                self.idle = 0;
                self.probe_after = LAST_PROBE.min(2 * self.probe_after);
                self.best(1..=limit)
            }
            0 => {
                self.idle += 1;
                0
            }
            best => {
                self.idle = 0;
                self.probe_after = FIRST_PROBE;
                best
            }
        }
    }

    /// Takes the time of a pass without guesses.
    pub(super) fn plain(&mut self, time: Duration) {
        self.since_plain = 0;
        self.take_time(0, time);
    }

    /// Takes what came of a pass with guesses.
    pub(super) fn verified(&mut self, outcome: Verified) {
        self.since_plain += 1;
        self.take_time(outcome.drafted, outcome.time);
        for _ in 0..outcome.accepted {
            self.guessed(true);
        }
        if outcome.refused {
            self.guessed(false);
        }
    }

    /// Takes whether a guess was right: also one that was only looked at.
    pub(super) fn guessed(&mut self, right: bool) {
        let observed = f64::from(u8::from(right));
        self.acceptance += ACCEPTANCE_WEIGHT * (observed - self.acceptance);
    }

    fn take_time(&mut self, drafted: usize, time: Duration) {
        let seconds = time.as_secs_f64();
        if let Some(cost) = self.costs.get_mut(drafted) {
            *cost = Some(match *cost {
                None => seconds,
                Some(known) => known + COST_WEIGHT * (seconds.min(OUTLIER * known) - known),
            });
        }
    }

    /// The number of guesses with the most tokens per second, the smallest if there are several.
    fn best(&self, mut choices: std::ops::RangeInclusive<usize>) -> usize {
        let speed = |k: usize| {
            let tokens: f64 = (0..=k).map(|i| self.acceptance.powi(i as i32)).sum();
            tokens / self.seconds(k).unwrap_or(f64::INFINITY).max(1e-9)
        };
        let first = choices.next().unwrap_or(0);
        let best = choices.fold((first, speed(first)), |best, k| {
            let speed = speed(k);
            if speed > best.1 { (k, speed) } else { best }
        });
        best.0
    }

    /// The time of a pass with `k` guesses, from its neighbours where it was not tried.
    fn seconds(&self, k: usize) -> Option<f64> {
        let known = |k: usize| Some((k, (*self.costs.get(k)?)?));
        let (below, low) = (0..=k).rev().find_map(known)?;
        if below == k {
            return Some(low);
        }
        if let Some((above, high)) = (k + 1..self.costs.len()).find_map(known) {
            let share = (k - below) as f64 / (above - below) as f64;
            return Some(low + share * (high - low));
        }
        let plain = self.costs.first().copied().flatten()?;
        let measured = (low - plain) / below.max(1) as f64;
        let further = measured.max(UNTRIED_COST * plain);
        Some(low + (k - below) as f64 * further)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which a pass takes `plain + k * each` milliseconds, and a text of which each guess
    /// is right with the given chance; by turns, without random numbers.
    struct World {
        governor: Governor,
        plain: f64,
        each: f64,
        chance: f64,
        owed: f64,
    }

    impl World {
        fn new(plain: f64, each: f64, chance: f64) -> Self {
            Self {
                governor: Governor::new(8, Pace::Adaptive),
                plain,
                each,
                chance,
                owed: 0.0,
            }
        }

        fn is_right(&mut self) -> bool {
            self.owed += self.chance;
            let right = self.owed >= 1.0;
            self.owed -= f64::from(u8::from(right));
            right
        }

        fn pass(&mut self) -> usize {
            let drafted = self.governor.draft_len(8);
            let time = Duration::from_secs_f64((self.plain + drafted as f64 * self.each) / 1e3);
            if drafted == 0 {
                self.governor.plain(time);
                return 0;
            }
            let accepted = (0..drafted).take_while(|_| self.is_right()).count();
            self.governor.verified(Verified {
                drafted,
                accepted,
                refused: accepted < drafted,
                time,
            });
            drafted
        }

        /// The numbers of guesses in `passes` passes.
        fn run(&mut self, passes: usize) -> Vec<usize> {
            (0..passes).map(|_| self.pass()).collect()
        }
    }

    fn idle(passes: &[usize]) -> usize {
        passes.iter().filter(|drafted| **drafted == 0).count()
    }

    #[test]
    fn the_first_pass_is_measured_alone() {
        let mut world = World::new(10.0, 0.1, 0.9);
        assert_eq!(world.pass(), 0);
        assert!(world.pass() > 0);
    }

    #[test]
    fn good_guesses_at_a_low_price_are_taken_in_full() {
        let passes = World::new(10.0, 0.2, 0.95).run(300);
        assert!(
            passes[250..].iter().filter(|k| **k == 8).count() > 45,
            "{passes:?}"
        );
    }

    #[test]
    fn what_does_not_pay_is_switched_off() {
        for (each, chance) in [(10.0, 0.9), (0.5, 0.02), (6.0, 0.5)] {
            let passes = World::new(10.0, each, chance).run(600);
            assert!(idle(&passes[100..]) > 490, "{each} {chance}: {passes:?}");
        }
    }

    #[test]
    fn dear_tokens_are_guessed_fewer_at_a_time() {
        let long = World::new(10.0, 0.1, 0.7).run(200);
        let short = World::new(10.0, 3.0, 0.7).run(200);
        let mean = |passes: &[usize]| passes[100..].iter().sum::<usize>() as f64 / 100.0;
        assert!(mean(&long) > mean(&short) + 2.0, "{long:?} {short:?}");
        assert!(mean(&short) > 0.5);
    }

    #[test]
    fn guesses_are_tried_again_now_and_then() {
        let mut world = World::new(10.0, 10.0, 0.9);
        let passes = world.run(3_000);
        let tried = passes.len() - idle(&passes);
        assert!((5..30).contains(&tried), "{tried}");
        // The machine has become another one, and it is noticed.
        world.each = 0.1;
        let later = world.run(2_000);
        assert!(idle(&later[1_500..]) < 50);
    }

    #[test]
    fn guesses_that_were_only_looked_at_count() {
        let mut world = World::new(10.0, 2.0, 0.02);
        world.run(100);
        assert_eq!(world.pass(), 0);
        for _ in 0..30 {
            world.governor.guessed(true);
        }
        world.chance = 0.98;
        assert!(world.pass() > 0);
    }

    #[test]
    fn a_plain_pass_is_measured_now_and_then() {
        let mut world = World::new(10.0, 0.1, 0.97);
        let passes = world.run(500);
        let plain = idle(&passes[10..]);
        assert!((5..12).contains(&plain), "{plain}");
    }

    #[test]
    fn one_slow_pass_changes_little() {
        let mut world = World::new(10.0, 0.2, 0.95);
        world.run(100);
        world.governor.verified(Verified {
            drafted: 8,
            accepted: 8,
            refused: false,
            time: Duration::from_secs(5),
        });
        assert!(idle(&world.run(40)) < 25);
    }

    #[test]
    fn limits_are_kept() {
        let mut constant = Governor::new(4, Pace::Constant);
        assert_eq!(constant.draft_len(9), 4);
        assert_eq!(constant.draft_len(2), 2);
        assert_eq!(constant.draft_len(0), 0);
        let mut adaptive = Governor::new(4, Pace::Adaptive);
        adaptive.plain(Duration::from_millis(10));
        (0..50).for_each(|_| adaptive.guessed(true));
        assert_eq!(adaptive.draft_len(2), 2);
        assert_eq!(adaptive.draft_len(0), 0);
    }

    #[test]
    fn a_clock_that_stands_still_is_no_reason_to_fail() {
        let mut governor = Governor::new(8, Pace::Adaptive);
        governor.plain(Duration::ZERO);
        for _ in 0..100 {
            let drafted = governor.draft_len(8);
            assert!(drafted <= 8);
            governor.verified(Verified {
                drafted,
                accepted: drafted,
                refused: false,
                time: Duration::ZERO,
            });
        }
    }
}
