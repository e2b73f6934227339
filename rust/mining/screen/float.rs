//! The product of a block of anchors and a panel of candidates, in float32: the portable path, and the
//! one for more columns than [`int8`](super::int8) can sum.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};

use rayon::prelude::*;

use super::super::isa::{Isa, per_isa};
use super::super::points::{Place, Points, Sets};
use super::{BLOCK, COLUMNS, Coded, Estimate, Product, places};
use crate::{Interrupt, Result};

/// Dimensions multiplied before the sums go back to memory: a slice of the panel is 16 KiB then
/// and stays in L1 while all anchors of the block pass over it.
const DEPTH: usize = 128;

/// Anchors in the register tile: with two vectors of candidates, as many as fit 16 registers of 4
/// lanes, SSE2's or NEON's.
const ROWS: usize = 4;

/// Lanes of a vector.
const LANES: usize = 4;

/// All rows, scaled, in panels of [`COLUMNS`], depth first, zeros past the end.
pub struct Float<'a> {
    sets: &'a Sets,
    scale: f32,
    panels: Vec<f32>,
}

impl<'a> Float<'a> {
    /// Packs the candidates.
    pub fn new(sets: &'a Sets, scale: f32, interrupt: &Interrupt) -> Result<Self> {
        let candidates = sets.candidates();
        let depth = candidates.width();
        let mut panels = vec![0.0; candidates.len().div_ceil(COLUMNS) * depth * COLUMNS];
        panels.par_chunks_mut(depth * COLUMNS).enumerate().try_for_each(|(panel, to)| {
            interrupt.check()?;
            for (column, place) in places(candidates, panel).enumerate() {
                for (k, &x) in candidates.values(place).iter().enumerate() {
                    to[k * COLUMNS + column] = x * scale;
                }
            }
            Ok(())
        })?;
        Ok(Self { sets, scale, panels })
    }

    /// The anchors in groups of [`ROWS`], depth first, zeros past the end.
    fn pack(&self, anchors: &[Place]) -> Vec<f32> {
        let points = &self.sets.anchors;
        let depth = points.width();
        let mut packed = vec![0.0; BLOCK * depth];
        for (i, &place) in anchors.iter().enumerate() {
            let (group, row) = (i / ROWS, i % ROWS);
            for (k, &x) in points.values(place).iter().enumerate() {
                packed[(group * depth + k) * ROWS + row] = x * self.scale;
            }
        }
        packed
    }
}

/// What the bound needs of a row.
pub fn coded(points: &Points, place: Place, scale: f32) -> Coded {
    Coded { squared_norm: points.squared_norms[place as usize] * f64::from(scale).powi(2), residual: 0.0 }
}

/// `g` of the bound.
pub fn error(width: usize) -> f64 {
    let roundings = width as f64 * 2_f64.powi(-24);
    roundings / (1.0 - roundings)
}

per_isa! {
    /// The product of two rows, scaled.
    pub fn dot(x: &[f32], y: &[f32], scale: f32) -> f32 {
        portable => dot_body::<[f32; 4]>,
        avx2 => dot_body::<__m256>,
        avx512 => dot_body::<__m512>,
    }
}

/// Sums that a product of two rows is spread over, so that one addition need not wait for another.
const SUMS: usize = 4;

#[inline(always)]
fn dot_body<V: Floats>(x: &[f32], y: &[f32], scale: f32) -> f32 {
    let factor = V::splat(scale);
    let mut sums = [V::splat(0.0); SUMS];
    let step = SUMS * V::LANES;
    let whole = x.len() / step * step;
    for start in (0..whole).step_by(step) {
        let (x, y) = (&x[start..][..step], &y[start..][..step]);
        for (k, sum) in sums.iter_mut().enumerate() {
            let (x, y) = (V::load(&x[k * V::LANES..]), V::load(&y[k * V::LANES..]));
            *sum = x.times(factor).times_plus(y.times(factor), *sum);
        }
    }
    let mut total = 0.0;
    for (x, y) in x[whole..].iter().zip(&y[whole..]) {
        total += (x * scale) * (y * scale);
    }
    for sum in sums {
        total += sum.total();
    }
    total
}

/// A vector register of float32. Its methods are called only from a function that is compiled for its
/// instruction set.
trait Floats: Copy {
    const LANES: usize;
    fn splat(x: f32) -> Self;
    fn load(from: &[f32]) -> Self;
    fn times(self, factor: Self) -> Self;
    /// `self * factor + sum`, fused or not.
    fn times_plus(self, factor: Self, sum: Self) -> Self;
    /// The sum of the lanes, in any order.
    fn total(self) -> f32;
}

impl Floats for [f32; 4] {
    const LANES: usize = 4;

    #[inline(always)]
    fn splat(x: f32) -> Self {
        [x; 4]
    }

    #[inline(always)]
    fn load(from: &[f32]) -> Self {
        *from.first_chunk().expect("4 lanes")
    }

    #[inline(always)]
    fn times(self, factor: Self) -> Self {
        std::array::from_fn(|lane| self[lane] * factor[lane])
    }

    #[inline(always)]
    fn times_plus(self, factor: Self, sum: Self) -> Self {
        std::array::from_fn(|lane| self[lane] * factor[lane] + sum[lane])
    }

    #[inline(always)]
    fn total(self) -> f32 {
        (self[0] + self[1]) + (self[2] + self[3])
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_mul_ps, _mm256_set1_ps, _mm256_storeu_ps,
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_reduce_add_ps, _mm512_set1_ps,
    };

    use super::Floats;

    macro_rules! floats {
        ($vector:ty, $lanes:literal, $splat:ident, $load:ident, $multiply:ident, $fma:ident,
         |$sums:ident| $total:expr) => {
            impl Floats for $vector {
                const LANES: usize = $lanes;

                #[inline(always)]
                fn splat(x: f32) -> Self {
                    // SAFETY: the caller is compiled for this vector.
                    unsafe { $splat(x) }
                }

                #[inline(always)]
                fn load(from: &[f32]) -> Self {
                    let from = &from[..$lanes];
                    // SAFETY: the slice holds all lanes; the caller is compiled for this vector.
                    unsafe { $load(from.as_ptr()) }
                }

                #[inline(always)]
                fn times(self, factor: Self) -> Self {
                    // SAFETY: the caller is compiled for this vector.
                    unsafe { $multiply(self, factor) }
                }

                #[inline(always)]
                fn times_plus(self, factor: Self, sum: Self) -> Self {
                    // SAFETY: the caller is compiled for this vector.
                    unsafe { $fma(self, factor, sum) }
                }

                #[inline(always)]
                fn total(self) -> f32 {
                    let $sums = self;
                    // SAFETY: the caller is compiled for this vector.
                    unsafe { $total }
                }
            }
        };
    }

    floats!(__m256, 8, _mm256_set1_ps, _mm256_loadu_ps, _mm256_mul_ps, _mm256_fmadd_ps, |sums| {
        let mut lanes = [0.0; 8];
        _mm256_storeu_ps(lanes.as_mut_ptr(), sums);
        lanes.iter().sum()
    });
    floats!(__m512, 16, _mm512_set1_ps, _mm512_loadu_ps, _mm512_mul_ps, _mm512_fmadd_ps, |sums| {
        _mm512_reduce_add_ps(sums)
    });
}

impl Product for Float<'_> {
    fn error(&self) -> f64 {
        error(self.sets.anchors.width())
    }

    fn anchor(&self, place: Place) -> Coded {
        coded(&self.sets.anchors, place, self.scale)
    }

    fn candidate(&self, place: Place) -> Coded {
        coded(self.sets.candidates(), place, self.scale)
    }

    fn is_close(&self) -> bool {
        true
    }

    fn one(&self, anchor: Place, candidate: Place) -> f32 {
        let (x, y) = (self.sets.anchors.values(anchor), self.sets.candidates().values(candidate));
        dot(Isa::PORTABLE, x, y, self.scale)
    }

    fn block<'b>(&'b self, anchors: &[Place]) -> Estimate<'b> {
        let depth = self.sets.anchors.width();
        let packed = self.pack(anchors);
        let groups = anchors.len().div_ceil(ROWS);
        Box::new(move |panel, squared_norms, estimates| {
            let products = &mut estimates[..groups * ROWS];
            products.fill([0.0; COLUMNS]);
            let panel = &self.panels[panel * depth * COLUMNS..][..depth * COLUMNS];
            for (slice, panel) in panel.chunks(DEPTH * COLUMNS).enumerate() {
                for (group, products) in products.as_chunks_mut().0.iter_mut().enumerate() {
                    let first = (group * depth + slice * DEPTH) * ROWS;
                    add_products(&packed[first..][..panel.len() / COLUMNS * ROWS], panel, products);
                }
            }
            for products in products {
                for (product, squared_norm) in products.iter_mut().zip(squared_norms) {
                    *product = squared_norm - 2.0 * *product;
                }
            }
        })
    }
}

/// Adds the products of [`ROWS`] anchors and one slice of a panel onto their sums.
fn add_products(anchors: &[f32], panel: &[f32], sums: &mut [[f32; COLUMNS]; ROWS]) {
    for first in (0..COLUMNS).step_by(2 * LANES) {
        let mut tile = [[0.0; 2 * LANES]; ROWS];
        for r in 0..ROWS {
            tile[r].copy_from_slice(&sums[r][first..][..2 * LANES]);
        }
        for (anchors, panel) in anchors.as_chunks::<ROWS>().0.iter().zip(panel.as_chunks::<COLUMNS>().0) {
            let candidates: &[f32; 2 * LANES] = panel[first..].first_chunk().expect("two vectors");
            for r in 0..ROWS {
                for lane in 0..2 * LANES {
                    tile[r][lane] += anchors[r] * candidates[lane];
                }
            }
        }
        for r in 0..ROWS {
            sums[r][first..][..2 * LANES].copy_from_slice(&tile[r]);
        }
    }
}
