//! When text ends: [`StopRules`], and the end tokens of a checkpoint.

use std::collections::BTreeSet;

use lfm2_hub::Tokenizer;
use serde_json::Value;

use crate::{GenerationOptions, Result};

/// Why a generation stopped by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopCause {
    /// The model wrote this token: one of its own end tokens, or of the caller's stop ids.
    Id(u32),
    /// The text came to contain this stop string.
    Text(String),
}

/// What [`StopRules::push`] lets through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Released {
    /// Text that is certain to be part of the answer.
    pub text: String,
    /// The stop string that ended the answer; no text can follow.
    pub stopped_by: Option<String>,
}

/// The ids and strings that end a text.
///
/// Stop strings may straddle tokens: whatever could be the beginning of one is held back until it
/// is clear that it is not. The answer is cut before the stop string that is complete first (of
/// several that end together, the longest), however the text was divided into pieces.
///
/// ```
/// use lfm2_generate::{GenerationOptions, StopRules};
///
/// let mut rules = StopRules::new(&GenerationOptions::default().with_stop("END"), &[]);
/// assert_eq!(rules.push("an E").text, "an ");
/// assert_eq!(rules.push("agle. EN").text, "Eagle. ");
/// assert_eq!(rules.push("D and more").stopped_by.as_deref(), Some("END"));
/// ```
#[derive(Debug, Clone)]
pub struct StopRules {
    ids: BTreeSet<u32>,
    strings: Vec<String>,
    held: String,
}

impl StopRules {
    /// The rules of `options`, with the end tokens of the model. The options must be
    /// [valid](GenerationOptions::validate); an empty stop string would end every text.
    pub fn new(options: &GenerationOptions, model_stop_ids: &[u32]) -> Self {
        Self {
            ids: options.all_stop_ids(model_stop_ids),
            strings: options.stop.clone(),
            held: String::new(),
        }
    }

    /// Whether this token ends the text.
    pub fn is_stop_id(&self, id: u32) -> bool {
        self.ids.contains(&id)
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, text: &str) -> Released {
        if self.strings.is_empty() {
            return Released {
                text: text.to_owned(),
                stopped_by: None,
            };
        }
        self.held.push_str(text);
        if let Some((start, stop)) = self.first_complete() {
            let stopped_by = Some(stop.to_owned());
            self.held.truncate(start);
            return Released {
                text: std::mem::take(&mut self.held),
                stopped_by,
            };
        }
        let rest = self.held.split_off(self.certain());
        Released {
            text: std::mem::replace(&mut self.held, rest),
            stopped_by: None,
        }
    }

    /// What was held back, when no more text comes.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Start and string of the match that ends first.
    fn first_complete(&self) -> Option<(usize, &str)> {
        let matches = self
            .strings
            .iter()
            .filter_map(|stop| Some((self.held.find(stop.as_str())?, stop.as_str())));
        matches.min_by_key(|(start, stop)| (start + stop.len(), *start))
    }

    /// Where the first possible beginning of a stop string is.
    fn certain(&self) -> usize {
        let longest = self.strings.iter().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest.saturating_sub(1));
        let tails = self
            .held
            .char_indices()
            .map(|(at, _)| at)
            .filter(|at| *at >= from);
        let begins = |at: &usize| {
            self.strings
                .iter()
                .any(|stop| stop.starts_with(&self.held[*at..]))
        };
        tails.into_iter().find(begins).unwrap_or(self.held.len())
    }
}

/// The ids that end a text of this checkpoint: `eos_token_id` of the generation config, else of the
/// config, and the tokenizer's `<|endoftext|>`. A missing, null or empty entry says nothing.
///
/// # Errors
/// When an `eos_token_id` is neither an id nor a list of ids, or not below `vocab`.
pub fn stop_ids(
    generation_config: Option<&Value>,
    config: &Value,
    tokenizer: &Tokenizer,
    vocab: usize,
) -> Result<Vec<u32>> {
    let mut ids = BTreeSet::new();
    for (file, json) in [
        ("generation_config.json", generation_config),
        ("config.json", Some(config)),
    ] {
        if ids.is_empty()
            && let Some(value) = json.and_then(|json| json.get("eos_token_id"))
        {
            ids = end_ids(file, value, vocab)?;
        }
    }
    ids.extend(tokenizer.id_of("<|endoftext|>"));
    Ok(ids.into_iter().collect())
}

fn end_ids(file: &str, value: &Value, vocab: usize) -> Result<BTreeSet<u32>> {
    let list = match value {
        Value::Null => &[],
        Value::Array(list) => list.as_slice(),
        one => std::slice::from_ref(one),
    };
    let id = |value: &Value| {
        let id = value
            .as_u64()
            .and_then(|id| u32::try_from(id).ok())
            .filter(|id| (*id as usize) < vocab);
        id.ok_or_else(|| {
            let keys = format!("eos_token_id of {file}");
            lfm2_hub::Error::config(keys, format!("expected ids below {vocab}, found {value}"))
                .into()
        })
    };
    list.iter().map(id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let options = stops
            .iter()
            .fold(GenerationOptions::neutral(), |o, s| o.with_stop(*s));
        let mut rules = StopRules::new(&options, &[]);
        let mut text = String::new();
        for piece in pieces {
            let released = rules.push(piece);
            text.push_str(&released.text);
            if released.stopped_by.is_some() {
                return (text, released.stopped_by);
            }
        }
        text.push_str(&rules.finish());
        (text, None)
    }

    #[test]
    fn a_stop_string_may_straddle_pieces() {
        assert_eq!(
            run(&["stop"], &["go s", "t", "op on"]),
            ("go ".into(), Some("stop".into()))
        );
        assert_eq!(
            run(&["日本"], &["a日", "本b"]),
            ("a".into(), Some("日本".into()))
        );
    }

    #[test]
    fn what_only_looked_like_a_stop_is_released() {
        assert_eq!(
            run(&["stop"], &["a sto", "ne st"]),
            ("a stone st".into(), None)
        );
        assert_eq!(
            run(&["aab"], &["aa", "aab"]),
            ("aa".into(), Some("aab".into()))
        );
    }

    #[test]
    fn the_match_that_is_complete_first_wins() {
        assert_eq!(
            run(&["abcd", "bc"], &["xabcd"]),
            ("xa".into(), Some("bc".into()))
        );
        assert_eq!(
            run(&["abc", "bc"], &["xa", "b", "c"]),
            ("x".into(), Some("abc".into()))
        );
    }

    #[test]
    fn end_ids_come_from_int_or_list() {
        let ids = |json: &str| end_ids("config.json", &serde_json::from_str(json).unwrap(), 10);
        assert_eq!(ids("7").unwrap(), BTreeSet::from([7]));
        assert_eq!(ids("[7, 2]").unwrap(), BTreeSet::from([2, 7]));
        assert_eq!(ids("null").unwrap(), BTreeSet::new());
        for bad in ["10", "-1", "\"7\"", "[7, 99]", "1.5"] {
            assert_eq!(
                ids(bad).unwrap_err().kind(),
                lfm2_hub::ErrorKind::InvalidModel,
                "{bad}"
            );
        }
    }
}
