//! A full disk while the state of a run is saved.
//!
//! This test program runs itself again under a limit on the size of files, which stands for the disk.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::path::Path;
use std::process::Command;

use lfm2_generate::Cancel;
use lfm2_train::{Error, Resume, TrainEvent, TrainOptions, TrainProgress, Trainer};
use serde_json::json;
use support::Bench;

/// Says to the second process where the run is.
const FOLDER: &str = "LFM2_TEST_RUN_FOLDER";

fn open(folder: &Path) -> Trainer {
    let options = TrainOptions::read(&folder.join("options.json")).unwrap();
    Trainer::open(options, folder, &folder.join("run"), Resume::Continue, 1).unwrap()
}

/// What the second process does; nothing in the first.
#[test]
fn child() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        match open(folder.as_ref()).train(&(), &Cancel::new()) {
            Ok(()) => println!("finished"),
            Err(error) => println!("failed: {error}"),
        }
    }
}

struct StopAfter(u64, Cancel);

impl TrainProgress for StopAfter {
    fn event(&self, event: &TrainEvent<'_>) {
        if matches!(event, TrainEvent::Step(report) if report.step == self.0) {
            self.1.cancel();
        }
    }
}

#[test]
fn tr_04_a_full_disk_leaves_the_last_state_and_is_told() {
    let bench = Bench::new();
    let options = bench.options(8, &json!({}));
    let text = serde_json::to_string(&options).unwrap();
    bench.write("options.json", &text);
    let mut whole = bench.open(options, "whole", Resume::Never, 1).unwrap();
    whole.train(&(), &Cancel::new()).unwrap();

    let stop = StopAfter(4, Cancel::new());
    let error = open(bench.path()).train(&stop, &stop.1).unwrap_err();
    assert!(matches!(error, Error::Cancelled { step: 4 }), "{error}");
    let state = bench.run_folder("run").join("state-00000004.safetensors");
    let size = std::fs::metadata(&state).unwrap().len();
    // In blocks of 512 bytes, so that half of the next state fits.
    let blocks = size / 512 / 2;
    let script = format!(
        "trap '' XFSZ; ulimit -c 0; ulimit -f {blocks}; exec \"$0\" --exact child --nocapture"
    );
    let output = Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().unwrap())
        .env(FOLDER, bench.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("failed: "), "{said}");
    assert!(said.contains("state-00000006.safetensors"), "{said}");

    let mut resumed = open(bench.path());
    assert_eq!(resumed.step(), 4);
    resumed.train(&(), &Cancel::new()).unwrap();
    assert_eq!(
        whole.parameters().values().unwrap(),
        resumed.parameters().values().unwrap()
    );
}
