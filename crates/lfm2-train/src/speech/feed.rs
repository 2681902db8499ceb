//! [`SpeechFeed`]: clips and transcripts, as a model hears and reads them.

use lfm2_audio::{Clip, FRAMES_PER_STEP, Mel, MelFrontEnd, Sample};
use lfm2_hub::{Bos, SpecialTokens, Tokenizer};

use super::augment::AugmentOptions;
use super::front::document;
use super::options::{LengthGrowth, SpeechOptions};
use super::rows::{SpokenRow, SpokenRows, SpokenWord};
use crate::mixed::{Feed, MixedBatch};
use crate::objective::ValidationSet;
use crate::rng::Rng;
use crate::{Result, bpe};

/// What a row that is in the middle of no word counts, beside one that is: most are.
const BETWEEN: f32 = 0.25;

/// The clips of a run.
#[derive(Debug)]
pub struct SpeechFeed {
    rows: SpokenRows,
    /// Words of every row, ascending.
    words: Vec<usize>,
    kept_out: Vec<SpokenRow>,
    /// Micro-batches of a step, and clips of a micro-batch.
    sizes: (usize, usize),
    seed: u64,
    augment: AugmentOptions,
    growth: Option<LengthGrowth>,
    reader: SpeechReader,
    told: Option<ToldWords>,
}

/// What turns clips and transcripts into what a model reads.
#[derive(Debug, Clone)]
pub(super) struct SpeechReader {
    pub(super) front: MelFrontEnd,
    pub(super) tokenizer: Tokenizer,
}

type MelBatch = MixedBatch<Mel>;

/// The words that rows are told, the first of them for no word.
#[derive(Debug, Clone)]
struct ToldWords {
    ids: Vec<u32>,
    /// Mel frames of a second.
    frames: f64,
}

impl ToldWords {
    fn new(rows: &SpokenRows, reader: &SpeechReader) -> Result<Self> {
        let mut ids = Vec::new();
        for SpokenWord(word, ..) in rows.rows().iter().flat_map(|row| &row.words) {
            ids.extend(token(&reader.tokenizer, word)?);
        }
        ids.sort_unstable();
        ids.dedup();
        ids.insert(0, bpe::PAD);
        let config = reader.front.config();
        Ok(Self {
            ids,
            frames: f64::from(config.sample_rate) / config.hop as f64,
        })
    }

    /// The number of the word of every one of `count` rows; `words` are spoken from and to these seconds.
    fn of(&self, words: &[(u32, f64, f64)], count: usize) -> Vec<u32> {
        let mut told = vec![0; count];
        for (id, from, to) in words {
            let middle = (from + to) / 2.0 * self.frames / FRAMES_PER_STEP as f64;
            let number = self.ids.iter().position(|known| known == id);
            if let (Some(row), Some(number)) = (told.get_mut(middle.round() as usize), number) {
                *row = number as u32;
            }
        }
        told
    }
}

/// The token that a word in a sentence begins with.
fn token(tokenizer: &Tokenizer, word: &str) -> Result<Option<u32>> {
    let ids = tokenizer.encode(&format!(" {word}"), SpecialTokens::Literal, Bos::Omit)?;
    Ok(ids.first().copied())
}

impl SpeechReader {
    /// Appends a clip and its transcript, and gives the place of its first row and how many it has.
    fn read(&self, clip: &Clip, text: &str, batch: &mut MelBatch) -> Result<(u32, usize)> {
        let mel = self.front.features(clip)?;
        let rows = mel.frames().div_ceil(FRAMES_PER_STEP);
        let sample = Sample::transcription(&self.tokenizer, &self.front, mel, text)?;
        let before = batch.documents().tokens() as u32;
        let (document, clips, firsts) = document(&sample)?;
        batch.push(&document, clips);
        Ok((before + firsts.first().copied().unwrap_or(0), rows))
    }
}

impl SpeechFeed {
    /// A feed of `rows`; some are kept out.
    pub(super) fn new(
        options: &SpeechOptions,
        mut rows: SpokenRows,
        reader: SpeechReader,
    ) -> Result<Self> {
        Ok(Self {
            kept_out: rows.hold_out(options.validation_clips, options.seed)?,
            told: match options.hints > 0.0 {
                true => Some(ToldWords::new(&rows, &reader)?),
                false => None,
            },
            words: rows.rows().iter().map(SpokenRow::len).collect(),
            rows,
            sizes: (options.micro_batches, options.micro_batch_clips),
            seed: options.seed,
            augment: options.data.augment,
            growth: options.data.growth,
            reader,
        })
    }

    /// The rows that are kept out, as they are.
    pub(super) fn validation(&self) -> Result<Vec<ValidationSet<MelBatch>>> {
        let batches = self.kept_out.chunks(self.sizes.1).map(|chunk| {
            let mut batch = MixedBatch::default();
            for row in chunk {
                self.reader
                    .read(&self.rows.clip(row)?, &row.text, &mut batch)?;
            }
            Ok(batch)
        });
        Ok(vec![(self.rows.name(), batches.collect::<Result<_>>()?)])
    }

    /// The features of `count` clips of all lengths, to take statistics of.
    pub(super) fn some(&self, count: usize) -> Result<Vec<Mel>> {
        let mut rng = Rng::labelled(self.seed, "statistics");
        let mut batch = MixedBatch::default();
        for _ in 0..count {
            self.add(self.rows.rows(), &mut rng, &mut batch)?;
        }
        Ok(batch.pieces().to_vec())
    }

    /// The rows that may be heard in step `step`, which are the shortest ones.
    fn heard(&self, step: u64) -> &[SpokenRow] {
        let rows = self.rows.rows();
        let count = LengthGrowth::count(self.growth, step, &self.words);
        rows.get(..count).unwrap_or(rows)
    }

    /// Appends one of `rows`, changed.
    fn add(&self, rows: &[SpokenRow], rng: &mut Rng, batch: &mut MelBatch) -> Result<()> {
        let Some(row) = rows.get(rng.below(rows.len())) else {
            return Ok(());
        };
        let changed = self.augment.apply(&self.rows.clip(row)?, rng)?;
        let wrong = |e: crate::Error| self.rows.error(row, e.to_string());
        let (first, count) = self
            .reader
            .read(&changed.clip, &row.text, batch)
            .map_err(wrong)?;
        let Some(told) = self.told.as_ref().filter(|_| !row.words.is_empty()) else {
            return Ok(());
        };
        let mut words = Vec::with_capacity(row.words.len());
        for SpokenWord(word, from, to) in &row.words {
            if let Some(id) = token(&self.reader.tokenizer, word)? {
                words.push((id, changed.time(*from), changed.time(*to)));
            }
        }
        for (place, word) in (first..).zip(told.of(&words, count)) {
            let weight = if word == 0 { BETWEEN } else { 1.0 };
            batch.hint(&told.ids, (place, word), weight);
        }
        Ok(())
    }
}

impl Feed for SpeechFeed {
    type Piece = Mel;

    fn step(&self, step: u64) -> Result<Vec<MelBatch>> {
        let rows = self.heard(step);
        let batches = (0..self.sizes.0).map(|number| {
            let mut rng = Rng::labelled(self.seed, &format!("step {step} batch {number}"));
            let mut batch = MixedBatch::default();
            for _ in 0..self.sizes.1 {
                self.add(rows, &mut rng, &mut batch)?;
            }
            Ok(batch)
        });
        batches.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_in_the_middle_of_a_word_is_told_the_word() {
        let told = ToldWords {
            ids: vec![bpe::PAD, 301, 305],
            frames: 100.0,
        };
        // Rows are 80 ms apart: 0.2 s is nearest to row 2 or 3, 0.56 s is row 7.
        let words = [
            (305, 0.06, 0.26),
            (301, 0.5, 0.62),
            (999, 0.0, 0.1),
            (301, 9.0, 9.9),
        ];
        assert_eq!(told.of(&words, 9), [0, 0, 2, 0, 0, 0, 0, 1, 0]);
    }
}
