//! A study as files: tables, pictures, and one page that needs no other file.
//!
//! Pictures are SVG, which every browser and vector program opens; turning them into pixels would
//! need fonts and an image library.

mod html;
mod summary;
mod svg;
mod tables;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::study::Study;

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

/// A study per layer of one encoder, first layer first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerStudy {
    /// What the layer is called, such as "3" or "final".
    pub layer: String,
    /// Its study.
    pub study: Study,
}

/// A file of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
struct File {
    name: String,
    content: String,
}

impl File {
    fn new(name: impl Into<String>, content: String) -> Self {
        Self {
            name: name.into(),
            content,
        }
    }
}

impl Study {
    /// Writes the study to `folder`, which is made where it is missing: `report.html` to read,
    /// `study.json` with everything, a CSV file per table and an SVG file per picture. Files of these
    /// names are replaced one by one, each only once it is complete. The paths of all files.
    ///
    /// # Errors
    /// When the folder or a file cannot be written.
    pub fn write(&self, folder: &Path, info: &ReportInfo) -> Result<Vec<PathBuf>> {
        write_all(folder, files(self, info, &[])?)
    }

    /// [`write`](Self::write)s the study with a picture and a table of how accuracies rise from layer
    /// to layer of the encoder.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub fn write_with_layers(
        &self,
        folder: &Path,
        info: &ReportInfo,
        layers: &[LayerStudy],
    ) -> Result<Vec<PathBuf>> {
        write_all(folder, files(self, info, layers)?)
    }

    /// The page of a report, in itself complete.
    pub fn to_html(&self, info: &ReportInfo) -> String {
        html::page(self, info, &[])
    }
}

fn files(study: &Study, info: &ReportInfo, layers: &[LayerStudy]) -> Result<Vec<File>> {
    let mut files = vec![
        File::new("report.html", html::page(study, info, layers)),
        File::new(
            "study.json",
            json(&serde_json::json!({"info": info, "study": study}))?,
        ),
        File::new("properties.csv", tables::properties(study)),
        File::new("dimensions.csv", tables::dimensions(study)),
        File::new("climb.csv", tables::climb(study)),
        File::new("heat-map.svg", html::heat_map(study)),
    ];
    if study.properties.len() > 1 {
        files.push(File::new("cross.csv", tables::cross(study)));
    }
    if let Some(classifier) = &study.classifier {
        files.push(File::new("classifier.csv", tables::classifier(classifier)));
    }
    if !layers.is_empty() {
        files.push(File::new("layers.csv", tables::layers(layers)));
        files.push(File::new("layers.svg", html::layer_curves(study, layers)));
    }
    for (at, property) in study.properties.iter().enumerate() {
        let name = file_name(at, &property.name);
        files.push(File::new(
            format!("{name}-top.svg"),
            html::top_dimensions(property),
        ));
        files.push(File::new(
            format!("{name}-climb.svg"),
            html::climb(property, &study.options),
        ));
    }
    Ok(files)
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
fn write_whole(path: &Path, content: &str) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.partial", std::process::id()));
    let partial = path.with_file_name(name);
    let written = std::fs::File::create(&partial).and_then(|mut file| {
        file.write_all(content.as_bytes())?;
        file.sync_all()
    });
    let placed = written.and_then(|()| std::fs::rename(&partial, path));
    if placed.is_err() {
        // The first error is the one to tell; what is left lying there is only a leftover.
        let _ = std::fs::remove_file(&partial);
    }
    placed
}
