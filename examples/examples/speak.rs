//! Reads a text aloud, into a WAV file that grows frame by frame:
//! `cargo run --release -p lfm2-examples --features download --example speak -- "Good morning!"`.
//! A second argument is another model than LFM2.5-Audio: a folder, a GGUF file or a Hub id.

#![allow(clippy::print_stdout, reason = "examples talk to their user")]

use std::path::Path;

use anyhow::Context;
use lfm2::speech::{self, Event, GenerationOptions, OUTPUT_RATE, Voice, write_wav};

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let text = args.next().context("give a text")?;
    let model = args.next().unwrap_or("LiquidAI/LFM2.5-Audio-1.5B".into());
    let model = speech::open(model)?;

    let options = GenerationOptions::speech().with_seed(7);
    let mut samples = Vec::new();
    for event in model.speak(&text, &Voice::UkFemale, &options)? {
        // A program that plays sound would hand these to its loudspeaker at once.
        if let Event::Samples(more) = event? {
            samples.extend(more);
        }
    }
    write_wav(Path::new("spoken.wav"), &samples, OUTPUT_RATE)?;
    println!(
        "spoken.wav: {:.1} s",
        samples.len() as f64 / f64::from(OUTPUT_RATE)
    );
    Ok(())
}
