//! Clauses and how they are put into words: agreement, tenses, "do", "not", active and passive.

use super::morphology::{Noun, Verb, article};

/// Singular or plural.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    One,
    Many,
}

/// What stands before a noun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Determiner {
    The,
    /// "a" or "an"; nothing before plurals.
    A,
    /// "my", "this", "three", "a few": as it is.
    Word(&'static str),
}

/// Who or what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phrase {
    Noun(Determiner, Noun, Number),
    Name(&'static str),
    She,
    He,
    We,
    They,
}

impl Phrase {
    pub(super) fn words(self) -> String {
        match self {
            Self::Noun(determiner, noun, number) => {
                let noun = match number {
                    Number::One => noun.0.to_owned(),
                    Number::Many => noun.plural(),
                };
                match (determiner, number) {
                    (Determiner::The, _) => format!("the {noun}"),
                    (Determiner::A, Number::One) => format!("{} {noun}", article(&noun)),
                    (Determiner::A, Number::Many) => noun,
                    (Determiner::Word(word), _) => format!("{word} {noun}"),
                }
            }
            Self::Name(name) => name.to_owned(),
            Self::She => "she".to_owned(),
            Self::He => "he".to_owned(),
            Self::We => "we".to_owned(),
            Self::They => "they".to_owned(),
        }
    }

    /// As it stands after "by".
    fn object_words(self) -> String {
        match self {
            Self::She => "her".to_owned(),
            Self::He => "him".to_owned(),
            Self::We => "us".to_owned(),
            Self::They => "them".to_owned(),
            _ => self.words(),
        }
    }

    fn number(self) -> Number {
        match self {
            Self::Noun(_, _, number) => number,
            Self::Name(_) | Self::She | Self::He => Number::One,
            Self::We | Self::They => Number::Many,
        }
    }
}

/// When.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tense {
    Present,
    Past,
    /// With a word like "will", "can" or "might" that the bare verb follows.
    Modal(&'static str),
}

/// How it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aspect {
    Simple,
    Progressive,
    Perfect,
}

/// Whether it is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Polarity {
    Positive,
    Negative,
}

/// The forms of a predicate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) tense: Tense,
    pub(super) aspect: Aspect,
    pub(super) polarity: Polarity,
}

impl Form {
    pub(super) const fn simple(tense: Tense) -> Self {
        Self {
            tense,
            aspect: Aspect::Simple,
            polarity: Polarity::Positive,
        }
    }

    pub(super) const fn tense(self, tense: Tense) -> Self {
        Self { tense, ..self }
    }

    pub(super) const fn negative(self) -> Self {
        Self {
            polarity: Polarity::Negative,
            ..self
        }
    }
}

/// What is said of the subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Predicate {
    /// A verb, perhaps with an object.
    Verb(Verb, Option<Phrase>),
    /// "is" and something like "very hot".
    Be(String),
    /// "seems" and something like it.
    Seem(String),
}

/// One sentence before it is put into words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Clause {
    pub(super) subject: Phrase,
    pub(super) predicate: Predicate,
    /// What follows, such as "in the morning"; may be empty.
    pub(super) tail: String,
}

const BE: Verb = Verb::irregular("be", "were", "been", "being");
const HAVE: Verb = Verb::irregular("have", "had", "had", "having");
const DO: Verb = Verb::irregular("do", "did", "done", "doing");
const SEEM: Verb = Verb::regular("seem");

impl Clause {
    /// The sentence in the active voice.
    pub(super) fn active(&self, form: Form) -> String {
        let number = self.subject.number();
        let (verb, rest) = match &self.predicate {
            Predicate::Verb(verb, object) => {
                (*verb, object.map_or_else(String::new, Phrase::object_words))
            }
            Predicate::Be(rest) => (BE, rest.clone()),
            Predicate::Seem(rest) => (SEEM, rest.clone()),
        };
        let verbs = verbs(&[verb], number, form);
        sentence(&[&self.subject.words(), &verbs, &rest, &self.tail])
    }

    /// The sentence in the passive voice; none without an object.
    pub(super) fn passive(&self, form: Form) -> Option<String> {
        let Predicate::Verb(verb, Some(object)) = &self.predicate else {
            return None;
        };
        let verbs = verbs(&[BE, *verb], object.number(), form);
        let by = format!("by {}", self.subject.object_words());
        Some(sentence(&[&object.words(), &verbs, &by, &self.tail]))
    }
}

/// How a verb of a chain asks for the next one.
#[derive(Clone, Copy)]
enum Wants {
    Finite,
    Base,
    Participle,
    Ing,
}

/// The verbs of a predicate: `chain` is the main verb, after a "be" in the passive voice.
fn verbs(chain: &[Verb], number: Number, form: Form) -> String {
    // Each auxiliary fixes the form of its successor.
    let mut words: Vec<(Verb, Wants)> = Vec::new();
    match form.aspect {
        Aspect::Simple => {}
        Aspect::Progressive => words.push((BE, Wants::Ing)),
        Aspect::Perfect => words.push((HAVE, Wants::Participle)),
    }
    words.extend(chain.iter().map(|verb| (*verb, Wants::Participle)));
    let mut out = Vec::new();
    let mut wanted = Wants::Finite;
    if let Tense::Modal(modal) = form.tense {
        out.push(modal.to_owned());
        wanted = Wants::Base;
    }
    let is_alone = words.len() == 1 && words[0].0 != BE;
    if form.polarity == Polarity::Negative && out.is_empty() && is_alone {
        out.push(finite(DO, number, form.tense));
        wanted = Wants::Base;
    }
    for (verb, next) in words {
        out.push(match wanted {
            Wants::Finite => finite(verb, number, form.tense),
            Wants::Base => verb.base.to_owned(),
            Wants::Participle => verb.participle(),
            Wants::Ing => verb.ing(),
        });
        wanted = next;
    }
    if form.polarity == Polarity::Negative {
        if out[0] == "can" {
            out[0] = "cannot".to_owned();
        } else {
            out.insert(1, "not".to_owned());
        }
    }
    out.join(" ")
}

fn finite(verb: Verb, number: Number, tense: Tense) -> String {
    match (verb.base, tense, number) {
        ("be", Tense::Past, Number::One) => "was".to_owned(),
        ("be", Tense::Present, Number::One) => "is".to_owned(),
        ("be", Tense::Present, Number::Many) => "are".to_owned(),
        ("have", Tense::Present, Number::One) => "has".to_owned(),
        (_, Tense::Past, _) => verb.past(),
        (_, _, Number::One) => verb.third_person(),
        (_, _, Number::Many) => verb.base.to_owned(),
    }
}

/// Joins parts with spaces, with a capital at the start and a full stop at the end.
pub(super) fn sentence(parts: &[&str]) -> String {
    let mut out = String::new();
    for part in parts.iter().filter(|part| !part.is_empty()) {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(part);
    }
    if let Some(first) = out.get(..1) {
        let capital = first.to_uppercase();
        out.replace_range(..1, &capital);
    }
    out.push('.');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE: Verb = Verb::irregular("write", "wrote", "written", "writing");
    const PRESENT: Form = Form::simple(Tense::Present);

    fn clause(subject: Phrase) -> Clause {
        let letter = Phrase::Noun(Determiner::A, Noun("letter"), Number::One);
        Clause {
            subject,
            predicate: Predicate::Verb(WRITE, Some(letter)),
            tail: "at noon".to_owned(),
        }
    }

    #[test]
    fn verbs_agree_and_tenses_are_built() {
        let progressive = Form {
            aspect: Aspect::Progressive,
            ..PRESENT
        };
        let perfect = Form {
            aspect: Aspect::Perfect,
            ..PRESENT
        };
        for (subject, form, expected) in [
            (Phrase::She, PRESENT, "She writes a letter at noon."),
            (Phrase::They, PRESENT, "They write a letter at noon."),
            (
                Phrase::He,
                PRESENT.tense(Tense::Past),
                "He wrote a letter at noon.",
            ),
            (
                Phrase::We,
                progressive.tense(Tense::Past),
                "We were writing a letter at noon.",
            ),
            (
                Phrase::Name("Anna"),
                progressive,
                "Anna is writing a letter at noon.",
            ),
            (Phrase::She, perfect, "She has written a letter at noon."),
            (
                Phrase::She,
                PRESENT.tense(Tense::Modal("will")),
                "She will write a letter at noon.",
            ),
            (
                Phrase::She,
                perfect.tense(Tense::Modal("might")),
                "She might have written a letter at noon.",
            ),
        ] {
            assert_eq!(clause(subject).active(form), expected);
        }
    }

    #[test]
    fn not_finds_its_place() {
        let progressive = Form {
            aspect: Aspect::Progressive,
            ..PRESENT
        };
        for (form, expected) in [
            (PRESENT, "She does not write a letter at noon."),
            (
                PRESENT.tense(Tense::Past),
                "She did not write a letter at noon.",
            ),
            (progressive, "She is not writing a letter at noon."),
            (
                PRESENT.tense(Tense::Modal("can")),
                "She cannot write a letter at noon.",
            ),
            (
                PRESENT.tense(Tense::Modal("will")),
                "She will not write a letter at noon.",
            ),
        ] {
            assert_eq!(clause(Phrase::She).active(form.negative()), expected);
        }
        let cold = Clause {
            subject: Phrase::Noun(Determiner::The, Noun("egg"), Number::Many),
            predicate: Predicate::Be("cold".to_owned()),
            tail: String::new(),
        };
        assert_eq!(cold.active(PRESENT.negative()), "The eggs are not cold.");
        assert_eq!(cold.passive(PRESENT), None);
    }

    #[test]
    fn the_passive_turns_a_sentence_round() {
        for (subject, form, expected) in [
            (
                Phrase::They,
                PRESENT,
                "A letter is written by them at noon.",
            ),
            (
                Phrase::Name("Tom"),
                PRESENT.tense(Tense::Past),
                "A letter was written by Tom at noon.",
            ),
            (
                Phrase::She,
                Form {
                    aspect: Aspect::Progressive,
                    ..PRESENT
                },
                "A letter is being written by her at noon.",
            ),
            (
                Phrase::He,
                PRESENT.tense(Tense::Modal("will")),
                "A letter will be written by him at noon.",
            ),
            (
                Phrase::He,
                PRESENT.negative(),
                "A letter is not written by him at noon.",
            ),
        ] {
            assert_eq!(clause(subject).passive(form).as_deref(), Some(expected));
        }
    }
}
