//! The figures as tables.

use super::Report;
use super::limits::{Limits, Machine};
use super::measure::Figures;
use super::ops::OpTime;
use super::speech;
use crate::ui::format::{bytes, count, table};

const NOTHING: &str = "-";

/// The whole report.
pub(super) fn report(report: &Report) -> String {
    let peak = report.peak_memory_bytes.map_or("unknown".to_owned(), bytes);
    let mut text = format!(
        "{}: {} parameters, {} threads\nloaded in {:.2} s, first token after {:.2} s, peak memory {peak}\nmedian of {}\n\n",
        report.model,
        count(report.parameters),
        report.threads,
        report.start.load_seconds,
        report.start.first_token_seconds,
        report.repeat
    );
    text.push_str(&figures(&report.tests));
    if let Some(machine) = &report.machine {
        text.push('\n');
        text.push_str(&self::machine(machine));
    }
    for test in &report.tests {
        let rows: Vec<&OpTime> = report
            .profile
            .iter()
            .filter(|op| op.test == test.test)
            .collect();
        if !rows.is_empty() {
            text.push('\n');
            text.push_str(&ops(&test.test, &rows));
        }
    }
    text
}

/// The figures of speech.
pub(super) fn speech(report: &speech::Report) -> String {
    let peak = report.peak_memory_bytes.map_or("unknown".to_owned(), bytes);
    let first = report.first_sound_seconds.map_or(String::new(), |first| {
        format!(", first sound after {first:.2} s")
    });
    let mut text = format!(
        "{}: {} parameters, {} threads\nloaded in {:.2} s, peak memory {peak}\nmedian of {}\n\n",
        report.model,
        count(report.parameters),
        report.threads,
        report.load_seconds,
        report.repeat,
    );
    let title = [report.task.name(), "calls", "ms each", "of real time"];
    let row = |part: &speech::PartFigures| {
        vec![
            part.part.name().to_owned(),
            part.calls.to_string(),
            milliseconds(part.seconds_each),
            format!("{:.3}", part.real_time_factor),
        ]
    };
    text.push_str(&with_title(&title, report.parts.iter().map(row)));
    text.push_str(&format!(
        "\na question of {:.1} s: first token after {:.2} s{first}\n{} tokens and {} frames in {:.2} s: {:.2} of real time\n",
        report.question_seconds,
        report.first_token_seconds,
        report.tokens,
        report.frames,
        report.answer_seconds,
        report.real_time_factor,
    ));
    if !report.profile.is_empty() {
        let rows: Vec<&OpTime> = report.profile.iter().collect();
        text.push('\n');
        text.push_str(&ops(report.task.name(), &rows));
    }
    text
}

fn figures(figures: &[Figures]) -> String {
    let title = [
        "test", "t/s", "p50 ms", "p95 ms", "GB/s", "readable", "share", "GMAC/s", "of peak",
    ];
    let row = |figures: &Figures| {
        vec![
            figures.test.clone(),
            format!("{:.1}", figures.tokens_per_second),
            milliseconds(figures.pass_p50_seconds),
            milliseconds(figures.pass_p95_seconds),
            rate(Some(figures.gb_per_second)),
            rate(figures.read_gb_per_second),
            percent(figures.share_of_read),
            rate(Some(figures.gmac_per_second)),
            percent(figures.share_of_peak),
        ]
    };
    with_title(&title, figures.iter().map(row))
}

/// The limits of the machine.
pub(super) fn machine(machine: &Machine) -> String {
    let isa = format!("limits with {}", machine.isa);
    let title = [
        isa.as_str(),
        "read GB/s",
        "f32 GMAC/s",
        "bf16 GMAC/s",
        "int8 GMAC/s",
    ];
    let row = |limits: &Limits| {
        let threads = limits.threads;
        vec![
            format!("{threads} thread{}", if threads == 1 { "" } else { "s" }),
            rate(limits.read_gb_per_second),
            rate(limits.f32_gmac_per_second),
            rate(limits.bf16_gmac_per_second),
            rate(limits.int8_gmac_per_second),
        ]
    };
    with_title(&title, machine.limits.iter().map(row))
}

/// What the time of a test goes into.
pub(super) fn ops(test: &str, ops: &[&OpTime]) -> String {
    let title = [
        test, "calls", "us each", "of time", "GB/s", "GMAC/s", "of limit",
    ];
    let some = |value: f64| rate((value > 0.0).then_some(value));
    let row = |op: &&OpTime| {
        vec![
            op.op.clone(),
            op.calls.to_string(),
            format!("{:.1}", op.seconds * 1e6 / op.calls.max(1) as f64),
            percent(Some(op.share_of_time)),
            some(op.gb_per_second),
            some(op.gmac_per_second),
            percent(op.share_of_limit),
        ]
    };
    with_title(&title, ops.iter().map(row))
}

fn with_title(title: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut all = vec![title.iter().map(|&cell| cell.to_owned()).collect()];
    all.extend(rows);
    table(&all)
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.2}", seconds * 1e3)
}

fn rate(value: Option<f64>) -> String {
    value.map_or(NOTHING.to_owned(), |value| format!("{value:.1}"))
}

fn percent(share: Option<f64>) -> String {
    share.map_or(NOTHING.to_owned(), |share| {
        format!("{:.1} %", share * 100.0)
    })
}
