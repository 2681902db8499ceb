//! Documents made from numbers, and the obvious way to search them.

use std::collections::BTreeMap;
use std::path::Path;

use half::f16;
use lfm2_colbert::index::{
    self, CreateOptions, Document, Engine, Hit, Index, OpenOptions, SearchOptions, WriteOptions,
};
use lfm2_kernels::MatRef;

pub(crate) const DIM: usize = 8;

/// A small generator, so that failures can be repeated.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// A number in `-1.0..1.0`.
    pub(crate) fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32) / (1 << 23) as f32 - 1.0
    }

    /// Unit vectors, as they are stored: `(rows, dim)`.
    pub(crate) fn vectors(&mut self, rows: usize, dim: usize) -> Vec<f32> {
        let mut values: Vec<f32> = (0..rows * dim).map(|_| self.next()).collect();
        for row in values.chunks_exact_mut(dim) {
            let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            row.iter_mut()
                .for_each(|v| *v = f16::from_f32(*v / length).to_f32());
        }
        values
    }
}

pub(crate) fn view(values: &[f32]) -> MatRef<'_, f32> {
    MatRef::new(values, values.len() / DIM, DIM).unwrap()
}

pub(crate) fn create(folder: &Path, engine: Engine) -> Box<dyn Index> {
    let options = CreateOptions::new("model", DIM).with_engine(engine);
    index::create(folder, &options).unwrap()
}

pub(crate) fn open(folder: &Path) -> Box<dyn Index> {
    index::open(folder, &OpenOptions::default().for_model("model")).unwrap()
}

/// Documents `ids`, each with the vectors that follow from its number.
pub(crate) fn fill(index: &mut dyn Index, ids: impl IntoIterator<Item = usize>) {
    let mut writer = index.writer(&WriteOptions::default()).unwrap();
    for id in ids {
        let (document, vectors) = document(id);
        writer.put(&document, view(&vectors)).unwrap();
    }
    writer.commit().unwrap();
}

/// Document `id` of 0 to 9 vectors, and a field that a third of all share.
pub(crate) fn document(id: usize) -> (Document, Vec<f32>) {
    let vectors = Random(id as u64).vectors(id * 7 % 10, DIM);
    (Document::new(name(id)).with_field("kind", id % 3), vectors)
}

pub(crate) fn name(id: usize) -> String {
    format!("document {id}")
}

/// The best `k` documents of a map from ids to vectors, by the definition of MaxSim.
pub(crate) fn naive(
    query: &[f32],
    documents: &BTreeMap<String, Vec<f32>>,
    k: usize,
) -> Vec<(String, f32)> {
    let score = |vectors: &[f32]| -> f32 {
        if vectors.is_empty() {
            return 0.0;
        }
        let dot = |q: &[f32], d: &[f32]| q.iter().zip(d).map(|(q, d)| q * d).sum::<f32>();
        let best = |q: &[f32]| {
            let products = vectors.chunks_exact(DIM).map(|d| dot(q, d));
            products.fold(f32::NEG_INFINITY, f32::max)
        };
        query.chunks_exact(DIM).map(best).sum()
    };
    let mut all: Vec<_> = documents
        .iter()
        .map(|(id, vectors)| (id.clone(), score(vectors)))
        .collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all.truncate(k);
    all
}

/// Fails unless hits have the expected scores, and every one the score of its own document.
#[track_caller]
pub(crate) fn assert_hits(
    hits: &[Hit],
    query: &[f32],
    documents: &BTreeMap<String, Vec<f32>>,
    k: usize,
) {
    let expected = naive(query, documents, k);
    assert_eq!(hits.len(), expected.len());
    let all: BTreeMap<_, _> = naive(query, documents, usize::MAX).into_iter().collect();
    for (hit, (id, score)) in hits.iter().zip(&expected) {
        assert!(
            (hit.score - score).abs() < 1e-4,
            "expected {id} with {score}, found {} with {}",
            hit.document.id,
            hit.score
        );
        assert!((hit.score - all[&hit.document.id]).abs() < 1e-4);
    }
}

/// Everything in an index.
pub(crate) fn contents(index: &dyn Index) -> BTreeMap<String, Vec<f32>> {
    let content = |id: String| {
        let vectors = index.vectors(&id).unwrap().unwrap();
        assert_eq!(index.document(&id).unwrap().unwrap().id, id);
        (id, vectors.as_slice().to_vec())
    };
    index.ids().unwrap().into_iter().map(content).collect()
}

/// What [`fill`] puts in.
pub(crate) fn expected(ids: impl IntoIterator<Item = usize>) -> BTreeMap<String, Vec<f32>> {
    ids.into_iter()
        .map(|id| (name(id), document(id).1))
        .collect()
}

pub(crate) fn top(k: usize) -> SearchOptions {
    SearchOptions::top(k)
}
