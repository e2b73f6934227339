//! Which candidates' estimates may lie in a window: one compare with its edges, a bit for each.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{__m256, __m512};

use super::{BLOCK, COLUMNS, Coded, LOWER, Panel, RAISE, UNDERFLOW, Window};
use crate::isa::per_isa;

/// The edges of a window around an anchor, in float32, for a comparison with `v`.
pub struct Edges {
    error: f32,
    above: f32,
    below: f32,
    squared_norm: f32,
    residual: f32,
}

impl Edges {
    /// Of a window around an anchor.
    pub(super) fn new(window: Window, anchor: Coded, error: f64) -> Self {
        Self {
            error: error as f32,
            above: (window.above.max(0.0).sqrt() * LOWER) as f32,
            below: (window.below.max(0.0).sqrt() * RAISE) as f32,
            squared_norm: anchor.squared_norm as f32,
            residual: (anchor.residual * RAISE) as f32,
        }
    }

    /// Any candidate of the panel with `v` outside of these is outside of the window.
    #[inline(always)]
    pub(super) fn of_panel(&self, panel: &Panel) -> (f32, f32) {
        let residual = self.residual + panel.residual;
        let offset = self.error * (self.squared_norm + panel.squared_norm) + UNDERFLOW as f32;
        let (nearest, farthest) = ((self.above - residual).max(0.0), self.below + residual);
        let low = nearest * nearest * LOWER as f32 - (self.squared_norm + offset);
        let high = farthest * farthest * RAISE as f32 - (self.squared_norm - offset);
        (low, high)
    }
}

per_isa! {
    /// Sets a bit for each candidate of some panels that may lie between the edges. The estimates are
    /// [`BLOCK`] rows apart.
    pub fn mark(estimates: &[[f32; COLUMNS]], panels: &[Panel], edges: &Edges, marks: &mut [u32]) {
        portable => mark_body::<[f32; 8]>,
        avx2 => mark_body::<__m256>,
        avx512 => mark_body::<__m512>,
    }
}

#[inline(always)]
fn mark_body<V: Floats>(estimates: &[[f32; COLUMNS]], panels: &[Panel], edges: &Edges, marks: &mut [u32]) {
    for ((estimates, panel), marks) in estimates.iter().step_by(BLOCK).zip(panels).zip(marks) {
        let (low, high) = edges.of_panel(panel);
        *marks = 0;
        for first in (0..COLUMNS).step_by(V::LANES) {
            *marks |= V::between(&estimates[first..], low, high) << first;
        }
    }
}

/// A vector register of float32. Its method is called only from a function that is compiled for its
/// instruction set.
trait Floats {
    const LANES: usize;
    /// A bit for each lane that is strictly between the two.
    fn between(estimates: &[f32], low: f32, high: f32) -> u32;
}

impl Floats for [f32; 8] {
    const LANES: usize = 8;

    #[inline(always)]
    fn between(estimates: &[f32], low: f32, high: f32) -> u32 {
        let estimates: &Self = estimates.first_chunk().expect("8 lanes");
        (0..8).map(|lane| u32::from(low < estimates[lane] && estimates[lane] < high) << lane).sum()
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _CMP_LT_OQ, _mm256_and_ps, _mm256_cmp_ps, _mm256_loadu_ps, _mm256_movemask_ps,
        _mm256_set1_ps, _mm512_cmp_ps_mask, _mm512_loadu_ps, _mm512_mask_cmp_ps_mask, _mm512_set1_ps,
    };

    use super::Floats;

    impl Floats for __m256 {
        const LANES: usize = 8;

        #[inline(always)]
        fn between(estimates: &[f32], low: f32, high: f32) -> u32 {
            let estimates = &estimates[..8];
            // SAFETY: 8 lanes are there; the caller is compiled for AVX2.
            unsafe {
                let v = _mm256_loadu_ps(estimates.as_ptr());
                let above = _mm256_cmp_ps::<_CMP_LT_OQ>(_mm256_set1_ps(low), v);
                let below = _mm256_cmp_ps::<_CMP_LT_OQ>(v, _mm256_set1_ps(high));
                _mm256_movemask_ps(_mm256_and_ps(above, below)).cast_unsigned()
            }
        }
    }

    impl Floats for __m512 {
        const LANES: usize = 16;

        #[inline(always)]
        fn between(estimates: &[f32], low: f32, high: f32) -> u32 {
            let estimates = &estimates[..16];
            // SAFETY: 16 lanes are there; the caller is compiled for AVX-512.
            unsafe {
                let v = _mm512_loadu_ps(estimates.as_ptr());
                let above = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(_mm512_set1_ps(low), v);
                u32::from(_mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(above, v, _mm512_set1_ps(high)))
            }
        }
    }
}
