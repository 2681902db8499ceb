//! [`Library`]: texts that can be searched.
//!
//! A model, an index of what it made of the texts, and the rule by which texts become chunks. What
//! is kept of a chunk is its text, so that hits can be shown when the files are gone.

mod add;
mod card;
mod encode;
mod explain;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::index::{
    self, CreateOptions, Engine, Hit, Index, IndexInfo, SearchOptions, WriteOptions,
};
use crate::{
    ChunkOptions, Chunker, Error, Listing, ReadOptions, Result, RetrievalModel, TokenVectors,
};

pub use add::Added;
pub use card::LibraryCard;
pub use explain::Meeting;

/// Tokens of a chunk where nobody says otherwise and the model reads as many.
const CHUNK_TOKENS: usize = 256;
/// The part of a chunk that it shares with the next one where nobody says otherwise.
const OVERLAP_SHARE: usize = 8;

/// Names of the fields that a library keeps with every chunk.
mod field {
    pub(super) const HEADING: &str = "heading";
    pub(super) const LINE: &str = "line";
    pub(super) const DIGEST: &str = "digest";
}

/// How to make a library.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct LibraryOptions {
    /// What to search with.
    pub engine: Engine,
    /// Tokens of a chunk; by default 256, or fewer where the model reads fewer.
    pub chunk_tokens: Option<usize>,
    /// Tokens that neighbouring chunks share, about; by default an eighth of a chunk.
    pub overlap: Option<usize>,
    /// Where the model can be found again, for people and programs that open the library later.
    pub source: Option<String>,
}

impl LibraryOptions {
    /// Chooses what to search with.
    pub fn with_engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }

    /// Says where the model can be found again.
    pub fn with_source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// How a model's texts are cut.
    fn chunks(&self, model: &RetrievalModel) -> Result<ChunkOptions> {
        let most = model.document_tokens()?;
        let tokens = self.chunk_tokens.unwrap_or(CHUNK_TOKENS.min(most));
        if tokens > most {
            let text = format!(
                "chunk tokens: expected at most {most}, which is what the model reads, found {tokens}"
            );
            return Err(Error::input(text));
        }
        let overlap = self.overlap.unwrap_or(tokens / OVERLAP_SHARE);
        Ok(ChunkOptions::default()
            .with_max_tokens(tokens)
            .with_overlap(overlap))
    }
}

/// Texts that can be searched by meaning: a folder with an [`Index`], and the model it was made with.
///
/// Several programs may search a library while one adds to it.
#[derive(Debug)]
pub struct Library {
    model: RetrievalModel,
    index: Box<dyn Index>,
    chunker: Chunker,
    folder: PathBuf,
}

impl Library {
    /// Makes an empty library in `folder`, which may be new or empty.
    ///
    /// # Errors
    /// When there is something in the folder already, it cannot be written, or the options ask for
    /// chunks that are too small for anything or longer than the model reads.
    pub fn create(
        folder: impl AsRef<Path>,
        model: RetrievalModel,
        options: &LibraryOptions,
    ) -> Result<Self> {
        let folder = folder.as_ref();
        let chunks = options.chunks(&model)?;
        let chunker = Chunker::new(model.tokenizer().clone(), chunks)?;
        if LibraryCard::exists(folder) {
            return Err(is_taken(folder));
        }
        let index = if index::exists(folder) {
            unfinished(folder, &model, options.engine)?
        } else {
            let create = CreateOptions::new(model.id().as_str(), model.dim());
            index::create(folder, &create.with_engine(options.engine))?
        };
        LibraryCard::new(options.source.clone(), chunks).write(folder)?;
        Ok(Self {
            model,
            index,
            chunker,
            folder: folder.to_path_buf(),
        })
    }

    /// Opens a library.
    ///
    /// # Errors
    /// When there is none, it is damaged, or it was made with another model.
    pub fn open(folder: impl AsRef<Path>, model: RetrievalModel) -> Result<Self> {
        let folder = folder.as_ref();
        let card = LibraryCard::read(folder)?;
        let options = index::OpenOptions::default().for_model(model.id().as_str());
        let index = index::open(folder, &options)?;
        let chunker = Chunker::new(model.tokenizer().clone(), card.chunks())?;
        Ok(Self {
            model,
            index,
            chunker,
            folder: folder.to_path_buf(),
        })
    }

    /// The chunks that answer a question best, best first.
    ///
    /// # Errors
    /// When the question is blank, or reading the index fails.
    pub fn search(&self, question: &str, options: &SearchOptions) -> Result<Vec<Answer>> {
        let query = self.encode(question)?;
        self.search_vectors(&query, options)
    }

    /// The vectors of a question.
    ///
    /// # Errors
    /// When the question is blank.
    pub fn encode(&self, question: &str) -> Result<TokenVectors> {
        if question.trim().is_empty() {
            return Err(Error::input("the question is empty"));
        }
        self.model.encode_query(question)
    }

    /// [`search`](Self::search) for a question that was [encoded](Self::encode).
    ///
    /// # Errors
    /// When reading the index fails.
    pub fn search_vectors(
        &self,
        query: &TokenVectors,
        options: &SearchOptions,
    ) -> Result<Vec<Answer>> {
        let hits = self.index.search(query.view()?, options)?;
        Ok(hits.into_iter().map(Answer::from).collect())
    }

    /// Adds files, and all files below folders: a [`Listing`] with the usual limits, which leaves out
    /// what is no text, for [`add`](Self::add).
    ///
    /// # Errors
    /// As [`Listing::new`] and [`add`](Self::add).
    pub fn add_files(&mut self, paths: &[impl AsRef<Path>]) -> Result<Added> {
        let options = ReadOptions::default().without(&self.folder);
        let documents = Listing::new(paths, &options)?.documents();
        self.add(documents, |_| ControlFlow::Continue(()))
    }

    /// Removes documents; says how many chunks each had.
    ///
    /// # Errors
    /// When somebody else is writing, or writing fails.
    pub fn delete(&mut self, documents: &[impl AsRef<str>]) -> Result<Vec<usize>> {
        delete(&mut *self.index, documents)
    }

    /// The model.
    pub fn model(&self) -> &RetrievalModel {
        &self.model
    }

    /// The index.
    pub fn index(&self) -> &dyn Index {
        &*self.index
    }

    /// Facts about the index.
    pub fn info(&self) -> IndexInfo {
        self.index.info()
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Sees what other programs have added since; says whether there was anything.
    ///
    /// # Errors
    /// When reading fails.
    pub fn refresh(&mut self) -> Result<bool> {
        Ok(self.index.refresh()?)
    }
}

/// The empty index of a library whose creation was interrupted before its card was written.
fn unfinished(folder: &Path, model: &RetrievalModel, engine: Engine) -> Result<Box<dyn Index>> {
    let options = index::OpenOptions::default().for_model(model.id().as_str());
    let index = index::open(folder, &options)?;
    let info = index.info();
    if info.documents > 0 || info.engine != engine {
        return Err(is_taken(folder));
    }
    Ok(index)
}

fn is_taken(folder: &Path) -> Error {
    Error::input(format!("{}: there is an index already", folder.display()))
}

/// Removes documents from the index of a library, which takes no model; says how many chunks each had.
///
/// # Errors
/// When somebody else is writing, or writing fails.
pub fn delete(index: &mut dyn Index, documents: &[impl AsRef<str>]) -> Result<Vec<usize>> {
    let mut counts = vec![0; documents.len()];
    let places: HashMap<&str, usize> = documents.iter().map(AsRef::as_ref).zip(0..).collect();
    let ids = index.ids()?;
    let mut writer = index.writer(&WriteOptions::default())?;
    for id in &ids {
        let document = id.rsplit_once('#').map(|(document, _)| document);
        let count = document.and_then(|document| counts.get_mut(*places.get(document)?));
        if let Some(count) = count
            && writer.delete(id)?
        {
            *count += 1;
        }
    }
    if counts.iter().any(|count| *count > 0) {
        writer.commit()?;
    }
    Ok(counts)
}

/// A chunk that was found.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// How well it answers: comparable between answers to one question.
    pub score: f32,
    /// The chunk's name.
    pub id: String,
    /// The document's name: a path, or the id of a line.
    pub document: String,
    /// The document's title.
    pub title: String,
    /// The headings above the chunk.
    pub heading: String,
    /// The chunk.
    pub text: String,
    /// The line of the document on which the chunk begins, from 1.
    pub line: Option<u64>,
    /// What else the document's JSON line said.
    pub fields: Map<String, Value>,
}

impl From<Hit> for Answer {
    fn from(hit: Hit) -> Self {
        let found = hit.document;
        let mut fields = found.fields;
        let mut take = |name: &str| match fields.shift_remove(name) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let heading = take(field::HEADING);
        take(field::DIGEST);
        let line = fields.shift_remove(field::LINE);
        Self {
            score: hit.score,
            document: match found.location {
                Some(location) => location.path,
                None => found.id.clone(),
            },
            id: found.id,
            title: found.title.unwrap_or_default(),
            heading,
            text: found.text.unwrap_or_default(),
            line: line.as_ref().and_then(Value::as_u64),
            fields,
        }
    }
}

impl Answer {
    /// What the model read: title, headings and text.
    pub fn passage(&self) -> String {
        crate::chunk::passage(&self.title, &self.heading, &self.text)
    }
}
