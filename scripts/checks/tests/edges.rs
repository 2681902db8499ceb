//! Which crate may use which: dependencies point down, never up or sideways.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use lfm2_checks::root;
use serde_json::{Value, json};

/// Every member, lowest first, and the members it may use. `docs/architecture.md` draws the same.
const MAY_USE: &[(&str, &[&str])] = &[
    ("lfm2-kernels", &[]),
    ("lfm2-hub", &[]),
    ("lfm2-nn", &["lfm2-kernels", "lfm2-hub"]),
    ("lfm2-text", &["lfm2-nn", "lfm2-hub"]),
    (
        "lfm2-colbert",
        &["lfm2-text", "lfm2-nn", "lfm2-hub", "lfm2-kernels"],
    ),
    (
        "lfm2-sentence",
        &["lfm2-colbert", "lfm2-text", "lfm2-nn", "lfm2-hub"],
    ),
    (
        "lfm2-vl",
        &["lfm2-text", "lfm2-nn", "lfm2-hub", "lfm2-kernels"],
    ),
    (
        "lfm2-audio",
        &["lfm2-text", "lfm2-nn", "lfm2-hub", "lfm2-kernels"],
    ),
    ("lfm2-generate", &["lfm2-nn", "lfm2-hub"]),
    ("lfm2-analysis", &[]),
    (
        "lfm2-train",
        &[
            "lfm2-text",
            "lfm2-colbert",
            "lfm2-vl",
            "lfm2-audio",
            "lfm2-generate",
            "lfm2-nn",
            "lfm2-hub",
            "lfm2-kernels",
        ],
    ),
    (
        "lfm2",
        &[
            "lfm2-text",
            "lfm2-colbert",
            "lfm2-sentence",
            "lfm2-vl",
            "lfm2-audio",
            "lfm2-generate",
            "lfm2-nn",
            "lfm2-hub",
        ],
    ),
    ("lfm2-cli", &["lfm2", "lfm2-train", "lfm2-analysis"]),
    ("lfm2-examples", &["lfm2", "lfm2-train", "lfm2-analysis"]),
    ("lfm2-checks", &[]),
    (GOLDEN, &[]),
];

/// What the tests of every member may use.
const GOLDEN: &str = "lfm2-golden";

/// What a member's tests may use on top.
const TESTS_MAY_USE: &[(&str, &[&str])] = &[
    ("lfm2-generate", &["lfm2-text"]),
    ("lfm2-colbert", &["lfm2-train"]),
    ("lfm2-sentence", &["lfm2-analysis"]),
];

/// Crates of others that a member must do without, by the start of their names: the kernels work on
/// slices, the hub knows tensors but no layers, and errors of libraries have types.
const MUST_NOT_USE: &[(&str, &[&str])] = &[
    ("lfm2-kernels", &["candle", "anyhow"]),
    (
        "lfm2-hub",
        &["candle-nn", "candle-transformers", "anyhow", "clap"],
    ),
    ("lfm2-nn", &["candle-transformers", "anyhow", "clap"]),
    ("lfm2-text", &["candle-transformers", "anyhow", "clap"]),
    ("lfm2-colbert", &["candle-transformers", "anyhow", "clap"]),
    ("lfm2-sentence", &["candle-transformers", "anyhow", "clap"]),
    ("lfm2-vl", &["candle-transformers", "anyhow", "clap"]),
    ("lfm2-audio", &["candle-transformers", "anyhow", "clap"]),
    ("lfm2-analysis", &["candle", "anyhow", "clap"]),
    ("lfm2-generate", &["candle-transformers", "anyhow", "clap"]),
    ("lfm2-train", &["candle-transformers", "anyhow", "clap"]),
    ("lfm2", &["candle-transformers", "anyhow", "clap"]),
];

fn row<'a>(table: &'a [(&str, &'a [&'a str])], name: &str) -> Option<&'a [&'a str]> {
    table
        .iter()
        .find(|(member, _)| *member == name)
        .map(|(_, row)| *row)
}

/// What is wrong with the packages of `cargo metadata --no-deps`.
fn violations(metadata: &Value) -> Result<Vec<String>> {
    let packages = metadata["packages"]
        .as_array()
        .context("no packages in cargo metadata")?;
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"]
            .as_str()
            .context("a package without a name")?;
        let Some(allowed) = row(MAY_USE, name) else {
            wrong.push(format!("{name} is not in the table of members"));
            continue;
        };
        let for_tests = row(TESTS_MAY_USE, name).unwrap_or_default();
        let forbidden = row(MUST_NOT_USE, name).unwrap_or_default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let used = dependency["name"]
                .as_str()
                .context("a dependency without a name")?;
            let test_only = dependency["kind"] == "dev";
            let fits = if dependency["path"].is_string() {
                allowed.contains(&used)
                    || (test_only && (used == GOLDEN || for_tests.contains(&used)))
            } else {
                test_only || !forbidden.iter().any(|start| used.starts_with(start))
            };
            if !fits {
                wrong.push(format!("{name} must not use {used}"));
            }
        }
    }
    Ok(wrong)
}

#[test]
fn dependencies_point_down() -> Result<()> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(root())
        .output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let wrong = violations(&serde_json::from_slice(&output.stdout)?)?;
    ensure!(wrong.is_empty(), "forbidden edges:\n{}", wrong.join("\n"));
    Ok(())
}

/// The metadata of one package `name` with one dependency.
fn package(name: &str, dependency: &Value) -> Value {
    json!({"packages": [{"name": name, "dependencies": [dependency]}]})
}

#[test]
fn an_edge_upwards_is_found() -> Result<()> {
    let upwards = json!({"name": "lfm2-text", "kind": null, "path": "/x"});
    assert_eq!(
        violations(&package("lfm2-generate", &upwards))?,
        ["lfm2-generate must not use lfm2-text"]
    );
    let in_tests = json!({"name": "lfm2-text", "kind": "dev", "path": "/x"});
    assert!(violations(&package("lfm2-generate", &in_tests))?.is_empty());
    assert!(violations(&package("lfm2-train", &upwards))?.is_empty());
    Ok(())
}

#[test]
fn a_crate_that_a_member_must_do_without_is_found() -> Result<()> {
    let candle = json!({"name": "candle-core", "kind": null});
    assert_eq!(
        violations(&package("lfm2-kernels", &candle))?,
        ["lfm2-kernels must not use candle-core"]
    );
    assert!(violations(&package("lfm2-hub", &candle))?.is_empty());
    let in_tests = json!({"name": "anyhow", "kind": "dev"});
    assert!(violations(&package("lfm2-hub", &in_tests))?.is_empty());
    Ok(())
}

#[test]
fn a_member_without_a_row_is_found() -> Result<()> {
    let wrong = violations(&package("lfm2-new", &json!({"name": "half", "kind": null})))?;
    assert_eq!(wrong, ["lfm2-new is not in the table of members"]);
    Ok(())
}

#[test]
fn the_table_itself_points_down() {
    for (position, (name, uses)) in MAY_USE.iter().enumerate() {
        for used in *uses {
            let below = MAY_USE[..position].iter().any(|(member, _)| member == used);
            assert!(below, "{name} stands below {used} in the table");
        }
    }
}
