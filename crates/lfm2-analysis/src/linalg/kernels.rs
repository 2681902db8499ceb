//! Dot products and scaled sums. Plain loops in one source, compiled for several instruction sets
//! and chosen while the program runs.

use pulp::{Arch, Simd, WithSimd};

/// The sum of `a[i] * b[i]`, as far as both reach.
pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    struct Dot<'a>(&'a [f64], &'a [f64]);
    impl WithSimd for Dot<'_> {
        type Output = f64;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> f64 {
            let len = self.0.len().min(self.1.len());
            let (a, a_rest) = S::as_simd_f64s(&self.0[..len]);
            let (b, b_rest) = S::as_simd_f64s(&self.1[..len]);
            // Four sums, since each addition waits for the one before.
            let mut sums = [simd.splat_f64s(0.0); 4];
            let (a_fours, a_last) = a.as_chunks::<4>();
            let (b_fours, b_last) = b.as_chunks::<4>();
            for (a, b) in a_fours.iter().zip(b_fours) {
                for k in 0..4 {
                    sums[k] = simd.mul_add_e_f64s(a[k], b[k], sums[k]);
                }
            }
            for (&a, &b) in a_last.iter().zip(b_last) {
                sums[0] = simd.mul_add_e_f64s(a, b, sums[0]);
            }
            let left = simd.add_f64s(sums[0], sums[1]);
            let right = simd.add_f64s(sums[2], sums[3]);
            let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
            simd.reduce_sum_f64s(simd.add_f64s(left, right)) + rest
        }
    }
    Arch::new().dispatch(Dot(a, b))
}

/// `y += weight * x`, as far as both reach.
pub(crate) fn add_scaled(y: &mut [f64], weight: f64, x: &[f64]) {
    struct AddScaled<'a>(&'a mut [f64], f64, &'a [f64]);
    impl WithSimd for AddScaled<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let len = self.0.len().min(self.2.len());
            let weight = simd.splat_f64s(self.1);
            let (y, y_rest) = S::as_mut_simd_f64s(&mut self.0[..len]);
            let (x, x_rest) = S::as_simd_f64s(&self.2[..len]);
            for (y, &x) in y.iter_mut().zip(x) {
                *y = simd.mul_add_e_f64s(weight, x, *y);
            }
            for (y, x) in y_rest.iter_mut().zip(x_rest) {
                *y += self.1 * x;
            }
        }
    }
    Arch::new().dispatch(AddScaled(y, weight, x));
}

/// `y += weights[0] * x[0] + ... + weights[3] * x[3]`; every `x` is as long as `y`.
pub(crate) fn add_scaled_four(y: &mut [f64], weights: [f64; 4], x: [&[f64]; 4]) {
    struct AddFour<'a>(&'a mut [f64], [f64; 4], [&'a [f64]; 4]);
    impl WithSimd for AddFour<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let len = self.2.iter().fold(self.0.len(), |len, x| len.min(x.len()));
            let (y, y_rest) = S::as_mut_simd_f64s(&mut self.0[..len]);
            let x = self.2.map(|x| S::as_simd_f64s(&x[..len]));
            let splat = self.1.map(|weight| simd.splat_f64s(weight));
            for (i, y) in y.iter_mut().enumerate() {
                let mut sum = *y;
                for k in 0..4 {
                    sum = simd.mul_add_e_f64s(splat[k], x[k].0[i], sum);
                }
                *y = sum;
            }
            for (i, y) in y_rest.iter_mut().enumerate() {
                for k in 0..4 {
                    *y += self.1[k] * x[k].1[i];
                }
            }
        }
    }
    Arch::new().dispatch(AddFour(y, weights, x));
}

/// All dot products of four rows with three others; all have one length. Twelve sums and what they
/// are made of fit into sixteen registers.
pub(crate) fn dots_four_by_three(a: [&[f64]; 4], b: [&[f64]; 3]) -> [[f64; 3]; 4] {
    struct Dots<'a>([&'a [f64]; 4], [&'a [f64]; 3]);
    impl WithSimd for Dots<'_> {
        type Output = [[f64; 3]; 4];

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> [[f64; 3]; 4] {
            let rows = self.0.iter().chain(&self.1);
            let len = rows.fold(usize::MAX, |len, row| len.min(row.len()));
            let a = self.0.map(|row| S::as_simd_f64s(&row[..len]));
            let b = self.1.map(|row| S::as_simd_f64s(&row[..len]));
            let vectors = a[0].0.len();
            let a_heads = a.map(|(head, _)| &head[..vectors]);
            let b_heads = b.map(|(head, _)| &head[..vectors]);
            let mut sums = [[simd.splat_f64s(0.0); 3]; 4];
            for i in 0..vectors {
                let right = b_heads.map(|head| head[i]);
                for (sums, head) in sums.iter_mut().zip(&a_heads) {
                    for (sum, &right) in sums.iter_mut().zip(&right) {
                        *sum = simd.mul_add_e_f64s(head[i], right, *sum);
                    }
                }
            }
            let mut out = [[0.0; 3]; 4];
            for (i, out) in out.iter_mut().enumerate() {
                for (j, out) in out.iter_mut().enumerate() {
                    let rest: f64 = a[i].1.iter().zip(b[j].1).map(|(a, b)| a * b).sum();
                    *out = simd.reduce_sum_f64s(sums[i][j]) + rest;
                }
            }
            out
        }
    }
    Arch::new().dispatch(Dots(a, b))
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;
    use crate::random::Random;

    #[test]
    fn every_length_is_summed_to_the_end() {
        let mut random = Random::new(11, 0);
        for len in 0..140 {
            let rows: Vec<Vec<f64>> = (0..8).map(|_| noise(&mut random, len)).collect();
            let naive = |i: usize, j: usize| -> f64 {
                rows[i].iter().zip(&rows[j]).map(|(a, b)| a * b).sum()
            };
            assert!((dot(&rows[0], &rows[1]) - naive(0, 1)).abs() < 1e-12);

            let a: [&[f64]; 4] = std::array::from_fn(|k| rows[k].as_slice());
            let b: [&[f64]; 3] = std::array::from_fn(|k| rows[4 + k].as_slice());
            let found = dots_four_by_three(a, b);
            for i in 0..4 {
                for j in 0..3 {
                    assert!((found[i][j] - naive(i, 4 + j)).abs() < 1e-12);
                }
            }

            let weights = [0.5, -2.0, 3.0, 0.25];
            let (mut at_once, mut in_turn) = (rows[7].clone(), rows[7].clone());
            add_scaled_four(&mut at_once, weights, a);
            for (weight, row) in weights.iter().zip(&rows) {
                add_scaled(&mut in_turn, *weight, row);
            }
            for i in 0..len {
                let naive: f64 = (0..4).map(|k| weights[k] * rows[k][i]).sum::<f64>() + rows[7][i];
                assert!((at_once[i] - naive).abs() < 1e-14);
                assert!((in_turn[i] - naive).abs() < 1e-14);
            }
        }
    }
}
