//! Progress bars. They hide themselves when stderr is no terminal.

use std::collections::HashMap;
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use lfm2::hub::{Progress, ProgressEvent};
use lfm2::nn::{LoadEvent, LoadProgress};

/// A bar over `total` things of a kind, with a message behind it.
pub(crate) fn bar(total: u64, what: &str) -> ProgressBar {
    let template = format!("{{bar:30}} {{pos}}/{{len}} {what}, {{eta}} left  {{wide_msg}}");
    ProgressBar::new(total).with_style(style(&template))
}

/// A bar over bytes that are read, with a message behind it.
pub(crate) fn bytes(total: u64) -> ProgressBar {
    let template = "{bar:30} {binary_bytes}/{binary_total_bytes}, {eta} left  {wide_msg}";
    ProgressBar::new(total).with_style(style(template))
}

/// How many seconds of sound there are already.
pub(crate) fn seconds() -> ProgressBar {
    ProgressBar::no_length().with_style(style("{spinner} {pos} s of sound in {elapsed}"))
}

/// After which time of loading people want to know how long it takes.
const PATIENCE: Duration = Duration::from_secs(1);

/// A bar for loading, when that takes longer than a moment.
pub(crate) fn loading() -> LoadProgress {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_style(style(
        "{bar:30} {binary_bytes}/{binary_total_bytes}  {wide_msg}",
    ));
    let (started, shown) = (Instant::now(), Once::new());
    let advance = move |bar: &ProgressBar, what, done, total| {
        bar.set_message(what);
        bar.set_length(total);
        bar.set_position(done);
        if started.elapsed() > PATIENCE {
            shown.call_once(|| bar.set_draw_target(ProgressDrawTarget::stderr()));
        }
    };
    LoadProgress::new(move |event| match event {
        LoadEvent::Weights { done, total } => advance(&bar, "loading", done, total),
        LoadEvent::Storing { done, total } => advance(&bar, "keeping packed weights", done, total),
        _ => bar.finish_and_clear(),
    })
}

/// One bar per file that is being downloaded.
#[derive(Debug, Default)]
pub(crate) struct Downloads {
    bars: MultiProgress,
    files: Mutex<HashMap<String, ProgressBar>>,
}

impl Progress for Downloads {
    fn report(&self, event: ProgressEvent<'_>) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            ProgressEvent::Start {
                file,
                size,
                resumed,
            } => {
                let bar = files.entry(file.to_owned()).or_insert_with(|| {
                    let bar = ProgressBar::new(0).with_style(style(
                        "{bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}  {wide_msg}",
                    ));
                    self.bars.add(bar).with_message(file.to_owned())
                });
                bar.set_length(size.unwrap_or(0));
                bar.set_position(resumed);
            }
            ProgressEvent::Advance { file, bytes } => {
                if let Some(bar) = files.get(file) {
                    bar.inc(bytes);
                }
            }
            ProgressEvent::Finish { file } => {
                if let Some(bar) = files.remove(file) {
                    bar.finish();
                }
            }
            _ => {}
        }
    }
}

/// A style from a template; the library's own when the template has a mistake, which a test would
/// find.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_moves_its_bar_and_goes() {
        let downloads = Downloads::default();
        let file = "model.safetensors";
        downloads.report(ProgressEvent::Start {
            file,
            size: Some(10),
            resumed: 4,
        });
        downloads.report(ProgressEvent::Advance { file, bytes: 3 });
        let bar = downloads.files.lock().unwrap().get(file).cloned().unwrap();
        assert_eq!((bar.position(), bar.length()), (7, Some(10)));
        // Starts again from the beginning.
        downloads.report(ProgressEvent::Start {
            file,
            size: Some(10),
            resumed: 0,
        });
        assert_eq!(bar.position(), 0);
        downloads.report(ProgressEvent::Finish { file });
        assert!(bar.is_finished() && downloads.files.lock().unwrap().is_empty());
        downloads.report(ProgressEvent::Advance {
            file: "unknown",
            bytes: 1,
        });
    }

    #[test]
    fn templates_are_right() {
        assert!(
            ProgressStyle::with_template("{bar:30} {pos}/{len} steps, {eta} left  {wide_msg}")
                .is_ok()
        );
    }
}
