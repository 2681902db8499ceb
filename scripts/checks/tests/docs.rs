//! Rules on the documentation: links lead somewhere, tables say what the code says.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use lfm2_checks::{files, root, shown};

/// Every page that is meant to be read.
fn pages() -> Result<Vec<PathBuf>> {
    let mut pages = files(&root().join("docs"), &[".md"])?;
    for folder in ["examples", "scripts", "data", "models"] {
        pages.extend(files(&root().join(folder), &["README.md"])?);
    }
    pages.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root().join(name)));
    Ok(pages)
}

/// The targets of all Markdown links in `text` that name files here.
fn local_links(text: &str) -> Vec<&str> {
    let targets = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', ' ']).next());
    let local = targets.filter(|target| !target.contains("://") && !target.starts_with(['#', '<']));
    local
        .filter_map(|target| target.split('#').next())
        .collect()
}

#[test]
fn links_lead_to_files() -> Result<()> {
    let mut dead = Vec::new();
    for page in pages()? {
        let text = fs::read_to_string(&page).with_context(|| shown(&page))?;
        let folder = page.parent().context("a page in no folder")?;
        let missing = local_links(&text)
            .into_iter()
            .filter(|link| !folder.join(link).exists());
        dead.extend(missing.map(|link| format!("{}: {link}", shown(&page))));
    }
    ensure!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
    Ok(())
}

#[test]
fn links_are_found_in_text() {
    let text = "[a](b.md), [c](https://x.y/z) and [d](../e.md#part); [f](#here) ![g](h.svg \"i\")";
    assert_eq!(local_links(text), ["b.md", "../e.md", "h.svg"]);
}

/// The value of `4 << 20`, `65_536` and the like.
fn number(expression: &str) -> Result<u64> {
    let parse = |text: &str| text.trim().replace('_', "").parse::<u64>();
    Ok(match expression.split_once("<<") {
        Some((value, shift)) => parse(value)? << parse(shift)?,
        None => parse(expression)?,
    })
}

/// The value of `100 000`, `4 Mi` and `64 KiB` in a table of the documentation.
fn documented(cell: &str) -> Result<u64> {
    let digits: String = cell.chars().filter(char::is_ascii_digit).collect();
    let unit = cell
        .trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ')
        .trim();
    let scale = match unit.trim_end_matches('B') {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        other => bail!("unknown unit {other:?} in {cell:?}"),
    };
    Ok(digits.parse::<u64>()? * scale)
}

/// Where limits are defined: the file and the struct.
const LIMITS: [(&str, &str); 5] = [
    ("crates/lfm2-hub/src/limits.rs", "Limits"),
    ("crates/lfm2-generate/src/template/mod.rs", "TemplateLimits"),
    ("crates/lfm2-generate/src/message.rs", "MessageLimits"),
    ("models/lfm2-vl/src/decode/mod.rs", "ImageLimits"),
    ("models/lfm2-vl/src/decode/frames.rs", "FrameOptions"),
];

#[test]
fn every_limit_is_documented_with_its_default() -> Result<()> {
    let page = fs::read_to_string(root().join("docs/security.md"))?;
    for (file, name) in LIMITS {
        let source = fs::read_to_string(root().join(file))?;
        let defaults = source.split_once(&format!("impl Default for {name} {{"));
        let (_, defaults) =
            defaults.with_context(|| format!("{file} has no defaults of {name}"))?;
        let section = page
            .split("\n### ")
            .find(|part| part.starts_with(&format!("`{name}`")));
        let section = section.with_context(|| format!("docs/security.md leaves out {name}"))?;
        let fields = defaults.lines().take_while(|line| *line != "}");
        for (field, value) in
            fields.filter_map(|line| line.trim().strip_suffix(',')?.split_once(": "))
        {
            if !value.ends_with("::default()") {
                check_limit(section, field, value).with_context(|| format!("{name}::{field}"))?;
            }
        }
    }
    Ok(())
}

/// Compares the default of one limit with its row in `section`.
fn check_limit(section: &str, field: &str, value: &str) -> Result<()> {
    let row = section
        .lines()
        .find(|row| row.starts_with(&format!("| `{field}`")));
    let row = row.context("not in docs/security.md")?;
    let cell = row.split('|').map(str::trim).rfind(|cell| !cell.is_empty());
    let cell = cell.context("an empty row")?;
    ensure!(
        documented(cell)? == number(value)?,
        "is {value}, documented as {cell}"
    );
    Ok(())
}

#[test]
fn a_limit_that_differs_from_its_row_is_found() {
    let section = "| `shards` | files | 1 000 |";
    assert!(check_limit(section, "shards", "1_000").is_ok());
    assert!(check_limit(section, "shards", "1_001").is_err());
    assert!(check_limit(section, "tensors", "1_000").is_err());
}

#[test]
fn numbers_are_read_in_both_spellings() -> Result<()> {
    assert_eq!(number(" 4 << 20")?, documented("4 MiB")?);
    assert_eq!(number("65_536")?, documented("65 536")?);
    assert_eq!(documented("64 KiB")?, 65_536);
    assert!(documented("3 apples").is_err());
    Ok(())
}

#[test]
fn every_crate_has_a_row_in_the_architecture() -> Result<()> {
    let page = fs::read_to_string(root().join("docs/architecture.md"))?;
    for folder in ["crates", "models"] {
        for manifest in files(&root().join(folder), &["Cargo.toml"])? {
            let text = fs::read_to_string(&manifest)?;
            let name = text.lines().find_map(|line| line.strip_prefix("name = "));
            let name = name.context("a manifest without a name")?.trim_matches('"');
            ensure!(
                page.contains(&format!("`{name}`")),
                "docs/architecture.md leaves out {name}"
            );
        }
    }
    Ok(())
}
