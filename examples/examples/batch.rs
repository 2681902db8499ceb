//! Several texts written together: every pass through the weights gives each of them a token.

#![allow(clippy::print_stdout, reason = "examples talk to their user")]

use std::collections::BTreeMap;

use lfm2::TextModel;
use lfm2::generate::{Batch, BatchEvent, BatchOptions, Request};

const OPENINGS: [&str; 6] = [
    "Once upon a time",
    "Sam had a red ball.",
    "Mia had a blue hat.",
    "One day",
    "Vera was a little fox.",
    "George had a black spoon.",
];

fn main() -> anyhow::Result<()> {
    let model = match std::env::args().nth(1) {
        Some(source) => TextModel::open(source)?,
        None => TextModel::embedded()?,
    };
    // Two of the six wait until another is over.
    let mut batch = Batch::new(model.generator(), BatchOptions::default().with_max_rows(4))?;
    let mut stories = BTreeMap::new();
    for (opening, seed) in OPENINGS.into_iter().zip(1..) {
        let options = model
            .options()
            .clone()
            .with_seed(seed)
            .with_max_new_tokens(200);
        let id = batch.submit(Request::text(opening, options))?;
        stories.insert(id, opening.to_owned());
    }
    let mut passes = 0;
    while !batch.is_idle() {
        passes += 1;
        for (id, event) in batch.step() {
            match event {
                BatchEvent::Piece(piece) => {
                    stories.entry(id).or_default().push_str(&piece.text);
                }
                BatchEvent::Finished(finish) => {
                    let story = stories.remove(&id).unwrap_or_default();
                    println!(
                        "{story}\n({} tokens, done after pass {passes})\n",
                        finish.generated_tokens
                    );
                }
                BatchEvent::Failed(error) => println!("request {id}: {error}"),
                _ => {}
            }
        }
    }
    Ok(())
}
