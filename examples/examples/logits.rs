//! The network without any text around it: ids in, logits out, and the state kept by the caller.

#![allow(clippy::print_stdout, reason = "examples talk to their user")]

use lfm2::hub::{Bos, SpecialTokens};
use lfm2::nn::{CacheSpec, Decoder, Input, Step, Want};
use lfm2::{Tensor, TextModel};

fn main() -> anyhow::Result<()> {
    let model = TextModel::embedded()?;
    let network = model.network();
    println!(
        "{} layers: {}",
        network.config().layers.len(),
        network.config()
    );

    let ids = model
        .tokenizer()
        .encode("Once upon a", SpecialTokens::Parse, Bos::Add)?;
    let input = Tensor::new(ids.as_slice(), network.device())?;
    let mut cache = network.new_cache(CacheSpec::rows(1));
    let logits = network.forward(
        Input::Ids(&input),
        &Step::single(ids.len()),
        &mut cache,
        Want::LastLogits,
    )?;

    // The five most likely next tokens.
    let logits = logits.flatten_all()?.to_vec1::<f32>()?;
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    for id in order.into_iter().take(5) {
        let token = model.tokenizer().token_text(id as u32).unwrap_or_default();
        println!("{:8.3}  {token:?}", logits[id]);
    }
    println!(
        "{} tokens in the cache, {} bytes",
        cache.len(0),
        cache.bytes()
    );
    Ok(())
}
