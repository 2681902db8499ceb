//! Continues a text: `cargo run --release -p lfm2-examples --example text -- "Once upon a time"`.

#![allow(clippy::print_stdout, reason = "examples talk to their user")]

use std::io::Write;

use lfm2::TextModel;

fn main() -> anyhow::Result<()> {
    let prompt = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "Once upon a time".to_owned());
    // The tiny model inside the program; `TextModel::open("LiquidAI/LFM2-350M")` is a larger one.
    let model = TextModel::embedded()?;
    let options = model
        .options()
        .clone()
        .with_max_new_tokens(120)
        .with_seed(7);

    print!("{prompt}");
    let mut generation = model.generate(&prompt, &options)?;
    for piece in generation.by_ref() {
        print!("{}", piece?);
        std::io::stdout().flush()?;
    }
    println!();
    if let Some(speed) = generation.finish().and_then(|finish| finish.decode_speed()) {
        println!("({speed:.0} tokens per second)");
    }
    Ok(())
}
