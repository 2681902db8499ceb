//! The speech model that is built in.
#![cfg(feature = "embedded")]

use std::process::Command;

use anyhow::{Context, Result, ensure};
use lfm2::speech::{self, Clip, GenerationOptions, SoundLimits};

const DIGITS: [&str; 10] = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
];

/// Something between a voice and a tone.
fn hum(seconds: f32) -> Result<Clip> {
    let wave = |t: usize| {
        let t = t as f32 / 16_000.0;
        let voice = (1..6).map(|k| (t * 120.0 * k as f32 * std::f32::consts::TAU).sin() / k as f32);
        0.2 * voice.sum::<f32>() * (t * 9.0).sin().abs()
    };
    let samples = (0..(16_000.0 * seconds) as usize).map(wave).collect();
    Ok(Clip::new(samples, 16_000)?)
}

#[test]
fn it_writes_digits_and_the_same_every_time() -> Result<()> {
    let model = speech::embedded()?;
    let clip = hum(1.2)?;
    let write = || {
        model
            .transcribe(&clip, &GenerationOptions::greedy())?
            .finish()
    };
    let first = write()?;
    for word in first.text.split_whitespace() {
        ensure!(DIGITS.contains(&word), "{first:?}");
    }
    ensure!(write()?.text == first.text);
    Ok(())
}

#[test]
fn silence_and_clicks_end_too() -> Result<()> {
    let model = speech::embedded()?;
    for samples in [
        vec![0.0; 1],
        vec![0.0; 40_000],
        vec![1.0; 9],
        vec![-1.0; 20_000],
    ] {
        let clip = Clip::new(samples, 22_050)?;
        let said = model
            .transcribe(&clip, &GenerationOptions::greedy())?
            .finish()?;
        ensure!(said.text.len() < 400, "{said:?}");
    }
    Ok(())
}

/// Real digits: `cargo test --release -p lfm2 --test speech -- --ignored` where espeak-ng is installed.
#[test]
#[ignore = "needs the program espeak-ng"]
fn it_hears_digits() -> Result<()> {
    let model = speech::embedded()?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("said.wav");
    let (mut wrong, mut said) = (0, 0);
    for (voice, speed, text) in [
        ("en-gb-scotland+f3", "145", "three seven"),
        ("en-us+m5", "165", "nine zero zero one"),
        ("en-gb-x-gbcwmd+m7", "185", "six two eight five four"),
    ] {
        let file = path.to_str().context("a path of text")?;
        let args = ["-v", voice, "-s", speed, "-w", file, text];
        ensure!(Command::new("espeak-ng").args(args).status()?.success());
        let clip = Clip::open(&path, &SoundLimits::default())?;
        let found = model
            .transcribe(&clip, &GenerationOptions::greedy())?
            .finish()?;
        let (found, expected) = (found.text.split_whitespace(), text.split_whitespace());
        said += expected.clone().count();
        wrong += usize::from(!found.eq(expected));
    }
    ensure!(wrong <= 1, "{wrong} of three strings with {said} digits");
    Ok(())
}
