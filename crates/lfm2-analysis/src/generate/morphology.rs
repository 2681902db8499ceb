//! How English words change: plurals, third persons, articles, forms of verbs.

/// A noun that can be counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Noun(pub(super) &'static str);

/// Plurals that no rule gives.
const PLURALS: &[(&str, &str)] = &[
    ("child", "children"),
    ("fish", "fish"),
    ("knife", "knives"),
    ("leaf", "leaves"),
    ("loaf", "loaves"),
    ("man", "men"),
    ("mouse", "mice"),
    ("photo", "photos"),
    ("piano", "pianos"),
    ("scarf", "scarves"),
    ("sheep", "sheep"),
    ("shelf", "shelves"),
    ("thief", "thieves"),
    ("woman", "women"),
];

impl Noun {
    pub(super) fn plural(self) -> String {
        let known = PLURALS.iter().find(|(one, _)| *one == self.0);
        known.map_or_else(|| with_s(self.0), |(_, many)| (*many).to_owned())
    }
}

/// A verb with the forms that its kind does not give by rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verb {
    pub(super) base: &'static str,
    forms: Option<[&'static str; 3]>,
}

impl Verb {
    pub(super) const fn regular(base: &'static str) -> Self {
        Self { base, forms: None }
    }

    /// With its past, its participle and its form in "-ing".
    pub(super) const fn irregular(
        base: &'static str,
        past: &'static str,
        participle: &'static str,
        ing: &'static str,
    ) -> Self {
        Self {
            base,
            forms: Some([past, participle, ing]),
        }
    }

    pub(super) fn third_person(self) -> String {
        with_s(self.base)
    }

    pub(super) fn past(self) -> String {
        self.forms
            .map_or_else(|| with_ed(self.base), |[past, _, _]| past.to_owned())
    }

    pub(super) fn participle(self) -> String {
        self.forms.map_or_else(
            || with_ed(self.base),
            |[_, participle, _]| participle.to_owned(),
        )
    }

    pub(super) fn ing(self) -> String {
        self.forms
            .map_or_else(|| with_ing(self.base), |[_, _, ing]| ing.to_owned())
    }
}

/// A consonant before a final y.
fn stem_of_y(word: &str) -> Option<&str> {
    let stem = word.strip_suffix('y')?;
    (!stem.ends_with(['a', 'e', 'i', 'o', 'u'])).then_some(stem)
}

fn with_s(word: &str) -> String {
    if let Some(stem) = stem_of_y(word) {
        return format!("{stem}ies");
    }
    let hisses = ["s", "x", "z", "ch", "sh", "o"]
        .iter()
        .any(|end| word.ends_with(end));
    format!("{word}{}", if hisses { "es" } else { "s" })
}

fn with_ed(word: &str) -> String {
    match stem_of_y(word) {
        Some(stem) => format!("{stem}ied"),
        None if word.ends_with('e') => format!("{word}d"),
        None => format!("{word}ed"),
    }
}

fn with_ing(word: &str) -> String {
    match word.strip_suffix('e') {
        Some(stem) if !word.ends_with("ee") => format!("{stem}ing"),
        _ => format!("{word}ing"),
    }
}

/// "a" or "an" before `word`.
pub(super) fn article(word: &str) -> &'static str {
    let sounds_otherwise = ["hour", "honest", "heir"]
        .iter()
        .any(|start| word.starts_with(start));
    let like_you = [
        "uniform",
        "university",
        "unique",
        "useful",
        "usual",
        "euro",
        "one",
    ]
    .iter()
    .any(|start| word.starts_with(start));
    let vowel = word.starts_with(['a', 'e', 'i', 'o', 'u']);
    if sounds_otherwise || (vowel && !like_you) {
        "an"
    } else {
        "a"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plurals_follow_rules_and_exceptions() {
        for (one, many) in [
            ("letter", "letters"),
            ("box", "boxes"),
            ("story", "stories"),
            ("key", "keys"),
            ("match", "matches"),
            ("child", "children"),
            ("potato", "potatoes"),
            ("photo", "photos"),
            ("scarf", "scarves"),
            ("bus", "buses"),
        ] {
            assert_eq!(Noun(one).plural(), many);
        }
    }

    #[test]
    fn verbs_have_all_their_forms() {
        let forms = |verb: Verb| {
            [
                verb.third_person(),
                verb.past(),
                verb.participle(),
                verb.ing(),
            ]
        };
        assert_eq!(
            forms(Verb::regular("bake")),
            ["bakes", "baked", "baked", "baking"]
        );
        assert_eq!(
            forms(Verb::regular("carry")),
            ["carries", "carried", "carried", "carrying"]
        );
        assert_eq!(
            forms(Verb::regular("enjoy")),
            ["enjoys", "enjoyed", "enjoyed", "enjoying"]
        );
        assert_eq!(
            forms(Verb::regular("watch")),
            ["watches", "watched", "watched", "watching"]
        );
        let write = Verb::irregular("write", "wrote", "written", "writing");
        assert_eq!(forms(write), ["writes", "wrote", "written", "writing"]);
    }

    #[test]
    fn articles_go_by_sound() {
        for (word, expected) in [
            ("apple", "an"),
            ("umbrella", "an"),
            ("uniform", "a"),
            ("unhappy", "an"),
            ("hour", "an"),
            ("house", "a"),
            ("useful", "a"),
        ] {
            assert_eq!(article(word), expected, "{word}");
        }
    }
}
