//! `lfm2 eval vl`: pictures of shapes, and questions on them.

use std::time::Instant;

use anyhow::Result;
use lfm2::hub::Checkpoint;
use lfm2_train::shapes::{Exam, ExamReport, Examinee, Topic};
use serde_json::json;

use super::eval_rows::{Identity, stopped};
use crate::args::VlArgs;
use crate::exit::{Doing, invalid};
use crate::ui::interrupt::Interrupt;
use crate::ui::{format, json_line, open, progress, screen};

pub(crate) fn run(args: &VlArgs) -> Result<()> {
    let Some(source) = &args.model.model else {
        return Err(invalid("give a model that reads pictures with --model"));
    };
    let interrupt = Interrupt::install()?;
    let checkpoint = Checkpoint::open(source, &open::files(args.model.offline));
    let checkpoint = checkpoint.doing("opening", source)?;
    let load = open::load(args.model.device)?;
    let model = Examinee::from_checkpoint(&checkpoint, load).doing("opening", source)?;

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
    match args.json {
        true => json_line(&report),
        false => Ok(screen::print(&text(
            &report,
            started.elapsed().as_secs_f64(),
        ))?),
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
