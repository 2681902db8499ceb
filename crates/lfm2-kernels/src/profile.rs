//! Where the time goes: a collector that operations report to.
//!
//! Off by default, and then a [`span`] costs one relaxed load. While it is on, every span adds its
//! time, bytes and multiply-adds to the row of its operation and shape. Spans may nest: a row holds
//! the time of its own spans without that of the spans inside them, so the times of all rows add up
//! to the time measured and nothing is counted twice.
//!
//! Report on the thread that calls a kernel, not inside its parallel part: what is wanted is the
//! time somebody waited.
//!
//! ```
//! use lfm2_kernels::limits::Arithmetic;
//! use lfm2_kernels::profile::{self, Op, Work};
//!
//! profile::start();
//! {
//!     let work = Work::dot(2048 * 8192 * 9 / 16, 2048 * 8192, Arithmetic::Int8);
//!     let _span = profile::span(Op::Matmul("q4_0"), &[1, 2048, 8192], work);
//!     // … the kernel …
//! }
//! let rows = profile::take();
//! assert_eq!(rows[0].label(), "matmul q4_0 1x2048x8192");
//! assert_eq!(rows[0].calls, 1);
//! ```

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::Arithmetic;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Op {
    /// Looking up rows of the embedding table.
    Embed,
    /// RMS norm, also with a residual add or with quantised output.
    RmsNorm,
    /// Turning activations into blocks of a dot-product kernel.
    Quantize,
    /// A product with a weight matrix, stored as named.
    Matmul(&'static str),
    /// Products with the matrices of the chosen experts, stored as named.
    Experts(&'static str),
    /// Choosing experts.
    Route,
    /// The gated short convolution.
    ShortConv,
    /// Norms of queries and keys, rotary embedding and the write to the cache.
    RopeCache,
    /// Attention over the cache.
    Attention,
    /// SwiGLU.
    SiluMul,
    /// Adding to the residual stream.
    Add,
    /// From logits to a token.
    Sample,
    /// A weight in the order its product reads it in.
    Transpose,
    /// A loss and its gradient.
    Loss,
    /// Taking gradients out of a graph and adding them up.
    Gradients,
    /// The norm of all gradients and the update of all weights.
    Optimizer,
    /// A whole pass; its own time is what none of the spans inside it explains.
    Pass,
}

impl Op {
    /// The name without the storage of weights.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::RmsNorm => "rms_norm",
            Self::Quantize => "quantize x",
            Self::Matmul(_) => "matmul",
            Self::Experts(_) => "experts",
            Self::Route => "route",
            Self::ShortConv => "short_conv",
            Self::RopeCache => "rope + cache",
            Self::Attention => "attention",
            Self::SiluMul => "silu_mul",
            Self::Add => "add",
            Self::Sample => "sample",
            Self::Transpose => "transpose",
            Self::Loss => "loss",
            Self::Gradients => "gradients",
            Self::Optimizer => "optimizer",
            Self::Pass => "everything else",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Matmul(weights) | Self::Experts(weights) => {
                write!(f, "{} {weights}", self.name())
            }
            _ => f.write_str(self.name()),
        }
    }
}

/// What an operation cannot do without: bytes from memory and multiply-adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    /// Bytes that have to be read: weights, or keys and values.
    pub bytes: u64,
    /// Multiply-adds.
    pub macs: u64,
    /// Which of the processor's dot products does them.
    pub arithmetic: Arithmetic,
}

impl Work {
    /// An operation that is not measured against a limit.
    pub const NONE: Self = Self {
        bytes: 0,
        macs: 0,
        arithmetic: Arithmetic::F32,
    };

    /// `macs` multiply-adds on `bytes` bytes of weights or cache.
    pub fn dot(bytes: usize, macs: usize, arithmetic: Arithmetic) -> Self {
        Self {
            bytes: bytes as u64,
            macs: macs as u64,
            arithmetic,
        }
    }
}

/// Totals of one operation at one shape.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Row {
    /// What was done.
    pub op: Op,
    /// On how much: rows, inputs, outputs, or as the operation describes itself.
    pub shape: Vec<usize>,
    /// How often.
    pub calls: u64,
    /// For how long in all, without the spans inside.
    pub time: Duration,
    /// Bytes and multiply-adds in all.
    pub work: Work,
}

impl Row {
    /// Operation and shape: `matmul q4_0 1x2048x8192`.
    pub fn label(&self) -> String {
        let shape: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        format!("{} {}", self.op, shape.join("x"))
            .trim_end()
            .to_owned()
    }

    /// Bytes per second; 0 without time.
    pub fn bytes_per_second(&self) -> f64 {
        rate(self.work.bytes, self.time)
    }

    /// Multiply-adds per second; 0 without time.
    pub fn macs_per_second(&self) -> f64 {
        rate(self.work.macs, self.time)
    }
}

fn rate(count: u64, time: Duration) -> f64 {
    if time.is_zero() {
        0.0
    } else {
        count as f64 / time.as_secs_f64()
    }
}

/// More sizes than any operation describes itself with.
const MAX_DIMS: usize = 4;

/// A row's name in a form that costs nothing to make; a size of 0 ends the shape.
type Key = (Op, [usize; MAX_DIMS]);

#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    calls: u64,
    time: Duration,
    work: Work,
}

static ON: AtomicBool = AtomicBool::new(false);
static TABLE: Mutex<BTreeMap<Key, Totals>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// Time of the spans that ended inside the one that is running on this thread.
    static INSIDE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// A panic between two additions leaves sums that are still sums.
fn table() -> MutexGuard<'static, BTreeMap<Key, Totals>> {
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forgets what was collected and begins to collect, in the whole process.
pub fn start() {
    table().clear();
    ON.store(true, Ordering::Relaxed);
}

/// Whether anything is collected.
#[inline]
pub fn is_on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// Ends collecting and returns the rows, longest time first.
pub fn take() -> Vec<Row> {
    ON.store(false, Ordering::Relaxed);
    let table = std::mem::take(&mut *table());
    let mut rows: Vec<Row> = table.into_iter().map(row).collect();
    rows.sort_by_key(|row| Reverse(row.time));
    rows
}

fn row(((op, shape), totals): (Key, Totals)) -> Row {
    Row {
        op,
        shape: shape.into_iter().take_while(|&size| size > 0).collect(),
        calls: totals.calls,
        time: totals.time,
        work: totals.work,
    }
}

/// Times an operation until the result is dropped.
///
/// `shape` names the row and must not contain what grows from token to token, such as the length of
/// a context: each value would get a row of its own. Sizes after the fourth are left out.
#[inline]
#[must_use = "the operation is timed until this is dropped"]
pub fn span(op: Op, shape: &[usize], work: Work) -> Span {
    Span {
        running: is_on().then(|| Running::new(op, shape, work)),
        thread: PhantomData,
    }
}

/// An operation that is being timed. Stays on its thread.
#[derive(Debug)]
pub struct Span {
    running: Option<Running>,
    thread: PhantomData<*const ()>,
}

#[derive(Debug)]
struct Running {
    key: Key,
    work: Work,
    /// What was inside the surrounding span before this one began.
    outside: Duration,
    started: Instant,
}

impl Running {
    #[cold]
    fn new(op: Op, shape: &[usize], work: Work) -> Self {
        let mut sizes = [0; MAX_DIMS];
        for (size, &given) in sizes.iter_mut().zip(shape) {
            *size = given;
        }
        Self {
            key: (op, sizes),
            work,
            outside: INSIDE.replace(Duration::ZERO),
            started: Instant::now(),
        }
    }

    fn end(&self) {
        let elapsed = self.started.elapsed();
        let inside = INSIDE.replace(self.outside + elapsed);
        let mut table = table();
        let totals = table.entry(self.key).or_default();
        totals.calls += 1;
        totals.time += elapsed.saturating_sub(inside);
        totals.work.bytes += self.work.bytes;
        totals.work.macs += self.work.macs;
        totals.work.arithmetic = self.work.arithmetic;
    }
}

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.end();
        }
    }
}
