//! `lfm2 index`.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use lfm2::hub;
use lfm2::retrieval::{
    Added, Bits, Documents, Engine, Found, IndexInfo, Library, LibraryCard, LibraryOptions,
    Listing, ReadOptions, Skipped, delete_documents, index,
};
use serde::Serialize;

use crate::args::{
    AddArgs, Backend, BackendArgs, BuildArgs, DeleteArgs, IndexArgs, IndexCommand, IndexInfoArgs,
    ReportArgs,
};
use crate::exit::{Doing, Stopped, invalid};
use crate::ui::interrupt::Interrupt;
use crate::ui::{format, json_line, json_pretty, open, progress, screen};

pub(crate) fn run(args: &IndexArgs) -> Result<()> {
    match &args.command {
        IndexCommand::Build(args) => build(args),
        IndexCommand::Add(args) => add(args),
        IndexCommand::Delete(args) => delete(args),
        IndexCommand::Info(args) => info(args),
    }
}

fn build(args: &BuildArgs) -> Result<()> {
    let listing = list(&args.paths, &args.index)?;
    let interrupt = Interrupt::install()?;
    let exists = LibraryCard::exists(&args.index);
    if exists && args.force {
        std::fs::remove_dir_all(&args.index).doing("removing", args.index.display())?;
    }
    let library = if exists && !args.force {
        // A build that was stopped goes on.
        let card = LibraryCard::read(&args.index)?;
        same_chunks(args, &card)?;
        let (model, _) = open::retrieval_model(&args.model, card.model.as_deref())?;
        let library = open::library(&args.index, &card, model)?;
        same_engine(args, &library.info())?;
        library
    } else {
        let (model, source) = open::retrieval_model(&args.model, None)?;
        let mut options = LibraryOptions::default().with_engine(engine(args.backend));
        options.chunk_tokens = args.chunk_tokens.map(Into::into);
        options.overlap = args.overlap;
        options.source = source;
        Library::create(&args.index, model, &options)?
    };
    fill(library, listing, args.report, &interrupt)
}

fn add(args: &AddArgs) -> Result<()> {
    let card = LibraryCard::read(&args.index)?;
    let listing = list(&args.paths, &args.index)?;
    let interrupt = Interrupt::install()?;
    let (model, _) = open::retrieval_model(&args.model, card.model.as_deref())?;
    let library = open::library(&args.index, &card, model)?;
    fill(library, listing, args.report, &interrupt)
}

/// The files to read; without any there is nothing to do.
fn list(paths: &[PathBuf], index: &Path) -> Result<Listing> {
    let listing = Listing::new(paths, &ReadOptions::default().without(index))?;
    if listing.is_empty() {
        let names: Vec<String> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        return Err(invalid(format!(
            "no files to index in {}",
            names.join(", ")
        )));
    }
    Ok(listing)
}

/// What to search with, as chosen.
fn engine(args: BackendArgs) -> Engine {
    match args.backend {
        None => Engine::Auto,
        Some(Backend::Exact) => Engine::Exact,
        Some(Backend::Plaid) => Engine::Plaid(args.bits.unwrap_or_default()),
    }
}

/// Refuses to go on with chunks of another size.
fn same_chunks(args: &BuildArgs, card: &LibraryCard) -> Result<()> {
    let wanted = [
        (
            "--chunk-tokens",
            args.chunk_tokens.map(usize::from),
            card.chunk_tokens,
        ),
        ("--overlap", args.overlap, card.overlap),
    ];
    for (flag, wanted, found) in wanted {
        if wanted.is_some_and(|wanted| wanted != found) {
            let text = format!(
                "{}: the index was begun with {flag} {found}; leave it out, or replace the index with --force",
                args.index.display()
            );
            return Err(invalid(text));
        }
    }
    Ok(())
}

/// Refuses to go on with another engine.
fn same_engine(args: &BuildArgs, info: &IndexInfo) -> Result<()> {
    if args.backend.backend.is_none() || engine(args.backend) == info.engine {
        return Ok(());
    }
    let text = format!(
        "{}: the index was begun with another --backend; leave it out, or replace the index with --force",
        args.index.display()
    );
    Err(invalid(text))
}

/// Documents, with a bar for the bytes that were read and notes on what is skipped.
struct Watched {
    documents: Documents,
    bar: ProgressBar,
    notes: bool,
}

impl Iterator for Watched {
    type Item = lfm2::retrieval::Result<Found>;

    fn next(&mut self) -> Option<Self::Item> {
        let found = self.documents.next();
        self.bar.set_position(self.documents.bytes_read());
        if let Some(Ok(Found::Skipped(skipped))) = &found
            && self.notes
        {
            self.bar.suspend(|| note(skipped));
        }
        found
    }
}

fn note(skipped: &Skipped) {
    let path = skipped.path.display().to_string();
    eprintln!("skipped {}: {}", screen::visible(&path), skipped.reason);
}

/// The line that `--json` writes.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    added: Added,
    seconds: f64,
    index: IndexInfo,
}

/// Adds the files to the library and tells what came of it.
fn fill(
    mut library: Library,
    listing: Listing,
    report: ReportArgs,
    interrupt: &Interrupt,
) -> Result<()> {
    let started = Instant::now();
    let bar = progress::bytes(listing.bytes());
    let watch = interrupt.watch();
    let documents = Watched {
        documents: listing.documents(),
        bar: bar.clone(),
        notes: report.verbose,
    };
    let added = library.add(documents, |added| {
        bar.set_message(format!("{} chunks", format::count(added.chunks as u64)));
        match watch.is_cancelled() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    bar.finish_and_clear();
    let added = added?;
    let seconds = started.elapsed().as_secs_f64();
    let info = library.info();
    if added.stopped {
        eprintln!(
            "stopped after {} chunks; the same command goes on from there",
            added.chunks
        );
        return Err(Stopped.into());
    }
    if info.documents == 0 {
        let text = format!(
            "{}: there is no text in these files",
            library.folder().display()
        );
        return Err(invalid(text));
    }
    if report.json {
        return json_line(&Report {
            added,
            seconds,
            index: info,
        });
    }
    Ok(writeln!(
        io::stdout(),
        "{}",
        summary(&added, &info, seconds)
    )?)
}

/// What became of the files, in one line.
fn summary(added: &Added, info: &IndexInfo, seconds: f64) -> String {
    let count = |number: usize| format::count(number as u64);
    let mut parts = vec![format!("{} new", count(added.new))];
    for (number, what) in [
        (added.changed, "changed"),
        (added.unchanged, "unchanged"),
        (added.empty, "without text"),
    ] {
        if number > 0 {
            parts.push(format!("{} {what}", count(number)));
        }
    }
    let skipped = match added.skipped {
        0 => String::new(),
        number => format!("; {} skipped, see --verbose", count(number)),
    };
    format!(
        "documents: {}{skipped}; {} chunks in {seconds:.1} s; the index has {} chunks",
        parts.join(", "),
        count(added.chunks),
        count(info.documents)
    )
}

fn delete(args: &DeleteArgs) -> Result<()> {
    let mut index = index::open(&args.index, &index::OpenOptions::default())?;
    let counts = delete_documents(&mut *index, &args.documents)?;
    let mut out = io::stdout().lock();
    let mut missing = Vec::new();
    for (document, count) in args.documents.iter().zip(&counts) {
        match count {
            0 => missing.push(document.as_str()),
            count => writeln!(out, "deleted {}, {count} chunks", screen::visible(document))?,
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let what = format!(
        "in {}: document {}",
        args.index.display(),
        missing.join(", ")
    );
    let hint = "documents are known by the path or id that a search shows".to_owned();
    Err(hub::Error::NotFound { what, hint }.into())
}

/// What `info` shows.
#[derive(Debug, Serialize)]
struct Facts {
    model_source: Option<String>,
    chunk_tokens: usize,
    overlap: usize,
    bytes: u64,
    bytes_per_chunk: Option<f64>,
    index: IndexInfo,
}

fn info(args: &IndexInfoArgs) -> Result<()> {
    let card = LibraryCard::read(&args.index)?;
    let index = index::open(&args.index, &index::OpenOptions::default())?.info();
    let bytes = index.vector_bytes + index.record_bytes + index.plaid_bytes;
    let chunks = index.documents;
    let facts = Facts {
        model_source: card.model,
        chunk_tokens: card.chunk_tokens,
        overlap: card.overlap,
        bytes,
        bytes_per_chunk: (chunks > 0).then(|| bytes as f64 / chunks as f64),
        index,
    };
    if args.json {
        return json_pretty(&facts);
    }
    let table = format::table(&rows(&facts));
    screen::print(&table).context("writing")
}

/// The facts as a table.
fn rows(facts: &Facts) -> Vec<Vec<String>> {
    let index = &facts.index;
    let count = |number: usize| format::count(number as u64);
    let engine = match index.engine {
        Engine::Auto if index.plaid_bytes > 0 => "plaid, chosen by size".to_owned(),
        Engine::Auto => "exact, chosen by size".to_owned(),
        Engine::Exact => "exact".to_owned(),
        Engine::Plaid(bits) => format!("plaid, {} bits", Bits::get(bits)),
    };
    let source = facts.model_source.clone();
    let per_chunk = facts
        .bytes_per_chunk
        .map_or("-".to_owned(), |bytes| format::bytes(bytes as u64));
    let rows = [
        (
            "model",
            source.unwrap_or_else(|| "the built-in model".to_owned()),
        ),
        ("backend", engine),
        ("chunks", count(index.documents)),
        (
            "tokens of a chunk",
            format!("{}, {} shared", facts.chunk_tokens, facts.overlap),
        ),
        (
            "vectors",
            format!("{} of {} numbers", count(index.vectors), index.dim),
        ),
        ("size", format::bytes(facts.bytes)),
        ("per chunk", per_chunk),
        ("deleted chunks", count(index.deleted)),
        ("changes", index.generation.to_string()),
    ];
    rows.map(|(name, value)| vec![name.to_owned(), value])
        .into()
}
