//! The figures as a table.

use super::Report;
use crate::ui::format::{bytes, count, table};

pub(super) fn text(report: &Report) -> String {
    let peak = report.peak_memory_bytes.map_or("unknown".to_owned(), bytes);
    let mut text = format!(
        "{}: {} parameters, {} threads\nloaded in {:.2} s, peak memory {peak}\n",
        report.model,
        count(report.parameters),
        report.threads,
        report.load_seconds,
    );
    text.push_str(&format!(
        "{} prompt tokens, {} generated, median of {}\n\n",
        report.prompt_tokens, report.gen_tokens, report.repeat
    ));
    let title = [
        "depth",
        "prefill t/s",
        "first token ms",
        "decode t/s",
        "p50 ms",
        "p95 ms",
    ];
    let mut rows = vec![title.map(str::to_owned).to_vec()];
    let milliseconds = |seconds: f64| format!("{:.2}", seconds * 1e3);
    rows.extend(report.depths.iter().map(|figures| {
        vec![
            figures.depth.to_string(),
            format!("{:.1}", figures.prefill_tokens_per_second),
            milliseconds(figures.first_token_seconds),
            format!("{:.1}", figures.decode_tokens_per_second),
            milliseconds(figures.token_p50_seconds),
            milliseconds(figures.token_p95_seconds),
        ]
    }));
    text.push_str(&table(&rows));
    text
}
