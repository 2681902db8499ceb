//! Which dimension of an embedding says what.
//!
//! For pairs of sentences that differ in one property only, each dimension of their embeddings gets
//! a score (EDI, arXiv 2504.14766) from a signed-rank test, mutual information and recursive feature
//! elimination, and regressions on chosen dimensions show what the scores are worth. This crate
//! knows sentences and matrices of numbers; it knows no model.
//!
//! | I want | door |
//! |---|---|
//! | the whole study of some properties | [`Study::run`] |
//! | pairs of sentences from a file | [`PairSet::read`] |
//! | pairs of sentences without a file | [`generate`](generate()) |
//! | one part alone | [`wilcoxon`](wilcoxon()), [`benjamini_hochberg`], [`mutual_information`], [`Sides`], [`edi`](edi()) |
//! | what can be read from each layer | [`LayerStudy::run`] |
//! | tables, pictures and a page to read | [`Study::write`], [`Report`] |
//!
//! ```
//! use std::sync::atomic::AtomicBool;
//!
//! use lfm2_analysis::{PairedEmbeddings, Property, Study, StudyOptions};
//!
//! // Thirty pairs in two dimensions: only the second one tells the sides apart.
//! let first: Vec<f32> = (0..30).flat_map(|pair| [(pair % 7) as f32, 0.1 * (pair % 5) as f32]).collect();
//! let second: Vec<f32> = (0..30).flat_map(|pair| [(pair % 3) as f32, 1.0 + 0.1 * (pair % 4) as f32]).collect();
//! let property = Property::new(PairedEmbeddings::new("tense", &first, &second, 2)?);
//! let study = Study::run(&[property], &StudyOptions::default(), &(), &AtomicBool::new(false))?;
//! assert_eq!(study.properties[0].order, [1, 0]);
//! assert_eq!(study.properties[0].evaluation.baseline, 1.0);
//! # Ok::<(), lfm2_analysis::Error>(())
//! ```

mod adjust;
mod edi;
mod embeddings;
mod error;
mod generate;
mod information;
mod linalg;
mod logistic;
mod pairs;
mod random;
mod report;
mod sides;
mod split;
mod study;
mod wilcoxon;

pub use adjust::{benjamini_hochberg, benjamini_hochberg_ln};
pub use edi::{EdiScores, LogP, edi, minus_ln_p};
pub use embeddings::PairedEmbeddings;
pub use error::{Error, ErrorKind, Result};
pub use generate::{Contrast, generate};
pub use information::{EDGES, Information, mutual_information};
pub use logistic::{Fit, Solver};
pub use pairs::{DropReason, Dropped, Pair, PairSet, Reading};
pub use report::{DimensionShares, Report, ReportInfo};
pub use sides::{Elimination, Sides};
pub use split::{Split, SplitBy};
pub use study::{
    CONTROL, ClassScore, ClassifierStudy, CrossAccuracy, Evaluation, LayerReading, LayerStudy,
    Property, PropertyStudy, Select, Selection, Study, StudyEvent, StudyOptions, StudyProgress,
};
pub use wilcoxon::{Null, SignedRank, wilcoxon};

/// The example of the page on analysis, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/analysis.md")]
pub struct Analysis;
