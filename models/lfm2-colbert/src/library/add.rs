//! Adding documents to a [`Library`]: only what is new or has changed is encoded.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use lfm2_hub::Error as HubError;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Library, field};
use crate::index::{self, Duplicates, Index, IndexWriter, Location, Maintenance, WriteOptions};
use crate::{Chunk, Chunker, Found, Result, RetrievalModel, TextDocument};

/// Chunks that are encoded together: enough for the model to fill a batch of its own.
const BATCH: usize = 64;
/// How much work a kill may cost.
const COMMIT_AFTER: Duration = Duration::from_secs(20);

/// Bytes of a digest: enough that no two versions of a document have the same.
const DIGEST_BYTES: usize = 12;

/// What became of the documents that were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct Added {
    /// Documents that are new.
    pub new: usize,
    /// Documents that took the place of an older version.
    pub changed: usize,
    /// Documents that were in the library as they are.
    pub unchanged: usize,
    /// Documents without any text.
    pub empty: usize,
    /// Files that are no documents.
    pub skipped: usize,
    /// Chunks that were encoded.
    pub chunks: usize,
    /// Whether the work was stopped before its end.
    pub stopped: bool,
}

impl Library {
    /// Adds documents. One whose id is there already takes its place when it differs, and is passed
    /// over when not.
    ///
    /// Memory holds one batch of chunks, and some 100 bytes for each document. What is done is
    /// committed every 20 seconds; after a kill, or when `go_on` breaks off, the same call again does
    /// the rest.
    ///
    /// # Errors
    /// When reading a document, encoding or writing fails, or an id comes twice. What was done until
    /// then is kept.
    pub fn add(
        &mut self,
        documents: impl IntoIterator<Item = Result<Found>>,
        go_on: impl FnMut(&Added) -> ControlFlow<()>,
    ) -> Result<Added> {
        let known = known(&*self.index)?;
        let options = WriteOptions::default().with_duplicates(Duplicates::Replace);
        let mut adding = Adding {
            model: &self.model,
            chunker: &self.chunker,
            writer: self.index.writer(&options)?,
            known,
            seen: HashSet::new(),
            pending: Vec::new(),
            added: Added::default(),
            committed: Instant::now(),
        };
        let outcome = adding.run(documents, go_on);
        // What is complete is worth keeping, whatever stopped the work.
        adding.writer.commit()?;
        let added = adding.added;
        drop(adding);
        outcome?;
        if !added.stopped {
            self.index.maintain(Maintenance::WhenDue)?;
        }
        Ok(added)
    }
}

/// A document of the index before the change.
#[derive(Debug, Default)]
struct Known {
    digest: String,
    chunks: usize,
}

/// The documents of an index, by name.
fn known(index: &dyn Index) -> Result<HashMap<String, Known>> {
    let mut known: HashMap<String, Known> = HashMap::new();
    for id in index.ids()? {
        let Some((document, number)) = id.rsplit_once('#') else {
            continue;
        };
        let entry = known.entry(document.to_owned()).or_default();
        entry.chunks += 1;
        if number == "0"
            && let Some(first) = index.document(&id)?
            && let Some(Value::String(digest)) = first.fields.get(field::DIGEST)
        {
            entry.digest.clone_from(digest);
        }
    }
    Ok(known)
}

/// A document that waits to be encoded.
struct Pending {
    document: TextDocument,
    digest: String,
    chunks: Vec<Chunk>,
}

/// Adding, while it is going on.
struct Adding<'a> {
    model: &'a RetrievalModel,
    chunker: &'a Chunker,
    writer: Box<dyn IndexWriter + 'a>,
    known: HashMap<String, Known>,
    seen: HashSet<String>,
    pending: Vec<Pending>,
    added: Added,
    committed: Instant,
}

impl Adding<'_> {
    fn run(
        &mut self,
        documents: impl IntoIterator<Item = Result<Found>>,
        mut go_on: impl FnMut(&Added) -> ControlFlow<()>,
    ) -> Result<()> {
        for found in documents {
            match found? {
                Found::Skipped(_) => self.added.skipped += 1,
                Found::Document(document) => self.take(*document)?,
            }
            let waiting: usize = self.pending.iter().map(|p| p.chunks.len()).sum();
            if waiting >= BATCH {
                self.flush(&mut go_on)?;
            }
            self.added.stopped |= go_on(&self.added).is_break();
            if self.added.stopped {
                return Ok(());
            }
        }
        self.flush(&mut go_on)
    }

    /// Cuts a document, unless it is there already.
    fn take(&mut self, document: TextDocument) -> Result<()> {
        if !self.seen.insert(document.id.clone()) {
            let text = format!("document {:?} comes twice", document.id);
            return Err(HubError::InvalidInput(text).into());
        }
        let digest = digest(&document);
        let known = self.known.get(&document.id);
        if known.is_some_and(|known| known.digest == digest) {
            self.added.unchanged += 1;
            return Ok(());
        }
        let chunks = self.chunker.chunks(&document)?;
        self.pending.push(Pending {
            document,
            digest,
            chunks,
        });
        Ok(())
    }

    /// Encodes and writes what is pending.
    fn flush(&mut self, go_on: &mut impl FnMut(&Added) -> ControlFlow<()>) -> Result<()> {
        let pending = std::mem::take(&mut self.pending);
        // The first chunk of a document has its digest and comes last, so that a document is
        // complete when its digest is there.
        let chunks = pending.iter().flat_map(|document| {
            let chunks = document.chunks.iter().rev();
            chunks.map(move |chunk| (document, chunk))
        });
        let chunks: Vec<(&Pending, &Chunk)> = chunks.collect();
        for batch in chunks.chunks(BATCH) {
            let passages: Vec<String> = batch.iter().map(|(_, chunk)| chunk.passage()).collect();
            let vectors = self.model.encode_documents(&passages)?;
            for ((document, chunk), vectors) in batch.iter().zip(&vectors) {
                let is_last = document
                    .chunks
                    .first()
                    .is_some_and(|first| first.id == chunk.id);
                if is_last {
                    self.finish(document)?;
                }
                self.writer.put(&record(document, chunk), vectors.view()?)?;
                self.added.chunks += 1;
                if is_last && self.committed.elapsed() >= COMMIT_AFTER {
                    self.writer.commit()?;
                    self.committed = Instant::now();
                }
            }
            if go_on(&self.added).is_break() {
                self.added.stopped = true;
                return Ok(());
            }
        }
        for document in pending.iter().filter(|document| document.chunks.is_empty()) {
            self.finish(document)?;
        }
        Ok(())
    }

    /// Removes what an older and longer version of the document leaves behind, and counts it.
    fn finish(&mut self, document: &Pending) -> Result<()> {
        let known = self.known.get(&document.document.id);
        let (now, before) = (document.chunks.len(), known.map_or(0, |known| known.chunks));
        for number in now..before {
            self.writer
                .delete(&Chunk::id_of(&document.document.id, number))?;
        }
        match (now, known) {
            (0, _) => self.added.empty += 1,
            (_, Some(_)) => self.added.changed += 1,
            (_, None) => self.added.new += 1,
        }
        Ok(())
    }
}

/// What the index keeps of a chunk.
fn record(of: &Pending, chunk: &Chunk) -> index::Document {
    let location = Location {
        path: of.document.id.clone(),
        start: chunk.bytes.start as u64,
        end: chunk.bytes.end as u64,
    };
    let mut record = index::Document::new(chunk.id.as_str())
        .with_title(chunk.title.as_str())
        .with_text(chunk.text.as_str())
        .with_location(location);
    record.fields.clone_from(&of.document.fields);
    let own = [
        (field::HEADING, Value::from(chunk.heading.as_str())),
        (field::LINE, Value::from(chunk.line)),
        (field::DIGEST, Value::from(of.digest.as_str())),
    ];
    record
        .fields
        .extend(own.map(|(name, value)| (name.to_owned(), value)));
    record
}

/// A short name for everything a document says.
fn digest(document: &TextDocument) -> String {
    let fields = Value::Object(document.fields.clone()).to_string();
    let mut hash = Sha256::new();
    for part in [&document.title, &document.text, &fields] {
        // With lengths in between, no two documents read as the same bytes.
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    digest
        .iter()
        .take(DIGEST_BYTES)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
