//! Guesses from the text itself: what followed the last time.

use std::collections::HashMap;

/// Where every run of two and three tokens was followed by another one, the latest place of each.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    after_three: HashMap<[u32; 3], usize>,
    after_two: HashMap<[u32; 2], usize>,
}

impl Lookup {
    /// Notes that `tokens` has a new last one.
    pub(super) fn note_last(&mut self, tokens: &[u32]) {
        let Some((_, before)) = tokens.split_last() else {
            return;
        };
        if let Some(run) = before.last_chunk() {
            self.after_three.insert(*run, before.len());
        }
        if let Some(run) = before.last_chunk() {
            self.after_two.insert(*run, before.len());
        }
    }

    /// The position in `tokens` of what followed their end the last time; longer runs count first.
    pub(super) fn find(&self, tokens: &[u32]) -> Option<usize> {
        let three = tokens
            .last_chunk()
            .and_then(|run| self.after_three.get(run));
        let two = || tokens.last_chunk().and_then(|run| self.after_two.get(run));
        three.or_else(two).copied()
    }
}

/// `count` tokens from position `from` of `tokens` on. Where they end, the copy goes on in itself: a
/// repetition is expected to go on.
pub(super) fn copy(tokens: &[u32], from: usize, count: usize) -> Vec<u32> {
    let Some(period) = tokens.get(from..).filter(|period| !period.is_empty()) else {
        return Vec::new();
    };
    period.iter().copied().cycle().take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(tokens: &[u32], count: usize) -> Option<Vec<u32>> {
        let mut lookup = Lookup::default();
        for end in 1..=tokens.len() {
            lookup.note_last(&tokens[..end]);
        }
        let from = lookup.find(tokens)?;
        Some(copy(tokens, from, count))
    }

    #[test]
    fn the_latest_place_wins() {
        assert_eq!(
            found(&[1, 2, 3, 10, 1, 2, 3, 20, 1, 2, 3], 2),
            Some(vec![20, 1])
        );
    }

    #[test]
    fn three_tokens_count_before_two() {
        assert_eq!(
            found(&[1, 2, 3, 10, 9, 2, 3, 20, 1, 2, 3], 1),
            Some(vec![10])
        );
        assert_eq!(
            found(&[1, 2, 3, 10, 9, 2, 3, 20, 7, 2, 3], 1),
            Some(vec![20])
        );
    }

    #[test]
    fn a_repetition_goes_on() {
        assert_eq!(found(&[5, 1, 2, 1, 2, 1, 2], 5), Some(vec![1, 2, 1, 2, 1]));
        assert_eq!(found(&[4, 4, 4], 3), Some(vec![4, 4, 4]));
    }

    #[test]
    fn new_text_has_no_guess() {
        assert_eq!(found(&[], 4), None);
        assert_eq!(found(&[1], 4), None);
        assert_eq!(found(&[1, 2, 3, 4, 5, 6], 4), None);
        // The end alone is no place with a token behind it.
        assert_eq!(found(&[1, 2], 4), None);
    }
}
