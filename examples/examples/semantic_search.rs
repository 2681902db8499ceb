//! Searches files by meaning: `cargo run --release -p lfm2-examples --example semantic_search --
//! docs "how do I make a model smaller?"`, with another model than the built-in one behind that.
//!
//! The index stays in the folder `search.index`; the next run encodes only what has changed.

#![allow(clippy::print_stdout, reason = "examples talk to their user")]

use std::path::Path;

use anyhow::Context;
use lfm2::retrieval::{self, Library, LibraryCard, LibraryOptions, SearchOptions};

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let usage = "expected a folder and a question";
    let folder = args.next().context(usage)?;
    let question = args.next().context(usage)?;
    let model = match args.next() {
        Some(source) => retrieval::open(source)?,
        None => retrieval::embedded()?,
    };

    let index = Path::new("search.index");
    let mut library = match LibraryCard::exists(index) {
        true => Library::open(index, model)?,
        false => Library::create(index, model, &LibraryOptions::default())?,
    };
    let added = library.add_files(&[folder])?;
    println!(
        "{} new, {} changed, {} unchanged documents",
        added.new, added.changed, added.unchanged
    );

    for answer in library.search(&question, &SearchOptions::top(3))? {
        println!(
            "\n{:.3}  {}, line {}  {}",
            answer.score,
            answer.document,
            answer.line.unwrap_or(1),
            answer.heading
        );
        println!("{}", answer.text);
    }
    Ok(())
}
