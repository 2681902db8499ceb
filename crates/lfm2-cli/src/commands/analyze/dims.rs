//! `lfm2 analyze dims`.

use std::ops::ControlFlow;

use anyhow::{Context, Result};
use indicatif::ProgressBar;
use lfm2::retrieval::{ColbertModel, dimension_parts};
use lfm2::sentence::{EmbeddingCache, EncodeOptions, Frame, SentenceEncoder, Site, SiteVectors};
use lfm2_analysis::{
    DimensionShares, LayerStudy, PairSet, PairedEmbeddings, Property, Report, ReportInfo, Study,
    StudyEvent, StudyOptions, StudyProgress,
};
use serde::Serialize;

use super::pairs::Pairs;
use crate::args::{DimsArgs, Layers};
use crate::exit::Stopped;
use crate::ui::interrupt::{Interrupt, Watch};
use crate::ui::{format, json_line, open, progress, screen};

pub(super) fn run(args: &DimsArgs) -> Result<()> {
    let options = args.rules.options();
    let mut pairs = Pairs::new(&args.pairs, args.rules.seed)?;
    let interrupt = Interrupt::install()?;
    let (encoder, name) = open::sentence_encoder(&args.model)?;
    let watch = interrupt.watch();
    let sweep = match &args.layers {
        None => Vec::new(),
        Some(Layers::All) => encoder.sites(),
        Some(Layers::These(sites)) => sites.clone(),
    };
    let mut sites = sweep.clone();
    if !sites.contains(&args.layer) {
        sites.push(args.layer);
    }
    let encoded = encode(args, &encoder, &mut pairs, &sites, &watch)?;
    let work = Work {
        pairs: &pairs,
        encoded: &encoded,
        options: &options,
        watch: &watch,
    };
    let study = work.study(args.layer)?;
    let layers = work.sweep(&sweep)?;
    let shares = match encoder.colbert() {
        Some(model) => shares(model, &pairs, &watch)?,
        None => Vec::new(),
    };
    let mut notes = vec![format!(
        "embeddings: mean over the tokens of a sentence at layer {}, tokens that the model puts around it {}",
        args.layer,
        if args.without_frame {
            "left out"
        } else {
            "included"
        }
    )];
    notes.append(&mut pairs.notes);
    let info = ReportInfo {
        model: name,
        pairs: pairs.source,
        command: command(std::env::args()),
        notes,
    };
    let report = Report::new(&study, &info)
        .with_layers(&layers)
        .with_shares(&shares);
    report.write(&args.out)?;
    show(args, &study, &layers)
}

/// The embeddings of every set at every place.
type Encoded = Vec<Vec<SiteVectors>>;

fn encode(
    args: &DimsArgs,
    encoder: &SentenceEncoder,
    pairs: &mut Pairs,
    sites: &[Site],
    watch: &Watch,
) -> Result<Encoded> {
    let folder = args
        .cache
        .clone()
        .unwrap_or_else(|| args.out.join("embeddings"));
    let frame = if args.without_frame {
        Frame::Out
    } else {
        Frame::In
    };
    let options = EncodeOptions::default()
        .with_frame(frame)
        .with_cache(EmbeddingCache::new(folder));
    let bar = progress::bar(2 * pairs.count() as u64, "sentences");
    let (mut encoded, mut done) = (Vec::with_capacity(pairs.sets.len()), 0);
    for set in &pairs.sets {
        bar.set_message(set.name().to_owned());
        let texts = sentences(set);
        let found = encoder.encode(&texts, sites, &options, &mut |count| {
            bar.set_position(done + count as u64);
            match watch.is_cancelled() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        let found = found.with_context(|| format!("encoding the pairs of {}", set.name()))?;
        done += texts.len() as u64;
        bar.set_position(done);
        if found.cut > 0 {
            pairs.notes.push(format!(
                "{}: {} sentences are longer than the model reads and were cut",
                set.name(),
                found.cut
            ));
        }
        encoded.push(found.vectors);
    }
    bar.finish_and_clear();
    Ok(encoded)
}

/// First sentences, and second ones behind them.
fn sentences(set: &PairSet) -> Vec<&str> {
    let first = set.pairs().iter().map(|pair| pair.first.as_str());
    let second = set.pairs().iter().map(|pair| pair.second.as_str());
    first.chain(second).collect()
}

/// What studies are made of.
struct Work<'a> {
    pairs: &'a Pairs,
    encoded: &'a Encoded,
    options: &'a StudyOptions,
    watch: &'a Watch,
}

impl Work<'_> {
    /// The whole study of one place.
    fn study(&self, site: Site) -> Result<Study> {
        let bar = progress::bar(self.pairs.sets.len() as u64, "properties");
        let shown = Shown(bar);
        let study = self.at(site, |properties| {
            Ok(Study::run(
                properties,
                self.options,
                &shown,
                self.watch.switch(),
            )?)
        })?;
        shown.0.finish_and_clear();
        Ok(study)
    }

    /// What can be read from each of these places.
    fn sweep(&self, sites: &[Site]) -> Result<Vec<LayerStudy>> {
        let bar = progress::bar(sites.len() as u64, "layers");
        let read = |&site: &Site| {
            let found = self.at(site, |properties| {
                let name = site.to_string();
                Ok(LayerStudy::run(
                    name,
                    properties,
                    self.options,
                    self.watch.switch(),
                )?)
            });
            bar.inc(1);
            found
        };
        let layers = sites.iter().map(read).collect();
        bar.finish_and_clear();
        layers
    }

    /// Hands the properties, by their embeddings at `site`, to `work`.
    fn at<T>(&self, site: Site, work: impl FnOnce(&[Property<'_>]) -> Result<T>) -> Result<T> {
        let groups: Vec<Vec<usize>> = self.pairs.sets.iter().map(PairSet::groups).collect();
        let mut properties = Vec::with_capacity(groups.len());
        for ((set, vectors), groups) in self.pairs.sets.iter().zip(self.encoded).zip(&groups) {
            let found = vectors.iter().find(|vectors| vectors.site == site);
            let found = found.context("embeddings of a layer are missing")?;
            let (first, second) = found.values.split_at(found.values.len() / 2);
            let embeddings = PairedEmbeddings::new(set.name(), first, second, found.dims)?;
            properties.push(Property::new(embeddings).groups(groups));
        }
        work(&properties)
    }
}

/// Moves a bar with a study.
struct Shown(ProgressBar);

impl StudyProgress for Shown {
    fn event(&self, event: StudyEvent<'_>) {
        match event {
            StudyEvent::PropertyDone { name, .. } => {
                self.0.set_message(name.to_owned());
                self.0.inc(1);
            }
            StudyEvent::Crossing => self.0.set_message("each on the others"),
            StudyEvent::Classifying => self.0.set_message("telling properties apart"),
            _ => {}
        }
    }
}

/// The share of each dimension in the MaxSim score of the second sentence of a pair for the first.
fn shares(model: &ColbertModel, pairs: &Pairs, watch: &Watch) -> Result<Vec<DimensionShares>> {
    let bar = progress::bar(pairs.count() as u64, "scores");
    let mut found = Vec::with_capacity(pairs.sets.len());
    for set in &pairs.sets {
        let mut sums = vec![0.0; model.dim()];
        for batch in set.pairs().chunks(64) {
            let queries: Vec<&str> = batch.iter().map(|pair| pair.first.as_str()).collect();
            let documents: Vec<&str> = batch.iter().map(|pair| pair.second.as_str()).collect();
            let documents = model.encode_documents(&documents)?;
            for (query, document) in model.encode_queries(&queries)?.iter().zip(&documents) {
                let parts = dimension_parts(query.view()?, document.view()?)?;
                sums.iter_mut()
                    .zip(parts)
                    .for_each(|(sum, part)| *sum += part);
            }
            bar.inc(batch.len() as u64);
            if watch.is_cancelled() {
                return Err(Stopped.into());
            }
        }
        let total: f64 = sums.iter().sum();
        if total > 0.0 {
            sums.iter_mut().for_each(|sum| *sum /= total);
        }
        found.push(DimensionShares {
            name: set.name().to_owned(),
            shares: sums,
        });
    }
    bar.finish_and_clear();
    Ok(found)
}

/// A command line that a shell takes.
fn command(words: impl Iterator<Item = String>) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,@+%".contains(c);
    let quoted = words.enumerate().map(|(place, word)| match word {
        // Wherever the program lies, it is called by its name.
        _ if place == 0 => "lfm2".to_owned(),
        word if !word.is_empty() && word.chars().all(plain) => word,
        word => format!("'{}'", word.replace('\'', "'\\''")),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// A line of `--json`.
#[derive(Debug, Serialize)]
struct Line<'a> {
    report: String,
    study: &'a Study,
    layers: &'a [LayerStudy],
}

fn show(args: &DimsArgs, study: &Study, layers: &[LayerStudy]) -> Result<()> {
    let report = args.out.join("report.html").display().to_string();
    if args.json {
        return json_line(&Line {
            report,
            study,
            layers,
        });
    }
    let low = study
        .properties
        .first()
        .map_or(0, |property| property.evaluation.low_dims);
    let head = [
        "".to_owned(),
        "all".to_owned(),
        format!("lowest {low}"),
        format!("to {:.0} %", 100.0 * study.options.reach),
        format!("best {}", study.options.keep.min(study.dims)),
        "significant".to_owned(),
        format!("EDI > {}", study.options.cut_off),
        "top (EDI)".to_owned(),
    ];
    let mut rows = vec![head.to_vec()];
    for property in &study.properties {
        let found = &property.evaluation;
        let share = |value: f64| format!("{value:.4}");
        let needed = found
            .dims_needed
            .map_or("-".to_owned(), |count| count.to_string());
        let top = property.order.first().zip(
            property
                .order
                .first()
                .and_then(|&dim| property.scores.edi.get(dim)),
        );
        rows.push(vec![
            property.name.clone(),
            share(found.baseline),
            share(found.low),
            needed,
            share(found.eliminated),
            property.significant.to_string(),
            property.above_cut_off.to_string(),
            top.map_or("-".to_owned(), |(dim, edi)| format!("{dim} ({edi:.2})")),
        ]);
    }
    let text = format!("{}\nwritten: {report}\n", format::table(&rows));
    Ok(screen::print(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted_into_a_shell() {
        let words = ["/x/lfm2", "analyze", "--out", "a b", "it's", "", "k=1"];
        let line = command(words.map(str::to_owned).into_iter());
        assert_eq!(line, "lfm2 analyze --out 'a b' 'it'\\''s' '' k=1");
    }
}
