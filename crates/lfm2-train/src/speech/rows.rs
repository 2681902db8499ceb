//! Clips of sound with their transcripts, from a manifest.

use std::path::{Path, PathBuf};

use lfm2_audio::{Clip, SoundLimits};
use serde::Deserialize;

use crate::data::{DataFile, JsonLine};
use crate::rng::Rng;
use crate::{Error, Result};

/// A word and when it is spoken: `["seven", 0.31, 0.64]` in a manifest.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct SpokenWord(
    /// The word.
    pub String,
    /// Its first second.
    pub f64,
    /// Its last second.
    pub f64,
);

/// A line of a manifest.
#[derive(Deserialize)]
struct RawRow {
    #[serde(alias = "audio_filepath")]
    audio: PathBuf,
    text: String,
    #[serde(default)]
    words: Vec<SpokenWord>,
    #[serde(default)]
    codes: Vec<Vec<u32>>,
    #[serde(default)]
    question: Option<PathBuf>,
}

/// A clip and its transcript.
#[derive(Debug, Clone, PartialEq)]
pub struct SpokenRow {
    line: usize,
    /// The sound file.
    pub audio: PathBuf,
    /// What is said.
    pub text: String,
    /// When each word is spoken; empty where nobody says.
    pub words: Vec<SpokenWord>,
    /// The codes of every 80 ms, first codebook first; empty where nobody says.
    pub codes: Vec<Vec<u32>>,
    /// The sound file of what the clip is an answer to.
    pub question: Option<PathBuf>,
}

/// The rows of a manifest: JSON lines of `{"audio": FILE, "text": .., "words": [[WORD, FROM, TO], ..]}`, plain or
/// gzip. `words` may be missing; clips to speak from have `codes`, a list of lists, and may have a sound file that they
/// are the answer to, `question`. Files are sought from the manifest's folder.
#[derive(Debug, Clone)]
pub struct SpokenRows {
    path: PathBuf,
    sha256: String,
    rows: Vec<SpokenRow>,
}

impl SpokenRows {
    /// Reads a manifest; its sound files have to be there.
    ///
    /// # Errors
    /// [`Error::Data`] with the line of the first broken row, [`Error::EmptyData`] when there is none, errors of
    /// the file.
    pub fn read(path: &Path) -> Result<Self> {
        let file = DataFile::read(path)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let rows = file.json_lines::<RawRow>()?.into_iter();
        let rows = rows.map(|line| row(line, path, folder));
        let rows = rows.collect::<Result<Vec<_>>>()?;
        if rows.is_empty() {
            return Err(Error::EmptyData {
                path: path.to_path_buf(),
                detail: "there is no row in this file".to_string(),
            });
        }
        Ok(Self {
            path: path.to_path_buf(),
            sha256: file.sha256().to_string(),
            rows,
        })
    }

    /// The rows, in the order of the file.
    pub fn rows(&self) -> &[SpokenRow] {
        &self.rows
    }

    /// The manifest's name.
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// SHA-256 of the manifest as stored, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The sound of a row.
    ///
    /// # Errors
    /// [`Error::Data`] with the line when it cannot be read.
    pub fn clip(&self, row: &SpokenRow) -> Result<Clip> {
        self.open(row, &row.audio)
    }

    /// The sound of what a row is an answer to, if it is one.
    ///
    /// # Errors
    /// As [`clip`](Self::clip).
    pub fn question(&self, row: &SpokenRow) -> Result<Option<Clip>> {
        let question = row.question.as_ref();
        question.map(|file| self.open(row, file)).transpose()
    }

    fn open(&self, row: &SpokenRow, file: &Path) -> Result<Clip> {
        let clip = Clip::open(file, &SoundLimits::default());
        clip.map_err(|e| self.error(row, format!("{}: {e}", file.display())))
    }

    /// What is wrong with a row.
    pub(crate) fn error(&self, row: &SpokenRow, detail: impl Into<String>) -> Error {
        Error::data(&self.path, row.line, detail)
    }

    /// Takes `count` rows out, chosen by `seed`; those that stay are sorted by the number of their words.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] when none would stay.
    pub(crate) fn hold_out(&mut self, count: usize, seed: u64) -> Result<Vec<SpokenRow>> {
        let found = self.rows.len();
        if count >= found {
            let detail = format!("expected fewer than the {found} rows, found {count}");
            return Err(Error::option("validation_clips", detail));
        }
        Rng::labelled(seed, "holdout").shuffle(&mut self.rows);
        let training = self.rows.split_off(count);
        let out = std::mem::replace(&mut self.rows, training);
        self.rows.sort_by_key(SpokenRow::len);
        Ok(out)
    }
}

impl SpokenRow {
    /// The number of words.
    pub(super) fn len(&self) -> usize {
        self.text.split_whitespace().count()
    }
}

fn row(JsonLine { line, row }: JsonLine<RawRow>, file: &Path, folder: &Path) -> Result<SpokenRow> {
    let wrong = |detail: String| Error::data(file, line, detail);
    let audio = folder.join(&row.audio);
    let question = row.question.map(|question| folder.join(question));
    if let Some(missing) = [Some(&audio), question.as_ref()]
        .into_iter()
        .flatten()
        .find(|file| !file.is_file())
    {
        return Err(wrong(format!("no sound file {}", missing.display())));
    }
    if row.text.trim().is_empty() {
        return Err(wrong("no words in \"text\"".into()));
    }
    let ordered =
        |w: &&SpokenWord| !(w.1.is_finite() && w.2.is_finite() && 0.0 <= w.1 && w.1 <= w.2);
    if let Some(SpokenWord(word, from, to)) = row.words.iter().find(ordered) {
        let detail = format!("\"{word}\" spoken from {from} to {to}, expected seconds in order");
        return Err(wrong(detail));
    }
    Ok(SpokenRow {
        line,
        audio,
        text: row.text,
        words: row.words,
        codes: row.codes,
        question,
    })
}
