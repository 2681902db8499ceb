//! The tests, and figures over their repetitions.

use std::time::{Duration, Instant};

use anyhow::Result;
use lfm2::nn::profile::{self, Op, Work};
use lfm2::nn::{Cache, CacheSpec, Decoder, Input, Step, Want};
use lfm2::text::TextModel;
use lfm2::{DType, Tensor};
use serde::Serialize;

use super::limits::{Machine, Reading};
use super::work::{CHUNK, ModelWork, Pass};
use crate::args::TestArgs;

/// What is fed in passes, behind a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Test {
    kind: Kind,
    /// Tokens in the context before.
    pub(super) depth: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A prompt of so many tokens.
    Prompt(usize),
    /// So many tokens, one at a time, for each of so many sequences.
    Decode { tokens: usize, rows: usize },
    /// As many passes of so many tokens, with all their logits, as checking drafts takes.
    Verify { tokens: usize, passes: usize },
}

impl Test {
    /// Everything that was asked for, in the order it is shown.
    pub(super) fn all(args: &TestArgs) -> Vec<Self> {
        let mut kinds = Vec::new();
        if args.prompt_tokens > 0 {
            kinds.push(Kind::Prompt(args.prompt_tokens));
        }
        if args.gen_tokens > 0 {
            kinds.extend(args.batch.iter().map(|&rows| Kind::Decode {
                tokens: args.gen_tokens,
                rows: rows.into(),
            }));
        }
        kinds.extend(args.verify.iter().map(|&tokens| Kind::Verify {
            tokens: tokens.into(),
            passes: args.gen_tokens.div_ceil(tokens.into()).max(1),
        }));
        let tests = args.depth.iter();
        tests
            .flat_map(|&depth| kinds.iter().map(move |&kind| Self { kind, depth }))
            .collect()
    }

    /// A short name, such as `tg64x8@4096`.
    pub(super) fn name(self) -> String {
        let mut name = match self.kind {
            Kind::Prompt(tokens) => format!("pp{tokens}"),
            Kind::Decode { tokens, rows: 1 } => format!("tg{tokens}"),
            Kind::Decode { tokens, rows } => format!("tg{tokens}x{rows}"),
            Kind::Verify { tokens, .. } => format!("vf{tokens}"),
        };
        if self.depth > 0 {
            name.push_str(&format!("@{}", self.depth));
        }
        name
    }

    /// Whether the time of a pass is that of reading weights rather than of arithmetic.
    pub(super) fn is_bound_by_memory(self) -> bool {
        !matches!(self.kind, Kind::Prompt(_))
    }

    /// Tokens per sequence behind the context when the test is over.
    fn growth(self) -> usize {
        match self.kind {
            Kind::Prompt(tokens) => tokens,
            Kind::Decode { tokens, .. } => tokens + 1,
            Kind::Verify { tokens, passes } => tokens * (passes + 1),
        }
    }

    /// How many passes are timed.
    fn passes(self) -> usize {
        match self.kind {
            Kind::Prompt(_) => 1,
            Kind::Decode { tokens, .. } => tokens,
            Kind::Verify { passes, .. } => passes,
        }
    }

    /// A pass in the middle of the test.
    pub(super) fn pass(self) -> Pass {
        let context = self.depth + self.growth() / 2;
        match self.kind {
            Kind::Prompt(tokens) => Pass {
                rows: 1,
                tokens,
                context: self.depth,
                logits: 1,
            },
            Kind::Decode { rows, .. } => Pass {
                rows,
                tokens: 1,
                context,
                logits: rows,
            },
            Kind::Verify { tokens, .. } => Pass {
                rows: 1,
                tokens,
                context,
                logits: tokens,
            },
        }
    }
}

/// A model and how it is fed.
pub(super) struct Subject<'a> {
    pub(super) model: &'a TextModel,
    pub(super) kv: Option<DType>,
    pub(super) seed: u64,
}

impl Subject<'_> {
    /// A cache with `depth` random tokens and room for the tests behind it.
    pub(super) fn fill(&self, depth: usize, tests: &[Test]) -> Result<Cache> {
        let growth = tests.iter().map(|test| test.growth()).max().unwrap_or(0);
        let mut cache = self.model.new_cache(self.spec(depth + growth));
        if depth > 0 {
            let mut random = Random::new(self.seed);
            self.feed_prompt(&mut cache, &random.ids(self.model, depth))?;
        }
        Ok(cache)
    }

    /// The number type of keys and values.
    pub(super) fn kv(&self) -> DType {
        self.model.new_cache(self.spec(1)).kv_dtype()
    }

    fn spec(&self, capacity: usize) -> CacheSpec {
        let spec = CacheSpec::rows(1).with_capacity(capacity);
        match self.kv {
            None => spec,
            Some(dtype) => spec.with_kv_dtype(dtype),
        }
    }

    /// Runs a test behind what is in `base`, which stays as it is; the times of its passes.
    /// `begin` is called when everything is ready and warm.
    pub(super) fn run(
        &self,
        test: Test,
        base: &Cache,
        begin: impl FnOnce(),
    ) -> Result<Vec<Duration>> {
        let mut cache = base.fork()?;
        let mut random = Random::new(self.seed.wrapping_add(1));
        if let Kind::Prompt(tokens) = test.kind {
            let ids = random.ids(self.model, tokens);
            begin();
            let started = Instant::now();
            let _span = profile::span(Op::Pass, &[], Work::NONE);
            self.feed_prompt(&mut cache, &ids)?;
            return Ok(vec![started.elapsed()]);
        }
        let pass = test.pass();
        for _ in 1..pass.rows {
            cache.fork_row(0)?;
        }
        let step = Step::rows(&vec![pass.tokens; pass.rows]);
        let want = match test.kind {
            Kind::Verify { .. } => Want::AllLogits,
            Kind::Prompt(_) | Kind::Decode { .. } => Want::LastLogits,
        };
        let mut pass = |ids: Vec<u32>| {
            let started = Instant::now();
            let _span = profile::span(Op::Pass, &[], Work::NONE);
            self.feed(&mut cache, &ids, &step, want)?;
            anyhow::Ok(started.elapsed())
        };
        let mut ids = || random.ids(self.model, step.tokens());
        pass(ids())?;
        begin();
        (0..test.passes()).map(|_| pass(ids())).collect()
    }

    /// Feeds a prompt in pieces, as generating does.
    pub(super) fn feed_prompt(&self, cache: &mut Cache, ids: &[u32]) -> Result<()> {
        let pieces = ids.len().div_ceil(CHUNK);
        for (number, piece) in ids.chunks(CHUNK).enumerate() {
            let want = if number + 1 == pieces {
                Want::LastLogits
            } else {
                Want::Hidden
            };
            self.feed(cache, piece, &Step::single(piece.len()), want)?;
        }
        Ok(())
    }

    /// One pass, until the device is done with it.
    fn feed(&self, cache: &mut Cache, ids: &[u32], step: &Step, want: Want) -> Result<()> {
        let device = self.model.device();
        let input = Tensor::new(ids, device)?;
        self.model.forward(Input::Ids(&input), step, cache, want)?;
        Ok(device.synchronize()?)
    }
}

/// Random token ids, the same for the same seed.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed ^ 0x9E37_79B9_7F4A_7C15)
    }

    pub(super) fn ids(&mut self, model: &TextModel, count: usize) -> Vec<u32> {
        let vocab = model.vocab_size() as u64;
        (0..count)
            .map(|_| u32::try_from(self.next() % vocab).unwrap_or(0))
            .collect()
    }

    /// The upper half of a linear congruential generator is random enough for ids.
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}

/// What the repetitions of one test came to.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    pub(super) test: String,
    pub(super) depth: usize,
    /// Sequences fed together.
    pub(super) rows: usize,
    /// Tokens that a pass feeds to each.
    pub(super) tokens_per_pass: usize,
    /// Over all sequences.
    pub(super) tokens_per_second: f64,
    /// Of every repetition.
    pub(super) tokens_per_second_of: Vec<f64>,
    /// Half of all passes took at most as long.
    pub(super) pass_p50_seconds: f64,
    /// Nineteen of twenty passes took at most as long.
    pub(super) pass_p95_seconds: f64,
    /// Bytes of weights, keys and values that a pass cannot do without.
    pub(super) bytes_per_pass: f64,
    pub(super) gb_per_second: f64,
    /// How fast memory could be read right then; `None` where that was not asked for.
    pub(super) read_gb_per_second: Option<f64>,
    pub(super) share_of_read: Option<f64>,
    pub(super) macs_per_pass: f64,
    pub(super) gmac_per_second: f64,
    pub(super) share_of_peak: Option<f64>,
}

impl Figures {
    /// Medians over the repetitions, each with the reading next to it; `None` without any.
    pub(super) fn of(
        test: Test,
        runs: &[(Vec<Duration>, Option<Reading>)],
        work: &ModelWork,
        machine: Option<&Machine>,
    ) -> Option<Self> {
        let pass = test.pass();
        let (bytes, macs) = (work.bytes(pass), work.macs(pass));
        let passes: Vec<f64> = runs
            .iter()
            .flat_map(|(times, _)| times)
            .map(Duration::as_secs_f64)
            .collect();
        let seconds = |times: &[Duration]| times.iter().sum::<Duration>().as_secs_f64();
        let passes_per_second: Vec<f64> = runs
            .iter()
            .map(|(times, _)| times.len() as f64 / seconds(times))
            .collect();
        let tokens = (pass.rows * pass.tokens) as f64;
        let rate = median(passes_per_second.iter().copied())?;
        let readings = || runs.iter().filter_map(|(_, reading)| *reading);
        let shares = passes_per_second.iter().zip(readings());
        let peak = machine.and_then(|machine| machine.peak(work.arithmetic));
        Some(Self {
            test: test.name(),
            depth: test.depth,
            rows: pass.rows,
            tokens_per_pass: pass.tokens,
            tokens_per_second: rate * tokens,
            tokens_per_second_of: passes_per_second.iter().map(|r| r * tokens).collect(),
            pass_p50_seconds: median(passes.iter().copied())?,
            pass_p95_seconds: quantile(passes, 0.95)?,
            bytes_per_pass: bytes,
            gb_per_second: rate * bytes / 1e9,
            read_gb_per_second: median(readings().map(|reading| reading.fastest() / 1e9)),
            share_of_read: median(shares.map(|(rate, reading)| rate * bytes / reading.fastest())),
            macs_per_pass: macs,
            gmac_per_second: rate * macs / 1e9,
            share_of_peak: peak.map(|peak| rate * macs / peak),
        })
    }
}

pub(super) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    quantile(values.collect(), 0.5)
}

/// The smallest value that at least this share of all values does not exceed.
fn quantile(mut values: Vec<f64>, share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lfm2::hub::gguf::Quantization;
    use lfm2::text::shapes;

    fn args(depth: &[usize], batch: &[usize], verify: &[usize]) -> TestArgs {
        let some = |list: &[usize]| list.iter().map(|&n| n.try_into().unwrap()).collect();
        TestArgs {
            prompt_tokens: 512,
            gen_tokens: 64,
            depth: depth.to_vec(),
            batch: some(batch),
            verify: some(verify),
            kv_type: None,
        }
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let of = |share, values: &[f64]| quantile(values.to_vec(), share);
        assert_eq!(of(0.5, &[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(of(0.5, &[4.0, 1.0, 2.0, 3.0]), Some(2.0));
        assert_eq!(of(0.95, &[1.0, 9.0]), Some(9.0));
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(of(0.95, &hundred), Some(95.0));
        assert_eq!(of(0.5, &[]), None);
    }

    #[test]
    fn every_depth_has_every_test() {
        let names = |args| {
            let tests = Test::all(&args);
            tests.into_iter().map(Test::name).collect::<Vec<_>>()
        };
        assert_eq!(
            names(args(&[0, 9], &[1, 8], &[4])),
            [
                "pp512", "tg64", "tg64x8", "vf4", "pp512@9", "tg64@9", "tg64x8@9", "vf4@9"
            ]
        );
        let prompts = TestArgs {
            gen_tokens: 0,
            ..args(&[0], &[1], &[])
        };
        assert_eq!(names(prompts), ["pp512"]);
        let tokens = TestArgs {
            prompt_tokens: 0,
            ..args(&[7], &[1], &[])
        };
        assert_eq!(names(tokens), ["tg64@7"]);
    }

    #[test]
    fn figures_are_medians_beside_the_reading_of_their_round() {
        let shape = shapes::find("lfm2-350m").unwrap();
        let tensors = shape.tensors(Quantization::Q8_0, 0).unwrap();
        let work = ModelWork::new(&shape.config().unwrap(), &tensors, DType::F32);
        let test = Test::all(&args(&[0], &[8], &[]))[1];
        let run = |milliseconds, rate| {
            let times = vec![Duration::from_millis(milliseconds); 4];
            (
                times,
                Some(Reading {
                    buffer: rate,
                    again: rate / 2.0,
                }),
            )
        };
        // The bandwidth halves and so does the speed: the share stays what it is.
        let bytes = work.bytes(test.pass());
        let runs = [
            run(100, bytes * 20.0),
            run(200, bytes * 10.0),
            run(400, bytes * 5.0),
        ];
        let figures = Figures::of(test, &runs, &work, None).unwrap();
        assert_eq!((figures.test.as_str(), figures.rows), ("tg64x8", 8));
        assert!((figures.tokens_per_second - 40.0).abs() < 1e-9);
        assert_eq!(
            (figures.pass_p50_seconds, figures.pass_p95_seconds),
            (0.2, 0.4)
        );
        assert!((figures.share_of_read.unwrap() - 0.5).abs() < 1e-9);
        assert_eq!(figures.share_of_peak, None);
        assert!(Figures::of(test, &[], &work, None).is_none());
    }
}
