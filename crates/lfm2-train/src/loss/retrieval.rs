//! MaxSim between packed texts as one operation with its gradient in closed form, and the losses of
//! late interaction on top of it.
//!
//! The score of a document for a query is the sum over the query's rows of the largest dot product
//! with a row of the document. Only the rows that won have a gradient, so none of the products is
//! kept: the operation remembers which row won and nothing else.

use std::sync::OnceLock;

use candle_core::{CpuStorage, CustomOp2, DType, Error, Layout, Result, Shape, Tensor, bail};
use lfm2_kernels::{Isa, MatMut, MatRef, matmul};

use super::number::{Number, log_sum_exp, slice};
use super::rows::{RowLoss, apply};
use super::{Target, next_token};

/// Which rows of a packed matrix belong to which text, and which of them count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextRows {
    /// Where the rows of each text begin, and at last where they end.
    borders: Vec<usize>,
    counted: Vec<bool>,
}

impl TextRows {
    /// Texts of `lens` rows, all of which count.
    pub fn new(lens: &[usize]) -> Self {
        let mut borders = vec![0];
        let mut end = 0;
        for len in lens {
            end += len;
            borders.push(end);
        }
        Self {
            borders,
            counted: vec![true; end],
        }
    }

    /// Lets only the rows with `true` count: queries leave the others out of the sum, documents out
    /// of the maximum.
    ///
    /// # Errors
    /// When there is not one flag per row.
    pub fn counting(mut self, counted: Vec<bool>) -> Result<Self> {
        if counted.len() != self.rows() {
            bail!("{} flags for {} rows", counted.len(), self.rows());
        }
        self.counted = counted;
        Ok(self)
    }

    /// The number of texts.
    pub fn texts(&self) -> usize {
        self.borders.len() - 1
    }

    /// The number of rows of all texts together.
    pub fn rows(&self) -> usize {
        self.counted.len()
    }

    fn of(&self, text: usize) -> std::ops::Range<usize> {
        self.borders[text]..self.borders[text + 1]
    }
}

/// Which documents a query is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// With all of them; scores are `(queries, documents)`.
    All,
    /// With its own: query `i` of `n` with the `i`-th of `n` equal parts of the documents; scores are
    /// `(queries, documents / queries)`.
    Own,
}

/// What becomes of document rows that do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Uncounted {
    /// They are left out of the maximum; a document without any other row scores 0.
    #[default]
    LeftOut,
    /// Their similarity is 0 and takes part in the maximum, as in `PyLate`: a row that is unlike all of
    /// the document gives 0 instead of a negative number. For comparison only.
    Zero,
}

/// MaxSim of packed queries `(rows, dim)` with packed documents `(rows, dim)`, both `f32` or `f64` on
/// the CPU; the shape of the scores is said by `pairing`.
///
/// # Errors
/// When rows and texts disagree, the types differ, or documents do not divide among the queries.
pub fn max_sim(
    (queries, query_rows): (&Tensor, &TextRows),
    (documents, document_rows): (&Tensor, &TextRows),
    pairing: Pairing,
    uncounted: Uncounted,
) -> Result<Tensor> {
    let dim = queries.dim(1)?;
    for (what, tensor, rows) in [
        ("queries", queries, query_rows),
        ("documents", documents, document_rows),
    ] {
        if tensor.dims2()? != (rows.rows(), dim) {
            let found = tensor.dims();
            bail!(
                "{what}: expected ({}, {dim}) values, found {found:?}",
                rows.rows()
            );
        }
    }
    let (count, texts) = (query_rows.texts(), document_rows.texts());
    if pairing == Pairing::Own && (count == 0 || !texts.is_multiple_of(count)) {
        bail!("{texts} documents do not divide among {count} queries");
    }
    let op = MaxSim {
        queries: query_rows.clone(),
        documents: document_rows.clone(),
        dim,
        pairing,
        uncounted,
        winners: OnceLock::new(),
    };
    queries
        .contiguous()?
        .apply_op2(&documents.contiguous()?, op)
}

/// The column of each query's own document where there are `per_query` documents for every query,
/// the own one first.
pub fn positives(queries: usize, per_query: usize) -> Vec<usize> {
    (0..queries).map(|query| query * per_query).collect()
}

/// Cross-entropy of choosing the own document among all: `scores (queries, documents)`, divided by
/// `temperature`, with the right one of query `i` in column `positives[i]`. The sum over the queries is
/// divided by `divisor`.
///
/// # Errors
/// When there is not one positive per query, or one is no column.
pub fn contrastive(
    scores: &Tensor,
    positives: &[usize],
    temperature: f64,
    divisor: f64,
) -> Result<Tensor> {
    let target = |&column: &usize| u32::try_from(column).map(Target::new);
    let targets: std::result::Result<Vec<Target>, _> = positives.iter().map(target).collect();
    let targets = targets.map_err(Error::wrap)?;
    next_token(&(scores / temperature)?, &targets, divisor)
}

/// How the scores of a student are brought to the size of a teacher's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scaling {
    /// Each query's scores are stretched to 0 to 1.
    MinMax,
    /// They are divided by a temperature.
    Temperature(f64),
}

/// Added to the spread of a query's scores before it divides.
const MIN_MAX_EPS: f64 = 1e-8;

/// Divergence of the student's choice of documents from the teacher's: the sum over queries of
/// `KL(softmax(teacher) || softmax(scaled scores))`, each times its weight, divided by `divisor`.
///
/// * `scores`: `(queries, documents)`, `f32` or `f64`.
/// * `teacher`: as many scores of the teacher, row by row.
/// * `weights`: one per query.
///
/// # Errors
/// When the numbers of scores or weights disagree.
pub fn distillation(
    scores: &Tensor,
    teacher: &[f64],
    weights: &[f64],
    scaling: Scaling,
    divisor: f64,
) -> Result<Tensor> {
    let (queries, documents) = scores.dims2()?;
    if teacher.len() != queries * documents || weights.len() != queries {
        bail!(
            "{} teacher scores and {} weights for ({queries}, {documents}) scores",
            teacher.len(),
            weights.len()
        );
    }
    let factor = if divisor == 0.0 { 0.0 } else { 1.0 / divisor };
    let loss = Distillation {
        log_teacher: teacher.chunks(documents.max(1)).map(log_softmax).collect(),
        factors: weights.iter().map(|w| w * factor).collect(),
        scaling,
    };
    apply(scores, loss, &[queries])?.squeeze(0)
}

/// The place of each query's own document, from 1, when its documents are sorted by falling scores;
/// equal ones by their column.
///
/// # Errors
/// When there is not one positive per query, or one is no column.
pub fn ranks(scores: &Tensor, positives: &[usize]) -> Result<Vec<usize>> {
    let rows = scores.to_dtype(DType::F64)?.to_vec2::<f64>()?;
    if rows.len() != positives.len() {
        bail!("{} positives for {} queries", positives.len(), rows.len());
    }
    let rank = |(row, &own): (&Vec<f64>, &usize)| {
        let Some(&score) = row.get(own) else {
            bail!("column {own} of {}", row.len())
        };
        let better = |&(column, &other): &(usize, &f64)| {
            other > score || (other == score && column < own) || score.is_nan()
        };
        Ok(1 + row.iter().enumerate().filter(better).count())
    };
    rows.iter().zip(positives).map(rank).collect()
}

/// Stands for a row of a query that no row of a document met.
const NOBODY: u32 = u32::MAX;

struct MaxSim {
    queries: TextRows,
    documents: TextRows,
    dim: usize,
    pairing: Pairing,
    uncounted: Uncounted,
    /// For every query row and every document it is compared with, the winning document row. Known
    /// after the forward pass.
    winners: OnceLock<Vec<u32>>,
}

impl MaxSim {
    /// The documents that query `query` is compared with.
    fn opponents(&self, query: usize) -> std::ops::Range<usize> {
        match self.pairing {
            Pairing::All => 0..self.documents.texts(),
            Pairing::Own => {
                let own = self.documents.texts() / self.queries.texts();
                query * own..(query + 1) * own
            }
        }
    }

    fn shape(&self) -> (usize, usize) {
        (self.queries.texts(), self.opponents(0).len())
    }

    fn forward<T: Real>(&self, queries: &[T], documents: &[T]) -> Result<Vec<T>> {
        let (dim, mut scores, mut winners) = (self.dim, Vec::new(), Vec::new());
        let mut products = Vec::new();
        for query in 0..self.queries.texts() {
            let (rows, texts) = (self.queries.of(query), self.opponents(query));
            let columns = self.documents.borders[texts.start]..self.documents.borders[texts.end];
            products.clear();
            products.resize(rows.len() * columns.len(), T::from_f64(0.0));
            let own = &queries[rows.start * dim..rows.end * dim];
            let theirs = &documents[columns.start * dim..columns.end * dim];
            T::products(own, theirs, dim, &mut products)?;
            for text in texts {
                let mut score = 0.0;
                for (i, row) in rows.clone().enumerate() {
                    let products = &products[i * columns.len()..(i + 1) * columns.len()];
                    let (best, winner) = self.best(products, columns.start, text);
                    let counts = self.queries.counted[row];
                    score += if counts { best } else { 0.0 };
                    winners.push(if counts { winner } else { NOBODY });
                }
                scores.push(T::from_f64(score));
            }
        }
        // A second forward pass would find the same.
        let _ = self.winners.set(winners);
        Ok(scores)
    }

    /// The largest product with a row of document `text`, the first of equals; `products` begins with
    /// the document row `first`. What is not a number wins.
    fn best<T: Real>(&self, products: &[T], first: usize, text: usize) -> (f64, u32) {
        let (mut best, mut winner) = (f64::NEG_INFINITY, NOBODY);
        for row in self.documents.of(text) {
            let counts = self.documents.counted[row];
            let product = match (counts, self.uncounted) {
                (true, _) => products[row - first].to_f64(),
                (false, Uncounted::Zero) => 0.0,
                (false, Uncounted::LeftOut) => continue,
            };
            if product > best || (product.is_nan() && !best.is_nan()) {
                best = product;
                winner = if counts { row as u32 } else { NOBODY };
            }
        }
        if best == f64::NEG_INFINITY {
            best = 0.0;
        }
        (best, winner)
    }

    /// The gradients of both operands, given that of the scores.
    fn gradients<T: Real>(
        &self,
        queries: &[T],
        documents: &[T],
        upstream: &[T],
    ) -> Result<[Vec<T>; 2]> {
        let Some(winners) = self.winners.get() else {
            bail!("the backward pass of MaxSim came before the forward pass")
        };
        let dim = self.dim;
        let mut ours = vec![T::from_f64(0.0); queries.len()];
        let mut theirs = vec![T::from_f64(0.0); documents.len()];
        let (mut pairs, mut winners) = (upstream.iter(), winners.iter());
        for query in 0..self.queries.texts() {
            for (_, &gradient) in self.opponents(query).zip(&mut pairs) {
                for (row, &winner) in self.queries.of(query).zip(&mut winners) {
                    if winner == NOBODY {
                        continue;
                    }
                    let (q, d) = (row * dim, winner as usize * dim);
                    add_scaled(&mut ours[q..q + dim], &documents[d..d + dim], gradient);
                    add_scaled(&mut theirs[d..d + dim], &queries[q..q + dim], gradient);
                }
            }
        }
        Ok([ours, theirs])
    }

    fn backward<T: Real>(
        &self,
        queries: &Tensor,
        documents: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let values = |t: &Tensor| t.flatten_all()?.to_vec1::<T>();
        let upstream = values(upstream)?;
        let [ours, theirs] = self.gradients(&values(queries)?, &values(documents)?, &upstream)?;
        let like = |values, t: &Tensor| Tensor::from_vec(values, t.shape(), t.device()).map(Some);
        Ok((like(ours, queries)?, like(theirs, documents)?))
    }
}

impl CustomOp2 for MaxSim {
    fn name(&self) -> &'static str {
        "max-sim"
    }

    fn cpu_fwd(
        &self,
        queries: &CpuStorage,
        query_layout: &Layout,
        documents: &CpuStorage,
        document_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let scores = match (queries, documents) {
            (CpuStorage::F32(q), CpuStorage::F32(d)) => {
                CpuStorage::F32(self.forward(slice(q, query_layout)?, slice(d, document_layout)?)?)
            }
            (CpuStorage::F64(q), CpuStorage::F64(d)) => {
                CpuStorage::F64(self.forward(slice(q, query_layout)?, slice(d, document_layout)?)?)
            }
            _ => bail!("MaxSim needs f32 or f64 values, the same for both"),
        };
        Ok((scores, Shape::from(self.shape())))
    }

    fn bwd(
        &self,
        queries: &Tensor,
        documents: &Tensor,
        _scores: &Tensor,
        upstream: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        match queries.dtype() {
            DType::F64 => self.backward::<f64>(queries, documents, upstream),
            _ => self.backward::<f32>(queries, documents, upstream),
        }
    }
}

struct Distillation {
    /// Per query, the logarithms of the teacher's choice.
    log_teacher: Vec<Vec<f64>>,
    /// Per query, its weight over the divisor.
    factors: Vec<f64>,
    scaling: Scaling,
}

/// One query's scores as the student's choice sees them, and how fast they move with plain ones.
struct Scaled {
    values: Vec<f64>,
    slope: f64,
}

impl Distillation {
    fn scaled<T: Number>(&self, scores: &[T]) -> Scaled {
        let values = scores.iter().map(|s| s.to_f64());
        let (offset, slope) = match self.scaling {
            Scaling::Temperature(temperature) => (0.0, 1.0 / temperature),
            Scaling::MinMax => {
                let lowest = values.clone().fold(f64::INFINITY, f64::min);
                let highest = values.clone().fold(f64::NEG_INFINITY, f64::max);
                (lowest, 1.0 / (highest - lowest + MIN_MAX_EPS))
            }
        };
        Scaled {
            values: values.map(|s| (s - offset) * slope).collect(),
            slope,
        }
    }
}

impl RowLoss for Distillation {
    const NAME: &'static str = "ranking-distillation";

    fn value<T: Number>(&self, row: usize, scores: &[T]) -> f64 {
        let student = log_softmax(&self.scaled(scores).values);
        let terms = self.log_teacher[row].iter().zip(student);
        self.factors[row] * terms.map(|(t, s)| t.exp() * (t - s)).sum::<f64>()
    }

    fn gradient<T: Number>(&self, row: usize, scores: &[T], out: &mut [T], upstream: f64) {
        let Scaled { values, slope } = self.scaled(scores);
        let student = log_softmax(&values);
        let both = student.iter().zip(&self.log_teacher[row]);
        let of_scaled: Vec<f64> = both.map(|(s, t)| s.exp() - t.exp()).collect();
        let mut gradient: Vec<f64> = of_scaled.iter().map(|g| g * slope).collect();
        if self.scaling == Scaling::MinMax {
            // The ends of the range move with the scores that are the ends.
            let stretch: f64 = of_scaled.iter().zip(&values).map(|(g, z)| g * z).sum();
            let total: f64 = of_scaled.iter().sum();
            if let Some((lowest, highest)) = ends(&values) {
                gradient[lowest] += slope * (stretch - total);
                gradient[highest] -= slope * stretch;
            }
        }
        let factor = self.factors[row] * upstream;
        for (out, gradient) in out.iter_mut().zip(gradient) {
            *out = T::from_f64(gradient * factor);
        }
    }
}

/// The first places of the smallest and of the largest value.
fn ends(values: &[f64]) -> Option<(usize, usize)> {
    let mut ends = (0, 0);
    for (i, value) in values.iter().enumerate() {
        if *value < values[ends.0] {
            ends.0 = i;
        }
        if *value > values[ends.1] {
            ends.1 = i;
        }
    }
    (!values.is_empty()).then_some(ends)
}

fn log_softmax(values: &[f64]) -> Vec<f64> {
    let total = log_sum_exp(values);
    values.iter().map(|x| x - total).collect()
}

fn add_scaled<T: Real>(out: &mut [T], values: &[T], factor: T) {
    for (out, &value) in out.iter_mut().zip(values) {
        *out += factor * value;
    }
}

/// The two float types that scores are computed in.
trait Real: Number {
    /// Every row of `queries` times every row of `documents`, `(query rows, document rows)`.
    fn products(queries: &[Self], documents: &[Self], dim: usize, out: &mut [Self]) -> Result<()>;
}

impl Real for f32 {
    fn products(queries: &[f32], documents: &[f32], dim: usize, out: &mut [f32]) -> Result<()> {
        if out.is_empty() || dim == 0 {
            return Ok(());
        }
        let (rows, columns) = (queries.len() / dim, documents.len() / dim);
        let isa = Isa::from_env().map_err(Error::wrap)?;
        let queries = MatRef::new(queries, rows, dim).map_err(Error::wrap)?;
        let documents = MatRef::new(documents, columns, dim).map_err(Error::wrap)?;
        let out = MatMut::new(out, rows, columns).map_err(Error::wrap)?;
        matmul(isa, queries, documents, out).map_err(Error::wrap)
    }
}

impl Real for f64 {
    fn products(queries: &[f64], documents: &[f64], dim: usize, out: &mut [f64]) -> Result<()> {
        let pairs = queries
            .chunks(dim.max(1))
            .flat_map(|q| documents.chunks(dim.max(1)).map(move |d| (q, d)));
        for (out, (q, d)) in out.iter_mut().zip(pairs) {
            *out = q.iter().zip(d).map(|(q, d)| q * d).sum();
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "retrieval_tests.rs"]
mod tests;
