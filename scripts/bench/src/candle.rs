//! candle-transformers: one model for plain numbers, another for blocks.

use std::fs::File;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::quantized::gguf_file;
use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{lfm2 as dense, quantized_lfm2 as quantized};
use serde_json::{Value, json};

use crate::{CandleArgs, Kind, token};

/// Tokens fed at a time to fill a context; all at once would take memory with their square.
const PIECE: usize = 512;

/// A loaded model with the state of one sequence.
pub struct Candle {
    model: Model,
    position: usize,
}

enum Model {
    Dense(Box<dense::Model>, Box<dense::Cache>),
    Quantized(Box<quantized::ModelWeights>),
}

impl Candle {
    /// Opens a GGUF file, or a folder in the number type its weights are stored in.
    pub fn open(path: &Path) -> Result<Self> {
        let model = if path.is_dir() {
            open_dense(path)?
        } else {
            let mut file = File::open(path).with_context(|| path.display().to_string())?;
            let content = gguf_file::Content::read(&mut file)?;
            let model = quantized::ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?;
            Model::Quantized(Box::new(model))
        };
        Ok(Self { model, position: 0 })
    }

    /// Forgets the sequence. The quantised model does so by itself when it is fed several tokens at
    /// position 0.
    fn reset(&mut self) {
        if let Model::Dense(_, cache) = &mut self.model {
            cache.clear();
        }
        self.position = 0;
    }

    /// Feeds the next `count` tokens; the logits of the last.
    pub fn feed(&mut self, count: usize) -> Result<Tensor> {
        let ids: Vec<u32> = (self.position..self.position + count).map(token).collect();
        let input = Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?;
        let logits = match &mut self.model {
            Model::Dense(model, cache) => model.forward(&input, self.position, cache)?,
            Model::Quantized(model) => model.forward(&input, self.position)?,
        };
        self.position += count;
        Ok(logits)
    }
}

fn open_dense(folder: &Path) -> Result<Model> {
    let text = std::fs::read(folder.join("config.json")).with_context(|| folder.display().to_string())?;
    let config: Value = serde_json::from_slice(&text)?;
    let stored = config.get("dtype").or_else(|| config.get("torch_dtype"));
    let dtype = match stored.and_then(Value::as_str) {
        Some("bfloat16") => DType::BF16,
        _ => DType::F32,
    };
    let config: dense::Lfm2Config = serde_json::from_value(config)?;
    let config = config.into_config(false);
    let weights = folder.join("model.safetensors");
    // SAFETY: nobody writes the file while it is measured.
    let tensors = unsafe { VarBuilder::from_mmaped_safetensors(&[weights], dtype, &Device::Cpu)? };
    let cache = dense::Cache::new(true, dtype, &config, &Device::Cpu)?;
    Ok(Model::Dense(
        Box::new(dense::Model::new(&config, tensors)?),
        Box::new(cache),
    ))
}

/// Runs one test and prints its figure.
pub fn time(args: &CandleArgs) -> Result<()> {
    let opened = Instant::now();
    let mut model = Candle::open(&args.model)?;
    if args.kind == Kind::First {
        black_box(model.feed(args.tokens)?);
        println!("{}", json!({"first_token_seconds": opened.elapsed().as_secs_f64()}));
        return Ok(());
    }
    // Packs the weights and warms up.
    black_box(model.feed(64)?);
    black_box(model.feed(1)?);
    model.reset();
    if args.depth > 0 {
        // Pieces of several tokens behind a first one give wrong results, but take as long.
        for start in (0..args.depth).step_by(PIECE) {
            black_box(model.feed(PIECE.min(args.depth - start))?);
        }
    } else if args.kind == Kind::Tg {
        // The quantised model starts over only when it is fed more than one token.
        black_box(model.feed(2)?);
    }
    let started = Instant::now();
    match args.kind {
        Kind::Pp | Kind::First => drop(black_box(model.feed(args.tokens)?)),
        Kind::Tg => {
            for _ in 0..args.tokens {
                black_box(model.feed(1)?);
            }
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("{}", json!({"tps": args.tokens as f64 / seconds}));
    Ok(())
}
