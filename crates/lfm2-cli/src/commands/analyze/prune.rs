//! `lfm2 analyze prune`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use lfm2::hub::{self, Overwrite, write_atomic};
use lfm2::retrieval::index::{
    self, CreateOptions, Document, Index, IndexError, SearchOptions, StoredVectors, WriteOptions,
};
use lfm2::retrieval::{
    Collection, Engine, Hits, MatRef, Metric, Query, RetrievalModel, TokenVectors,
    dimension_values, write_pruned,
};
use serde::Serialize;

use crate::args::PruneArgs;
use crate::commands::eval_retrieval::encode;
use crate::exit::{Doing, Stopped, invalid};
use crate::ui::interrupt::{Interrupt, Watch};
use crate::ui::{format, json_line, open, progress, screen};

/// Hits that nDCG looks at.
const TOP: usize = 10;
/// The best documents that do not answer a question, which those that do are compared with.
const OTHERS: usize = 10;

/// Everything that was measured.
#[derive(Debug, Serialize)]
struct Outcome {
    model: String,
    data: String,
    dimensions: usize,
    documents: usize,
    /// Questions that ranked the dimensions.
    ranking_questions: usize,
    /// Questions that nDCG is measured on.
    test_questions: usize,
    ndcg_at_10: f64,
    pruned: Vec<Pruned>,
    /// What each dimension adds to the distance between right and wrong documents.
    values: Vec<f64>,
    /// Dimensions from the most worth to the least.
    order: Vec<usize>,
}

/// The model with fewer dimensions.
#[derive(Debug, Serialize)]
struct Pruned {
    kept: usize,
    ndcg_at_10: f64,
    /// With as many dimensions drawn at random.
    random_ndcg_at_10: f64,
    folder: String,
}

pub(super) fn run(args: &PruneArgs) -> Result<()> {
    let collection = Collection::open(&args.data)?;
    let limit = args.limit.map_or(usize::MAX, usize::from);
    let queries: Vec<&Query> = collection.judged_queries().take(limit).collect();
    // Neighbours in a file are often alike, so the halves are interleaved.
    let (ranking, test) = halves(&queries);
    if ranking.is_empty() || test.is_empty() {
        let text = format!(
            "{}: expected at least 2 judged questions, found {}",
            args.data.display(),
            queries.len()
        );
        return Err(invalid(text));
    }
    let interrupt = Interrupt::install()?;
    let checkpoint = open::retrieval_checkpoint(&args.model)?;
    let origin = checkpoint.origin().to_owned();
    let model = RetrievalModel::from_checkpoint(&checkpoint, &open::load(args.model.device)?)
        .doing("opening", &origin)?;
    let counts = counts(args, &model, &origin)?;
    let watch = interrupt.watch();
    let temporary = tempfile::tempdir().context("making a folder for the index")?;
    let (exact, _) = encode(&collection, &model, &temporary.path().join("exact"), &watch)?;
    let trial = Trial {
        collection: &collection,
        model: &model,
        exact: &*exact,
        watch: &watch,
    };
    let values = trial.values(&ranking)?;
    let order = descending(&values);
    let test = trial.read(&test)?;
    let whole = trial.ndcg(&test, &order, temporary.path())?;
    let mut outcome = Outcome {
        model: origin,
        data: args.data.display().to_string(),
        dimensions: order.len(),
        documents: collection.documents.len(),
        ranking_questions: ranking.len(),
        test_questions: test.len(),
        ndcg_at_10: whole,
        pruned: Vec::with_capacity(counts.len()),
        values,
        order,
    };
    let drawn = shuffled(outcome.dimensions, args.seed);
    let bar = progress::bar(counts.len() as u64, "numbers of dimensions");
    for &kept in &counts {
        let folder = args.out.join(format!("keep-{kept}"));
        let mut best = outcome.order[..kept].to_vec();
        best.sort_unstable();
        outcome.pruned.push(Pruned {
            kept,
            ndcg_at_10: trial.ndcg(&test, &best, temporary.path())?,
            random_ndcg_at_10: trial.ndcg(&test, &drawn[..kept], temporary.path())?,
            folder: folder.display().to_string(),
        });
        write_pruned(&checkpoint, &best, &folder)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    write(&args.out, &outcome)?;
    match args.json {
        true => json_line(&outcome),
        false => Ok(screen::print(&text(&outcome, &args.out))?),
    }
}

/// Every other one, and the rest.
fn halves<'a>(queries: &[&'a Query]) -> (Vec<&'a Query>, Vec<&'a Query>) {
    let numbered = queries.iter().copied().enumerate();
    let (even, odd): (Vec<_>, Vec<_>) = numbered.partition(|(place, _)| place.is_multiple_of(2));
    let only = |half: Vec<(usize, &'a Query)>| half.into_iter().map(|(_, query)| query).collect();
    (only(even), only(odd))
}

/// How many dimensions are kept, most first, when the model has so many.
fn counts(args: &PruneArgs, model: &RetrievalModel, origin: &str) -> Result<Vec<usize>> {
    if let RetrievalModel::SingleVector(_) = model {
        return Err(hub::Error::Unsupported {
            what: format!("leaving out dimensions of {origin}"),
            hint: "models with a vector per token are pruned".to_owned(),
        }
        .into());
    }
    let mut counts: Vec<usize> = args.keep.iter().map(|keep| keep.get()).collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    counts.dedup();
    match counts.first() {
        Some(&most) if most > model.dim() => {
            let text = format!(
                "--keep {most}: {origin} gives vectors of {} numbers",
                model.dim()
            );
            Err(invalid(text))
        }
        _ => Ok(counts),
    }
}

/// The places of values from the largest to the smallest.
fn descending(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order
}

/// The numbers below `count` in an order that `seed` fixes: Fisher and Yates with SplitMix64.
fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut order: Vec<usize> = (0..count).collect();
    for last in (1..count).rev() {
        let other = (next() % (last as u64 + 1)) as usize;
        order.swap(last, other);
    }
    order
}

/// A collection whose documents are encoded.
struct Trial<'a> {
    collection: &'a Collection,
    model: &'a RetrievalModel,
    exact: &'a dyn Index,
    watch: &'a Watch,
}

impl<'a> Trial<'a> {
    fn check(&self) -> Result<()> {
        match self.watch.is_cancelled() {
            true => Err(Stopped.into()),
            false => Ok(()),
        }
    }

    /// What each dimension adds to the distance between documents that answer and the best of the others,
    /// mean over `queries`.
    fn values(&self, queries: &[&Query]) -> Result<Vec<f64>> {
        let bar = progress::bar(queries.len() as u64, "questions");
        let mut sums = vec![0.0; self.model.dim()];
        for query in queries {
            self.check()?;
            let vectors = self.model.encode_query(&query.text)?;
            let answers = self.collection.relevant(&query.id);
            let options = SearchOptions::top(OTHERS + answers.len());
            let hits = self.exact.search(vectors.view()?, &options)?;
            let others = hits.into_iter().map(|hit| hit.document.id);
            let others = others
                .filter(|id| !answers.contains(id.as_str()))
                .take(OTHERS);
            let others = self.documents(others)?;
            let relevant = self.documents(answers.iter().map(|id| (*id).to_owned()))?;
            let values = dimension_values(vectors.view()?, &views(&relevant)?, &views(&others)?)?;
            let count = queries.len() as f64;
            sums.iter_mut()
                .zip(values)
                .for_each(|(sum, value)| *sum += value / count);
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(sums)
    }

    /// The vectors of those of these documents that are there.
    fn documents(&self, ids: impl Iterator<Item = String>) -> Result<Vec<StoredVectors>> {
        let found = ids.map(|id| self.exact.vectors(&id));
        let found: Vec<Option<StoredVectors>> = found.collect::<Result<_, _>>()?;
        Ok(found.into_iter().flatten().collect())
    }

    fn read(&self, queries: &[&'a Query]) -> Result<Vec<(&'a Query, TokenVectors)>> {
        let read = |query: &&'a Query| Ok((*query, self.model.encode_query(&query.text)?));
        queries.iter().map(read).collect()
    }

    /// Searches an index of the dimensions `kept`, which lies in `scratch` meanwhile.
    fn ndcg(
        &self,
        queries: &[(&Query, TokenVectors)],
        kept: &[usize],
        scratch: &Path,
    ) -> Result<f64> {
        let folder = scratch.join("pruned");
        let options = CreateOptions::new(self.model.id().as_str(), kept.len());
        let mut index = index::create(&folder, &options.with_engine(Engine::Exact))?;
        let mut writer = index.writer(&WriteOptions::default())?;
        for id in self.exact.ids()? {
            self.check()?;
            let vectors = self
                .exact
                .vectors(&id)?
                .context("a document without vectors")?;
            let vectors = vectors.keep_dimensions(kept)?;
            let view = vectors.view().map_err(IndexError::from)?;
            writer.put(&Document::new(id), view)?;
        }
        writer.commit()?;
        drop(writer);
        let mut hits = Vec::with_capacity(queries.len());
        for (query, vectors) in queries {
            self.check()?;
            let vectors = vectors.keep_dimensions(kept)?;
            let found = index.search(vectors.view()?, &SearchOptions::top(TOP))?;
            let ids: Vec<String> = found.into_iter().map(|hit| hit.document.id).collect();
            let relevant = self.collection.relevant(&query.id);
            hits.push(Hits::new(ids.iter().map(String::as_str), &relevant));
        }
        drop(index);
        // Several indexes of a large collection need not lie there together.
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        Ok(Metric::Ndcg.mean(&hits, TOP))
    }
}

fn views(documents: &[StoredVectors]) -> Result<Vec<MatRef<'_, f32>>> {
    let views = documents
        .iter()
        .map(|document| document.view().map_err(IndexError::from));
    Ok(views.collect::<Result<_, _>>()?)
}

/// The tables as files.
fn write(folder: &Path, outcome: &Outcome) -> Result<()> {
    let mut dimensions = String::from("dimension,rank,value\n");
    let mut ranks = vec![0; outcome.order.len()];
    for (place, &dim) in outcome.order.iter().enumerate() {
        ranks[dim] = place + 1;
    }
    for (dim, (rank, value)) in ranks.iter().zip(&outcome.values).enumerate() {
        dimensions.push_str(&format!("{dim},{rank},{value}\n"));
    }
    let mut table = String::from("dimensions,ndcg_at_10,random_ndcg_at_10\n");
    table.push_str(&format!("{},{},\n", outcome.dimensions, outcome.ndcg_at_10));
    for row in &outcome.pruned {
        table.push_str(&format!(
            "{},{},{}\n",
            row.kept, row.ndcg_at_10, row.random_ndcg_at_10
        ));
    }
    let json = serde_json::to_string_pretty(outcome)? + "\n";
    for (name, content) in [
        ("dimensions.csv", dimensions),
        ("prune.csv", table),
        ("prune.json", json),
    ] {
        let path = folder.join(name);
        write_atomic(&path, Overwrite::Replace, |file| {
            std::io::Write::write_all(file, content.as_bytes())
                .map_err(|source| hub::Error::io(&path, source))
        })?;
    }
    Ok(())
}

/// The outcome for people.
fn text(outcome: &Outcome, folder: &Path) -> String {
    let head = ["dimensions", "nDCG@10", "of all", "at random", "model"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let share = |value: f64| format!("{value:.4}");
    let part = |value: f64| match outcome.ndcg_at_10 {
        0.0 => "-".to_owned(),
        all => format!("{:.1} %", 100.0 * value / all),
    };
    let whole = outcome.ndcg_at_10;
    rows.push(vec![
        outcome.dimensions.to_string(),
        share(whole),
        part(whole),
        "-".to_owned(),
        outcome.model.clone(),
    ]);
    for row in &outcome.pruned {
        rows.push(vec![
            row.kept.to_string(),
            share(row.ndcg_at_10),
            part(row.ndcg_at_10),
            share(row.random_ndcg_at_10),
            row.folder.clone(),
        ]);
    }
    format!(
        "{} documents; {} questions ranked the dimensions, {} others measure\n\n{}\nwritten: {}\n",
        format::count(outcome.documents as u64),
        outcome.ranking_questions,
        outcome.test_questions,
        format::table(&rows),
        folder.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_every_dimension_once() {
        let mut drawn = shuffled(50, 3);
        assert_eq!(drawn, shuffled(50, 3));
        assert_ne!(drawn, shuffled(50, 4));
        drawn.sort_unstable();
        assert!(drawn.iter().copied().eq(0..50));
        assert!(shuffled(0, 1).is_empty());
    }

    #[test]
    fn dimensions_are_ordered_by_worth_and_equal_ones_by_number() {
        assert_eq!(descending(&[0.1, 0.5, -1.0, 0.5]), [1, 3, 0, 2]);
    }
}
