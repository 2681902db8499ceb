//! `lfm2 eval vl`: pictures of shapes, and questions on them.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use lfm2::hub::Overwrite;
use lfm2_train::shapes::{Exam, ExamAnswer, ExamReport, Examinee, Topic};
use serde_json::json;

use super::eval_rows::{Identity, stopped};
use crate::args::VlArgs;
use crate::exit::Doing;
use crate::ui::interrupt::Interrupt;
use crate::ui::{format, json_line, open, progress, screen};

pub(crate) fn run(args: &VlArgs) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let (checkpoint, name) = open::picture_checkpoint(&args.model)?;
    let load = open::load(args.model.device)?;
    let model = Examinee::from_checkpoint(&checkpoint, load).doing("opening", name)?;
    let mut album = args.save.as_deref().map(Album::new).transpose()?;

    let mut exam = Exam::default();
    exam.pictures = args.count.into();
    exam.seed = args.seed;
    exam.batch = args.batch.into();
    let bar = progress::bar(exam.pictures as u64, "pictures");
    let started = Instant::now();
    let (mut done, mut right) = (0_usize, 0_usize);
    let identity = Identity::of(&checkpoint, &args.model.device)?;
    let settings = json!({"seed": exam.seed, "max_new_tokens": exam.max_new_tokens});
    let keep = args.keep.as_deref();
    let mut log = identity.log(keep, "vl", "shapes", settings)?;
    let watch = interrupt.watch();
    let report = model.examine(&exam, (&mut log, &watch), |answer| {
        done += 1;
        right += usize::from(answer.right);
        bar.set_position(answer.picture as u64 + 1);
        bar.set_message(format!("{:.1} % right", 100.0 * right as f64 / done as f64));
        if let Some(album) = &mut album {
            album.add(answer);
        }
        if args.verbose && !answer.right {
            let (picture, question) = (answer.picture, answer.question);
            let expected = &question.answer;
            let line = format!(
                "picture {picture}: {} expected {expected:?}, found {:?}",
                question.text, answer.output
            );
            bar.suspend(|| eprintln!("{line}"));
        }
    });
    let report = report.map_err(|error| stopped(error, keep))?;
    bar.finish_and_clear();
    album.map(Album::finish).transpose()?;
    match args.json {
        true => json_line(&report),
        false => Ok(screen::print(&text(
            &report,
            started.elapsed().as_secs_f64(),
        ))?),
    }
}

/// A folder of the pictures and what was said about them.
struct Album {
    folder: PathBuf,
    answers: String,
    last: Option<usize>,
    failed: Option<anyhow::Error>,
}

impl Album {
    fn new(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).doing("creating", folder.display())?;
        Ok(Self {
            folder: folder.to_owned(),
            answers: String::new(),
            last: None,
            failed: None,
        })
    }

    /// Notes the answer, and writes the picture unless the last answer was about the same one. After a failure
    /// nothing more is written.
    fn add(&mut self, answer: &ExamAnswer<'_>) {
        if self.failed.is_none() {
            self.failed = self.note(answer).err();
        }
    }

    fn note(&mut self, answer: &ExamAnswer<'_>) -> Result<()> {
        let name = format!("{:04}.png", answer.picture);
        if self.last.replace(answer.picture) != Some(answer.picture) {
            let path = self.folder.join(&name);
            answer.scene.draw()?.save(&path, Overwrite::Replace)?;
        }
        let line = json!({
            "picture": name,
            "topic": answer.question.topic,
            "question": answer.question.text,
            "expected": answer.question.answer,
            "answer": answer.output,
            "right": answer.right,
        });
        self.answers.push_str(&format!("{line}\n"));
        Ok(())
    }

    /// Writes the answers; the first failure of all, if there was one.
    fn finish(self) -> Result<()> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let path = self.folder.join("answers.jsonl");
        std::fs::write(&path, self.answers).doing("writing", path.display())
    }
}

/// The report for people.
fn text(report: &ExamReport, seconds: f64) -> String {
    let head = ["topic", "questions", "right", "accuracy"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for (topic, score) in &report.topics {
        rows.push(vec![
            topic.name().to_owned(),
            score.questions.to_string(),
            score.right.to_string(),
            format!("{:.1} %", 100.0 * score.accuracy),
        ]);
    }
    let mut text = format!(
        "{} pictures, seed {}\n\n{}",
        format::count(report.pictures as u64),
        report.seed,
        format::table(&rows)
    );
    let boxes = report.topics.get(&Topic::Box);
    if let Some(overlap) = boxes.and_then(|score| score.mean_overlap) {
        let percent = 100.0 * overlap;
        text.push_str(&format!(
            "\nboxes overlap the right ones by {percent:.0} % on average\n"
        ));
    }
    let questions: usize = report.topics.values().map(|score| score.questions).sum();
    let speed = questions as f64 / seconds;
    text.push_str(&format!(
        "{questions} answers in {seconds:.1} s, {speed:.0} per second\n"
    ));
    text
}
