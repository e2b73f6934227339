//! The screen: which candidates *may* have a distance from an anchor that is in a window.
//!
//! It measures in low precision, which is fast and inexact, and drops a candidate only if a proven bound says
//! that its float64 distance is outside the window. [`exact`](super::exact) decides about the candidates that
//! pass: the screen can cost time, never an answer.
//!
//! Candidates are multiplied in *panels* of 32, anchors in *blocks* of 24. The estimates of a block are kept
//! for a *stretch* of at most 320 panels, so that all pairs of an anchor can look at them. No matrix of all
//! distances is kept. `float` and `integer` are the two products, [`block`] holds the estimates, and [`mark`]
//! compares them with a window; [`sieve`] compares each with the windows of both rows, and keeps none.
//!
//! # The bound
//!
//! Rows are scaled by one power of two, so that the longest has a norm in `[1/2, 1)`, or as near as a
//! float32 factor brings it (`2^12` at most). In that scale let `d` be the squared distance of an anchor
//! and a candidate in real numbers. Scaled, moved and turned together (`integer`) or only scaled
//! (`float`), rows keep their distances: `d = |x - y|^2`.
//!
//! A product works on `x = X + r` and `y = Y + t`: `X` and `Y` are what the codes stand for, and of the
//! residuals `r` and `t` only the lengths are kept, rounded up (zero in `float`). By the triangle inequality
//!
//! ```text
//! |sqrt(d) - sqrt(D)| <= |r| + |t|                   D = |X - Y|^2 = |X|^2 + |Y|^2 - 2 X.Y
//! ```
//!
//! which is tighter the nearer the rows are. `D` is evaluated in float32. With `u = 2^-24` its rounding
//! unit, `s` the product as multiplied, `n = fl(|Y|^2)` and `v = fl(n - 2 s)`, for both kinds of product
//!
//! ```text
//! |s - X.Y| <= g |X||Y| + a
//! |v - (|Y|^2 - 2 X.Y)| <= u |Y|^2 + 2 g |X||Y| + 2 a + 1.01 u (|Y|^2 + 2 |X||Y|)
//!                       <= (g + 4 u) (|X|^2 + |Y|^2) + 2 a          (2 |X||Y| <= |X|^2 + |Y|^2)
//! ```
//!
//! * `integer`: the sum of products is exact; it is converted, the steps are multiplied, and the two are
//!   multiplied: `g = 3.1 u`, and `a` covers steps whose product underflows.
//! * `float`: `g = K u / (1 - K u)` for `K` columns in any order of summation, fused or not (Higham 2002,
//!   section 3.1), and `a = K 2^-125` for products that underflow.
//!
//! `E = e (|X|^2 + |Y|^2) + 2^-100` with `e = g + 2^-20` (16 u) leaves 8 u and more for the rounding of the
//! comparison itself. So a candidate is outside the window unless
//!
//! ```text
//! (sqrt(above) - |r| - |t|)^2 - E  <  v + |X|^2  <  (sqrt(below) + |r| + |t|)^2 + E
//! ```
//!
//! All candidates of a panel are compared with its largest `|t|` and `|Y|`, and where it is the other way round, a
//! candidate's window with the largest `|r|` and `|X|` of a block. Square roots of edges and
//! residuals are moved outwards by `2^-20`, many times the rounding error of their evaluation.
//!
//! The definition's float64 distance is `d` times `1 + (K + 8) 2^-53` at most, and a metric's scale adds a
//! few roundings: windows are widened by `(K + 16) 2^-50`. What must be above a window's lower edge for certain
//! is compared with one that was moved inwards by as much. As everywhere in the miner, the floating-point
//! mode is the default one of IEEE 754: subnormal numbers are not flushed to zero.
//!
//! For unit rows of 512 Gaussian numbers `|r| + |t|` is 0.019 in 8 bits, 0.037 in 7 and 0.0004 in 16, so a
//! distance of 1 is known to 0.04, 0.08 and 0.0008, against a margin of 0.3.

use std::ops::Range;

use super::points::{Place, Points, Sets};
use super::shortage::ROWS;
use crate::{Interrupt, Isa, Result, memory};

mod block;
mod float;
#[cfg(target_arch = "x86_64")]
mod integer;
mod mark;
mod sieve;

pub use block::{AnchorEstimates, Block, Estimates, Nearest};
use float::Float;
#[cfg(target_arch = "x86_64")]
use integer::{Bits, Integer};
pub use mark::Edges;

/// Candidates in a panel: they are packed and multiplied in panels.
const COLUMNS: usize = 32;

/// Anchors in a block: they share one pass over the candidates, which then come from L3 or memory at 2.6
/// bytes per cycle. A multiple of the anchors of every register tile (12, 8, 4).
pub const BLOCK: usize = 24;

/// Panels in a stretch: the estimates of a block for a stretch are kept. 10,240 candidates, 960 KiB.
const STRETCH: usize = 320;

/// What costs more: to multiply, or to let a row through that is not in the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Multiply fast: few of the rows that pass are tested.
    Coarse,
    /// Multiply closely: all rows that pass are tested, and many are near the window.
    Fine,
}

/// An interval of squared distances in the screen's scale, open at both ends.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    above: f64,
    below: f64,
}

impl Window {
    /// A window that holds no distance.
    pub const EMPTY: Self = Self { above: f64::INFINITY, below: f64::NEG_INFINITY };

    /// The smallest window that holds both.
    pub fn union(self, other: Self) -> Self {
        Self { above: self.above.min(other.above), below: self.below.max(other.below) }
    }

    /// The part of it that another one, which begins where it begins, holds, too.
    pub fn up_to_end_of(self, other: Self) -> Self {
        Self { below: self.below.min(other.below), ..self }
    }

    /// Whether it holds no distance.
    pub fn is_empty(self) -> bool {
        self.above >= self.below
    }

    /// Whether a distance between the bounds may be in the window.
    pub fn may_hold(self, bounds: Bounds) -> bool {
        bounds.high > self.above && bounds.low < self.below
    }
}

/// Covers edges that are subnormal, here or in the scale.
const SUBNORMAL: f64 = 1e-300;

/// An edge, moved upwards by a fraction of it.
fn moved(edge: f64, fraction: f64) -> f64 {
    edge + edge.abs() * fraction + fraction.signum() * SUBNORMAL
}

/// What the screen knows about one squared distance: it is neither below `low` nor above `high`.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    low: f64,
    high: f64,
}

/// All rows, coded and packed for the product, with the terms of the bound.
pub struct Screen<'a> {
    isa: Isa,
    product: Box<dyn Product + 'a>,
    /// Factor of squared lengths.
    squared_scale: f64,
    /// The fraction of a distance by which windows are widened.
    widening: f64,
    /// `e` of the bound.
    error: f64,
    panels: Vec<Panel>,
}

/// What the bound needs of a row.
#[derive(Debug, Clone, Copy, Default)]
struct BoundTerms {
    /// `|X|^2`, rounded to float64.
    squared_norm: f64,
    /// At least `|r|`.
    residual: f64,
}

/// The rows in the precision in which they are multiplied.
trait Product: Sync {
    /// `g` of the bound.
    fn error(&self) -> f64;

    /// The terms of the anchors, by place.
    fn anchors(&self) -> &[BoundTerms];

    /// The terms of the candidates, by place.
    fn candidates(&self) -> &[BoundTerms];

    /// A single product, within the same bound.
    fn one(&self, anchor: Place, candidate: Place) -> f32;

    /// Packs at most [`BLOCK`] anchors, to be multiplied by one panel after another.
    fn block<'b>(&'b self, anchors: &[Place]) -> Result<EstimatePanel<'b>>;
}

/// Called with the number of a panel, its `n`, and room for the estimates of [`BLOCK`] anchors: writes `v` of
/// anchor i and the panel's candidates to number i of the latter.
type EstimatePanel<'b> = Box<dyn Fn(usize, &[f32; COLUMNS], &mut [[f32; COLUMNS]]) + 'b>;

/// What the bound needs of the candidates of a panel.
struct Panel {
    /// `n` of each, infinite after the last candidate.
    squared_norms: [f32; COLUMNS],
    /// The largest `n`.
    squared_norm: f32,
    /// The largest `|t|`.
    residual: f32,
}

/// Covers the float32 evaluation of a term of the bound.
const RAISE: f64 = 1.0 + 1.0 / (1 << 20) as f64;
const LOWER: f64 = 1.0 - 1.0 / (1 << 20) as f64;

/// `e - g` of the bound.
const ROUNDED: f64 = 1.0 / (1 << 20) as f64;

/// `2^-100`, more than `2 a` of the bound.
const UNDERFLOW: f64 = 1.0 / (1_u128 << 100) as f64;

impl<'a> Screen<'a> {
    /// Codes and packs the rows.
    pub fn new(sets: &'a Sets, precision: Precision, isa: Isa, interrupt: &Interrupt) -> Result<Self> {
        let longest = |points: &Points| points.squared_norms.iter().fold(0.0_f64, |a, &b| a.max(b));
        let scale = power_of_two_below(longest(&sets.anchors).max(longest(sets.candidates())));
        let product = choose_product(sets, precision, scale as f32, isa, interrupt)?;
        let points = sets.candidates();
        let panels = product.candidates().chunks(COLUMNS).map(|panel| {
            let mut squared_norms = [f32::INFINITY; COLUMNS];
            let mut largest = BoundTerms::default();
            for (to, terms) in squared_norms.iter_mut().zip(panel) {
                *to = terms.squared_norm as f32;
                largest.squared_norm = largest.squared_norm.max(terms.squared_norm);
                largest.residual = largest.residual.max(terms.residual);
            }
            Panel {
                squared_norms,
                squared_norm: (largest.squared_norm * RAISE) as f32,
                residual: (largest.residual * RAISE) as f32,
            }
        });
        Ok(Self {
            isa,
            squared_scale: scale * scale,
            widening: (points.width() as f64 + 16.0) * 2_f64.powi(-50),
            error: product.error() + ROUNDED,
            panels: memory::collect(panels, ROWS)?,
            product,
        })
    }

    /// The squared distances between `above` and `below`, without these two.
    pub fn window(&self, above: f64, below: f64) -> Window {
        let outwards = |edge: f64, sign: f64| moved(edge * self.squared_scale, sign * self.widening);
        Window { above: outwards(above, -1.0), below: outwards(below, 1.0) }
    }

    /// The part of a window that is not above a candidate whose distance is at most this. A candidate that is as
    /// far away, up to a rounding, stays in it.
    fn up_to(&self, window: Window, farthest: f64) -> Window {
        window.up_to_end_of(Window { below: moved(farthest, 2.0 * self.widening), ..window })
    }

    /// The distances from here on are above the edge that was moved outwards to the window's lower one.
    fn certainly_above(&self, window: Window) -> f64 {
        if window.above == f64::NEG_INFINITY {
            return window.above;
        }
        moved(window.above, 3.0 * self.widening) + 2.0 * SUBNORMAL
    }

    /// The edges of a window around an anchor.
    fn edges(&self, window: Window, anchor: BoundTerms) -> Edges {
        Edges::new(window, self.certainly_above(window), anchor, self.error)
    }

    /// What a single product says about the squared distance of an anchor and a candidate.
    pub fn bounds(&self, anchor: Place, candidate: Place) -> Bounds {
        let (x, y) = (self.product.anchors()[anchor as usize], self.product.candidates()[candidate as usize]);
        let v = y.squared_norm as f32 - 2.0 * self.product.one(anchor, candidate);
        self.bounds_of(v, x, y)
    }

    fn bounds_of(&self, v: f32, x: BoundTerms, y: BoundTerms) -> Bounds {
        let squared = f64::from(v) + x.squared_norm;
        let error = self.error * (x.squared_norm + y.squared_norm) + UNDERFLOW;
        let residual = x.residual + y.residual;
        let low = (squared - error).max(0.0).sqrt() - residual;
        let high = (squared + error).max(0.0).sqrt() + residual;
        Bounds { low: low.max(0.0).powi(2), high: high * high }
    }

    /// How many panels there are.
    pub fn panels(&self) -> usize {
        self.panels.len()
    }

    /// Whether one stretch holds all candidates.
    pub fn is_one_stretch(&self) -> bool {
        self.panels.len() <= STRETCH
    }

    /// The stretches: ranges of panels.
    pub fn stretches(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let count = self.panels.len();
        (0..count).step_by(STRETCH).map(move |first| first..count.min(first + STRETCH))
    }
}

/// The places of a panel.
fn places(candidates: &Points, panel: usize) -> impl Iterator<Item = Place> + use<> {
    let first = panel * COLUMNS;
    first as Place..candidates.len().min(first + COLUMNS) as Place
}

/// Whole numbers if the CPU has instructions for them and the rows are not too long, else float32.
fn choose_product<'a>(
    sets: &'a Sets,
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))] precision: Precision,
    scale: f32,
    #[cfg_attr(not(target_arch = "x86_64"), allow(unused_variables))] isa: Isa,
    interrupt: &Interrupt,
) -> Result<Box<dyn Product + 'a>> {
    #[cfg(target_arch = "x86_64")]
    {
        let bits = match precision {
            Precision::Coarse => Bits::Eight,
            Precision::Fine => Bits::Sixteen,
        };
        if let Some(integer) = Integer::new(sets, bits, scale, isa, interrupt)? {
            return Ok(Box::new(integer));
        }
    }
    Ok(Box::new(Float::new(sets, scale, interrupt)?))
}

/// The power of two that brings a squared length into `[1/4, 1)`, as a factor of the length.
fn power_of_two_below(squared: f64) -> f64 {
    if squared == 0.0 {
        return 1.0;
    }
    let exponent = squared.sqrt().log2().floor() as i32 + 1;
    // The factor must itself be a float32, subnormal ones excluded: rows of norm 2^-126 and below
    // stay small, which the underflow term covers.
    2_f64.powi((-exponent).clamp(-126, 126))
}

#[cfg(test)]
mod tests;
