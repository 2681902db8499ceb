//! Decode speed of lfm2 beside candle-transformers: the same weights, in the same process, in
//! alternating rounds.
//!
//! The machine's clock, its caches and its other guests change over minutes, so two programs run one
//! after the other measure the machine as much as the code. Here both sides hold the same file open,
//! take turns, and change who goes first; the figures are medians over the rounds.

mod sides;
mod weights;

use std::hint::black_box;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use candle_core::Tensor;
use clap::Parser;
use lfm2::DType;
use serde_json::json;

use crate::sides::{Ours, Peer, Side};
use crate::weights::{Format, Weights};

/// Compares decode speed with candle-transformers on random weights of a published shape.
#[derive(Debug, Parser)]
struct Args {
    /// The shape; of the published ones, the peer can load LFM2-1.2B only.
    #[arg(long, default_value = "LFM2-1.2B")]
    shape: String,
    /// Keep only the first layers, for a quick look.
    #[arg(long)]
    layers: Option<usize>,
    /// What to compare, in this order.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Format::F32, Format::Bf16, Format::Q8_0, Format::Q4_0])]
    formats: Vec<Format>,
    /// Tokens that are in the cache before the clock starts; at least 2.
    #[arg(long, default_value_t = 16)]
    depth: usize,
    /// Tokens decoded per round.
    #[arg(long, default_value_t = 32)]
    tokens: usize,
    /// Rounds per side.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// One JSON object per format instead of a table.
    #[arg(long)]
    json: bool,
    /// Fail unless ours is at least this many times as fast in every format.
    #[arg(long)]
    at_least: Option<f64>,
}

/// What one format came to, in tokens per second.
struct Outcome {
    format: Format,
    ours: Speeds,
    peer: Speeds,
    /// Cosine of both sides' logits after the same tokens.
    cosine: f64,
}

/// The speed of every round, sorted.
struct Speeds(Vec<f64>);

impl Speeds {
    fn median(&self) -> f64 {
        let middle = self.0.len() / 2;
        if self.0.len().is_multiple_of(2) {
            (self.0[middle - 1] + self.0[middle]) / 2.0
        } else {
            self.0[middle]
        }
    }

    fn range(&self) -> [f64; 2] {
        [self.0[0], self.0[self.0.len() - 1]]
    }
}

impl Outcome {
    fn ratio(&self) -> f64 {
        self.ours.median() / self.peer.median()
    }

    fn print(&self, args: &Args) {
        if !args.json {
            let name = self.format.name();
            let (ours, peer) = (self.ours.median(), self.peer.median());
            let (ratio, cosine) = (self.ratio(), self.cosine);
            println!("{name:<6} {ours:>10.2} {peer:>10.2} {ratio:>7.2} {cosine:>8.5}");
            return;
        }
        let line = json!({
            "shape": args.shape, "layers": args.layers, "format": self.format.name(),
            "depth": args.depth, "tokens": args.tokens, "rounds": args.rounds,
            "ours": self.ours.median(), "ours_range": self.ours.range(),
            "peer": self.peer.median(), "peer_range": self.peer.range(),
            "ratio": self.ratio(), "cosine": self.cosine,
        });
        println!("{line}");
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(args.depth >= 2, "--depth: expected at least 2, found {}", args.depth);
    ensure!(
        args.rounds > 0 && args.tokens > 0,
        "--rounds and --tokens: expected at least 1"
    );
    if !args.json {
        println!(
            "{}, depth {}, {} rounds of {} tokens",
            args.shape, args.depth, args.rounds, args.tokens
        );
        println!(
            "{:<6} {:>10} {:>10} {:>7} {:>8}",
            "format", "ours t/s", "peer t/s", "ratio", "cosine"
        );
    }
    let mut slow = Vec::new();
    for &format in &args.formats {
        let outcome = compare(format, &args).with_context(|| format.name())?;
        outcome.print(&args);
        if args.at_least.is_some_and(|wanted| outcome.ratio() < wanted) {
            slow.push(format.name());
        }
    }
    ensure!(slow.is_empty(), "slower than asked for: {}", slow.join(", "));
    Ok(())
}

fn compare(format: Format, args: &Args) -> Result<Outcome> {
    let room = args.depth + args.tokens;
    let weights = Weights::write(&args.shape, args.layers, format, room)?;
    let mut ours = Ours::open(&weights, room)?;
    let mut peer = Peer::open(&weights)?;

    // Also brings both sides' weights into memory before the first round.
    let cosine = cosine(&fill(&mut ours, 64)?, &fill(&mut peer, 64)?)?;
    let (mut of_ours, mut of_peer) = (Vec::new(), Vec::new());
    for round in 0..args.rounds {
        if round.is_multiple_of(2) {
            of_ours.push(decode(&mut ours, args)?);
            of_peer.push(decode(&mut peer, args)?);
        } else {
            of_peer.push(decode(&mut peer, args)?);
            of_ours.push(decode(&mut ours, args)?);
        }
    }
    of_ours.sort_by(f64::total_cmp);
    of_peer.sort_by(f64::total_cmp);
    Ok(Outcome {
        format,
        ours: Speeds(of_ours),
        peer: Speeds(of_peer),
        cosine,
    })
}

/// Some token that is not special, the same for both sides.
fn token(position: usize) -> u32 {
    ((position * 7919 + 300) % 60_000) as u32
}

/// Feeds the first `depth` tokens from an empty state, in pieces of a usual prefill size.
fn fill(side: &mut dyn Side, depth: usize) -> Result<Tensor> {
    const PIECE: usize = 512;
    side.reset();
    let ids: Vec<u32> = (0..depth).map(token).collect();
    let mut logits = None;
    for piece in ids.chunks(PIECE) {
        logits = Some(side.feed(piece)?);
    }
    logits.context("nothing was fed")
}

/// Tokens per second of one round.
fn decode(side: &mut dyn Side, args: &Args) -> Result<f64> {
    fill(side, args.depth)?;
    let start = Instant::now();
    for position in args.depth..args.depth + args.tokens {
        black_box(side.feed(&[token(position)])?);
    }
    Ok(args.tokens as f64 / start.elapsed().as_secs_f64())
}

fn cosine(a: &Tensor, b: &Tensor) -> Result<f64> {
    let flat = |t: &Tensor| t.flatten_all()?.to_dtype(DType::F64);
    let (a, b) = (flat(a)?, flat(b)?);
    let dot = |x: &Tensor, y: &Tensor| (x * y)?.sum_all()?.to_scalar::<f64>();
    Ok(dot(&a, &b)? / (dot(&a, &a)? * dot(&b, &b)?).sqrt())
}
