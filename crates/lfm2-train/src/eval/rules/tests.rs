//! Every rule on answers that keep it and answers that do not.
#![allow(clippy::unwrap_used, reason = "tests")]

use serde_json::{Value, json};

use super::*;

fn rule(value: Value) -> Rule {
    serde_json::from_value(value).unwrap()
}

/// Answers that keep the rule, and answers that do not.
fn check(value: Value, kept: &[&str], broken: &[&str]) {
    let (name, shown) = (value["rule"].clone(), value.to_string());
    let rule = rule(value);
    assert_eq!(json!(rule.name()), name);
    for text in kept {
        assert!(rule.holds(text), "{shown} is kept by {text:?}");
    }
    for text in broken.iter().chain(&["", " \n"]) {
        assert!(!rule.holds(text), "{shown} is broken by {text:?}");
    }
}

#[test]
fn counts_of_words_sentences_and_paragraphs() {
    let words = json!({"rule": "words", "at_least": 2, "at_most": 3});
    check(words, &["one two", " a, b - "], &["one", "a b c d"]);
    let sentences = json!({"rule": "sentences", "at_least": 2, "at_most": 2});
    let kept = [
        "One. Two!",
        "He said \"no.\" Then what",
        "1.5 is more. Yes?",
    ];
    check(sentences, &kept, &["One", "A. B. C."]);
    let paragraphs = json!({"rule": "paragraphs", "count": 2});
    check(
        paragraphs,
        &["a\nb\n\n\nc", "a\n \nb\n"],
        &["a\nb", "a\n\nb\n\nc"],
    );
    let bullets = json!({"rule": "bullets", "count": 2});
    check(
        bullets,
        &["- a\n- b", "So:\n* a\n  * b"],
        &["-a\n-b", "- a", "1. a\n2. b"],
    );
    let numbered = json!({"rule": "numbered", "count": 2});
    check(
        numbered,
        &["1. a\n2. b", "So:\n1. a\nmore\n2. b"],
        &["1. a", "1. a\n3. b", "1) a\n2) b"],
    );
    let parts = json!({"rule": "parts", "between": "***", "count": 2});
    check(
        parts,
        &["a\n***\nb\nc"],
        &["a", "a\n***\n", "a *** b", "a\n***\nb\n***\nc"],
    );
}

#[test]
fn texts_words_and_letters() {
    let contains = json!({"rule": "contains", "texts": ["fox", "blue"]});
    check(contains, &["A Fox, blueish."], &["A fox."]);
    let avoids = json!({"rule": "avoids", "texts": ["the", "very good"]});
    check(
        avoids,
        &["then other", "very, good"],
        &["The end", "it is very good."],
    );
    let times = json!({"rule": "times", "text": "now", "at_least": 2, "at_most": 2});
    check(
        times,
        &["Now and now.", "now, now! know"],
        &["now", "now now now"],
    );
    let letter = json!({"rule": "letter", "letter": "e", "at_most": 1});
    check(letter, &["Eat", "a cat"], &["Eve"]);
    check(
        json!({"rule": "starts_with", "text": "Once"}),
        &["once upon"],
        &["At once"],
    );
    check(
        json!({"rule": "ends_with", "text": "The end."}),
        &["So. the end."],
        &["The end"],
    );
    let one_of = json!({"rule": "one_of", "texts": ["yes", "no."]});
    check(one_of, &["Yes.", "no"], &["yes, maybe", "yesno"]);
}

#[test]
fn capitals_and_marks() {
    check(json!({"rule": "no_commas"}), &["a; b"], &["a, b"]);
    check(json!({"rule": "lower_case"}), &["a b 1"], &["A b"]);
    check(json!({"rule": "upper_case"}), &["A B 1"], &["A b"]);
    let capital = json!({"rule": "capital_words", "at_least": 1, "at_most": 2});
    check(capital, &["so BIG!", "A B c"], &["Big", "A B C", "1 2"]);
    let json_rule = json!({"rule": "json"});
    check(
        json_rule,
        &["{\"a\": 1}", "```json\n[1]\n```", "```\n{}\n```\n"],
        &["{a}", "x {}", "```json {}```"],
    );
    check(json!({"rule": "quoted"}), &["\"so\""], &["\"", "\"a", "so"]);
    check(
        json!({"rule": "title"}),
        &["<<A day>>\nso"],
        &["<< >>", "<A>", "<<a\n>>"],
    );
    let placeholders = json!({"rule": "placeholders", "at_least": 2});
    check(
        placeholders,
        &["[a] and [b c]", "[a]\n[b]"],
        &["[a] and []", "[a"],
    );
    let highlights = json!({"rule": "highlights", "at_least": 2});
    check(
        highlights,
        &["*a* and **b c**", "* *a*\n* *b*"],
        &["*a* * b", "a * b * c", "* a\n* b"],
    );
    let postscript = json!({"rule": "postscript", "text": "P.S."});
    check(
        postscript,
        &["a\n\nP.S. b", "a\nP.S. b"],
        &["P.S. a\n\nb", "a P.S. b"],
    );
}

#[test]
fn unknown_rules_and_keys_are_errors() {
    for bad in [
        json!({"rule": "rhyme"}),
        json!({"rule": "words", "least": 3}),
        json!({"rule": "bullets"}),
        json!({"count": 3}),
    ] {
        assert!(
            serde_json::from_value::<Rule>(bad.clone()).is_err(),
            "{bad}"
        );
    }
}

#[test]
fn loose_forms_forgive_an_introduction_and_asterisks_only() {
    let row = RuleRow {
        prompt: "Answer in small letters without commas.".into(),
        rules: vec![Rule::LowerCase, Rule::NoCommas],
    };
    let verdict = row.judge("Sure, here it is:\nsmall letters.\nBye, bye!");
    assert_eq!(verdict.strict, [false, false]);
    assert_eq!(verdict.loose, [true, true]);
    assert_eq!(row.judge("small\nBig\nsmall").loose, [false, true]);
    // Nothing is left without the only line, and nothing keeps no rule.
    assert_eq!(row.judge("Big, bad").loose, [false, false]);
    let marks = RuleRow {
        prompt: String::new(),
        rules: vec![Rule::StartsWith {
            text: "once".into(),
        }],
    };
    let verdict = marks.judge("**Once** upon");
    assert_eq!((verdict.strict, verdict.loose), (vec![false], vec![true]));
}

#[test]
fn the_report_counts_prompts_rules_and_kinds() {
    let row = |rules: Vec<Rule>| RuleRow {
        prompt: "p".into(),
        rules,
    };
    let rows = [
        row(vec![Rule::LowerCase, Rule::NoCommas]),
        row(vec![Rule::LowerCase]),
    ];
    let answers = ["a, b", "a"].iter().zip(&rows).map(|(output, row)| Answer {
        output: (*output).to_owned(),
        verdict: row.judge(output),
    });
    let answers: Vec<Answer<RuleVerdict>> = answers.collect();
    let report = RuleReport::of(&rows, &answers);
    assert_eq!((report.prompts.strict, report.prompts.count), (0.5, 2));
    assert!((report.rules.strict - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!(report.rules.count, 3);
    assert_eq!(report.kinds["lower_case"].strict, 1.0);
    assert_eq!(report.kinds["no_commas"].strict, 0.0);
    assert_eq!(RuleReport::of(&rows, &[]).prompts.strict, 0.0);
}

/// A prompt that nobody could satisfy, or that any answer satisfies, would measure nothing.
#[test]
fn the_prompts_of_our_own_are_whole_and_say_what_is_checked() {
    let rows = RuleRow::built_in().unwrap();
    assert_eq!(rows.len(), 64);
    let mut kinds = std::collections::BTreeSet::new();
    let mut prompts = std::collections::BTreeSet::new();
    for row in &rows {
        assert!(!row.rules.is_empty(), "{}", row.prompt);
        assert!(prompts.insert(&row.prompt), "{} is there twice", row.prompt);
        kinds.extend(row.rules.iter().map(Rule::name));
        for rule in &row.rules {
            if let Rule::Contains { texts } | Rule::Avoids { texts } | Rule::OneOf { texts } = rule
            {
                let said = row.prompt.to_lowercase();
                let open =
                    |text: &&String| !said.contains(&text.to_lowercase()) && *text != "Paris";
                assert!(!texts.iter().any(|text| open(&text)), "{}", row.prompt);
            }
        }
    }
    assert_eq!(kinds.len(), 23, "every kind of rule is asked for");
}
