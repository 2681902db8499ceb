//! A pair of each contrast.

use super::Contrast;
use super::clause::{Aspect, Clause, Determiner, Form, Number, Phrase, Predicate, Tense, sentence};
use super::morphology::Verb;
use super::words::{
    ACTIONS, AMOUNTS, Action, Course, FREQUENCIES, GRADABLE_MANNERS, INTENSIFIERS, KINDS, Kind,
    MANNERS, MOVES, NAMES, NUMBERS, PEOPLE, SAME_ACTIONS, SAME_PEOPLE, SPOTS, TIMES, VIEWS,
};
use crate::pairs::Pair;
use crate::random::Random;

const PRESENT: Form = Form::simple(Tense::Present);
const PAST: Form = Form::simple(Tense::Past);
/// A pair of `contrast`; the control has none of its own and gets a negation.
pub(super) fn pair(contrast: Contrast, random: &mut Random) -> Pair {
    let (first, second) = match contrast {
        Contrast::Synonym => synonym(random),
        Contrast::Quantity => quantity(random),
        Contrast::Tense => tense(random),
        Contrast::Intensifier => intensifier(random),
        Contrast::Voice => voice(random),
        Contrast::Definiteness => definiteness(random),
        Contrast::Factuality => factuality(random),
        Contrast::Polarity => polarity(random),
        Contrast::Control | Contrast::Negation => negation(random),
    };
    Pair { first, second }
}

fn one_in(random: &mut Random, count: usize) -> bool {
    random.below(count) == 0
}

fn number(random: &mut Random) -> Number {
    if one_in(random, 3) {
        Number::Many
    } else {
        Number::One
    }
}

/// Someone who can act.
fn someone(random: &mut Random) -> Phrase {
    match random.below(8) {
        0 => Phrase::She,
        1 => Phrase::He,
        2 => {
            if one_in(random, 2) {
                Phrase::They
            } else {
                Phrase::We
            }
        }
        3 => Phrase::Name(random.pick(NAMES)),
        _ => person(random),
    }
}

/// Someone with a trade, singular or plural.
fn person(random: &mut Random) -> Phrase {
    Phrase::Noun(Determiner::The, random.pick(PEOPLE), number(random))
}

fn the_or_a(random: &mut Random) -> Determiner {
    if one_in(random, 2) {
        Determiner::The
    } else {
        Determiner::A
    }
}

/// A time or nothing; a manner where someone acts.
fn tail(random: &mut Random, course: Course) -> String {
    match random.below(5) {
        0 | 1 => String::new(),
        2 if course == Course::Takes => random.pick(MANNERS).0.to_owned(),
        _ => random.pick(TIMES).to_owned(),
    }
}

/// Someone does something, and whether that can be under way.
fn doing(random: &mut Random) -> (Clause, Course) {
    let (predicate, course) = if one_in(random, 5) {
        (Predicate::Verb(random.pick(MOVES), None), Course::Takes)
    } else {
        let action = random.pick(ACTIONS);
        let object = Phrase::Noun(the_or_a(random), random.pick(action.objects), Number::One);
        (Predicate::Verb(action.verb, Some(object)), action.course)
    };
    let clause = Clause {
        subject: someone(random),
        predicate,
        tail: tail(random, course),
    };
    (clause, course)
}

/// Someone does something that can be done in some manner.
fn acting(random: &mut Random) -> Clause {
    loop {
        let (clause, course) = doing(random);
        if course == Course::Takes {
            return clause;
        }
    }
}

/// Something has a quality.
fn being(subject: Phrase, quality: &str) -> Clause {
    Clause {
        subject,
        predicate: Predicate::Be(quality.to_owned()),
        tail: String::new(),
    }
}

/// Something of a kind, known to who speaks.
fn known(random: &mut Random, kind: &Kind) -> Phrase {
    let noun = random.pick(kind.nouns);
    let owner = random.pick(kind.owners);
    let many = owner == "the" && one_in(random, 3);
    let number = if many { Number::Many } else { Number::One };
    Phrase::Noun(Determiner::Word(owner), noun, number)
}

fn kind(random: &mut Random) -> Kind {
    random.pick(KINDS)
}

fn present_or_past(random: &mut Random) -> Form {
    if one_in(random, 2) { PRESENT } else { PAST }
}

fn tense(random: &mut Random) -> (String, String) {
    if one_in(random, 6) {
        let kind = kind(random);
        let clause = being(known(random, &kind), random.pick(kind.gradable));
        return (clause.active(PRESENT), clause.active(PAST));
    }
    let (clause, course) = doing(random);
    let progressive = course == Course::Takes && one_in(random, 3);
    let aspect = if progressive {
        Aspect::Progressive
    } else {
        Aspect::Simple
    };
    let form = Form { aspect, ..PRESENT };
    (clause.active(form), clause.active(form.tense(Tense::Past)))
}

fn negation(random: &mut Random) -> (String, String) {
    if one_in(random, 5) {
        let kind = kind(random);
        let clause = being(known(random, &kind), random.pick(kind.gradable));
        let form = present_or_past(random);
        return (clause.active(form), clause.active(form.negative()));
    }
    let (clause, course) = doing(random);
    let form = match random.below(6) {
        0 | 1 => PRESENT,
        2 | 3 => PAST,
        4 if course == Course::Takes => Form {
            aspect: Aspect::Progressive,
            ..present_or_past(random)
        },
        _ => PRESENT.tense(Tense::Modal(random.pick(&["will", "can", "should"]))),
    };
    (clause.active(form), clause.active(form.negative()))
}

fn factuality(random: &mut Random) -> (String, String) {
    let modal = Tense::Modal(random.pick(&["might", "may", "could"]));
    if one_in(random, 5) {
        let kind = kind(random);
        let clause = being(known(random, &kind), random.pick(kind.gradable));
        return (clause.active(PRESENT), clause.active(PRESENT.tense(modal)));
    }
    let (clause, course) = doing(random);
    match random.below(4) {
        0 => (clause.active(PRESENT), clause.active(PRESENT.tense(modal))),
        1 if course == Course::Takes => {
            let form = Form {
                aspect: Aspect::Progressive,
                ..PRESENT
            };
            (clause.active(form), clause.active(form.tense(modal)))
        }
        _ => {
            let perfect = Form {
                aspect: Aspect::Perfect,
                ..PRESENT
            };
            (clause.active(PAST), clause.active(perfect.tense(modal)))
        }
    }
}

fn voice(random: &mut Random) -> (String, String) {
    loop {
        let action = random.pick(ACTIONS);
        let objects = number(random);
        let object = Phrase::Noun(the_or_a(random), random.pick(action.objects), objects);
        let subject = if one_in(random, 4) {
            Phrase::Name(random.pick(NAMES))
        } else {
            person(random)
        };
        let clause = Clause {
            subject,
            predicate: Predicate::Verb(action.verb, Some(object)),
            tail: if one_in(random, 2) {
                random.pick(TIMES).to_owned()
            } else {
                String::new()
            },
        };
        let form = match random.below(6) {
            0 => PRESENT,
            1 => PRESENT.tense(Tense::Modal("will")),
            2 if action.course == Course::Takes => Form {
                aspect: Aspect::Progressive,
                ..PAST
            },
            _ => PAST,
        };
        if let Some(passive) = clause.passive(form) {
            return (clause.active(form), passive);
        }
    }
}

fn definiteness(random: &mut Random) -> (String, String) {
    let action = random.pick(ACTIONS);
    let (who, what) = (random.pick(PEOPLE), random.pick(action.objects));
    // Which of the two change; at least one does.
    let (subject, object) = match random.below(4) {
        0 => (Determiner::A, Determiner::The),
        1 => (Determiner::The, Determiner::A),
        _ => (Determiner::A, Determiner::A),
    };
    let tail = tail(random, action.course);
    let clause = |subject, object| Clause {
        subject: Phrase::Noun(subject, who, Number::One),
        predicate: Predicate::Verb(action.verb, Some(Phrase::Noun(object, what, Number::One))),
        tail: tail.clone(),
    };
    let form = present_or_past(random);
    let first = clause(Determiner::The, Determiner::The).active(form);
    (first, clause(subject, object).active(form))
}

fn quantity(random: &mut Random) -> (String, String) {
    let exact = random.pick(NUMBERS);
    let other = if one_in(random, 3) {
        random.pick(NUMBERS)
    } else {
        random.pick(AMOUNTS)
    };
    match random.below(4) {
        0 => {
            let (spot, nouns) = random.pick(SPOTS);
            let noun = random.pick(nouns).plural();
            let be = if one_in(random, 2) { "are" } else { "were" };
            let say = |amount: &str| sentence(&["there", be, amount, &noun, spot]);
            (say(exact), say(other))
        }
        1 => {
            let (noun, verb) = (random.pick(PEOPLE), random.pick(MOVES));
            let (form, tail) = (present_or_past(random), tail(random, Course::Takes));
            let say = |amount: &'static str| {
                let clause = Clause {
                    subject: Phrase::Noun(Determiner::Word(amount), noun, Number::Many),
                    predicate: Predicate::Verb(verb, None),
                    tail: tail.clone(),
                };
                clause.active(form)
            };
            (say(exact), say(other))
        }
        _ => {
            let action = random.pick(ACTIONS);
            let noun = random.pick(action.objects);
            let (subject, form) = (someone(random), present_or_past(random));
            let time = if one_in(random, 2) {
                random.pick(TIMES).to_owned()
            } else {
                String::new()
            };
            let say = |amount: &'static str| {
                let object = Phrase::Noun(Determiner::Word(amount), noun, Number::Many);
                let clause = Clause {
                    subject,
                    predicate: Predicate::Verb(action.verb, Some(object)),
                    tail: time.clone(),
                };
                clause.active(form)
            };
            (say(exact), say(other))
        }
    }
}

fn intensifier(random: &mut Random) -> (String, String) {
    let with = random.pick(INTENSIFIERS);
    if one_in(random, 4) {
        let mut clause = acting(random);
        let manner = random.pick(GRADABLE_MANNERS);
        let form = present_or_past(random);
        clause.tail = manner.to_owned();
        let plain = clause.active(form);
        clause.tail = format!("{with} {manner}");
        return (plain, clause.active(form));
    }
    let kind = kind(random);
    let subject = known(random, &kind);
    let quality = random.pick(kind.gradable);
    let seems = one_in(random, 4);
    let form = present_or_past(random);
    let say = |quality: String| {
        let mut clause = being(subject, "");
        clause.predicate = if seems {
            Predicate::Seem(quality)
        } else {
            Predicate::Be(quality)
        };
        clause.active(form)
    };
    (say(quality.to_owned()), say(format!("{with} {quality}")))
}

fn polarity(random: &mut Random) -> (String, String) {
    if one_in(random, 4) {
        let (good, bad) = random.pick(VIEWS);
        // Works and places are what one has views on.
        let kind = KINDS[2 + random.below(2)];
        let object = known(random, &kind);
        let (subject, form) = (someone(random), present_or_past(random));
        let say = |verb| {
            let clause = Clause {
                subject,
                predicate: Predicate::Verb(verb, Some(object)),
                tail: String::new(),
            };
            clause.active(form)
        };
        return (say(good), say(bad));
    }
    let kind = kind(random);
    let (good, bad) = random.pick(kind.opposites);
    let subject = known(random, &kind);
    let form = present_or_past(random);
    let first = being(subject, good).active(form);
    if one_in(random, 4) {
        return (first, being(subject, good).active(form.negative()));
    }
    (first, being(subject, bad).active(form))
}

fn synonym(random: &mut Random) -> (String, String) {
    let form = present_or_past(random);
    match random.below(4) {
        0 => {
            let (action, other) = random.pick(SAME_ACTIONS);
            by_two_verbs(random, action, other, form)
        }
        1 => {
            let (one, other) = random.pick(SAME_PEOPLE);
            let (clause, _) = doing(random);
            let number = number(random);
            let say = |noun| {
                let subject = Phrase::Noun(Determiner::The, noun, number);
                Clause {
                    subject,
                    ..clause.clone()
                }
                .active(form)
            };
            (say(one), say(other))
        }
        2 => {
            let mut clause = acting(random);
            let seldom = one_in(random, 3);
            let (one, other) = random.pick(if seldom { FREQUENCIES } else { MANNERS });
            clause.tail = one.to_owned();
            let first = clause.active(form);
            clause.tail = other.to_owned();
            (first, clause.active(form))
        }
        _ => {
            let kind = kind(random);
            let (one, other) = random.pick(kind.synonyms);
            let subject = known(random, &kind);
            (
                being(subject, one).active(form),
                being(subject, other).active(form),
            )
        }
    }
}

/// Someone does the same by either of two verbs.
fn by_two_verbs(random: &mut Random, action: Action, other: Verb, form: Form) -> (String, String) {
    let object = Phrase::Noun(
        the_or_a(random),
        random.pick(action.objects),
        number(random),
    );
    let (subject, tail) = (someone(random), tail(random, action.course));
    let say = |verb| {
        let clause = Clause {
            subject,
            predicate: Predicate::Verb(verb, Some(object)),
            tail: tail.clone(),
        };
        clause.active(form)
    };
    (say(action.verb), say(other))
}
