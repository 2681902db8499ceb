//! Prints how fast products with packed weights are: `cargo run --release -p lfm2-kernels --example packed`.
//!
//! Weights of few rows rotate over about 1 GiB, so that they come from memory. An argument chooses a
//! format.
#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::time::Instant;

use lfm2_kernels::packed::{
    BlockType, GatedProduct, PackedMatrix, Product, Sum, multiply, multiply_gated, with_quantized,
};
use lfm2_kernels::{Isa, MatMut, MatRef, threads};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> Result<()> {
    let isa = Isa::from_env()?;
    println!("instructions {isa}, threads {}", threads::count());
    let chosen = std::env::args().nth(1);
    for kind in BlockType::ALL {
        if chosen.as_deref().is_some_and(|name| name != kind.name()) {
            continue;
        }
        for m in [1, 2, 4, 8, 16] {
            product(isa, kind, m, 2048, 8192)?;
        }
        for (k, n) in [(1024, 4608), (4608, 1024), (2048, 8192), (8192, 2048)] {
            product(isa, kind, 512, k, n)?;
        }
        gated(isa, kind, 512, 2048, 8192)?;
    }
    Ok(())
}

/// Random weights, as many matrices as fill `room` bytes.
fn matrices(kind: BlockType, k: usize, n: usize, room: usize) -> Result<Vec<PackedMatrix>> {
    let len = n * k / kind.block_len() * kind.block_bytes();
    let mut state = 1_u64;
    let mut blocks = vec![0_u8; len];
    for byte in &mut blocks {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        // Never an exponent of all ones in a scale.
        *byte = (state >> 56) as u8 & 0x3b;
    }
    let packed = PackedMatrix::from_blocks(kind, n, k, &blocks)?;
    let copies = (room / packed.bytes().len()).max(1);
    let mut all = vec![packed];
    for _ in 1..copies {
        all.push(PackedMatrix::from_blocks(kind, n, k, &blocks)?);
    }
    Ok(all)
}

fn activations(m: usize, k: usize) -> Vec<f32> {
    (0..m * k)
        .map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0)
        .collect()
}

/// Median seconds of a few runs after one to warm up.
fn seconds(mut f: impl FnMut(usize) -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    f(0)?;
    let once = start.elapsed().as_secs_f64();
    let mut times = Vec::new();
    for run in 0..((0.5 / once) as usize).clamp(3, 500) {
        let start = Instant::now();
        f(run)?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn product(isa: Isa, kind: BlockType, m: usize, k: usize, n: usize) -> Result<()> {
    let weights = matrices(kind, k, n, if m <= 16 { 1 << 30 } else { 0 })?;
    let x = activations(m, k);
    let mut y = vec![0.0; m * n];
    let time = seconds(|run| {
        let x = MatRef::new(&x, m, k)?;
        with_quantized(isa, x, kind.precision(), |x| {
            let (weight, out) = (&weights[run % weights.len()], MatMut::new(&mut y, m, n)?);
            multiply(
                isa,
                vec![Product {
                    x,
                    weight,
                    out,
                    sum: Sum::Replace,
                }],
            )
        })?;
        Ok(())
    })?;
    report(
        &format!("{kind} {m:>4} x {k} x {n:<5}"),
        time,
        weights[0].bytes().len(),
        m * n * k,
    );
    Ok(())
}

fn gated(isa: Isa, kind: BlockType, m: usize, k: usize, n: usize) -> Result<()> {
    let (gate, up) = (matrices(kind, k, n, 0)?, matrices(kind, k, n, 0)?);
    let x = activations(m, k);
    let mut y = vec![0.0; m * n];
    let time = seconds(|_| {
        let x = MatRef::new(&x, m, k)?;
        with_quantized(isa, x, kind.precision(), |x| {
            let (gate, up, out) = (&gate[0], &up[0], MatMut::new(&mut y, m, n)?);
            multiply_gated(isa, vec![GatedProduct { x, gate, up, out }])
        })?;
        Ok(())
    })?;
    report(
        &format!("{kind} {m:>4} x {k} x {n:<5} gated"),
        time,
        2 * gate[0].bytes().len(),
        2 * m * n * k,
    );
    Ok(())
}

fn report(what: &str, time: f64, bytes: usize, work: usize) {
    println!(
        "{what:<32} {:>8.0} us {:>7.1} GB/s of weights {:>7.1} GMAC/s",
        time * 1e6,
        bytes as f64 / time / 1e9,
        work as f64 / time / 1e9
    );
}
