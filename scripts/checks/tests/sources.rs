//! Rules on source files: how large they may grow, what must not be left in them, how well they are
//! tested.

use std::fs;

use anyhow::{Result, ensure};
use lfm2_checks::{files, root, shown};

/// Past this a file has more than one subject.
const MOST_LINES: usize = 800;
const TESTS_PER_THOUSAND_LINES: f64 = 9.0;

/// Marks of unfinished work; in two halves, so that this file is not among those found.
const UNFINISHED: [&str; 3] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

fn tests_in(source: &str) -> usize {
    source
        .lines()
        .filter(|line| line.trim() == "#[test]")
        .count()
}

fn unfinished(source: &str) -> Option<usize> {
    let marked = |line: &str| {
        UNFINISHED
            .iter()
            .any(|mark| words(line).any(|word| word == *mark))
    };
    source.lines().position(marked).map(|index| index + 1)
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
}

#[test]
fn no_source_file_is_too_long() -> Result<()> {
    let mut long = Vec::new();
    for path in files(root(), &[".rs"])? {
        let lines = fs::read_to_string(&path)?.lines().count();
        if lines > MOST_LINES {
            long.push(format!("{}: {lines} lines", shown(&path)));
        }
    }
    ensure!(
        long.is_empty(),
        "over {MOST_LINES} lines:\n{}",
        long.join("\n")
    );
    Ok(())
}

#[test]
fn nothing_is_left_for_later() -> Result<()> {
    let mut left = Vec::new();
    for path in files(root(), &[".rs", ".toml", ".sh"])? {
        if let Some(line) = unfinished(&fs::read_to_string(&path)?) {
            left.push(format!("{}:{line}", shown(&path)));
        }
    }
    ensure!(left.is_empty(), "unfinished work:\n{}", left.join("\n"));
    Ok(())
}

#[test]
fn there_are_enough_tests() -> Result<()> {
    let (mut tests, mut lines) = (0, 0);
    for folder in ["crates", "models", "scripts/checks"] {
        for path in files(&root().join(folder), &[".rs"])? {
            let source = fs::read_to_string(&path)?;
            tests += tests_in(&source);
            lines += source.lines().count();
        }
    }
    let density = 1000.0 * tests as f64 / lines as f64;
    println!("{tests} tests for {lines} lines: {density:.1} per thousand");
    ensure!(
        density >= TESTS_PER_THOUSAND_LINES,
        "{density:.1} tests per thousand lines, {TESTS_PER_THOUSAND_LINES} are wanted"
    );
    Ok(())
}

#[test]
fn tests_and_marks_are_counted_where_they_stand() {
    assert_eq!(
        tests_in("#[test]\nfn a() {}\n    #[test]\n// not #[test] here\n"),
        2
    );
    assert_eq!(unfinished("fine\n// TO\n"), None);
    let marked = format!("fine\n// {}: later\n", UNFINISHED[0]);
    assert_eq!(unfinished(&marked), Some(2));
    assert_eq!(unfinished(&format!("AUTO{}\n", UNFINISHED[0])), None);
}
