//! Rounded activations times packed weights.

use std::marker::PhantomData;
use std::ops::Range;

use super::format::{BlockType, LINE, Levels, Precision, Scales, UNIT};
use super::matrix::PackedMatrix;
use super::rows::{BYTE_OFFSET, HALF_OFFSETS, OFFSET, PANEL, QuantizedRows, SCALE, SUM};
use super::sums::{Bytes, Small, Sums, Wide};
use crate::activation::SiluMulInPlace;
use crate::matmul::Output;
use crate::simd::dot16::ROWS;
use crate::simd::{Kernel, Simd};
use crate::threads::{SharedMut, for_each_task};
use crate::{Isa, MatMut, ShapeError};

/// Up to this many rows of activations, reading the weights takes longer than the arithmetic.
const FEW_ROWS: usize = 8;

/// Bytes of weights a task then reads, about: long runs are what memory is fast at.
const TASK_BYTES: usize = 1 << 17;

/// Tiles of a task with more rows: activations are read once for all of them.
const TASK_TILES: usize = 4;

/// A product is cut into this many tasks at least, if it has the tiles.
const MIN_TASKS: usize = 8;

/// Bytes of activations that meet a tile before the next tile does: they stay in the second-level
/// cache.
const BLOCK_BYTES: usize = 1 << 19;

/// With up to this many panels, weights are asked for ahead of their use.
const FEW_PANELS: usize = 2;

/// How far ahead of their use weights are asked for.
const PREFETCH: usize = 3 << 10;

/// What becomes of the results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// They replace what is there.
    Replace,
    /// They are added to what is there.
    Add,
}

/// One of several products `out = x weightᵀ` that are made at once.
#[derive(Debug)]
pub struct Product<'a> {
    /// The activations.
    pub x: &'a QuantizedRows<'a>,
    /// The weights.
    pub weight: &'a PackedMatrix,
    /// The results, `(rows of x, rows of weight)`.
    pub out: MatMut<'a, f32>,
    /// What becomes of them.
    pub sum: Sum,
}

/// One of several products `out = silu(x gateᵀ) * (x upᵀ)` that are made at once: the inner half of a
/// SwiGLU layer.
#[derive(Debug)]
pub struct GatedProduct<'a> {
    /// The activations.
    pub x: &'a QuantizedRows<'a>,
    /// The weights of the gate.
    pub gate: &'a PackedMatrix,
    /// The weights of what is gated, of the same shape.
    pub up: &'a PackedMatrix,
    /// The results, `(rows of x, rows of gate)`.
    pub out: MatMut<'a, f32>,
}

/// Makes several products at once.
///
/// The result of a row depends on nothing but that row: neither on the rows beside it nor on the
/// number of threads.
///
/// # Errors
/// When shapes disagree, or a matrix needs another [`Precision`] than its activations have.
pub fn multiply(isa: Isa, products: Vec<Product<'_>>) -> Result<(), ShapeError> {
    let mut jobs = Jobs::default();
    for product in products {
        check(product.x, product.weight, &product.out)?;
        jobs.push(product.x, product.weight, product.out, product.sum);
    }
    jobs.run(|job, tiles, panel| {
        let mut results = NO_RESULTS;
        walk(isa, job.x, job.weight, tiles.clone(), panel, &mut results);
        job.each_row(tiles, panel, &results, |values, out| match job.kind {
            Sum::Replace => out.copy_from_slice(&values[..out.len()]),
            Sum::Add => out.iter_mut().zip(values).for_each(|(out, v)| *out += v),
        });
    });
    Ok(())
}

/// Makes several gated products at once.
///
/// # Errors
/// As [`multiply`].
pub fn multiply_gated(isa: Isa, products: Vec<GatedProduct<'_>>) -> Result<(), ShapeError> {
    let mut jobs = Jobs::default();
    for product in products {
        check(product.x, product.gate, &product.out)?;
        check(product.x, product.up, &product.out)?;
        jobs.push(product.x, product.gate, product.out, product.up);
    }
    jobs.run(|job, tiles, panel| {
        let (mut gates, mut ups) = (NO_RESULTS, NO_RESULTS);
        walk(isa, job.x, job.weight, tiles.clone(), panel, &mut gates);
        walk(isa, job.x, job.kind, tiles.clone(), panel, &mut ups);
        let (_, height) = job.x.panel(panel);
        let count = tiles.len() * height;
        isa.run(SiluMulInPlace {
            gate: gates[..count].as_flattened_mut(),
            up: ups[..count].as_flattened(),
        });
        job.each_row(tiles, panel, &gates, |values, out| {
            out.copy_from_slice(&values[..out.len()]);
        });
    });
    Ok(())
}

/// Products cut into tasks: some tiles of one product each.
struct Jobs<'a, K> {
    jobs: Vec<Job<'a, K>>,
    tasks: usize,
    work: usize,
}

impl<K> Default for Jobs<'_, K> {
    fn default() -> Self {
        Self {
            jobs: Vec::new(),
            tasks: 0,
            work: 0,
        }
    }
}

/// One product, and what is particular about it.
struct Job<'a, K> {
    /// The number of its first task.
    first: usize,
    /// Tiles per task.
    per_task: usize,
    x: &'a QuantizedRows<'a>,
    weight: &'a PackedMatrix,
    out: Output<'a>,
    kind: K,
}

impl<'a, K: Sync> Jobs<'a, K> {
    fn push(
        &mut self,
        x: &'a QuantizedRows<'a>,
        weight: &'a PackedMatrix,
        out: MatMut<'a, f32>,
        kind: K,
    ) {
        let per_task = tiles_per_task(x.rows(), weight);
        let stride = out.stride();
        self.jobs.push(Job {
            first: self.tasks,
            per_task,
            x,
            weight,
            out: Output {
                values: SharedMut::new(out.into_slice()),
                stride,
            },
            kind,
        });
        self.tasks += weight.tiles().div_ceil(per_task);
        self.work += weight.rows() * weight.cols() * x.rows();
    }

    /// Calls `f` for every group of tiles of every job with every panel.
    fn run(&self, f: impl Fn(&Job<'a, K>, Range<usize>, usize) + Sync) {
        for_each_task(self.tasks, self.work, |task| {
            // The last job that begins at or before the task; those before it may be empty.
            let index = self.jobs.partition_point(|job| job.first <= task);
            let Some(job) = index.checked_sub(1).and_then(|index| self.jobs.get(index)) else {
                return;
            };
            let start = (task - job.first) * job.per_task;
            let end = (start + job.per_task).min(job.weight.tiles());
            let panels = job.x.panels();
            let step = panels_per_block(job.x);
            let together = tiles_together(job.x.rows());
            for first in (0..panels).step_by(step) {
                for tile in (start..end).step_by(together) {
                    let tiles = tile..(tile + together).min(end);
                    for panel in first..(first + step).min(panels) {
                        f(job, tiles.clone(), panel);
                    }
                }
            }
        });
    }
}

impl<K> Job<'_, K> {
    /// Calls `f` with every sixteen results of a group of tiles and a panel, and where they go. No two
    /// tasks may have a tile in common.
    fn each_row(
        &self,
        tiles: Range<usize>,
        panel: usize,
        results: &Results,
        f: impl Fn(&[f32; ROWS], &mut [f32]),
    ) {
        let (_, height) = self.x.panel(panel);
        for (tile, results) in tiles.zip(results.chunks_exact(height)) {
            let count = ROWS.min(self.weight.rows() - tile * ROWS);
            for (row, values) in results.iter().enumerate() {
                // SAFETY: the task that walks a tile alone writes its columns.
                f(values, unsafe {
                    self.out.part(panel * PANEL + row, tile * ROWS, count)
                });
            }
        }
    }
}

fn check(
    x: &QuantizedRows<'_>,
    weight: &PackedMatrix,
    out: &MatMut<'_, f32>,
) -> Result<(), ShapeError> {
    ShapeError::check("columns of packed weights", x.cols(), weight.cols())?;
    ShapeError::check("rows of a packed product", x.rows(), out.rows())?;
    ShapeError::check("columns of a packed product", weight.rows(), out.cols())?;
    if x.precision() == Precision::Int16 {
        return Ok(());
    }
    ShapeError::check(
        "bytes per activation",
        weight.kind().coarsest().bytes(),
        x.precision().bytes(),
    )
}

/// How many tiles of `weight` a task takes when there are `rows` rows of activations.
fn tiles_per_task(rows: usize, weight: &PackedMatrix) -> usize {
    let wanted = if rows <= FEW_ROWS {
        TASK_BYTES.div_ceil(weight.tile_bytes().max(1))
    } else {
        TASK_TILES
    };
    wanted.min(weight.tiles() / MIN_TASKS).max(1)
}

/// How many panels meet a tile before the next tile does.
fn panels_per_block(x: &QuantizedRows<'_>) -> usize {
    let panel_bytes = PANEL * 4 * x.precision().record_words() * x.units();
    (BLOCK_BYTES / panel_bytes.max(1)).max(1)
}

/// How many tiles are walked side by side when there are `rows` rows of activations: with few, the
/// registers suffice for several, and memory is faster when it is read in several places.
fn tiles_together(rows: usize) -> usize {
    match rows {
        ..=2 => 4,
        3..=4 => 2,
        5..=8 => 1,
        _ => 2,
    }
}

/// The results of the tiles that are walked side by side with the rows of a panel: for every tile, as
/// many as the panel has rows. Four tiles meet two rows at most, see [`tiles_together`].
type Results = [[f32; ROWS]; 2 * PANEL];

const NO_RESULTS: Results = [[0.0; ROWS]; 2 * PANEL];

/// Multiplies the rows of a panel with the rows of up to four tiles.
fn walk(
    isa: Isa,
    x: &QuantizedRows<'_>,
    weight: &PackedMatrix,
    tiles: Range<usize>,
    panel: usize,
    results: &mut Results,
) {
    let (records, height) = x.panel(panel);
    let panel = Panel {
        tiles: weight.tile_range(tiles.clone()),
        count: tiles.len(),
        units: x.units(),
        records,
        height,
        stream: x.panels() <= FEW_PANELS,
        results,
    };
    // What `check` let through: fewer bits of activations only where `coarsest` says so.
    match (weight.kind(), x.precision()) {
        (BlockType::Q4_0, Precision::Int8) => isa.run(panel.of::<Q4_0, Small>()),
        (BlockType::Q4_1, Precision::Int8) => isa.run(panel.of::<Q4_1, Small>()),
        (BlockType::Q4_K, Precision::Int8) => isa.run(panel.of::<Q4_K, Small>()),
        (BlockType::Q8_0, Precision::Int8) => isa.run(panel.of::<Q8_0, Bytes>()),
        (BlockType::Q4_0, _) => isa.run(panel.of::<Q4_0, Wide>()),
        (BlockType::Q4_1, _) => isa.run(panel.of::<Q4_1, Wide>()),
        (BlockType::Q4_K, _) => isa.run(panel.of::<Q4_K, Wide>()),
        (BlockType::Q5_0, _) => isa.run(panel.of::<Q5_0, Wide>()),
        (BlockType::Q5_1, _) => isa.run(panel.of::<Q5_1, Wide>()),
        (BlockType::Q8_0, _) => isa.run(panel.of::<Q8_0, Wide>()),
        (BlockType::Q5_K, _) => isa.run(panel.of::<Q5_K, Wide>()),
        (BlockType::Q6_K, _) => isa.run(panel.of::<Q6_K, Wide>()),
    }
}

/// Some tiles and a panel that meet.
struct Panel<'a> {
    /// The tiles, one after the other.
    tiles: &'a [u8],
    count: usize,
    units: usize,
    records: &'a [f32],
    height: usize,
    stream: bool,
    results: &'a mut Results,
}

/// A [`BlockType`] as a type, so that each has loops of its own.
pub(super) trait Format: 'static {
    const TYPE: BlockType;
    /// Scales per unit.
    const PARTS: usize = match Self::TYPE.scales() {
        Scales::TwoBytes => 2,
        _ => 1,
    };
}

macro_rules! formats {
    ($($name:ident)+) => {$(
        #[allow(non_camel_case_types, reason = "the formats' own names")]
        struct $name;
        impl Format for $name {
            const TYPE: BlockType = BlockType::$name;
        }
    )+};
}

formats!(Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q4_K Q5_K Q6_K);

struct Typed<'a, F, B>(Panel<'a>, PhantomData<(F, B)>);

impl<'a> Panel<'a> {
    fn of<F: Format, B: Sums>(self) -> Typed<'a, F, B> {
        Typed(self, PhantomData)
    }
}

impl<F: Format, B: Sums> Kernel for Typed<'_, F, B> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Panel {
            tiles,
            count,
            units,
            records,
            height,
            stream,
            results,
        } = self.0;
        let tile_bytes = F::TYPE.tile_bytes(units * UNIT);
        assert!(height * count <= 2 * PANEL && tiles.len() == count * tile_bytes);
        assert!(records.len() == units * height * B::PRECISION.record_words());
        let room = if B::WIDE {
            S::ACTIVATIONS
        } else {
            S::NARROW_ACTIVATIONS
        };
        let mut tile = 0;
        while tile < count {
            let mut row = 0;
            let mut done = 1;
            macro_rules! rows {
                ($rows:literal, $tiles:literal) => {
                    while room >= $rows * $tiles
                        && height - row >= $rows
                        && (row == 0 || done == $tiles)
                        && count - tile >= $tiles
                    {
                        let walk = Walk {
                            tile: tiles.as_ptr().wrapping_add(tile * tile_bytes),
                            tile_bytes,
                            units,
                            record: records.as_ptr().wrapping_add(row),
                            height,
                            stream: stream && row == 0,
                        };
                        // SAFETY: the tiles and records have all the units by the checks above, rows
                        // `row..row + rows` are among the panel's and as many tiles follow.
                        let sums = unsafe { walk.run::<S, F, B, $rows, $tiles>(s) };
                        for (t, sums) in sums.into_iter().enumerate() {
                            let results = &mut results[(tile + t) * height + row..];
                            for (result, sums) in results.iter_mut().zip(sums) {
                                *result = s.to_array(sums);
                            }
                        }
                        row += $rows;
                        done = $tiles;
                    }
                };
            }
            rows!(2, 4);
            rows!(1, 4);
            rows!(6, 2);
            rows!(4, 2);
            rows!(8, 1);
            rows!(6, 1);
            rows!(4, 1);
            rows!(2, 2);
            rows!(2, 1);
            rows!(1, 2);
            rows!(1, 1);
            tile += done;
        }
    }
}

/// The walk along some tiles, for some rows of a panel.
struct Walk {
    tile: *const u8,
    /// From a tile to the next.
    tile_bytes: usize,
    units: usize,
    record: *const f32,
    height: usize,
    /// Whether the tiles come from memory and are not used again soon.
    stream: bool,
}

impl Walk {
    /// The results of `M` rows with `T` tiles.
    ///
    /// # Safety
    /// Each tile must have `units` units of format `F`, and `record` must be a row of as many records of
    /// `height` rows that has at least `M - 1` rows behind it.
    #[inline(always)]
    unsafe fn run<S: Simd, F: Format, B: Sums, const M: usize, const T: usize>(
        self,
        s: S,
    ) -> [[S::Floats; M]; T] {
        let mut results = [[s.float(0.0); M]; T];
        let mut unit = self.tile;
        let mut record = self.record;
        let record_words = B::PRECISION.record_words() * self.height;
        let mut done = 0;
        while done < self.units {
            // SAFETY: `done < units`, so a head (if the format has any), a unit and a record follow;
            // one step never leaves a block, since `units` is a multiple of the block's.
            unsafe {
                let mut heads = [[s.float(1.0); 2]; T];
                for t in 0..T {
                    heads[t] = head_numbers::<S, F>(s, unit.add(t * self.tile_bytes));
                }
                unit = unit.add(F::TYPE.head_bytes());
                for _ in 0..F::TYPE.units() {
                    let row = Row {
                        record,
                        height: self.height,
                    };
                    if self.stream {
                        for t in 0..T {
                            let ahead = unit.wrapping_add(t * self.tile_bytes + PREFETCH);
                            for line in (0..F::TYPE.unit_bytes()).step_by(LINE) {
                                s.prefetch(ahead.wrapping_add(line));
                            }
                        }
                    }
                    let tiles = (unit, self.tile_bytes);
                    add_unit::<S, F, B, M, T>(s, &heads, tiles, row, &mut results);
                    unit = unit.add(F::TYPE.unit_bytes());
                    record = record.wrapping_add(record_words);
                }
            }
            done += F::TYPE.units();
        }
        results
    }
}

/// A row in a record.
#[derive(Clone, Copy)]
struct Row {
    record: *const f32,
    height: usize,
}

impl Row {
    /// Number `number` of the row `m` further on.
    ///
    /// # Safety
    /// The record must have the number, and the row must exist.
    #[inline(always)]
    unsafe fn number(self, number: usize, m: usize) -> f32 {
        // SAFETY: forwarded from the caller.
        unsafe { *self.record.add(number * self.height + m) }
    }

    /// As [`number`](Self::number), of a whole number.
    ///
    /// # Safety
    /// As [`number`](Self::number).
    #[inline(always)]
    unsafe fn whole(self, number: usize, m: usize) -> i32 {
        // SAFETY: forwarded from the caller.
        unsafe { *self.record.add(number * self.height + m).cast::<i32>() }
    }
}

/// The numbers of a block: its scale, and the scale of its minima.
///
/// # Safety
/// The head of a block of format `F` must be readable at `p`.
#[inline(always)]
unsafe fn head_numbers<S: Simd, F: Format>(s: S, p: *const u8) -> [S::Floats; 2] {
    let one = s.float(1.0);
    // SAFETY: forwarded from the caller.
    unsafe {
        match F::TYPE.scales() {
            Scales::Half | Scales::HalfWithMinimum => [one; 2],
            Scales::ByteWithMinimum => [s.f16_values(p), s.f16_values(p.add(2 * ROWS))],
            Scales::TwoBytes => [s.f16_values(p), one],
        }
    }
}

/// Scale `part` of a unit.
///
/// # Safety
/// A unit of format `F` must be readable at `p`.
#[inline(always)]
unsafe fn scale<S: Simd, F: Format>(
    s: S,
    head: [S::Floats; 2],
    p: *const u8,
    part: usize,
) -> S::Floats {
    // SAFETY: forwarded from the caller.
    unsafe {
        match F::TYPE.scales() {
            Scales::Half | Scales::HalfWithMinimum => s.f16_values(p),
            Scales::ByteWithMinimum => s.times(head[0], s.u8_values(p)),
            Scales::TwoBytes => s.times(head[0], s.i8_values(p.add(part * ROWS))),
        }
    }
}

/// What is taken from every weight of a unit, for formats with minima.
///
/// # Safety
/// A unit of format `F` must be readable at `p`.
#[inline(always)]
unsafe fn minimum<S: Simd, F: Format>(
    s: S,
    head: [S::Floats; 2],
    p: *const u8,
) -> Option<S::Floats> {
    // SAFETY: forwarded from the caller.
    unsafe {
        match F::TYPE.scales() {
            Scales::HalfWithMinimum => Some(s.f16_values(p.add(2 * ROWS))),
            Scales::ByteWithMinimum => Some(s.times(head[1], s.u8_values(p.add(ROWS)))),
            Scales::Half | Scales::TwoBytes => None,
        }
    }
}

/// The levels of group `group`.
///
/// # Safety
/// The lines of a unit of format `F` must be readable at `lines`, and `group` is below 8.
#[inline(always)]
unsafe fn levels<S: Simd, F: Format>(s: S, lines: *const u8, group: usize) -> S::Bytes {
    // SAFETY: forwarded from the caller; every format has the lines its arm reads.
    unsafe {
        if F::TYPE.levels() as u8 == Levels::Eight as u8 {
            return s.bytes(lines.add(group * LINE));
        }
        let line = s.bytes(lines.add(group % 4 * LINE));
        let low = match group {
            0..4 => s.keep(line, 15),
            _ => s.keep(s.down::<4>(line), 15),
        };
        match F::TYPE.levels() {
            Levels::Four | Levels::Eight => low,
            Levels::Five => s.union(low, fifth_bit(s, lines.add(4 * LINE), group)),
            Levels::Six => s.union(
                low,
                two_bits(s, lines.add((4 + group / 4) * LINE), group % 4),
            ),
        }
    }
}

/// The fifth bit of a group, in its place.
///
/// # Safety
/// A line must be readable at `line`.
#[inline(always)]
unsafe fn fifth_bit<S: Simd>(s: S, line: *const u8, group: usize) -> S::Bytes {
    // SAFETY: forwarded from the caller.
    let line = unsafe { s.bytes(line) };
    let moved = match group {
        0 => s.up::<4>(line),
        1 => s.up::<3>(line),
        2 => s.up::<2>(line),
        3 => s.up::<1>(line),
        4 => line,
        5 => s.down::<1>(line),
        6 => s.down::<2>(line),
        _ => s.down::<3>(line),
    };
    s.keep(moved, 1 << 4)
}

/// The fifth and sixth bits of one of the four groups of a line, in their place.
///
/// # Safety
/// A line must be readable at `line`.
#[inline(always)]
unsafe fn two_bits<S: Simd>(s: S, line: *const u8, group: usize) -> S::Bytes {
    // SAFETY: forwarded from the caller.
    let line = unsafe { s.bytes(line) };
    let moved = match group {
        0 => s.up::<4>(line),
        1 => s.up::<2>(line),
        2 => line,
        _ => s.down::<2>(line),
    };
    s.keep(moved, 3 << 4)
}

/// Adds the products of a unit of each of `T` tiles with a record to the results of `M` rows.
///
/// # Safety
/// A unit of format `F` must be readable at `unit` and at every `tile_bytes` bytes from there, `T` times;
/// `row` must be in a record of activations rounded to `B`, with at least `M - 1` rows behind it.
#[inline(always)]
unsafe fn add_unit<S: Simd, F: Format, B: Sums, const M: usize, const T: usize>(
    s: S,
    heads: &[[S::Floats; 2]; T],
    (unit, tile_bytes): (*const u8, usize),
    row: Row,
    results: &mut [[S::Floats; M]; T],
) {
    let lines = unit.wrapping_add(F::TYPE.scale_bytes());
    let groups = UNIT / 4 / F::PARTS;
    for part in 0..F::PARTS {
        // SAFETY: by the contract, for all reads of the units and of the record.
        unsafe {
            let mut sums = [[B::start(s, s.ints(0)); M]; T];
            for m in 0..M {
                let start = zero_offset::<S, F, B>(s, row, part, m);
                for t in 0..T {
                    sums[t][m] = B::start(s, start);
                }
            }
            for group in 0..groups {
                // Both nibbles of a line in turn, where one scale covers them.
                let group = match F::PARTS {
                    1 => group / 2 + group % 2 * 4,
                    _ => part * groups + group,
                };
                let mut weights = [s.bytes(lines); T];
                for t in 0..T {
                    weights[t] = levels::<S, F>(s, lines.add(t * tile_bytes), group);
                }
                let word = B::PRECISION.numbers() + group;
                for m in 0..M {
                    // Read once for all tiles: reading is what there is least room for.
                    let x = row.record.add(word * row.height + m).cast::<i8>();
                    let second = x.wrapping_add(UNIT * row.height);
                    for t in 0..T {
                        sums[t][m] = B::add::<S, F>(s, sums[t][m], weights[t], x, second);
                    }
                }
            }
            for t in 0..T {
                let unit = unit.add(t * tile_bytes);
                let scale = scale::<S, F>(s, heads[t], unit, part);
                for m in 0..M {
                    let start = zero_offset::<S, F, B>(s, row, part, m);
                    let whole = B::end(s, sums[t][m], start);
                    let value = s.times(s.floats(whole), s.float(row.number(SCALE, m)));
                    results[t][m] = s.times_plus(value, scale, results[t][m]);
                }
                if let Some(minimum) = minimum::<S, F>(s, heads[t], unit) {
                    for m in 0..M {
                        let sum = s.float(row.number(SUM, m));
                        results[t][m] = s.minus_times(minimum, sum, results[t][m]);
                    }
                }
            }
        }
    }
}

/// Minus the sum of the whole numbers of a part, times the level that means zero; zero for formats with
/// minima.
///
/// # Safety
/// As [`add_unit`].
#[inline(always)]
unsafe fn zero_offset<S: Simd, F: Format, B: Sums>(
    s: S,
    row: Row,
    part: usize,
    m: usize,
) -> S::Ints {
    let Some(bits) = F::TYPE.zero_bits() else {
        return s.ints(0);
    };
    // SAFETY: forwarded from the caller.
    unsafe {
        if !B::WIDE {
            // The record has both that such formats need: shifting one into the other takes time that counts.
            return s.ints(match bits {
                7 => row.whole(BYTE_OFFSET, m),
                _ => row.whole(OFFSET, m),
            });
        }
        let offset = match F::PARTS {
            1 => s.ints(row.whole(OFFSET, m)),
            _ => s.ints(row.whole(HALF_OFFSETS + part, m)),
        };
        match bits {
            3 => s.times_power::<3>(offset),
            4 => s.times_power::<4>(offset),
            5 => s.times_power::<5>(offset),
            _ => s.times_power::<7>(offset),
        }
    }
}
