//! `lfm2 eval retrieval`: a judged collection, searched in several ways.

mod measure;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lfm2::retrieval::index::{
    self, CreateOptions, Document, Index, Maintenance, OpenOptions, WriteOptions,
};
use lfm2::retrieval::{Bm25, Collection, Engine, Query, RetrievalModel, TokenVectors};
use serde::Serialize;

use crate::args::{Backend, RetrievalArgs};
use crate::exit::{Stopped, invalid};
use crate::ui::interrupt::{Interrupt, Watch};
use crate::ui::{format, json_line, open, progress, screen};
use measure::{Latency, Row, Run};

/// Documents that are encoded together.
const BATCH: usize = 64;
/// How much work a kill may cost where the index is kept.
const COMMIT_AFTER: Duration = Duration::from_secs(20);

/// Everything that was measured.
#[derive(Debug, Serialize)]
struct Report {
    documents: usize,
    queries: usize,
    /// What one has to know to read the figures.
    notes: Vec<String>,
    vectors_per_document: f64,
    /// Seconds it took to encode the documents; none where they were there already.
    encoding_seconds: Option<f64>,
    reading_a_question: Latency,
    rows: Vec<Row>,
}

pub(crate) fn run(args: &RetrievalArgs) -> Result<()> {
    let collection = Collection::open(&args.data)?;
    let limit = args.limit.map_or(usize::MAX, usize::from);
    let queries: Vec<&Query> = collection.judged_queries().take(limit).collect();
    let interrupt = Interrupt::install()?;
    let (model, _) = open::retrieval_model(&args.model, None)?;
    let watch = interrupt.watch();
    let temporary = tempfile::tempdir().context("making a folder for the index")?;
    let folder = match &args.keep {
        Some(folder) => folder.clone(),
        None => temporary.path().join("exact"),
    };
    let (exact, encoding_seconds) = encode(&collection, &model, &folder, &watch)?;
    let info = exact.info();

    let mut reading = Vec::with_capacity(queries.len());
    let mut vectors = Vec::with_capacity(queries.len());
    for query in &queries {
        let started = Instant::now();
        vectors.push(model.encode_query(&query.text)?);
        reading.push(started.elapsed());
    }
    let judged = Judged {
        collection: &collection,
        queries: &queries,
        vectors: &vectors,
        reading: &reading,
        watch: &watch,
    };
    let truth = judged.search(&*exact)?;
    let mut rows = vec![truth.row("exact", index_bytes(&*exact), None)];
    let mut notes = Vec::new();
    if collection.missing_documents() > 0 {
        let count = collection.missing_documents();
        notes.push(format!(
            "{count} relevant documents are not in the collection and cannot be found"
        ));
    }
    if args.index == Backend::Plaid {
        let bits = args.bits.unwrap_or_default();
        let folder = temporary.path().join("plaid");
        let plaid = compress(&*exact, &folder, Engine::Plaid(bits), &watch)?;
        let found = judged.search(&*plaid)?;
        let name = format!("plaid, {} bits", bits.get());
        if plaid.info().in_plaid == 0 {
            notes.push(
                "the collection is too small to be compressed: plaid looks at everything"
                    .to_owned(),
            );
        }
        rows.push(found.row(&name, index_bytes(&*plaid), Some(&truth)));
    }
    rows.push(judged.words()?.row("BM25", None, None));
    let report = Report {
        documents: collection.documents.len(),
        queries: queries.len(),
        notes,
        vectors_per_document: info.vectors as f64 / info.documents.max(1) as f64,
        encoding_seconds,
        reading_a_question: Latency::of(&reading),
        rows,
    };
    match args.json {
        true => json_line(&report),
        false => Ok(screen::print(&text(&report))?),
    }
}

/// Encodes the documents into the exact index in `folder`; those that are there already stay. Seconds it
/// took, if there was something to do.
pub(in crate::commands) fn encode(
    collection: &Collection,
    model: &RetrievalModel,
    folder: &Path,
    watch: &Watch,
) -> Result<(Box<dyn Index>, Option<f64>)> {
    let mut index = match index::exists(folder) {
        true => index::open(
            folder,
            &OpenOptions::default().for_model(model.id().as_str()),
        )?,
        false => {
            let options = CreateOptions::new(model.id().as_str(), model.dim());
            index::create(folder, &options.with_engine(Engine::Exact))?
        }
    };
    let mut writer = index.writer(&WriteOptions::default())?;
    let documents = collection.documents.iter();
    let new: Vec<_> = documents
        .filter(|document| !writer.contains(&document.id))
        .collect();
    let bar = progress::bar(new.len() as u64, "documents");
    let started = Instant::now();
    let mut committed = Instant::now();
    for batch in new.chunks(BATCH) {
        let texts: Vec<String> = batch.iter().map(|document| document.full_text()).collect();
        for (document, vectors) in batch.iter().zip(model.encode_documents(&texts)?) {
            writer.put(&Document::new(document.id.as_str()), vectors.view()?)?;
        }
        bar.inc(batch.len() as u64);
        let is_stopped = watch.is_cancelled();
        if is_stopped || committed.elapsed() >= COMMIT_AFTER {
            writer.commit()?;
            committed = Instant::now();
        }
        if is_stopped {
            return Err(Stopped.into());
        }
    }
    writer.commit()?;
    bar.finish_and_clear();
    drop(writer);
    let seconds = started.elapsed().as_secs_f64();
    let (expected, found) = (collection.documents.len(), index.info().documents);
    if found != expected {
        let text = format!(
            "{}: expected the {expected} documents of the collection, found {found}",
            folder.display()
        );
        return Err(invalid(text));
    }
    Ok((index, (!new.is_empty()).then_some(seconds)))
}

/// The same documents in an index with another engine.
fn compress(
    exact: &dyn Index,
    folder: &Path,
    engine: Engine,
    watch: &Watch,
) -> Result<Box<dyn Index>> {
    let info = exact.info();
    let options = CreateOptions::new(info.model, info.dim).with_engine(engine);
    let mut index = index::create(folder, &options)?;
    let mut writer = index.writer(&WriteOptions::default())?;
    for id in exact.ids()? {
        let vectors = exact.vectors(&id)?.context("a document without vectors")?;
        let view = vectors.view().map_err(index::IndexError::from)?;
        writer.put(&Document::new(id), view)?;
        if watch.is_cancelled() {
            return Err(Stopped.into());
        }
    }
    writer.commit()?;
    drop(writer);
    index.maintain(Maintenance::Now)?;
    Ok(index)
}

/// What an index takes to be searched: the compressed form where there is one, else the vectors.
fn index_bytes(index: &dyn Index) -> Option<u64> {
    let info = index.info();
    Some(match info.plaid_bytes {
        0 => info.vector_bytes,
        bytes => bytes,
    })
}

/// The questions of a collection, and what a model makes of them.
struct Judged<'a> {
    collection: &'a Collection,
    queries: &'a [&'a Query],
    vectors: &'a [TokenVectors],
    reading: &'a [Duration],
    watch: &'a Watch,
}

impl Judged<'_> {
    /// Asks an index.
    fn search(&self, index: &dyn Index) -> Result<Run<'_>> {
        let mut run = Run::new(self.collection);
        let bar = progress::bar(self.queries.len() as u64, "questions");
        let questions = self.queries.iter().zip(self.vectors).zip(self.reading);
        for ((query, vectors), reading) in questions {
            run.ask(query, *reading, |k| {
                let hits = index.search(vectors.view()?, &index::SearchOptions::top(k))?;
                Ok(hits.into_iter().map(|hit| hit.document.id).collect())
            })?;
            bar.inc(1);
            if self.watch.is_cancelled() {
                return Err(Stopped.into());
            }
        }
        bar.finish_and_clear();
        Ok(run)
    }

    /// Compares words.
    fn words(&self) -> Result<Run<'_>> {
        let documents = &self.collection.documents;
        let words = Bm25::new(documents.iter().map(|document| document.full_text()));
        let mut run = Run::new(self.collection);
        for query in self.queries {
            let id = |place: usize| documents.get(place).map(|document| document.id.clone());
            run.ask(query, Duration::ZERO, |k| {
                let found = words.search(&query.text, k).into_iter();
                Ok(found.filter_map(|(place, _)| id(place)).collect())
            })?;
        }
        Ok(run)
    }
}

/// The report for people.
fn text(report: &Report) -> String {
    let head = [
        "",
        "nDCG@10",
        "MRR@10",
        "MAP@100",
        "recall@10",
        "recall@100",
        "agreement",
        "p50 ms",
        "p95 ms",
        "questions/s",
        "bytes/document",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(report.rows.iter().map(|row| row.cells(report.documents)));
    let mut text = format!(
        "{} documents of {:.1} vectors, {} questions\n\n{}",
        format::count(report.documents as u64),
        report.vectors_per_document,
        format::count(report.queries as u64),
        format::table(&rows)
    );
    let reading = &report.reading_a_question;
    text.push_str(&format!(
        "\nreading a question takes {:.2} ms (p95 {:.2} ms), which is part of the times above but BM25's\n",
        reading.p50_ms, reading.p95_ms
    ));
    if let Some(seconds) = report.encoding_seconds {
        let speed = report.documents as f64 / seconds;
        text.push_str(&format!(
            "documents were read in {seconds:.1} s, {speed:.1} per second\n"
        ));
    }
    for note in &report.notes {
        text.push_str(&format!("{note}\n"));
    }
    text
}
