//! `lfm2 eval wer`: transcripts beside what was said.

use std::time::Instant;

use anyhow::Result;
use lfm2_train::speech::SpokenRows;
use lfm2_train::{WerReport, WordEdits, word_error_rate};

use crate::args::WerArgs;
use crate::ui::interrupt::Interrupt;
use crate::ui::{format, json_line, open, progress, screen};

pub(crate) fn run(args: &WerArgs) -> Result<()> {
    let rows = SpokenRows::read(&args.data)?;
    let limit = args.limit.map_or(usize::MAX, usize::from);
    let interrupt = Interrupt::install()?;
    let (model, _) = open::speech_model(&args.model)?;
    let bar = progress::bar(rows.rows().len().min(limit) as u64, "clips");
    let started = Instant::now();
    let (mut wrong, mut said) = (0, 0);
    let report = word_error_rate(&model, &rows, limit, &interrupt.watch(), |clip| {
        wrong += clip.edits.total();
        said += clip.row.text.split_whitespace().count();
        bar.inc(1);
        bar.set_message(format!("{:.1} % wrong", percent(wrong, said)));
        if args.verbose && clip.edits.total() > 0 {
            let (path, expected) = (clip.row.audio.display(), &clip.row.text);
            let line = format!("{path}: expected {expected:?}, found {:?}", clip.output);
            bar.suspend(|| eprintln!("{line}"));
        }
    })?;
    bar.finish_and_clear();
    match args.json {
        true => json_line(&report),
        false => Ok(screen::print(&text(
            &report,
            started.elapsed().as_secs_f64(),
        ))?),
    }
}

fn percent(part: usize, whole: usize) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

/// The report for people.
fn text(report: &WerReport, seconds: f64) -> String {
    let WordEdits {
        replaced,
        added,
        missing,
        ..
    } = report.edits;
    let mut rows = vec![["words", "replaced", "added", "missing", "error rate"].map(str::to_owned)];
    rows.push([
        report.words.to_string(),
        replaced.to_string(),
        added.to_string(),
        missing.to_string(),
        format!("{:.2} %", 100.0 * report.word_error_rate),
    ]);
    let rows: Vec<Vec<String>> = rows.into_iter().map(Vec::from).collect();
    format!(
        "{}\n{} of {} clips right ({:.1} %), {:.0} s of sound in {seconds:.1} s\n",
        format::table(&rows),
        report.right_clips,
        report.clips,
        percent(report.right_clips, report.clips),
        report.seconds,
    )
}
