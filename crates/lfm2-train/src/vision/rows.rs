//! Conversations about picture files.

use std::path::{Path, PathBuf};

use lfm2_generate::{Content, Message, Part, PartKind};
use lfm2_vl::{DecodeOptions, Picture};
use serde::Deserialize;
use serde_json::Value;

use super::options::RowData;
use crate::data::{DataFile, JsonLine};
use crate::rng::Rng;
use crate::{Error, Result};

/// One or several values.
#[derive(Deserialize)]
#[serde(untagged)]
enum Several<T> {
    One(T),
    Many(Vec<T>),
}

/// A line of the file.
#[derive(Deserialize)]
struct RawRow {
    messages: Vec<Message>,
    /// The files of pictures whose place has none of its own.
    #[serde(alias = "image")]
    images: Option<Several<PathBuf>>,
}

/// A conversation and the files of its pictures, in the order of their places.
#[derive(Debug, Clone)]
pub(super) struct Row {
    line: usize,
    pub(super) messages: Vec<Message>,
    pictures: Vec<PathBuf>,
}

/// The rows of a file.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    path: PathBuf,
    sha256: String,
    training: Vec<Row>,
    kept_out: Vec<Row>,
    seed: u64,
}

impl Rows {
    /// Reads the rows; the files of their pictures have to be there. Relative paths of `data` start at
    /// `base`, those of pictures at the folder of the data file.
    ///
    /// # Errors
    /// [`Error::Data`] with the line of the first broken row; [`Error::EmptyData`] and
    /// [`Error::InvalidOption`] when there are too few; errors of the file.
    pub(super) fn read(data: &RowData, base: &Path, holdout: usize, seed: u64) -> Result<Self> {
        let path = base.join(&data.path);
        let file = DataFile::read(&path)?;
        let folder = path.parent().unwrap_or(Path::new(".")).to_path_buf();
        let rows = file.json_lines::<RawRow>()?.into_iter();
        let rows = rows.map(|line| row(line, &path, &folder));
        let mut rows = rows.collect::<Result<Vec<Row>>>()?;
        if rows.is_empty() {
            let detail = "there is no row in this file".to_string();
            return Err(Error::EmptyData { path, detail });
        }
        if holdout >= rows.len() {
            let found = rows.len();
            let detail = format!("expected fewer than the {found} rows, found {holdout}");
            return Err(Error::option("validation_pictures", detail));
        }
        Rng::labelled(seed, "holdout").shuffle(&mut rows);
        let training = rows.split_off(holdout);
        Ok(Self {
            sha256: file.sha256().to_string(),
            training,
            kept_out: rows,
            path,
            seed,
        })
    }

    /// The file's name and hash.
    pub(super) fn hash(&self) -> (String, String) {
        (self.name(), self.sha256.clone())
    }

    /// The file's name.
    pub(super) fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or(self.path.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// The rows that are kept out of training.
    pub(super) fn kept_out(&self) -> &[Row] {
        &self.kept_out
    }

    /// Rows `first..first + count` of an endless stream in which every row comes once before any comes
    /// again.
    pub(super) fn stream(&self, first: u64, count: usize) -> Vec<&Row> {
        let all = self.training.len() as u64;
        let mut order: (u64, Vec<&Row>) = (u64::MAX, Vec::new());
        let mut rows = Vec::with_capacity(count);
        for place in first..first + count as u64 {
            let round = place / all;
            if order.0 != round {
                order = (round, self.training.iter().collect());
                Rng::labelled(self.seed, &format!("round {round}")).shuffle(&mut order.1);
            }
            rows.extend(order.1.get((place % all) as usize).copied());
        }
        rows
    }

    /// Every text of the rows, to train a tokenizer on.
    pub(super) fn texts(&self) -> Vec<String> {
        let messages = self.training.iter().flat_map(|row| &row.messages);
        messages.flat_map(texts).collect()
    }

    /// The pictures of a row.
    ///
    /// # Errors
    /// [`Error::Data`] with the line when one cannot be read.
    pub(super) fn pictures(&self, row: &Row) -> Result<Vec<Picture>> {
        let open = |path: &PathBuf| {
            let picture = Picture::open(path, &DecodeOptions::default());
            picture.map_err(|e| self.error(row, format!("{}: {e}", path.display())))
        };
        row.pictures.iter().map(open).collect()
    }

    /// What is wrong with a row.
    pub(super) fn error(&self, row: &Row, detail: impl Into<String>) -> Error {
        Error::data(&self.path, row.line, detail)
    }
}

/// A row with the path of every picture.
fn row(JsonLine { line, row }: JsonLine<RawRow>, file: &Path, folder: &Path) -> Result<Row> {
    let wrong = |detail: String| Error::data(file, line, detail);
    let given = match row.images {
        None => Vec::new(),
        Some(Several::One(path)) => vec![path],
        Some(Several::Many(paths)) => paths,
    };
    let mut given = given.into_iter();
    let mut pictures = Vec::new();
    for part in row.messages.iter().flat_map(parts) {
        if part.kind() == PartKind::Image {
            let own = part.fields().get("image").and_then(Value::as_str);
            let path = own.map(PathBuf::from).or_else(|| given.next());
            let path = path.ok_or_else(|| wrong("a picture without a file".into()))?;
            pictures.push(folder.join(path));
        }
    }
    if let Some(path) = given.next() {
        let detail = format!(
            "no place in the messages for the picture {}",
            path.display()
        );
        return Err(wrong(detail));
    }
    if let Some(missing) = pictures.iter().find(|path| !path.is_file()) {
        return Err(wrong(format!("no picture file {}", missing.display())));
    }
    Ok(Row {
        line,
        messages: row.messages,
        pictures,
    })
}

fn parts(message: &Message) -> &[Part] {
    match &message.content {
        Some(Content::Parts(parts)) => parts,
        _ => &[],
    }
}

fn texts(message: &Message) -> Vec<String> {
    match &message.content {
        Some(Content::Text(text)) => vec![text.clone()],
        Some(Content::Parts(parts)) => {
            let texts = parts.iter().filter_map(|part| part.fields().get("text"));
            texts
                .filter_map(Value::as_str)
                .map(str::to_string)
                .collect()
        }
        _ => Vec::new(),
    }
}
