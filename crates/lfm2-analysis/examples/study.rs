//! Studies embeddings that lie in files, and writes the report.
//!
//! ```sh
//! cargo run --release -p lfm2-analysis --example study -- EMBEDDINGS OUT [--published]
//! ```
//!
//! Each `EMBEDDINGS/NAME.safetensors` holds the property NAME: `first` and `second` of shape
//! `(pairs, dims)` in f32 and, for a split by other means, lists of rows `train_index` and
//! `test_index` in i64.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use lfm2_analysis::{
    PairedEmbeddings, Property, ReportInfo, Split, Study, StudyEvent, StudyOptions, StudyProgress,
};
use safetensors::SafeTensors;

/// What a file says of a property.
struct Loaded {
    name: String,
    first: Vec<f32>,
    second: Vec<f32>,
    dims: usize,
    rows: Option<(Vec<usize>, Vec<usize>)>,
}

fn load(path: &Path) -> Result<Loaded> {
    let bytes = std::fs::read(path)?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let matrix = |name: &str| -> Result<(Vec<f32>, usize)> {
        let tensor = tensors.tensor(name)?;
        ensure!(
            tensor.shape().len() == 2,
            "{name}: shape {:?}",
            tensor.shape()
        );
        let values = tensor
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes));
        Ok((values.collect(), tensor.shape()[1]))
    };
    let rows = |name: &str| -> Result<Vec<usize>> {
        let data = tensors.tensor(name)?.data().as_chunks::<8>().0;
        data.iter()
            .map(|bytes| Ok(usize::try_from(i64::from_le_bytes(*bytes))?))
            .collect()
    };
    let (first, dims) = matrix("first")?;
    let stem = path.file_stem().context("a file without a name")?;
    Ok(Loaded {
        name: stem.to_string_lossy().into_owned(),
        first,
        second: matrix("second")?.0,
        dims,
        rows: match tensors.tensor("train_index") {
            Ok(_) => Some((rows("train_index")?, rows("test_index")?)),
            Err(_) => None,
        },
    })
}

struct Printed(Instant);

impl StudyProgress for Printed {
    fn event(&self, event: StudyEvent<'_>) {
        eprintln!("{:7.2}s {event:?}", self.0.elapsed().as_secs_f64());
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (folder, out, options) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..]
    {
        [folder, out] => (folder, out, StudyOptions::default()),
        [folder, out, "--published"] => (folder, out, StudyOptions::published()),
        _ => bail!("usage: study EMBEDDINGS OUT [--published]"),
    };
    let mut loaded = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.to_owned())? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            loaded.push(load(&path).with_context(|| path.display().to_string())?);
        }
    }
    loaded.sort_by(|a, b| a.name.cmp(&b.name));
    let mut properties = Vec::new();
    for loaded in &loaded {
        let embeddings =
            PairedEmbeddings::new(&loaded.name, &loaded.first, &loaded.second, loaded.dims)?;
        let property = Property::new(embeddings);
        properties.push(match &loaded.rows {
            Some((train, test)) => property.split(Split::from_rows(
                &loaded.name,
                embeddings.pairs(),
                train.clone(),
                test.clone(),
            )?),
            None => property,
        });
    }
    let start = Instant::now();
    let study = Study::run(
        &properties,
        &options,
        &Printed(start),
        &AtomicBool::new(false),
    )?;
    eprintln!("{:7.2}s in all", start.elapsed().as_secs_f64());
    let info = ReportInfo {
        model: folder.to_owned(),
        pairs: "the files of embeddings".to_owned(),
        ..ReportInfo::default()
    };
    study.write(Path::new(out), &info)?;
    Ok(())
}
