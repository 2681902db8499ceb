//! Queries made from passages: what somebody might ask who looks for that passage.

use serde::{Deserialize, Serialize};

use super::passages::Passage;
use crate::rng::Rng;
use crate::{Error, Result};

/// How often each kind of query is made; relative to each other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueryShares {
    /// A sentence of the passage, which is mostly taken out of the passage then: what is left of the
    /// two must be recognised by what they are about.
    pub sentence: f64,
    /// Some words in a row.
    pub span: f64,
    /// Telling words, some of them in another form.
    pub keywords: f64,
    /// Telling words in the frame of a question.
    pub question: f64,
}

impl Default for QueryShares {
    fn default() -> Self {
        Self {
            sentence: 1.0,
            span: 1.0,
            keywords: 1.0,
            question: 1.0,
        }
    }
}

impl QueryShares {
    fn all(&self) -> [(Kind, f64); 4] {
        [
            (Kind::Sentence, self.sentence),
            (Kind::Span, self.span),
            (Kind::Keywords, self.keywords),
            (Kind::Question, self.question),
        ]
    }

    /// Checks that the shares are shares.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] when one is negative or not finite, or all are 0.
    pub fn validate(&self) -> Result<()> {
        let shares = self.all().map(|(_, share)| share);
        let valid = shares.iter().all(|s| s.is_finite() && *s >= 0.0);
        if valid && shares.iter().sum::<f64>() > 0.0 {
            return Ok(());
        }
        let detail = format!("expected numbers of at least 0, one above 0, found {shares:?}");
        Err(Error::option("queries", detail))
    }

    fn draw(&self, rng: &mut Rng) -> Kind {
        let all = self.all();
        let mut rest = rng.uniform() * all.iter().map(|(_, share)| share).sum::<f64>();
        for (kind, share) in all {
            if rest < share {
                return kind;
            }
            rest -= share;
        }
        Kind::Span
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Sentence,
    Span,
    Keywords,
    Question,
}

/// A query and the document it looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) query: String,
    pub(crate) document: String,
    /// Whether the query's words are all in the document, so that shared words alone can find it.
    pub(crate) lexical: bool,
}

/// Share of sentences that stay in their passage, so that repeated words are not taken for a sign of
/// the wrong passage.
const KEPT_SENTENCES: f64 = 0.15;
/// Share of keywords that are changed to another form of the word.
const OTHER_FORMS: f64 = 0.2;
/// The most words of a query made of running text.
const LONGEST: usize = 20;

/// Frames of questions; `{}` stands for the telling words.
const FRAMES: [&str; 24] = [
    "what is {}",
    "what are {}",
    "how is {}",
    "how do {}",
    "how does one find {}",
    "why is {}",
    "where is {}",
    "who has {}",
    "when does {}",
    "which {}",
    "what happens to {}",
    "what has been said about {}",
    "how can i use {}",
    "can {} be used",
    "is there anything on {}",
    "has anyone described {}",
    "i would like information about {}",
    "give all that is known of {}",
    "find texts about {}",
    "the use of {}",
    "the effect of {}",
    "the problem of {}",
    "methods for {}",
    "examples of {}",
];

/// What stands between the telling words of a question.
const LINKS: [&str; 12] = [
    "", "", "", "and the", "of the", "in", "of", "and", "with a", "for", "on", "to the",
];

/// A query of a kind drawn from `shares`. `rarity` is how much a word tells; 0 for one that is in
/// every text.
pub(crate) fn draw(
    passage: &Passage,
    shares: &QueryShares,
    rarity: &dyn Fn(&str) -> f32,
    rng: &mut Rng,
) -> Pair {
    let whole = |query: String| Pair {
        query,
        document: passage.text().to_string(),
        lexical: true,
    };
    match shares.draw(rng) {
        Kind::Sentence => sentence(passage, rng),
        Kind::Span => whole(span(passage.text(), rng)),
        Kind::Keywords => {
            let words = telling_words(passage.text(), rarity, rng);
            whole(words.join(" "))
        }
        Kind::Question => {
            let words = telling_words(passage.text(), rarity, rng);
            whole(question(&words, rng))
        }
    }
}

fn sentence(passage: &Passage, rng: &mut Rng) -> Pair {
    let count = passage.sentences();
    let index = rng.below(count);
    let query = span(passage.sentence(index), rng);
    let rest = passage.without(index);
    // What is left must be enough to be recognised.
    let enough = rest.split_whitespace().count() >= 12;
    if !enough || rng.uniform() < KEPT_SENTENCES {
        return Pair {
            query,
            document: passage.text().to_string(),
            lexical: true,
        };
    }
    Pair {
        query,
        document: rest,
        lexical: false,
    }
}

/// Words in a row: 4 to [`LONGEST`], or all where there are fewer.
fn span(text: &str, rng: &mut Rng) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let len = (4 + rng.below(LONGEST - 3)).min(words.len());
    let start = rng.below(words.len() - len + 1);
    words[start..start + len].join(" ")
}

/// 2 to 8 different words, rare ones more likely, in the order of the text or in any.
fn telling_words(text: &str, rarity: &dyn Fn(&str) -> f32, rng: &mut Rng) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in text.split(|c: char| !c.is_alphanumeric()) {
        let word = word.to_lowercase();
        if word.chars().count() > 1 && !words.contains(&word) {
            words.push(word);
        }
    }
    let wanted = 2 + rng.below(7);
    // The largest of u^(1/weight) is a draw without repetition.
    let key = |(place, word): (usize, &String)| {
        let weight = f64::from(rarity(word)).max(0.05);
        (rng.uniform().ln() / weight, place)
    };
    let mut keys: Vec<(f64, usize)> = words.iter().enumerate().map(key).collect();
    keys.sort_by(|a, b| b.0.total_cmp(&a.0));
    keys.truncate(wanted);
    if rng.below(2) == 0 {
        keys.sort_by_key(|(_, place)| *place);
    }
    let chosen = keys.iter().filter_map(|(_, place)| words.get(*place));
    let chosen: Vec<String> = chosen.cloned().collect();
    let form = |word: String| {
        if rng.uniform() < OTHER_FORMS {
            other_form(&word, rng)
        } else {
            word
        }
    };
    chosen.into_iter().map(form).collect()
}

/// Another form of an English word, right in most cases.
fn other_form(word: &str, rng: &mut Rng) -> String {
    if word.chars().count() < 4 || word.chars().any(|c| !c.is_alphabetic()) {
        return word.to_string();
    }
    for ending in ["ingly", "ings", "ing", "edly", "ed", "ly", "es", "s"] {
        if let Some(stem) = word.strip_suffix(ending)
            && stem.chars().count() >= 3
            && !stem.ends_with('s')
        {
            return stem.to_string();
        }
    }
    let ending = ["s", "ing", "ed", "s"][rng.below(4)];
    let stem = word.strip_suffix('e').filter(|_| ending != "s");
    format!("{}{ending}", stem.unwrap_or(word))
}

/// The words in the frame of a question.
fn question(words: &[String], rng: &mut Rng) -> String {
    let mut text = String::new();
    for word in words {
        if !text.is_empty() {
            text.push(' ');
            let link = LINKS[rng.below(LINKS.len())];
            if !link.is_empty() {
                text.push_str(link);
                text.push(' ');
            }
        }
        text.push_str(word);
    }
    FRAMES[rng.below(FRAMES.len())].replace("{}", &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retrieval::passages::passages;

    const TEXT: &str = "The red fox ran over the hill to the old mill. A miller was grinding corn. \
        He gave the hungry fox a piece of bread and went on with his work. The fox thanked him and \
        slept behind the wheel until the evening came.";

    fn passage() -> Passage {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text.txt");
        std::fs::write(&path, TEXT).unwrap();
        let file = crate::data::DataFile::read(&path).unwrap();
        passages(&file, [100, 100], &mut Rng::new(1)).remove(0)
    }

    fn only(kind: Kind) -> QueryShares {
        let share = |k| f64::from(u8::from(k == kind));
        QueryShares {
            sentence: share(Kind::Sentence),
            span: share(Kind::Span),
            keywords: share(Kind::Keywords),
            question: share(Kind::Question),
        }
    }

    fn pairs(kind: Kind) -> Vec<Pair> {
        let rarity = |word: &str| if word == "the" { 0.0 } else { 3.0 };
        let make = |seed| draw(&passage(), &only(kind), &rarity, &mut Rng::new(seed));
        (0..60).map(make).collect()
    }

    #[test]
    fn a_sentence_leaves_its_passage_unless_it_is_lexical() {
        let pairs = pairs(Kind::Sentence);
        for pair in &pairs {
            assert!(TEXT.contains(&pair.query), "{}", pair.query);
            assert_eq!(pair.document.contains(&pair.query), pair.lexical);
        }
        let kept = pairs.iter().filter(|pair| pair.lexical).count();
        assert!((1..30).contains(&kept), "{kept}");
    }

    #[test]
    fn spans_are_words_in_a_row() {
        for pair in pairs(Kind::Span) {
            let words = pair.query.split_whitespace().count();
            assert!(TEXT.contains(&pair.query) && (4..=LONGEST).contains(&words));
            assert!(pair.lexical && pair.document == TEXT);
        }
    }

    #[test]
    fn keywords_are_telling_words_of_the_passage() {
        let pairs = pairs(Kind::Keywords);
        let words: Vec<&str> = pairs.iter().flat_map(|p| p.query.split(' ')).collect();
        let lower = TEXT.to_lowercase();
        let found = words.iter().filter(|word| lower.contains(**word)).count();
        assert!(found * 10 > words.len() * 7 && found < words.len());
        let common = words.iter().filter(|word| **word == "the").count();
        assert!(common * 50 < words.len(), "{common} of {}", words.len());
    }

    #[test]
    fn questions_have_a_frame() {
        let pairs = pairs(Kind::Question);
        let starts = |pair: &&Pair| pair.query.starts_with("wh") || pair.query.starts_with("how");
        assert!(pairs.iter().filter(starts).count() > 10);
        assert!(pairs.iter().all(|pair| !pair.query.contains('{')));
    }

    #[test]
    fn forms_of_words_are_made_and_undone() {
        let mut rng = Rng::new(1);
        for (word, form) in [("flows", "flow"), ("heating", "heat"), ("slowly", "slow")] {
            assert_eq!(other_form(word, &mut rng), form);
        }
        assert!(["tables", "tabling", "tabled"].contains(&other_form("table", &mut rng).as_str()));
        assert_eq!(other_form("fox", &mut rng), "fox");
        assert_eq!(other_form("b2b5", &mut rng), "b2b5");
    }

    #[test]
    fn impossible_shares_are_refused() {
        let none = QueryShares {
            sentence: 0.0,
            span: 0.0,
            keywords: 0.0,
            question: 0.0,
        };
        assert!(none.validate().is_err() && QueryShares::default().validate().is_ok());
        let negative = QueryShares {
            span: -1.0,
            ..QueryShares::default()
        };
        assert!(negative.validate().is_err());
    }
}
