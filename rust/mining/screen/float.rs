//! The product of a block of anchors and a panel of candidates, in float32.
//!
//! One body for all instruction sets, written over vectors of the set's width. The register tile
//! is R anchors x 2 vectors of candidates; its sums stay in registers for [`DEPTH`] dimensions.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};

use rayon::prelude::*;

use super::super::isa::{Isa, Kind, per_isa};
use super::super::points::{Place, Points};
use super::{BLOCK, COLUMNS, Multiply, Product, places};
use crate::{Interrupt, Result};

/// Dimensions multiplied before the sums go back to memory: a slice of the panel is 16 KiB then
/// and stays in L1 while all anchors of the block pass over it.
const DEPTH: usize = 128;

/// All rows, scaled, in panels of [`COLUMNS`], depth first, zeros past the end.
pub struct Float<'a> {
    points: &'a Points,
    isa: Isa,
    scale: f32,
    panels: Vec<f32>,
}

impl<'a> Float<'a> {
    /// Packs the rows.
    pub fn new(points: &'a Points, scale: f32, isa: Isa, interrupt: &Interrupt) -> Result<Self> {
        let depth = points.width();
        let mut panels = vec![0.0; points.len().div_ceil(COLUMNS) * depth * COLUMNS];
        panels.par_chunks_mut((depth * COLUMNS).max(1)).enumerate().try_for_each(|(panel, to)| {
            interrupt.check()?;
            for (column, place) in places(points, panel).enumerate() {
                for (k, &x) in points.values(place).iter().enumerate() {
                    to[k * COLUMNS + column] = x * scale;
                }
            }
            Ok(())
        })?;
        Ok(Self { points, isa, scale, panels })
    }

    /// R of the instruction set's vectors.
    fn rows(&self) -> usize {
        match self.isa.0 {
            Kind::Portable => <[f32; 4]>::ROWS,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => __m256::ROWS,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512 | Kind::Avx512Vnni => __m512::ROWS,
        }
    }

    /// The anchors in groups of R, depth first, zeros past the end.
    fn pack(&self, anchors: &[Place]) -> Vec<f32> {
        let (depth, rows) = (self.points.width(), self.rows());
        let mut packed = vec![0.0; BLOCK * depth];
        for (i, &place) in anchors.iter().enumerate() {
            let (group, row) = (i / rows, i % rows);
            for (k, &x) in self.points.values(place).iter().enumerate() {
                packed[(group * depth + k) * rows + row] = x * self.scale;
            }
        }
        packed
    }
}

impl Product for Float<'_> {
    fn error(&self) -> f64 {
        let roundings = self.points.width() as f64 * 2_f64.powi(-24);
        2.0 * roundings / (1.0 - roundings) + 2_f64.powi(-21)
    }

    fn residual(&self, _: Place) -> f64 {
        0.0
    }

    fn block<'b>(&'b self, anchors: &[Place]) -> Multiply<'b> {
        let (depth, rows) = (self.points.width(), self.rows());
        let packed = self.pack(anchors);
        let groups = anchors.len().div_ceil(rows);
        Box::new(move |panel, products| {
            products[..groups * rows].fill([0.0; COLUMNS]);
            let panel = &self.panels[panel * depth * COLUMNS..][..depth * COLUMNS];
            for (slice, panel) in panel.chunks(DEPTH * COLUMNS).enumerate() {
                for group in 0..groups {
                    let first = (group * depth + slice * DEPTH) * rows;
                    let anchors = &packed[first..][..panel.len() / COLUMNS * rows];
                    add_products(self.isa, anchors, panel, &mut products[group * rows..][..rows]);
                }
            }
        })
    }
}

per_isa! {
    /// Adds R anchors x one slice of a panel onto R rows of sums.
    fn add_products(anchors: &[f32], panel: &[f32], sums: &mut [[f32; COLUMNS]]) {
        portable => add_products_body::<[f32; 4], { <[f32; 4]>::ROWS }>,
        avx2 => add_products_body::<__m256, { __m256::ROWS }>,
        avx512 => add_products_body::<__m512, { __m512::ROWS }>,
    }
}

#[inline(always)]
fn add_products_body<V: Vector, const R: usize>(anchors: &[f32], panel: &[f32], sums: &mut [[f32; COLUMNS]]) {
    let sums: &mut [[f32; COLUMNS]; R] = sums.try_into().expect("R rows of sums");
    for first in (0..COLUMNS).step_by(2 * V::LANES) {
        let second = first + V::LANES;
        let mut tile: [[V; 2]; R] =
            std::array::from_fn(|r| [V::load(&sums[r][first..]), V::load(&sums[r][second..])]);
        for (anchors, panel) in anchors.as_chunks::<R>().0.iter().zip(panel.as_chunks::<COLUMNS>().0) {
            let candidates = [V::load(&panel[first..]), V::load(&panel[second..])];
            for r in 0..R {
                let anchor = V::splat(anchors[r]);
                tile[r][0] = anchor.multiply_add(candidates[0], tile[r][0]);
                tile[r][1] = anchor.multiply_add(candidates[1], tile[r][1]);
            }
        }
        for r in 0..R {
            tile[r][0].store(&mut sums[r][first..]);
            tile[r][1].store(&mut sums[r][second..]);
        }
    }
}

/// A vector register of float32. Its methods are called only from a function that is compiled for
/// its instruction set.
trait Vector: Copy {
    const LANES: usize;
    /// R, the anchors in the register tile: 2 vectors x R rows of sums, 2 vectors of candidates and
    /// the broadcast anchor fill the registers, 32 of AVX-512, 16 of AVX2 and SSE2.
    const ROWS: usize;
    fn load(from: &[f32]) -> Self;
    fn store(self, to: &mut [f32]);
    fn splat(x: f32) -> Self;
    /// `self * factor + sum`, fused or not.
    fn multiply_add(self, factor: Self, sum: Self) -> Self;
}

impl Vector for [f32; 4] {
    const LANES: usize = 4;
    const ROWS: usize = 4;

    #[inline(always)]
    fn load(from: &[f32]) -> Self {
        [from[0], from[1], from[2], from[3]]
    }

    #[inline(always)]
    fn store(self, to: &mut [f32]) {
        to[..4].copy_from_slice(&self);
    }

    #[inline(always)]
    fn splat(x: f32) -> Self {
        [x; 4]
    }

    #[inline(always)]
    fn multiply_add(self, factor: Self, sum: Self) -> Self {
        std::array::from_fn(|lane| self[lane] * factor[lane] + sum[lane])
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_storeu_ps, _mm512_fmadd_ps,
        _mm512_loadu_ps, _mm512_set1_ps, _mm512_storeu_ps,
    };

    macro_rules! vector {
        ($vector:ty, $lanes:literal, $rows:literal, $load:ident, $store:ident, $splat:ident, $fma:ident) => {
            impl super::Vector for $vector {
                const LANES: usize = $lanes;
                const ROWS: usize = $rows;

                #[inline(always)]
                fn load(from: &[f32]) -> Self {
                    let from = &from[..$lanes];
                    // SAFETY: the slice holds all lanes; the caller is compiled for this vector.
                    unsafe { $load(from.as_ptr()) }
                }

                #[inline(always)]
                fn store(self, to: &mut [f32]) {
                    let to = &mut to[..$lanes];
                    // SAFETY: the slice holds all lanes; the caller is compiled for this vector.
                    unsafe { $store(to.as_mut_ptr(), self) }
                }

                #[inline(always)]
                fn splat(x: f32) -> Self {
                    // SAFETY: the caller is compiled for this vector.
                    unsafe { $splat(x) }
                }

                #[inline(always)]
                fn multiply_add(self, factor: Self, sum: Self) -> Self {
                    // SAFETY: the caller is compiled for this vector.
                    unsafe { $fma(self, factor, sum) }
                }
            }
        };
    }

    vector!(__m256, 8, 6, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_fmadd_ps);
    vector!(__m512, 16, 12, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_fmadd_ps);
}
