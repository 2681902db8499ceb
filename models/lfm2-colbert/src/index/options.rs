//! Choices a caller has, and what an index says of itself.

use serde::{Deserialize, Serialize};

use super::Filter;

/// What an index is searched with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// [`Exact`](Self::Exact) below 10,000 documents, else [`Plaid`](Self::Plaid) at four bits.
    #[default]
    Auto,
    /// Every vector of every document is looked at.
    Exact,
    /// Clusters of vectors find candidates, compressed vectors narrow them down, and the stored
    /// vectors score those that are left. Documents added since the last
    /// [maintenance](super::Index::maintain) are all looked at.
    ///
    /// Building takes 512 MiB and, for each vector, 40 bytes more than a compressed one has
    /// (8 and `dim` times the bits).
    Plaid(Bits),
}

/// How finely [`Engine::Plaid`] keeps the distance of a vector from its cluster's centre.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bits {
    /// Two bits for each dimension.
    Two,
    /// Four bits for each dimension.
    #[default]
    Four,
}

impl Bits {
    /// The number.
    pub fn get(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }
}

/// How much of the files is read when an index is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Check {
    /// Everything, and compared with the checksums: some 0.2 seconds for each GB that is in memory
    /// already.
    #[default]
    Whole,
    /// The lengths of the files. Damage inside a file then shows as wrong results.
    Lengths,
}

/// How to make an index.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreateOptions {
    /// What the vectors are from: an index is opened for the same only.
    pub model: String,
    /// Values per vector.
    pub dim: usize,
    /// What to search with.
    pub engine: Engine,
}

impl CreateOptions {
    /// An index for vectors of `dim` values from the model with this fingerprint.
    pub fn new(model: impl Into<String>, dim: usize) -> Self {
        Self {
            model: model.into(),
            dim,
            engine: Engine::default(),
        }
    }

    /// Chooses what to search with.
    #[must_use]
    pub fn with_engine(mut self, engine: Engine) -> Self {
        self.engine = engine;
        self
    }
}

/// How to open an index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Refuse an index of another model than this.
    pub model: Option<String>,
    /// How much to read.
    pub check: Check,
}

impl OpenOptions {
    /// Opens only an index of the model with this fingerprint.
    #[must_use]
    pub fn for_model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Chooses how much to read.
    #[must_use]
    pub fn with_check(mut self, check: Check) -> Self {
        self.check = check;
        self
    }
}

/// What to do with a document whose id is in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Duplicates {
    /// Say so.
    #[default]
    Refuse,
    /// Put the new one in the place of the old one.
    Replace,
    /// Leave the old one.
    Keep,
}

/// How to change an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct WriteOptions {
    /// What to do with ids that are there.
    pub duplicates: Duplicates,
}

impl WriteOptions {
    /// Chooses what to do with ids that are there.
    #[must_use]
    pub fn with_duplicates(mut self, duplicates: Duplicates) -> Self {
        self.duplicates = duplicates;
        self
    }
}

/// What became of a document that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is new.
    Added,
    /// It took the place of another one.
    Replaced,
    /// The one that was there stayed.
    Kept,
}

/// When to do what [`Index::maintain`](super::Index::maintain) does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Maintenance {
    /// When there is enough to gain: a fifth of a file's documents deleted, many small files, or a
    /// fifth of the documents not yet in the `plaid` form.
    #[default]
    WhenDue,
    /// When there is anything to gain; `plaid` is built anew.
    Now,
}

/// What the scores of [`Engine::Plaid`] are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scores {
    /// The stored vectors of the best candidates: the scores [`Engine::Exact`] gives.
    #[default]
    Stored,
    /// The compressed vectors.
    Compressed,
}

/// How far [`Engine::Plaid`] looks.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct PlaidOptions {
    /// Clusters looked into for each query row.
    pub probes: usize,
    /// Candidates kept by the centres of their clusters, but at least eight for each document asked for;
    /// a quarter of them is looked at in compressed form.
    pub candidates: usize,
    /// Clusters less similar than this to every query row are left out.
    pub threshold: Option<f32>,
    /// What scores are made from.
    pub scores: Scores,
}

impl Default for PlaidOptions {
    fn default() -> Self {
        Self {
            probes: 8,
            candidates: 1024,
            threshold: None,
            scores: Scores::Stored,
        }
    }
}

/// What to search for.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct SearchOptions {
    /// How many documents.
    pub k: usize,
    /// Only documents that pass this.
    pub filter: Option<Filter>,
    /// How far to look where the index has the `plaid` form.
    pub plaid: PlaidOptions,
}

impl SearchOptions {
    /// The best `k` documents.
    pub fn top(k: usize) -> Self {
        Self {
            k,
            ..Self::default()
        }
    }

    /// Only documents that pass `filter`.
    #[must_use]
    pub fn with_filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }

    /// Chooses how far to look where the index has the `plaid` form.
    #[must_use]
    pub fn with_plaid(mut self, plaid: PlaidOptions) -> Self {
        self.plaid = plaid;
        self
    }
}

/// Facts about an index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct IndexInfo {
    /// What the vectors are from.
    pub model: String,
    /// Values per vector.
    pub dim: usize,
    /// What was chosen to search with.
    pub engine: Engine,
    /// Counts the commits.
    pub generation: u64,
    /// Documents that are there.
    pub documents: usize,
    /// Vectors of these documents.
    pub vectors: usize,
    /// Documents that are deleted, but still take room.
    pub deleted: usize,
    /// Documents that are found through the `plaid` form, deleted ones included.
    pub in_plaid: usize,
    /// Pairs of files that hold vectors and documents.
    pub segments: usize,
    /// Bytes of the stored vectors.
    pub vector_bytes: u64,
    /// Bytes of ids, titles, texts and fields.
    pub record_bytes: u64,
    /// Bytes of the `plaid` form.
    pub plaid_bytes: u64,
}
