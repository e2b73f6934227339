//! Which candidates may be in a window: a bit for each, from a comparison of its estimate with the edges.

use super::{BLOCK, BoundTerms, COLUMNS, LOWER, Panel, RAISE, UNDERFLOW, Window};
use crate::simd::{Simd, per_isa};

/// The edges of a window around an anchor in float32, for a comparison with `v`.
pub struct Edges {
    error: f32,
    pub(super) above: f32,
    pub(super) below: f32,
    /// From here on a distance is above, rounding included; minus infinity if all are.
    certain: f32,
    pub(super) squared_norm: f32,
    pub(super) residual: f32,
}

impl Edges {
    /// Of a window around an anchor, and the distance from which on all are certainly above its lower edge.
    pub(super) fn new(window: Window, certain: f64, anchor: BoundTerms, error: f64) -> Self {
        Self {
            error: error as f32,
            above: (window.above.max(0.0).sqrt() * LOWER) as f32,
            below: (window.below.max(0.0).sqrt() * RAISE) as f32,
            certain: match certain {
                f64::NEG_INFINITY => f32::NEG_INFINITY,
                certain => (certain.max(0.0).sqrt() * RAISE) as f32,
            },
            squared_norm: anchor.squared_norm as f32,
            residual: (anchor.residual * RAISE) as f32,
        }
    }

    /// Each candidate of the panel with a `v` that is not between these two is outside the window.
    #[inline(always)]
    pub(super) fn of_panel(&self, panel: &Panel) -> (f32, f32) {
        let residual = self.residual + panel.residual;
        let offset = self.error * (self.squared_norm + panel.squared_norm) + UNDERFLOW as f32;
        let (nearest, farthest) = ((self.above - residual).max(0.0), self.below + residual);
        let low = nearest * nearest * LOWER as f32 - (self.squared_norm + offset);
        let high = farthest * farthest * RAISE as f32 - (self.squared_norm - offset);
        (low, high)
    }

    /// Each candidate of the panel with a larger `v` is above the window's lower edge.
    #[inline(always)]
    pub(super) fn certain_of_panel(&self, panel: &Panel) -> f32 {
        let nearest = self.certain + self.residual + panel.residual;
        let offset = self.error * (self.squared_norm + panel.squared_norm) + UNDERFLOW as f32;
        // Of an infinite edge, a square would lose the sign.
        if nearest < 0.0 { nearest } else { nearest * nearest * RAISE as f32 - (self.squared_norm - offset) }
    }
}

per_isa! {
    /// Sets a bit for each candidate of some panels that may be between the edges. The estimates of an anchor
    /// for one panel and the next are [`BLOCK`] apart.
    pub fn mark(estimates: &[[f32; COLUMNS]], panels: &[Panel], edges: &Edges, marks: &mut [u32]) => mark_body
}

#[inline(always)]
fn mark_body<S: Simd>(
    simd: S,
    estimates: &[[f32; COLUMNS]],
    panels: &[Panel],
    edges: &Edges,
    marks: &mut [u32],
) {
    for ((estimates, panel), marks) in estimates.iter().step_by(BLOCK).zip(panels).zip(marks) {
        let (low, high) = edges.of_panel(panel);
        *marks = 0;
        for first in (0..COLUMNS).step_by(S::F32_LANES) {
            *marks |= simd.between_f32(&estimates[first..], low, high) << first;
        }
    }
}

per_isa! {
    /// Writes the smallest estimate of each panel among those that are certainly above the window's lower edge;
    /// infinity if none is.
    pub fn least(estimates: &[[f32; COLUMNS]], panels: &[Panel], edges: &Edges, least: &mut [f32]) => least_body
}

#[inline(always)]
fn least_body(
    _: impl Simd,
    estimates: &[[f32; COLUMNS]],
    panels: &[Panel],
    edges: &Edges,
    least: &mut [f32],
) {
    for ((estimates, panel), least) in estimates.iter().step_by(BLOCK).zip(panels).zip(least) {
        let certain = edges.certain_of_panel(panel);
        let smaller = |a: f32, b: f32| if a < b { a } else { b };
        let mut found = estimates.map(|v| if v > certain { v } else { f32::INFINITY });
        let mut lanes = COLUMNS;
        while lanes > 1 {
            lanes /= 2;
            for lane in 0..lanes {
                found[lane] = smaller(found[lane], found[lane + lanes]);
            }
        }
        *least = found[0];
    }
}
