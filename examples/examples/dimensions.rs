//! Which dimensions of the built-in model say whether something happens or happened, and from which
//! layer on.
//!
//! ```sh
//! cargo run --release -p lfm2-examples --example dimensions [-- MODEL]
//! ```

#![allow(clippy::print_stdout, reason = "examples talk to their user")]

use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;

use anyhow::Result;
use lfm2::sentence::{self, EncodeOptions, SentenceEncoder};
use lfm2_analysis::{Contrast, PairedEmbeddings, Property, Study, StudyOptions, generate};

fn main() -> Result<()> {
    let encoder = match std::env::args().nth(1) {
        Some(source) => sentence::open(source)?,
        None => SentenceEncoder::from_checkpoint(&lfm2::embedded::stories()?, &Default::default())?,
    };
    let set = generate(Contrast::Tense, 300, 1)?;
    println!("{} pairs such as {:?}", set.len(), set.pairs()[0]);
    let first = set.pairs().iter().map(|pair| pair.first.as_str());
    let second = set.pairs().iter().map(|pair| pair.second.as_str());
    let texts: Vec<&str> = first.chain(second).collect();
    let options = EncodeOptions::default();
    let found = encoder.encode(&texts, &encoder.sites(), &options, &mut |_| {
        ControlFlow::Continue(())
    })?;

    let (groups, never) = (set.groups(), AtomicBool::new(false));
    for layer in &found.vectors {
        let (first, second) = layer.values.split_at(layer.values.len() / 2);
        let embeddings = PairedEmbeddings::new(set.name(), first, second, layer.dims)?;
        let property = Property::new(embeddings).groups(&groups);
        let study = Study::run(&[property], &StudyOptions::default(), &(), &never)?;
        let tense = &study.properties[0];
        println!(
            "layer {:>5}: {:5.1} % right with all {} dimensions; best ones {:?}",
            layer.site.to_string(),
            100.0 * tense.evaluation.baseline,
            layer.dims,
            &tense.order[..5.min(tense.order.len())],
        );
    }
    Ok(())
}
