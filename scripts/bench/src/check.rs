//! Both sides on the same file: speed is worth something only when both do the same work.

use anyhow::{Result, ensure};
use lfm2::hub::{Checkpoint, OpenOptions};
use lfm2::nn::{CacheSpec, Decoder, Input, Step, Want};
use lfm2::text::{LoadOptions, TextModel};
use lfm2::{DType, Device, ModelSource, Tensor};

use crate::candle::Candle;
use crate::{CheckArgs, token};

/// Tokens whose last logits are compared.
const TOKENS: usize = 64;

/// Prints the cosine, and fails when it is too small.
pub fn run(args: &CheckArgs) -> Result<()> {
    let theirs = Candle::open(&args.model)?.feed(TOKENS)?;
    let source = ModelSource::from_path(args.model.as_path());
    let checkpoint = Checkpoint::open(&source, &OpenOptions::default())?;
    let model = TextModel::from_checkpoint(&checkpoint, &LoadOptions::default())?;
    let mut cache = model.new_cache(CacheSpec::rows(1).with_capacity(TOKENS));
    let ids: Vec<u32> = (0..TOKENS).map(token).collect();
    let input = Tensor::new(ids, &Device::Cpu)?;
    let step = Step::single(TOKENS);
    let ours = model.forward(Input::Ids(&input), &step, &mut cache, Want::LastLogits)?;
    let cosine = cosine(&ours, &theirs)?;
    println!("{cosine:.6}");
    ensure!(
        cosine >= args.at_least,
        "expected a cosine of at least {}, found {cosine}",
        args.at_least
    );
    Ok(())
}

fn cosine(a: &Tensor, b: &Tensor) -> Result<f64> {
    let flat = |t: &Tensor| t.flatten_all()?.to_dtype(DType::F64);
    let (a, b) = (flat(a)?, flat(b)?);
    let dot = |x: &Tensor, y: &Tensor| (x * y)?.sum_all()?.to_scalar::<f64>();
    Ok(dot(&a, &b)? / (dot(&a, &a)? * dot(&b, &b)?).sqrt())
}
