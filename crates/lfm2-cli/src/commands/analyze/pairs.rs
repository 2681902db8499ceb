//! The pairs of a study, from files or from the grammar, and what is worth knowing of them.

use anyhow::Result;
use lfm2_analysis::{Contrast, DropReason, PairSet, generate};

use crate::args::PairArgs;

/// Pairs of a property that are written where nobody says how many.
const WRITTEN: usize = 1000;

/// The sets of pairs of a study.
pub(super) struct Pairs {
    pub(super) sets: Vec<PairSet>,
    /// Where they come from, in words.
    pub(super) source: String,
    /// What happened to rows of files.
    pub(super) notes: Vec<String>,
}

impl Pairs {
    /// Reads or writes the pairs.
    pub(super) fn new(args: &PairArgs, seed: u64) -> Result<Self> {
        if args.pairs.is_empty() {
            return written(args, seed);
        }
        let (mut sets, mut notes) = (Vec::new(), Vec::new());
        for path in &args.pairs {
            let mut set = PairSet::read(path)?;
            notes.extend(note(&set));
            if let Some(count) = args.count {
                set.sample(count.get(), seed);
            }
            sets.push(set);
        }
        let source = match &args.pairs[..] {
            [only] => only.display().to_string(),
            several => format!("{} files", several.len()),
        };
        Ok(Self {
            sets,
            source,
            notes,
        })
    }

    /// Pairs of all sets.
    pub(super) fn count(&self) -> usize {
        self.sets.iter().map(PairSet::len).sum()
    }
}

fn written(args: &PairArgs, seed: u64) -> Result<Pairs> {
    let contrasts = match &args.only[..] {
        [] => Contrast::ALL.to_vec(),
        only => Contrast::ALL
            .into_iter()
            .filter(|contrast| only.contains(contrast))
            .collect(),
    };
    let count = args.count.map_or(WRITTEN, usize::from);
    let sets = contrasts
        .into_iter()
        .map(|contrast| generate(contrast, count, seed));
    Ok(Pairs {
        sets: sets.collect::<Result<_, _>>()?,
        source: format!("the built-in grammar, seed {seed}"),
        notes: Vec::new(),
    })
}

/// What of a file was left out or changed, and what is odd about the rest.
fn note(set: &PairSet) -> Option<String> {
    let reading = set.reading()?;
    let counts = [
        (
            reading.dropped_for(DropReason::OneSided),
            "rows without two sentences left out",
        ),
        (
            reading.dropped_for(DropReason::TooManyCells),
            "rows with too many cells left out",
        ),
        (reading.trimmed, "sentences had spaces around them"),
        (set.duplicates(), "pairs are there more than once"),
        (set.equal_sides(), "pairs have two equal sentences"),
    ];
    let found: Vec<String> = counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    (!found.is_empty()).then(|| format!("{}: {}", set.name(), found.join(", ")))
}
