//! What is kept of a document beside its vectors.

use lfm2_kernels::{MatRef, ShapeError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::prune::kept_values;

/// A document of an index: whatever one wants to see of a hit, and filter by.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Document {
    /// A name that no other document of the index has.
    pub id: String,
    /// A title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Where the text is from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// The text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Anything else, for a [`Filter`](super::Filter).
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
}

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Location {
    /// The file, as it was named.
    pub path: String,
    /// The first byte.
    pub start: u64,
    /// The byte after the last one.
    pub end: u64,
}

impl Document {
    /// A document with an id and nothing else.
    pub fn new(id: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            ..Self::default()
        }
    }

    /// Adds a title.
    #[must_use]
    pub fn with_title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// Says where the text is from.
    #[must_use]
    pub fn with_location(mut self, location: Location) -> Self {
        self.location = Some(location);
        self
    }

    /// Adds the text.
    #[must_use]
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }

    /// Adds a field.
    #[must_use]
    pub fn with_field(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.fields.insert(name.into(), value.into());
        self
    }
}

/// A document that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// MaxSim with the query: comparable between documents, not between queries.
    pub score: f32,
    /// What is kept of it.
    pub document: Document,
}

/// Vectors as an index keeps them, widened: `(rows, dim)`.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredVectors {
    pub(super) values: Vec<f32>,
    pub(super) dim: usize,
}

impl StoredVectors {
    /// How many.
    pub fn rows(&self) -> usize {
        self.values.len() / self.dim.max(1)
    }

    /// Values per vector.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All values, row after row.
    pub fn as_slice(&self) -> &[f32] {
        &self.values
    }

    /// The same vectors with the numbers of some dimensions only, see
    /// [`TokenVectors::keep_dimensions`](crate::TokenVectors::keep_dimensions).
    ///
    /// # Errors
    /// As there.
    pub fn keep_dimensions(&self, kept: &[usize]) -> crate::Result<Self> {
        Ok(Self {
            values: kept_values(&self.values, self.dim, kept)?,
            dim: kept.len(),
        })
    }

    /// A view `(rows, dim)`.
    ///
    /// # Errors
    /// Never, since the values are whole rows.
    pub fn view(&self) -> Result<MatRef<'_, f32>, ShapeError> {
        MatRef::new(&self.values, self.rows(), self.dim)
    }
}
