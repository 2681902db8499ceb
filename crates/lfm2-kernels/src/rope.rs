//! Rotary position embedding in the halves form: value `i` of a head turns together with value
//! `i + head_dim / 2`.

use crate::element::load_head;
use crate::simd::{Kernel, Simd};
use crate::threads::for_each_chunk;
use crate::{Isa, ShapeError};

/// Tokens one thread takes at a time.
const TASK_TOKENS: usize = 8;

/// Rotates `x (tokens, heads, head_dim)` in place.
///
/// `cos` and `sin` are `(tokens, pairs)`. The first `pairs` of the `head_dim / 2` pairs of each
/// head turn; with `pairs < head_dim / 2` (partial rotation) the others keep their values.
///
/// # Errors
/// When `head_dim` is zero or odd, `x` is not whole tokens, `cos` is not whole rows of at most
/// `head_dim / 2` values, or `sin` has another length than `cos`.
pub fn rope(
    isa: Isa,
    x: &mut [f32],
    cos: &[f32],
    sin: &[f32],
    heads: usize,
    head_dim: usize,
) -> Result<(), ShapeError> {
    ShapeError::divide("rope head_dim", head_dim, 2)?;
    let row = ShapeError::product("rope heads * head_dim", &[heads, head_dim])?;
    let tokens = ShapeError::divide("rope x", x.len(), row)?;
    ShapeError::check("rope sin", cos.len(), sin.len())?;
    if tokens == 0 {
        return ShapeError::check("rope cos", 0, cos.len());
    }
    let pairs = ShapeError::divide("rope cos", cos.len(), tokens)?;
    if pairs > head_dim / 2 {
        return Err(ShapeError::TooLarge {
            what: "rope pairs",
            limit: head_dim / 2,
            found: pairs,
        });
    }
    if pairs == 0 {
        return Ok(());
    }
    let work = x.len();
    for_each_chunk(x, TASK_TOKENS * row, work, |task, x| {
        let first = task * TASK_TOKENS * pairs;
        isa.run(Tokens {
            x,
            cos: &cos[first..],
            sin: &sin[first..],
            row,
            head_dim,
            pairs,
        });
    });
    Ok(())
}

struct Tokens<'a> {
    x: &'a mut [f32],
    cos: &'a [f32],
    sin: &'a [f32],
    row: usize,
    head_dim: usize,
    pairs: usize,
}

impl Kernel for Tokens<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let angles = self
            .cos
            .chunks_exact(self.pairs)
            .zip(self.sin.chunks_exact(self.pairs));
        for (token, (cos, sin)) in self.x.chunks_exact_mut(self.row).zip(angles) {
            for head in token.chunks_exact_mut(self.head_dim) {
                let (first, second) = head.split_at_mut(self.head_dim / 2);
                rotate(
                    s,
                    &mut first[..self.pairs],
                    &mut second[..self.pairs],
                    cos,
                    sin,
                );
            }
        }
    }
}

/// Turns every `(a, b)` by its angle. All slices have the same length.
#[inline(always)]
fn rotate<S: Simd>(s: S, a: &mut [f32], b: &mut [f32], cos: &[f32], sin: &[f32]) {
    let halves = a.chunks_mut(S::LANES).zip(b.chunks_mut(S::LANES));
    let angles = cos.chunks(S::LANES).zip(sin.chunks(S::LANES));
    for ((a, b), (cos, sin)) in halves.zip(angles) {
        if a.len() == S::LANES {
            let (x, y) = turn(s, [s.load(a), s.load(b)], [s.load(cos), s.load(sin)]);
            s.store(a, x);
            s.store(b, y);
        } else {
            let values = [load_head(s, a), load_head(s, b)];
            let (x, y) = turn(s, values, [load_head(s, cos), load_head(s, sin)]);
            s.store_head(a, x);
            s.store_head(b, y);
        }
    }
}

#[inline(always)]
fn turn<S: Simd>(s: S, [a, b]: [S::V; 2], [cos, sin]: [S::V; 2]) -> (S::V, S::V) {
    (
        s.sub(s.mul(a, cos), s.mul(b, sin)),
        s.mul_add(b, cos, s.mul(a, sin)),
    )
}
