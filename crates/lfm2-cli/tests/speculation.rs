//! Guessing ahead, from outside: the same text, and a report of the guesses.

mod common;

use common::{checkpoint, run, run_with, text};

#[test]
fn guesses_from_the_text_do_not_change_it() {
    let prompt = "Sam had a red ball. The red ball was lost. Sam had a red ball. The red";
    let plain = [
        "generate",
        prompt,
        "-n",
        "20",
        "--seed",
        "5",
        "--repetition-penalty",
        "0.5",
    ];
    let expected = run(&[&plain[..], &["--json"]].concat()).ok().json();
    assert_eq!(expected["drafted_tokens"], 0);
    let lookup = [
        &plain[..],
        &["--speculate", "lookup", "--draft-tokens", "3"],
    ]
    .concat();
    let found = run(&[&lookup[..], &["--json"]].concat()).ok().json();
    assert_eq!(found["text"], expected["text"]);
    assert!(found["accepted_tokens"].as_u64() <= found["drafted_tokens"].as_u64());
    run(&[&lookup[..], &["-v"]].concat()).ok();
}

#[test]
fn another_model_may_guess() {
    let model = text(&checkpoint());
    let draft = text(&checkpoint().with_file_name("moe_small"));
    let plain = [
        "generate",
        "Once upon a time",
        "-n",
        "12",
        "--seed",
        "5",
        "--json",
        "-m",
        &model,
    ];
    let expected = run(&plain).ok().json();
    let drafted = run(&[&plain[..], &["--draft-model", &draft]].concat())
        .ok()
        .json();
    assert_eq!(drafted["text"], expected["text"]);

    let talk = ["chat", "-m", &model, "--seed", "2", "-n", "8"];
    let expected = run_with(&talk, b"Hello!\nAnd now?\n").ok().stdout;
    let drafting = [&talk[..], &["--draft-model", &draft]].concat();
    assert_eq!(
        run_with(&drafting, b"Hello!\nAnd now?\n").ok().stdout,
        expected
    );
}

#[test]
fn cl_01_guesses_that_cannot_be_made_are_wrong_usage() {
    let other = text(&checkpoint());
    let outcome = run(&["generate", "Once", "--draft-model", &other]);
    assert_eq!(outcome.code, 2, "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("expected a vocabulary of 1024"),
        "{}",
        outcome.stderr
    );
    for args in [
        &["generate", "x", "--speculate", "wild"][..],
        &[
            "generate",
            "x",
            "--speculate",
            "lookup",
            "--draft-tokens",
            "99",
        ],
        &[
            "generate",
            "x",
            "--speculate",
            "lookup",
            "--draft-model",
            &other,
        ],
    ] {
        let outcome = run(args);
        assert_eq!(outcome.code, 2, "{args:?}: {}", outcome.stderr);
    }
}
