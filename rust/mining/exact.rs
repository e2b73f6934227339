//! The definition: squared L2 distance in float64, with every rounding fixed.
//!
//! Number `k` of a row goes to lane `k mod 8` of a sum, and the lanes are then added in halves:
//! `((0+4)+(2+6)) + ((1+5)+(3+7))`. Products are rounded before they are added (no fused multiply-add). So
//! the value is the same to the last bit on every instruction set, and NumPy can compute it, too
//! (`tests/reference.py`).

use crate::simd::{Isa, Simd, per_isa};

/// Lanes of the sum. Rows are padded with zeros to a multiple of this, which changes no sum.
pub const LANES: usize = 8;

per_isa! {
    /// Squared L2 distance of two rows, padded to a multiple of [`LANES`].
    pub fn distance(x: &[f32], y: &[f32]) -> f64 => distance_body
}

/// Rows whose distances are evaluated together. The additions of one distance wait for each other, and so do its
/// loads: four distances take little longer than one.
pub const TOGETHER: usize = 4;

/// Squared L2 distances of a row and a few others, from 1 to [`TOGETHER`]: the first ones of what is returned.
pub fn some_distances<'y>(
    isa: Isa,
    x: &[f32],
    count: usize,
    other: impl Fn(usize) -> &'y [f32],
) -> [f64; TOGETHER] {
    if count == 1 {
        return [distance(isa, x, other(0)); TOGETHER];
    }
    distances(isa, x, std::array::from_fn(|i| other(if i < count { i } else { 0 })))
}

per_isa! {
    /// Squared L2 distances of a row and some others.
    fn distances(x: &[f32], others: [&[f32]; TOGETHER]) -> [f64; TOGETHER] => distances_body
}

per_isa! {
    /// Squared L2 norm of a row, padded to a multiple of [`LANES`].
    pub fn squared_norm(x: &[f32]) -> f64 => squared_norm_body
}

per_isa! {
    /// Divides a row, padded to a multiple of [`LANES`], by its L2 norm in float64 and rounds to float32.
    /// A zero row stays zero.
    pub fn normalize(row: &mut [f32]) => normalize_body
}

#[inline(always)]
fn distance_body<S: Simd>(simd: S, x: &[f32], y: &[f32]) -> f64 {
    let mut sums = simd.widen(&[0.0; LANES]);
    for (x, y) in x.as_chunks().0.iter().zip(y.as_chunks().0) {
        let difference = simd.subtract(simd.widen(x), simd.widen(y));
        sums = simd.add(sums, simd.multiply(difference, difference));
    }
    fold(simd.to_array(sums))
}

#[inline(always)]
fn distances_body<S: Simd>(simd: S, x: &[f32], others: [&[f32]; TOGETHER]) -> [f64; TOGETHER] {
    let mut sums = [simd.widen(&[0.0; LANES]); TOGETHER];
    let (x, others) = (x.as_chunks().0, others.map(|y| &y.as_chunks().0[..x.len() / LANES]));
    for (k, x) in x.iter().enumerate() {
        let x = simd.widen(x);
        for (sum, y) in sums.iter_mut().zip(others) {
            let difference = simd.subtract(x, simd.widen(&y[k]));
            *sum = simd.add(*sum, simd.multiply(difference, difference));
        }
    }
    sums.map(|sums| fold(simd.to_array(sums)))
}

#[inline(always)]
fn squared_norm_body<S: Simd>(simd: S, x: &[f32]) -> f64 {
    let mut sums = simd.widen(&[0.0; LANES]);
    for x in x.as_chunks().0 {
        let x = simd.widen(x);
        sums = simd.add(sums, simd.multiply(x, x));
    }
    fold(simd.to_array(sums))
}

#[inline(always)]
fn normalize_body<S: Simd>(simd: S, row: &mut [f32]) {
    let norm = squared_norm_body(simd, row).sqrt();
    if norm > 0.0 {
        for x in row {
            *x = (f64::from(*x) / norm) as f32;
        }
    }
}

#[inline(always)]
fn fold(lanes: [f64; LANES]) -> f64 {
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}
