//! Fetches a model from the Hub, with progress:
//! `cargo run --release -p lfm2-examples --features download --example download -- LiquidAI/LFM2-350M`.

#![allow(clippy::print_stdout, reason = "examples talk to their user")]

use std::sync::Arc;

use anyhow::Context;
use lfm2::hub::{OpenOptions, Parts, Progress, ProgressEvent, Revision, fetch_checkpoint};

struct Lines;

impl Progress for Lines {
    fn report(&self, event: ProgressEvent<'_>) {
        match event {
            ProgressEvent::Start { file, size, .. } => println!("{file}: {size:?} bytes"),
            ProgressEvent::Finish { file } => println!("{file}: complete and checked"),
            _ => {}
        }
    }
}

fn main() -> anyhow::Result<()> {
    let id = std::env::args()
        .nth(1)
        .context("expected a repository such as LiquidAI/LFM2-350M")?;
    let options = OpenOptions::default().progress(Arc::new(Lines));
    let snapshot = fetch_checkpoint(&id.parse()?, &Revision::default(), Parts::All, &options)?;
    println!(
        "commit {} in {}",
        snapshot.commit,
        snapshot.folder.display()
    );
    Ok(())
}
