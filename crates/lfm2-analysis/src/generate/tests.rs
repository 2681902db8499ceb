use std::collections::HashSet;

use super::*;

const SETS: usize = 1000;

#[test]
fn every_contrast_has_thousands_of_pairs_without_a_sentence_twice() {
    for contrast in Contrast::ALL {
        let set = generate(contrast, 3000, 1).unwrap();
        assert_eq!((set.name(), set.len()), (contrast.name(), 3000));
        let sentences: HashSet<&str> = set
            .pairs()
            .iter()
            .flat_map(|pair| [pair.first.as_str(), pair.second.as_str()])
            .collect();
        assert_eq!(sentences.len(), 6000, "{}", contrast.name());
    }
}

#[test]
fn a_seed_fixes_the_pairs() {
    for contrast in Contrast::ALL {
        let pairs = |seed| generate(contrast, 50, seed).unwrap().pairs().to_vec();
        assert_eq!(pairs(5), pairs(5));
        assert_ne!(pairs(5), pairs(6));
    }
}

#[test]
fn sentences_look_like_sentences() {
    for contrast in Contrast::ALL {
        for pair in generate(contrast, SETS, 2).unwrap().pairs() {
            for sentence in [&pair.first, &pair.second] {
                assert!(
                    sentence.ends_with('.') && !sentence.contains("  "),
                    "{sentence}"
                );
                assert!(
                    sentence
                        .chars()
                        .next()
                        .is_some_and(|c| c.is_uppercase() || c.is_numeric()),
                    "{sentence}"
                );
                let words: Vec<&str> = sentence.trim_end_matches('.').split(' ').collect();
                assert!((2..16).contains(&words.len()), "{sentence}");
                assert!(
                    words.windows(2).all(|pair| pair[0] != pair[1]),
                    "{sentence}"
                );
                for two in words.windows(2) {
                    if two[0] == "a" || two[0] == "A" {
                        let known = ["few", "handful"].contains(&two[1]);
                        assert!(known || morphology::article(two[1]) == "a", "{sentence}");
                    }
                    if two[0] == "an" || two[0] == "An" {
                        assert_eq!(morphology::article(two[1]), "an", "{sentence}");
                    }
                }
            }
        }
    }
}

/// Words of the second sentence that the first lacks, and the other way round.
fn changed(pair: &Pair) -> (Vec<String>, Vec<String>) {
    let words = |sentence: &str| -> Vec<String> {
        sentence
            .trim_end_matches('.')
            .to_lowercase()
            .split(' ')
            .map(str::to_owned)
            .collect()
    };
    let (first, second) = (words(&pair.first), words(&pair.second));
    let without = |of: &[String], others: &[String]| {
        let mut left = others.to_vec();
        let mut new = of.to_vec();
        new.retain(|word| match left.iter().position(|other| other == word) {
            Some(at) => {
                left.remove(at);
                false
            }
            None => true,
        });
        new
    };
    (without(&second, &first), without(&first, &second))
}

#[test]
fn pairs_differ_in_their_contrast_only() {
    let every = |contrast: Contrast, holds: &dyn Fn(&[String], &[String]) -> bool| {
        for pair in generate(contrast, SETS, 3).unwrap().pairs() {
            let (new, gone) = changed(pair);
            assert!(
                holds(&new, &gone),
                "{}: {pair:?} {new:?} {gone:?}",
                contrast.name()
            );
        }
    };
    let is = |word: &String, words: &[&str]| words.contains(&word.as_str());
    every(Contrast::Negation, &|new, gone| {
        new.iter().any(|word| is(word, &["not", "cannot"])) && new.len() <= 3 && gone.len() <= 1
    });
    every(Contrast::Factuality, &|new, _| {
        new.iter().any(|word| is(word, &["might", "may", "could"]))
    });
    every(Contrast::Intensifier, &|new, gone| {
        new.len() == 1 && gone.is_empty()
    });
    every(Contrast::Definiteness, &|new, _| {
        !new.is_empty() && new.iter().all(|word| is(word, &["a", "an"]))
    });
    every(Contrast::Voice, &|new, _| new.contains(&"by".to_owned()));
    every(Contrast::Tense, &|new, gone| {
        new.len() == 1 && gone.len() == 1
    });
    every(Contrast::Synonym, &|new, gone| {
        new.len() == 1 && gone.len() == 1
    });
    every(Contrast::Quantity, &|new, gone| {
        gone.len() == 1 && !new.is_empty() && new.len() <= 3
    });
    every(Contrast::Polarity, &|new, gone| {
        new.len() == 1 && gone.len() <= 1
    });
}

#[test]
fn control_pairs_have_no_side() {
    let set = generate(Contrast::Control, SETS, 4).unwrap();
    let negated = |side: &dyn Fn(&Pair) -> &String| {
        set.pairs()
            .iter()
            .filter(|pair| side(pair).contains(" not "))
            .count()
    };
    let (first, second) = (negated(&|pair| &pair.first), negated(&|pair| &pair.second));
    assert!(
        first > 20 && second > 20 && first.abs_diff(second) < 40,
        "{first} {second}"
    );
}

#[test]
fn a_grammar_that_is_used_up_ends() {
    let mut drawn = 0;
    let few = different(10, || {
        drawn += 1;
        let side = |letter: &str| format!("{letter}{}.", drawn % 3);
        Pair {
            first: side("A"),
            second: side("B"),
        }
    });
    assert_eq!(few.len(), 3);
    let same = || Pair {
        first: "A.".to_owned(),
        second: "A.".to_owned(),
    };
    assert!(different(1, same).is_empty());
    assert!(generate(Contrast::Voice, 0, 0).unwrap().is_empty());
}

#[test]
fn names_lead_back_to_contrasts() {
    for contrast in Contrast::ALL {
        assert_eq!(Contrast::from_name(contrast.name()), Some(contrast));
    }
    assert_eq!(Contrast::from_name("gender"), None);
}
