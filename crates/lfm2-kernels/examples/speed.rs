//! Prints how fast the main kernels are here: `cargo run --release -p lfm2-kernels --example speed`.
//!
//! Weights of decode products rotate over about 256 MB. Where the last-level cache is larger than
//! that, the figures are those of the cache and not of memory. `LFM2_ISA` chooses the instructions,
//! `LFM2_NUM_THREADS` the number of threads. An argument (`decode`, `prefill`, `attention`, `rows`,
//! `maxsim` or `pool`) chooses one group; `pool` beside another busy program shows how well threads share cores.
#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use half::{bf16, f16};
use lfm2_kernels::packed::{
    BlockType, PackedMatrix, Precision, Product, Sum, multiply, with_quantized,
};
use lfm2_kernels::{
    AttentionSpec, ConvKernel, DocumentRows, Element, Isa, KvRef, KvShape, MatMut, MatRef,
    ShapeError, Visibility, attention, encoder_attention_bf16, matmul, matmul_bf16, max_sim,
    rms_norm, short_conv, silu_mul, threads,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Result<()> {
    let isa = Isa::from_env()?;
    println!("instructions {isa}, threads {}", threads::count());
    let round_bf16 = bf16::from_f32;
    let round_f16 = f16::from_f32;
    let chosen = std::env::args().nth(1);
    let wanted = |group: &str| chosen.as_deref().is_none_or(|name| name == group);
    threads::from_env()?;
    if wanted("decode") {
        for m in [1, 2, 4, 8, 16] {
            product(isa, "f32", m, 2048, 8192, |v| v)?;
            product(isa, "bf16", m, 2048, 8192, round_bf16)?;
            product(isa, "f16", m, 2048, 8192, round_f16)?;
        }
        product(isa, "bf16", 1, 8192, 2048, round_bf16)?;
        product(isa, "f32", 1, 1024, 1024, |v| v)?;
    }
    if wanted("prefill") {
        for (m, k, n) in [
            (512, 2048, 8192),
            (512, 8192, 2048),
            (512, 2048, 512),
            (64, 2048, 1792),
        ] {
            product(isa, "f32", m, k, n, |v| v)?;
            product(isa, "bf16", m, k, n, round_bf16)?;
        }
        for (m, k, n) in [
            (1024, 768, 3072),
            (1024, 3072, 768),
            (256, 1024, 4608),
            (32, 1024, 4608),
        ] {
            rounded(isa, m, k, n)?;
            for kind in [BlockType::Q8_0, BlockType::Q4_0] {
                packed_product(isa, kind, Precision::Int16, (m, k, n))?;
                packed_product(isa, kind, Precision::Int8, (m, k, n))?;
            }
        }
    }
    if wanted("attention") {
        for (group, depth) in [(4, 4096), (2, 4096), (4, 512)] {
            attend(isa, 1, group, depth, round_f16)?;
        }
        attend(isa, 512, 4, 0, round_f16)?;
        attend(isa, 512, 4, 3584, round_f16)?;
        encoder(isa, 1024, 12, 64)?;
        encoder(isa, 1024, 16, 72)?;
    }
    if wanted("rows") {
        row_kernels(isa)?;
    }
    if wanted("maxsim") {
        late_interaction(isa)?;
    }
    if wanted("pool") {
        hand_off();
        steps();
    }
    Ok(())
}

/// The shortest of a few runs, in seconds, after one to warm up.
fn seconds(mut f: impl FnMut(usize) -> std::result::Result<(), ShapeError>) -> Result<f64> {
    let start = Instant::now();
    f(0)?;
    let once = start.elapsed().as_secs_f64();
    let runs = ((0.4 / once) as usize).clamp(3, 2000);
    let mut best = f64::MAX;
    for run in 0..runs {
        let start = Instant::now();
        f(run)?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn values<T: Clone>(len: usize, round: impl Fn(f32) -> T) -> Vec<T> {
    (0..len)
        .map(|i| round(((i * 7919) % 1000) as f32 / 500.0 - 1.0))
        .collect()
}

fn product<W: Element>(
    isa: Isa,
    name: &str,
    m: usize,
    k: usize,
    n: usize,
    round: impl Fn(f32) -> W,
) -> Result<()> {
    let bytes = n * k * size_of::<W>();
    let copies = if m <= 16 {
        ((256 << 20) / bytes).max(1)
    } else {
        1
    };
    let weights = values(copies * n * k, round);
    let x = values(m * k, |v| v);
    let mut y = vec![0.0; m * n];
    let time = seconds(|run| {
        let w = &weights[run % copies * n * k..][..n * k];
        matmul(
            isa,
            MatRef::new(&x, m, k)?,
            MatRef::new(w, n, k)?,
            MatMut::new(&mut y, m, n)?,
        )
    })?;
    println!(
        "matmul {name:<5} {m:>4} x {k} x {n:<5} {:>8.0} us {:>7.1} GB/s of weights {:>7.1} GMAC/s",
        time * 1e6,
        bytes as f64 / time / 1e9,
        (m * n * k) as f64 / time / 1e9
    );
    Ok(())
}

/// Activations and weights in pairs of `bf16`.
fn rounded(isa: Isa, m: usize, k: usize, n: usize) -> Result<()> {
    let weights = values(n * k, bf16::from_f32);
    let x = values(m * k, |v| v);
    let mut y = vec![0.0; m * n];
    let mut done = true;
    let time = seconds(|_| {
        let w = MatRef::new(&weights, n, k)?;
        done = matmul_bf16(isa, MatRef::new(&x, m, k)?, w, MatMut::new(&mut y, m, n)?)?;
        Ok(())
    })?;
    let rate = (m * n * k) as f64 / time / 1e9;
    match done {
        true => println!(
            "pairs of bf16 {m:>4} x {k} x {n:<5} {:>8.0} us {rate:>7.1} GMAC/s",
            time * 1e6
        ),
        false => println!("pairs of bf16 are not faster here"),
    }
    Ok(())
}

/// Weights in blocks, with the rounding of the activations.
fn packed_product(
    isa: Isa,
    kind: BlockType,
    precision: Precision,
    (m, k, n): (usize, usize, usize),
) -> Result<()> {
    // Scales of two bytes at the beginning of each block, and then levels.
    let block: Vec<u8> = (0..kind.block_bytes())
        .map(|i| [0, 0x20, 77, 201, 18][i.min(2 + i % 3)])
        .collect();
    let weight = PackedMatrix::from_blocks(kind, n, k, &block.repeat(n * k / kind.block_len()))?;
    let x = values(m * k, |v| v);
    let mut y = vec![0.0; m * n];
    let time = seconds(|_| {
        with_quantized(isa, MatRef::new(&x, m, k)?, precision, |x| {
            let (weight, sum) = (&weight, Sum::Replace);
            let out = MatMut::new(&mut y, m, n)?;
            multiply(
                isa,
                vec![Product {
                    x,
                    weight,
                    out,
                    sum,
                }],
            )
        })
    })?;
    println!(
        "{kind} {precision:?} {m:>4} x {k} x {n:<5} {:>8.0} us {:>7.1} GMAC/s",
        time * 1e6,
        (m * n * k) as f64 / time / 1e9
    );
    Ok(())
}

/// An encoder's attention in pairs of `bf16`, and in `f32`.
fn encoder(isa: Isa, tokens: usize, heads: usize, dim: usize) -> Result<()> {
    let shape = KvShape {
        kv_heads: heads,
        capacity: tokens,
        head_dim: dim,
    };
    let x = values(shape.size()?, |v| v);
    let mut out = vec![0.0; x.len()];
    let macs = (2 * tokens * tokens * heads * dim) as f64;
    let time = seconds(|_| {
        encoder_attention_bf16(isa, [&x, &x, &x], (heads, shape), 0.125, &mut out).map(drop)
    })?;
    let spec = AttentionSpec {
        heads,
        scale: 0.125,
        past: 0,
        visibility: Visibility::All,
    };
    let full = seconds(|_| {
        let kv = KvRef::new(&x, &x, shape, tokens)?;
        attention(isa, &x, kv, &spec, &mut out)
    })?;
    println!(
        "encoder of {tokens} tokens, {heads} heads of {dim}: {:.0} us in bf16 ({:.1} GMAC/s), {:.0} us in f32 ({:.1})",
        time * 1e6,
        macs / time / 1e9,
        full * 1e6,
        macs / full / 1e9
    );
    Ok(())
}

fn attend<T: Element>(
    isa: Isa,
    tokens: usize,
    group: usize,
    past: usize,
    round: impl Fn(f32) -> T,
) -> Result<()> {
    let shape = KvShape {
        kv_heads: 8,
        capacity: past + tokens,
        head_dim: 64,
    };
    let keys = values(shape.size()?, &round);
    let cached = values(shape.size()?, round);
    let heads = shape.kv_heads * group;
    let q = values(tokens * heads * 64, |v| v);
    let mut out = vec![0.0; q.len()];
    let spec = AttentionSpec {
        heads,
        scale: 0.125,
        past,
        visibility: Visibility::Causal,
    };
    let time = seconds(|_| {
        let kv = KvRef::new(&keys, &cached, shape, past + tokens)?;
        attention(isa, &q, kv, &spec, &mut out)
    })?;
    let pairs = tokens * past + tokens * (tokens + 1) / 2;
    println!(
        "attention {tokens:>4} tokens, {heads} heads, depth {past:<4} {:>8.0} us {:>7.1} GB/s of cache {:>7.1} GMAC/s",
        time * 1e6,
        (2 * keys.len() * size_of::<T>()) as f64 / time / 1e9,
        (2 * pairs * heads * 64) as f64 / time / 1e9
    );
    Ok(())
}

/// A query of 32 vectors with a thousand documents of a hundred.
fn late_interaction(isa: Isa) -> Result<()> {
    let (rows, dim, documents, length) = (32, 128, 1000, 100);
    let query = values(rows * dim, |v| v);
    let ranges: Vec<_> = (0..documents)
        .map(|d| d * length..(d + 1) * length)
        .collect();
    let count = documents * length;
    let full = values(count * dim, |v| v);
    let half = values(count * dim, f16::from_f32);
    let bytes = values(count * dim, |v| (v * 127.0) as i8);
    let scales = vec![1.0 / 127.0; count];
    let mut scores = vec![0.0; documents];
    let kinds = [
        ("f32", DocumentRows::F32(MatRef::new(&full, count, dim)?)),
        ("f16", DocumentRows::F16(MatRef::new(&half, count, dim)?)),
        (
            "i8",
            DocumentRows::I8 {
                values: MatRef::new(&bytes, count, dim)?,
                scales: &scales,
            },
        ),
    ];
    for (name, stored) in kinds {
        let query = MatRef::new(&query, rows, dim)?;
        let time = seconds(|_| max_sim(isa, query, stored, &ranges, &mut scores))?;
        println!(
            "max_sim {name:<4} {rows} x {dim}, {documents} documents of {length} {:>8.0} us {:>7.1} GMAC/s",
            time * 1e6,
            (rows * count * dim) as f64 / time / 1e9
        );
    }
    Ok(())
}

fn row_kernels(isa: Isa) -> Result<()> {
    for tokens in [1, 512] {
        let bcx = values(tokens * 3 * 2048, |v| v);
        let mut out = vec![0.0; tokens * 2048];
        let kernel = ConvKernel::new(&values(2048 * 3, |v| v), None, 2048)?;
        let mut state = vec![0.0; kernel.state_len()];
        let conv = seconds(|_| short_conv(isa, &bcx, &kernel, &mut state, &mut out))?;
        let x = &bcx[..out.len()];
        let norm = seconds(|_| rms_norm(isa, x, &bcx[..2048], 1e-5, &mut out))?;
        let gate = values(tokens * 8192, |v| v);
        let mut product = vec![0.0; gate.len()];
        let swiglu = seconds(|_| silu_mul(isa, &gate, &gate, &mut product))?;
        let quantize = |precision| {
            seconds(|_| {
                let x = MatRef::new(x, tokens, 2048)?;
                with_quantized(isa, x, precision, |rows| black_box(rows.rows()));
                Ok(())
            })
        };
        let (narrow, wide) = (quantize(Precision::Int8)?, quantize(Precision::Int16)?);
        println!(
            "{tokens:>4} tokens of 2048: short_conv {:.1} us, rms_norm {:.1} us, silu_mul of 8192 {:.1} us, \
             to 8 bits {:.1} us, to 16 bits {:.1} us",
            conv * 1e6,
            norm * 1e6,
            swiglu * 1e6,
            narrow * 1e6,
            wide * 1e6
        );
    }
    Ok(())
}

/// What it costs to run two tasks of nothing, right after the last time and after a rest.
fn hand_off() {
    let job = || {
        threads::for_each_task(2, usize::MAX, |task| {
            black_box(task);
        });
    };
    let mut hot = times(200, || (0..1000).for_each(|_| job()));
    let mut rested = Vec::new();
    for _ in 0..200 {
        std::thread::sleep(Duration::from_micros(300));
        rested.extend(times(1, job));
    }
    println!(
        "two empty tasks: {:.2} us back to back, {:.1} us after a rest of 300 us",
        median(&mut hot) * 1e3,
        median(&mut rested) * 1e6
    );
}

/// Reads memory as a model does when it decodes: many jobs per step, a little work of the calling
/// thread's between them.
fn steps() {
    const JOBS: usize = 80;
    const TASKS: usize = 40;
    const TASK: usize = 1 << 13;
    let data: Vec<u64> = (0..(JOBS * TASKS * TASK) as u64).collect();
    let bytes = size_of_val(&*data);
    let job = |job: usize| {
        threads::for_each_task(TASKS, usize::MAX, |task| {
            let start = (job * TASKS + task) * TASK;
            black_box(
                data[start..start + TASK]
                    .iter()
                    .fold(0_u64, |a, b| a.wrapping_add(*b)),
            );
        });
        let pause = Instant::now();
        while pause.elapsed() < Duration::from_micros(5) {
            std::hint::spin_loop();
        }
    };
    let step = || (0..JOBS).for_each(job);
    let start = Instant::now();
    let mut steps = Vec::new();
    while start.elapsed() < Duration::from_secs(3) {
        steps.extend(times(1, step));
    }
    let mean = start.elapsed().as_secs_f64() / steps.len() as f64;
    println!(
        "steps of {JOBS} jobs, {} MB: {:.1} steps/s on average ({:.1} GB/s), {:.1} as a median",
        bytes >> 20,
        1.0 / mean,
        bytes as f64 / mean / 1e9,
        1.0 / median(&mut steps)
    );
}

/// How long each of `runs` calls took, in seconds.
fn times(runs: usize, f: impl Fn()) -> Vec<f64> {
    let time = |_| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    (0..runs).map(time).collect()
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
