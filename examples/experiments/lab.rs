//! A folder in which runs are done once: training, asking a teacher, scoring, merging. A second call with
//! the same settings finds the result there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lfm2::Cancel;
use lfm2_train::data::DataFile;
use lfm2_train::merge::{MergeRecipe, Method, merge_checkpoints};
use lfm2_train::{
    Resume, TeachOptions, TrainEvent, TrainOptions, TrainProgress, Trainer, score, teach,
};
use serde_json::{Value, json};

/// Where runs are kept, what they learn from, and how many threads they take.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) work: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) threads: usize,
}

impl Lab {
    /// Does `work` for the folder `name` unless it was done with the same `settings`. A kill leaves no
    /// trace of having been finished.
    fn once(
        &self,
        name: &str,
        settings: &Value,
        work: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let folder = self.work.join(name);
        let done = folder.join("done.json");
        let text = format!("{settings:#}\n");
        if std::fs::read_to_string(&done).is_ok_and(|before| before == text) {
            return Ok(folder);
        }
        std::fs::create_dir_all(&folder)?;
        println!("{name}");
        work(&folder).with_context(|| format!("in {}", folder.display()))?;
        std::fs::write(&done, text)?;
        Ok(folder)
    }

    /// Trains as the keys of a run's configuration say and returns the checkpoint. A run that was
    /// interrupted goes on.
    pub(crate) fn train(&self, name: &str, settings: &Value) -> Result<PathBuf> {
        let folder = self.once(name, settings, |folder| {
            let options: TrainOptions = serde_json::from_value(settings.clone())?;
            let (data, resume) = (&self.data, Resume::Continue);
            let mut trainer = Trainer::open(options, data, folder, resume, self.threads)?;
            trainer.train(&Show, &Cancel::new())?;
            Ok(trainer.export(&folder.join("checkpoint"))?)
        })?;
        Ok(folder.join("checkpoint"))
    }

    /// The lines of a run's log.
    pub(crate) fn metrics(&self, name: &str) -> Result<Vec<Value>> {
        let path = self.work.join(name).join("metrics.jsonl");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        let lines = text.lines().map(serde_json::from_str);
        Ok(lines.collect::<Result<_, _>>()?)
    }

    /// Asks `teacher` about the data of a run, and returns the folder of its answers.
    pub(crate) fn teach(&self, name: &str, settings: &Value, teacher: &Path) -> Result<PathBuf> {
        let folder = self.once(name, settings, |folder| {
            let options: TrainOptions = serde_json::from_value(settings.clone())?;
            let out = folder.join("store");
            if out.exists() {
                std::fs::remove_dir_all(&out)?;
            }
            let (cancel, asked) = (Cancel::new(), TeachOptions::new("teacher"));
            let how = (self.threads, &cancel);
            Ok(teach(
                &options,
                &self.data,
                (teacher, &out),
                &asked,
                how,
                &mut |_, _| {},
            )?)
        })?;
        Ok(folder.join("store"))
    }

    /// How hard the documents of a run's first source are for `models`, as a file.
    pub(crate) fn score(
        &self,
        name: &str,
        settings: &Value,
        models: &[PathBuf],
    ) -> Result<PathBuf> {
        let folder = self.once(name, settings, |folder| {
            let options: TrainOptions = serde_json::from_value(settings.clone())?;
            let cancel = Cancel::new();
            let how = (self.threads, &cancel);
            let scores = score(&options, &self.data, 0, models, how, &mut |_, _| {})?;
            Ok(std::fs::write(
                folder.join("scores.json"),
                serde_json::to_string(&scores)?,
            )?)
        })?;
        Ok(folder.join("scores.json"))
    }

    /// Merges `models`, which were fine-tuned from `base`. For a soup, weights are divided by their sum.
    pub(crate) fn merge(
        &self,
        name: &str,
        method: Method,
        base: &Path,
        models: &[(PathBuf, f64)],
        seed: u64,
    ) -> Result<PathBuf> {
        let settings = json!({
            "method": serde_json::to_value(method)?, "base": base, "models": models, "seed": seed,
        });
        let folder = self.once(name, &settings, |folder| {
            let merged = folder.join("checkpoint");
            if merged.exists() {
                std::fs::remove_dir_all(&merged)?;
            }
            let sum: f64 = match method {
                Method::Soup => models.iter().map(|(_, weight)| weight).sum(),
                _ => 1.0,
            };
            let weighted = models
                .iter()
                .map(|(model, weight)| (model.clone(), weight / sum));
            let recipe = MergeRecipe {
                method,
                base: method.needs_base().then(|| base.to_path_buf()),
                models: weighted.collect(),
                seed,
                dtype: None,
            };
            merge_checkpoints(&recipe, &merged, &mut |_| {})?;
            Ok(())
        })?;
        Ok(folder.join("checkpoint"))
    }

    /// The last loss of the kept-out part of a run's source.
    pub(crate) fn held_out(&self, name: &str, source: usize) -> Result<f64> {
        let metrics = self.metrics(name)?;
        let validations = metrics.iter().filter(|line| line["kind"] == "validation");
        let validations: Vec<&Value> = validations.collect();
        let last = validations.last().map(|line| &line["step"]);
        let mut of_last = validations
            .iter()
            .filter(|line| Some(&line["step"]) == last);
        let loss = of_last.nth(source).and_then(|line| line["loss"].as_f64());
        loss.with_context(|| format!("no validation in the log of {name}"))
    }

    /// The first `count` documents or rows of a data file, as a file of their own.
    pub(crate) fn part(&self, file: &str, count: usize) -> Result<PathBuf> {
        let rows = self.rows(file)?;
        let kept = rows.get(..count).unwrap_or(&rows);
        self.write(&format!("first-{count}-of-{file}"), kept)
    }

    /// The last `count` rows of a data file, as a file of their own.
    pub(crate) fn end(&self, file: &str, count: usize) -> Result<PathBuf> {
        let rows = self.rows(file)?;
        let kept = rows
            .get(rows.len().saturating_sub(count)..)
            .unwrap_or(&rows);
        self.write(&format!("last-{count}-of-{file}"), kept)
    }

    /// The documents or rows of a data file.
    pub(crate) fn rows(&self, file: &str) -> Result<Vec<String>> {
        let data = DataFile::read(&self.data.join(file))?;
        if file.contains(".jsonl") {
            let rows = data.json_lines::<Value>()?;
            return Ok(rows.into_iter().map(|line| line.row.to_string()).collect());
        }
        Ok(data.blocks().map(|text| format!("{text}\n")).collect())
    }

    /// Writes a data file unless it is there.
    pub(crate) fn write(&self, name: &str, rows: &[String]) -> Result<PathBuf> {
        let path = self.work.join("data").join(name.trim_end_matches(".gz"));
        if !path.exists() {
            std::fs::create_dir_all(self.work.join("data"))?;
            std::fs::write(&path, rows.join("\n") + "\n")
                .with_context(|| format!("writing {}", path.display()))?;
        }
        Ok(path)
    }
}

/// Tells how a run goes, a line now and then.
struct Show;

impl TrainProgress for Show {
    fn event(&self, event: &TrainEvent<'_>) {
        match event {
            TrainEvent::Step(report) if report.step.is_multiple_of(100) => {
                let speed = report.tokens as f64 / report.seconds;
                println!(
                    "  step {}: loss {:.4}, {speed:.0} tokens/s",
                    report.step, report.loss
                );
            }
            TrainEvent::Validation(reports) => {
                for report in *reports {
                    println!("  {}: loss {:.4}", report.source, report.loss);
                }
            }
            _ => {}
        }
    }
}
