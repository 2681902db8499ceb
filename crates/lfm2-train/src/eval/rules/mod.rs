//! Prompts with rules on the form of the answer that a program can check, in the manner of IFEval
//! (arXiv 2311.07911); rules and prompts are our own.

mod check;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Answer, Question};
use crate::{Error, Result};

/// A rule on an answer. Counts are from `at_least` to `at_most`, either of which may be absent. Case does
/// not count where texts are sought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
pub enum Rule {
    /// Words between blanks.
    Words {
        /// The least count.
        at_least: Option<usize>,
        /// The greatest count.
        at_most: Option<usize>,
    },
    /// Sentences: what ends in `.`, `!` or `?` before a blank or the end, and what is left at the end.
    Sentences {
        /// The least count.
        at_least: Option<usize>,
        /// The greatest count.
        at_most: Option<usize>,
    },
    /// Paragraphs between empty lines.
    Paragraphs {
        /// The count.
        count: usize,
    },
    /// Lines that begin with `-`, `*` or `•` and a blank.
    Bullets {
        /// The count.
        count: usize,
    },
    /// Lines that begin with `1.`, `2.` and so on, in order.
    Numbered {
        /// The count.
        count: usize,
    },
    /// Each of the texts occurs.
    Contains {
        /// The texts.
        texts: Vec<String>,
    },
    /// None of the texts occurs as a word.
    Avoids {
        /// The words.
        texts: Vec<String>,
    },
    /// How often a word occurs.
    Times {
        /// The word.
        text: String,
        /// The least count.
        at_least: Option<usize>,
        /// The greatest count.
        at_most: Option<usize>,
    },
    /// How often a letter occurs.
    Letter {
        /// The letter.
        letter: char,
        /// The least count.
        at_least: Option<usize>,
        /// The greatest count.
        at_most: Option<usize>,
    },
    /// The first words.
    StartsWith {
        /// The words.
        text: String,
    },
    /// The last words.
    EndsWith {
        /// The words.
        text: String,
    },
    /// The whole answer is one of the texts, but for a full stop.
    OneOf {
        /// The texts.
        texts: Vec<String>,
    },
    /// No comma.
    NoCommas,
    /// No capital letter.
    LowerCase,
    /// No small letter.
    UpperCase,
    /// Words without a small letter.
    CapitalWords {
        /// The least count.
        at_least: Option<usize>,
        /// The greatest count.
        at_most: Option<usize>,
    },
    /// The whole answer is JSON, in a block of code or not.
    Json,
    /// The whole answer stands in double quotes.
    Quoted,
    /// A title in double angle brackets, `<<like this>>`.
    Title,
    /// Places to fill in, `[like this]`.
    Placeholders {
        /// The least count.
        at_least: usize,
    },
    /// Highlighted parts, `*like this*`.
    Highlights {
        /// The least count.
        at_least: usize,
    },
    /// A last paragraph that begins with the text.
    Postscript {
        /// What it begins with.
        text: String,
    },
    /// Parts that are not empty, with a line of the text alone between two.
    Parts {
        /// The line.
        between: String,
        /// The count.
        count: usize,
    },
}

impl Rule {
    /// The name of its kind, as it is written in a file of prompts.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Words { .. } => "words",
            Self::Sentences { .. } => "sentences",
            Self::Paragraphs { .. } => "paragraphs",
            Self::Bullets { .. } => "bullets",
            Self::Numbered { .. } => "numbered",
            Self::Contains { .. } => "contains",
            Self::Avoids { .. } => "avoids",
            Self::Times { .. } => "times",
            Self::Letter { .. } => "letter",
            Self::StartsWith { .. } => "starts_with",
            Self::EndsWith { .. } => "ends_with",
            Self::OneOf { .. } => "one_of",
            Self::NoCommas => "no_commas",
            Self::LowerCase => "lower_case",
            Self::UpperCase => "upper_case",
            Self::CapitalWords { .. } => "capital_words",
            Self::Json => "json",
            Self::Quoted => "quoted",
            Self::Title => "title",
            Self::Placeholders { .. } => "placeholders",
            Self::Highlights { .. } => "highlights",
            Self::Postscript { .. } => "postscript",
            Self::Parts { .. } => "parts",
        }
    }
}

/// A prompt and the rules that it states.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleRow {
    /// What the user says.
    pub prompt: String,
    /// The rules.
    pub rules: Vec<Rule>,
}

/// Which rules an answer keeps, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleVerdict {
    /// As it was said.
    pub strict: Vec<bool>,
    /// Without a first or a last line, which may be an introduction or a farewell, or without asterisks.
    pub loose: Vec<bool>,
}

/// 64 prompts of our own, CC0.
const BUILT_IN: &str = include_str!("../../../../../data/rules/prompts.jsonl");

impl RuleRow {
    /// The prompts that come with this crate.
    ///
    /// # Errors
    /// None: a test reads them.
    pub fn built_in() -> Result<Vec<Self>> {
        let rows = BUILT_IN.lines().enumerate().map(|(i, line)| {
            let wrong = |e: serde_json::Error| Error::data("prompts.jsonl", i + 1, e.to_string());
            serde_json::from_str(line).map_err(wrong)
        });
        rows.collect()
    }
}

impl Question for RuleRow {
    type Verdict = RuleVerdict;

    fn prompt(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.prompt)
    }

    fn judge(&self, output: &str) -> RuleVerdict {
        let forms = check::loose_forms(output);
        let loose = |rule: &Rule| forms.iter().any(|form| rule.holds(form));
        RuleVerdict {
            strict: self.rules.iter().map(|rule| rule.holds(output)).collect(),
            loose: self.rules.iter().map(loose).collect(),
        }
    }
}

/// Shares of what is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleScore {
    /// As it was said.
    pub strict: f64,
    /// In one of the loose forms.
    pub loose: f64,
    /// Of how many.
    pub count: usize,
}

/// What a measurement came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RuleReport {
    /// Prompts all of whose rules are kept.
    pub prompts: RuleScore,
    /// Rules.
    pub rules: RuleScore,
    /// The same by the kind of rule.
    pub kinds: BTreeMap<String, RuleScore>,
}

impl RuleReport {
    /// Counts answers to `rows`; shares of 0 where there is none.
    pub fn of(rows: &[RuleRow], answers: &[Answer<RuleVerdict>]) -> Self {
        let mut prompts = RuleScore::default();
        let mut kinds: BTreeMap<String, RuleScore> = BTreeMap::new();
        for (row, answer) in rows.iter().zip(answers) {
            let RuleVerdict { strict, loose } = &answer.verdict;
            prompts.add(
                strict.iter().all(|kept| *kept),
                loose.iter().all(|kept| *kept),
            );
            for (rule, (strict, loose)) in row.rules.iter().zip(strict.iter().zip(loose)) {
                let kind = kinds.entry(rule.name().to_owned()).or_default();
                kind.add(*strict, *loose);
            }
        }
        let mut rules = RuleScore::default();
        for kind in kinds.values_mut() {
            rules.strict += kind.strict;
            rules.loose += kind.loose;
            rules.count += kind.count;
            kind.divide();
        }
        prompts.divide();
        rules.divide();
        Self {
            prompts,
            rules,
            kinds,
        }
    }
}

impl RuleScore {
    fn add(&mut self, strict: bool, loose: bool) {
        self.strict += f64::from(u8::from(strict));
        self.loose += f64::from(u8::from(loose));
        self.count += 1;
    }

    fn divide(&mut self) {
        let count = self.count.max(1) as f64;
        self.strict /= count;
        self.loose /= count;
    }
}
