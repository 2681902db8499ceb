//! BM25: ranking by shared words, the baseline that a retrieval model has to beat and a cheap
//! source of candidates for one to rerank.

use std::collections::{BTreeMap, HashMap};

/// How fast repeated words stop counting.
const K1: f32 = 1.2;
/// How much long documents are held back.
const B: f32 = 0.75;

/// Words that say nothing about what a text is about.
const STOP_WORDS: [&str; 52] = [
    "a", "an", "and", "are", "as", "at", "be", "been", "but", "by", "can", "did", "do", "does",
    "for", "from", "had", "has", "have", "how", "if", "in", "into", "is", "it", "its", "no", "not",
    "of", "on", "or", "such", "than", "that", "the", "their", "then", "there", "these", "they",
    "this", "to", "was", "were", "what", "when", "where", "which", "who", "why", "will", "with",
];

/// An index of words over texts, which are known by their place in the order of insertion.
///
/// Words are runs of letters and digits in lower case, without common words and without a final
/// `s`. For languages that put no space between words it finds little.
#[derive(Debug, Clone, Default)]
pub struct Bm25 {
    /// Per word, the documents that have it and how often.
    postings: HashMap<String, Vec<(u32, u32)>>,
    /// Words per document.
    lengths: Vec<u32>,
}

impl Bm25 {
    /// Indexes texts.
    ///
    /// ```
    /// let index = lfm2_colbert::Bm25::new(["red apples", "a green apple", "the sea"]);
    /// let found = index.search("green apples", 10);
    /// assert_eq!(found[0].0, 1);
    /// assert_eq!(found.len(), 2);
    /// ```
    pub fn new<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> Self {
        let mut index = Self::default();
        for text in texts {
            index.insert(text.as_ref());
        }
        index
    }

    /// Adds one more text.
    pub fn insert(&mut self, text: &str) {
        // More than 2^32 texts would not fit into memory.
        let document = u32::try_from(self.lengths.len()).unwrap_or(u32::MAX);
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        let mut length = 0_u32;
        for word in words(text) {
            length = length.saturating_add(1);
            *counts.entry(word).or_default() += 1;
        }
        for (word, count) in counts {
            let postings = self.postings.entry(word).or_default();
            postings.push((document, count));
        }
        self.lengths.push(length);
    }

    /// The number of texts.
    pub fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The `k` best texts that share a word with the query, and their scores, best first; equal
    /// ones in the order of insertion.
    pub fn search(&self, query: &str, k: usize) -> Vec<(usize, f32)> {
        let mean = self.mean_length();
        let mut scores: HashMap<u32, f32> = HashMap::new();
        for word in words(query) {
            let Some(postings) = self.postings.get(&word) else {
                continue;
            };
            let rarity = self.rarity_of(postings.len());
            for &posting in postings {
                *scores.entry(posting.0).or_default() += self.part(posting, rarity, mean);
            }
        }
        let mut ranking: Vec<(usize, f32)> = scores
            .into_iter()
            .map(|(document, score)| (document as usize, score))
            .collect();
        ranking.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        ranking.truncate(k);
        ranking
    }

    /// The scores of some texts only, given by their places, in the same order; 0 for one that shares
    /// no word with the query.
    pub fn scores(&self, query: &str, places: &[usize]) -> Vec<f32> {
        let mean = self.mean_length();
        let mut scores = vec![0.0; places.len()];
        for word in words(query) {
            let Some(postings) = self.postings.get(&word) else {
                continue;
            };
            let rarity = self.rarity_of(postings.len());
            for (score, place) in scores.iter_mut().zip(places) {
                let found = postings.binary_search_by_key(place, |(text, _)| *text as usize);
                if let Some(&posting) = found.ok().and_then(|found| postings.get(found)) {
                    *score += self.part(posting, rarity, mean);
                }
            }
        }
        scores
    }

    /// How much a word tells: the logarithm of how few texts have it, 0 for a common word.
    pub fn rarity(&self, word: &str) -> f32 {
        words(word).next().map_or(0.0, |word| {
            self.rarity_of(self.postings.get(&word).map_or(0, Vec::len))
        })
    }

    fn rarity_of(&self, having: usize) -> f32 {
        let (documents, having) = (self.lengths.len() as f32, having as f32);
        (1.0 + (documents - having + 0.5) / (having + 0.5)).ln()
    }

    fn mean_length(&self) -> f32 {
        let total: u64 = self.lengths.iter().map(|length| u64::from(*length)).sum();
        (total as f32 / self.lengths.len() as f32).max(1.0)
    }

    /// What one word adds to the score of a text.
    fn part(&self, (document, count): (u32, u32), rarity: f32, mean: f32) -> f32 {
        let length = self.lengths.get(document as usize).copied().unwrap_or(0);
        let count = count as f32;
        let damping = K1 * (1.0 - B + B * length as f32 / mean);
        rarity * count * (K1 + 1.0) / (count + damping)
    }
}

/// The words of a text that count.
fn words(text: &str) -> impl Iterator<Item = String> {
    let runs = text.split(|c: char| !c.is_alphanumeric());
    let lower = runs.filter(|run| !run.is_empty()).map(str::to_lowercase);
    let content = lower.filter(|word| STOP_WORDS.binary_search(&word.as_str()).is_err());
    content.map(|word| match word.strip_suffix('s') {
        Some(stem) if stem.len() > 2 && !stem.ends_with('s') => stem.to_owned(),
        _ => word,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_folded() {
        let found: Vec<String> = words("The Cats' BUS-stops, glass; Ärzte 2,000").collect();
        assert_eq!(found, ["cat", "bus", "stop", "glass", "ärzte", "2", "000"]);
        assert!(STOP_WORDS.is_sorted());
    }

    #[test]
    fn rare_words_weigh_more_and_long_texts_less() {
        let index = Bm25::new([
            "wing wing flow",
            "wing shock",
            "wing flow and many more words about other matters",
            "sea",
        ]);
        let places = |query| {
            let found = index.search(query, 10).into_iter();
            found.map(|(place, _)| place).collect::<Vec<_>>()
        };
        assert_eq!(places("shock wing"), [1, 0, 2]);
        assert_eq!(places("flow"), [0, 2]);
        assert_eq!(places("unknown words"), [2]);
        assert!(places("the of").is_empty());
        assert_eq!(index.search("wing", 2).len(), 2);
    }

    #[test]
    fn scores_of_chosen_texts_are_those_of_the_ranking() {
        let index = Bm25::new(["wing wing flow", "sea", "wing shock", "flow of the sea"]);
        let mut expected = index.search("the flow of wings", 10);
        expected.sort_by_key(|(place, _)| *place);
        let places: Vec<usize> = expected.iter().map(|(place, _)| *place).collect();
        let scores: Vec<f32> = expected.iter().map(|(_, score)| *score).collect();
        assert_eq!(index.scores("the flow of wings", &places), scores);
        assert_eq!(index.scores("flow", &[1, 9]), [0.0, 0.0]);
        assert!(index.rarity("shock") > index.rarity("wings") && index.rarity("the") == 0.0);
    }

    #[test]
    fn a_score_by_hand() {
        let index = Bm25::new(["one two", "two two"]);
        let (place, score) = index.search("one", 1)[0];
        let rarity = (1.0_f32 + 1.5 / 1.5).ln();
        assert_eq!(place, 0);
        assert!((score - rarity * 2.2 / (1.0 + 1.2)).abs() < 1e-6);
        assert!(Bm25::default().is_empty() && Bm25::default().search("one", 1).is_empty());
    }
}
