//! Finds candidates by their words, and sorts them by meaning: `cargo run --release -p lfm2-examples
//! --example rerank`. The tiny model inside knows little of wings; with `--features download`, try
//! `-- LiquidAI/LFM2-ColBERT-350M`.

#![allow(clippy::print_stdout, reason = "examples talk to their user")]

use lfm2::retrieval::{self, Bm25};

const TEXTS: [&str; 7] = [
    "A wing with more camber has more lift at low speed, and more drag at high speed.",
    "The lift in the tower was out of order, so we took the stairs with their wings of iron.",
    "At the stall angle the flow separates from the wing, and its lift collapses.",
    "Flaps raise the lift of a wing for landing.",
    "To lift a heavy box, keep your back straight.",
    "Bread rises when yeast turns sugar into gas.",
    "A sail works like an upright wing.",
];

fn main() -> anyhow::Result<()> {
    let model = match std::env::args().nth(1) {
        Some(source) => retrieval::open(source)?,
        None => retrieval::embedded()?,
    };
    let question = "why does a wing lose its lift?";

    // Fast, for any number of texts, and blind to what words mean.
    let found = Bm25::new(TEXTS).search(question, 5);
    println!("by words:");
    for (place, score) in &found {
        println!("  {score:6.3}  {}", TEXTS[*place]);
    }

    // Slower, so for a few candidates.
    let candidates: Vec<&str> = found.iter().map(|(place, _)| TEXTS[*place]).collect();
    println!("by meaning:");
    for ranked in model.rerank(question, &candidates)? {
        println!("  {:6.3}  {}", ranked.score, candidates[ranked.index]);
    }
    Ok(())
}
