//! A study as files: tables, pictures, and one page that needs no other file.
//!
//! Pictures are SVG, which every browser and vector program opens; with the feature `png` they are
//! written as pixels as well.

mod html;
#[cfg(feature = "png")]
mod png;
mod summary;
mod svg;
mod tables;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::study::{LayerStudy, Study};

/// What a report says about where its numbers come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportInfo {
    /// The encoder, by name or folder.
    pub model: String,
    /// Where the pairs come from.
    pub pairs: String,
    /// The command that makes the report again; may be empty.
    pub command: String,
    /// Anything else worth knowing, such as how many rows of a file were left out.
    pub notes: Vec<String>,
}

/// The share of each dimension in a score, for the pairs of one property. They add up to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DimensionShares {
    /// The property.
    pub name: String,
    /// One entry per dimension.
    pub shares: Vec<f64>,
}

/// A study with what was found beside it, to be written.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Report<'a> {
    study: &'a Study,
    info: &'a ReportInfo,
    layers: &'a [LayerStudy],
    shares: &'a [DimensionShares],
}

impl<'a> Report<'a> {
    /// A report on `study`.
    pub fn new(study: &'a Study, info: &'a ReportInfo) -> Self {
        Self {
            study,
            info,
            layers: &[],
            shares: &[],
        }
    }

    /// Adds how accuracies rise from layer to layer of the encoder, first layer first.
    pub fn with_layers(mut self, layers: &'a [LayerStudy]) -> Self {
        self.layers = layers;
        self
    }

    /// Adds which dimensions scores of late interaction are from.
    pub fn with_shares(mut self, shares: &'a [DimensionShares]) -> Self {
        self.shares = shares;
        self
    }

    /// The page, in itself complete.
    pub fn to_html(&self) -> String {
        html::page(self)
    }

    /// Writes the report to `folder`, which is made where it is missing: `report.html` to read,
    /// `study.json` with everything, a CSV file per table and an SVG file per picture, with the feature
    /// `png` also a PNG. Files of these names are replaced one by one, each only once it is complete. The
    /// paths of all files.
    ///
    /// # Errors
    /// When the folder or a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        write_all(folder, self.files()?)
    }

    fn files(&self) -> Result<Vec<File>> {
        let study = self.study;
        let mut files = vec![
            File::text("report.html", self.to_html()),
            File::text("study.json", self.json()?),
            File::text("properties.csv", tables::properties(study)),
            File::text("dimensions.csv", tables::dimensions(study)),
            File::text("climb.csv", tables::climb(study)),
        ];
        let mut pictures = vec![("heat-map".to_owned(), html::heat_map(study))];
        if study.properties.len() > 1 {
            files.push(File::text("cross.csv", tables::cross(study)));
        }
        if let Some(classifier) = &study.classifier {
            files.push(File::text("classifier.csv", tables::classifier(classifier)));
        }
        if !self.layers.is_empty() {
            files.push(File::text("layers.csv", tables::layers(self.layers)));
            let curves = html::layer_curves(study, self.layers);
            pictures.push(("layers".to_owned(), curves));
        }
        if !self.shares.is_empty() {
            files.push(File::text("shares.csv", tables::shares(self.shares)));
            pictures.push(("shares".to_owned(), html::share_map(self.shares)));
        }
        for (at, property) in study.properties.iter().enumerate() {
            let name = file_name(at, &property.name);
            pictures.push((format!("{name}-top"), html::top_dimensions(property)));
            let climb = html::climb(property, &study.options);
            pictures.push((format!("{name}-climb"), climb));
        }
        for (name, picture) in pictures {
            #[cfg(feature = "png")]
            files.push(File {
                name: format!("{name}.png"),
                content: png::of_svg(&picture)?,
            });
            files.push(File::text(format!("{name}.svg"), picture));
        }
        Ok(files)
    }

    fn json(&self) -> Result<String> {
        json(&serde_json::json!({
            "info": self.info,
            "study": self.study,
            "layers": self.layers,
            "shares": self.shares,
        }))
    }
}

impl Study {
    /// Writes the study alone to `folder`, see [`Report::write`].
    ///
    /// # Errors
    /// As [`Report::write`].
    pub fn write(&self, folder: &Path, info: &ReportInfo) -> Result<Vec<PathBuf>> {
        Report::new(self, info).write(folder)
    }
}

/// A file of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
struct File {
    name: String,
    content: Vec<u8>,
}

impl File {
    fn text(name: impl Into<String>, content: String) -> Self {
        Self {
            name: name.into(),
            content: content.into_bytes(),
        }
    }
}

fn json(value: &serde_json::Value) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// A name for files that says what it belongs to and that any file system takes.
fn file_name(at: usize, name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .collect();
    let short: String = plain.chars().take(40).collect();
    format!("{:02}-{short}", at + 1)
}

fn write_all(folder: &Path, files: Vec<File>) -> Result<Vec<PathBuf>> {
    std::fs::create_dir_all(folder).map_err(|source| Error::io(folder, source))?;
    let mut paths = Vec::with_capacity(files.len());
    for file in files {
        let path = folder.join(&file.name);
        write_whole(&path, &file.content).map_err(|source| Error::io(&path, source))?;
        paths.push(path);
    }
    Ok(paths)
}

/// Puts a file in place only once all of it is on disk.
fn write_whole(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.partial", std::process::id()));
    let partial = path.with_file_name(name);
    let written = std::fs::File::create(&partial).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    let placed = written.and_then(|()| std::fs::rename(&partial, path));
    if placed.is_err() {
        // The first error is the one to tell; what is left lying there is only a leftover.
        let _ = std::fs::remove_file(&partial);
    }
    placed
}
