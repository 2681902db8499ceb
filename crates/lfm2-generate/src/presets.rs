//! What the model cards recommend, by the name of a checkpoint.

use crate::GenerationOptions;

/// How long a conversation the checkpoint was trained for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turns {
    /// Any number of turns.
    Many,
    /// One question, one answer.
    Single,
}

/// How a checkpoint wants to be used.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Preset {
    /// 0 is greedy.
    pub temperature: f32,
    /// 0 is off.
    pub top_k: usize,
    /// 1 is off.
    pub top_p: f32,
    /// 0 is off.
    pub min_p: f32,
    /// 1 is off.
    pub repetition_penalty: f32,
    /// Whether follow-up questions make sense.
    pub turns: Turns,
    /// The only system prompts the checkpoint was trained on; empty when it takes any.
    pub system_prompts: &'static [&'static str],
}

impl Preset {
    /// These settings as options.
    pub fn options(&self) -> GenerationOptions {
        GenerationOptions::neutral()
            .with_temperature(self.temperature)
            .with_top_k(self.top_k)
            .with_top_p(self.top_p)
            .with_min_p(self.min_p)
            .with_repetition_penalty(self.repetition_penalty)
    }
}

const LFM2: Preset = Preset {
    temperature: 0.3,
    top_k: 0,
    top_p: 1.0,
    min_p: 0.15,
    repetition_penalty: 1.05,
    turns: Turns::Many,
    system_prompts: &[],
};
const GREEDY: Preset = Preset {
    temperature: 0.0,
    min_p: 0.0,
    repetition_penalty: 1.0,
    ..LFM2
};
const LFM2_5: Preset = Preset {
    temperature: 0.1,
    top_k: 50,
    min_p: 0.0,
    ..LFM2
};
const PICTURES: Preset = Preset {
    temperature: 0.1,
    ..LFM2
};
const MATH: Preset = Preset {
    temperature: 0.6,
    top_p: 0.95,
    min_p: 0.1,
    turns: Turns::Single,
    ..LFM2
};
const TRANSLATE: Preset = Preset {
    turns: Turns::Single,
    system_prompts: &["Translate to Japanese.", "Translate to English."],
    ..LFM2
};

/// Words that must all occur in a name, and what holds for such names; the first row that fits wins.
const PRESETS: &[(&[&str], Preset)] = &[
    (&["lfm2", "extract"], GREEDY),
    (&["lfm2", "rag"], GREEDY),
    (&["lfm2", "tool"], GREEDY),
    (&["lfm2", "pii"], GREEDY),
    (&["lfm2", "math"], MATH),
    (
        &["lfm2.5", "vl", "3b"],
        Preset {
            temperature: 0.2,
            repetition_penalty: 1.0,
            ..LFM2_5
        },
    ),
    (&["lfm2.5", "vl"], PICTURES),
    (&["lfm2", "vl"], PICTURES),
    (&["lfm2", "enjp", "mt"], TRANSLATE),
    (
        &["lfm2.5", "8b", "a1b"],
        Preset {
            temperature: 0.2,
            top_k: 80,
            ..LFM2_5
        },
    ),
    (
        &["lfm2.5", "1.2b"],
        Preset {
            top_p: 0.1,
            ..LFM2_5
        },
    ),
    (&["lfm2.5"], LFM2_5),
    (&["lfm2", "24b"], LFM2_5),
    (&["lfm2"], LFM2),
];

/// The preset for a checkpoint, by the name of its repository, folder or file; `None` for a name
/// that is not of the family.
///
/// ```
/// let preset = lfm2_generate::recommended("LiquidAI/LFM2-1.2B-Extract").unwrap();
/// assert_eq!(preset.temperature, 0.0);
/// ```
pub fn recommended(name: &str) -> Option<&'static Preset> {
    let name = name.to_lowercase();
    let last = name
        .trim_end_matches(['/', '\\'])
        .rsplit(['/', '\\'])
        .next()?;
    let words: Vec<&str> = last.split(['-', '_', ' ', '@', ':']).collect();
    let fits = |row: &&(&[&str], Preset)| row.0.iter().all(|word| words.contains(word));
    PRESETS.iter().find(fits).map(|(_, preset)| preset)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_choose_the_recommended_settings() {
        let temperature = |name| recommended(name).map(|preset| preset.temperature);
        assert_eq!(temperature("LiquidAI/LFM2-1.2B"), Some(0.3));
        assert_eq!(temperature("LiquidAI/LFM2-8B-A1B"), Some(0.3));
        assert_eq!(temperature("LFM2-1.2B-Tool"), Some(0.0));
        assert_eq!(temperature("LFM2-350M-PII-Extract-JP-Q4_0.gguf"), Some(0.0));
        assert_eq!(temperature("/models/LFM2-350M-Math/"), Some(0.6));
        assert_eq!(temperature("LiquidAI/LFM2.5-8B-A1B"), Some(0.2));
        assert_eq!(temperature("LFM2.5-350M"), Some(0.1));
        assert_eq!(temperature("LiquidAI/LFM2-VL-450M"), Some(0.1));
        assert_eq!(
            recommended("LFM2.5-VL-1.6B-Q4_0.gguf").map(|p| (p.min_p, p.top_k)),
            Some((0.15, 0))
        );
        assert_eq!(temperature("some-other-model"), None);
        assert_eq!(
            recommended("LFM2.5-1.2B-Instruct-Q8_0.gguf").map(|p| p.top_p),
            Some(0.1)
        );
        assert_eq!(
            recommended("LFM2-350M-ENJP-MT").map(|p| p.turns),
            Some(Turns::Single)
        );
    }

    #[test]
    fn every_preset_is_valid() {
        for (words, preset) in PRESETS {
            preset
                .options()
                .validate(65_536)
                .unwrap_or_else(|e| panic!("{words:?}: {e}"));
        }
        assert_eq!(LFM2.options(), GenerationOptions::default());
    }
}
