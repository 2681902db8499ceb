//! Writes down what is said in a sound file of any length, with times:
//! `cargo run --release -p lfm2-examples --features download --example transcribe -- talk.mp3`.
//! A second argument is another model than LFM2.5-Audio: a folder, a GGUF file or a Hub id.

#![allow(clippy::print_stdout, reason = "examples talk to their user")]

use std::path::Path;

use anyhow::Context;
use lfm2::speech::{self, Clip, CutOptions, GenerationOptions, SoundLimits};

fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let file = args.next().context("give a sound file")?;
    let model = args.next().unwrap_or("LiquidAI/LFM2.5-Audio-1.5B".into());
    let model = speech::open(model)?;

    let clip = Clip::open(Path::new(&file), &SoundLimits::default())?;
    println!("{file}: {:.1} s", clip.seconds());

    // Cut at pauses, so that a part fits into what the model was trained on.
    let cut = CutOptions::default().with_longest(20.0);
    for section in model.transcribe_long(&clip, &cut, &GenerationOptions::greedy())? {
        let section = section?;
        let (start, end) = (section.start, section.end);
        println!("{start:7.2} - {end:7.2}  {}", section.reply.finish()?.text);
    }
    Ok(())
}
