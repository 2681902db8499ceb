//! One run, and figures over several.

use std::time::{Duration, Instant};

use anyhow::Result;
use lfm2::Tensor;
use lfm2::nn::{Cache, CacheSpec, Decoder, Input, Step, Want};
use lfm2::text::TextModel;
use serde::Serialize;

/// Prompt tokens per pass, as in generating.
const CHUNK: usize = 512;

/// What is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) prompt_tokens: usize,
    pub(super) gen_tokens: usize,
    pub(super) seed: u64,
}

/// The times of one run.
#[derive(Debug, Clone)]
pub(super) struct Run {
    /// From the prompt to the first token.
    first: Duration,
    /// Of every further token.
    tokens: Vec<Duration>,
}

impl Plan {
    /// A cache with `depth` random tokens, after a short pass that warms up caches and threads.
    pub(super) fn fill(&self, model: &TextModel, depth: usize) -> Result<Cache> {
        let room = depth + self.prompt_tokens + self.gen_tokens + 1;
        let new = || model.new_cache(CacheSpec::rows(1).with_capacity(room));
        let mut warm = new();
        feed(model, &mut warm, &self.random(model, CHUNK.min(room)))?;
        feed(model, &mut warm, &[0])?;
        let mut cache = new();
        if depth > 0 {
            feed(model, &mut cache, &self.random(model, depth))?;
        }
        Ok(cache)
    }

    /// Reads the prompt and generates behind what is in `base`, which stays as it is.
    pub(super) fn run(&self, model: &TextModel, base: &Cache) -> Result<Run> {
        let mut cache = base.fork()?;
        let prompt = self.random(model, self.prompt_tokens);
        let started = Instant::now();
        let mut next = feed(model, &mut cache, &prompt)?;
        let first = started.elapsed();
        let mut tokens = Vec::with_capacity(self.gen_tokens);
        for _ in 0..self.gen_tokens {
            let started = Instant::now();
            next = feed(model, &mut cache, &[next])?;
            tokens.push(started.elapsed());
        }
        Ok(Run { first, tokens })
    }

    /// Random token ids, the same for the same seed.
    fn random(&self, model: &TextModel, count: usize) -> Vec<u32> {
        let vocab = model.vocab_size() as u64;
        let mut state = self.seed ^ 0x9E37_79B9_7F4A_7C15;
        let mut draw = || {
            // The upper half of a linear congruential generator is random enough for ids.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            u32::try_from((state >> 33) % vocab).unwrap_or(0)
        };
        (0..count).map(|_| draw()).collect()
    }
}

/// Feeds tokens in chunks and returns the most likely next one.
fn feed(model: &TextModel, cache: &mut Cache, ids: &[u32]) -> Result<u32> {
    let mut next = 0;
    let chunks = ids.chunks(CHUNK);
    let last = chunks.len() - 1;
    for (i, chunk) in chunks.enumerate() {
        let input = Tensor::new(chunk, model.device())?;
        let want = if i == last {
            Want::LastLogits
        } else {
            Want::Hidden
        };
        let output = model.forward(Input::Ids(&input), &Step::single(chunk.len()), cache, want)?;
        if i == last {
            next = output.flatten_all()?.argmax(0)?.to_scalar::<u32>()?;
        }
    }
    Ok(next)
}

/// Medians over the runs at one depth.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) depth: usize,
    pub(super) prefill_tokens_per_second: f64,
    pub(super) first_token_seconds: f64,
    pub(super) decode_tokens_per_second: f64,
    /// Half of all tokens came at least as fast.
    pub(super) token_p50_seconds: f64,
    /// Nineteen of twenty tokens came at least as fast.
    pub(super) token_p95_seconds: f64,
}

impl Figures {
    /// `None` without runs or tokens.
    pub(super) fn of(depth: usize, prompt_tokens: usize, runs: &[Run]) -> Option<Self> {
        let first = quantile(runs.iter().map(|run| run.first.as_secs_f64()), 0.5)?;
        let speed =
            |run: &Run| run.tokens.len() as f64 / run.tokens.iter().sum::<Duration>().as_secs_f64();
        let latencies = || {
            runs.iter()
                .flat_map(|run| &run.tokens)
                .map(Duration::as_secs_f64)
        };
        Some(Self {
            depth,
            prefill_tokens_per_second: prompt_tokens as f64 / first,
            first_token_seconds: first,
            decode_tokens_per_second: quantile(runs.iter().map(speed), 0.5)?,
            token_p50_seconds: quantile(latencies(), 0.5)?,
            token_p95_seconds: quantile(latencies(), 0.95)?,
        })
    }
}

/// The smallest value that at least this share of all values does not exceed.
fn quantile(values: impl Iterator<Item = f64>, share: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let of = |share, values: &[f64]| quantile(values.iter().copied(), share);
        assert_eq!(of(0.5, &[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(of(0.5, &[4.0, 1.0, 2.0, 3.0]), Some(2.0));
        assert_eq!(of(0.95, &[1.0, 9.0]), Some(9.0));
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(of(0.95, &hundred), Some(95.0));
        assert_eq!(of(0.5, &[]), None);
    }

    #[test]
    fn figures_are_medians() {
        let run = |first, token| Run {
            first: Duration::from_secs(first),
            tokens: vec![Duration::from_millis(token); 4],
        };
        let figures = Figures::of(7, 100, &[run(1, 100), run(4, 200), run(2, 50)]).unwrap();
        assert_eq!((figures.depth, figures.first_token_seconds), (7, 2.0));
        assert_eq!(figures.prefill_tokens_per_second, 50.0);
        assert!((figures.decode_tokens_per_second - 10.0).abs() < 1e-9);
        assert_eq!(
            (figures.token_p50_seconds, figures.token_p95_seconds),
            (0.1, 0.2)
        );
        assert!(Figures::of(0, 1, &[]).is_none());
    }
}
