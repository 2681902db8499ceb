//! Indexes: documents and their vectors on disk, and the search over them.
//!
//! An [`Index`] is a set of documents with an id each, kept with the vectors of their tokens. It is
//! made by [`create`], opened by [`open`], changed through a [writer](Index::writer) and searched with
//! the vectors of a query. What is here stores what it is given: it knows neither text nor models.
//!
//! ```no_run
//! use lfm2_colbert::index::{self, CreateOptions, Document, Index, OpenOptions, SearchOptions, WriteOptions};
//! use lfm2_kernels::MatRef;
//!
//! # fn main() -> Result<(), index::IndexError> {
//! # let (vectors, query) = (vec![0.0; 20 * 128], vec![0.0; 32 * 128]);
//! let mut index = index::create("notes.index".as_ref(), &CreateOptions::new("model id", 128))?;
//! let mut writer = index.writer(&WriteOptions::default())?;
//! writer.put(&Document::new("notes.md#0"), MatRef::new(&vectors, 20, 128)?)?;
//! writer.commit()?;
//! drop(writer);
//! for hit in index.search(MatRef::new(&query, 32, 128)?, &SearchOptions::top(10))? {
//!     println!("{:6.3}  {}", hit.score, hit.document.id);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! | a file of an index | is |
//! |---|---|
//! | `index.json` | the manifest: which files belong to the index, with their checksums |
//! | `segment-*.safetensors` | `vectors` (f16, rows x dim), `row_starts` and `record_starts` (one per document and the end) |
//! | `segment-*.jsonl` | one [`Document`] per line |
//! | `plaid-*/` | the compressed form that large indexes are searched with; made from the segments |
//! | `writer.lock` | held by the process that writes |
//!
//! Data files never change once the manifest names them. A change writes new files and then replaces
//! the manifest, so whatever happens, the index is as before the change or as after it. Several
//! processes may read while one writes; they see the state they opened until they
//! [refresh](Index::refresh). Files are mapped into memory: a program that shortens them can end the
//! readers.

mod document;
mod error;
mod filter;
mod local;
mod maintain;
mod manifest;
mod mapped;
mod options;
#[cfg(feature = "plaid")]
mod plaid;
mod segment;
mod snapshot;
mod writer;

use std::fmt::Debug;
use std::path::Path;

use lfm2_kernels::MatRef;

pub use document::{Document, Hit, Location, StoredVectors};
pub use error::{IndexError, Result};
pub use filter::{Condition, Filter, Test};
pub use local::LocalIndex;
pub use options::{
    Bits, Check, CreateOptions, Duplicates, Engine, IndexInfo, Maintenance, OpenOptions,
    PlaidOptions, Put, Scores, SearchOptions, WriteOptions,
};

/// A set of documents that can be searched by MaxSim.
///
/// The one implementation here is [`LocalIndex`], a folder. The trait asks for nothing that a server
/// of multi-vectors could not do: points with an id, a payload and a matrix, changed in batches.
pub trait Index: Debug + Send + Sync {
    /// Facts about it.
    fn info(&self) -> IndexInfo;

    /// The documents that score highest with `query (rows, dim)`, best first; of equals, the one put
    /// first. There are fewer than asked for when there are fewer documents.
    ///
    /// # Errors
    /// When the query is of another width or has a value that is not finite, or reading fails.
    fn search(&self, query: MatRef<'_, f32>, options: &SearchOptions) -> Result<Vec<Hit>>;

    /// The document of an id.
    ///
    /// # Errors
    /// When reading fails.
    fn document(&self, id: &str) -> Result<Option<Document>>;

    /// The vectors of a document, as they are stored.
    ///
    /// # Errors
    /// When reading fails.
    fn vectors(&self, id: &str) -> Result<Option<StoredVectors>>;

    /// The ids of all documents, in the order of the index.
    ///
    /// # Errors
    /// When reading fails.
    fn ids(&self) -> Result<Vec<String>>;

    /// Begins a change, on the newest state.
    ///
    /// # Errors
    /// [`IndexError::Busy`] while somebody else writes.
    fn writer(&mut self, options: &WriteOptions) -> Result<Box<dyn IndexWriter + '_>>;

    /// Puts right what changes leave behind: drops deleted documents from the files, joins small
    /// files, builds what large indexes are searched with. Says whether there was anything to do.
    ///
    /// Searches are correct without it, only slower. Takes as long as reading everything once, and
    /// for `plaid` some clustering; the memory bound is in the documentation of [`Engine::Plaid`].
    ///
    /// # Errors
    /// As [`writer`](Self::writer), or when reading or writing fails, which leaves the index as it was.
    fn maintain(&mut self, when: Maintenance) -> Result<bool>;

    /// Changes what to search with, from the next [maintenance](Self::maintain) on; without the
    /// compressed form from now on.
    ///
    /// # Errors
    /// As [`writer`](Self::writer), or when the engine cannot hold vectors of this width.
    fn set_engine(&mut self, engine: Engine) -> Result<()>;

    /// Sees what others have committed since; says whether there was anything.
    ///
    /// # Errors
    /// When reading fails, which leaves the state as it was.
    fn refresh(&mut self) -> Result<bool>;
}

/// A change of an [`Index`]: nothing of it is visible before [`commit`](Self::commit), and what is not
/// committed is gone when the writer is dropped.
pub trait IndexWriter: Debug {
    /// Adds a document with its vectors `(rows, dim)`; no rows are fine.
    ///
    /// The vectors go to disk at once: memory holds those of one document, and some 100 bytes for each
    /// document of the index.
    ///
    /// # Errors
    /// [`IndexError::Duplicate`] when the id is there and [`Duplicates::Refuse`] was chosen,
    /// [`IndexError::Dimensions`], [`IndexError::NotFinite`]: the document is left out, and the writer
    /// can go on. When writing fails, it cannot.
    fn put(&mut self, document: &Document, vectors: MatRef<'_, f32>) -> Result<Put>;

    /// Removes a document; `false` when there was none of this id.
    ///
    /// # Errors
    /// When the writer has failed before.
    fn delete(&mut self, id: &str) -> Result<bool>;

    /// Whether a document of this id is there, with all changes so far.
    fn contains(&self, id: &str) -> bool;

    /// Makes all changes since the last commit durable and visible, and gives the number of the new
    /// generation. A long build that commits now and then can go on from there after a kill.
    ///
    /// # Errors
    /// When writing fails; then nothing of the change is visible.
    fn commit(&mut self) -> Result<u64>;
}

/// Makes an empty index in `folder`, which may be new or empty.
///
/// # Errors
/// When there is something in the folder already, or it cannot be written.
pub fn create(folder: &Path, options: &CreateOptions) -> Result<Box<dyn Index>> {
    Ok(Box::new(LocalIndex::create(folder, options)?))
}

/// Opens the index in `folder`.
///
/// # Errors
/// When there is none, it is damaged or of another version, or belongs to another model.
pub fn open(folder: &Path, options: &OpenOptions) -> Result<Box<dyn Index>> {
    Ok(Box::new(LocalIndex::open(folder, options)?))
}

/// Whether `folder` has an index.
pub fn exists(folder: &Path) -> bool {
    folder.join(manifest::FILE).is_file()
}
