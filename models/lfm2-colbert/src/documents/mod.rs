//! Documents from files: plain text, Markdown, and JSON lines.
//!
//! A [`Listing`] says which files there are, [`Documents`] reads them one at a time. What cannot be
//! text is skipped with a note, unless somebody named that very file. How documents are cut for a
//! model is the matter of [`chunk`](crate::Chunker).

mod listing;
pub(crate) mod markdown;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use lfm2_hub::Error as HubError;
use serde_json::{Map, Value};

use crate::Result;
use crate::lines::Lines;
use listing::{ListedFile, Origin};
use markdown::Outline;

pub use listing::Listing;

/// How folders and files are read.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ReadOptions {
    /// Bytes that a file of text may have; a larger one is skipped, or refused when it was named.
    /// Files of JSON lines may be of any size.
    pub max_file_bytes: u64,
    /// Files that may be read in all.
    pub max_files: usize,
    /// How deep folders may nest.
    pub max_depth: usize,
    /// Folders that are left out, such as the index that is being built.
    pub excluded: Vec<PathBuf>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            max_file_bytes: 64 << 20,
            max_files: 1_000_000,
            max_depth: 64,
            excluded: Vec::new(),
        }
    }
}

impl ReadOptions {
    /// Leaves out a folder and all below it.
    pub fn without(mut self, folder: impl Into<PathBuf>) -> Self {
        self.excluded.push(folder.into());
        self
    }
}

/// How a text is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TextFormat {
    /// Paragraphs only.
    Plain,
    /// Headings, front matter, blocks of code.
    Markdown,
}

/// A document: a file, or a line of a file of JSON lines.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct TextDocument {
    /// The path, with `/` between folders, or the id of the line.
    pub id: String,
    /// The title: of the line, of the front matter, the first heading, or the name of the file.
    pub title: String,
    /// The whole text.
    pub text: String,
    /// How the text is divided.
    pub format: TextFormat,
    /// Whatever else a line says about the document.
    pub fields: Map<String, Value>,
}

impl TextDocument {
    /// A document of plain text.
    pub fn new(id: impl Into<String>, title: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            title: title.into(),
            text: text.into(),
            format: TextFormat::Plain,
            fields: Map::new(),
        }
    }

    /// A document of Markdown, whose title follows from the text, else from the end of the id.
    pub fn markdown(id: impl Into<String>, text: impl Into<String>) -> Self {
        let (id, text) = (id.into(), text.into());
        let title = Outline::markdown(&text).title;
        Self {
            title: title.unwrap_or_else(|| name_of(&id)),
            format: TextFormat::Markdown,
            ..Self::new(id, "", text)
        }
    }

    /// The parts of the text.
    pub(crate) fn outline(&self) -> Outline {
        match self.format {
            TextFormat::Plain => Outline::plain(&self.text),
            TextFormat::Markdown => Outline::markdown(&self.text),
        }
    }
}

/// The last part of a path without its extension.
fn name_of(path: &str) -> String {
    let name = Path::new(path).file_stem().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// A file that was not read, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The file or folder.
    pub path: PathBuf,
    /// Why, in a few words.
    pub reason: String,
}

/// What a step through the files came to.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Found {
    /// A document.
    Document(Box<TextDocument>),
    /// Something that is no document.
    Skipped(Skipped),
}

impl From<TextDocument> for Found {
    fn from(document: TextDocument) -> Self {
        Self::Document(Box::new(document))
    }
}

/// Reads the documents of a [`Listing`], one file or line at a time.
///
/// Items are errors for a file of JSON lines with a broken line, which ends that file, and for a
/// file that was named and cannot be read.
#[derive(Debug)]
pub struct Documents {
    files: std::vec::IntoIter<ListedFile>,
    skipped: std::vec::IntoIter<Skipped>,
    lines: Option<(Lines, String)>,
    max_file_bytes: u64,
    bytes: u64,
}

impl Documents {
    fn new(listing: Listing) -> Self {
        Self {
            files: listing.files.into_iter(),
            skipped: listing.skipped.into_iter(),
            lines: None,
            max_file_bytes: listing.options.max_file_bytes,
            bytes: 0,
        }
    }

    /// The bytes that were read so far, of [`Listing::bytes`].
    pub fn bytes_read(&self) -> u64 {
        let lines = self
            .lines
            .as_ref()
            .map_or(0, |(lines, _)| lines.bytes_read());
        self.bytes + lines
    }

    /// The next line of the file of JSON lines at hand.
    fn next_line(&mut self) -> Option<Result<Found>> {
        let (lines, id) = self.lines.as_mut()?;
        match document_of_line(lines, id) {
            Ok(Some(document)) => Some(Ok(Found::Document(Box::new(document)))),
            Ok(None) => {
                self.bytes += lines.bytes_read();
                self.lines = None;
                None
            }
            Err(error) => {
                self.bytes += lines.bytes_read();
                self.lines = None;
                Some(Err(error))
            }
        }
    }

    /// The document in a file; `None` for a file of several, whose lines come next.
    fn open(&mut self, file: ListedFile) -> Result<Option<Found>> {
        let id = id_of(&file.path);
        let extension = file.path.extension().map(|e| e.to_ascii_lowercase());
        let extension = extension.as_ref().and_then(|e| e.to_str()).unwrap_or("");
        if matches!(extension, "jsonl" | "ndjson") {
            self.lines = Some((Lines::open(&file.path)?, id));
            return Ok(None);
        }
        let text = match read_text(&file, self.max_file_bytes)? {
            Ok(text) => text,
            Err(reason) if file.origin == Origin::Named => {
                return Err(HubError::invalid_file(&file.path, reason).into());
            }
            Err(reason) => {
                let path = file.path;
                return Ok(Some(Found::Skipped(Skipped { path, reason })));
            }
        };
        let document = match extension {
            "md" | "markdown" => TextDocument::markdown(id, text),
            _ => {
                let title = name_of(&id);
                TextDocument::new(id, title, text)
            }
        };
        Ok(Some(Found::Document(Box::new(document))))
    }
}

impl Iterator for Documents {
    type Item = Result<Found>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(skipped) = self.skipped.next() {
            return Some(Ok(Found::Skipped(skipped)));
        }
        loop {
            if let Some(found) = self.next_line() {
                return Some(found);
            }
            let file = self.files.next()?;
            let bytes = file.bytes;
            let opened = self.open(file);
            if self.lines.is_none() {
                self.bytes += bytes;
            }
            if let Some(found) = opened.transpose() {
                return Some(found);
            }
        }
    }
}

/// The name of a file as a document: the same on every system.
fn id_of(path: &Path) -> String {
    let path = path.to_string_lossy();
    let path = match std::path::MAIN_SEPARATOR {
        '/' => path.into_owned(),
        separator => path.replace(separator, "/"),
    };
    path.strip_prefix("./").map_or(path.clone(), str::to_owned)
}

/// The text of a file, or why it has none.
fn read_text(file: &ListedFile, limit: u64) -> Result<Result<String, String>> {
    let too_large = || Ok(Err(format!("more than {limit} bytes")));
    if file.bytes > limit {
        return too_large();
    }
    let mut bytes = Vec::new();
    let read = File::open(&file.path).and_then(|open| open.take(limit + 1).read_to_end(&mut bytes));
    match (read, file.origin) {
        (Ok(_), _) => {}
        (Err(error), Origin::Named) => return Err(HubError::io(&file.path, error).into()),
        (Err(error), Origin::Found) => return Ok(Err(error.to_string())),
    }
    if bytes.len() as u64 > limit {
        return too_large();
    }
    if bytes.contains(&0) {
        return Ok(Err("binary".to_owned()));
    }
    let text = String::from_utf8(bytes)
        .map_err(|error| format!("not utf-8 at byte {}", error.utf8_error().valid_up_to()));
    Ok(text.map(|text| match text.strip_prefix('\u{FEFF}') {
        Some(rest) => rest.to_owned(),
        None => text,
    }))
}

/// The document of the next line; without an id of its own it is known by file and line.
fn document_of_line(lines: &mut Lines, file: &str) -> Result<Option<TextDocument>> {
    let Some((number, mut object)) = lines.read_object()? else {
        return Ok(None);
    };
    let id = lines.id(&mut object)?;
    let title = lines.text(&mut object, "title")?;
    let text = lines.text(&mut object, "text")?;
    if title.is_none() && text.is_none() {
        return Err(lines.wrong("\"text\" is missing"));
    }
    let id = id.unwrap_or_else(|| format!("{file}:{number}"));
    Ok(Some(TextDocument {
        fields: object,
        ..TextDocument::new(id, title.unwrap_or_default(), text.unwrap_or_default())
    }))
}

#[cfg(test)]
mod tests;
